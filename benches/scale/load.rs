//! Clients: they fill the orchestrator with jobs, keep so many under way, or wait for single ones.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use avtomatika_proto::{
    limits::{CONNECTION_WINDOW_BYTES, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES},
    v1::{
        GetStatsRequest, JobStatus, SubmitJobRequest, admin_service_client::AdminServiceClient,
        job_service_client::JobServiceClient, submit_jobs_response::Result as Answer,
    },
};
use futures_util::{Stream, stream};
use tokio::task::JoinSet;
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{
    process::{CLIENT_TOKEN, NAME},
    report::{percentile, progress},
    worker::Tally,
};

/// Between the times for which two jobs are planned that are measured while something else is going on: hundreds of figures, and
/// little load.
const BETWEEN_SUBMISSIONS: Duration = Duration::from_millis(5);

/// Between two looks whether the port is open; bounds the error of the figure.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Bulk streams at once: one alone waits for its own answers.
const STREAMS: u64 = 4;

pub type Jobs = JobServiceClient<InterceptedService<Channel, Token>>;

/// Shows the client's token with each call.
#[derive(Clone)]
pub struct Token;

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("x-avtomatika-token", MetadataValue::from_static(CLIENT_TOKEN));
        Ok(request)
    }
}

/// A connection like that of a client of ours.
pub async fn connection(url: &str) -> Channel {
    try_connection(url).await.expect("a connection")
}

/// The same, where nobody may be there.
pub async fn try_connection(url: &str) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL");
    let endpoint = endpoint
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES);
    endpoint.connect().await
}

pub async fn connect(url: &str) -> Jobs {
    JobServiceClient::with_interceptor(connection(url).await, Token)
        .max_decoding_message_size(4 * MESSAGE_BYTES_MAX)
}

/// Initial data of so many bytes.
pub fn data(bytes: usize) -> Arc<str> {
    Arc::from(format!(r#"{{"input":"{}"}}"#, "x".repeat(bytes.saturating_sub(r#"{"input":""}"#.len()))))
}

fn request(data: &str) -> SubmitJobRequest {
    SubmitJobRequest { blueprint: NAME.into(), initial_data: data.into(), ..Default::default() }
}

/// Submits so many jobs, and returns when each is on disk.
pub async fn fill(url: &str, jobs: u64, data: &Arc<str>) {
    let started = Instant::now();
    let mut streams = JoinSet::new();
    for number in 0..STREAMS {
        let share = jobs / STREAMS + u64::from(number < jobs % STREAMS);
        let data = data.clone();
        let requests = stream::iter((0..share).map(move |_| request(&data)));
        // One of them speaks for all.
        let shown = (number == 0).then_some(share);
        streams.spawn(submit_all(connect(url).await, requests, shown));
    }
    streams.join_all().await;
    progress(&format!("{jobs} jobs were stored in {:.1} s", started.elapsed().as_secs_f64()));
}

/// Submits as many jobs as there are fewer than wanted.
pub async fn refill(url: &str, wanted: u64, data: &Arc<str>) {
    let mut admin = AdminServiceClient::with_interceptor(connection(url).await, Token);
    let stats = admin.get_stats(GetStatsRequest {}).await.expect("the orchestrator answers").into_inner();
    // No other end occurs here.
    let open = |(status, _): &(&String, &u64)| *status != "finished";
    let found = stats.jobs.iter().filter(open).map(|(_, count)| count).sum();
    fill(url, wanted.saturating_sub(found), data).await;
}

async fn submit_all(
    mut jobs: Jobs,
    requests: impl Stream<Item = SubmitJobRequest> + Send + 'static,
    shown: Option<u64>,
) {
    const SHOW_EVERY: u64 = 25_000;
    let mut answers = jobs.submit_jobs(requests).await.expect("the stream opens").into_inner();
    let mut stored = 0_u64;
    while let Some(answer) = answers.message().await.expect("the stream goes on") {
        match answer.result {
            Some(Answer::Ok(_)) => stored += 1,
            other => panic!("a job was refused: {other:?}"),
        }
        if let Some(share) = shown.filter(|_| stored.is_multiple_of(SHOW_EVERY)) {
            progress(&format!("storing jobs: {} %", stored * 100 / share.max(1)));
        }
    }
}

/// Submits a job for each one that ends, so that as many stay open as there were. Ends with its owner.
pub async fn keep_submitting(url: &str, tally: &Arc<Tally>, data: &Arc<str>) -> JoinSet<()> {
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        let seed = (tally.clone(), data.clone());
        let requests = stream::unfold(seed, |(tally, data)| async {
            tally.room.acquire().await.ok()?.forget();
            Some((request(&data), (tally, data)))
        });
        streams.spawn(submit_all(connect(url).await, Box::pin(requests), None));
    }
    streams
}

/// Jobs per second, while as many jobs are submitted as end: first some that are not counted, then `jobs` that are.
pub async fn throughput(tally: &Tally, jobs: u64) -> f64 {
    let warm = tally.done() + jobs / 10;
    tally.until_done(warm).await;
    let (started, before) = (Instant::now(), tally.done());
    // Those before do not count either.
    tally.longest_pause();
    tally.until_done(before + jobs).await;
    (tally.done() - before) as f64 / started.elapsed().as_secs_f64()
}

/// Callers that each submit a job, wait for its end, and submit the next.
pub struct Callers {
    callers: JoinSet<Vec<f64>>,
    stop: Arc<AtomicBool>,
}

impl Callers {
    /// Starts so many, on one connection.
    pub async fn start(url: &str, callers: usize, data: &Arc<str>) -> Self {
        let (stop, jobs) = (Arc::new(AtomicBool::new(false)), connect(url).await);
        let mut set = JoinSet::new();
        for _ in 0..callers {
            set.spawn(submit_and_wait(jobs.clone(), data.clone(), stop.clone()));
        }
        Self { callers: set, stop }
    }

    /// Lets them go on for a while, then end. Returns the time from each submission to the end of the job, in milliseconds.
    pub async fn run_for(self, time: Duration) -> Vec<f64> {
        tokio::time::sleep(time).await;
        self.stop.store(true, Ordering::Relaxed);
        self.callers.join_all().await.concat()
    }
}

async fn submit_and_wait(mut jobs: Jobs, data: Arc<str>, stop: Arc<AtomicBool>) -> Vec<f64> {
    let mut latencies = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let wait = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        let submitted = Instant::now();
        let answer = jobs.submit_job(SubmitJobRequest { wait, ..request(&data) }).await;
        let job = answer.expect("the job is accepted").into_inner().job;
        assert_eq!(job.map(|job| job.status()), Some(JobStatus::Finished), "every job finishes");
        latencies.push(submitted.elapsed().as_secs_f64() * 1000.0);
    }
    latencies
}

