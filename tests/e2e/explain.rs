//! `explain`, over the wire and by the command line, for jobs that real workers have had or are waited for.

use std::sync::Arc;

use avtomatika_cli::Exit;
use avtomatika_proto::v1::JobStatus;
use avtomatika_worker::{TaskContext, TaskError, WorkerBuilder};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    jobs::cli,
    stack::{RunningWorker, Stack},
};

/// Failed attempts of this one are followed by another after an hour.
const PATIENT: &str = "blueprint: patient\nstates:\n  init:\n    start: true\n    task: { type: patient, retry: { max_retries: 5, initial_delay: 1h, max_delay: 1h } }\n    on: { success: done }\n  done: { end: finished }\n";

async fn submit(stack: &Stack, blueprint: &str) -> String {
    let body = json!({ "blueprint": blueprint, "initial_data": { "input": "x", "n": 1 } });
    let (status, answer) = stack.post("/api/v1/jobs", &body.to_string()).await;
    assert_eq!(status, 202, "{answer}");
    answer["job_id"].as_str().unwrap().to_owned()
}

/// What both REST and the command line say; they say the same.
async fn explain(stack: &Stack, job_id: &str) -> Value {
    let (status, by_rest) = stack.get(&format!("/api/jobs/{job_id}/explain")).await;
    assert_eq!(status, 200, "{by_rest}");
    let (exit, out) = cli(stack, &["-o", "json", "explain", job_id]).await;
    assert_eq!(exit, Exit::Ok, "{out}");
    let by_cli: Value = serde_json::from_str(&out).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!((keys(&by_cli), &by_cli["reason"]), (keys(&by_rest), &by_rest["reason"]));
    assert_eq!(
        (&by_cli["queue"]["nearest"], &by_cli["last_failure"]["worker_id"]),
        (&by_rest["queue"]["nearest"], &by_rest["last_failure"]["worker_id"])
    );
    by_rest
}

fn failing(builder: WorkerBuilder, task_type: &str, error: fn(&str) -> TaskError) -> WorkerBuilder {
    builder.handle(task_type, move |_: Value, _: TaskContext| async move {
        Err::<Value, _>(error("the kiln is cold"))
    })
}

#[tokio::test]
async fn a_retry_says_when_it_comes_and_what_went_wrong() {
    let mut stack = Stack::start().await;
    stack.stop().await;
    stack.blueprints.push(PATIENT.to_owned());
    stack.start_again().await;
    let job_id = submit(&stack, "patient").await;
    let _worker =
        RunningWorker::start(failing(stack.worker("w1"), "patient", |text| TaskError::transient(text))).await;
    stack.grpc().await.until(&job_id, |job| job.status() == JobStatus::WaitingForTimer).await;
    let document = explain(&stack, &job_id).await;
    assert_eq!((&document["reason"], &document["attempts_max"]), (&json!("retry"), &json!(6)));
    let failure = &document["last_failure"];
    assert_eq!(
        (&failure["attempt"], &failure["worker_id"], &failure["error_message"]),
        (&json!(1), &json!("w1"), &json!("the kiln is cold"))
    );
    let sentence = document["summary"].as_str().unwrap();
    assert!(
        sentence.starts_with("Waits for attempt 2 of 6 in state \"init\", which begins in "),
        "{sentence}"
    );
    assert!(sentence.ends_with("on worker \"w1\": TRANSIENT_ERROR: the kiln is cold."), "{sentence}");
    let (_, page) = cli(&stack, &["explain", &job_id]).await;
    assert!(page.contains("Reason        retry") && page.contains("attempt 1 on w1"), "{page}");
}

