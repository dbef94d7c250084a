//! The orchestrator as a process: the real program with its real settings, killed and started again at the same address.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub const CLIENT_TOKEN: &str = "client-token-of-the-bench";
pub const WORKER_TOKEN: &str = "worker-token-of-the-bench";

/// Name of the blueprint, and of the type of its one task.
pub const NAME: &str = "bench";

const BLUEPRINT: &str = r#"
blueprint: bench
states:
  work:
    start: true
    task: { type: bench, params: { payload: "${initial_data.input}" } }
    on: { success: done, failure: failed }
  done: { end: finished }
  failed: { end: failed }
"#;

/// Name of the blueprint that maps over the items of its input.
pub const FAN_OUT: &str = "fan_out";

const FAN_OUT_BLUEPRINT: &str = r#"
blueprint: fan_out
states:
  all:
    start: true
    map:
      over: initial_data.items
      task: { type: bench, params: { payload: "${item}" } }
    on: { success: done, failure: failed }
  done: { end: finished }
  failed: { end: failed }
"#;

/// How long a start may take; far beyond any goal.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often somebody looks whether it serves already; bounds the error of the figure.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A running orchestrator, killed when dropped, with its data directory.
pub struct Orchestrator {
    child: Child,
    port: u16,
    home: TempDir,
}

impl Orchestrator {
    /// Starts one over a new data directory under `dir`, and waits until it is ready.
    pub async fn start(dir: &Path) -> Self {
        let home = tempfile::tempdir_in(dir).expect("a data directory");
        let blueprints = home.path().join("blueprints");
        std::fs::create_dir(&blueprints).expect("a directory for the blueprint");
        for (file, blueprint) in [("bench.yaml", BLUEPRINT), ("fan_out.yaml", FAN_OUT_BLUEPRINT)] {
            std::fs::write(blueprints.join(file), blueprint).expect("the blueprint is written");
        }
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        let started = Self { child: spawn(home.path(), port, &[]), port, home };
        started.ready().await;
        started
    }

    /// Where it serves.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port of that address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it: no handler runs, nothing is flushed.
    pub fn kill(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("it can be killed");
    }

    /// Starts it again over its data directory; says when the process was started. It may not be ready yet.
    pub fn start_again(&mut self, settings: &[(&str, &str)]) -> Instant {
        let now = Instant::now();
        self.child = spawn(self.home.path(), self.port, settings);
        now
    }

    /// Waits until it says that work may be sent to it.
    pub async fn ready(&self) {
        let until = Instant::now() + PATIENCE;
        while !says_ready(self.port).await.unwrap_or(false) {
            assert!(Instant::now() < until, "the orchestrator does not become ready");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A figure that it gives of itself, by its name among the metrics.
    pub async fn metric(&self, name: &str) -> f64 {
        let figures = get(self.port, "/_public/metrics").await.expect("it answers");
        let figure = figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        figure.and_then(|figure| figure.trim().parse().ok()).expect("there is such a figure")
    }

    /// Resident memory now, in MiB.
    pub fn resident_mib(&self) -> f64 {
        self.status_mib("VmRSS:")
    }

    /// The most that was ever resident, in MiB.
    pub fn peak_mib(&self) -> f64 {
        self.status_mib("VmHWM:")
    }

    /// Size of the data directory on disk, in MiB.
    pub fn disk_mib(&self) -> f64 {
        let files = std::fs::read_dir(self.home.path().join("data")).expect("the data directory is there");
        let bytes: u64 = files.filter_map(|file| file.ok()?.metadata().ok()).map(|file| file.len()).sum();
        bytes as f64 / (1024.0 * 1024.0)
    }

    fn status_mib(&self, field: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the process is alive, and this system has /proc");
        let line =
            status.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel counts memory");
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib / 1024.0
    }
}

impl Drop for Orchestrator {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(home: &Path, port: u16, settings: &[(&str, &str)]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_avtomatika-orchestrator"))
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .arg("--data-dir")
        .arg(home.join("data"))
        .arg("--blueprints")
        .arg(home.join("blueprints"))
        .args(["--client-token", CLIENT_TOKEN, "--worker-token", WORKER_TOKEN])
        // Room beyond the numbers that are measured with, for the jobs and workers that do the measuring.
        .args(["--max-open-jobs", "2000000", "--max-workers", "16000"])
        .env("AVTOMATIKA_LOG", "warn")
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .spawn()
        .expect("the orchestrator can be started")
}

async fn says_ready(port: u16) -> std::io::Result<bool> {
    Ok(get(port, "/readyz").await?.starts_with("HTTP/1.1 200"))
}

async fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
