//! The log of the real program: what machines find in it, and that work does not wait for whoever reads it.

#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Stdio, time::Duration};

use avtomatika_worker::{TaskContext, TaskError, Worker};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, ChildStderr, Command},
};

/// Longest wait for anything that must happen; far beyond what it takes, so that only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it did not happen in time")
}

/// The program, whose log is read when the test does so.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
    url: String,
}

impl Running {
    async fn start(dir: &Path, options: &[&str]) -> Self {
        let blueprints = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/blueprints");
        let mut command = Command::new(env!("CARGO_BIN_EXE_avtomatika-orchestrator"));
        command.env_clear().stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command.args([
            "--client-token",
            "acme:client",
            "--worker-token",
            "worker",
            "--listen",
            "127.0.0.1:0",
        ]);
        command.args(options).arg("--blueprints").arg(blueprints).arg("--data-dir").arg(dir);
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert!(in_time(log.read_line(&mut line)).await.unwrap() > 0, "it ended early");
            if let Some((_, rest)) = line.split_once("Orchestrator is running on http://localhost:") {
                break rest.chars().take_while(char::is_ascii_digit).collect::<String>();
            }
        };
        Self { child, log, url: format!("http://127.0.0.1:{port}") }
    }

    /// A worker beside the test that does what the first example asks for.
    fn work(&self) {
        let process = |_: Value, _: TaskContext| async { Ok::<_, TaskError>(json!({ "done": true })) };
        let worker =
            Worker::builder(&self.url).token("worker").worker_id("w1").handle("process_data", process);
        tokio::spawn(worker.build().unwrap().run_until(std::future::pending()));
    }

    /// Runs a job to its end and returns its id.
    async fn job(&self) -> String {
        let request = reqwest::Client::new().post(format!("{}/api/jobs/test?wait=50s", self.url));
        let answer = in_time(request.header("X-Avtomatika-Token", "client").body(r#"{"input": "x"}"#).send())
            .await
            .unwrap();
        let job: Value = serde_json::from_str(&in_time(answer.text()).await.unwrap()).unwrap();
        assert_eq!(job["status"], "finished", "{job}");
        job["id"].as_str().unwrap().to_owned()
    }

    async fn dropped_lines(&self) -> u64 {
        let page = reqwest::get(format!("{}/_public/metrics", self.url));
        let page = in_time(in_time(page).await.unwrap().text()).await.unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix("avtomatika_log_lines_dropped_total "));
        line.unwrap().parse().unwrap()
    }

    /// Stops it in order, and returns all that it has said since.
    async fn stop(mut self) -> String {
        let pid = self.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let mut said = String::new();
        in_time(self.log.read_to_string(&mut said)).await.unwrap();
        assert!(in_time(self.child.wait()).await.unwrap().success());
        said
    }
}

#[tokio::test]
async fn without_a_terminal_lines_are_objects_that_name_job_task_and_worker() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--log", "avtomatika_orchestrator=debug"]).await;
    running.work();
    let job_id = running.job().await;
    let said = running.stop().await;
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let of_job: Vec<&Value> = lines.iter().filter(|line| line["job"] == job_id).collect();
    let find = |start: &str| {
        let starts = |line: &&&Value| line["message"].as_str().unwrap().starts_with(start);
        of_job.iter().find(starts).unwrap_or_else(|| panic!("{start} is not in {said}"))
    };
    assert_eq!(find(&format!("Job {job_id} of client acme is accepted"))["client"], "acme");
    let ready = find(&format!("Job {job_id} dispatching task"));
    let dispatched = find("Dispatching task 'process_data' to worker w1");
    assert_eq!((&dispatched["worker"], &dispatched["task"]), (&json!("w1"), &ready["task"]));
    assert_eq!(dispatched["level"], "INFO");
    assert_eq!(find("Found 1 available workers")["task"], ready["task"]);
    let registered = lines.iter().find(|line| line["worker"] == "w1").unwrap();
    assert!(registered["message"].as_str().unwrap().starts_with("Worker 'w1' registered"), "{registered}");
}

#[tokio::test]
async fn text_is_for_people_and_names_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--log-format", "text"]).await;
    running.work();
    let job_id = running.job().await;
    let said = running.stop().await;
    let line = said.lines().find(|line| line.contains("dispatching task")).unwrap();
    let message = format!("  INFO Job {job_id} dispatching task: process_data (attempt 1)");
    assert!(line.ends_with(&message), "{line}");
}

#[tokio::test]
async fn a_log_that_nobody_reads_does_not_stop_the_work() {
    let dir = tempfile::tempdir().unwrap();
    // Everything, so that the pipe and then the queue are full soon.
    let running = Running::start(dir.path(), &["--log", "trace", "--log-format", "text"]).await;
    running.work();
    let work = async {
        while running.dropped_lines().await == 0 {
            running.job().await;
        }
        // And on, with everything full.
        for _ in 0..5 {
            running.job().await;
        }
    };
    tokio::time::timeout(PATIENCE * 3, work).await.expect("the work goes on");
    let said = running.stop().await;
    assert!(said.contains(" WARN ") && said.contains(" log lines were dropped: whoever reads the log"));
}
