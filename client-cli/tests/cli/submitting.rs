//! Creating jobs: where the data comes from, what is sent, what is answered.

use std::{collections::HashMap, fs};

use avtomatika_proto::{limits::PAYLOAD_BYTES_MAX, v1::SubmitJobRequest};

use crate::server::{JOB_ID, Script, Server, ran_with_input};

#[test]
fn submit_answers_with_the_id_alone_on_standard_output() {
    let server = Server::start(Script::default());
    let answer = server.run(&["submit", "test_workflow"]);
    assert_eq!((answer.code, answer.stdout), (0, format!("{JOB_ID}\n")));
    let json = server.run(&["submit", "test_workflow", "-o", "json"]).stdout;
    assert_eq!(json, format!("{{\"status\":\"accepted\",\"job_id\":\"{JOB_ID}\",\"deduplicated\":false}}\n"));
}

#[test]
fn submit_sends_all_that_it_was_given() {
    let server = Server::start(Script::default());
    server.run(&[
        "submit",
        "test_workflow",
        "--data",
        "{ \"input\": 42 }",
        "--label",
        "team=billing",
        "--priority",
        "-7",
        "--idempotency-key",
        "order-4711",
        "--dispatch-timeout",
        "1500ms",
        "--result-timeout",
        "2h",
        "--start-at",
        "2023-11-14T23:13:20+01:00",
        "--webhook-url",
        "https://example.com/hooks",
    ]);
    let sent = server.heard(|heard| heard.submitted[0].clone());
    assert_eq!(
        sent,
        SubmitJobRequest {
            blueprint: "test_workflow".into(),
            initial_data: "{ \"input\": 42 }".into(),
            idempotency_key: "order-4711".into(),
            labels: HashMap::from([("team".into(), "billing".into())]),
            priority: -7,
            dispatch_timeout: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            result_timeout: Some(prost_types::Duration { seconds: 7200, nanos: 0 }),
            webhook_url: "https://example.com/hooks".into(),
            wait: None,
            start_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            delay: None,
        }
    );
}

#[test]
fn a_delay_is_sent_as_it_was_given() {
    let server = Server::start(Script::default());
    assert_eq!(server.run(&["submit", "test_workflow", "--delay", "10m"]).code, 0);
    let sent = server.heard(|heard| heard.submitted[0].delay);
    assert_eq!(sent, Some(prost_types::Duration { seconds: 600, nanos: 0 }));
}

#[test]
fn a_key_that_was_used_before_is_told() {
    let server = Server::start(Script::default());
    let submit = || server.run(&["submit", "test_workflow", "-k", "order-4711"]);
    assert!(submit().stderr.starts_with("Job accepted;"));
    assert!(submit().stderr.starts_with("Job was already accepted under this key;"));
}

#[test]
fn data_comes_from_the_argument_a_file_or_standard_input() {
    let server = Server::start(Script::default());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("order.json");
    fs::write(&file, "{\"from\": \"file\"}\n").unwrap();
    let argument = format!("@{}", file.display());
    assert_eq!(server.run(&["submit", "test_workflow", "--data", &argument]).code, 0);
    let piped = ran_with_input(
        &mut server.command(&["submit", "test_workflow", "-d", "-"]),
        b"{\"from\": \"stdin\"}",
    );
    assert_eq!(piped.code, 0, "{piped}");
    assert_eq!(server.run(&["submit", "test_workflow"]).code, 0);
    let sent =
        server.heard(|heard| heard.submitted.iter().map(|job| job.initial_data.clone()).collect::<Vec<_>>());
    assert_eq!(sent, ["{\"from\": \"file\"}\n", "{\"from\": \"stdin\"}", "{}"]);
}

#[test]
fn data_that_cannot_be_sent_ends_with_2_before_anything_is_sent() {
    let server = Server::start(Script::default());
    for (data, words) in [
        ("{\"a\": ", "--data is not valid JSON: EOF while parsing a value at line 1 column 6"),
        ("[1, 2]", "--data is JSON, but not an object"),
        ("@/no/such/file.json", "cannot read /no/such/file.json: No such file or directory"),
        ("-", "standard input is not valid JSON"),
    ] {
        let answer = server.run(&["submit", "test_workflow", "--data", data]);
        assert_eq!((answer.code, answer.stdout.as_str()), (2, ""), "{answer}");
        assert!(answer.stderr.starts_with(&format!("error: {words}")), "{answer}");
        assert!(answer.stderr.contains("\n hint: give a JSON object"), "{answer}");
    }
    assert_eq!(server.heard(|heard| heard.submitted.len()), 0);
}

#[test]
fn an_endless_input_is_not_read_to_its_end() {
    let server = Server::start(Script::default());
    let mut command = server.command(&["submit", "test_workflow", "-d", "@/dev/zero"]);
    let answer = crate::server::ran(&mut command);
    assert_eq!(answer.code, 2, "{answer}");
    assert!(answer.stderr.contains(&format!("holds more than {} KiB", PAYLOAD_BYTES_MAX / 1024)), "{answer}");
}

#[test]
fn a_lost_answer_says_that_the_job_may_exist() {
    let server = Server::start(Script { silent: true, ..Script::default() });
    // Long enough to connect on a busy machine: the case is about the answer, not about the connection.
    let answer = server.run(&["submit", "test_workflow", "--timeout", "2s"]);
    assert_eq!(answer.code, 10);
    assert!(answer.stderr.contains("hint: the job may or may not exist"), "{answer}");
}
