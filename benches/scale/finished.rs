//! Many finished jobs in the store, and their pruning.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Figures, Goal, Size,
    load::{data, throughput},
    process::Orchestrator,
    progress,
    report::{Table, median},
    turns::{Queue, ROUNDS, Turns, in_turns},
};

const ABOUT: &str = "\
512 jobs of one task with 1 KB of input are under way at any time, for 5 minutes; one worker with 256 slots
answers each task at once. Then another orchestrator is started, and both are measured in turns: medians of five rounds of
50,000 jobs, after one that warms up. Then the first one is started again with retention = 1m, and measured over 100,000
jobs while it prunes what ended before that, in turns with the other one: it is killed after each of five rounds, so that it does
not prune beside the other. `pause` is the longest time between two results that became durable: it shows commits that stall.";

const FILL_FOR: Duration = Duration::from_secs(300);
const MEASURED: u64 = 50_000;
const IN_FLIGHT: u64 = 512;

/// The shortest that the orchestrator accepts. Jobs get older than this while the store fills.
const RETENTION: (&str, &str) = ("AVTOMATIKA_RETENTION", "1m");

/// How many jobs have been pruned since the start.
const PRUNED: &str = "avtomatika_jobs_pruned_total";

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

    full.kill();
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        progress(&format!("finished: with pruning, round {round} of {ROUNDS}"));
        let usual = run(&empty, 2 * measured, &data).await;
        full.start_again(&[RETENTION]);
        full.ready().await;
        rounds.push((usual, run(&full, 2 * measured, &data).await));
        full.kill();
    }
    let of = |figure: fn(&(Run, Run)) -> f64| rounds.iter().map(figure).collect::<Vec<f64>>();
    let middle = |figure| median(&of(figure));
    let longest = |figure| of(figure).into_iter().fold(0.0, f64::max);
    figures.add("size of the store afterwards, MiB", full.disk_mib(), 0, Goal::None);
    figures.add("jobs/s with an empty store", middle(|(usual, _)| usual.jobs_per_s), 0, Goal::None);
    figures.add("jobs/s while jobs are pruned", middle(|(_, pruning)| pruning.jobs_per_s), 0, Goal::None);
    let ratio = middle(|(usual, pruning)| pruning.jobs_per_s / usual.jobs_per_s);
    figures.add("ratio", ratio, 2, Goal::AtLeast(0.9));
    let pruned = middle(|(_, pruning)| pruning.pruned_per_job);
    figures.add("jobs pruned for each that ends", pruned, 2, Goal::AtLeast(1.0));
    figures.add("longest pause with an empty store, ms", longest(|(usual, _)| usual.pause_ms), 1, Goal::None);
    let pause_ms = longest(|(_, pruning)| pruning.pause_ms);
    figures.add("longest pause while jobs are pruned, ms", pause_ms, 1, Goal::None);
    figures.0
}

/// What is seen of one orchestrator at work.
struct Run {
    jobs_per_s: f64,
    pause_ms: f64,
    pruned_per_job: f64,
}

async fn run(orchestrator: &Orchestrator, jobs: u64, data: &Arc<str>) -> Run {
    let load = under_way(orchestrator).load(data).await;
    let so_far = async || (orchestrator.metric(PRUNED).await, load.tally.done());
    let (pruned_before, done_before) = so_far().await;
    let jobs_per_s = throughput(&load.tally, jobs).await;
    let pause_ms = load.tally.longest_pause().as_secs_f64() * 1000.0;
    let (pruned, done) = so_far().await;
    Run { jobs_per_s, pause_ms, pruned_per_job: (pruned - pruned_before) / (done - done_before) as f64 }
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
