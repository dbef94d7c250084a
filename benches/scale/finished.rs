//! Many finished jobs in the store, and their pruning.

use std::time::{Duration, Instant};

use crate::{
    Figures, Goal, Size,
    load::{data, keep_submitting, throughput},
    process::Orchestrator,
    progress,
    report::Table,
    worker::{Tally, Workers},
};

const ABOUT: &str = "\
512 jobs of one task with 1 KB of input are under way at any time, for 5 minutes; one worker with 256 slots
answers each task at once. Measured over the first and over the last 100,000 jobs. Then the orchestrator is
started again with retention = 1m, and measured over as many jobs while it prunes what ended before that.";

const FILL_FOR: Duration = Duration::from_secs(300);
const MEASURED: u64 = 100_000;
const IN_FLIGHT: usize = 512;
const SLOTS: u32 = 256;

/// The shortest that the orchestrator accepts. Jobs get older than this while the store fills.
const RETENTION: (&str, &str) = ("AVTOMATIKA_RETENTION", "1m");

pub async fn measure(size: &Size) -> Table {
    let mut figures = Figures::new("finished", ABOUT);
    progress("finished: an empty store");
    let mut orchestrator = Orchestrator::start(&size.dir).await;
    let measured = size.of(MEASURED);
    let (first, finished, last) = fill_and_measure(&orchestrator, size.time(FILL_FOR), measured).await;
    figures.add("jobs/s with an empty store", first, 0, Goal::None);
    figures.add(format!("jobs/s after {finished} finished jobs"), last, 0, Goal::None);
    figures.add("ratio", last / first, 2, Goal::AtLeast(0.9));
    figures.add("size of the store, MiB", orchestrator.disk_mib(), 0, Goal::None);
    figures.add("resident memory, MiB", orchestrator.resident_mib(), 1, Goal::None);

    orchestrator.kill();
    orchestrator.start_again(&[RETENTION]);
    orchestrator.ready().await;
    progress("finished: with pruning");
    let tally = Tally::new(IN_FLIGHT);
    let workers = Workers::connect(&orchestrator.url(), 1, SLOTS, &tally).await;
    let submitting = keep_submitting(&orchestrator.url(), &tally, &data(1024)).await;
    let pruning = throughput(&tally, measured).await;
    drop((submitting, workers));
    figures.add("jobs/s while the finished are pruned", pruning, 0, Goal::None);
    figures.add("ratio to an empty store", pruning / first, 2, Goal::AtLeast(0.9));
    figures.add("size of the store afterwards, MiB", orchestrator.disk_mib(), 0, Goal::None);
    figures.0
}

/// Jobs per second at first, the number of finished jobs, and jobs per second at last.
async fn fill_and_measure(orchestrator: &Orchestrator, time: Duration, measured: u64) -> (f64, u64, f64) {
    let tally = Tally::new(IN_FLIGHT);
    let workers = Workers::connect(&orchestrator.url(), 1, SLOTS, &tally).await;
    let submitting = keep_submitting(&orchestrator.url(), &tally, &data(1024)).await;
    let until = Instant::now() + time;
    let first = throughput(&tally, measured).await;
    while Instant::now() < until {
        progress(&format!("finished: {} jobs", tally.done()));
        tokio::time::sleep(Duration::from_secs(5).min(until.saturating_duration_since(Instant::now()))).await;
    }
    let finished = tally.done();
    let last = throughput(&tally, measured).await;
    drop((submitting, workers));
    (first, finished, last)
}