#[tokio::test]
async fn an_end_in_error_names_the_state_the_attempt_the_worker_and_the_error() {
    let stack = Stack::start().await;
    let (job_id, routed) = (submit(&stack, "brittle").await, submit(&stack, "test_workflow").await);
    let worker = failing(stack.worker("w1"), "brittle", |text| TaskError::transient(text));
    let worker = failing(worker, "process_data", |text| TaskError::permanent(text));
    let _worker = RunningWorker::start(worker).await;
    let mut client = stack.grpc().await;
    client.until(&job_id, |job| job.status() == JobStatus::Quarantined).await;
    let document = explain(&stack, &job_id).await;
    let failure = &document["last_failure"];
    assert_eq!(document["reason"], "quarantined");
    assert_eq!(
        (&failure["state"], &failure["attempt"], &failure["worker_id"], &failure["error_code"]),
        (&json!("init"), &json!(2), &json!("w1"), &json!("TRANSIENT_ERROR"))
    );
    // A transition led to an end elsewhere: what is named is where it went wrong.
    client.until(&routed, |job| job.status() == JobStatus::Failed).await;
    let document = explain(&stack, &routed).await;
    assert_eq!((&document["reason"], &document["current_state"]), (&json!("failed"), &json!("failed")));
    let failure = &document["last_failure"];
    assert_eq!(
        (&failure["state"], &failure["attempt"], &failure["worker_id"], &failure["error_code"]),
        (&json!("init"), &json!(1), &json!("w1"), &json!("PERMANENT_ERROR"))
    );
    let sentence = document["summary"].as_str().unwrap();
    assert!(
        sentence.ends_with(
            "because state \"init\" failed at attempt 1 on worker \"w1\": PERMANENT_ERROR: the kiln is cold."
        ),
        "{sentence}"
    );
}

/// A child fails, and what was done before it is undone.
const TRIP: &str = "
blueprint: trip
states:
  hotel:
    start: true
    run: { blueprint: test_workflow, input: { input: room } }
    on: { success: done, failure: give_back }
  give_back: { task: { type: give_back }, on: { success: failed } }
  done: { end: finished }
  failed: { end: failed }
";

#[tokio::test]
async fn what_was_undone_in_between_does_not_hide_what_failed() {
    let stack = Stack::serving(&[TRIP]).await;
    let worker = failing(stack.worker("w1"), "process_data", |text| TaskError::permanent(text));
    let worker =
        worker.handle("give_back", |_: Value, _: TaskContext| async { Ok::<_, TaskError>(json!({})) });
    let _worker = RunningWorker::start(worker).await;
    let job_id = submit(&stack, "trip").await;
    let job = stack.grpc().await.until(&job_id, |job| job.status() == JobStatus::Failed).await;
    assert_eq!(job.error_message, "The job ended in state \"failed\"; state \"hotel\" had failed before");
    let document = explain(&stack, &job_id).await;
    let failure = &document["last_failure"];
    assert_eq!(
        (&failure["state"], &failure["error_code"], &failure["error_message"]),
        (&json!("hotel"), &json!("PERMANENT_ERROR"), &json!("the kiln is cold"))
    );
    let sentence = document["summary"].as_str().unwrap();
    assert!(
        sentence.ends_with("because state \"hotel\" failed: PERMANENT_ERROR: the kiln is cold."),
        "{sentence}"
    );
    let (_, history) = cli(&stack, &["history", &job_id]).await;
    assert!(history.contains("1 of 1 failed: PERMANENT_ERROR: the kiln is cold"), "{history}");
}

#[tokio::test]
async fn after_a_restart_the_workers_of_before_are_waited_for_by_name_of_their_type() {
    let mut stack = Stack::start().await;
    let never = Arc::new(Notify::new());
    let worker = stack.worker("w1").handle("slow", move |_: Value, _: TaskContext| {
        let never = never.clone();
        async move {
            never.notified().await;
            Ok::<_, TaskError>(json!({}))
        }
    });
    let worker = RunningWorker::start(worker).await;
    let job_id = submit(&stack, "slow").await;
    stack.grpc().await.until(&job_id, |job| job.status() == JobStatus::Running).await;
    let document = explain(&stack, &job_id).await;
    assert_eq!(
        (&document["reason"], &document["current_task"]["worker_id"]),
        (&json!("running"), &json!("w1"))
    );
    stack.stop().await;
    worker.kill();
    stack.start_again().await;
    let document = explain(&stack, &job_id).await;
    assert_eq!(
        (&document["reason"], &document["queue"]["expected_workers"]),
        (&json!("workers_expected"), &json!(1))
    );
    assert!(document["until"].is_string());
    let sentence = document["summary"].as_str().unwrap();
    assert!(
        sentence.contains(": 1 worker of before the restart may still have it, and is waited for until "),
        "{sentence}"
    );
}
