//! Standard output as scripts and terminals meet it: closed early, coloured or not, safe against what jobs contain.

use std::{
    collections::HashMap,
    io,
    process::{Command, Stdio},
};

use avtomatika_proto::v1::*;

use crate::{
    files::file,
    server::{JOB_ID, Ran, Script, Server, Then, avtomatika, job, ran, told},
};

/// Runs with a standard output that nobody reads any more, as after `head` has seen enough.
pub fn ran_unread(mut command: Command) -> Ran {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    told(command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap())
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let server = Server::start(Script { jobs: vec![job(JobStatus::Finished); 50], ..Script::default() });
    for args in
        [&["list", "--all"][..], &["list", "--all", "-o", "json"], &["get", JOB_ID], &["completions", "bash"]]
    {
        let answer = ran_unread(server.command(args));
        assert_eq!((answer.code, answer.stderr.as_str()), (0, ""), "{args:?}");
    }
    assert_eq!(ran_unread(avtomatika(&["--help"])).code, 0);
}

#[test]
fn a_reader_that_leaves_does_not_turn_an_unknown_end_into_a_good_one() {
    let server = Server::start(Script {
        watches: vec![
            (vec![job(JobStatus::Running)], Then::Stay),
            (vec![job(JobStatus::Failed)], Then::End),
            (vec![job(JobStatus::Failed)], Then::End),
        ],
        ..Script::default()
    });
    let watch = ran_unread(server.command(&["watch", JOB_ID]));
    assert_eq!((watch.code, watch.stderr.as_str()), (5, ""));
    let wait = ran_unread(server.command(&["submit", "test_workflow", "--wait"]));
    assert_eq!(wait.code, 1, "{wait}");
    let watch = ran_unread(server.command(&["watch", JOB_ID]));
    assert_eq!((watch.code, watch.stderr.as_str()), (1, ""), "the end was known when nobody read of it");
}

const PARCEL: &str = "blueprint: parcel
states:
  init: { start: true, task: { type: weigh }, on: { success: done } }
  done: { end: finished }
";

#[test]
fn a_reader_that_leaves_does_not_turn_a_failure_into_a_success() {
    let dir = tempfile::tempdir().unwrap();
    let sound = file(&dir, "sound.yaml", PARCEL);
    let other = file(&dir, "other.yaml", &PARCEL.replace("init", "begin"));
    let broken = file(&dir, "broken.yaml", &PARCEL.replace("success: done", "success: don"));

    let findings = vec![Finding { severity: FindingSeverity::Error.into(), ..Finding::default() }];
    let stays = JobMove { refused: "children_run".into(), ..JobMove::default() };
    let stopped_by = Some(SubmitJobError { code: "TOO_MANY_OPEN_JOBS".into(), ..SubmitJobError::default() });
    let script = || Script {
        reload: ReloadConfigResponse { findings: findings.clone(), ..Default::default() },
        put: PutBlueprintResponse { findings: findings.clone(), ..Default::default() },
        migrations: vec![MigrateJobsResponse { moves: vec![stays.clone()], ..Default::default() }],
        ..Script::default()
    };
    let repairing = |answer: RepairJobsResponse| Script { repairs: vec![answer], ..Script::default() };
    let some = RepairJobsResponse { count: 1, ..Default::default() };
    let refused = RepairJobsResponse { refused_count: 1, ..some.clone() };
    let stopped = RepairJobsResponse { stopped_by, ..some.clone() };
    // The call for the next page is answered with an error.
    let broken_off = RepairJobsResponse { next_cursor: "next".into(), ..some };

    for (args, script, code) in [
        (&["blueprint", "check", &broken][..], Script::default(), 1),
        (&["blueprint", "diff", &sound, &other], Script::default(), 1),
        (&["blueprint", "put", &broken], script(), 1),
        (&["blueprint", "migrate", "parcel"], script(), 1),
        (&["reload"], script(), 1),
        (&["retry", "--all"], repairing(refused), 13),
        (&["retry", "--all"], repairing(stopped), 14),
        (&["retry", "--all"], repairing(broken_off), 10),
    ] {
        for format in ["table", "json"] {
            let server = Server::start(script.clone());
            let answer = ran_unread(server.command(&[&["-o", format], args].concat()));
            assert_eq!(answer.code, code, "{format} {args:?}: {answer}");
        }
    }
}

#[test]
fn a_full_disk_behind_the_output_is_an_error() {
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else { return };
    let server = Server::start(Script { jobs: vec![job(JobStatus::Finished)], ..Script::default() });
    let child = server.command(&["list"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let answer = told(child.wait_with_output().unwrap());
    assert_eq!(answer.code, 15);
    assert!(answer.stderr.starts_with("error: cannot write to standard output: No space left"), "{answer}");
}

#[test]
fn colours_come_only_where_they_are_wanted() {
    let server = Server::start(Script { jobs: vec![job(JobStatus::Finished)], ..Script::default() });
    let plain = ran(server.command(&["list"]).env_remove("NO_COLOR"));
    assert!(!plain.stdout.contains('\u{1b}'), "a pipe gets no colours: {plain}");
    let forced = ran(server.command(&["list"]).env_remove("NO_COLOR").env("CLICOLOR_FORCE", "1"));
    assert!(forced.stdout.contains("\u{1b}[38;5;10mfinished"), "{:?}", forced.stdout);
    let refused = ran(server.command(&["list"]).env("CLICOLOR_FORCE", "1"));
    assert_eq!(refused.stdout, plain.stdout, "NO_COLOR wins");
}

#[test]
fn what_a_job_contains_cannot_command_the_terminal() {
    let evil = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}\n\rx";
    let hostile = Job {
        blueprint_name: evil.into(),
        current_state: evil.into(),
        error_message: evil.into(),
        labels: HashMap::from([(evil.into(), evil.into())]),
        initial_data: format!("{{\"a\": \"{}\"}}", evil.escape_unicode()),
        state_history: "not json \u{1b}[2J \u{9b}2J".into(),
        result: "{\"c1\": \"\u{9b}2J\u{202e}\"}".into(),
        ..job(JobStatus::Failed)
    };
    let watches = vec![(vec![hostile.clone()], Then::End), (vec![hostile.clone()], Then::End)];
    let server = Server::start(Script { jobs: vec![hostile], watches, ..Script::default() });
    for command in [&["get", JOB_ID][..], &["list"], &["watch", JOB_ID]] {
        for form in ["table", "json"] {
            let answer = ran(server.command(command).args(["-o", form]));
            let odd = answer.stdout.chars().find(|&c| (c.is_control() && c != '\n') || c == '\u{202e}');
            assert_eq!(odd, None, "{command:?} {form}: {:?}", answer.stdout);
        }
    }
}
