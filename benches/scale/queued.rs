//! Few and many jobs in the queue.

use crate::{
    Figures, Goal, Size,
    load::{data, fill},
    process::Orchestrator,
    progress,
    report::Table,
    turns::{Queue, Turns, in_turns},
};

const ABOUT: &str = "\
Jobs of one task with 1 KB of input are stored while no worker is connected, few in one orchestrator and many in
another. Then one worker with 256 slots answers each task at once, and for each job that ends another is submitted,
so that the queue stays as long as it was. Both are measured in turns: medians of five rounds, after one that warms up.";

const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;

/// Of each of them, in each round.
const MEASURED: u64 = 50_000;

pub async fn measure(size: &Size) -> Table {
    let mut figures = Figures::new("queued", ABOUT);
    let (jobs, data) = (size.of(MANY), data(1024));
    progress(&format!("queued: {jobs} jobs"));
    let (few, many) = (Orchestrator::start(&size.dir).await, Orchestrator::start(&size.dir).await);
    fill(&many.url(), jobs, &data).await;
    let case = |what| format!("{what} memory with {jobs} open jobs, MiB");
    figures.add(case("resident"), many.resident_mib(), 1, Goal::AtMost(512.0));
    figures.add(case("largest"), many.peak_mib(), 1, Goal::None);
    let few = Queue { orchestrator: &few, open: FEW };
    let many = Queue { orchestrator: &many, open: jobs };
    let measured = size.of(MEASURED);
    let Turns { usual, other, ratio } =
        in_turns(async || few.work(measured, &data).await, async || many.work(measured, &data).await).await;
    figures.add(format!("jobs/s with {FEW} jobs queued"), usual, 0, Goal::None);
    figures.add(format!("jobs/s with {jobs} jobs queued"), other, 0, Goal::None);
    figures.add("ratio", ratio, 2, Goal::AtLeast(0.9));
    figures.0
}
