//! What workers go through: loss, restart of the orchestrator, cancellation, timeouts, panics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use avtomatika_proto::v1::{CancelJobRequest, JobStatus, SubmitJobRequest};
use avtomatika_worker::{TaskContext, TaskError, TaskOutcome, WorkerBuilder};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::{
    jobs::cli,
    stack::{Client, RunningWorker, Stack, in_time},
};

/// A handler that says when it starts and waits for the test to let it end.
#[derive(Clone, Default)]
struct Held {
    started: Arc<AtomicU32>,
    begun: Arc<Notify>,
    release: Arc<Notify>,
}

impl Held {
    fn serve(&self, builder: WorkerBuilder) -> WorkerBuilder {
        let held = self.clone();
        builder.handle("slow", move |_: Value, _: TaskContext| {
            let held = held.clone();
            async move {
                held.started.fetch_add(1, Ordering::SeqCst);
                held.begun.notify_one();
                held.release.notified().await;
                Ok::<_, TaskError>(json!({ "done": true }))
            }
        })
    }

    fn starts(&self) -> u32 {
        self.started.load(Ordering::SeqCst)
    }
}

async fn submit(client: &mut Client, blueprint: &str, initial_data: Value) -> String {
    let request = SubmitJobRequest {
        blueprint: blueprint.into(),
        initial_data: initial_data.to_string(),
        ..Default::default()
    };
    in_time(client.jobs.submit_job(request)).await.unwrap().into_inner().job_id
}

