//! The processes: an orchestrator, workers, and what they have in common: a directory with a journal of what handlers did, and a sign
//! that lets them end.

use std::{
    env, fs,
    future::Future,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use avtomatika_worker::{TaskContext, TaskError, Worker, WorkerBuilder, args::Args, stock};
use clap::Parser as _;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for anything that must happen; far beyond what it takes, so that only a hang meets it.
pub const PATIENCE: Duration = Duration::from_secs(60);

const CLIENT_TOKEN: &str = "client-token-of-the-test";
const WORKER_TOKEN: &str = "worker-token-of-the-test";

const BLUEPRINT: &str = "
blueprint: hold
states:
  hold:
    start: true
    task: { type: hold, timeout: 10m }
    on: { success: done }
  done: { end: finished }
";

/// Fails the test instead of hanging it.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Asks until the answer is there.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    soon(what, async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}

/// A process that ends with the test.
pub struct Process(Child);

impl Process {
    pub fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        until("the end of the process", async || self.0.try_wait().unwrap()).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An orchestrator with its data, and what its workers leave.
pub struct House {
    pub dir: TempDir,
    port: u16,
    settings: Vec<String>,
    process: Option<Process>,
    http: reqwest::Client,
}

impl House {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    pub async fn with(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("blueprints")).unwrap();
        fs::write(dir.path().join("blueprints/hold.yaml"), BLUEPRINT).unwrap();
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut house =
            Self { dir, port: free_port(), settings, process: None, http: reqwest::Client::new() };
        assert!(Command::new("mkfifo").arg(house.gate()).status().unwrap().success());
        house.start_again().await;
        house
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it (again) over its data, and waits until it serves.
    pub async fn start_again(&mut self) {
        let data_dir = self.dir.path().join("data");
        let child = Command::new(env!("CARGO_BIN_EXE_avtomatika-orchestrator"))
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .arg("--data-dir")
            .arg(data_dir)
            .arg("--blueprints")
            .arg(self.dir.path().join("blueprints"))
            .args(["--client-token", CLIENT_TOKEN, "--worker-token", WORKER_TOKEN])
            .args(&self.settings)
            .env("AVTOMATIKA_LOG", "warn")
            .stdin(Stdio::null())
            .spawn();
        self.process = Some(Process(child.unwrap()));
        let url = format!("{}/readyz", self.url());
        until("the orchestrator to serve", async || {
            self.http.get(&url).send().await.ok().filter(|answer| answer.status().is_success())
        })
        .await;
    }

    /// Moves it to another port. Nobody is told.
    pub fn move_to(&mut self, port: u16) {
        self.port = port;
    }

    pub fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().unwrap()
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let answer = soon("an answer", request.header("x-avtomatika-token", CLIENT_TOKEN).send()).await;
        let answer = answer.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or(Value::Null))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask(self.http.get(format!("{}{path}", self.url()))).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask(self.http.post(format!("{}{path}", self.url())).body(body.to_string())).await
    }

    /// Server-sent events of a job.
    pub async fn events(&self, job_id: &str) -> reqwest::Response {
        let request = self.http.get(format!("{}/api/jobs/{job_id}/events", self.url()));
        let answer = soon("the events", request.header("x-avtomatika-token", CLIENT_TOKEN).send()).await;
        answer.unwrap()
    }

    pub async fn metric(&self, line: &str) -> f64 {
        let page = self.http.get(format!("{}/_public/metrics", self.url())).send().await.unwrap();
        let page = page.text().await.unwrap();
        let value = page.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{line} is not in\n{page}")).parse().unwrap()
    }

    /// A new job with one task, which is held.
    pub async fn submit(&self) -> String {
        let (status, answer) = self.post("/api/v1/jobs", json!({ "blueprint": "hold" })).await;
        assert_eq!(status, 202, "{answer}");
        answer["job_id"].as_str().unwrap().to_owned()
    }

    pub async fn cancel(&self, job_id: &str) {
        let (status, answer) = self.post(&format!("/api/jobs/{job_id}/cancel"), json!({})).await;
        assert_eq!(status, 200, "{answer}");
    }

    pub async fn job(&self, job_id: &str) -> Value {
        self.get(&format!("/api/jobs/{job_id}")).await
    }

    /// Asks for the job until it is so.
    pub async fn until_job(&self, job_id: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        until(&format!("job {job_id}: {what}"), async || {
            Some(self.job(job_id).await).filter(|job| is_so(job))
        })
        .await
    }

    pub async fn until_finished(&self, job_id: &str) -> Value {
        self.until_job(job_id, "to finish", |job| job["status"] == "finished").await
    }

    /// Until this worker holds the job's task.
    pub async fn until_held(&self, job_id: &str, worker: &str) -> Value {
        self.until_job(job_id, worker, |job| job["current_task"]["worker_id"] == worker).await
    }

    /// How often each thing has happened to the job.
    pub async fn events_of(&self, job_id: &str, event: &str) -> usize {
        let history = self.get(&format!("/api/jobs/{job_id}/history")).await;
        let entries = history["history"].as_array().unwrap();
        entries.iter().filter(|entry| entry["event"] == event).count()
    }

    /// The worker, if it is connected.
    pub async fn worker(&self, name: &str) -> Option<Value> {
        let workers = self.get("/api/workers").await;
        workers.as_array().unwrap().iter().find(|worker| worker["worker_id"] == name).cloned()
    }

    pub async fn until_worker(&self, name: &str, status: &str) -> Value {
        until(&format!("worker {name} to be {status}"), async || {
            self.worker(name).await.filter(|worker| worker["status"] == status)
        })
        .await
    }

    pub async fn until_gone(&self, worker: &str) {
        until(&format!("worker {worker} to be gone"), async || {
            self.worker(worker).await.is_none().then_some(())
        })
        .await;
    }

    // ---- What handlers did ----

    /// What handlers have noted: what, and for which job.
    pub fn journal(&self) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.dir.path().join("journal")).unwrap_or_default();
        let line = |line: &str| line.split_once(' ').map(|(what, job)| (what.to_owned(), job.to_owned()));
        text.lines().filter_map(line).collect()
    }

    pub fn noted(&self, what: &str, job_id: &str) -> usize {
        self.journal().iter().filter(|(noted, job)| noted == what && job == job_id).count()
    }

    pub async fn until_noted(&self, what: &str, job_id: &str, times: usize) {
        until(&format!("{times} times {what} {job_id}"), async || {
            (self.noted(what, job_id) >= times).then_some(())
        })
        .await;
    }

    /// Lets the handlers that hold a task end, and all that follow.
    pub fn release(&self) {
        fs::write(self.dir.path().join("release"), "").unwrap();
    }

    /// Where commands wait.
    pub fn gate(&self) -> PathBuf {
        self.dir.path().join("gate")
    }

    /// Lets commands pass the gate for as long as what it returns is kept: those that wait there, and those
    /// that have said that they begin and are still on their way to it.
    #[must_use = "the gate is shut when this is dropped"]
    pub fn open_gate(&self) -> fs::File {
        // For reading as well, which does not wait for somebody at the other end.
        fs::OpenOptions::new().read(true).write(true).open(self.gate()).unwrap()
    }

    // ---- Workers ----

    /// What a stock worker serves whose command notes that it has begun, waits at the gate, and answers.
    pub fn task_at_the_gate(&self) -> String {
        let (dir, gate) = (self.dir.path().display(), self.gate());
        format!("hold=exec:{NOTE_BEGUN} >> {dir}/journal; : < {}; echo '{{}}'", gate.display())
    }

    /// What a stock worker serves whose command notes that it has begun, and answers when it is released.
    pub fn patient_task(&self) -> String {
        let dir = self.dir.path().display();
        format!(
            "hold=exec:{NOTE_BEGUN} >> {dir}/journal; until [ -e {dir}/release ]; do sleep 0.01; done; echo '{{}}'"
        )
    }

    /// A stock worker that serves what waits at the gate.
    pub fn stock_at_the_gate(&self, name: &str, more: &[&str]) -> Process {
        self.stock(name, &self.task_at_the_gate(), more)
    }

    /// A stock worker that serves `task`, such as `hold=exec:…`.
    pub fn stock(&self, name: &str, task: &str, more: &[&str]) -> Process {
        let url = self.url();
        let own = ["--orchestrator", &url, "--worker-id", name, "--task", task, "--log-format", "text"];
        self.stock_with(name, own.iter().chain(more).copied())
    }

    pub fn stock_with<'a>(&self, name: &str, arguments: impl Iterator<Item = &'a str>) -> Process {
        let arguments: Vec<&str> = ["stock", "--token", WORKER_TOKEN].into_iter().chain(arguments).collect();
        self.spawn(name, "support::stock_worker", json!(arguments))
    }

    /// A worker of the SDK with one slot; see [`hold`].
    pub fn sdk(&self, name: &str) -> Process {
        let worker = json!({ "url": self.url(), "name": name, "dir": self.dir.path() });
        self.spawn(name, "support::sdk_worker", worker)
    }

    fn spawn(&self, name: &str, test: &str, how: Value) -> Process {
        let log = fs::File::create(self.dir.path().join(format!("{name}.log"))).unwrap();
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .env(HOW, how.to_string())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        Process(child.unwrap())
    }

    /// What a worker's process has said.
    pub fn log_of(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// A worker of the SDK in this process, to be given its handlers.
    pub fn worker_here(&self, url: &str, name: &str) -> WorkerBuilder {
        Worker::builder(url).token(WORKER_TOKEN).worker_id(name).slots(1)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // Commands of workers that were killed wait there for ever.
        let _open = self.open_gate();
        // Who comes now finds none.
        let _ = fs::remove_file(self.gate());
    }
}

