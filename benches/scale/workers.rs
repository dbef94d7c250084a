//! Few and many connected workers.

use crate::{
    Figures, Goal, Size,
    load::{dispatch_latencies, p50_and_p99},
    process::Orchestrator,
    progress,
    report::Table,
    worker::{Tally, Workers},
};

const ABOUT: &str = "\
Workers that have nothing to do, each with a TCP connection and a stream of its own and heartbeats each way as
often as the orchestrator asks for, all in one process beside it, with which they share the processors. Then jobs one after
the other: from the call of SubmitJob to the arrival of the task at a worker, one sync to the disk included.
Each task goes to the worker that was longest without one.";

const FEW: u64 = 10;
const MANY: u64 = 10_000;
const JOBS: u64 = 5_000;
const SLOTS: u32 = 4;

/// Files of this process beside the workers' connections.
pub const OTHER_FILES: u64 = 200;

pub async fn measure(size: &Size) -> Table {
    let mut figures = Figures::new("workers", ABOUT);
    let many = size.of(MANY);
    check_open_files(many + OTHER_FILES);
    let few_p99 = run(size, FEW.min(many), Goal::None, None, &mut figures).await;
    run(size, many, Goal::AtMost(400.0), Some(few_p99), &mut figures).await;
    figures.0
}

async fn run(size: &Size, workers: u64, memory: Goal, few_p99: Option<f64>, figures: &mut Figures) -> f64 {
    progress(&format!("workers: {workers}"));
    let orchestrator = Orchestrator::start(&size.dir).await;
    let tally = Tally::new();
    let connected = Workers::connect(&orchestrator.url(), workers, SLOTS, &tally).await;
    let workers = connected.len();
    figures.add(
        format!("resident memory with {workers} workers, MiB"),
        orchestrator.resident_mib(),
        1,
        memory,
    );
    progress(&format!("workers: jobs with {workers} workers"));
    // What is not counted warms up.
    dispatch_latencies(&orchestrator.url(), &tally, size.of(JOBS) / 10).await;
    let (p50, p99) = p50_and_p99(dispatch_latencies(&orchestrator.url(), &tally, size.of(JOBS)).await);
    figures.add(format!("dispatch p50 with {workers} workers, ms"), p50, 2, Goal::None);
    figures.add(format!("dispatch p99 with {workers} workers, ms"), p99, 2, Goal::None);
    if let Some(few_p99) = few_p99 {
        figures.add("ratio of the p99", p99 / few_p99, 2, Goal::AtMost(2.0));
    }
    drop(connected);
    p99
}

/// The orchestrator inherits the limit, and needs one file for each worker, too.
pub fn check_open_files(needed: u64) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    if let Some(soft) = soft.filter(|&soft| soft < needed) {
        panic!("{soft} open files are allowed and {needed} are needed: run `ulimit -n {needed}` before");
    }
}
