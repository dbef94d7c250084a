//! Errors: one line that says what happened, one that says how to mend it, and a code for scripts.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use avtomatika_proto::ErrorCode;
use insta::assert_snapshot;

use crate::server::{JOB_ID, Ran, Script, Server, avtomatika, ran};

#[test]
fn an_orchestrator_that_is_not_there() {
    // A port that was free a moment ago, and that nobody listens on now.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let Ran { code, stdout, stderr } = ran(&mut avtomatika(&["--url", &url, "list"]));
    assert_snapshot!(Ran { code, stdout, stderr: stderr.replace(&url, "http://SERVER") });
}

#[test]
fn an_orchestrator_that_does_not_answer() {
    let server = Server::start(Script { silent: true, ..Script::default() });
    assert_snapshot!(server.run(&["--timeout", "100ms", "get", JOB_ID]));
}

#[test]
fn something_else_at_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The answer of a web server that knows HTTP/1 only.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let answer = ran(&mut avtomatika(&["--url", &url, "list"]));
    assert_eq!((answer.code, answer.stdout.as_str()), (10, ""), "{answer}");
    assert_eq!(answer.stderr.lines().count(), 2, "{answer}");
}

#[test]
fn a_token_that_the_orchestrator_does_not_know() {
    let server = Server::start(Script::default());
    assert_snapshot!(server.run(&["--token", "wrong", "list"]));
}

#[test]
fn the_token_comes_from_the_option_then_the_environment_then_for_this_machine_the_development_one() {
    let server = Server::start(Script::default());
    ran(server.command(&["--token", "option", "list"]).env("AVTOMATIKA_TOKEN", "environment"));
    ran(server.command(&["list"]).env("AVTOMATIKA_TOKEN", "environment"));
    ran(server.command(&["list"]).env("AVTOMATIKA_TOKEN", ""));
    let sent: Vec<_> = server.heard(|heard| heard.authorization.iter().flatten().cloned().collect());
    assert_eq!(sent, ["Bearer option", "Bearer environment", "Bearer test-client-token"]);
}

#[test]
fn a_token_never_appears_in_what_is_shown() {
    let server = Server::start(Script::default());
    for args in [&["list"][..], &["--help"], &["list", "--nope"]] {
        let answer = ran(server.command(args).env("AVTOMATIKA_TOKEN", "s3cret"));
        assert!(!answer.to_string().contains("s3cret"), "{answer}");
    }
}

#[test]
fn a_job_that_is_not_there() {
    let server = Server::start(Script::default());
    assert_snapshot!(server.run(&["get", JOB_ID]));
    for command in ["history", "cancel", "watch"] {
        assert_eq!(server.run(&[command, JOB_ID]).code, 12, "{command}");
    }
}

#[test]
fn a_blueprint_that_is_not_there() {
    let server = Server::start(Script::default());
    assert_snapshot!(server.run(&["blueprint", "show", "nope"]));
}

#[test]
fn every_refusal_has_its_exit_code() {
    for (code, exit) in [
        (ErrorCode::InvalidArgument, 13),
        (ErrorCode::IdempotencyConflict, 13),
        (ErrorCode::JobTerminal, 13),
        (ErrorCode::Unsupported, 13),
        (ErrorCode::Internal, 13),
        (ErrorCode::TooManyOpenJobs, 14),
        (ErrorCode::StorageFull, 14),
        (ErrorCode::ShuttingDown, 14),
        (ErrorCode::MissingToken, 11),
        (ErrorCode::InvalidToken, 11),
        (ErrorCode::JobNotFound, 12),
        (ErrorCode::BlueprintNotFound, 12),
        (ErrorCode::WorkerNotFound, 12),
    ] {
        let server = Server::start(Script { error: Some((code, "what happened")), ..Script::default() });
        let answer = server.run(&["submit", "test_workflow"]);
        assert_eq!((answer.code, answer.stdout.as_str()), (exit, ""), "{answer}");
        assert!(answer.stderr.starts_with(&format!("error: what happened ({code})\n hint: ")), "{answer}");
    }
}
