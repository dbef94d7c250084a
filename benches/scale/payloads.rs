//! Small jobs beside large ones.

use std::time::Duration;

use crate::{
    Figures, Goal, Size,
    load::{Callers, data, p50_and_p99},
    process::Orchestrator,
    progress,
    report::Table,
    worker::{Tally, Workers},
};

const ABOUT: &str = "\
8 callers submit jobs of 100 bytes and wait for their end, first alone, then beside 50 callers who do the same
with jobs of 1 MB on a connection of their own, as fast as they are answered. Two workers with 64 slots each
serve both kinds, over the same streams. The times are those of the small jobs, from the call to its answer.";

const SMALL_CALLERS: usize = 8;
const LARGE_CALLERS: usize = 50;
const WORKERS: u64 = 2;
const SLOTS: u32 = 64;
const FOR: Duration = Duration::from_secs(20);

/// Just below what a submission may have.
const LARGE_BYTES: usize = 1_000_000;

pub async fn measure(size: &Size) -> Table {
    let mut figures = Figures::new("payloads", ABOUT);
    let orchestrator = Orchestrator::start(&size.dir).await;
    let url = orchestrator.url();
    let tally = Tally::new();
    let _workers = Workers::connect(&url, WORKERS, SLOTS, &tally).await;
    let (small, large) = (data(100), data(LARGE_BYTES));

    progress("payloads: small jobs alone");
    Callers::start(&url, SMALL_CALLERS, &small).await.run_for(size.time(FOR / 10)).await;
    let alone = Callers::start(&url, SMALL_CALLERS, &small).await.run_for(size.time(FOR)).await;
    let jobs = alone.len() as f64 / size.time(FOR).as_secs_f64();
    let (alone_p50, alone_p99) = p50_and_p99(alone);
    figures.add("alone: small jobs/s", jobs, 0, Goal::None);
    figures.add("alone: p50, ms", alone_p50, 2, Goal::None);
    figures.add("alone: p99, ms", alone_p99, 2, Goal::None);
    figures.add("alone: resident memory, MiB", orchestrator.resident_mib(), 1, Goal::None);

    progress("payloads: small jobs beside large ones");
    let time = size.time(FOR);
    let large_callers = Callers::start(&url, LARGE_CALLERS, &large).await;
    let small_callers = Callers::start(&url, SMALL_CALLERS, &small).await;
    let (beside, large) = tokio::join!(small_callers.run_for(time), large_callers.run_for(time));
    figures.add("beside: large jobs/s", large.len() as f64 / time.as_secs_f64(), 1, Goal::None);
    figures.add("beside: small jobs/s", beside.len() as f64 / time.as_secs_f64(), 0, Goal::None);
    let (beside_p50, beside_p99) = p50_and_p99(beside);
    figures.add("beside: p50, ms", beside_p50, 2, Goal::None);
    figures.add("beside: p99, ms", beside_p99, 2, Goal::None);
    figures.add("ratio of the p99", beside_p99 / alone_p99, 2, Goal::AtMost(3.0));
    figures.add("beside: largest memory, MiB", orchestrator.peak_mib(), 1, Goal::None);
    figures.0
}