const NOTE_BEGUN: &str = "echo begun $AVTOMATIKA_JOB_ID";

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

// ---- Workers' processes ----

const HOW: &str = "AVTOMATIKA_TEST_WORKER";

/// The stock worker, in a process of its own.
#[test]
#[ignore = "the process of a worker; other tests start it"]
fn stock_worker() {
    let Ok(arguments) = env::var(HOW) else { return };
    let arguments: Vec<String> = serde_json::from_str(&arguments).unwrap();
    std::process::exit(stock::run(Args::parse_from(arguments)).into());
}

/// A worker of the SDK, in a process of its own.
#[test]
#[ignore = "the process of a worker; other tests start it"]
fn sdk_worker() {
    let Ok(how) = env::var(HOW) else { return };
    let how: Value = serde_json::from_str(&how).unwrap();
    let dir = PathBuf::from(how["dir"].as_str().unwrap());
    let worker = Worker::builder(how["url"].as_str().unwrap()).token(WORKER_TOKEN).slots(1);
    let worker = hold(worker.worker_id(how["name"].as_str().unwrap()), &dir);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(worker.build().unwrap().run_until(std::future::pending())).unwrap();
}

/// Serves `hold`: notes what it does, says and saves how far it is, and ends when it is released or told to stop.
pub fn hold(worker: WorkerBuilder, dir: &Path) -> WorkerBuilder {
    let dir = dir.to_owned();
    worker.handle("hold", move |_: Value, context: TaskContext| {
        let dir = dir.clone();
        async move {
            let note = |what: &str| {
                let journal = fs::OpenOptions::new().create(true).append(true).open(dir.join("journal"));
                // In one piece, or lines of two processes could mix.
                let line = format!("{what} {}\n", context.job_id());
                journal.unwrap().write_all(line.as_bytes()).unwrap();
            };
            let saved: Option<Value> = context.checkpoint()?;
            let page = saved.as_ref().map_or(0, |saved| saved["page"].as_u64().unwrap());
            context.save(json!({ "page": page + 1 }))?;
            context.progress(0.5, "half");
            note("begun");
            let released = dir.join("release");
            while !released.exists() {
                tokio::select! {
                    () = context.cancellation().cancelled() => {
                        note("stopped");
                        return Err(TaskError::transient("told to stop"));
                    }
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
            note("ended");
            Ok(json!({ "began_at": page }))
        }
    })
}

/// Whether it took as long as was promised, and `slack`: the programs are not optimised here, and the machine has other work.
pub fn assert_within(what: &str, took: Duration, promised: Duration, slack: Duration) {
    eprintln!("{what} took {took:.1?}; promised {promised:?}");
    assert!(took <= promised + slack, "{what} took {took:?}; promised {promised:?}");
}

/// Measures until the future is done.
pub async fn timed<T>(future: impl Future<Output = T>) -> (Duration, T) {
    let began = Instant::now();
    let value = future.await;
    (began.elapsed(), value)
}
