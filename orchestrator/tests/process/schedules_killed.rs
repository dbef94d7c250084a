//! Kills a real orchestrator again and again while its schedules make jobs every second, just when jobs begin to appear: there
//! and then the due times of one second are partly decided.
//!
//! Afterwards each schedule has made exactly one job for every second from its first to its last.
//!
//! `AVTOMATIKA_CRASH_CYCLES` sets the number of kills (default 5).

use std::{
    collections::BTreeMap,
    env, fs,
    net::TcpListener,
    path::Path,
    process::{Child, Stdio},
    time::Instant,
};

use avtomatika_orchestrator::time::Timestamp;
use serde_json::Value;

use crate::running::{PATIENCE, TOKENS, program};

const SCHEDULES: usize = 40;

const BLUEPRINT: &str = "
blueprint: instant
states:
  note: { start: true, pass: { seen: true }, next: completed }
  completed: { end: finished }
";

fn start(dir: &Path, port: u16) -> Child {
    let blueprints = dir.join("blueprints");
    fs::create_dir_all(&blueprints).unwrap();
    fs::write(blueprints.join("instant.yaml"), BLUEPRINT).unwrap();
    let schedule = |n| format!("[s{n}]\nblueprint = 'instant'\ninterval = '1s'\non_missed = 'all'\n");
    let schedules = dir.join("schedules.toml");
    fs::write(&schedules, (0..SCHEDULES).map(schedule).collect::<String>()).unwrap();
    let mut command = program();
    command.args(TOKENS).args(["--listen", &format!("127.0.0.1:{port}"), "--log", "warn"]);
    command.arg("--data-dir").arg(dir.join("data")).arg("--blueprints").arg(blueprints);
    command.arg("--schedules").arg(schedules).stderr(Stdio::inherit()).spawn().unwrap()
}

struct Client {
    url: String,
    http: reqwest::Client,
}

impl Client {
    /// Asks until somebody answers.
    async fn get(&self, path: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request =
                self.http.get(format!("{}{path}", self.url)).header("X-Avtomatika-Token", TOKENS[1]);
            match request.send().await {
                Ok(response) if response.status().is_success() => {
                    return serde_json::from_str(&response.text().await.unwrap()).unwrap();
                }
                other => assert!(Instant::now() < deadline, "{other:?}"),
            }
            tokio::task::yield_now().await;
        }
    }

    /// The last due time for which any job was made.
    async fn last_due(&self) -> Option<Timestamp> {
        let page = self.get("/api/jobs?limit=1").await;
        page["jobs"].get(0).map(due_at)
    }

    /// Waits for jobs of a later second than these.
    async fn later_than(&self, before: Option<Timestamp>) {
        let deadline = Instant::now() + PATIENCE;
        while self.last_due().await <= before {
            assert!(Instant::now() < deadline, "no job was made after {before:?}");
        }
    }

    /// The seconds for which each schedule has jobs.
    async fn made(&self) -> BTreeMap<String, Vec<i64>> {
        let (mut made, mut cursor) = (BTreeMap::<String, Vec<i64>>::new(), String::new());
        loop {
            let page = self.get(&format!("/api/jobs?limit=1000{cursor}")).await;
            for job in page["jobs"].as_array().unwrap() {
                assert_eq!(job["status"], "finished", "{job}");
                let schedule = job["labels"]["schedule"].as_str().unwrap().to_owned();
                made.entry(schedule).or_default().push(due_at(job).as_micros() / 1_000_000);
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return made,
            }
        }
    }
}

fn due_at(job: &Value) -> Timestamp {
    Timestamp::from_rfc3339(job["labels"]["due_at"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_killed_orchestrator_makes_one_job_for_each_due_time() {
    let kills: u32 = env::var("AVTOMATIKA_CRASH_CYCLES").ok().map_or(5, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client = Client { url: format!("http://127.0.0.1:{port}"), http: reqwest::Client::new() };
    let mut orchestrator = start(dir.path(), port);
    for _ in 0..kills {
        let before = client.last_due().await;
        client.later_than(before).await;
        // SIGKILL: no handler runs, nothing is flushed.
        orchestrator.kill().unwrap();
        orchestrator.wait().unwrap();
        orchestrator = start(dir.path(), port);
    }
    // Two seconds on, and what was missed is made up.
    client.later_than(client.last_due().await).await;
    client.later_than(client.last_due().await).await;

    let made = client.made().await;
    assert_eq!(made.len(), SCHEDULES);
    let mut total = 0;
    for (schedule, mut seconds) in made {
        seconds.sort_unstable();
        let every: Vec<i64> = (seconds[0]..=seconds[seconds.len() - 1]).collect();
        assert_eq!(seconds, every, "{schedule}");
        assert!(seconds.len() > kills as usize, "{schedule}: {seconds:?}");
        total += seconds.len();
    }
    eprintln!("{total} jobs of {SCHEDULES} schedules over {kills} kills: one for each due time");
    orchestrator.kill().unwrap();
    orchestrator.wait().unwrap();
}
