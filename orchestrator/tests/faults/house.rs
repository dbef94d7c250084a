//! An orchestrator whose disk and clock are in the test's hands.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::running::{Running, TOKENS, program, send_text};

/// Longest wait for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Jobs of the first wait for a worker, those of the second for the clock, those of the third for nobody.
const BLUEPRINTS: [(&str, &str); 3] = [
    (
        "work",
        "states:\n  a: { start: true, task: { type: work, timeout: 30m }, on: { success: done, failure: failed } }\n  \
         done: { end: finished }\n  failed: { end: failed }\n",
    ),
    ("nap", "states:\n  a: { start: true, wait: 30m, next: done }\n  done: { end: finished }\n"),
    ("instant", "states:\n  a: { start: true, pass: { seen: 1 }, next: done }\n  done: { end: finished }\n"),
];

/// The functions of `shim.c`, compiled once for all tests.
static SHIM: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let shim = dir.path().join("shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&shim)
        .arg(source)
        .arg("-ldl")
        .status();
    assert!(compiled.unwrap().success());
    (dir, shim)
});

/// A directory with blueprints, data, and the faults that are in force.
pub struct House {
    pub dir: TempDir,
}

impl House {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("blueprints")).unwrap();
        for (name, states) in BLUEPRINTS {
            let file = dir.path().join(format!("blueprints/{name}.yaml"));
            fs::write(file, format!("blueprint: {name}\nendpoint: /{name}\n{states}")).unwrap();
        }
        let house = Self { dir };
        house.suffers("");
        house
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// From now on these faults are in force, in the words of `shim.c`.
    pub fn suffers(&self, faults: &str) {
        // In one go: half of a sentence must not be read.
        let next = self.dir.path().join("faults.next");
        fs::write(&next, faults).unwrap();
        fs::rename(next, self.dir.path().join("faults")).unwrap();
    }

    /// The orchestrator, with its data where nobody has said otherwise.
    pub fn command(&self) -> Command {
        self.dressed(program())
    }

    /// The orchestrator, started by another program.
    pub fn dressed(&self, mut command: Command) -> Command {
        command.args(TOKENS).args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(self.data());
        command.arg("--blueprints").arg(self.dir.path().join("blueprints"));
        command.env("LD_PRELOAD", &SHIM.1).env("FAULTS", self.dir.path().join("faults"));
        command
    }

    pub fn start(&self) -> Client {
        Client::of(Running::start(self.command()))
    }
}

/// A running orchestrator and its client.
pub struct Client {
    pub running: Running,
}

impl Client {
    pub fn of(running: Running) -> Self {
        Self { running }
    }

    pub fn send(&self, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
        send_text(self.running.port, method, path, body)
    }

    /// Status and code of a submission: `(202, "")` when it is accepted.
    pub fn submit(&self, blueprint: &str) -> (u16, String) {
        let (status, answer) = self.send("POST", &format!("/api/{blueprint}"), "{}").unwrap();
        (status, answer["code"].as_str().unwrap_or_default().to_owned())
    }

    /// The id of a new job.
    pub fn job(&self, blueprint: &str) -> String {
        let (status, answer) = self.send("POST", &format!("/api/{blueprint}"), "{}").unwrap();
        assert_eq!(status, 202, "{answer}");
        answer["job_id"].as_str().unwrap().to_owned()
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, answer) = self.send("GET", path, "").unwrap();
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    pub fn status_of(&self, job: &str) -> Value {
        self.get(&format!("/api/jobs/{job}"))["status"].clone()
    }

    /// The ids of all jobs, newest first.
    pub fn jobs(&self) -> Vec<String> {
        let (mut jobs, mut path) = (Vec::new(), "/api/jobs".to_owned());
        loop {
            let page = self.get(&path);
            let listed = page["jobs"].as_array().unwrap();
            jobs.extend(listed.iter().map(|job| job["id"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("/api/jobs?cursor={cursor}"),
                None => return jobs,
            }
        }
    }

    /// Looks again and again until it is so; how long that took.
    pub fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < PATIENCE, "{what} does not happen");
            thread::sleep(Duration::from_millis(5));
        }
        began.elapsed()
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.running.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it without a word.
    pub fn kill(mut self) {
        self.running.kill();
    }
}
