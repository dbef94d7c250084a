//! Kills a real orchestrator again and again while it forgets jobs that ended long ago: what is gone stays gone, as a whole, and
//! what is to be kept is.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use avtomatika_orchestrator::{
    blueprint::{Registry, load},
    conductor::{self, DEFAULT_RESIDENT_BYTES, Limits, Running as Conducting, Settings, SubmitRequest},
    engine::Submission,
    json::Json,
    metrics::Metrics,
    store::journal,
    time::{Clock, SystemClock, Timestamp},
};

use crate::running::{PATIENCE, Running, TOKENS, program, send_text};

/// Jobs that have ended, and jobs that stay open.
const ENDED: usize = 2_000;
const OPEN: usize = 20;
const KILLS: usize = 4;

/// As an orchestrator of one client calls it.
const CLIENT: &str = "default";

const BLUEPRINTS: [(&str, &str); 2] = [
    (
        "instant",
        "
blueprint: instant
endpoint: /instant
states:
  note: { start: true, pass: { seen: true }, next: completed }
  completed: { end: finished }
",
    ),
    (
        "waiting",
        "
blueprint: waiting
endpoint: /waiting
states:
  init: { start: true, task: { type: nobody_does_this }, on: { success: completed } }
  completed: { end: finished }
",
    ),
];

/// A clock of an hour ago.
struct AnHourAgo(SystemClock);

impl Clock for AnHourAgo {
    fn now(&self) -> Timestamp {
        self.0.now() - Duration::from_secs(3600)
    }
}

/// Leaves a directory as an orchestrator did that ran an hour ago. Returns the jobs that ended, oldest first, and those that did not.
async fn an_hour_ago(data_dir: &Path) -> (Vec<String>, Vec<String>) {
    let mut registry = Registry::default();
    for (name, text) in BLUEPRINTS {
        registry.add(Arc::new(load(name, text).unwrap().definition.into_blueprint(1)), true);
    }
    let settings = Settings {
        limits: Limits { max_open_jobs: 10_000, max_workers: 1, resident_bytes_max: DEFAULT_RESIDENT_BYTES },
        adoption_window: PATIENCE,
        webhooks: None,
        entropy_seed: Settings::fresh_seed().unwrap(),
    };
    let store = Arc::new(journal::open(data_dir).unwrap());
    let clock = Arc::new(AnHourAgo(SystemClock::new()));
    let Conducting { conductor, stopped, .. } =
        conductor::start(store, clock, Arc::new(registry), settings, Arc::new(Metrics::new())).unwrap();
    let submit = |blueprint: &str, number: usize| {
        let request = SubmitRequest {
            blueprint: blueprint.into(),
            submission: Submission::of(Json::empty()),
            idempotency_key: Some(format!("{blueprint}-{number}").into()),
            delay: None,
            wait: Duration::ZERO,
        };
        let conductor = conductor.clone();
        tokio::spawn(
            async move { conductor.submit(&CLIENT.into(), request).await.unwrap().job_id.to_string() },
        )
    };
    let (mut ended, mut open) = (Vec::new(), Vec::new());
    for jobs in (0..ENDED).collect::<Vec<_>>().chunks(100) {
        let submissions: Vec<_> = jobs.iter().map(|number| submit("instant", *number)).collect();
        for submission in submissions {
            ended.push(submission.await.unwrap());
        }
    }
    for number in 0..OPEN {
        open.push(submit("waiting", number).await.unwrap());
    }
    conductor.drain().await;
    drop(conductor);
    stopped.await.unwrap().unwrap();
    ended.sort_unstable();
    (ended, open)
}

fn start(dir: &Path) -> Running {
    let blueprints = dir.join("blueprints");
    fs::create_dir_all(&blueprints).unwrap();
    for (name, text) in BLUEPRINTS {
        fs::write(blueprints.join(format!("{name}.yaml")), text).unwrap();
    }
    let mut command = program();
    command.args(TOKENS).args(["--listen", "127.0.0.1:0", "--retention", "1m"]);
    command.arg("--data-dir").arg(dir.join("data")).arg("--blueprints").arg(blueprints);
    Running::start(command)
}

/// Status and body of what is said of jobs.
fn told(running: &Running, more: &str) -> (u16, serde_json::Value) {
    send_text(running.port, "GET", &format!("/api/jobs{more}"), "").unwrap()
}

fn is_gone(running: &Running, job_id: &str) -> bool {
    match told(running, &format!("/{job_id}")) {
        (200, _) => false,
        (status, answer) => {
            assert_eq!((status, &answer["code"]), (404, &"JOB_NOT_FOUND".into()), "{answer}");
            true
        }
    }
}

fn until_gone(running: &Running, job_id: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !is_gone(running, job_id) {
        assert!(Instant::now() < deadline, "{job_id} is not forgotten");
    }
}

/// The job that a submission under this key is answered with.
async fn submit(running: &Running, blueprint: &str, number: usize) -> String {
    let request = reqwest::Client::new()
        .post(format!("{}/api/{blueprint}", running.url()))
        .header("X-Avtomatika-Token", TOKENS[1])
        .header("Idempotency-Key", format!("{blueprint}-{number}"));
    let response = request.body("{}").send().await.unwrap().error_for_status().unwrap();
    let answer: serde_json::Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    answer["job_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_kill_while_jobs_are_forgotten_brings_none_back_and_takes_no_other_along() {
    let dir = tempfile::tempdir().unwrap();
    let (ended, open) = an_hour_ago(&dir.path().join("data")).await;
    // Here and there while they go, oldest first.
    for kill in 0..KILLS {
        let mut running = start(dir.path());
        let last_seen_to_go = ENDED * kill / KILLS;
        until_gone(&running, &ended[last_seen_to_go]);
        running.kill();
        let running = start(dir.path());
        for job_id in ended[..=last_seen_to_go].iter().step_by(97) {
            assert!(is_gone(&running, job_id), "{job_id} came back");
        }
        // Whoever is still there is whole.
        if let (200, history) = told(&running, &format!("/{}/history", ended[ENDED - 1])) {
            assert_eq!(history["history"].as_array().unwrap().len(), 4, "{history}");
        }
    }
    let running = start(dir.path());
    for job_id in &ended {
        until_gone(&running, job_id);
    }
    let (_, listed) = told(&running, "?limit=1000");
    assert_eq!(listed["jobs"].as_array().unwrap().len(), OPEN);
    for (number, job_id) in open.iter().enumerate() {
        let (status, history) = told(&running, &format!("/{job_id}/history"));
        assert_eq!(
            (status, history["history"][0]["event"].as_str()),
            (200, Some("job_accepted")),
            "{history}"
        );
        assert_eq!(submit(&running, "waiting", number).await, *job_id, "its key is kept with it");
    }
    let again = submit(&running, "instant", 0).await;
    assert!(!ended.contains(&again), "the key of a forgotten job is free");
    running.stop();
}
