//! Tasks that are no longer wanted, and workers that do or do not let them go.

use std::fs;

use super::support::{House, until};

const STOPS: [&str; 3] = ["stopped", "forced", "overdue"];

async fn stops(house: &House) -> [f64; 3] {
    let mut counts = [0.0; 3];
    for (count, outcome) in counts.iter_mut().zip(STOPS) {
        *count = house.metric(&format!("avtomatika_task_stops_total{{outcome=\"{outcome}\"}}")).await;
    }
    counts
}

#[tokio::test]
async fn a_command_that_obeys_is_told_apart_from_one_that_has_to_be_killed_with_its_children() {
    let house = House::start().await;
    let dir = house.dir.path().display().to_string();
    let obedient = house.stock_at_the_gate("obedient", &[]);
    house.until_worker("obedient", "idle").await;
    let job_id = house.submit().await;
    house.until_noted("begun", &job_id, 1).await;
    house.cancel(&job_id).await;
    let worker = house.until_worker("obedient", "idle").await;
    assert_eq!((worker["unstopped_tasks"].as_u64(), stops(&house).await), (Some(0), [1.0, 0.0, 0.0]));
    drop(obedient);
    house.until_gone("obedient").await;

    // Neither the command nor what it has started ends at SIGTERM.
    let stubborn = format!(
        "hold=exec:trap '' TERM; sh -c 'echo $$ > {dir}/grandchild; while :; do sleep 1; done' & \
         echo $$ > {dir}/child; wait; while :; do sleep 1; done"
    );
    let _stubborn = house.stock("stubborn", &stubborn, &["--max-concurrent-tasks", "1"]);
    house.until_worker("stubborn", "idle").await;
    let job_id = house.submit().await;
    let mut pids = Vec::new();
    for name in ["child", "grandchild"] {
        let read = || fs::read_to_string(format!("{dir}/{name}")).ok()?.trim().parse::<u32>().ok();
        pids.push(until(name, async || read()).await);
    }
    house.cancel(&job_id).await;
    let worker = house.until_worker("stubborn", "idle").await;
    assert_eq!((worker["unstopped_tasks"].as_u64(), stops(&house).await), (Some(1), [1.0, 1.0, 0.0]));
    for pid in pids {
        let stat = || fs::read_to_string(format!("/proc/{pid}/stat")).ok();
        // One that nobody has fetched yet counts as gone.
        let gone = async || stat().is_none_or(|stat| stat.contains(") Z ")).then_some(());
        until("the process to be gone", gone).await;
    }
}
