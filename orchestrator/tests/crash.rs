//! Kills a real orchestrator under load, at random moments, and starts it again.
//!
//! Afterwards every job that was acknowledged has reached its end exactly once, its work was done exactly once (as the
//! workers' own journal tells, since the workers live on), and no job exists that nobody asked for.
//!
//! It is done twice: with room in memory for every job that waits, and with none and more jobs than slots, so that kills meet
//! jobs on their way between memory and the store.
//!
//! `AVTOMATIKA_CRASH_CYCLES` sets the number of kills (default 5), `AVTOMATIKA_CRASH_SEED` repeats a run.

// A test that cannot go on should stop where it is.
#![allow(clippy::unwrap_used)]

#[path = "crash/attempts.rs"]
mod attempts;
#[path = "crash/explained.rs"]
mod explained;
#[path = "crash/families.rs"]
mod families;
#[path = "crash/keys.rs"]
mod keys;
#[path = "crash/repairs.rs"]
mod repairs;
#[path = "crash/waits.rs"]
mod waits;

use std::{
    collections::{HashMap, HashSet},
    env,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use avtomatika_proto::{
    v1::{
        GetJobHistoryRequest, JobStatus, ListJobsRequest, SubmitJobRequest,
        job_service_client::JobServiceClient,
    },
    wire_time,
};
use avtomatika_worker::{TaskContext, TaskError, Worker, WorkerBuilder};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, task::JoinSet};
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

const WORKERS: usize = 2;

/// What differs between the runs.
#[derive(Clone, Copy)]
struct Run {
    submitters: usize,
    slots: u32,
    resident_mib: u32,
}

/// Longest wait for anything that must happen; far beyond what it takes, so that only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_orchestrator_loses_nothing_and_repeats_nothing() {
    kill_again_and_again(Run { submitters: 4, slots: 16, resident_mib: 64 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_orchestrator_whose_jobs_wait_in_the_store_loses_and_repeats_nothing_either() {
    kill_again_and_again(Run { submitters: 12, slots: 3, resident_mib: 0 }).await;
}

async fn kill_again_and_again(run: Run) {
    let cycles: u32 = env::var("AVTOMATIKA_CRASH_CYCLES").ok().map_or(5, |text| text.parse().unwrap());
    let mut random = Random::from_environment();
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let journal = Journal::default();
    let load = Arc::new(Load::default());

    let mut orchestrator = start(dir.path(), port, run);
    let stop_workers = Arc::new(Notify::new());
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        workers.spawn(work(url.clone(), number, run.slots, journal.clone(), stop_workers.clone()));
    }
    let mut submitters = JoinSet::new();
    for number in 0..run.submitters {
        submitters.spawn(submit(url.clone(), number, load.clone()));
    }

    for cycle in 1..=cycles {
        let target = load.acknowledged_count() + 20 + random.below(400);
        load.until_acknowledged(target).await;
        // SIGKILL: no handler runs, nothing is flushed.
        orchestrator.kill().unwrap();
        orchestrator.wait().unwrap();
        eprintln!("kill {cycle}: {} acknowledged, {} run", load.acknowledged_count(), journal.len());
        orchestrator = start(dir.path(), port, run);
    }

    load.stop.store(true, Ordering::SeqCst);
    while let Some(outcome) = submitters.join_next().await {
        outcome.unwrap();
    }
    let mut client = connect(&url).await;
    let jobs = until_all_are_terminal(&mut client).await;
    check(&jobs, &load, &journal);
    check_histories(&mut client, &jobs).await;

    stop_workers.notify_waiters();
    while let Some(outcome) = workers.join_next().await {
        outcome.unwrap();
    }
    orchestrator.kill().unwrap();
    orchestrator.wait().unwrap();
}

// ---- What must be true afterwards ----

/// What the orchestrator says of a job.
struct Found {
    number: u64,
    status: JobStatus,
}

fn check(jobs: &HashMap<String, Found>, load: &Load, journal: &Journal) {
    let acknowledged = load.acknowledged.lock().unwrap();
    for (job_id, number) in acknowledged.iter() {
        let job = jobs.get(job_id).unwrap_or_else(|| panic!("job {job_id} was acknowledged and is gone"));
        assert_eq!(job.number, *number, "job {job_id} is another one than was submitted");
    }
    let attempted = load.attempted.load(Ordering::SeqCst);
    let mut numbers = HashSet::new();
    let runs = journal.runs.lock().unwrap();
    for (job_id, job) in jobs {
        assert_eq!(job.status, JobStatus::Finished, "job {job_id}");
        assert!(job.number < attempted, "job {job_id} was submitted by nobody");
        assert!(numbers.insert(job.number), "request {} made two jobs", job.number);
        assert_eq!(runs.get(job_id), Some(&1), "job {job_id} must have run once");
    }
    assert_eq!(runs.len(), jobs.len(), "every run belongs to a job");
    eprintln!("{} jobs: each finished once, each ran once", jobs.len());
}

async fn check_histories(client: &mut Client, jobs: &HashMap<String, Found>) {
    for job_id in jobs.keys().take(200) {
        let request = GetJobHistoryRequest { job_id: job_id.clone(), ..Default::default() };
        let entries = client.get_job_history(request).await.unwrap().into_inner().entries;
        let sequences: Vec<u64> = entries.iter().map(|entry| entry.sequence).collect();
        assert_eq!(sequences, (0..entries.len() as u64).collect::<Vec<_>>(), "no gaps in {job_id}");
        let count = |event: &str| entries.iter().filter(|entry| entry.event == event).count();
        assert_eq!((count("task_succeeded"), count("job_finished")), (1, 1), "history of {job_id}");
    }
}

async fn until_all_are_terminal(client: &mut Client) -> HashMap<String, Found> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let jobs = all_jobs(client).await;
        let open = jobs.values().filter(|job| job.status != JobStatus::Finished).count();
        if open == 0 {
            return jobs;
        }
        assert!(Instant::now() < deadline, "{open} of {} jobs have not ended", jobs.len());
    }
}

