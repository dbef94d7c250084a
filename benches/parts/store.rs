//! Commits per second.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use avtomatika_orchestrator::{
    engine::{Decision, Event, Job},
    store::{Batch, Store, Write, memory::MemoryStore, sqlite::SqliteStore},
};

use crate::{
    Rounds,
    fixture::{Jobs, ONE_TASK},
    report::{Cell, Table, median, percentile, progress},
};

const ABOUT: &str = "\
Store::commit from one thread. A group of jobs costs two commits: the first inserts them (submission, job,
history), the second updates them to their end. Only the time within commit counts, checkpoints included; the
jobs are made between commits. sqlite syncs every commit to the disk under --dir; memory keeps nothing after
the process. The percentiles are those of single commits.";

const GROUPS: [usize; 4] = [1, 8, 64, 256];
const PAYLOADS: [(usize, &str); 2] = [(100, "100 B"), (1024, "1 KB")];

pub fn measure(rounds: Rounds, dir: &Path) -> Table {
    let columns = &["jobs/s", "commits/s", "commit p50 ms", "commit p99 ms"];
    let mut table = Table::new("store", ABOUT, columns);
    for (payload, payload_name) in PAYLOADS {
        for group in GROUPS {
            progress(&format!("store: sqlite, {payload_name} in groups of {group}"));
            let home = tempfile::tempdir_in(dir).expect("a directory for the store");
            let store = SqliteStore::open(home.path()).expect("a store");
            let cells = run(&store, group, payload, rounds);
            table.row(format!("sqlite, {payload_name}, groups of {group}"), cells);
        }
        for group in GROUPS {
            progress(&format!("store: memory, {payload_name} in groups of {group}"));
            let cells = run(&MemoryStore::new(), group, payload, rounds);
            table.row(format!("memory, {payload_name}, groups of {group}"), cells);
        }
    }
    table
}

fn run(store: &dyn Store, group: usize, payload: usize, rounds: Rounds) -> [Cell; 4] {
    let mut jobs = Jobs::new(ONE_TASK, payload);
    let mut latencies_ms = Vec::new();
    let mut jobs_per_second = Vec::new();
    for round in 0..=rounds.count {
        let (mut done, mut spent) = (0, Duration::ZERO);
        while spent < rounds.length {
            for took in commit_group(store, &mut jobs, group) {
                spent += took;
                // The first round warms up.
                if round > 0 {
                    latencies_ms.push(took.as_secs_f64() * 1000.0);
                }
            }
            done += group;
        }
        if round > 0 {
            jobs_per_second.push(done as f64 / spent.as_secs_f64());
        }
    }
    let jobs_per_second = median(&jobs_per_second);
    [
        Cell::Number(jobs_per_second, 0),
        Cell::Number(jobs_per_second * 2.0 / group as f64, 0),
        Cell::Number(percentile(&mut latencies_ms, 0.5), 3),
        Cell::Number(percentile(&mut latencies_ms, 0.99), 3),
    ]
}

/// The two commits of a group of jobs, and how long each took.
fn commit_group(store: &dyn Store, jobs: &mut Jobs, group: usize) -> [Duration; 2] {
    let mut begin = Batch::default();
    let mut end = Batch::default();
    for _ in 0..group {
        let accepted = jobs.accepted();
        let Decision { job, entries, .. } = jobs.decide(&accepted, &Event::Submitted);
        end.writes.push(ending(jobs, &job));
        begin.writes.push(Write::InsertJob { job: Arc::new(job), entries, idempotency: None });
    }
    [begin, end].map(|batch| {
        let started = Instant::now();
        store.commit(&batch).expect("a commit");
        started.elapsed()
    })
}

fn ending(jobs: &mut Jobs, waiting: &Job) -> Write {
    let report = jobs.success(waiting);
    let Decision { job, entries, .. } = jobs.decide(waiting, &report);
    Write::UpdateJob { job: Arc::new(job), entries }
}
