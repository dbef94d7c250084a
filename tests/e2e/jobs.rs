//! What clients see: by REST, by gRPC, and by the command line.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use avtomatika_proto::{
    ApiError, ErrorCode,
    v1::{
        CancelJobRequest, GetJobRequest, JobStatus, ListJobsRequest, SubmitJobRequest, WatchJobRequest,
        submit_jobs_response,
    },
};
use avtomatika_worker::builtin;
use serde_json::{Value, json};

use crate::stack::{Client, OTHER_CLIENT_TOKEN, RunningWorker, Stack, in_time};

async fn with_demo_worker() -> (Stack, RunningWorker) {
    let stack = Stack::start().await;
    let worker = stack.worker("demo").handler("process_data", builtin::process_data());
    let worker = RunningWorker::start(worker).await;
    (stack, worker)
}

fn test_job(input: &str) -> SubmitJobRequest {
    SubmitJobRequest {
        blueprint: "test_workflow".into(),
        initial_data: json!({ "input": input }).to_string(),
        ..Default::default()
    }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[tokio::test]
async fn the_seeds_curl_goes_through() {
    let (stack, worker) = with_demo_worker().await;
    let (status, accepted) = stack.post("/api/jobs/test", r#"{"input": "Test message"}"#).await;
    assert_eq!((status, &accepted["status"]), (202, &json!("accepted")));
    let job_id = accepted["job_id"].as_str().unwrap();
    stack.grpc().await.until(job_id, |job| job.status() == JobStatus::Finished).await;
    let (status, job) = stack.get(&format!("/api/jobs/{job_id}")).await;
    assert_eq!(status, 200);
    let history = &job["state_history"];
    assert_eq!(history["processed_payload"], "TEST MESSAGE");
    assert_eq!(history["message"], "Data processed successfully!");
    assert_eq!(history["worker_id"], "demo");
    assert_eq!(
        (&job["status"], &job["current_state"], &job["initial_data"]),
        (&json!("finished"), &json!("completed"), &json!({"input": "Test message"}))
    );
    let first: Vec<&str> = job.as_object().unwrap().keys().take(6).map(String::as_str).collect();
    assert_eq!(first, ["id", "blueprint_name", "current_state", "initial_data", "state_history", "status"]);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_waiting_submission_is_answered_with_the_end() {
    let (stack, _worker) = with_demo_worker().await;
    let (status, job) = stack.post("/api/jobs/test?wait=30s", r#"{"input": "now"}"#).await;
    assert_eq!((status, &job["status"]), (200, &json!("finished")));
    assert_eq!(job["state_history"]["processed_payload"], "NOW");

    let request = SubmitJobRequest { wait: seconds(30), ..test_job("grpc") };
    let response = in_time(stack.grpc().await.jobs.submit_job(request)).await.unwrap().into_inner();
    let job = response.job.unwrap();
    assert_eq!((job.id, job.status), (response.job_id, JobStatus::Finished.into()));
    let result: Value = serde_json::from_str(&job.result).unwrap();
    assert_eq!(result["processed_payload"], "GRPC");
}

#[tokio::test]
async fn a_job_with_a_start_ahead_outlives_a_restart_and_begins_when_it_is_time() {
    let mut stack = Stack::start().await;
    let (status, accepted) = stack
        .post(
            "/api/v1/jobs",
            r#"{"blueprint": "test_workflow", "initial_data": {"input": "later"}, "delay": "1s"}"#,
        )
        .await;
    assert_eq!(status, 202);
    let job_id = accepted["job_id"].as_str().unwrap();
    let (_, job) = stack.get(&format!("/api/jobs/{job_id}")).await;
    assert_eq!(job["status"], "waiting_for_timer");
    let starts_at = job["resumes_at"].as_str().unwrap().to_owned();
    stack.stop().await;
    stack.start_again().await;

    let worker = stack.worker("demo").handler("process_data", builtin::process_data());
    let _worker = RunningWorker::start(worker).await;
    stack.grpc().await.until(job_id, |job| job.status() == JobStatus::Finished).await;
    let (_, history) = stack.get(&format!("/api/jobs/{job_id}/history")).await;
    let entries = history["history"].as_array().unwrap();
    let events: Vec<&str> = entries.iter().map(|entry| entry["event"].as_str().unwrap()).collect();
    assert_eq!(events[..3], ["job_accepted", "wait_started", "state_entered"]);
    assert!(entries[2]["at"].as_str().unwrap() >= starts_at.as_str(), "{history:?}");
}

#[tokio::test]
async fn a_job_can_be_cancelled_before_its_start() {
    let stack = Stack::start().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let start_at = Some(prost_types::Timestamp { seconds: now.as_secs() as i64 + 3600, nanos: 0 });
    let mut client = stack.grpc().await;
    let request = SubmitJobRequest { start_at, ..test_job("never") };
    let job_id = in_time(client.jobs.submit_job(request)).await.unwrap().into_inner().job_id;
    let job = client.until(&job_id, |_| true).await;
    assert_eq!((job.status(), job.resumes_at), (JobStatus::WaitingForTimer, start_at));
    let cancelled = in_time(client.jobs.cancel_job(CancelJobRequest { job_id, reason: String::new() })).await;
    assert_eq!(cancelled.unwrap().into_inner().job.unwrap().status(), JobStatus::Cancelled);
}

#[tokio::test]
async fn a_start_that_makes_no_sense_is_refused_with_the_cure() {
    let stack = Stack::start().await;
    for (start, text) in [
        (r#""start_at": "18:00""#, "start_at is \"18:00\"; expected a time such as \"2026-12-24T18:00:00Z\""),
        (r#""start_at": "9999-01-01T00:00:00Z""#, "start_at is further ahead than the limit of 366 days"),
        (r#""delay": "400d""#, "delay is longer than the limit of 366 days"),
        (r#""delay": 1, "start_at": "2026-01-01T00:00:00Z""#, "start_at and delay say the same thing twice"),
    ] {
        let body = format!(r#"{{"blueprint": "test_workflow", {start}}}"#);
        let (status, error) = stack.post("/api/v1/jobs", &body).await;
        assert_eq!((status, &error["error"]), (400, &json!(text)));
    }
}

#[tokio::test]
async fn a_wait_that_ends_before_the_job_gives_the_job_as_it_is() {
    let stack = Stack::start().await;
    let request = SubmitJobRequest {
        wait: Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 }),
        ..test_job("nobody serves this")
    };
    let response = in_time(stack.grpc().await.jobs.submit_job(request)).await.unwrap().into_inner();
    assert_eq!(response.job.unwrap().status(), JobStatus::WaitingForWorker);
    let (status, accepted) = stack.post("/api/jobs/test?wait=1ms", "{\"input\": \"x\"}").await;
    assert_eq!((status, &accepted["status"]), (202, &json!("accepted")));
}

#[tokio::test]
async fn bulk_submissions_are_answered_in_order_each_for_itself() {
    let (stack, _worker) = with_demo_worker().await;
    let mut client = stack.grpc().await;
    let requests: Vec<SubmitJobRequest> = (0..500)
        .map(|number| match number {
            250 => SubmitJobRequest { initial_data: "[]".into(), ..test_job("") },
            _ => test_job(&number.to_string()),
        })
        .collect();
    let stream = tokio_stream::iter(requests);
    let mut answers = in_time(client.jobs.submit_jobs(stream)).await.unwrap().into_inner();
    let mut job_ids = Vec::new();
    for index in 0..500 {
        let answer = in_time(answers.message()).await.unwrap().unwrap();
        assert_eq!(answer.index, index);
        match answer.result.unwrap() {
            submit_jobs_response::Result::Ok(ok) => job_ids.push(ok.job_id),
            submit_jobs_response::Result::Error(error) => {
                assert_eq!((index, error.code.as_str()), (250, "INVALID_JSON"));
            }
        }
    }
    assert!(in_time(answers.message()).await.unwrap().is_none());
    for job_id in &job_ids {
        client.until(job_id, |job| job.status() == JobStatus::Finished).await;
    }
    assert_eq!(job_ids.len(), 499);
}

#[tokio::test]
async fn a_watch_begins_with_the_present_and_ends_with_the_end() {
    let (stack, _worker) = with_demo_worker().await;
    let mut client = stack.grpc().await;
    let job_id = client.jobs.submit_job(test_job("x")).await.unwrap().into_inner().job_id;
    let mut statuses = Vec::new();
    let watch = WatchJobRequest { job_id: job_id.clone() };
    let mut updates = client.jobs.watch_job(watch).await.unwrap().into_inner();
    while let Some(update) = in_time(updates.message()).await.unwrap() {
        statuses.push(update.job.unwrap().status());
    }
    assert_eq!(statuses.last(), Some(&JobStatus::Finished));
    // A watch of a job that has ended is one update long.
    let mut updates = client.jobs.watch_job(WatchJobRequest { job_id }).await.unwrap().into_inner();
    assert_eq!(in_time(updates.message()).await.unwrap().unwrap().job.unwrap().status(), JobStatus::Finished);
    assert!(in_time(updates.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_client_sees_only_its_own_jobs() {
    let (stack, _worker) = with_demo_worker().await;
    let mut owner = stack.grpc().await;
    let mut stranger = Client::connect(&stack.url, OTHER_CLIENT_TOKEN).await;
    let job_id = owner.jobs.submit_job(test_job("mine")).await.unwrap().into_inner().job_id;
    let refused = stranger.jobs.get_job(GetJobRequest { job_id }).await.unwrap_err();
    assert_eq!(ApiError::from_status(&refused).code, ErrorCode::JobNotFound);
    let listed = |page: avtomatika_proto::v1::ListJobsResponse| page.jobs.len();
    let mine = owner.jobs.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner();
    let theirs = stranger.jobs.list_jobs(ListJobsRequest::default()).await.unwrap().into_inner();
    assert_eq!((listed(mine), listed(theirs)), (1, 0));
}

/// What a command writes, kept for the test.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Runs a command of the command line against the stack.
pub async fn cli(stack: &Stack, arguments: &[&str]) -> (avtomatika_cli::Exit, String) {
    let mut line = vec!["avtomatika", "--url", &stack.url, "--token", crate::stack::CLIENT_TOKEN];
    line.extend(arguments);
    let (out, err) = (Captured::default(), Captured::default());
    let exit = in_time(avtomatika_cli::run_into(line, out.clone(), err.clone())).await;
    (exit, out.text() + &err.text())
}

#[tokio::test]
async fn the_command_line_submits_follows_and_lists() {
    let (stack, _worker) = with_demo_worker().await;
    let submit = ["-o", "json", "submit", "test_workflow", "--data", r#"{"input":"cli"}"#, "--wait"];
    let (exit, out) = cli(&stack, &submit).await;
    assert_eq!(exit, avtomatika_cli::Exit::Ok, "{out}");
    let job: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!(job["state_history"]["processed_payload"], "CLI");
    let job_id = job["id"].as_str().unwrap();
    for (arguments, expected) in [
        (vec!["get", job_id], "finished"),
        (vec!["watch", job_id], "finished"),
        (vec!["history", job_id], "the job finished"),
        (vec!["list"], "test_workflow"),
        (vec!["workers"], "demo"),
        (vec!["blueprints"], "/jobs/test"),
        (vec!["blueprint", "graph", "test_workflow"], "digraph"),
        (vec!["stats"], "sqlite"),
    ] {
        let (exit, out) = cli(&stack, &arguments).await;
        assert_eq!(exit, avtomatika_cli::Exit::Ok, "{arguments:?}: {out}");
        assert!(out.contains(expected), "{arguments:?} shows no {expected:?}: {out}");
    }
    let (exit, _) = cli(&stack, &["cancel", job_id]).await;
    assert_ne!(exit, avtomatika_cli::Exit::Ok, "a finished job cannot be cancelled");
}