async fn all_jobs(client: &mut Client) -> HashMap<String, Found> {
    let mut jobs = HashMap::new();
    let mut cursor = String::new();
    loop {
        let request = ListJobsRequest { page_size: 1000, cursor, ..Default::default() };
        let page = client.list_jobs(request).await.unwrap().into_inner();
        for job in page.jobs {
            let params: Params = serde_json::from_str(&job.initial_data).unwrap();
            jobs.insert(job.id.clone(), Found { number: params.number, status: job.status() });
        }
        cursor = page.next_cursor;
        if cursor.is_empty() {
            return jobs;
        }
    }
}

// ---- Load ----

#[derive(Default)]
struct Load {
    attempted: AtomicU64,
    acknowledged: Mutex<HashMap<String, u64>>,
    more: Notify,
    stop: AtomicBool,
}

impl Load {
    fn acknowledged_count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    async fn until_acknowledged(&self, target: usize) {
        let reached = async {
            loop {
                let more = self.more.notified();
                if self.acknowledged_count() >= target {
                    return;
                }
                more.await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("submissions go on");
    }
}

/// Submits one job after the other. A submission whose answer is lost is repeated under its key until it is answered.
async fn submit(url: String, number: usize, load: Arc<Load>) {
    let mut client = connect(&url).await;
    while !load.stop.load(Ordering::SeqCst) {
        let request_number = load.attempted.fetch_add(1, Ordering::SeqCst);
        let request = SubmitJobRequest {
            blueprint: "crash_test".into(),
            initial_data: serde_json::to_string(&Params { number: request_number }).unwrap(),
            idempotency_key: format!("request-{request_number}"),
            // Some begin later, and are killed before their start.
            delay: request_number.is_multiple_of(4).then(|| wire_time::duration(Duration::from_millis(50))),
            ..Default::default()
        };
        loop {
            match client.submit_job(request.clone()).await {
                Ok(response) => {
                    let job_id = response.into_inner().job_id;
                    load.acknowledged.lock().unwrap().insert(job_id, request_number);
                    load.more.notify_waiters();
                    break;
                }
                // The connection broke with the orchestrator: connect again when it is back.
                Err(_) => client = connect(&url).await,
            }
        }
        let _ = number;
    }
}

// ---- Workers ----

#[derive(Serialize, Deserialize)]
struct Params {
    number: u64,
}

#[derive(Serialize)]
struct Done {}

/// What the workers really did, as they know it themselves.
#[derive(Clone, Default)]
struct Journal {
    runs: Arc<Mutex<HashMap<String, u32>>>,
}

impl Journal {
    fn len(&self) -> usize {
        self.runs.lock().unwrap().len()
    }

    /// An attempt at the job's task. It takes long enough for kills to find tasks in flight, and each another time, so that
    /// results do not come in step.
    async fn note(&self, context: &TaskContext) {
        *self.runs.lock().unwrap().entry(context.job_id().to_owned()).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(u64::from(context.job_id().as_bytes()[35] % 40))).await;
    }

    /// A handler that does nothing but note its attempts.
    fn handler(&self) -> impl Fn(Params, TaskContext) -> BoxFuture<'static, Result<Done, TaskError>> + use<> {
        let journal = self.clone();
        move |_, context| {
            let journal = journal.clone();
            Box::pin(async move {
                journal.note(&context).await;
                Ok(Done {})
            })
        }
    }
}

