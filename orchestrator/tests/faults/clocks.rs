//! A wall clock that is set, forward and back, while the orchestrator runs and while it does not.

use std::collections::HashSet;

use avtomatika_worker::{TaskContext, TaskError, Worker};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    house::{Client, House},
    running::TOKENS,
};

const JUMPS: [&str; 4] =
    ["clock-seconds 3600", "clock-seconds -3600", "clock-seconds 400000000", "clock-seconds -1700000000"];

#[test]
fn f19_a_clock_that_is_set_expires_nothing_and_delays_nothing() {
    let house = House::new();
    let client = house.start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (finish, finished) = mpsc::channel::<()>(1);
    let finished = std::sync::Arc::new(tokio::sync::Mutex::new(finished));
    let handler = move |_: Value, _: TaskContext| {
        let finished = finished.clone();
        async move {
            finished.lock().await.recv().await;
            Ok::<_, TaskError>(json!({}))
        }
    };
    let worker = Worker::builder(format!("http://127.0.0.1:{}", client.running.port)).token(TOKENS[3]);
    let worker = worker.worker_id("w").slots(1).handle("work", handler).build().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let working = runtime.spawn(worker.run_until(stop.clone().cancelled_owned()));

    let (held, napping) = (client.job("work"), client.job("nap"));
    client.until("the task", |client| client.status_of(&held) == "running");
    let connected_at = client.get("/api/workers")[0]["connected_at"].clone();
    let attempt = client.get(&format!("/api/jobs/{held}"))["current_task"]["id"].clone();
    let mut made = vec![held.clone(), napping.clone()];
    for jump in JUMPS {
        house.suffers(jump);
        made.extend((0..5).map(|_| client.job("instant")));
        // Both were meant for half an hour by any clock that is not set.
        assert_eq!(client.status_of(&napping), "waiting_for_timer", "{jump}");
        let job = client.get(&format!("/api/jobs/{held}"));
        assert_eq!((&job["status"], &job["current_task"]["id"]), (&json!("running"), &attempt), "{jump}");
        let workers = client.get("/api/workers");
        assert_eq!(workers[0]["connected_at"], connected_at, "{jump}");
    }
    // The newest first, as they were made: ids follow no clock that goes back.
    let mut listed = client.jobs();
    listed.reverse();
    assert_eq!(listed, made);
    assert_eq!(made.iter().collect::<HashSet<_>>().len(), made.len());
    runtime.block_on(finish.send(())).unwrap();
    client.until("the end", |client| client.status_of(&held) == "finished");
    stop.cancel();
    runtime.block_on(working).unwrap().unwrap();
}

fn ends(client: &Client, job: &str) -> usize {
    let history = client.get(&format!("/api/jobs/{job}/history"));
    let entries = history["history"].as_array().unwrap();
    entries.iter().filter(|entry| entry["event"] == "job_finished").count()
}

#[test]
fn f19_after_a_start_with_another_clock_timers_are_due_once_and_ids_stay_unique() {
    let house = House::new();
    let client = house.start();
    let (first, second) = (client.job("nap"), client.job("instant"));
    client.kill();

    // An hour later, as far as anybody can tell: half an hour is over, once.
    house.suffers("clock-seconds 3600");
    let client = house.start();
    client.until("the timer", |client| client.status_of(&first) == "finished");
    let third = client.job("nap");
    client.kill();

    // An hour back. What has ended stays ended; what was begun later than now waits for its own half hour.
    house.suffers("clock-seconds -3600");
    let client = house.start();
    let fourth = client.job("instant");
    assert_eq!((ends(&client, &first), ends(&client, &third)), (1, 0));
    assert_eq!(client.status_of(&third), "waiting_for_timer");
    assert_eq!(client.jobs(), [fourth, third, second, first], "in the order in which they were made");
}
