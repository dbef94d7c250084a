//! Stops in order: of workers, by signal and by an operator, and of the orchestrator, whatever its clients do.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::json;

use super::support::{House, Process, timed, until};

/// What a worker does when it is told to stop, by whomever.
async fn finishes_takes_nothing_new_and_ends(tell: impl AsyncFnOnce(&House, &Process)) {
    let house = House::start().await;
    let mut worker = house.stock_at_the_gate("leaving", &["--max-concurrent-tasks", "2"]);
    house.until_worker("leaving", "idle").await;
    let running = house.submit().await;
    house.until_noted("begun", &running, 1).await;
    tell(&house, &worker).await;
    house.until_worker("leaving", "draining").await;
    // It has a free slot, and does not get it.
    let next = house.submit().await;
    let explained = house.get(&format!("/api/jobs/{next}/explain")).await;
    assert_eq!(explained["reason"], "workers_draining", "{explained}");
    let _open = house.open_gate();
    house.until_finished(&running).await;
    assert_eq!(worker.ended().await.code(), Some(0), "{}", house.log_of("leaving"));
    house.until_gone("leaving").await;
    assert_eq!(house.noted("begun", &next), 0);
    let _heir = house.stock_at_the_gate("heir", &[]);
    house.until_finished(&next).await;
}

#[tokio::test]
async fn f50_sigterm_lets_a_worker_finish_what_runs() {
    finishes_takes_nothing_new_and_ends(async |_, worker| worker.signal("-TERM")).await;
}

#[tokio::test]
async fn an_operator_can_do_the_same_from_afar() {
    finishes_takes_nothing_new_and_ends(async |house, _| {
        let (status, answer) = house.post("/api/workers/leaving/drain", json!({})).await;
        assert_eq!((status, answer["status"].as_str()), (200, Some("draining")), "{answer}");
        let (status, answer) = house.post("/api/workers/nobody/drain", json!({})).await;
        assert_eq!((status, answer["code"].as_str()), (404, Some("WORKER_NOT_FOUND")), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn what_a_leaving_worker_cannot_finish_in_time_goes_to_another_and_uses_up_no_retry() {
    let house = House::start().await;
    let mut worker = house.stock_at_the_gate("leaving", &["--drain-timeout", "200ms"]);
    house.until_worker("leaving", "idle").await;
    let job_id = house.submit().await;
    house.until_noted("begun", &job_id, 1).await;
    let _heir = house.stock_at_the_gate("heir", &[]);
    house.until_worker("heir", "idle").await;
    worker.signal("-TERM");
    assert_eq!(worker.ended().await.code(), Some(0), "{}", house.log_of("leaving"));
    house.until_noted("begun", &job_id, 2).await;
    let _open = house.open_gate();
    let job = house.until_finished(&job_id).await;
    assert_eq!(job["retry_count"], 0);
    let counts =
        (house.events_of(&job_id, "task_returned").await, house.events_of(&job_id, "worker_lost").await);
    assert_eq!(counts, (1, 0));
}

/// What an orchestrator is given to stop, here and in its settings.
const DEADLINE: Duration = Duration::from_secs(2);

/// How much of that the process may take beside: to begin, and to be seen to have ended.
const SLACK: Duration = Duration::from_secs(1);

fn connect(house: &House) -> TcpStream {
    TcpStream::connect(house.url().strip_prefix("http://").unwrap()).unwrap()
}

#[tokio::test]
async fn f50_an_orchestrator_stops_within_its_deadline_whatever_its_clients_do() {
    let mut house = House::with(&["--drain-timeout", "2s"]).await;
    let worker = house.stock_at_the_gate("w1", &["--max-concurrent-tasks", "1"]);
    house.until_worker("w1", "idle").await;
    let job_id = house.submit().await;
    house.until_noted("begun", &job_id, 1).await;

    // One watches and never reads on.
    let _watches = house.events(&job_id).await;
    // One has sent half a head, one half a body.
    let mut half_head = connect(&house);
    half_head.write_all(b"GET /api/jobs HTTP/1.1\r\nhost: localhost\r\n").unwrap();
    let mut half_body = connect(&house);
    let head = "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: client-token-of-the-test\r\ncontent-length: 5000\r\n\r\n{";
    half_body.write_all(head.as_bytes()).unwrap();
    // One asks for more than the system holds for it, and takes the first byte.
    let large = json!({ "blueprint": "hold", "initial_data": { "text": "x".repeat(900_000) } });
    for _ in 0..30 {
        assert_eq!(house.post("/api/v1/jobs", large.clone()).await.0, 202);
    }
    let mut stalled = connect(&house);
    stalled
        .write_all(b"GET /api/jobs?limit=100 HTTP/1.1\r\nhost: localhost\r\nx-avtomatika-token: client-token-of-the-test\r\n\r\n")
        .unwrap();
    stalled.read_exact(&mut [0]).unwrap();
    // One waits for the end of a job that does not come.
    let waits = reqwest::Client::new()
        .post(format!("{}/api/v1/jobs?wait=60s", house.url()))
        .header("x-avtomatika-token", "client-token-of-the-test")
        .body(json!({ "blueprint": "hold" }).to_string());
    let waits = tokio::spawn(waits.send());
    until("the waiting job", async || {
        let waiting = house.get("/api/jobs?limit=1").await["jobs"][0]["initial_data"] == json!({});
        waiting.then_some(())
    })
    .await;

    house.process().signal("-TERM");
    let (took, status) = timed(house.process().ended()).await;
    assert_eq!(status.code(), Some(0));
    eprintln!("the stop took {took:.2?} of {DEADLINE:?}");
    assert!(took <= DEADLINE + SLACK, "the stop took {took:?} of {DEADLINE:?}");
    let answered = waits.await.unwrap().map(|answer| answer.status().as_u16());
    assert!(matches!(answered, Err(_) | Ok(202 | 503)), "{answered:?}");
    until("the worker to be told", async || {
        house.log_of("w1").contains("The orchestrator is about to stop").then_some(())
    })
    .await;

    house.start_again().await;
    house.until_held(&job_id, "w1").await;
    let jobs = house.get("/api/dashboard").await;
    assert_eq!(
        jobs["jobs"]["running"].as_u64().unwrap() + jobs["jobs"]["queued"].as_u64().unwrap(),
        32,
        "{jobs}"
    );
    assert_eq!(house.noted("begun", &job_id), 1);
    drop((worker, half_head, half_body, stalled));
}
