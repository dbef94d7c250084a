//! Many finished jobs in the store, and their pruning.

use std::time::{Duration, Instant};

use crate::{
    Figures, Goal, Size,
    load::data,
    process::Orchestrator,
    progress,
    report::Table,
    turns::{Queue, Turns, in_turns},
};

const ABOUT: &str = "\
512 jobs of one task with 1 KB of input are under way at any time, for 5 minutes; one worker with 256 slots
answers each task at once. Then another orchestrator is started, and both are measured in turns: medians of five rounds of
50,000 jobs, after one that warms up. Then the first one is started again with retention = 1m, and measured over 100,000
jobs while it prunes what ended before that, between two measurements of the other one.";

const FILL_FOR: Duration = Duration::from_secs(300);
const MEASURED: u64 = 50_000;
const IN_FLIGHT: u64 = 512;

/// The shortest that the orchestrator accepts. Jobs get older than this while the store fills.
const RETENTION: (&str, &str) = ("AVTOMATIKA_RETENTION", "1m");

pub async fn measure(size: &Size) -> Table {
    let mut figures = Figures::new("finished", ABOUT);
    let (mut full, measured) = (Orchestrator::start(&size.dir).await, size.of(MEASURED));
    let finished = fill_up(&full, size.time(FILL_FOR)).await;
    let (empty, data) = (Orchestrator::start(&size.dir).await, data(1024));
    progress(&format!("finished: {finished} jobs, and an empty store"));
    let Turns { usual, other, ratio } = in_turns(
        async || under_way(&empty).work(measured, &data).await,
        async || under_way(&full).work(measured, &data).await,
    )
    .await;
    figures.add("jobs/s with an empty store", usual, 0, Goal::None);
    figures.add(format!("jobs/s after {finished} finished jobs"), other, 0, Goal::None);
    figures.add("ratio", ratio, 2, Goal::AtLeast(0.9));
    figures.add("size of the store, MiB", full.disk_mib(), 0, Goal::None);
    figures.add("resident memory, MiB", full.resident_mib(), 1, Goal::None);

    progress("finished: with pruning");
    full.kill();
    let before = under_way(&empty).work(2 * measured, &data).await;
    full.start_again(&[RETENTION]);
    full.ready().await;
    let pruning = under_way(&full).work(2 * measured, &data).await;
    figures.add("size of the store afterwards, MiB", full.disk_mib(), 0, Goal::None);
    full.kill();
    let after = under_way(&empty).work(2 * measured, &data).await;
    let usual = before.midpoint(after);
    figures.add("jobs/s with an empty store, before and after", usual, 0, Goal::None);
    figures.add("jobs/s while the finished are pruned", pruning, 0, Goal::None);
    figures.add("ratio to an empty store", pruning / usual, 2, Goal::AtLeast(0.9));
    figures.0
}

fn under_way(orchestrator: &Orchestrator) -> Queue<'_> {
    Queue { orchestrator, open: IN_FLIGHT }
}

/// Runs jobs for so long. Returns how many have finished.
async fn fill_up(orchestrator: &Orchestrator, time: Duration) -> u64 {
    let load = under_way(orchestrator).load(&data(1024)).await;
    let until = Instant::now() + time;
    while Instant::now() < until {
        progress(&format!("finished: {} jobs", load.tally.done()));
        tokio::time::sleep(Duration::from_secs(5).min(until.saturating_duration_since(Instant::now()))).await;
    }
    load.tally.done()
}
