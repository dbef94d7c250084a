//! Workers that die, fall silent, or are cut off.

use std::time::Duration;

use avtomatika_proto::limits::KEEPALIVE_TIMEOUT;

use super::{
    relay::Relay,
    support::{House, Process, assert_within, hold, timed, until},
};

/// What is promised for a closed socket, and how much longer it may take here. Somebody looks each second for workers that do not take
/// what they are sent; that alone would be too late.
const NOTICED_WITHIN: Duration = Duration::from_millis(100);
const SLACK: Duration = Duration::from_millis(400);

/// How much longer than [`KEEPALIVE_TIMEOUT`] silence may last here.
const SILENCE_SLACK: Duration = Duration::from_secs(2);

/// Deaths that are measured.
const DEATHS: usize = 110;

/// Each worker has one task and is killed while the next one is idle. How long from the kill until that one holds the task.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f04_a_killed_workers_task_is_ready_for_others_at_once() {
    let house = House::start().await;
    let mut times = Vec::new();
    let mut holder = house.sdk("w0");
    house.until_worker("w0", "idle").await;
    for death in 0..DEATHS {
        let job_id = house.submit().await;
        house.until_noted("begun", &job_id, 1).await;
        let name = format!("w{}", death + 1);
        let heir = house.sdk(&name);
        house.until_worker(&name, "idle").await;
        let mut events = house.events(&job_id).await;
        let (took, ()) = timed(async {
            holder.kill();
            let mut seen = String::new();
            while !seen.contains(&format!("\"worker_id\":\"{name}\"")) {
                let part = events.chunk().await.unwrap().expect("the job has not ended");
                seen.push_str(&String::from_utf8_lossy(&part));
            }
        })
        .await;
        times.push(took);
        assert_eq!(house.events_of(&job_id, "worker_lost").await, 1);
        house.cancel(&job_id).await;
        house.until_worker(&name, "idle").await;
        holder = heir;
    }
    times.sort_unstable();
    let percentile = |share: usize| times[(times.len() * share).div_ceil(100) - 1];
    eprintln!("{DEATHS} deaths: p50 {:.1?}, p99 {:.1?}", percentile(50), percentile(99));
    assert_within("the 99th of a hundred deaths", percentile(99), NOTICED_WITHIN, SLACK);
}

/// A worker behind a relay that holds a job's task, and one with nothing to do that would get it next.
async fn cut_off_and_its_heir() -> (House, Relay, String, Process) {
    let house = House::start().await;
    let relay = Relay::before(&house.url()).await;
    let cut_off = hold(house.worker_here(&relay.url, "cut-off"), house.dir.path()).build().unwrap();
    tokio::spawn(cut_off.run_until(std::future::pending()));
    house.until_worker("cut-off", "idle").await;
    let job_id = house.submit().await;
    house.until_noted("begun", &job_id, 1).await;
    let heir = house.sdk("heir");
    house.until_worker("heir", "idle").await;
    (house, relay, job_id, heir)
}

#[tokio::test]
async fn f25_a_reset_connection_is_a_loss_and_who_comes_back_is_told_to_stop() {
    let (house, relay, job_id, heir) = cut_off_and_its_heir().await;
    let (took, _) = timed(async {
        relay.reset();
        house.until_held(&job_id, "heir").await
    })
    .await;
    assert_within("noticing a reset", took, NOTICED_WITHIN, SLACK);
    house.until_noted("stopped", &job_id, 1).await;
    house.until_worker("cut-off", "idle").await;
    house.release();
    let job = house.until_finished(&job_id).await;
    assert_eq!((job["retry_count"].as_u64(), house.noted("ended", &job_id)), (Some(0), 1));
    drop(heir);
}

#[tokio::test]
async fn f23_swallowed_packets_are_a_loss_within_three_seconds() {
    let (house, relay, job_id, _heir) = cut_off_and_its_heir().await;
    let (took, _) = timed(async {
        relay.swallow();
        house.until_held(&job_id, "heir").await
    })
    .await;
    assert_within("noticing silence", took, KEEPALIVE_TIMEOUT, SILENCE_SLACK);
}

