//! Commands as handlers: real child processes, driven through a real session.

// A test that panics has failed, which is what tests are for.
#![allow(clippy::unwrap_used)]

mod support;

use std::{sync::Arc, time::Duration};

use avtomatika_proto::{
    limits,
    v1::{ResultVerdict, Task, TaskProgress, TaskResult, worker_message::Message as Up},
};
use avtomatika_worker::exec::Exec;
use rustix::process::{Signal, kill_process};
use support::{Orchestrator, Running, Stream, gone, pid_in, task};

struct Commanded {
    orchestrator: Orchestrator,
    stream: Stream,
    worker: Running,
}

/// A worker whose handler is this command, welcomed.
async fn worker_with(command: &str) -> Commanded {
    let mut orchestrator = Orchestrator::start().await;
    let exec = Exec::new(command).kill_grace(Duration::from_millis(300));
    let worker = Running::start(orchestrator.worker().handler("work", Arc::new(exec)));
    let stream = orchestrator.welcome_worker("s1").await;
    Commanded { orchestrator, stream, worker }
}

/// What the command makes of the params.
async fn run(command: &str, params: &str) -> TaskResult {
    let mut commanded = worker_with(command).await;
    commanded.stream.send(Task { params: params.into(), ..task("t1") }).await;
    let result = commanded.stream.result().await;
    commanded.stream.acknowledge("t1", ResultVerdict::Applied).await;
    result
}

fn failure(result: &TaskResult) -> (&str, &str) {
    assert_eq!(result.outcome, "failure", "{result:?}");
    let error = result.error.as_ref().expect("a failure says why");
    (&error.code, &error.message)
}

