//! Functions of the orchestrator's own process, as clients and workers see them over the wire.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use avtomatika_orchestrator::functions::{Call, Functions};
use avtomatika_proto::v1::{JobStatus, SubmitJobRequest};
use avtomatika_worker::{TaskContext, TaskError};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::stack::{RunningWorker, Stack, in_time};

/// A worker and a function do a step each, and the branches of a map are calls.
const BLUEPRINT: &str = r#"
blueprint: sums
endpoint: /jobs/sums
states:
  measure:
    start: true
    task: { type: measure, params: { texts: "${initial_data.texts}" } }
    on: { success: each }
  each:
    map:
      over: state_history.lengths
      code: { function: double, params: { n: "${item}" } }
      max_parallel: 2
    on: { success: gather }
  gather:
    code: { function: add_up, params: { all: "${results.map(result, result.data.doubled)}" }, retry: { max_retries: 0 } }
    on: { success: done }
  done: { end: finished, result: { sum: "${state_history.sum}" } }
"#;

async fn double(params: Value, _: Call) -> Result<Value, TaskError> {
    Ok(json!({ "doubled": 2 * params["n"].as_u64().unwrap() }))
}

async fn add_up(params: Value, _: Call) -> Result<Value, TaskError> {
    Ok(json!({ "sum": params["all"].as_array().unwrap().iter().filter_map(Value::as_u64).sum::<u64>() }))
}

async fn stack(functions: Functions) -> Stack {
    let mut stack = Stack::start().await;
    stack.stop().await;
    stack.blueprints.push(BLUEPRINT.to_owned());
    stack.functions = functions;
    stack.start_again().await;
    stack
}

async fn measuring(stack: &Stack) -> RunningWorker {
    let measure = |params: Value, _: TaskContext| async move {
        let texts = params["texts"].as_array().unwrap();
        let lengths: Vec<usize> = texts.iter().map(|text| text.as_str().unwrap().len()).collect();
        Ok::<_, TaskError>(json!({ "lengths": lengths }))
    };
    RunningWorker::start(stack.worker("w1").handle("measure", measure)).await
}

#[tokio::test]
async fn workers_and_functions_do_the_steps_of_one_job() {
    let stack = stack(Functions::new().add("double", double).add_blocking("add_up", |params, call| {
        tokio::runtime::Handle::current().block_on(add_up(params, call))
    }))
    .await;
    let worker = measuring(&stack).await;
    let texts = json!({ "texts": ["one", "three", ""] });
    let (status, job) = stack.post("/api/jobs/sums?wait=30s", &texts.to_string()).await;
    assert_eq!((status, &job["status"], &job["result"]), (200, &json!("finished"), &json!({ "sum": 16 })));
    let (_, workers) = stack.get("/api/workers").await;
    let of = |name: &str| {
        workers.as_array().unwrap().iter().find(|worker| worker["worker_id"] == name).cloned().unwrap()
    };
    assert_eq!(of("in-process")["supported_tasks"], json!(["code:add_up", "code:double"]));
    let id = job["id"].as_str().unwrap();
    let (_, history) = stack.get(&format!("/api/jobs/{id}/history")).await;
    let done: Vec<&Value> = history["history"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["event"] == "task_succeeded")
        .map(|entry| &entry["worker_id"])
        .collect();
    assert_eq!(done, ["w1", "in-process"]);
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_function_that_no_process_has_is_waited_for_and_that_is_explained() {
    let mut stack = stack(Functions::new().add("double", double)).await;
    let worker = measuring(&stack).await;
    let mut client = stack.grpc().await;
    let request = SubmitJobRequest {
        blueprint: "sums".into(),
        initial_data: r#"{"texts": ["a"]}"#.into(),
        ..Default::default()
    };
    let job_id = in_time(client.jobs.submit_job(request)).await.unwrap().into_inner().job_id;
    client
        .until(&job_id, |job| job.current_state == "gather" && job.status() == JobStatus::WaitingForWorker)
        .await;
    let (_, explained) = stack.get(&format!("/api/jobs/{job_id}/explain")).await;
    assert_eq!(explained["reason"], "no_worker");
    let summary = explained["summary"].as_str().unwrap();
    assert!(summary.contains(r#"a process that has the function "add_up""#), "{summary}");
    // The next release of the program has it.
    stack.stop().await;
    stack.functions = Functions::new().add("double", double).add("add_up", add_up);
    stack.start_again().await;
    stack.grpc().await.until(&job_id, |job| job.status() == JobStatus::Finished).await;
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_call_lets_it_end() {
    let (begun, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let calls = Arc::new(AtomicU32::new(0));
    let held = {
        let (begun, release, calls) = (begun.clone(), release.clone(), calls.clone());
        move |params: Value, call: Call| {
            let (begun, release) = (begun.clone(), release.clone());
            calls.fetch_add(1, Ordering::SeqCst);
            async move {
                begun.notify_one();
                release.notified().await;
                add_up(params, call).await
            }
        }
    };
    let mut stack = stack(Functions::new().add("double", double).add("add_up", held)).await;
    let worker = measuring(&stack).await;
    let (_, accepted) = stack.post("/api/jobs/sums", r#"{"texts": ["ab"]}"#).await;
    let job_id = accepted["job_id"].as_str().unwrap().to_owned();
    in_time(begun.notified()).await;
    release.notify_one();
    stack.stop().await;
    stack.start_again().await;
    stack.grpc().await.until(&job_id, |job| job.status() == JobStatus::Finished).await;
    assert_eq!(calls.load(Ordering::SeqCst), 1, "what had begun has come to its end");
    worker.stop().await.unwrap();
}