async fn work(url: String, number: usize, slots: u32, journal: Journal, stop: Arc<Notify>) {
    let name = format!("journal-{number}");
    run(worker(&url, &name, slots).handle("note", journal.handler()), stop).await;
}

/// A worker of the orchestrator, to be given its handlers.
fn worker(url: &str, name: &str, slots: u32) -> WorkerBuilder {
    Worker::builder(url).token("worker-token-of-the-test").worker_id(name).slots(slots)
}

async fn run(worker: WorkerBuilder, stop: Arc<Notify>) {
    worker.build().unwrap().run_until(async move { stop.notified().await }).await.unwrap();
}

// ---- The orchestrator and the way to it ----

const BLUEPRINT: &str = "
blueprint: crash_test
states:
  note:
    start: true
    task: { type: note, params: { number: \"${initial_data.number}\" }, timeout: 60s }
    on: { success: done }
  done: { end: finished }
";

fn start(dir: &Path, port: u16, run: Run) -> Child {
    let blueprints = dir.join("blueprints");
    std::fs::create_dir_all(&blueprints).unwrap();
    std::fs::write(blueprints.join("crash_test.yaml"), BLUEPRINT).unwrap();
    Command::new(env!("CARGO_BIN_EXE_avtomatika-orchestrator"))
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .arg("--data-dir")
        .arg(dir.join("data"))
        .arg("--blueprints")
        .arg(blueprints)
        .args(["--resident-mib", &run.resident_mib.to_string()])
        .args(["--client-token", "client-token-of-the-test", "--worker-token", "worker-token-of-the-test"])
        .env("AVTOMATIKA_LOG", "warn")
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

type Client = JobServiceClient<InterceptedService<Channel, Token>>;

#[derive(Clone)]
struct Token;

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let token = MetadataValue::from_static("client-token-of-the-test");
        request.metadata_mut().insert("x-avtomatika-token", token);
        Ok(request)
    }
}

/// Connects as soon as somebody listens.
async fn connect(url: &str) -> Client {
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap().timeout(PATIENCE);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match endpoint.connect().await {
            Ok(channel) => {
                let limit = 16 * 1024 * 1024;
                return JobServiceClient::with_interceptor(channel, Token).max_decoding_message_size(limit);
            }
            Err(error) => assert!(Instant::now() < deadline, "nobody listens at {url}: {error}"),
        }
        tokio::task::yield_now().await;
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// SplitMix64: enough to choose moments, and a failing run can be repeated by its seed.
struct Random(u64);

impl Random {
    fn from_environment() -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = env::var("AVTOMATIKA_CRASH_SEED").map_or_else(|_| now(), |text| text.parse().unwrap());
        eprintln!("AVTOMATIKA_CRASH_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}