#[tokio::test]
async fn params_go_in_on_stdin_and_the_result_comes_out_on_stdout() {
    let result = run("cat", r#"{"big": 12345678901234567890, "text": "ж"}"#).await;
    assert_eq!(result.outcome, "success");
    assert_eq!(result.data, r#"{"big": 12345678901234567890, "text": "ж"}"#);
}

#[tokio::test]
async fn the_environment_names_the_attempt() {
    let command = r#"printf '{"is":"%s %s %s %s %s %s"}' "$AVTOMATIKA_TASK_ID" "$AVTOMATIKA_JOB_ID" \
        "$AVTOMATIKA_TASK_TYPE" "$AVTOMATIKA_ATTEMPT" "$AVTOMATIKA_WORKER_ID" "$AVTOMATIKA_DEADLINE""#;
    let mut commanded = worker_with(command).await;
    let deadline = Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 });
    commanded.stream.send(Task { attempt: 2, deadline, ..task("t1") }).await;
    let result = commanded.stream.result().await;
    assert_eq!(result.data, r#"{"is":"t1 job-of-t1 work 2 w1 2027-01-15T08:00:00Z"}"#);
}

#[tokio::test]
async fn a_command_is_told_its_trace_or_that_there_is_none() {
    let command = r#"printf '{"is":"%s %s"}' "${TRACEPARENT-none}" "${TRACESTATE-none}""#;
    let mut commanded = worker_with(command).await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let traced = Task { traceparent: traceparent.into(), tracestate: "a=1".into(), ..task("t1") };
    commanded.stream.send(traced).await;
    assert_eq!(commanded.stream.result().await.data, format!(r#"{{"is":"{traceparent} a=1"}}"#));
    commanded.stream.send(task("t2")).await;
    assert_eq!(commanded.stream.result().await.data, r#"{"is":"none none"}"#);
}

#[tokio::test]
async fn exit_codes_say_what_kind_of_failure_it_was_and_stderr_says_why() {
    for (command, code, message) in [
        ("echo 'no input' >&2; exit 65", "INVALID_INPUT_ERROR", "exit code 65: no input"),
        ("echo one >&2; echo two >&2; exit 70", "PERMANENT_ERROR", "exit code 70: one\ntwo"),
        ("exit 1", "TRANSIENT_ERROR", "the command ended with exit code 1"),
        ("no-such-command-anywhere", "TRANSIENT_ERROR", "not found (exit code 127)"),
        ("kill -9 $$", "TRANSIENT_ERROR", "killed by SIGKILL"),
        ("seq 1 100 >&2; exit 1", "TRANSIENT_ERROR", "exit code 1: 96\n97\n98\n99\n100"),
    ] {
        let result = run(command, "{}").await;
        let (got_code, got_message) = failure(&result);
        assert_eq!(got_code, code, "{command}");
        assert!(got_message.contains(message), "{command}: {got_message:?}");
    }
}

#[tokio::test]
async fn a_command_that_says_nothing_succeeds_without_data() {
    let result = run("exit 0", "{}").await;
    assert_eq!((result.outcome.as_str(), result.data.as_str()), ("success", ""));
}

#[tokio::test]
async fn stdout_that_is_no_json_object_is_an_invalid_result_that_is_named() {
    for (command, said) in [
        ("echo done", "starts with \"done\""),
        ("echo '[1]'", "starts with \"[1]\""),
        (r#"echo '{"a": 1} and more'"#, "trailing characters"),
        ("echo '{} {}'", "trailing characters"),
        (r"printf '\377'", "not UTF-8"),
    ] {
        let result = run(command, "{}").await;
        let (code, message) = failure(&result);
        assert_eq!(code, "INVALID_RESULT_ERROR", "{command}");
        assert!(message.contains(said), "{command}: {message:?}");
    }
}

#[tokio::test]
async fn a_flood_on_stdout_ends_the_command() {
    let result = run("yes '{}'", "{}").await;
    let (code, message) = failure(&result);
    assert_eq!(code, "INVALID_RESULT_ERROR");
    let said = "the result has more than 1048576 bytes and the limit is 1048576";
    assert!(message.starts_with(said), "{message}");
}

#[tokio::test]
async fn a_command_need_not_read_its_params() {
    let large = format!(r#"{{"x": "{}"}}"#, "x".repeat(limits::PAYLOAD_BYTES_MAX - 16));
    assert_eq!(run("exec 0<&-; echo '{}'", &large).await.data, "{}");
    assert_eq!(run("wc -c > /dev/null; echo '{}'", &large).await.data, "{}");
}

#[tokio::test]
async fn the_whole_process_group_goes_when_the_task_times_out() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("pid");
    // Both ignore SIGTERM, so that only SIGKILL to the group ends the grandchild.
    let command = format!("trap '' TERM; sleep 1000 & echo $! > '{}'; wait", note.display());
    let mut commanded = worker_with(&command).await;
    commanded
        .stream
        .send(Task { timeout: Some(prost_types::Duration { seconds: 1, nanos: 0 }), ..task("t1") })
        .await;
    let grandchild = pid_in(&note).await;
    let result = commanded.stream.result().await;
    let message = result.error.expect("a timeout says why").message;
    assert!(result.outcome == "timeout" && message.ends_with("after SIGTERM and was killed"), "{message}");
    gone(grandchild).await;
}

#[tokio::test]
async fn a_cancelled_command_gets_sigterm_and_may_clean_up() {
    let dir = tempfile::tempdir().unwrap();
    let (note, cleaned) = (dir.path().join("pid"), dir.path().join("cleaned"));
    let command = format!(
        "trap 'touch \"{}\"; exit 0' TERM; sleep 1000 & echo $! > '{}'; wait",
        cleaned.display(),
        note.display()
    );
    let mut commanded = worker_with(&command).await;
    commanded.stream.send(task("t1")).await;
    let grandchild = pid_in(&note).await;
    commanded.stream.cancel("t1").await;
    let result = commanded.stream.result().await;
    assert_eq!((result.outcome.as_str(), result.error), ("cancelled", None));
    assert!(cleaned.exists());
    gone(grandchild).await;
}

#[tokio::test]
async fn a_cancelled_command_that_ignores_sigterm_is_killed_with_its_children_and_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let [child, grandchild] = ["child", "grandchild"].map(|name| dir.path().join(name));
    let command = format!(
        "trap '' TERM; sh -c 'echo $$ > \"{}\"; while :; do sleep 1; done' & echo $$ > '{}'; while :; do sleep 1; done",
        grandchild.display(),
        child.display()
    );
    let mut commanded = worker_with(&command).await;
    commanded.stream.send(task("t1")).await;
    let pids = [pid_in(&child).await, pid_in(&grandchild).await];
    commanded.stream.cancel("t1").await;
    let result = commanded.stream.result().await;
    let error = result.error.expect("what was done to it");
    assert_eq!((result.outcome.as_str(), error.code.as_str()), ("cancelled", "NOT_STOPPED"));
    for pid in pids {
        gone(pid).await;
    }
}

#[tokio::test]
async fn an_abandoned_worker_leaves_no_process_behind() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("pid");
    let command = format!("trap '' TERM; sleep 1000 & echo $! > '{}'; wait", note.display());
    let commanded = worker_with(&command).await;
    commanded.stream.send(task("t1")).await;
    let grandchild = pid_in(&note).await;
    commanded.worker.abandon();
    gone(grandchild).await;
    drop(commanded.orchestrator);
}

#[tokio::test]
async fn what_a_command_leaves_running_is_killed_and_does_not_hold_its_result_back() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("pid");
    let command = format!("sleep 1000 & echo $! > '{}'; echo '{{\"done\": true}}'", note.display());
    let result = run(&command, "{}").await;
    assert_eq!(result.data, r#"{"done": true}"#);
    gone(pid_in(&note).await).await;
}

/// The next thing that is said of how far an attempt is.
async fn report(commanded: &mut Commanded) -> TaskProgress {
    commanded
        .stream
        .hear_a("progress", |message| match message {
            Up::TaskProgress(progress) => Some(progress),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_command_says_how_far_it_is_on_descriptor_3() {
    let command = r#"echo 'progress 40% page 4 of 10' >&3; echo 'checkpoint {"page": 4}' >&3; sleep 1000"#;
    let mut commanded = worker_with(command).await;
    commanded.stream.send(task("t1")).await;
    let mut seen = report(&mut commanded).await;
    while seen.checkpoint.is_empty() {
        seen = report(&mut commanded).await;
    }
    assert_eq!((seen.fraction, seen.message.as_str()), (0.4, "page 4 of 10"));
    assert_eq!(seen.checkpoint, r#"{"page": 4}"#);
}

#[tokio::test]
async fn a_command_finds_what_the_attempt_before_it_saved_and_what_it_saves_goes_with_its_failure() {
    let command = r#"echo "checkpoint {\"was\": ${AVTOMATIKA_CHECKPOINT-null}}" >&3; exit 1"#;
    let mut commanded = worker_with(command).await;
    commanded.stream.send(task("t1")).await;
    assert_eq!(commanded.stream.result().await.checkpoint, r#"{"was": null}"#);
    let again = Task { checkpoint: r#"{"page":4,"of":"ж 'x'"}"#.into(), ..task("t2") };
    commanded.stream.send(again).await;
    assert_eq!(commanded.stream.result().await.checkpoint, r#"{"was": {"page":4,"of":"ж 'x'"}}"#);
}

#[tokio::test]
async fn a_command_may_save_when_its_time_is_up() {
    let command = r#"trap 'echo "checkpoint {\"page\": 7}" >&3; exit 1' TERM; sleep 1000 & wait"#;
    let mut commanded = worker_with(command).await;
    let timeout = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    commanded.stream.send(Task { timeout, ..task("t1") }).await;
    let result = commanded.stream.result().await;
    assert_eq!((result.outcome.as_str(), result.checkpoint.as_str()), ("timeout", r#"{"page": 7}"#));
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_kept_fails_the_attempt_and_says_why() {
    let large = r#"printf 'checkpoint {"x": "' >&3; head -c 70000 /dev/zero | tr '\0' x >&3; echo '"}' >&3"#;
    // Only the beginning of a line that is too long is kept. Of these two, one is cut within a letter.
    let cyrillic = |more: &str| {
        format!("(printf 'checkpoint {{\"{more}'; yes ж | tr -d '\\n' | head -c 70000; echo '\"}}') >&3")
    };
    for (command, said) in [
        (
            "echo 'checkpoint page 4' >&3",
            r#"no JSON object on one line (expected value at line 1 column 1): "page 4""#,
        ),
        ("echo checkpoint >&3", "no JSON object on one line (EOF while parsing a value"),
        ("echo 'checkpoint [4]' >&3", r#"the checkpoint is not a JSON object: it starts with "[4]""#),
        (large, "has more than 65536 bytes; save where the work stands"),
        (&cyrillic(""), "has more than 65536 bytes; save where the work stands"),
        (&cyrillic("x"), "has more than 65536 bytes; save where the work stands"),
        (r#"printf 'checkpoint {"a": "\377"}\n' >&3"#, r#"is not UTF-8: "checkpoint {\"a\": \"�\"}""#),
    ] {
        // It would go on for long, but is stopped at once.
        let result = run(&format!("{command}; sleep 1000"), "{}").await;
        let (code, message) = failure(&result);
        assert_eq!(code, "PERMANENT_ERROR", "{command}");
        assert!(message.contains(said), "{command}: {message:?}");
    }
}

#[tokio::test]
async fn what_is_not_understood_is_told_where_progress_is_seen_and_does_no_harm() {
    let long = "(printf 'progress 1 '; head -c 70000 /dev/zero | tr '\\0' x; echo) >&3";
    for (command, said) in [
        ("echo 'page 4 of 10' >&3", r#"on descriptor 3, "page 4 of 10" is neither `progress 40% …` nor"#),
        (
            "echo 'progress 40 pages' >&3",
            r#"on descriptor 3, the progress "40" is no share: write it from 0% to 100%"#,
        ),
        (r"printf 'progress \377\n' >&3", "on descriptor 3, a line is not UTF-8"),
        (long, "on descriptor 3, a line has more than 65600 bytes: \"progress 1 xxx"),
    ] {
        let gate = tempfile::tempdir().unwrap();
        let open = gate.path().join("open");
        let waits = format!("{command}; until [ -e '{}' ]; do sleep 0.01; done; echo '{{}}'", open.display());
        let mut commanded = worker_with(&waits).await;
        commanded.stream.send(task("t1")).await;
        let message = report(&mut commanded).await.message;
        assert!(message.contains(said), "{command}: {message:?}");
        std::fs::write(open, "").unwrap();
        assert_eq!(commanded.stream.result().await.outcome, "success", "{command}");
    }
}

#[tokio::test]
async fn a_line_that_was_not_ended_does_not_count() {
    let result = run(r#"printf 'checkpoint {"page": 4}\ncheckpoint {"pa' >&3; kill -9 $$"#, "{}").await;
    let (code, message) = failure(&result);
    assert!(code == "TRANSIENT_ERROR" && message.contains("killed by SIGKILL"), "{message}");
    assert_eq!(result.checkpoint, r#"{"page": 4}"#);
}

#[tokio::test]
async fn a_flood_of_reports_silences_nobody() {
    let mut commanded = worker_with("grep -q quick && exit; yes 'progress 50% and so on' >&3").await;
    commanded.stream.send(task("loud")).await;
    assert_eq!(report(&mut commanded).await.message, "and so on");
    commanded.stream.send(Task { params: r#"{"be":"quick"}"#.into(), ..task("t1") }).await;
    assert_eq!(commanded.stream.result().await.outcome, "success", "beside it");
    commanded.stream.cancel("loud").await;
    let result = commanded.stream.result().await;
    assert_eq!((result.task_id.as_str(), result.outcome.as_str(), result.error), ("loud", "cancelled", None));
}

#[tokio::test]
async fn a_daemon_that_keeps_descriptor_3_does_not_hold_the_result_back() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("pid");
    // In a session of its own, hence outside the process group.
    let command = format!(
        "setsid sh -c 'echo $$ > {0}; exec sleep 1000' >/dev/null 2>&1 </dev/null & until [ -s {0} ]; do :; done",
        note.display()
    );
    assert_eq!(run(&command, "{}").await.outcome, "success");
    let _ = kill_process(pid_in(&note).await, Signal::KILL);
}
