//! Few and many jobs in the queue.

use crate::{
    Figures, Goal, Size,
    load::{data, fill, keep_submitting, throughput},
    process::Orchestrator,
    progress,
    report::Table,
    worker::{Tally, Workers},
};

const ABOUT: &str = "\
Jobs of one task with 1 KB of input are stored while no worker is connected. Then one worker with 256 slots
answers each task at once, and for each job that ends another is submitted, so that the queue stays as long as
it was. A tenth of the jobs warms up.";

const FEW: u64 = 1_000;
const MANY: u64 = 1_000_000;
const MEASURED: u64 = 100_000;
const SLOTS: u32 = 256;

pub async fn measure(size: &Size) -> Table {
    let mut figures = Figures::new("queued", ABOUT);
    let measured = size.of(MEASURED);
    let few = run(size, FEW, measured, None).await;
    figures.add(format!("jobs/s with {FEW} jobs queued"), few, 0, Goal::None);
    let jobs = size.of(MANY);
    let many = run(size, jobs, measured, Some(&mut figures)).await;
    figures.add(format!("jobs/s with {jobs} jobs queued"), many, 0, Goal::None);
    figures.add("ratio", many / few, 2, Goal::AtLeast(0.9));
    figures.0
}

async fn run(size: &Size, jobs: u64, measured: u64, memory: Option<&mut Figures>) -> f64 {
    progress(&format!("queued: {jobs} jobs"));
    let orchestrator = Orchestrator::start(&size.dir).await;
    let data = data(1024);
    fill(&orchestrator.url(), jobs, &data).await;
    if let Some(figures) = memory {
        let case = |what| format!("{what} memory with {jobs} open jobs, MiB");
        figures.add(case("resident"), orchestrator.resident_mib(), 1, Goal::AtMost(512.0));
        figures.add(case("largest"), orchestrator.peak_mib(), 1, Goal::None);
    }
    let tally = Tally::new(0);
    let workers = Workers::connect(&orchestrator.url(), 1, SLOTS, &tally).await;
    let submitting = keep_submitting(&orchestrator.url(), &tally, &data).await;
    progress(&format!("queued: measuring with {jobs} jobs and {} worker", workers.len()));
    let per_second = throughput(&tally, measured).await;
    drop((submitting, workers));
    per_second
}
