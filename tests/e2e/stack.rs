//! One orchestrator over real sockets and a real store, and workers and clients around it, all in this process.

use std::{future::Future, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use avtomatika_orchestrator::{
    App, Parts,
    api::{Auth, Secret},
    assemble,
    blueprint::{load, load_dir},
    chores::pruning::Retention,
    conductor::{DEFAULT_RESIDENT_BYTES, Limits, Settings},
    functions::Functions,
    schedule::Schedules,
    store::{StoreError, journal},
    time::SystemClock,
    tls::Tls,
    webhook,
};
use avtomatika_proto::v1::{Job, WatchJobRequest, job_service_client::JobServiceClient};
use avtomatika_worker::{Worker, WorkerBuilder, WorkerError};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

/// Longest wait for anything that must happen; far beyond what it takes, so that only a hang meets it.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const CLIENT_TOKEN: &str = "token-of-acme";
pub const OTHER_CLIENT_TOKEN: &str = "token-of-globex";
pub const WORKER_TOKEN: &str = "token-of-the-workers";
pub const SECOND_WORKER_TOKEN: &str = "another-token-for-workers";

const BLUEPRINTS: [&str; 3] = [
    include_str!("../../examples/blueprints/test_workflow.yaml"),
    "blueprint: brittle\nstates:\n  init:\n    start: true\n    task: { type: brittle, params: { n: \"${initial_data.n}\" }, timeout: 500ms, retry: { max_retries: 1, initial_delay: 10ms } }\n    on: { success: done }\n  done: { end: finished }\n",
    "blueprint: slow\nstates:\n  init:\n    start: true\n    task: { type: slow, timeout: 5m }\n    on: { success: done }\n  done: { end: finished }\n",
];

/// A running orchestrator and its data directory.
pub struct Stack {
    pub url: String,
    address: SocketAddr,
    dir: TempDir,
    running: Option<Running>,
    /// What it does by itself; may be replaced while it runs.
    pub schedules: Schedules,
    /// The definitions that it serves from its next start or reload on.
    pub blueprints: Vec<String>,
    /// The functions that it has from its next start on.
    pub functions: Functions,
    tls: Option<Tls>,
}

struct Running {
    stop: CancellationToken,
    served: JoinHandle<Result<(), StoreError>>,
}

impl Stack {
    pub async fn start() -> Self {
        Self::serving(&[]).await
    }

    /// With a port that speaks TLS.
    pub async fn encrypted(tls: Tls) -> Self {
        let mut stack = Self::start().await;
        stack.stop().await;
        stack.tls = Some(tls);
        stack.url = format!("https://localhost:{}", stack.address.port());
        stack.start_again().await;
        stack
    }

    /// With these blueprints beside the usual ones.
    pub async fn serving(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let blueprints: Vec<String> = BLUEPRINTS.iter().chain(more).map(|&text| text.to_owned()).collect();
        let functions = Functions::new();
        let schedules = Schedules::default();
        let running = Some(serve(dir.path(), listener, &blueprints, &functions, schedules.clone(), None));
        let url = format!("http://{address}");
        Self { url, address, dir, running, schedules, blueprints, functions, tls: None }
    }

    /// Stops the orchestrator in order.
    pub async fn stop(&mut self) {
        if let Some(Running { stop, served }) = self.running.take() {
            stop.cancel();
            in_time(served).await.unwrap().unwrap();
        }
    }

    /// Starts it again at the same port and over the same data.
    pub async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        let schedules = self.schedules.clone();
        let tls = self.tls.clone();
        self.running =
            Some(serve(self.dir.path(), listener, &self.blueprints, &self.functions, schedules, tls));
    }

    /// Has the orchestrator that runs read the definitions again.
    pub async fn reload(&self) -> Value {
        save(&self.dir.path().join("blueprints"), &self.blueprints);
        let (status, answer) = self.post("/api/reload", "").await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// A worker of this orchestrator, to be given its handlers.
    pub fn worker(&self, name: &str) -> WorkerBuilder {
        Worker::builder(&self.url).token(WORKER_TOKEN).worker_id(name).worker_type("test").slots(4)
    }

    pub async fn grpc(&self) -> Client {
        Client::connect(&self.url, CLIENT_TOKEN).await
    }

    pub async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let request = reqwest::Client::new().post(format!("{}{path}", self.url)).body(body.to_owned());
        answer(request).await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        answer(reqwest::Client::new().get(format!("{}{path}", self.url))).await
    }
}

