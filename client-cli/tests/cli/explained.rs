//! `explain` of real jobs, by the real binary and by REST, from a real `avtomatika dev`: for each thing that a job can stand still for, the
//! facts that whoever asks wants to have. Both say the same.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use avtomatika_worker::{Worker, builtin};
use serde_json::{Value, json};

use crate::{
    dev::Dev,
    server::{avtomatika, ran},
};

/// Longest wait for anything that must happen; far beyond what it takes, so that only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Blueprints by name. Nobody serves the tasks of type `nobody`.
const BLUEPRINTS: [(&str, &str); 8] = [
    ("nobody", "states:\n  stand: { start: true, task: { type: nobody }, on: { success: done } }\n"),
    (
        "branches",
        "states:\n  stand: { start: true, map: { over: '[1, 2, 3]', max_parallel: 2, tolerate: 1, task: { type: nobody } }, on: { success: done } }\n",
    ),
    ("child", "states:\n  stand: { start: true, run: { blueprint: nobody }, on: { success: done } }\n"),
    (
        "human",
        "states:\n  stand: { start: true, approval: { message: 'Pay ${initial_data.n}?', deadline: 2h }, on: { approved: done, rejected: done, timeout: done } }\n",
    ),
    (
        "event",
        "states:\n  stand: { start: true, event: { name: paid, when: 'signal.n == initial_data.n', deadline: 3h }, on: { received: done, timeout: done } }\n",
    ),
    ("timer", "states:\n  stand: { start: true, wait: 4h, next: done }\n"),
    (
        "retry",
        "states:\n  stand: { start: true, task: { type: fail, params: { code: TRANSIENT_ERROR, message: 'the kiln is cold' }, retry: { max_retries: 2, initial_delay: 5h, max_delay: 5h } }, on: { success: done } }\n",
    ),
    (
        "keyed",
        "concurrency: { key: '\"tenant:acme\"', limit: 1 }\nstates:\n  stand: { start: true, wait: 4h, next: done }\n",
    ),
];

/// What both say in the same words. The rest is the sentence, which tells how long it has been so, and what holds times.
const SAME: [&str; 8] =
    ["status", "reason", "current_state", "attempts_max", "children", "approval", "keys", "next_steps"];

struct World {
    dev: Dev,
    _blueprints: tempfile::TempDir,
}

impl World {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, states) in BLUEPRINTS {
            let text = format!("blueprint: {name}\n{states}  done: {{ end: finished }}\n");
            std::fs::write(dir.path().join(format!("{name}.yaml")), text).unwrap();
        }
        let path = dir.path().display().to_string();
        let mut dev = Dev::start(&["--ephemeral", "--no-sample", "--blueprints", &path]);
        dev.until("Stop with Ctrl+C");
        Self { dev, _blueprints: dir }
    }

    /// What the binary says, with this on its command line.
    fn cli(&self, arguments: &[&str]) -> String {
        let answer = ran(avtomatika(&["--url", &self.dev.url]).args(arguments));
        assert_eq!(answer.code, 0, "{answer}");
        answer.stdout
    }

    fn submit(&self, blueprint: &str) -> String {
        let said = self.cli(&["-o", "json", "submit", blueprint, "--data", r#"{"n": 7}"#]);
        let job: Value = serde_json::from_str(&said).unwrap();
        job["job_id"].as_str().unwrap_or_else(|| panic!("{said}")).to_owned()
    }

    /// What REST says.
    fn rest(&self, job_id: &str) -> Value {
        let host = self.dev.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).unwrap();
        let request = format!(
            "GET /api/jobs/{job_id}/explain HTTP/1.1\r\nhost: {host}\r\nx-avtomatika-token: test-client-token\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{answer}");
        serde_json::from_str(body).unwrap()
    }

    /// The explanation as soon as it has this reason; REST gives the same.
    fn explained(&self, job_id: &str, reason: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let by_cli: Value = serde_json::from_str(&self.cli(&["-o", "json", "explain", job_id])).unwrap();
            if by_cli["reason"] == reason {
                let by_rest = self.rest(job_id);
                for key in SAME {
                    assert_eq!(by_cli[key], by_rest[key], "{key}: {by_cli} and {by_rest}");
                }
                assert_eq!(by_cli["last_failure"]["error_message"], by_rest["last_failure"]["error_message"]);
                // One of them writes zeros at the end of a time.
                for key in ["since", "until"] {
                    let at =
                        |said: &Value| said[key].as_str().map(|at| at.parse::<jiff::Timestamp>().unwrap());
                    assert_eq!(at(&by_cli), at(&by_rest), "{key}");
                }
                return by_cli;
            }
            assert!(Instant::now() < deadline, "it is not {reason:?} but {by_cli}");
        }
    }
}

