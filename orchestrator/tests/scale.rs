//! Measurements with a million jobs. They take minutes and gigabytes, and mean something in a release build only:
//! `cargo test --release -p avtomatika-orchestrator --test scale -- --ignored --nocapture --test-threads 1`.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Instant};

use avtomatika_orchestrator::{
    engine::{Job, JobStatus, Submission},
    json::Json,
    store::{Batch, Store, conformance::Samples, sqlite::SqliteStore},
};

/// Bytes of a job's input.
const PAYLOAD_BYTES: usize = 1024;

fn with_payload(job: Job) -> Job {
    let text = format!("{{\"input\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES));
    let initial_data = Json::from_stored(&text);
    Job { submission: Arc::new(Submission { initial_data, ..Submission::clone(&job.submission) }), ..job }
}

#[test]
#[ignore = "a measurement"]
fn commits() {
    const IN_BATCH: usize = 128;
    const BATCHES: usize = 400;
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let mut samples = Samples::new(1);
    let mut open: Vec<Job> = Vec::new();
    let batches: Vec<Batch> = (0..BATCHES)
        .map(|_| {
            let ended: Vec<Job> =
                open.drain(..).map(|job| samples.moved(&job, JobStatus::Finished)).collect();
            open = (0..IN_BATCH).map(|_| with_payload(samples.job("acme"))).collect();
            let mut writes: Vec<_> = open.iter().map(|job| samples.insert(job)).collect();
            writes.extend(ended.iter().map(|job| samples.update(job)));
            Batch { writes }
        })
        .collect();
    let started = Instant::now();
    batches.iter().for_each(|batch| store.commit(batch).unwrap());
    let took = started.elapsed();
    let rate = (IN_BATCH * BATCHES) as f64 / took.as_secs_f64();
    println!("{BATCHES} batches of {IN_BATCH} insertions and ends: {took:.2?}, {rate:.0} jobs/s");
}