fn serve(
    dir: &Path,
    listener: TcpListener,
    blueprints: &[String],
    functions: &Functions,
    schedules: Schedules,
    tls: Option<Tls>,
) -> Running {
    let definition = |text: &String| load("test.yaml", text).expect("a sound blueprint").definition;
    let definitions = blueprints.iter().map(definition).collect();
    let clients = [("acme", CLIENT_TOKEN), ("globex", OTHER_CLIENT_TOKEN)]
        .map(|(name, token)| (name, Secret::new(token)));
    let workers = [WORKER_TOKEN, SECOND_WORKER_TOKEN].map(Secret::new);
    let app: App = assemble(Parts {
        store: Arc::new(journal::open(dir).unwrap()),
        clock: Arc::new(SystemClock::new()),
        definitions,
        schedules,
        auth: Auth::new(clients.iter().map(|(name, token)| (*name, token)), &workers),
        settings: Settings {
            limits: Limits {
                max_open_jobs: 10_000,
                max_workers: 100,
                resident_bytes_max: DEFAULT_RESIDENT_BYTES,
            },
            adoption_window: PATIENCE,
            webhooks: Some(webhook::Setup {
                keys: vec![webhook::Key::from_secret(webhook::DEVELOPMENT_SECRET).unwrap()],
                // Whom the tests tell is on this machine.
                allow_private: true,
            }),
            entropy_seed: Settings::fresh_seed().unwrap(),
        },
        retention: Retention::default(),
        drain_timeout: Duration::from_secs(5),
    })
    .unwrap()
    .with_functions(functions.clone())
    .unwrap();
    let directory = dir.join("blueprints");
    save(&directory, blueprints);
    let mut app = app.reload_from(move || load_dir(&directory));
    if let Some(tls) = tls {
        app = app.encrypted(tls);
    }
    let stop = CancellationToken::new();
    let served = tokio::spawn(app.serve(listener, stop.clone()));
    Running { stop, served }
}

/// Puts the definitions where a reload finds them.
fn save(directory: &Path, blueprints: &[String]) {
    std::fs::create_dir_all(directory).unwrap();
    for (number, text) in blueprints.iter().enumerate() {
        std::fs::write(directory.join(format!("{number}.yaml")), text).unwrap();
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = in_time(request.header("X-Avtomatika-Token", CLIENT_TOKEN).send()).await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or(Value::Null))
}

/// Fails the test instead of hanging it.
pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it did not happen in time")
}

/// A worker that runs beside the test.
pub struct RunningWorker {
    stop: CancellationToken,
    ran: JoinHandle<Result<(), WorkerError>>,
}

impl RunningWorker {
    /// Runs the worker, and returns when it is registered.
    pub async fn start(builder: WorkerBuilder) -> Self {
        let worker = builder.build().unwrap();
        let mut handle = worker.handle();
        let stop = CancellationToken::new();
        let until = stop.clone();
        let ran = tokio::spawn(worker.run_until(async move { until.cancelled().await }));
        in_time(handle.registered()).await.expect("the worker registers");
        Self { stop, ran }
    }

    /// Lets it finish what it holds.
    pub async fn stop(self) -> Result<(), WorkerError> {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits for it to end by itself.
    pub async fn ended(self) -> Result<(), WorkerError> {
        in_time(self.ran).await.unwrap()
    }

    /// Ends it as a crash would: its connection closes, its handlers are gone.
    pub fn kill(self) {
        self.ran.abort();
    }
}

pub type Jobs = JobServiceClient<InterceptedService<Channel, Token>>;

/// A gRPC client with a token.
pub struct Client {
    pub jobs: Jobs,
}

#[derive(Clone)]
pub struct Token(&'static str);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let bearer = MetadataValue::try_from(format!("Bearer {}", self.0)).unwrap();
        request.metadata_mut().insert("authorization", bearer);
        Ok(request)
    }
}

impl Client {
    pub async fn connect(url: &str, token: &'static str) -> Self {
        let channel = Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap();
        Self { jobs: JobServiceClient::with_interceptor(channel, Token(token)) }
    }

    /// Watches a job until an update satisfies the condition.
    pub async fn until(&mut self, job_id: &str, condition: impl Fn(&Job) -> bool) -> Job {
        let request = WatchJobRequest { job_id: job_id.to_owned() };
        let mut updates = in_time(self.jobs.watch_job(request)).await.unwrap().into_inner();
        loop {
            let update = in_time(updates.message()).await.unwrap().expect("the watch ended too early");
            let job = update.job.unwrap();
            if condition(&job) {
                return job;
            }
        }
    }
}
