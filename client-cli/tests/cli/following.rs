//! `submit --wait` and `watch`: to the end, through lost connections, until someone says stop.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use avtomatika_proto::v1::{Job, JobStatus};
use insta::assert_snapshot;

use crate::server::{JOB_ID, Script, Server, Then, at, job, told};

fn following(watches: Vec<(Vec<Job>, Then)>) -> Server {
    Server::start(Script { jobs: vec![job(JobStatus::Running)], watches, ..Script::default() })
}

fn waiting_for_worker() -> Job {
    Job { updated_at: at(10), ..job(JobStatus::WaitingForWorker) }
}

const ENDS: [(JobStatus, i32); 4] = [
    (JobStatus::Finished, 0),
    (JobStatus::Failed, 1),
    (JobStatus::Cancelled, 3),
    (JobStatus::Quarantined, 4),
];

#[test]
fn the_exit_code_tells_how_the_job_ended() {
    for (status, code) in ENDS {
        let updates = vec![waiting_for_worker(), job(JobStatus::Running), job(status)];
        let server = following(vec![(updates.clone(), Then::End), (updates, Then::Stay)]);
        assert_eq!(server.run(&["submit", "test_workflow", "--wait"]).code, code, "{status:?}");
        // The end is in the job, not in the stream: a stream that stays open afterwards is left.
        assert_eq!(server.run(&["watch", JOB_ID]).code, code, "{status:?}");
    }
}

#[test]
fn submit_and_wait_shows_the_job_at_its_end() {
    let updates = vec![waiting_for_worker(), job(JobStatus::Running), job(JobStatus::Finished)];
    let server = following(vec![(updates.clone(), Then::End), (updates, Then::End)]);
    assert_snapshot!("submit_wait_table", server.run(&["submit", "test_workflow", "--wait=1d"]));
    assert_snapshot!("submit_wait_json", server.run(&["submit", "test_workflow", "--wait", "-o", "json"]));
}

#[test]
fn a_wait_that_ends_before_the_job_shows_it_as_it_is() {
    let server = following(vec![(vec![job(JobStatus::Running)], Then::Stay)]);
    assert_snapshot!("submit_wait_too_short", server.run(&["submit", "test_workflow", "--wait=1ms"]));
}

#[test]
fn watch_prints_a_line_for_every_change() {
    let updates = vec![waiting_for_worker(), job(JobStatus::Running), job(JobStatus::Failed)];
    let server = following(vec![(updates.clone(), Then::End), (updates, Then::End)]);
    assert_snapshot!("watch_table", server.run(&["watch", JOB_ID]));
    let lines = server.run(&["watch", JOB_ID, "-o", "json"]).stdout;
    let statuses: Vec<_> = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("each line is a job")["status"].clone()
        })
        .collect();
    assert_eq!(statuses, ["waiting_for_worker", "running", "failed"]);
}

#[test]
fn a_restart_of_the_orchestrator_does_not_end_a_watch() {
    let server = following(vec![
        (vec![waiting_for_worker()], Then::Break),
        (vec![job(JobStatus::Running)], Then::End),
        (vec![job(JobStatus::Finished)], Then::End),
    ]);
    let answer = server.run(&["watch", JOB_ID]);
    assert_eq!(answer.code, 0, "{answer}");
    assert_eq!(answer.stdout.lines().count(), 3, "{answer}");
    assert_eq!(
        answer.stderr,
        "Connection lost (the orchestrator is shutting down); trying again.\n\
         Connection lost (cannot reach an orchestrator at http://SERVER: the stream ended before the job did); trying \
         again.\n"
    );
}

#[test]
fn a_job_that_is_gone_after_a_restart_ends_the_watch() {
    let server = Server::start(Script {
        watches: vec![(vec![waiting_for_worker()], Then::Break)],
        ..Script::default()
    });
    assert_eq!(server.run(&["watch", JOB_ID]).code, 12);
}

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts")
}

fn send(signal: &str, child: &Child) {
    let status =
        Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal, &child.id().to_string()]).status();
    assert!(status.expect("there is a shell").success());
}

#[test]
fn a_signal_while_waiting_leaves_the_job_alone() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let server = following(vec![(vec![job(JobStatus::Running)], Then::Stay)]);
        let child = spawn(server.command(&["submit", "test_workflow", "--wait"]));
        server.until_watched();
        send(signal, &child);
        let answer = told(child.wait_with_output().unwrap());
        assert_eq!((answer.code, answer.stdout.as_str()), (code, ""), "{signal}: {answer}");
        assert!(answer.stderr.contains("Interrupted. The job goes on"), "{answer}");
        assert_eq!(server.heard(|heard| heard.cancelled.len()), 0);
    }
}

#[test]
fn a_signal_ends_a_watch_after_what_it_has_shown() {
    let server = following(vec![(vec![job(JobStatus::Running)], Then::Stay)]);
    let mut child = spawn(server.command(&["watch", JOB_ID]));
    let mut shown = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    shown.read_line(&mut line).unwrap();
    assert!(line.contains("running"), "{line}");
    send("INT", &child);
    assert_eq!(told(child.wait_with_output().unwrap()).code, 130);
    assert_eq!(server.heard(|heard| heard.cancelled.len()), 0);
}
