//! The log of the real program: what machines find in it, and that work does not wait for whoever reads it.

use std::path::Path;

use avtomatika_worker::{TaskContext, TaskError, Worker};
use serde_json::{Value, json};

use crate::running::{PATIENCE, Running, TOKENS, complete, in_time};

/// The program, whose log is read when it has stopped.
struct Logged(Running);

impl Logged {
    fn start(dir: &Path, options: &[&str]) -> Self {
        let mut command = complete(dir);
        command.args(options);
        Self(Running::start(command))
    }

    /// A worker beside the test that does what the first example asks for.
    fn work(&self) {
        let process = |_: Value, _: TaskContext| async { Ok::<_, TaskError>(json!({ "done": true })) };
        let worker = Worker::builder(self.0.url()).token(TOKENS[3]).worker_id("w1");
        let worker = worker.handle("process_data", process);
        tokio::spawn(worker.build().unwrap().run_until(std::future::pending()));
    }

    /// Runs a job to its end and returns its id.
    async fn job(&self) -> String {
        let request = reqwest::Client::new().post(format!("{}/api/jobs/test?wait=50s", self.0.url()));
        let answer =
            in_time(request.header("X-Avtomatika-Token", TOKENS[1]).body(r#"{"input": "x"}"#).send())
                .await
                .unwrap();
        let job: Value = serde_json::from_str(&in_time(answer.text()).await.unwrap()).unwrap();
        assert_eq!(job["status"], "finished", "{job}");
        job["id"].as_str().unwrap().to_owned()
    }

    async fn dropped_lines(&self) -> u64 {
        let page = reqwest::get(format!("{}/_public/metrics", self.0.url()));
        let page = in_time(in_time(page).await.unwrap().text()).await.unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix("avtomatika_log_lines_dropped_total "));
        line.unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn without_a_terminal_lines_are_objects_that_name_job_task_and_worker() {
    let dir = tempfile::tempdir().unwrap();
    let running = Logged::start(dir.path(), &["--log", "avtomatika_orchestrator=debug"]);
    running.work();
    let job_id = running.job().await;
    let said = running.0.stop();
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let of_job: Vec<&Value> = lines.iter().filter(|line| line["job"] == job_id).collect();
    let find = |start: &str| {
        let starts = |line: &&&Value| line["message"].as_str().unwrap().starts_with(start);
        of_job.iter().find(starts).unwrap_or_else(|| panic!("{start} is not in {said}"))
    };
    assert_eq!(find(&format!("Job {job_id} of client default is accepted"))["client"], "default");
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
    let running = Logged::start(dir.path(), &["--log-format", "text"]);
    running.work();
    let job_id = running.job().await;
    let said = running.0.stop();
    let line = said.lines().find(|line| line.contains("dispatching task")).unwrap();
    let message = format!("  INFO Job {job_id} dispatching task: process_data (attempt 1)");
    assert!(line.ends_with(&message), "{line}");
}

#[tokio::test]
async fn a_log_that_nobody_reads_does_not_stop_the_work() {
    let dir = tempfile::tempdir().unwrap();
    // Everything, so that the pipe and then the queue are full soon.
    let running = Logged::start(dir.path(), &["--log", "trace", "--log-format", "text"]);
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
    let said = running.0.stop();
    assert!(said.contains(" WARN ") && said.contains(" log lines were dropped: whoever reads the log"));
}