#[tokio::test]
async fn f22_a_worker_that_stands_still_is_suspected_then_lost_and_told_to_stop_when_it_is_back() {
    let house = House::start().await;
    let frozen = house.sdk("frozen");
    house.until_worker("frozen", "idle").await;
    let job_id = house.submit().await;
    house.until_noted("begun", &job_id, 1).await;
    let _heir = house.sdk("heir");
    house.until_worker("heir", "idle").await;
    frozen.signal("-STOP");
    let (took, _) = timed(async {
        house.until_worker("frozen", "suspected").await;
        assert_eq!(house.job(&job_id).await["current_task"]["worker_id"], "frozen", "it is not lost yet");
        house.until_held(&job_id, "heir").await
    })
    .await;
    assert_within("noticing a frozen worker", took, KEEPALIVE_TIMEOUT, SILENCE_SLACK);
    house.until_gone("frozen").await;
    frozen.signal("-CONT");
    house.until_noted("stopped", &job_id, 1).await;
    house.until_worker("frozen", "idle").await;
    house.release();
    house.until_finished(&job_id).await;
    assert_eq!((house.noted("begun", &job_id), house.noted("ended", &job_id)), (2, 1));
    assert_eq!(house.events_of(&job_id, "worker_lost").await, 1);
}

/// What nobody may be taken for lost for.
const STALL: Duration = Duration::from_secs(2);

#[tokio::test]
async fn f52_a_stall_of_two_seconds_costs_nothing() {
    let house = House::start().await;
    let stalled = house.sdk("stalled");
    house.until_worker("stalled", "idle").await;
    let job_id = house.submit().await;
    house.until_noted("begun", &job_id, 1).await;
    let _other = house.sdk("other");
    house.until_worker("other", "idle").await;
    // At whatever moment between two heartbeats it begins.
    for _ in 0..3 {
        stalled.signal("-STOP");
        tokio::time::sleep(STALL).await;
        stalled.signal("-CONT");
        house.until_worker("stalled", "full").await;
    }
    house.release();
    house.until_finished(&job_id).await;
    assert_eq!((house.noted("begun", &job_id), house.noted("ended", &job_id)), (1, 1));
    assert_eq!(house.events_of(&job_id, "worker_lost").await, 0);
}

#[tokio::test]
async fn f21_an_orchestrator_that_stands_still_takes_no_worker_for_lost() {
    let mut house = House::start().await;
    let patient = house.patient_task();
    let _patient = house.stock("patient", &patient, &["--max-concurrent-tasks", "1"]);
    house.until_worker("patient", "idle").await;
    let long = house.submit().await;
    house.until_noted("begun", &long, 1).await;
    let _quick = house.stock_at_the_gate("quick", &["--max-concurrent-tasks", "1"]);
    house.until_worker("quick", "idle").await;
    let short = house.submit().await;
    house.until_noted("begun", &short, 1).await;

    house.process().signal("-STOP");
    let _open = house.open_gate();
    for name in ["patient", "quick"] {
        until(&format!("{name} to leave"), async || house.log_of(name).contains("silent").then_some(()))
            .await;
    }
    house.process().signal("-CONT");
    house.until_finished(&short).await;
    house.until_worker("patient", "full").await;
    house.release();
    house.until_finished(&long).await;
    for job_id in [&long, &short] {
        assert_eq!((house.noted("begun", job_id), house.events_of(job_id, "worker_lost").await), (1, 0));
    }
}

#[tokio::test]
async fn f31_a_task_that_takes_three_workers_down_is_quarantined() {
    let house = House::start().await;
    let job_id = house.submit().await;
    for name in ["first", "second", "third"] {
        let mut victim = house.stock(name, "hold=exec:kill -9 $PPID", &[]);
        assert_eq!(victim.ended().await.code(), None, "it was killed");
    }
    let job = house.until_job(&job_id, "to be quarantined", |job| job["status"] == "quarantined").await;
    assert_eq!(job["error_code"], "WORKER_LOST", "{job}");
    assert_eq!(house.events_of(&job_id, "worker_lost").await, 3);
}
