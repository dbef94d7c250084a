//! A first look at speed: one orchestrator on its durable store (every commit fsynced), one worker and one client, in one
//! process over real sockets. `cargo bench --bench end_to_end` prints jobs per second and latencies.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use avtomatika_orchestrator::{
    Parts,
    api::{Auth, Secret},
    assemble,
    blueprint::load,
    conductor::{DEFAULT_RESIDENT_BYTES, Settings},
    config,
    store::sqlite::SqliteStore,
    time::SystemClock,
};
use avtomatika_proto::v1::{JobStatus, SubmitJobRequest, job_service_client::JobServiceClient};
use avtomatika_worker::{Worker, builtin};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::sync::CancellationToken;
use tonic::{Request, metadata::MetadataValue, transport::Channel};

const IN_FLIGHT: usize = 64;
const WARM_UP: usize = 2_000;
const JOBS: usize = 40_000;
const IDLE_JOBS: usize = 1_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(look());
}

async fn look() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let stop = CancellationToken::new();
    let served = serve(dir.path(), listener, stop.clone());
    let (stop_worker, worked) = work(&url).await;

    let channel = Channel::from_shared(url).expect("a URL").connect().await.expect("a connection");
    in_flight(&channel, WARM_UP, IN_FLIGHT).await;
    let (mut latencies, took) = in_flight(&channel, JOBS, IN_FLIGHT).await;
    let per_second = JOBS as f64 / took.as_secs_f64();
    println!("{JOBS} jobs of one task each, {IN_FLIGHT} in flight: {per_second:.0} jobs/s");
    print_latencies("  submit to finished, under that load", &mut latencies);
    let (mut latencies, _) = in_flight(&channel, IDLE_JOBS, 1).await;
    print_latencies("  submit to finished, one at a time  ", &mut latencies);

    let _ = stop_worker.send(());
    worked.await.expect("the worker ends");
    drop(channel);
    stop.cancel();
    served.await.expect("the orchestrator ends");
}

/// Runs `jobs` jobs with so many submissions waiting for their end at any time.
async fn in_flight(channel: &Channel, jobs: usize, callers: usize) -> (Vec<Duration>, Duration) {
    let left = Arc::new(AtomicUsize::new(jobs));
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        tasks.spawn(submit_until_none_is_left(channel.clone(), left.clone()));
    }
    let latencies = tasks.join_all().await.concat();
    (latencies, started.elapsed())
}

async fn submit_until_none_is_left(channel: Channel, left: Arc<AtomicUsize>) -> Vec<Duration> {
    let mut client = JobServiceClient::new(channel);
    let mut latencies = Vec::new();
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let mut request = Request::new(SubmitJobRequest {
            blueprint: "test_workflow".into(),
            initial_data: r#"{"input":"measure me"}"#.into(),
            wait: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            ..Default::default()
        });
        let token = MetadataValue::from_static("client");
        request.metadata_mut().insert("x-avtomatika-token", token);
        let submitted = Instant::now();
        let response = client.submit_job(request).await.expect("the job is accepted").into_inner();
        latencies.push(submitted.elapsed());
        let status = response.job.map(|job| job.status());
        assert_eq!(status, Some(JobStatus::Finished), "every job finishes");
    }
    latencies
}

fn serve(
    dir: &std::path::Path,
    listener: TcpListener,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<()> {
    let text = include_str!("../examples/blueprints/test_workflow.yaml");
    let (client, worker) = (Secret::new("client"), Secret::new("worker"));
    let app = assemble(Parts {
        store: Arc::new(SqliteStore::open(dir).expect("a store")),
        clock: Arc::new(SystemClock::new()),
        definitions: vec![load("test_workflow.yaml", text).expect("a sound blueprint").definition],
        auth: Auth::new([("bench", &client)], [&worker]),
        settings: Settings {
            max_open_jobs: config::DEFAULT_MAX_OPEN_JOBS,
            max_workers: config::DEFAULT_MAX_WORKERS,
            resident_bytes_max: DEFAULT_RESIDENT_BYTES,
            adoption_window: config::DEFAULT_ADOPTION_WINDOW,
            entropy_seed: Settings::fresh_seed().expect("random numbers"),
        },
        drain_timeout: config::DEFAULT_DRAIN_TIMEOUT,
    })
    .expect("an orchestrator");
    tokio::spawn(async move { app.serve(listener, stop).await.expect("it serves") })
}

async fn work(url: &str) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let worker = Worker::builder(url)
        .token("worker")
        .slots(IN_FLIGHT as u32)
        .handler("process_data", builtin::process_data())
        .build()
        .expect("a worker");
    let mut handle = worker.handle();
    let (stop, stopped) = oneshot::channel::<()>();
    let worked = tokio::spawn(async move {
        let until = async move { drop(stopped.await) };
        worker.run_until(until).await.expect("it works");
    });
    handle.registered().await.expect("it registers");
    (stop, worked)
}

fn print_latencies(what: &str, latencies: &mut [Duration]) {
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!("{what}: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", at(0.5), at(0.99), at(1.0));
}
