//! The floor: what this machine could do at best, if an orchestrator on this stack did nothing but what none can do without.
//!
//! Its parts are measured one after the other, in this process, with real messages and records of the size that the load has:
//! taking a submission and answering it, sending a task and getting its result, and two durable commits for each job. What an
//! orchestrator adds (deciding, bookkeeping, history that means something, waiting for one another) is what the ratio shows.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    args::Plan,
    blueprint,
    callers::{Callers, Submission},
    figures::Percentiles,
    ledger::Ledger,
    machine, procfs,
    progress::Progress,
    tally::Tally,
    tickets::{End, Pace, Tickets},
};
use crate::{
    args::{Options, Tls},
    failure::Failure,
};

mod server;
mod store;
mod sync;
mod worker_stream;

/// Submissions before a part is measured.
const WARM_UP: u64 = 500;

/// What was measured, and what follows from it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Floor {
    /// The smaller of what the processors and what the store's one writer allow.
    pub(super) floor_jobs_per_s: f64,
    pub(super) cores: usize,
    pub(super) submission: Part,
    pub(super) worker_stream: Part,
    pub(super) store: StorePart,
    /// One small append and its fdatasync, one at a time.
    pub(super) fdatasync_ms: Option<Percentiles>,
}

/// A part that costs processor time. Both of its ends are in it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Part {
    pub(super) cpu_us_per_job: f64,
    /// How many went through in the measurement, which used as many processors as it could.
    pub(super) jobs_per_s: f64,
}

/// The store's part: its writer waits for the disk, too.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct StorePart {
    pub(super) cpu_us_per_job: f64,
    pub(super) wall_us_per_job: f64,
    pub(super) jobs_per_commit: usize,
}

/// Processor time and time of an interval, for so many jobs.
#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu: Duration,
    wall: Duration,
    jobs: u64,
}

impl Cost {
    fn cpu_us_per_job(self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.jobs.max(1) as f64
    }

    fn wall_us_per_job(self) -> f64 {
        self.wall.as_secs_f64() * 1e6 / self.jobs.max(1) as f64
    }

    /// For jobs each of which counts so many times.
    fn part(self, times: u32) -> Part {
        Part {
            cpu_us_per_job: self.cpu_us_per_job() * f64::from(times),
            jobs_per_s: 1e6 / self.wall_us_per_job() / f64::from(times),
        }
    }
}

/// Measures everything that this process does meanwhile.
struct Meter {
    cpu: Duration,
    started: Instant,
}

impl Meter {
    fn start() -> Self {
        Self { cpu: procfs::own_cpu_time(), started: Instant::now() }
    }

    fn stop(self, jobs: u64) -> Cost {
        Cost { wall: self.started.elapsed(), cpu: procfs::own_cpu_time().saturating_sub(self.cpu), jobs }
    }
}

/// Jobs that share a commit at most. All that are in flight never stand at the same point of their way.
const JOBS_PER_COMMIT_MAX: usize = 256;

/// Measures the parts, each for so long, in a directory on the file system that matters.
pub(super) async fn measure(
    plan: &Plan,
    options: &Options,
    each: Duration,
    (dir, progress): (&Path, &Progress),
) -> Result<Floor, Failure> {
    progress.phase(format!("floor: {} without an orchestrator behind it", plan.api.name()));
    let submission = submission(plan, options, each).await?.part(1);
    // What is in flight can share a message, and a commit.
    let in_flight = plan.api.default_in_flight();
    progress.phase("floor: a worker's stream without an orchestrator behind it");
    let worker_stream = worker_stream::measure(in_flight, plan.payload_bytes, each).await?;
    let worker_stream = worker_stream.part(plan.tasks_per_job);
    progress.phase("floor: the store's commits and the disk's syncs");
    let jobs_per_commit = in_flight.min(JOBS_PER_COMMIT_MAX);
    let work = store::Work { jobs_per_commit, tasks: plan.tasks_per_job, payload: plan.payload_bytes };
    let dir = dir.to_owned();
    let disk = tokio::task::spawn_blocking(move || {
        let cost = store::measure(&dir, work, each)?;
        sync::measure(&dir, each).map(|synced| (cost, synced))
    });
    let disk =
        disk.await.map_err(|error| Failure::System(format!("measuring the disk has failed: {error}")))?;
    let (store, fdatasync_ms) = disk?;
    let store = StorePart {
        cpu_us_per_job: store.cpu_us_per_job(),
        wall_us_per_job: store.wall_us_per_job(),
        jobs_per_commit,
    };
    let cores = machine::cores();
    let floor_jobs_per_s = jobs_per_s(cores, submission, worker_stream, store);
    Ok(Floor { floor_jobs_per_s, cores, submission, worker_stream, store, fdatasync_ms })
}

/// What all processors together allow, or what the one writer allows, whichever is less.
fn jobs_per_s(cores: usize, submission: Part, worker_stream: Part, store: StorePart) -> f64 {
    let cpu_us = submission.cpu_us_per_job + worker_stream.cpu_us_per_job + store.cpu_us_per_job;
    (cores as f64 * 1e6 / cpu_us).min(1e6 / store.wall_us_per_job)
}

/// The load itself, against a server that answers at once.
async fn submission(plan: &Plan, options: &Options, each: Duration) -> Result<Cost, Failure> {
    let server = server::NoOp::start(plan.api, plan.payload_bytes).await?;
    let in_flight = plan.api.default_in_flight();
    let connections = plan.api.default_connections(in_flight);
    let plan = Plan { in_flight, connections, ..plan.clone() };
    let options = Options {
        url: server.url().to_owned(),
        token: Some("floor".to_owned()),
        tls: Tls::default(),
        ..options.clone()
    };
    let submission = Submission::new(&plan, blueprint::NAME);
    let mut callers = Callers::connect(&plan, &options, submission).await?;
    run(&mut callers, End::Jobs(WARM_UP)).await?;
    let meter = Meter::start();
    let jobs = run(&mut callers, End::After(each)).await?;
    Ok(meter.stop(jobs))
}

async fn run(callers: &mut Callers, end: End) -> Result<u64, Failure> {
    let tally = Tally::new(Tickets::start(Pace::Closed, end, 0), Arc::new(Ledger::new()));
    callers.run(&tally).await;
    tally.take_failure().map_or(Ok(tally.finished()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(cpu_us_per_job: f64) -> Part {
        Part { cpu_us_per_job, jobs_per_s: 0.0 }
    }

    fn store(cpu_us_per_job: f64, wall_us_per_job: f64) -> StorePart {
        StorePart { cpu_us_per_job, wall_us_per_job, jobs_per_commit: 64 }
    }

    #[test]
    fn the_floor_is_set_by_the_processors_or_by_the_one_writer() {
        // 50 us of processor time on two cores are 40,000 jobs in a second.
        assert_eq!(jobs_per_s(2, part(30.0), part(10.0), store(10.0, 20.0)), 40_000.0);
        assert_eq!(jobs_per_s(64, part(30.0), part(10.0), store(10.0, 20.0)), 50_000.0);
    }

    #[test]
    fn a_job_of_several_tasks_costs_several_times() {
        let cost = Cost { cpu: Duration::from_millis(2), wall: Duration::from_millis(1), jobs: 100 };
        assert_eq!(cost.part(1), Part { cpu_us_per_job: 20.0, jobs_per_s: 100_000.0 });
        assert_eq!(cost.part(4), Part { cpu_us_per_job: 80.0, jobs_per_s: 25_000.0 });
    }
}
