//! What an orchestrator may want of a worker beside tasks, and workers that know several addresses of it.

// A test that panics has failed, which is what tests are for.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use avtomatika_proto::v1::{
    Drain, Draining, GoodbyeReason, ResultVerdict, Task, orchestrator_message::Message as Down,
    worker_message::Message as Up,
};
use avtomatika_worker::TaskContext;
use serde_json::{Value, json};
use support::{Orchestrator, Running, gate, task};
use tonic::Status;

#[tokio::test]
async fn an_operators_order_to_stop_is_obeyed_as_a_signal_is() {
    let mut orchestrator = Orchestrator::start().await;
    let (gate, opener) = gate();
    let worker = Running::start(orchestrator.worker().handle("work", move |params: Value, _| {
        let gate = gate.clone();
        async move {
            gate.acquire().await?.forget();
            Ok(params)
        }
    }));
    let mut stream = orchestrator.welcome_worker("s1").await;
    stream.send(task("t1")).await;
    stream.accepted().await;
    stream.say(Down::Drain(Drain {})).await;
    stream.hear_a("Drain", |message| matches!(message, Up::Drain(_)).then_some(())).await;
    opener.add_permits(1);
    assert_eq!(stream.result().await.outcome, "success");
    stream.acknowledge("t1", ResultVerdict::Applied).await;
    assert_eq!(stream.hear().await, None);
    assert_eq!(worker.end().await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_has_to_be_abandoned_is_told_apart() {
    let mut orchestrator = Orchestrator::start().await;
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = std::sync::Mutex::new(blocked);
    let _worker = Running::start(orchestrator.worker().handle("work", move |_: Value, _| {
        // Nothing can be taken from a thread that stands still.
        let _ = tokio::task::block_in_place(|| blocked.lock().unwrap().recv());
        std::future::ready(Ok(()))
    }));
    let mut stream = orchestrator.welcome_worker("s1").await;
    let timeout = Some(prost_types::Duration { seconds: 0, nanos: 1 });
    stream.send(Task { timeout, ..task("t1") }).await;
    let result = stream.result().await;
    let message = result.error.unwrap().message;
    assert!(message.ends_with("the handler did not stop within 1s and was abandoned"), "{message}");
    drop(release);
}

#[tokio::test]
async fn a_checkpoint_comes_with_the_task_and_goes_with_the_progress() {
    let mut orchestrator = Orchestrator::start().await;
    let builder = orchestrator.worker().handle("work", |_: Value, context: TaskContext| async move {
        let page = context.checkpoint::<Value>()?.map_or(0, |saved| saved["page"].as_u64().unwrap());
        context.save(json!({ "page": page + 1 }))?;
        context.cancellation().cancelled().await;
        Ok(())
    });
    let _worker = Running::start(builder);
    let mut stream = orchestrator.welcome_worker("s1").await;
    stream.send(Task { checkpoint: r#"{"page":6}"#.into(), ..task("t1") }).await;
    let saved = |message| match message {
        Up::TaskProgress(progress) => Some(progress.checkpoint),
        _ => None,
    };
    assert_eq!(stream.hear_a("the checkpoint", saved).await, r#"{"page":7}"#);
    drop(stream);
    // Whoever is there now may not have heard it.
    let (mut stream, _) = orchestrator.call().await.open().await;
    stream.welcome(&["t1"]).await;
    assert_eq!(stream.hear_a("the checkpoint", saved).await, r#"{"page":7}"#);
}

#[tokio::test]
async fn a_worker_tries_every_address_with_the_same_session_and_what_it_holds() {
    let (mut first, mut second) = (Orchestrator::start().await, Orchestrator::start().await);
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let builder = avtomatika_worker::Worker::builder(nowhere).or_at(&first.url).or_at(&second.url);
    let builder = builder.token("t").worker_id("w1").slots(5).drain_timeout(Duration::ZERO);
    let worker = Running::start(builder.handle("work", |_: Value, context: TaskContext| async move {
        context.cancellation().cancelled().await;
        Ok(())
    }));
    let mut stream = first.welcome_worker("s1").await;
    stream.send(task("t1")).await;
    stream.accepted().await;

    // It stops as it has said: whoever takes over is at the next address.
    stream.say(Down::Draining(Draining {})).await;
    stream.goodbye(GoodbyeReason::Shutdown).await;
    let (stream, hello) = second.call().await.open().await;
    assert_eq!((hello.session_id.as_str(), hello.held_task_ids), ("s1", vec!["t1".to_owned()]));
    stream.welcome(&["t1"]).await;

    // It breaks off: it is looked for where it was, and when it cannot serve there, at the others.
    drop(stream);
    second.call().await.refuse(Status::unavailable("The orchestrator is stopping"));
    let (stream, hello) = first.call().await.open().await;
    assert_eq!((hello.session_id.as_str(), hello.held_task_ids), ("s1", vec!["t1".to_owned()]));
    stream.welcome(&["t1"]).await;
    second.assert_quiet();
    worker.shut_down();
    let mut stream = stream;
    assert_eq!(stream.result().await.error.unwrap().code, "WORKER_STOPPED");
    stream.acknowledge("t1", ResultVerdict::Applied).await;
    assert_eq!(worker.end().await, Ok(()));
}
