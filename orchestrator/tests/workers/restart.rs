//! The orchestrator dies while workers have their hands full.

use std::collections::HashMap;

use super::support::{House, until};

const WORKERS: usize = 5;
const SLOTS: usize = 20;

/// The commands run for as long as the test wants, which is longer than the restart takes.
#[tokio::test]
async fn f01_a_killed_orchestrator_adopts_a_hundred_tasks_and_hands_out_none_of_them_again() {
    let mut house = House::start().await;
    let slots = SLOTS.to_string();
    let workers =
        (0..WORKERS).map(|n| house.stock_at_the_gate(&format!("w{n}"), &["--max-concurrent-tasks", &slots]));
    let workers: Vec<_> = workers.collect();
    for n in 0..WORKERS {
        house.until_worker(&format!("w{n}"), "idle").await;
    }
    let mut job_ids = Vec::new();
    for _ in 0..WORKERS * SLOTS {
        job_ids.push(house.submit().await);
    }
    until("every command to run", async || (house.journal().len() == job_ids.len()).then_some(())).await;

    house.kill();
    house.start_again().await;
    for n in 0..WORKERS {
        house.until_worker(&format!("w{n}"), "full").await;
    }
    for job_id in &job_ids {
        assert_eq!(house.job(job_id).await["status"], "running");
    }
    assert_eq!(house.metric("avtomatika_tasks_adopted_total").await, job_ids.len() as f64);

    let _open = house.open_gate();
    for job_id in &job_ids {
        let job = house.until_finished(job_id).await;
        assert_eq!(job["retry_count"], 0, "{job}");
        assert_eq!(house.events_of(job_id, "task_ready").await, 1, "{job_id} was made ready again");
    }
    let mut runs: HashMap<String, usize> = HashMap::new();
    house.journal().into_iter().for_each(|(_, job)| *runs.entry(job).or_default() += 1);
    assert!(job_ids.iter().all(|job_id| runs[job_id] == 1), "each ran once: {runs:?}");
    assert_eq!(house.metric("avtomatika_tasks_dispatched_total").await, 0.0, "by the new process");
    drop(workers);
}
