//! Workers that know several addresses of their orchestrator.

use super::support::{House, free_port};

#[tokio::test]
async fn a_worker_goes_to_whoever_takes_over_with_its_tasks_and_results() {
    let mut house = House::start().await;
    let (first, stand_in) = (house.url(), free_port());
    let second = format!("http://127.0.0.1:{stand_in}");
    let task = house.task_at_the_gate();
    let list = format!("{second},{first}");
    let arguments = ["--orchestrator", &list, "--worker-id", "w1", "--task", &task, "--log-format", "text"];
    let slots = ["--max-concurrent-tasks", "2"];
    let mut worker = house.stock_with("w1", arguments.into_iter().chain(slots));
    house.until_worker("w1", "idle").await;
    let both = [house.submit().await, house.submit().await];
    for job_id in &both {
        house.until_noted("begun", job_id, 1).await;
    }

    // Gone without a word. What ends meanwhile is kept.
    house.kill();
    let open = house.open_gate();
    house.move_to(stand_in);
    house.start_again().await;
    for job_id in &both {
        let job = house.until_finished(job_id).await;
        assert_eq!((job["retry_count"].as_u64(), house.noted("begun", job_id)), (Some(0), 1), "{job}");
    }
    drop(open);

    // Gone in order, with a task that runs on.
    let last = house.submit().await;
    house.until_noted("begun", &last, 1).await;
    house.process().signal("-TERM");
    assert_eq!(house.process().ended().await.code(), Some(0));
    house.move_to(first.rsplit_once(':').unwrap().1.parse().unwrap());
    house.start_again().await;
    house.until_held(&last, "w1").await;
    let _open = house.open_gate();
    house.until_finished(&last).await;
    assert_eq!(house.noted("begun", &last), 1);
    let log = house.log_of("w1");
    assert!(log.contains("The orchestrator has stopped"), "{log}");
    assert_eq!(log.matches("Worker registered").count(), 1, "one session for all of it: {log}");
    worker.signal("-TERM");
    assert_eq!(worker.ended().await.code(), Some(0));
}
