//! Measurements with a million jobs. They take minutes and gigabytes, and mean something in a release build only:
//! `cargo test --release -p avtomatika-orchestrator --test scale -- --ignored --nocapture --test-threads 1`.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::Arc, time::Duration, time::Instant};

use avtomatika_orchestrator::{
    blueprint::{Registry, load},
    conductor::{
        self, Conductor, DEFAULT_RESIDENT_BYTES, FromWorker, Limits, Running, Settings, SubmitRequest,
        WorkerResult,
    },
    dispatch::{Outbox, ToWorker},
    engine::{Job, JobStatus, Submission},
    json::Json,
    metrics::Metrics,
    store::{Batch, Store, WorkerRecord, conformance::Samples, sqlite::SqliteStore},
    time::SystemClock,
};
use tokio::{sync::mpsc, task::JoinSet};

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

// ---- A million jobs, and a worker ----

const JOBS: usize = 1_000_000;

/// Jobs that are done for one figure of throughput.
const MEASURED: usize = 100_000;

/// Submissions that are under way at once.
const SUBMITTERS: usize = 256;

const SLOTS: u32 = 512;

fn start(store: Arc<SqliteStore>) -> Running {
    let definition = "blueprint: story\nstates:\n  init:\n    start: true\n    task: { type: work, params: { input: \"${initial_data.input}\" } }\n    on: { success: done }\n  done: { end: finished }\n";
    let loaded = load("story.yaml", definition).expect("a sound blueprint");
    let mut registry = Registry::default();
    registry.add(Arc::new(loaded.definition.into_blueprint(1)), true);
    let settings = Settings {
        limits: Limits {
            max_open_jobs: 2 * JOBS,
            max_workers: 10,
            resident_bytes_max: DEFAULT_RESIDENT_BYTES,
        },
        adoption_window: Duration::ZERO,
        webhooks: None,
        entropy_seed: Settings::fresh_seed().unwrap(),
    };
    let clock = Arc::new(SystemClock::new());
    conductor::start(store, clock, Arc::new(registry), settings, Arc::new(Metrics::new())).unwrap()
}

async fn submit(conductor: &Conductor, count: usize) {
    let mut submitters = JoinSet::new();
    for _ in 0..SUBMITTERS {
        let conductor = conductor.clone();
        submitters.spawn(async move {
            for _ in 0..count.div_ceil(SUBMITTERS) {
                let text = format!("{{\"input\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES));
                let submission = Submission::of(Json::object(&text).unwrap());
                let request = SubmitRequest {
                    blueprint: Arc::from("story"),
                    submission,
                    idempotency_key: None,
                    delay: None,
                    wait: Duration::ZERO,
                };
                conductor.submit(&Arc::from("acme"), request).await.unwrap();
            }
        });
    }
    submitters.join_all().await;
}

/// Does tasks as fast as they come until so many are acknowledged. Returns how long the first took, and all of them.
async fn work(conductor: &Conductor, count: usize) -> (Duration, Duration) {
    let record = WorkerRecord {
        worker_id: Arc::from("w"),
        worker_type: Arc::from("test"),
        task_types: vec![Arc::from("work")],
        slots: SLOTS,
        labels: BTreeMap::new(),
        resources: BTreeMap::new(),
        hostname: Arc::from(""),
        sdk_version: Arc::from(""),
        ..WorkerRecord::default()
    };
    let session_id = conductor.sessions().register(record, [1; 32]).await.unwrap().session_id;
    let (outbox, mut messages): (Outbox, mpsc::Receiver<ToWorker>) = Outbox::new();
    let stream = conductor.sessions().open(session_id, [1; 32], vec![], outbox).await.unwrap();
    let started = Instant::now();
    stream.tell(FromWorker::Credits(SLOTS)).await;
    let (mut first, mut acknowledged, mut arrived) = (None, 0, Vec::new());
    while acknowledged < count {
        messages.recv_many(&mut arrived, 1024).await;
        let mut results = Vec::new();
        for message in arrived.drain(..) {
            match message {
                ToWorker::Task(task) => {
                    first.get_or_insert_with(|| started.elapsed());
                    results.push(WorkerResult {
                        task_id: task.offer.task_id,
                        job_id: Some(task.offer.job_id),
                        outcome: Arc::from("success"),
                        data: Json::empty(),
                        error: None,
                        checkpoint: None,
                    });
                }
                ToWorker::Ack { .. } => acknowledged += 1,
                _ => {}
            }
        }
        if !results.is_empty() {
            stream.tell(FromWorker::Results(results)).await;
        }
    }
    let took = started.elapsed();
    stream.tell(FromWorker::Ended).await;
    (first.unwrap(), took)
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let lines = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_million_open_jobs() {
    let dir = tempfile::tempdir().unwrap();
    println!("at the start: {}", memory());
    let Running { conductor, stopped, .. } = start(Arc::new(SqliteStore::open(dir.path()).unwrap()));
    for queued in [1_000, JOBS] {
        let before = conductor.stats().await.unwrap().ready_tasks.values().sum::<u64>() as usize;
        let begun = Instant::now();
        submit(&conductor, queued - before).await;
        println!("{queued} queued after {:.1?}: {}", begun.elapsed(), memory());
        let submitting = tokio::spawn({
            let conductor = conductor.clone();
            async move { submit(&conductor, MEASURED).await }
        });
        let (first, took) = work(&conductor, MEASURED).await;
        submitting.await.unwrap();
        let rate = MEASURED as f64 / took.as_secs_f64();
        println!(
            "{queued} queued: first task after {first:.1?}, {rate:.0} jobs/s while as many are submitted"
        );
        println!("{queued} queued, more or less: {}", memory());
    }
    let (_, took) = work(&conductor, MEASURED).await;
    println!("{:.0} jobs/s alone, of {MEASURED} of those queued", MEASURED as f64 / took.as_secs_f64());
    conductor.drain().await;
    stopped.await.unwrap().unwrap();
    drop(conductor);

    let begun = Instant::now();
    let store = Arc::new(SqliteStore::open(dir.path()).unwrap());
    println!("after a restart: the store is open after {:.2?}", begun.elapsed());
    let scanned = Instant::now();
    let mut open = 0;
    store.open_jobs(&mut |_| open += 1).unwrap();
    println!("{open} stubs are read in {:.2?}", scanned.elapsed());
    let recovered = Instant::now();
    let conductor = start(store).conductor;
    println!("the conductor is there after {:.2?}: {}", recovered.elapsed(), memory());
    let (first, took) = work(&conductor, MEASURED).await;
    println!("the first task came after {first:.1?}, {:.0} jobs/s", MEASURED as f64 / took.as_secs_f64());
    println!("at the end: {}", memory());
}