/// A client that submits jobs at a fixed rate, from the moment on that the port is open. It has a thread of its own, so that it
/// waits for the orchestrator alone and not for what else this process does.
pub struct SteadyClient {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Steady>,
}

/// What a [`SteadyClient`] has seen.
pub struct Steady {
    /// When the port was open.
    pub since: Instant,
    /// From the time for which each submission was planned to its answer, in milliseconds.
    pub latencies: Vec<f64>,
}

impl SteadyClient {
    /// Begins to look for the port.
    pub fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        Self { stop, thread: thread::spawn(move || submit_steadily(port, &until)) }
    }

    /// Plans no more submissions, and waits for the answers to those that it has.
    pub fn end(self) -> Steady {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the client does not panic")
    }
}

fn submit_steadily(port: u16, stop: &AtomicBool) -> Steady {
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        thread::sleep(LOOK_EVERY);
    }
    let (since, data) = (Instant::now(), data(100));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let latencies = runtime.block_on(async {
        // What it takes to connect is waited for, too.
        let client = connect(&format!("http://127.0.0.1:{port}")).await;
        let mut answers = JoinSet::new();
        let mut planned = since;
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep_until(planned.into()).await;
            let (mut client, request) = (client.clone(), request(&data));
            answers.spawn(async move {
                client.submit_job(request).await.expect("the job is accepted");
                planned.elapsed().as_secs_f64() * 1000.0
            });
            planned += BETWEEN_SUBMISSIONS;
        }
        answers.join_all().await
    });
    Steady { since, latencies }
}

/// Jobs one after the other. Returns the time from each submission to the arrival of its task at a worker, in milliseconds.
pub async fn dispatch_latencies(url: &str, tally: &Tally, jobs: u64) -> Vec<f64> {
    let (mut client, data) = (connect(url).await, data(100));
    let mut latencies = Vec::new();
    for _ in 0..jobs {
        let (done, submitted) = (tally.done(), Instant::now());
        client.submit_job(request(&data)).await.expect("the job is accepted");
        tally.until_done(done + 1).await;
        latencies.push(tally.last_arrival().duration_since(submitted).as_secs_f64() * 1000.0);
    }
    latencies
}

/// The median and the 99th percentile.
pub fn p50_and_p99(mut latencies: Vec<f64>) -> (f64, f64) {
    (percentile(&mut latencies, 0.5), percentile(&mut latencies, 0.99))
}