#[tokio::test]
async fn a_lost_workers_task_goes_to_another_at_once() {
    let stack = Stack::start().await;
    let mut client = stack.grpc().await;
    let (first, second) = (Held::default(), Held::default());
    let lost = RunningWorker::start(first.serve(stack.worker("w1"))).await;
    let job_id = submit(&mut client, "slow", json!({})).await;
    in_time(first.begun.notified()).await;
    let other = RunningWorker::start(second.serve(stack.worker("w2"))).await;
    lost.kill();
    in_time(second.begun.notified()).await;
    second.release.notify_one();
    let job = client.until(&job_id, |job| job.status() == JobStatus::Finished).await;
    assert_eq!(job.retry_count, 0, "a lost worker is not the task's failure");
    other.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_re_runs_nothing() {
    let mut stack = Stack::start().await;
    let mut client = stack.grpc().await;
    let held = Held::default();
    let _worker = RunningWorker::start(held.serve(stack.worker("w1"))).await;
    let mut job_ids = Vec::new();
    for _ in 0..4 {
        job_ids.push(submit(&mut client, "slow", json!({})).await);
        in_time(held.begun.notified()).await;
    }
    stack.stop().await;
    stack.start_again().await;
    let mut client = stack.grpc().await;
    for job_id in &job_ids {
        client.until(job_id, |job| job.status() == JobStatus::Running).await;
    }
    held.release.notify_waiters();
    for job_id in &job_ids {
        client.until(job_id, |job| job.status() == JobStatus::Finished).await;
    }
    assert_eq!(held.starts(), 4, "each handler ran once");
}

#[tokio::test]
async fn a_result_made_while_the_orchestrator_was_away_is_applied_when_it_is_back() {
    let mut stack = Stack::start().await;
    let mut client = stack.grpc().await;
    let held = Held::default();
    let _worker = RunningWorker::start(held.serve(stack.worker("w1"))).await;
    let job_id = submit(&mut client, "slow", json!({})).await;
    in_time(held.begun.notified()).await;
    stack.stop().await;
    held.release.notify_one();
    stack.start_again().await;
    stack.grpc().await.until(&job_id, |job| job.status() == JobStatus::Finished).await;
    assert_eq!(held.starts(), 1);
}

#[tokio::test]
async fn cancelling_a_job_reaches_its_handler() {
    let stack = Stack::start().await;
    let mut client = stack.grpc().await;
    let (heard, mut hears) = mpsc::channel(1);
    let (began, mut begins) = mpsc::channel(1);
    let worker = stack.worker("w1").handle("slow", move |_: Value, context: TaskContext| {
        let (heard, began) = (heard.clone(), began.clone());
        async move {
            began.send(()).await.unwrap();
            context.cancellation().cancelled().await;
            heard.send(()).await.unwrap();
            Ok::<_, TaskError>(json!({}))
        }
    });
    let _worker = RunningWorker::start(worker).await;
    let job_id = submit(&mut client, "slow", json!({})).await;
    in_time(begins.recv()).await.unwrap();
    let request = CancelJobRequest { job_id: job_id.clone(), reason: "not needed".into() };
    let job = client.jobs.cancel_job(request).await.unwrap().into_inner().job.unwrap();
    assert_eq!(job.status(), JobStatus::Cancelled);
    in_time(hears.recv()).await.unwrap();
    let again = client.jobs.cancel_job(CancelJobRequest { job_id, reason: String::new() }).await.unwrap_err();
    assert!(again.message().contains("cancelled"), "{}", again.message());
}

/// `n` chooses what the handler does: 1 panics, 2 runs too long, 3 returns what cannot be stored, 4 fails for good,
/// 5 fails once.
fn brittle(builder: WorkerBuilder) -> WorkerBuilder {
    builder.handle("brittle", |params: Value, context: TaskContext| async move {
        match params["n"].as_u64() {
            Some(1) => panic!("a handler's own fault"),
            Some(2) => std::future::pending().await,
            Some(3) => Ok(TaskOutcome::raw("success", "[1, 2]".into())),
            Some(4) => Err(TaskError::permanent("beyond repair")),
            Some(5) if context.attempt() == 1 => Err(TaskError::transient("try again")),
            _ => Ok(TaskOutcome::success(json!({ "attempt": context.attempt() }))),
        }
    })
}

#[tokio::test]
async fn whatever_a_handler_does_only_its_attempt_suffers() {
    let stack = Stack::start().await;
    let mut client = stack.grpc().await;
    let _worker = RunningWorker::start(brittle(stack.worker("w1"))).await;
    let cases = [
        (1, JobStatus::Quarantined, "TRANSIENT_ERROR", 1),
        (2, JobStatus::Quarantined, "TIMEOUT_ERROR", 1),
        (3, JobStatus::Quarantined, "INVALID_RESULT_ERROR", 0),
        (4, JobStatus::Quarantined, "PERMANENT_ERROR", 0),
        (5, JobStatus::Finished, "", 1),
        (6, JobStatus::Finished, "", 0),
    ];
    for (n, status, code, retries) in cases {
        let job_id = submit(&mut client, "brittle", json!({ "n": n })).await;
        let job = client.until(&job_id, |job| job.finished_at.is_some()).await;
        let seen = (job.status(), job.error_code.as_str(), job.retry_count);
        assert_eq!(seen.0, status, "n = {n}: {job:?}");
        assert_eq!(seen.1, code, "n = {n}: {job:?}");
        if status == JobStatus::Quarantined {
            assert_eq!(seen.2, retries, "n = {n}: {job:?}");
        }
    }
}

/// A handler that notes with which page each attempt begins, saves the next one, and then waits to be lost, or to be let fail. The attempt
/// that begins with page 3 is done.
#[derive(Clone, Default)]
struct Reader {
    fail: Arc<Notify>,
    pages: Arc<std::sync::Mutex<Vec<u64>>>,
}

impl Reader {
    fn serve(&self, builder: WorkerBuilder) -> WorkerBuilder {
        let reader = self.clone();
        builder.handle("slow", move |_: Value, context: TaskContext| {
            let reader = reader.clone();
            async move {
                let saved: Option<Value> = context.checkpoint()?;
                let page = saved.map_or(0, |saved| saved["page"].as_u64().unwrap());
                reader.pages.lock().unwrap().push(page);
                if page == 3 {
                    return Ok(json!({ "pages": page }));
                }
                context.save(json!({ "page": page + 1 }))?;
                context.progress(0.1, format!("page {page}"));
                reader.fail.notified().await;
                Err(TaskError::transient("the lamp is out"))
            }
        })
    }
}

#[tokio::test]
async fn what_an_attempt_has_saved_is_given_to_the_next_after_a_loss_a_restart_and_a_failure() {
    let mut stack = Stack::start().await;
    let mut client = stack.grpc().await;
    let reader = Reader::default();
    let said = |page: &'static str| {
        move |job: &avtomatika_proto::v1::Job| {
            let progress = job.current_task.as_ref().and_then(|task| task.progress.as_ref());
            progress.is_some_and(|progress| progress.message == page)
        }
    };
    let first = RunningWorker::start(reader.serve(stack.worker("w1"))).await;
    let job_id = submit(&mut client, "slow", json!({})).await;
    // Told together with the checkpoint, so that this one is known as well.
    client.until(&job_id, said("page 0")).await;
    first.kill();

    let second = RunningWorker::start(reader.serve(stack.worker("w2"))).await;
    client.until(&job_id, said("page 1")).await;
    // What the orchestrator was told is gone with it, and told again.
    stack.stop().await;
    stack.start_again().await;
    let mut client = stack.grpc().await;
    client.until(&job_id, said("page 1")).await;
    second.kill();

    let _third = RunningWorker::start(reader.serve(stack.worker("w3"))).await;
    client.until(&job_id, said("page 2")).await;
    reader.fail.notify_one();
    let job = client.until(&job_id, |job| job.finished_at.is_some()).await;
    assert_eq!(
        (job.status(), job.state_history.as_str()),
        (JobStatus::Finished, r#"{"pages":3}"#),
        "{job:?}"
    );
    assert_eq!(*reader.pages.lock().unwrap(), [0, 1, 2, 3]);
}

#[tokio::test]
async fn progress_is_seen_by_those_who_watch() {
    let stack = Stack::start().await;
    let mut client = stack.grpc().await;
    let release = Arc::new(Notify::new());
    let released = release.clone();
    let worker = stack.worker("w1").handle("slow", move |_: Value, context: TaskContext| {
        let released = released.clone();
        async move {
            context.save(json!({ "page": 7 }))?;
            context.progress(0.5, "half");
            released.notified().await;
            Ok::<_, TaskError>(json!({}))
        }
    });
    let _worker = RunningWorker::start(worker).await;
    let job_id = submit(&mut client, "slow", json!({})).await;
    let progress =
        |job: &avtomatika_proto::v1::Job| job.current_task.as_ref().and_then(|task| task.progress.clone());
    let is_half = |job: &_| progress(job).is_some_and(|said| said.message == "half");
    let job = client.until(&job_id, is_half).await;
    assert_eq!(progress(&job).unwrap().fraction, 0.5);
    assert_eq!(job.current_task.unwrap().checkpoint, r#"{"page":7}"#);
    release.notify_one();
    client.until(&job_id, |job| job.status() == JobStatus::Finished).await;
}

#[tokio::test]
async fn a_worker_that_stops_finishes_what_it_holds() {
    let stack = Stack::start().await;
    let mut client = stack.grpc().await;
    let held = Held::default();
    let worker = RunningWorker::start(held.serve(stack.worker("w1"))).await;
    let job_id = submit(&mut client, "slow", json!({})).await;
    in_time(held.begun.notified()).await;
    let stopping = tokio::spawn(worker.stop());
    held.release.notify_one();
    client.until(&job_id, |job| job.status() == JobStatus::Finished).await;
    stopping.await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(30), async {
        while !stack.get("/api/workers").await.1.as_array().unwrap().is_empty() {}
    })
    .await
    .expect("a stopped worker leaves the list");
}

#[tokio::test]
async fn an_operator_lets_a_worker_finish_and_end_from_the_command_line() {
    let stack = Stack::start().await;
    let mut client = stack.grpc().await;
    let held = Held::default();
    let worker = RunningWorker::start(held.serve(stack.worker("w1"))).await;
    let job_id = submit(&mut client, "slow", json!({})).await;
    in_time(held.begun.notified()).await;
    let (exit, out) = cli(&stack, &["workers", "drain", "w1"]).await;
    let told = "Worker w1 gets no more tasks; it ends when the one that it holds is done.\n";
    assert_eq!((exit, out.as_str()), (avtomatika_cli::Exit::Ok, told));
    assert_eq!(stack.get("/api/workers").await.1[0]["status"], "draining");
    held.release.notify_one();
    client.until(&job_id, |job| job.status() == JobStatus::Finished).await;
    worker.ended().await.unwrap();
}

#[tokio::test]
async fn a_job_keeps_the_version_of_its_blueprint_and_the_next_one_takes_the_new() {
    let mut stack = Stack::start().await;
    let mut client = stack.grpc().await;
    let old = submit(&mut client, "slow", json!({})).await;
    stack.stop().await;
    for blueprint in &mut stack.blueprints {
        *blueprint =
            blueprint.replace("on: { success: done }\n  done:", "on: { success: better }\n  better:");
    }
    stack.start_again().await;
    let mut client = stack.grpc().await;
    let new = submit(&mut client, "slow", json!({})).await;
    let quick = stack
        .worker("w1")
        .handle("slow", |_: Value, _: TaskContext| async move { Ok::<_, TaskError>(json!({})) });
    let _worker = RunningWorker::start(quick).await;
    for (job_id, version, end) in [(old, 1, "done"), (new, 2, "better")] {
        let job = client.until(&job_id, |job| job.status() == JobStatus::Finished).await;
        assert_eq!((job.blueprint_version, job.current_state.as_str()), (version, end));
    }
    // A start without a change makes no new version.
    stack.stop().await;
    stack.start_again().await;
    let mut client = stack.grpc().await;
    let newest = submit(&mut client, "slow", json!({})).await;
    let job = client.until(&newest, |_| true).await;
    assert_eq!(job.blueprint_version, 2);
}
