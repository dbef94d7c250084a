//! A running orchestrator, and ways to talk to it.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use avtomatika_orchestrator::{
    App, Parts,
    api::{Auth, Secret},
    assemble,
    blueprint::{Loaded, load, load_dir},
    chores::pruning::Retention,
    conductor::{DEFAULT_RESIDENT_BYTES, Limits, Settings},
    schedule::Schedules,
    store::{StoreError, memory::MemoryStore},
    time::SystemClock,
    tls::Tls,
};
use http::Method;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub const ALICE: &str = "alice-token";
pub const BOB: &str = "bob-token";
pub const WORKER: &str = "worker-token";

/// How long jobs are kept after their end.
pub const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// A job of this one waits for a worker.
const TEST_WORKFLOW: &str = "
blueprint: test_workflow
endpoint: /jobs/test
states:
  init:
    start: true
    task: { type: process_data, params: { payload: \"${initial_data}\" } }
    on: { success: completed, failure: failed }
  completed: { end: finished }
  failed: { end: failed }
";

/// A job of this one ends by itself.
const INSTANT: &str = "
blueprint: instant
endpoint: /jobs/instant
states:
  note: { start: true, pass: { seen: \"${initial_data.input}\" }, next: completed }
  completed: { end: finished }
";

/// A job of this one ends by itself, and can be had by name only.
const NAMED: &str = "
blueprint: named
states:
  only: { start: true, pass: { by: \"${client.name}\" }, next: failed }
  failed: { end: failed }
";

/// A job of this one needs an order with lines.
const CHECKED: &str = "
blueprint: checked
endpoint: /jobs/checked
input_schema:
  type: object
  required: [order]
  properties:
    order: { type: string }
    lines: { type: array, items: { type: object, properties: { count: { type: integer, minimum: 1 } } } }
states:
  only: { start: true, end: finished }
";

/// A job of this one fails, unless its input has an `a`.
const FRAGILE: &str = "
blueprint: fragile
input_schema: { type: object, properties: { a: { type: number } } }
states:
  add: { start: true, pass: { sum: \"${initial_data.a + 1}\" }, next: completed }
  completed: { end: finished }
";

/// A job of this one waits for branches, then for a child; nobody serves either.
const FAMILY: &str = "
blueprint: family
states:
  fan:
    start: true
    map: { over: \"[1, 2, 3]\", max_parallel: 1, task: { type: process_data } }
    on: { success: child, failure: failed }
  child: { run: { blueprint: test_workflow, input: {} }, on: { success: completed, failure: failed } }
  completed: { end: finished }
  failed: { end: failed }
";

/// A job of this one waits for a human.
const ASK: &str = "
blueprint: ask
states:
  ask:
    start: true
    approval: { message: \"pay ${initial_data.amount} EUR?\", deadline: 1h }
    on: { approved: again, rejected: refused, timeout: refused, failure: refused }
  again: { approval: {}, on: { approved: completed, rejected: refused } }
  completed: { end: finished, result: { by: \"${result.by}\", note: \"${state_history.note}\" } }
  refused: { end: failed }
";

/// A job of this one waits for a signal.
const LISTEN: &str = "
blueprint: listen
states:
  listen:
    start: true
    event: { name: paid, when: \"signal.amount >= initial_data.amount\", deadline: 1h }
    on: { received: completed, timeout: failed }
  completed: { end: finished }
  failed: { end: failed }
";

/// The blueprints of these tests, as they are read.
pub fn blueprints() -> Vec<Loaded> {
    let read = |text: &str| match load("test.yaml", text) {
        Ok(loaded) => loaded,
        Err(findings) => panic!("{findings:?}"),
    };
    [TEST_WORKFLOW, INSTANT, NAMED, CHECKED, FAMILY, FRAGILE, ASK, LISTEN].map(read).into()
}

/// Everything of an orchestrator but its store and its drain time.
pub fn parts(store: Arc<MemoryStore>, drain_timeout: Duration) -> Parts {
    let [alice, bob, worker] = [ALICE, BOB, WORKER].map(Secret::new);
    Parts {
        store,
        clock: Arc::new(SystemClock::new()),
        definitions: blueprints().into_iter().map(|loaded| loaded.definition).collect(),
        schedules: Schedules::default(),
        auth: Auth::new([("alice", &alice), ("bob", &bob)], [&worker]),
        settings: Settings {
            limits: Limits {
                max_open_jobs: 100,
                max_workers: 10,
                resident_bytes_max: DEFAULT_RESIDENT_BYTES,
            },
            adoption_window: Duration::ZERO,
            webhooks: None,
            entropy_seed: [7; 32],
        },
        retention: Retention::for_age(RETENTION),
        drain_timeout,
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub store: Arc<MemoryStore>,
    shutdown: CancellationToken,
    serving: JoinHandle<Result<(), StoreError>>,
    http: reqwest::Client,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn error(&self) -> String {
        self.text("error")
    }

    pub fn text(&self, key: &str) -> String {
        self.json()[key].as_str().unwrap_or_else(|| panic!("no text {key} in {self:?}")).to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(Duration::from_secs(5)).await
    }

    pub async fn start_with(drain_timeout: Duration) -> Self {
        Self::start_over(Arc::new(MemoryStore::new()), drain_timeout).await
    }

    pub async fn start_over(store: Arc<MemoryStore>, drain_timeout: Duration) -> Self {
        let app = assemble(parts(store.clone(), drain_timeout)).unwrap();
        Self::serve(app, store).await
    }

    /// Speaks TLS.
    pub async fn start_encrypted(tls: Tls) -> Self {
        let store = Arc::new(MemoryStore::new());
        let app = assemble(parts(store.clone(), Duration::from_secs(5))).unwrap().encrypted(tls);
        Self::serve(app, store).await
    }

    /// Serves what this directory holds.
    pub async fn start_from(dir: &Path) -> Self {
        let store = Arc::new(MemoryStore::new());
        let loaded = load_dir(dir).unwrap();
        let definitions = loaded.into_iter().map(|loaded| loaded.definition).collect();
        let parts = Parts { definitions, ..parts(store.clone(), Duration::from_secs(5)) };
        let dir = dir.to_owned();
        let app = assemble(parts).unwrap().reload_from(move || load_dir(&dir));
        Self::serve(app, store).await
    }

    /// Listens there.
    pub async fn start_at(address: &str) -> Self {
        let store = Arc::new(MemoryStore::new());
        let app = assemble(parts(store.clone(), Duration::from_secs(5))).unwrap();
        Self::serve_at(address, app, store).await
    }

    pub async fn serve(app: App, store: Arc<MemoryStore>) -> Self {
        Self::serve_at("127.0.0.1:0", app, store).await
    }

    async fn serve_at(address: &str, app: App, store: Arc<MemoryStore>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(app.serve(listener, shutdown.clone()));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { address, store, shutdown, serving, http }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request with headers, as they are given and no others.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request = request.body(body.to_owned());
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, body: response.text().await.unwrap() }
    }

    /// A request of this client.
    pub async fn by(&self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        self.send(method, path, &[("x-avtomatika-token", token)], body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.by(ALICE, "GET", path, "").await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.by(ALICE, "POST", path, body).await
    }

    /// The ids of a client's jobs, from every page.
    pub async fn jobs_of(&self, token: &str) -> Vec<String> {
        let mut ids = Vec::new();
        let mut path = "/api/jobs".to_owned();
        loop {
            let page = self.by(token, "GET", &path, "").await.json();
            let id = |job: &Value| job["id"].as_str().unwrap().to_owned();
            ids.extend(page["jobs"].as_array().unwrap().iter().map(id));
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("/api/jobs?cursor={cursor}"),
                None => return ids,
            }
        }
    }

    /// Bytes on a connection of their own.
    pub async fn connect(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// Asks for a stop.
    pub fn stop(&self) {
        self.shutdown.cancel();
    }

    /// The end of the service.
    pub async fn stopped(self) {
        self.serving.await.unwrap().unwrap();
    }
}

/// Everything that the peer sends until it closes.
pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut all).await;
    String::from_utf8_lossy(&all).into_owned()
}
