//! How far a task is: who sees it, and what outlives whom.

use serde_json::Value;

use super::support::{House, Process, soon, until};

fn is_shown(job: &Value) -> bool {
    let task = &job["current_task"];
    task["progress"]["fraction"] == 0.5
        && task["progress"]["message"] == "half"
        && task["checkpoint"]["page"] == 1
}

/// Kills orchestrator and worker as soon as the checkpoint is durable, and starts the orchestrator again.
async fn all_are_killed_when_it_is_stored(house: &mut House, worker: Process, job_id: &str) {
    house.until_job(job_id, "to be half done", is_shown).await;
    until("the checkpoint to be stored", async || {
        (house.events_of(job_id, "checkpoint_saved").await == 1).then_some(())
    })
    .await;
    house.kill();
    worker.kill();
    house.start_again().await;
}

#[tokio::test]
async fn progress_and_checkpoint_are_seen_and_the_next_attempt_goes_on_after_its_worker_was_killed() {
    let house = House::start().await;
    let first = house.sdk("first");
    let job_id = house.submit().await;
    house.until_job(&job_id, "to be half done", is_shown).await;
    let (mut events, mut seen) = (house.events(&job_id).await, String::new());
    while !(seen.contains(r#""fraction":0.5"#) && seen.contains(r#""checkpoint":{"page":1}"#)) {
        let part = soon("the event", events.chunk()).await.unwrap().expect("the job has not ended");
        seen.push_str(&String::from_utf8_lossy(&part));
    }
    first.kill();
    let _second = house.sdk("second");
    house.until_noted("begun", &job_id, 2).await;
    house.release();
    let job = house.until_finished(&job_id).await;
    assert_eq!(job["result"]["began_at"], 1, "{job}");
}

#[tokio::test]
async fn a_checkpoint_outlives_the_orchestrator_and_the_worker_killed_together() {
    let mut house = House::start().await;
    let first = house.sdk("first");
    let job_id = house.submit().await;
    all_are_killed_when_it_is_stored(&mut house, first, &job_id).await;
    let job = house.job(&job_id).await;
    assert_eq!(job["current_task"]["checkpoint"]["page"], 1, "{job}");
    let _second = house.sdk("second");
    house.until_noted("begun", &job_id, 2).await;
    house.release();
    assert_eq!(house.until_finished(&job_id).await["result"]["began_at"], 1);
}

#[tokio::test]
async fn a_worker_that_outlives_the_orchestrator_says_again_how_far_it_is() {
    let mut house = House::start().await;
    let _first = house.sdk("first");
    let job_id = house.submit().await;
    house.until_job(&job_id, "to be half done", is_shown).await;
    house.kill();
    house.start_again().await;
    house.until_job(&job_id, "to be half done again", is_shown).await;
    house.release();
    house.until_finished(&job_id).await;
    assert_eq!((house.noted("begun", &job_id), house.noted("ended", &job_id)), (1, 1));
}

#[tokio::test]
async fn what_a_shell_command_saved_outlives_its_worker_and_the_orchestrator() {
    let mut house = House::start().await;
    // Says how far it is, waits for the test, and answers what it found at its beginning.
    let command = format!(
        "hold=exec:echo 'progress 50% half' >&3; echo 'checkpoint {{\"page\":1}}' >&3; \
         : < {}; echo \"{{\\\"found\\\":${{AVTOMATIKA_CHECKPOINT-null}}}}\"",
        house.gate().display()
    );
    let first = house.stock("first", &command, &[]);
    let job_id = house.submit().await;
    all_are_killed_when_it_is_stored(&mut house, first, &job_id).await;
    let _second = house.stock("second", &command, &[]);
    house.until_job(&job_id, "to be half done again", is_shown).await;
    let _open = house.open_gate();
    assert_eq!(house.until_finished(&job_id).await["result"]["found"]["page"], 1);
}
