//! What removing old jobs costs the commits of new ones.

use std::{
    fs,
    time::{Duration, Instant},
};

use avtomatika_orchestrator::{
    engine::{Job, JobStatus},
    json::Json,
    store::{Batch, PruneQuery, Store, Write, conformance::Samples, sqlite::SqliteStore},
    time::Timestamp,
};

use crate::script::database;

/// Jobs with some payload, each of which is inserted by one batch and ended by the next.
struct Load {
    samples: Samples,
    open: Vec<Job>,
}

impl Load {
    fn batch(&mut self, jobs: usize) -> Batch {
        let mut writes = Vec::with_capacity(2 * jobs);
        for job in std::mem::take(&mut self.open) {
            let ended = self.samples.moved(&job, JobStatus::Finished);
            writes.push(self.samples.update(&ended));
        }
        for n in 0..jobs {
            let mut job = self.samples.job("acme");
            job.state_history = Json::from_stored(&format!("{{\"a\":\"{}\"}}", "x".repeat(500)));
            writes.push(match n % 2 {
                0 => self.samples.insert(&job),
                _ => self.samples.insert_as(&job, &job.id.to_string()),
            });
            self.open.push(job);
        }
        Batch { writes }
    }
}

/// The oldest jobs that have ended, as the chore reads them.
fn slice(store: &SqliteStore, above_key: &mut i64, limit: usize) -> Vec<Write> {
    let mut writes = Vec::new();
    while writes.len() < limit {
        let ended_by = Timestamp::from_micros(i64::MAX);
        let query = PruneQuery { above_key: *above_key, ended_by, limit: limit - writes.len() };
        let slice = store.prunable(&query).unwrap();
        *above_key = slice.next_above_key.unwrap_or(*above_key);
        writes.extend(slice.removals.into_iter().map(Write::RemoveJob));
    }
    writes
}

/// How long commits took, and what they cost the processor.
#[derive(Default)]
struct Commits {
    took: Vec<Duration>,
    busy: Duration,
}

/// What this thread has used of the processor.
fn busy() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

impl Commits {
    fn commit(&mut self, store: &SqliteStore, batch: &Batch) {
        let (started, before) = (Instant::now(), busy());
        store.commit(batch).unwrap();
        self.took.push(started.elapsed());
        self.busy += busy() - before;
    }

    fn line(&mut self, jobs: usize, removed: usize) {
        self.took.sort();
        let (count, ms) = (self.took.len(), |span: Duration| span.as_secs_f64() * 1e3);
        let at = |part: f64| ms(self.took[((count - 1) as f64 * part) as usize]);
        let per_s = (count * jobs) as f64 / self.took.iter().sum::<Duration>().as_secs_f64();
        let busy_us = ms(self.busy) * 1e3 / (count * jobs) as f64;
        let (p50, p90, p99, max) = (at(0.5), at(0.9), at(0.99), at(1.0));
        println!(
            "{jobs:>5} {removed:>8} {per_s:>8.0} {p50:>7.2} {p90:>7.2} {p99:>7.2} {max:>7.2} {busy_us:>8.1}"
        );
    }
}

/// Whether this batch of so many jobs brings a slice along, so that as many jobs go as come; and how large it is.
fn slice_of(n: usize, jobs: usize) -> usize {
    if jobs >= 128 {
        jobs
    } else if n.is_multiple_of(128 / jobs) {
        128
    } else {
        0
    }
}

#[test]
#[ignore = "a measurement: cargo test --release --test store -- --ignored --nocapture what_removing_costs"]
fn what_removing_costs() {
    const BLOCK: usize = 32;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let mut load = Load { samples: Samples::new(1), open: Vec::new() };
    for _ in 0..300 {
        store.commit(&load.batch(1000)).unwrap();
    }
    println!("A batch creates so many jobs and ends as many, and as many old ones are removed, or none.");
    println!(" jobs  removed   jobs/s  p50 ms  p90 ms  p99 ms  max ms  CPU us/job");
    let mut above_key = PruneQuery::FROM_THE_OLDEST;
    for (jobs, blocks) in [(8, 40), (64, 24), (512, 6)] {
        let (mut without, mut with, mut scan, mut removed) =
            (Commits::default(), Commits::default(), Duration::ZERO, 0);
        // In turns, so that whatever else the machine does hits both alike.
        for _ in 0..blocks {
            for _ in 0..BLOCK {
                without.commit(&store, &load.batch(jobs));
            }
            for n in 0..BLOCK {
                let mut batch = load.batch(jobs);
                let started = Instant::now();
                let removals = slice(&store, &mut above_key, slice_of(n, jobs));
                scan += started.elapsed();
                removed += removals.len();
                batch.writes.extend(removals);
                with.commit(&store, &batch);
            }
        }
        without.line(jobs, 0);
        with.line(jobs, removed);
        println!("      reading which: {:.1} us/job", scan.as_secs_f64() * 1e6 / removed as f64);
    }
}

#[test]
fn the_file_gives_its_free_space_back_to_vacuum_and_is_the_same_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let mut load = Load { samples: Samples::new(1), open: Vec::new() };
    for _ in 0..6 {
        store.commit(&load.batch(100)).unwrap();
    }
    let mut above_key = PruneQuery::FROM_THE_OLDEST;
    let kept = load.open[0].clone();
    store.commit(&Batch { writes: slice(&store, &mut above_key, 500) }).unwrap();
    drop(store);
    let size = || fs::metadata(database(dir.path())).unwrap().len();
    let before = size();
    // What docs/operating.md tells people to do, while no orchestrator runs.
    rusqlite::Connection::open(database(dir.path())).unwrap().execute_batch("VACUUM").unwrap();
    let after = size();
    assert!(after < before / 2, "{before} bytes became {after}");
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.load(kept.id).unwrap(), Some(kept));
    store.commit(&load.batch(1)).unwrap();
}