/// Both ends of a wait that has a deadline: so many seconds lie between them.
fn assert_lasts(said: &Value, seconds: i64) {
    let at = |key: &str| said[key].as_str().unwrap_or_else(|| panic!("no {key}: {said}")).parse();
    let (since, until): (jiff::Timestamp, jiff::Timestamp) = (at("since").unwrap(), at("until").unwrap());
    let lasts = until.duration_since(since);
    assert!((lasts.as_secs() - seconds).abs() <= 1, "it lasts {lasts:?}: {said}");
}

fn summary(said: &Value) -> &str {
    said["summary"].as_str().unwrap()
}

#[test]
fn who_waits_for_children_is_told_which_of_them_live_and_they_tell_what_they_wait_for() {
    let world = World::start();
    let said = world.explained(&world.submit("branches"), "branches");
    let children = &said["children"];
    assert_eq!((&children["total"], &children["max_parallel"]), (&json!(3), &json!(2)), "{said}");
    assert_eq!((&children["ended"], &children["tolerated"]), (&json!(0), &json!(1)), "{said}");

    let parent = world.submit("child");
    let said = world.explained(&parent, "child");
    let running = said["children"]["running_job_ids"].as_array().unwrap();
    assert_eq!(running.len(), 1, "{said}");
    let child = running[0].as_str().unwrap();
    assert!(summary(&said).contains(child), "{said}");
    let of_child = world.explained(child, "no_worker");
    assert_eq!(of_child["queue"]["task_type"], "nobody");

    world.cli(&["cancel", child]);
    world.explained(&parent, "failed");
}

#[test]
fn who_waits_for_a_human_a_signal_or_a_time_is_told_since_when_and_until_when() {
    let world = World::start();
    let human = world.submit("human");
    let said = world.explained(&human, "human");
    assert_lasts(&said, 2 * 3600);
    assert_eq!(said["approval"]["message"], "Pay 7?");
    assert_eq!(said["approval"]["decisions"], json!(["approved", "rejected"]));
    assert!(summary(&said).contains("(approved or rejected)"), "{said}");
    let page = world.cli(&["explain", &human]);
    assert!(page.contains("Reason") && page.contains("human") && page.contains("Pay 7?"), "{page}");

    let event = world.submit("event");
    world.cli(&["signal", &event, "paid", "--data", r#"{"n": 8}"#]);
    let said = world.explained(&event, "event");
    assert_lasts(&said, 3 * 3600);
    assert_eq!((&said["event"]["name"], &said["event"]["kept"][0]["name"]), (&json!("paid"), &json!("paid")));
    assert!(summary(&said).contains("1 signal of this name does not meet"), "{said}");

    let said = world.explained(&world.submit("timer"), "timer");
    assert_lasts(&said, 4 * 3600);
}

#[test]
fn who_waits_for_a_key_is_told_who_has_it() {
    let world = World::start();
    let (holder, second, third) = (world.submit("keyed"), world.submit("keyed"), world.submit("keyed"));
    world.explained(&holder, "timer");
    for (ahead, job_id) in [(0, &second), (1, &third)] {
        let said = world.explained(job_id, "key");
        let key = &said["keys"]["keys"][0];
        assert_eq!((&said["keys"]["scope"], &key["key"]), (&json!("job"), &json!("tenant:acme")), "{said}");
        assert_eq!((&key["limit"], &key["held"]), (&json!(1), &json!(1)), "{said}");
        assert_eq!((&key["holder_job_ids"], &key["ahead"]), (&json!([holder]), &json!(ahead)), "{said}");
        assert!(said["since"].is_string());
    }
    world.cli(&["cancel", &holder]);
    world.explained(&second, "timer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_retry_is_told_when_it_comes_and_what_went_wrong() {
    let world = World::start();
    let fail = builtin::by_name("fail").unwrap();
    let worker = Worker::builder(&world.dev.url).token("test-worker-token").worker_id("kiln");
    tokio::spawn(worker.handler("fail", fail).build().unwrap().run_until(std::future::pending()));
    let job_id = world.submit("retry");
    let said = tokio::task::block_in_place(|| world.explained(&job_id, "retry"));
    let until: jiff::Timestamp = said["until"].as_str().unwrap().parse().unwrap();
    let ahead = until.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((3 * 3600..=5 * 3600).contains(&ahead), "with jitter, within five hours: {said}");
    let failure = &said["last_failure"];
    assert_eq!(
        (&failure["state"], &failure["attempt"], &failure["worker_id"], &failure["error_code"]),
        (&json!("stand"), &json!(1), &json!("kiln"), &json!("TRANSIENT_ERROR"))
    );
    assert_eq!((&failure["error_message"], &said["attempts_max"]), (&json!("the kiln is cold"), &json!(3)));
    assert!(summary(&said).starts_with("Waits for attempt 2 of 3 in state \"stand\""), "{said}");
}
