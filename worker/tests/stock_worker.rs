//! The real binary, as people start it.

// A test that panics has failed, which is what tests are for.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};

use avtomatika_proto::v1::{ResultVerdict, Task, worker_message::Message as Up};
use rustix::process::{Pid, Signal, kill_process};
use support::{Orchestrator, gone, pid_in, soon, task, until};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};
use tonic::Status;

const TOKEN: &str = "very-secret-token";

fn stock_worker() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_avtomatika-worker"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.env("AVTOMATIKA_TOKEN", TOKEN).env_remove("RUST_LOG").env("AVTOMATIKA_LOG_FORMAT", "text");
    command
}

/// A stock worker that runs, and what it has logged so far.
struct Stock {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Stock {
    fn start(orchestrator: &Orchestrator, arguments: &[&str]) -> Self {
        let mut child = stock_worker()
            .args(["--orchestrator", &orchestrator.url, "--worker-type", "test-processor"])
            .args(arguments)
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let writer = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                writer.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, log }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().expect("it runs").try_into().unwrap()).unwrap();
        kill_process(pid, signal).expect("it runs");
    }

    async fn exit_code(mut self) -> Option<i32> {
        soon("the worker's exit", self.child.wait()).await.unwrap().code()
    }
}

async fn output(command: &mut Command) -> Output {
    soon("the output", command.output()).await.unwrap()
}

#[tokio::test]
async fn the_first_steps_tell_their_story_in_order() {
    let mut orchestrator = Orchestrator::start().await;
    let arguments = ["--max-concurrent-tasks", "5", "--task", "process_data=builtin:process_data"];
    let stock = Stock::start(&orchestrator, &arguments);
    let registration = orchestrator.registration().await;
    assert_eq!(registration.authorization, format!("Bearer {TOKEN}"));
    assert_eq!(registration.request.worker_type, "test-processor");
    assert_eq!(registration.request.worker_id, "", "nobody has named it");
    registration.accept("s1");
    let (mut stream, _) = orchestrator.call().await.open().await;
    stream.welcome(&[]).await;
    assert_eq!(stream.credits().await, 5);

    let params = r#"{"job_id": "job-of-t1", "payload": "Success test!"}"#;
    stream.send(Task { r#type: "process_data".into(), params: params.into(), ..task("t1") }).await;
    let result = stream.result().await;
    let expected = r#"{"processed_payload":"SUCCESS TEST!","worker_id":"test-processor-1a2b3c4d","message":"Data processed successfully!"}"#;
    assert_eq!(result.data, expected);
    stream.acknowledge("t1", ResultVerdict::Applied).await;

    until("the story", || stock.log().contains("Completed")).await;
    let log = stock.log();
    let mut rest = log.as_str();
    for line in [
        "Worker registered",
        "Processing data for job job-of-t1",
        "Payload: Success test!",
        "Completed processing for job job-of-t1",
    ] {
        let at = rest.find(line).unwrap_or_else(|| panic!("{line:?} is missing or too late in\n{log}"));
        rest = &rest[at..];
    }
    assert!(!log.contains(TOKEN) && !log.contains("s1"), "a credential is in the log:\n{log}");

    stock.signal(Signal::TERM);
    stream.hear_a("Drain", |message| matches!(message, Up::Drain(_)).then_some(())).await;
    assert_eq!(stream.hear().await, None);
    drop(stream);
    assert_eq!(stock.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_command_sees_no_token_and_its_stderr_is_logged_with_the_task() {
    let mut orchestrator = Orchestrator::start().await;
    let stock =
        Stock::start(&orchestrator, &["--task", "work=exec:echo looking >&2; env | sort >&2; exit 70"]);
    let mut stream = orchestrator.welcome_worker("s1").await;
    stream.send(task("t1")).await;
    assert_eq!(stream.result().await.outcome, "failure");
    until("the failure in the log", || stock.log().contains("Task ended with failure")).await;
    let log = stock.log();
    assert!(!log.contains(TOKEN), "{log}");
    let line = log.lines().find(|line| line.ends_with("looking")).expect("stderr is logged");
    assert!(line.contains("task=t1") && line.contains("job=job-of-t1"), "{line}");
}

#[tokio::test]
async fn the_example_counts_words() {
    let mut orchestrator = Orchestrator::start().await;
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/workers/word_count.sh");
    let _stock = Stock::start(&orchestrator, &["--task", &format!("work=exec:{example}")]);
    let mut stream = orchestrator.welcome_worker("s1").await;
    stream.send(Task { params: r#"{"text": "one two  three\nfour"}"#.into(), ..task("t1") }).await;
    let result = stream.result().await;
    assert_eq!((result.outcome.as_str(), result.data.as_str()), ("success", r#"{"words":4}"#), "{result:?}");
    stream.send(Task { params: r#"{"no": "text"}"#.into(), ..task("t2") }).await;
    let result = stream.result().await;
    assert_eq!(result.error.expect("an error").code, "INVALID_INPUT_ERROR");
}

#[tokio::test]
async fn a_second_signal_stops_it_at_once() {
    let mut orchestrator = Orchestrator::start().await;
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("pid");
    let command = format!("work=exec:sleep 1000 & echo $! > '{}'; wait", note.display());
    let stock = Stock::start(&orchestrator, &["--task", &command]);
    let mut stream = orchestrator.welcome_worker("s1").await;
    stream.send(task("t1")).await;
    let sleeper = pid_in(&note).await;
    stock.signal(Signal::INT);
    stream.hear_a("Drain", |message| matches!(message, Up::Drain(_)).then_some(())).await;
    stock.signal(Signal::INT);
    assert_eq!(stock.exit_code().await, Some(1));
    gone(sleeper).await;
}

#[tokio::test]
async fn a_refused_token_ends_it_with_an_error_that_names_the_cure() {
    let mut orchestrator = Orchestrator::start().await;
    let stock = Stock::start(&orchestrator, &["--task", "work=builtin:echo"]);
    orchestrator.registration().await.refuse(Status::unauthenticated("Unauthorized: Invalid token"));
    until("the error", || stock.log().contains("refused the worker's token")).await;
    assert!(!stock.log().contains(TOKEN));
    assert_eq!(stock.exit_code().await, Some(1));
}

#[tokio::test]
async fn wrong_arguments_are_explained_and_the_token_is_never_shown() {
    let missing = output(&mut stock_worker()).await;
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("at least one --task"));

    let help = output(stock_worker().arg("--help")).await;
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("AVTOMATIKA_TOKEN") && !help.contains(TOKEN), "{help}");
    assert!(help.contains("exec:COMMAND"), "{help}");

    let no_token =
        output(stock_worker().env_remove("AVTOMATIKA_TOKEN").args(["--task", "a=builtin:echo"])).await;
    assert_eq!(no_token.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&no_token.stderr).contains("--token"));
}

#[tokio::test]
async fn tasks_may_come_from_the_environment() {
    let mut orchestrator = Orchestrator::start().await;
    let _child = stock_worker()
        .env("AVTOMATIKA_ORCHESTRATOR", &orchestrator.url)
        .env("AVTOMATIKA_TASK", "a=builtin:echo\n\nb=exec:tr a,b b,a\n")
        .spawn()
        .unwrap();
    let request = orchestrator.registration().await.request;
    let mut types: Vec<&str> = request.supported_tasks.iter().map(|task| task.r#type.as_str()).collect();
    types.sort_unstable();
    assert_eq!(types, ["a", "b"]);
}
