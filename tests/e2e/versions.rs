//! Blueprints that change while their jobs are on their way.

use std::sync::Arc;

use avtomatika_proto::v1::{JobStatus, MigrateJobsRequest, SubmitJobRequest};
use avtomatika_worker::{TaskContext, TaskError};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use crate::stack::{RunningWorker, Stack, in_time};

fn pipeline(edition: u32, after: &str) -> String {
    format!(
        "blueprint: pipeline\nstates:\n  work:\n    start: true\n    task: {{ type: work, params: {{ edition: {edition} }} }}\n    on: {{ success: {after} }}\n{}  done: {{ end: finished }}\n",
        if after == "done" { "" } else { "  stamp: { pass: { stamped: true }, next: done }\n" },
    )
}

async fn submit(stack: &Stack) -> String {
    let request = SubmitJobRequest { blueprint: "pipeline".into(), ..Default::default() };
    in_time(stack.grpc().await.jobs.submit_job(request)).await.unwrap().into_inner().job_id
}

#[tokio::test]
async fn jobs_end_by_the_version_they_have_and_by_another_when_they_are_moved() {
    let mut stack = Stack::start().await;
    stack.blueprints.push(pipeline(1, "done"));
    stack.reload().await;
    let (started, mut starts) = mpsc::unbounded_channel::<Value>();
    let may_end = Arc::new(Semaphore::new(0));
    let handler = {
        let may_end = may_end.clone();
        move |params: Value, _: TaskContext| {
            let (started, may_end) = (started.clone(), may_end.clone());
            async move {
                let edition = params["edition"].clone();
                // A test that has failed does not listen any more.
                let _ = started.send(edition.clone());
                may_end.acquire().await.expect("it is never closed").forget();
                Ok::<_, TaskError>(json!({ "edition": edition }))
            }
        }
    };
    let worker = RunningWorker::start(stack.worker("w1").slots(1).handle("work", handler)).await;
    let mut client = stack.grpc().await;

    // One is in the worker's hands and two wait when the blueprint changes.
    let first = submit(&stack).await;
    assert_eq!(in_time(starts.recv()).await.unwrap(), 1);
    let (second, third) = (submit(&stack).await, submit(&stack).await);
    *stack.blueprints.last_mut().unwrap() = pipeline(2, "stamp");
    assert_eq!(stack.reload().await["changes"][0]["version"], 2);

    // It ends by its own version; the worker takes the next one, as that was.
    may_end.add_permits(1);
    let job = client.until(&first, |job| job.status() == JobStatus::Finished).await;
    assert_eq!((job.blueprint_version, job.state_history.as_str()), (1, r#"{"edition":1}"#));
    assert_eq!(in_time(starts.recv()).await.unwrap(), 1);

    // The others are moved: the one that the worker holds goes on, the one that waits is made again.
    let fourth = submit(&stack).await;
    let request = MigrateJobsRequest { blueprint: "pipeline".into(), ..Default::default() };
    let page = in_time(client.jobs.migrate_jobs(request)).await.unwrap().into_inner();
    assert_eq!(page.moves.len(), 2);
    assert!(page.moves.iter().all(|done| done.refused.is_empty()), "{page:?}");
    may_end.add_permits(3);
    for (id, edition) in [(&second, 1), (&third, 2), (&fourth, 2)] {
        let job = client.until(id, |job| job.status() == JobStatus::Finished).await;
        assert_eq!(job.blueprint_version, 2);
        let history: Value = serde_json::from_str(&job.state_history).unwrap();
        assert_eq!(history, json!({ "edition": edition, "stamped": true }));
    }
    worker.stop().await.unwrap();
}
