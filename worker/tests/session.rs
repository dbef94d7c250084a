//! The worker against an orchestrator that does what the test tells it, over real gRPC.

// A test that panics has failed, which is what tests are for.
#![allow(clippy::unwrap_used)]

mod support;

use std::{sync::Arc, time::Duration};

use avtomatika_proto::{
    ApiError, ErrorCode, limits,
    v1::{
        GoodbyeReason, ResultVerdict, Task, TaskResult, orchestrator_message::Message as Down,
        worker_message::Message as Up,
    },
};
use avtomatika_worker::{TaskContext, TaskError, TaskOutcome, Worker, WorkerBuilder, WorkerError};
use serde_json::{Value, json};
use support::{Orchestrator, Running, gate, soon, task, until};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};
use tonic::Status;

/// Serves `work` with a handler that answers what it was given.
fn answering(orchestrator: &Orchestrator) -> WorkerBuilder {
    orchestrator.worker().handle("work", |params: Value, _| async move { Ok(params) })
}

/// Serves `work` with a handler that never ends, and tells of each call's context.
fn hanging(orchestrator: &Orchestrator) -> (WorkerBuilder, mpsc::UnboundedReceiver<TaskContext>) {
    let (started, starts) = mpsc::unbounded_channel();
    let builder = orchestrator.worker().handle("work", move |_: Value, context: TaskContext| {
        let _ = started.send(context);
        std::future::pending::<Result<(), TaskError>>()
    });
    (builder, starts)
}

/// Serves `work` with a handler that ends when the test lets it.
fn gated(orchestrator: &Orchestrator) -> (WorkerBuilder, Arc<tokio::sync::Semaphore>) {
    let (gate, opener) = gate();
    let builder = orchestrator.worker().handle("work", move |params: Value, _| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await?.forget();
            Ok(params)
        }
    });
    (builder, opener)
}

fn error_code(result: &TaskResult) -> &str {
    result.error.as_ref().map_or("", |error| &error.code)
}

fn error_message(result: &TaskResult) -> &str {
    result.error.as_ref().map_or("", |error| &error.message)
}

#[tokio::test]
async fn a_task_goes_from_registration_to_acknowledged_result() {
    let mut orchestrator = Orchestrator::start().await;
    let builder = orchestrator.worker().label("zone", "a").resource("gpu_vram_gb", 24.0);
    let builder = builder.handle("work", |params: Value, context: TaskContext| async move {
        Ok(json!({ "got": params, "attempt": context.attempt(), "worker": context.worker_id() }))
    });
    let mut worker = Running::start(builder);

    let registration = orchestrator.registration().await;
    assert_eq!(registration.authorization, "Bearer test-token");
    assert_eq!(registration.request.worker_id, "w1");
    assert_eq!(registration.request.max_concurrent_tasks, 5);
    assert_eq!(registration.request.supported_tasks[0].r#type, "work");
    assert_eq!(registration.request.labels["zone"], "a");
    assert_eq!(registration.request.resources["gpu_vram_gb"], 24.0);
    assert!(!registration.request.hostname.is_empty());
    registration.accept("s1");

    let (mut stream, hello) = orchestrator.call().await.open().await;
    assert_eq!(hello.session_id, "s1");
    stream.welcome(&[]).await;
    assert_eq!(stream.credits().await, 5);
    assert_eq!(soon("registered", worker.handle.registered()).await.as_deref(), Some("w1"));

    stream.send(Task { params: r#"{"n":1}"#.into(), attempt: 3, ..task("t1") }).await;
    assert_eq!(stream.accepted().await, ["t1"]);
    let result = stream.result().await;
    assert_eq!(result.task_id, "t1");
    assert_eq!(result.job_id, "job-of-t1");
    assert_eq!(result.outcome, "success");
    assert_eq!(result.data, r#"{"got":{"n":1},"attempt":3,"worker":"w1"}"#);
    assert_eq!(result.error, None);
    stream.acknowledge("t1", ResultVerdict::Applied).await;

    worker.shut_down();
    stream.hear_a("Drain", |message| matches!(message, Up::Drain(_)).then_some(())).await;
    assert_eq!(stream.hear().await, None, "the worker ends the stream");
    assert_eq!(worker.end().await, Ok(()));
}

#[tokio::test]
async fn what_a_handler_says_decides_the_outcome() {
    let mut orchestrator = Orchestrator::start().await;
    let builder = orchestrator.worker().handle("work", |params: Value, _| async move {
        match params["do"].as_str() {
            Some("review") => Ok(TaskOutcome::custom("needs_review", json!({ "page": 7 }))),
            Some("permanent") => Err(TaskError::permanent("never")),
            Some("own") => Err(TaskError::custom("OUT_OF_PAPER", "tray 2")),
            Some("large") => Ok(TaskOutcome::success(json!({ "x": "x".repeat(limits::PAYLOAD_BYTES_MAX) }))),
            Some("list") => Ok(TaskOutcome::success(json!([1]))),
            _ => panic!("what shall I do?"),
        }
    });
    let worker = Running::start(builder);
    let mut stream = orchestrator.welcome_worker("s1").await;

    for (what, outcome, code, message) in [
        ("review", "needs_review", "", ""),
        ("permanent", "failure", "PERMANENT_ERROR", "never"),
        ("own", "failure", "OUT_OF_PAPER", "tray 2"),
        ("large", "failure", "INVALID_RESULT_ERROR", "the limit is 1048576"),
        ("list", "failure", "INVALID_RESULT_ERROR", "not a JSON object"),
        ("nonsense", "failure", "TRANSIENT_ERROR", "the handler panicked: what shall I do?"),
    ] {
        stream.send(Task { params: json!({ "do": what }).to_string(), ..task(what) }).await;
        let result = stream.result().await;
        assert_eq!((result.outcome.as_str(), error_code(&result)), (outcome, code), "{what}");
        assert!(error_message(&result).contains(message), "{what}: {result:?}");
        stream.acknowledge(what, ResultVerdict::Applied).await;
    }

    stream.send(Task { r#type: "else".into(), ..task("t") }).await;
    let result = stream.result().await;
    assert_eq!((result.outcome.as_str(), error_code(&result)), ("failure", "PERMANENT_ERROR"));
    assert!(error_message(&result).contains(r#"no handler for the task type "else""#), "{result:?}");
    drop(worker);
}

#[tokio::test]
async fn a_result_is_sent_again_on_the_next_stream_until_it_is_acknowledged() {
    let mut orchestrator = Orchestrator::start().await;
    let worker = Running::start(answering(&orchestrator));
    let mut stream = orchestrator.welcome_worker("s1").await;
    stream.send(task("t1")).await;
    let first = stream.result().await;
    drop(stream);

    let (mut stream, hello) = orchestrator.call().await.open().await;
    assert_eq!((hello.session_id.as_str(), hello.held_task_ids), ("s1", vec!["t1".to_owned()]));
    stream.welcome(&["t1"]).await;
    assert_eq!(stream.result().await, first);
    stream.acknowledge("t1", ResultVerdict::Refused).await;

    stream.send(task("t2")).await;
    assert_eq!(stream.result().await.task_id, "t2", "t1 is forgotten");
    stream.acknowledge("t2", ResultVerdict::Applied).await;
    orchestrator.assert_quiet();
    worker.shut_down();
    assert_eq!(worker.end().await, Ok(()));
}

#[tokio::test]
async fn a_result_that_cannot_be_taken_now_is_sent_again_after_a_pause() {
    let mut orchestrator = Orchestrator::start().await;
    let _worker = Running::start(answering(&orchestrator));
    let mut stream = orchestrator.welcome_worker("s1").await;
    stream.send(task("t1")).await;
    let first = stream.result().await;
    stream.acknowledge("t1", ResultVerdict::RetryLater).await;
    assert_eq!(stream.result().await, first);
}

#[tokio::test]
async fn a_task_that_runs_while_the_connection_is_lost_is_adopted_and_reported() {
    let mut orchestrator = Orchestrator::start().await;
    let (builder, gate) = gated(&orchestrator);
    let _worker = Running::start(builder);
    let mut stream = orchestrator.welcome_worker("s1").await;
    stream.send(task("t1")).await;
    stream.accepted().await;
    drop(stream);

    let call = orchestrator.call().await;
    gate.add_permits(1);
    let (mut stream, hello) = call.open().await;
    assert_eq!(hello.held_task_ids, ["t1"]);
    stream.welcome(&["t1"]).await;
    assert_eq!(stream.result().await.outcome, "success");
}

#[tokio::test]
async fn a_forgotten_session_is_replaced_by_a_new_registration_which_keeps_the_held_tasks() {
    let mut orchestrator = Orchestrator::start().await;
    let (builder, gate) = gated(&orchestrator);
    let _worker = Running::start(builder);
    let mut stream = orchestrator.welcome_worker("s1").await;
    stream.send(task("t1")).await;
    stream.accepted().await;
    drop(stream);

    orchestrator.call().await.refuse(Status::failed_precondition("session unknown"));
    let registration = orchestrator.registration().await;
    assert_eq!(registration.request.worker_id, "w1");
    registration.accept("s2");
    let (mut stream, hello) = orchestrator.call().await.open().await;
    assert_eq!((hello.session_id.as_str(), hello.held_task_ids), ("s2", vec!["t1".to_owned()]));
    stream.welcome(&["t1"]).await;
    gate.add_permits(1);
    assert_eq!(stream.result().await.outcome, "success");
}

#[tokio::test]
async fn a_worker_without_a_name_keeps_the_one_that_it_was_given() {
    let mut orchestrator = Orchestrator::start().await;
    let builder = Worker::builder(&orchestrator.url).token("test-token");
    let mut worker = Running::start(builder.handle("work", |params: Value, _| async move { Ok(params) }));
    let registration = orchestrator.registration().await;
    assert_eq!(registration.request.worker_id, "");
    registration.accept("s1");
    let (stream, _) = orchestrator.call().await.open().await;
    stream.welcome(&[]).await;
    assert_eq!(worker.handle.registered().await.as_deref(), Some("worker-1a2b3c4d"));
    drop(stream);

    orchestrator.call().await.refuse(Status::failed_precondition("session unknown"));
    assert_eq!(orchestrator.registration().await.request.worker_id, "worker-1a2b3c4d");
}

#[tokio::test]
async fn a_task_that_is_not_adopted_is_stopped_and_nothing_is_reported() {
    let mut orchestrator = Orchestrator::start().await;
    let (builder, mut starts) = hanging(&orchestrator);
    let _worker = Running::start(builder);
    let stream = orchestrator.welcome_worker("s1").await;
    stream.send(task("t1")).await;
    let context = soon("the start", starts.recv()).await.unwrap();
    drop(stream);

    let (mut stream, hello) = orchestrator.call().await.open().await;
    assert_eq!(hello.held_task_ids, ["t1"]);
    stream.welcome(&[]).await;
    soon("the cancellation", context.cancellation().cancelled()).await;

    // Its result would come before this one's.
    stream.send(Task { timeout: Some(prost_types::Duration { seconds: 0, nanos: 1 }), ..task("t2") }).await;
    assert_eq!(stream.result().await.task_id, "t2");
}

#[tokio::test]
async fn of_a_task_that_was_dropped_and_comes_again_only_the_new_attempt_is_told() {
    let mut orchestrator = Orchestrator::start().await;
    let (started, mut starts) = mpsc::unbounded_channel();
    let builder = orchestrator.worker().handle("work", move |_: Value, context: TaskContext| {
        let (end, told_to_end) = oneshot::channel();
        started.send((context, end)).unwrap();
        async move { Err::<(), _>(TaskError::transient(told_to_end.await?)) }
    });
    let _worker = Running::start(builder);
    let stream = orchestrator.welcome_worker("s1").await;
    stream.send(task("t1")).await;
    let (first, end_first) = soon("the start", starts.recv()).await.unwrap();
    drop(stream);
    let (mut stream, _) = orchestrator.call().await.open().await;
    stream.welcome(&[]).await;
    soon("the cancellation", first.cancellation().cancelled()).await;

    // The orchestrator has nobody else for it, and the first attempt takes its time to stop.
    stream.send(task("t1")).await;
    let (_second, end_second) = soon("another start", starts.recv()).await.unwrap();
    first.save(json!({ "page": 9 })).unwrap();
    end_first.send("the first has ended").unwrap();
    end_second.send("the second has ended").unwrap();
    let result = stream.result().await;
    assert_eq!((result.outcome.as_str(), error_message(&result)), ("failure", "the second has ended"));
    assert_eq!(result.checkpoint, "", "the second has saved nothing");
}

#[tokio::test]
async fn a_task_that_takes_too_long_is_stopped_and_reported_as_a_timeout() {
    let mut orchestrator = Orchestrator::start().await;
    let (builder, mut starts) = hanging(&orchestrator);
    let _worker = Running::start(builder);
    let mut stream = orchestrator.welcome_worker("s1").await;
    let timeout = Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 });
    stream.send(Task { timeout, ..task("t1") }).await;
    let context = soon("the start", starts.recv()).await.unwrap();
    let result = stream.result().await;
    assert_eq!((result.outcome.as_str(), error_code(&result)), ("timeout", "TIMEOUT_ERROR"));
    assert!(error_message(&result).contains("20ms"), "{result:?}");
    assert!(context.is_cancelled());
}

#[tokio::test]
async fn a_task_whose_time_is_up_while_there_is_no_stream_is_stopped_then_and_reported_on_the_next() {
    let mut orchestrator = Orchestrator::start().await;
    let (builder, mut starts) = hanging(&orchestrator);
    let _worker = Running::start(builder);
    let stream = orchestrator.welcome_worker("s1").await;
    let timeout = Some(prost_types::Duration { seconds: 0, nanos: 300_000_000 });
    stream.send(Task { timeout, ..task("t1") }).await;
    let context = soon("the start", starts.recv()).await.unwrap();
    drop(stream);

    // The worker waits for this call to be answered.
    let call = orchestrator.call().await;
    soon("the cancellation", context.cancellation().cancelled()).await;
    let (mut stream, hello) = call.open().await;
    assert_eq!(hello.held_task_ids, ["t1"]);
    stream.welcome(&["t1"]).await;
    assert_eq!(stream.result().await.outcome, "timeout");
}

#[tokio::test]
async fn a_cancelled_task_is_reported_as_cancelled_whatever_its_handler_answers() {
    let mut orchestrator = Orchestrator::start().await;
    let builder = orchestrator.worker().handle("work", |_: Value, context: TaskContext| async move {
        context.cancellation().cancelled().await;
        Ok(json!({ "too": "late" }))
    });
    let _worker = Running::start(builder);
    let mut stream = orchestrator.welcome_worker("s1").await;
    stream.send(task("t1")).await;
    stream.cancel("no-such-task").await;
    stream.cancel("t1").await;
    stream.cancel("t1").await;
    let result = stream.result().await;
    assert_eq!((result.task_id.as_str(), result.outcome.as_str()), ("t1", "cancelled"));
    assert_eq!((result.data.as_str(), result.error), ("", None));
    stream.acknowledge("t1", ResultVerdict::Applied).await;
}

#[tokio::test]
async fn the_latest_progress_of_a_running_task_is_reported() {
    let mut orchestrator = Orchestrator::start().await;
    let builder = orchestrator.worker().handle("work", |_: Value, context: TaskContext| {
        context.progress(0.25, "quarter");
        context.progress(0.5, "half");
        std::future::pending::<Result<(), TaskError>>()
    });
    let _worker = Running::start(builder);
    let mut stream = orchestrator.welcome_worker("s1").await;
    stream.send(task("t1")).await;
    // The first one may have been overtaken.
    let half = |message| match message {
        Up::TaskProgress(progress) if progress.message == "half" => Some(progress),
        _ => None,
    };
    let progress = stream.hear_a("the latest progress", half).await;
    assert_eq!((progress.task_id.as_str(), progress.fraction), ("t1", 0.5));
}

/// Serves `work` with a handler that saves where it begins and one page on, and ends when the test lets it: in failure.
fn turning_pages(orchestrator: &Orchestrator) -> (WorkerBuilder, Arc<tokio::sync::Semaphore>) {
    let (gate, opener) = gate();
    let builder = orchestrator.worker().handle("work", move |_: Value, context: TaskContext| {
        let gate = Arc::clone(&gate);
        async move {
            let saved: Option<Value> = context.checkpoint()?;
            let page = saved.map_or(0, |saved| saved["page"].as_u64().unwrap());
            context.save(json!({ "page": page + 1 }))?;
            gate.acquire().await?.forget();
            context.save(json!({ "page": page + 2 }))?;
            Err::<(), _>(TaskError::transient("the ink is out"))
        }
    });
    (builder, opener)
}

fn checkpoint(message: Up) -> Option<String> {
    match message {
        Up::TaskProgress(progress) if !progress.checkpoint.is_empty() => Some(progress.checkpoint),
        _ => None,
    }
}

#[tokio::test]
async fn what_an_attempt_saves_is_told_while_it_runs_again_on_the_next_stream_and_with_its_failure() {
    let mut orchestrator = Orchestrator::start().await;
    let (builder, opener) = turning_pages(&orchestrator);
    let _worker = Running::start(builder);
    let mut stream = orchestrator.welcome_worker("s1").await;
    stream.send(Task { checkpoint: r#"{"page":7}"#.into(), ..task("t1") }).await;
    assert_eq!(stream.hear_a("a checkpoint", checkpoint).await, r#"{"page":8}"#);
    drop(stream);

    let (mut stream, _) = orchestrator.call().await.open().await;
    stream.welcome(&["t1"]).await;
    assert_eq!(stream.hear_a("a checkpoint", checkpoint).await, r#"{"page":8}"#);
    opener.add_permits(1);
    let result = stream.result().await;
    assert_eq!((result.outcome.as_str(), result.checkpoint.as_str()), ("failure", r#"{"page":9}"#));
    assert_eq!(error_message(&result), "the ink is out");
}

#[tokio::test]
async fn what_the_worker_says_of_itself_is_told_and_told_again_on_the_next_stream() {
    let mut orchestrator = Orchestrator::start().await;
    let worker = Running::start(answering(&orchestrator));
    let mut stream = orchestrator.welcome_worker("s1").await;
    worker.handle.set_hot_cache(["work"]);
    let state = |message| match message {
        Up::WorkerState(state) => Some(state.hot_cache),
        _ => None,
    };
    assert_eq!(stream.hear_a("a state", state).await, ["work"]);
    drop(stream);

    let (mut stream, _) = orchestrator.call().await.open().await;
    stream.welcome(&[]).await;
    assert_eq!(stream.hear_a("a state", state).await, ["work"]);
}

#[tokio::test]
async fn results_that_are_ready_together_travel_together() {
    let mut orchestrator = Orchestrator::start().await;
    let worker = Running::start(answering(&orchestrator));
    let mut stream = orchestrator.welcome_worker("s1").await;
    for number in 0..5 {
        stream.send(task(&number.to_string())).await;
        stream.result().await;
    }
    drop(stream);

    let (mut stream, hello) = orchestrator.call().await.open().await;
    stream.welcome(&hello.held_task_ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let results = stream
        .hear_a("results", |message| match message {
            Up::TaskResults(results) => Some(results.results.len()),
            _ => None,
        })
        .await;
    assert_eq!(results, 5);
    drop(worker);
}

#[tokio::test]
async fn a_handler_that_blocks_its_runtime_does_not_silence_the_worker() {
    let mut orchestrator = Orchestrator::start().await;
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = std::sync::Mutex::new(blocked);
    let builder = orchestrator.worker().handle("work", move |_: Value, _| {
        let _ = blocked.lock().unwrap().recv();
        std::future::ready(Ok(()))
    });
    // A runtime of one thread, all of which the handler takes.
    let (shut_down, asked) = tokio::sync::oneshot::channel::<()>();
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let shutdown = async { asked.await.unwrap_or_default() };
        runtime.block_on(builder.build().unwrap().run_until(shutdown))
    });
    orchestrator.registration().await.accept_with_keepalive("s1", 0.01, 60.0);
    let (mut stream, _) = orchestrator.call().await.open().await;
    stream.welcome(&[]).await;
    stream.send(Task { timeout: Some(prost_types::Duration { seconds: 0, nanos: 1 }), ..task("t1") }).await;
    stream.accepted().await;
    for _ in 0..3 {
        stream.hear_a("a heartbeat", |message| matches!(message, Up::Heartbeat(_)).then_some(())).await;
    }
    assert_eq!(stream.result().await.outcome, "timeout", "even its time runs out");
    stream.acknowledge("t1", ResultVerdict::Applied).await;
    release.send(()).unwrap();
    shut_down.send(()).unwrap();
    let end = tokio::task::spawn_blocking(move || worker.join().unwrap());
    assert_eq!(soon("the worker's end", end).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_silent_orchestrator_is_taken_for_lost() {
    let mut orchestrator = Orchestrator::start().await;
    let _worker = Running::start(answering(&orchestrator));
    orchestrator.registration().await.accept_with_keepalive("s1", 0.05, 0.1);
    let (stream, _) = orchestrator.call().await.open().await;
    stream.welcome(&[]).await;

    let (_, hello) = orchestrator.call().await.open().await;
    assert_eq!(hello.session_id, "s1", "the session may live on");
    drop(stream);
}

#[tokio::test]
async fn a_goodbye_is_obeyed() {
    let mut orchestrator = Orchestrator::start().await;
    let worker = Running::start(answering(&orchestrator));
    let stream = orchestrator.welcome_worker("s1").await;
    stream.say(Down::Draining(avtomatika_proto::v1::Draining {})).await;
    stream.goodbye(GoodbyeReason::Shutdown).await;

    let (mut stream, hello) = orchestrator.call().await.open().await;
    assert_eq!(hello.session_id, "s1");
    stream.welcome(&[]).await;
    assert_eq!(stream.credits().await, 5);
    stream.goodbye(GoodbyeReason::ProtocolError).await;

    let stream = orchestrator.welcome_worker("s2").await;
    stream.goodbye(GoodbyeReason::Replaced).await;
    let error = worker.end().await.unwrap_err();
    assert_eq!(error, WorkerError::Replaced { worker_id: "w1".into() });
}

#[tokio::test]
async fn a_wrong_token_is_said_at_once_and_retried_once_it_was_right() {
    let mut orchestrator = Orchestrator::start().await;
    let worker = Running::start(answering(&orchestrator));
    orchestrator.registration().await.refuse(Status::unauthenticated("Unauthorized: Invalid token"));
    let error = worker.end().await.unwrap_err();
    assert!(matches!(error, WorkerError::Unauthenticated { .. }));
    assert!(
        error.to_string().contains("Invalid token") && !error.to_string().contains("test-token"),
        "{error}"
    );

    let worker = Running::start(answering(&orchestrator));
    let stream = orchestrator.welcome_worker("s1").await;
    drop(stream);
    orchestrator.call().await.refuse(Status::unauthenticated("Unauthorized: Invalid token"));
    worker.shut_down();
    assert_eq!(worker.end().await, Ok(()), "it was still trying");
}

#[tokio::test]
async fn a_right_token_that_may_not_do_this_is_told_apart_from_a_wrong_one() {
    let denied = || {
        ApiError::new(ErrorCode::PermissionDenied, "Workers with this token may not serve \"work\"")
            .with_hint("An operator can add the type to allowed_tasks in the workers file.")
    };
    let mut orchestrator = Orchestrator::start().await;
    let worker = Running::start(answering(&orchestrator));
    orchestrator.registration().await.refuse(denied().into());
    let error = worker.end().await.unwrap_err();
    assert!(matches!(error, WorkerError::Refused { .. }), "{error:?}");
    let said = error.to_string();
    assert!(
        said.ends_with(
            "refused to register the worker: Workers with this token may not serve \"work\". \
             An operator can add the type to allowed_tasks in the workers file."
        ),
        "{said}"
    );

    // Somebody has changed the workers file meanwhile, and may change it again.
    let worker = Running::start(answering(&orchestrator));
    let stream = orchestrator.welcome_worker("s1").await;
    drop(stream);
    orchestrator.call().await.refuse(denied().into());
    worker.shut_down();
    assert_eq!(worker.end().await, Ok(()), "it was still trying");
}

#[tokio::test]
async fn a_worker_that_starts_before_its_orchestrator_waits_for_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let builder = avtomatika_worker::Worker::builder(format!("http://{address}")).token("t").worker_id("w1");
    let worker = Running::start(builder.handle("work", |params: Value, _| async move { Ok(params) }));

    let listener = TcpListener::bind(address).await.unwrap();
    let mut orchestrator = Orchestrator::listen_on(listener).await;
    let _stream = orchestrator.welcome_worker("s1").await;
    until("connected", || worker.handle.is_connected()).await;
}

#[tokio::test]
async fn a_draining_worker_finishes_its_tasks_and_hands_over_their_results() {
    let mut orchestrator = Orchestrator::start().await;
    let (builder, gate) = gated(&orchestrator);
    let worker = Running::start(builder);
    let mut stream = orchestrator.welcome_worker("s1").await;
    stream.send(task("t1")).await;
    stream.accepted().await;

    worker.shut_down();
    stream.hear_a("Drain", |message| matches!(message, Up::Drain(_)).then_some(())).await;
    gate.add_permits(1);
    assert_eq!(stream.result().await.outcome, "success");
    stream.acknowledge("t1", ResultVerdict::Applied).await;
    assert_eq!(stream.hear().await, None);
    assert_eq!(worker.end().await, Ok(()));
}

#[tokio::test]
async fn a_task_that_outlives_the_drain_is_given_back() {
    let mut orchestrator = Orchestrator::start().await;
    let (builder, mut starts) = hanging(&orchestrator);
    let worker = Running::start(builder.drain_timeout(Duration::ZERO));
    let mut stream = orchestrator.welcome_worker("s1").await;
    stream.send(task("t1")).await;
    soon("the start", starts.recv()).await.unwrap();

    worker.shut_down();
    let result = stream.result().await;
    assert_eq!((result.outcome.as_str(), error_code(&result)), ("failure", "WORKER_STOPPED"));
    assert!(error_message(&result).contains("the worker stopped"), "{result:?}");
    stream.acknowledge("t1", ResultVerdict::Applied).await;
    assert_eq!(worker.end().await, Ok(()));
}

#[tokio::test]
async fn an_abandoned_worker_drops_its_handlers_and_its_stream() {
    struct Tell(mpsc::UnboundedSender<()>);
    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let mut orchestrator = Orchestrator::start().await;
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let builder = orchestrator.worker().handle("work", move |_: Value, _| {
        let tell = Tell(dropped.clone());
        async move {
            let _tell = tell;
            std::future::pending::<Result<(), TaskError>>().await
        }
    });
    let mut worker = Running::start(builder);
    let mut stream = orchestrator.welcome_worker("s1").await;
    stream.send(task("t1")).await;
    stream.accepted().await;
    soon("registered", worker.handle.registered()).await.unwrap();

    worker.abandon();
    soon("the handler's drop", drops.recv()).await.unwrap();
    until("stopped", || !worker.handle.is_connected()).await;
    assert_eq!(soon("stopped", worker.handle.registered()).await, None);
}
