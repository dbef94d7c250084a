//! Webhooks of the program itself: over its real wire, and across kills at the worst moments.

use std::{
    collections::HashSet,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use avtomatika_proto::v1::{
    ListWebhooksRequest, RedeliverWebhookRequest, WebhookStatus, job_service_client::JobServiceClient,
};
use serde_json::{Value, json};
use tonic::{Code, Request};

use crate::receiver::{Receiver, Reply};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const TOKEN: &str = "token-of-acme";
const OTHER_TOKEN: &str = "token-of-umbrella";

/// Longest wait for anything that must happen; far beyond what it takes, so that only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Jobs of this one end by themselves.
const BLUEPRINT: &str = "
blueprint: instant
states:
  note: { start: true, pass: { seen: '${initial_data.n}' }, next: completed }
  completed: { end: finished, result: { answer: '${state_history.seen}' } }
";

/// Jobs of this one ask a human.
const ASKING: &str = "
blueprint: asking
states:
  ask:
    start: true
    approval: { message: 'Pay ${initial_data.n}?', deadline: 1h }
    on: { approved: paid, rejected: refused, timeout: refused, failure: refused }
  paid: { end: finished, result: { by: '${result.by}' } }
  refused: { end: failed }
";

/// The program over one data directory, killed without warning when dropped.
struct Orchestrator {
    dir: tempfile::TempDir,
    port: u16,
    process: Child,
}

impl Orchestrator {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Free at this moment, and kept for the restarts.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = spawn(dir.path(), port);
        let started = Self { dir, port, process };
        started.until_it_answers().await;
        started
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    async fn start_again(&mut self) {
        self.process = spawn(self.dir.path(), self.port);
        self.until_it_answers().await;
    }

    async fn until_it_answers(&self) {
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(Instant::now() < deadline, "nobody listens");
            tokio::task::yield_now().await;
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn call(&self, token: &str, request: reqwest::RequestBuilder) -> (u16, Value) {
        let answer = request.header("x-avtomatika-token", token).timeout(PATIENCE).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call(TOKEN, reqwest::Client::new().get(format!("{}{path}", self.url()))).await
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = reqwest::Client::new().post(format!("{}{path}", self.url())).body(body.to_string());
        self.call(TOKEN, request).await
    }

    async fn submit(&self, n: u64, webhook_url: &str) -> String {
        self.submit_to("instant", n, webhook_url).await
    }

    async fn submit_to(&self, blueprint: &str, n: u64, webhook_url: &str) -> String {
        let body = json!({"blueprint": blueprint, "initial_data": {"n": n}, "webhook_url": webhook_url});
        let (status, accepted) = self.post("/api/v1/jobs", &body).await;
        assert_eq!(status, 202, "{accepted}");
        accepted["job_id"].as_str().unwrap().to_owned()
    }

    /// Waits until the only message about the job is so.
    async fn message(&self, job_id: &str, is_so: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, found) = self.get(&format!("/api/jobs/{job_id}/webhooks")).await;
            if is_so(&found["webhooks"][0]) {
                return;
            }
            assert!(Instant::now() < deadline, "{found}");
        }
    }

    /// The messages about a job when none of them is pending any more.
    async fn settled(&self, job_id: &str) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, found) = self.get(&format!("/api/jobs/{job_id}/webhooks")).await;
            assert_eq!(status, 200, "{found}");
            let messages = found["webhooks"].as_array().unwrap().clone();
            if !messages.is_empty() && messages.iter().all(|message| message["status"] != "pending") {
                return messages;
            }
            assert!(Instant::now() < deadline, "{found}");
        }
    }
}

impl Drop for Orchestrator {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(dir: &Path, port: u16) -> Child {
    let blueprints = dir.join("blueprints");
    std::fs::create_dir_all(&blueprints).unwrap();
    std::fs::write(blueprints.join("instant.yaml"), BLUEPRINT).unwrap();
    std::fs::write(blueprints.join("asking.yaml"), ASKING).unwrap();
    Command::new(env!("CARGO_BIN_EXE_avtomatika-orchestrator"))
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .arg("--data-dir")
        .arg(dir.join("data"))
        .arg("--blueprints")
        .arg(blueprints)
        .args(["--client-token", &format!("acme:{TOKEN},umbrella:{OTHER_TOKEN}"), "--worker-token", "w"])
        .arg("--webhooks-allow-private")
        .env("AVTOMATIKA_WEBHOOK_SECRET", SECRET)
        .env("AVTOMATIKA_LOG", "error")
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_delivered_listed_and_delivered_again_on_demand() {
    let (orchestrator, mut receiver) = (Orchestrator::start().await, Receiver::start().await);
    let job_id = orchestrator.submit(42, &receiver.url("/hooks")).await;
    let first = receiver.next().await;
    assert_eq!(first.signatures(), [first.expected_signature(SECRET)]);
    assert_eq!(first.json()["data"]["result"], json!({"answer": 42}), "the result of the end state");
    assert_eq!(orchestrator.get(&format!("/api/jobs/{job_id}")).await.1, first.json()["data"]);
    let messages = orchestrator.settled(&job_id).await;
    assert_eq!(messages.len(), 1);
    let id = messages[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(messages[0]["type"], "job.finished");
    assert_eq!((&messages[0]["status"], &messages[0]["http_status"]), (&json!("delivered"), &json!(200)));

    let nothing = json!({});
    let (status, all) = orchestrator.post(&format!("/api/jobs/{job_id}/webhooks/redeliver"), &nothing).await;
    assert_eq!((status, all), (202, json!({"webhooks": []})), "none has failed");
    let path = format!("/api/jobs/{job_id}/webhooks/{id}/redeliver");
    let (status, again) = orchestrator.post(&path, &nothing).await;
    assert_eq!((status, &again["webhooks"][0]["status"]), (202, &json!("pending")), "{again}");
    let second = receiver.next().await;
    assert_eq!((second.header("webhook-id"), &second.body), (&*id, &first.body));

    for path in [
        format!("/api/jobs/{job_id}/webhooks/msg_1/redeliver"),
        format!("/api/jobs/{job_id}/webhooks/{id}0/redeliver"),
    ] {
        let (status, error) = orchestrator.post(&path, &nothing).await;
        assert_eq!((status, &error["code"]), (404, &json!("WEBHOOK_NOT_FOUND")), "{path}");
    }
    let foreign = reqwest::Client::new().get(format!("{}/api/jobs/{job_id}/webhooks", orchestrator.url()));
    let (status, error) = orchestrator.call(OTHER_TOKEN, foreign).await;
    assert_eq!((status, &error["code"]), (404, &json!("JOB_NOT_FOUND")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_lists_messages_and_has_them_delivered_again() {
    let (orchestrator, mut receiver) = (Orchestrator::start().await, Receiver::start().await);
    receiver.answer(Reply::Status(410));
    let job_id = orchestrator.submit(1, &receiver.url("/")).await;
    receiver.next().await;
    orchestrator.settled(&job_id).await;
    let mut client = JobServiceClient::connect(orchestrator.url()).await.unwrap();
    let list = with_token(TOKEN, ListWebhooksRequest { job_id: job_id.clone() });
    let messages = client.list_webhooks(list).await.unwrap().into_inner().messages;
    assert_eq!((messages.len(), messages[0].status()), (1, WebhookStatus::Failed));
    assert_eq!((messages[0].http_status, messages[0].attempts), (410, 1));
    assert_eq!(messages[0].problem, "the receiver answered 410 Gone");

    let foreign = with_token(OTHER_TOKEN, ListWebhooksRequest { job_id: job_id.clone() });
    assert_eq!(client.list_webhooks(foreign).await.unwrap_err().code(), Code::NotFound);
    let all = RedeliverWebhookRequest { job_id: job_id.clone(), webhook_id: String::new() };
    let again = client.redeliver_webhook(with_token(TOKEN, all)).await.unwrap().into_inner().messages;
    assert_eq!((again.len(), again[0].status()), (1, WebhookStatus::Pending));
    assert_eq!(receiver.next().await.header("webhook-id"), messages[0].id);
    let settled = orchestrator.settled(&job_id).await;
    assert_eq!((&settled[0]["status"], &settled[0]["attempts"]), (&json!("delivered"), &json!(2)));
}

fn with_token<T>(token: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-avtomatika-token", token.parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_a_kill_cuts_short_is_made_again() {
    let (mut orchestrator, mut receiver) = (Orchestrator::start().await, Receiver::start().await);
    receiver.answer(Reply::Never);
    let job_id = orchestrator.submit(1, &receiver.url("/")).await;
    let first = receiver.next().await;
    orchestrator.kill();
    orchestrator.start_again().await;
    let second = receiver.next().await;
    assert_eq!(second.header("webhook-id"), first.header("webhook-id"));
    assert_eq!(second.body, first.body);
    let messages = orchestrator.settled(&job_id).await;
    assert_eq!(messages[0]["status"], "delivered");
    // What was delivered stays so.
    orchestrator.kill();
    orchestrator.start_again().await;
    let last = orchestrator.submit(2, &receiver.url("/")).await;
    assert_eq!(receiver.next().await.json()["data"]["id"], last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redelivery_that_was_promised_outlives_a_kill_whatever_had_become_of_the_message() {
    let (mut orchestrator, mut receiver) = (Orchestrator::start().await, Receiver::start().await);
    // It waits for its next try; it was delivered; it was given up: each time somebody insists, and the process dies before it can tell.
    receiver.answer(Reply::Status(503));
    let job_id = orchestrator.submit(1, &receiver.url("/")).await;
    let first = receiver.next().await;
    orchestrator.message(&job_id, |message| message["attempts"] == 1).await;
    for end in [200, 410, 200] {
        receiver.answer(Reply::Never);
        receiver.answer(Reply::Status(end));
        let path = format!("/api/jobs/{job_id}/webhooks/{}/redeliver", first.header("webhook-id"));
        let (status, promised) = orchestrator.post(&path, &json!({})).await;
        assert_eq!((status, &promised["webhooks"][0]["status"]), (202, &json!("pending")), "{promised}");
        let cut_short = receiver.next().await;
        orchestrator.kill();
        orchestrator.start_again().await;
        let last = receiver.next().await;
        for again in [cut_short, last] {
            assert_eq!((again.header("webhook-id"), &again.body), (first.header("webhook-id"), &first.body));
        }
        let told = if end == 200 { "delivered" } else { "failed" };
        orchestrator.message(&job_id, |message| message["status"] == told).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_kill_meets_every_acknowledged_job_is_told_of() {
    let (mut orchestrator, mut receiver) = (Orchestrator::start().await, Receiver::start().await);
    let mut acknowledged = HashSet::new();
    for cycle in 0..4 {
        for n in 0..30 {
            acknowledged.insert(orchestrator.submit(cycle * 100 + n, &receiver.url("/")).await);
        }
        // Some are delivered, some are under way, some have not been begun.
        orchestrator.kill();
        orchestrator.start_again().await;
    }
    let mut told = HashSet::new();
    while told.len() < acknowledged.len() {
        let request = tokio::time::timeout(PATIENCE, receiver.next()).await.expect("messages go on");
        assert_eq!(request.signatures(), [request.expected_signature(SECRET)]);
        let body = request.json();
        assert_eq!(body["type"], "job.finished");
        told.insert(body["data"]["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(told, acknowledged);
    for job_id in acknowledged.iter().take(20) {
        let messages = orchestrator.settled(job_id).await;
        assert_eq!((messages.len(), &messages[0]["status"]), (1, &json!("delivered")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_told_of_an_approval_can_decide_also_after_a_kill() {
    let (mut orchestrator, mut receiver) = (Orchestrator::start().await, Receiver::start().await);
    receiver.answer(Reply::Never);
    let job_id = orchestrator.submit_to("asking", 7, &receiver.url("/")).await;
    let first = receiver.next().await;
    orchestrator.kill();
    orchestrator.start_again().await;
    let asked = receiver.next().await;
    assert_eq!((asked.header("webhook-id"), &asked.body), (first.header("webhook-id"), &first.body));
    let body = asked.json();
    let approval = &body["data"]["approval"];
    assert_eq!((&body["type"], &body["data"]["id"]), (&json!("job.approval_requested"), &json!(job_id)));
    assert_eq!(approval["message"], "Pay 7?");
    assert_eq!(approval["decisions"], json!(["approved", "rejected"]));
    assert!(approval["deadline"].is_string());

    let decision = json!({"decision": "approved", "token": approval["token"], "by": "alice"});
    let url = format!("{}{}", orchestrator.url(), approval["path"].as_str().unwrap());
    let decided = reqwest::Client::new().post(url).body(decision.to_string()).send().await.unwrap();
    assert_eq!(decided.status(), 200);
    let ended = receiver.next().await.json();
    assert_eq!((&ended["type"], &ended["data"]["id"]), (&json!("job.finished"), &json!(job_id)));
    let messages = orchestrator.settled(&job_id).await;
    let told: Vec<_> = messages.iter().map(|message| (&message["type"], &message["status"])).collect();
    let (asked, ended, delivered) =
        (json!("job.approval_requested"), json!("job.finished"), json!("delivered"));
    assert_eq!(told, [(&asked, &delivered), (&ended, &delivered)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_was_answered_meanwhile_is_not_asked_any_more() {
    let (mut orchestrator, mut receiver) = (Orchestrator::start().await, Receiver::start().await);
    receiver.answer(Reply::Never);
    let job_id = orchestrator.submit_to("asking", 8, &receiver.url("/")).await;
    receiver.next().await;
    let (status, _) = orchestrator.post(&format!("/api/jobs/{job_id}/reject"), &json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(receiver.next().await.json()["type"], "job.failed");
    orchestrator.kill();
    orchestrator.start_again().await;
    let messages = orchestrator.settled(&job_id).await;
    assert_eq!((&messages[0]["status"], &messages[0]["attempts"]), (&json!("obsolete"), &json!(0)));
}

/// What docs/webhooks.md gives to receivers, run as it stands there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_verifications_of_the_documentation_accept_what_is_ours_and_nothing_else() {
    let is_missing = |program: &&&str| Command::new(program).arg("--version").output().is_err();
    if let Some(missing) = ["python3", "bash", "openssl"].iter().find(is_missing) {
        return eprintln!("not verified: this machine has no {missing}");
    }
    let (orchestrator, mut receiver) = (Orchestrator::start().await, Receiver::start().await);
    orchestrator.submit(42, &receiver.url("/")).await;
    let request = receiver.next().await;
    let (id, timestamp) = (request.header("webhook-id"), request.header("webhook-timestamp"));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("body"), &request.body).unwrap();
    let run = |program: &str, script: &str| {
        let mut command = Command::new(program);
        command.current_dir(dir.path()).args(["-c", script]);
        command.envs([("SECRET", SECRET), ("ID", id), ("TIMESTAMP", timestamp)]);
        command.env("SIGNATURE", request.header("webhook-signature"));
        let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let signature = run("bash", &documented("verify.sh"));
    assert_eq!([format!("v1,{signature}")], *request.signatures());
    let checks = "
import os
body = open('body', 'rb').read()
names = {'webhook-id': 'ID', 'webhook-timestamp': 'TIMESTAMP', 'webhook-signature': 'SIGNATURE'}
headers = {header: os.environ[name] for header, name in names.items()}
secret = os.environ['SECRET']
old = dict(headers, **{'webhook-timestamp': str(int(headers['webhook-timestamp']) - 301)})
rotated = dict(headers, **{'webhook-signature': 'v1,AAAA ' + headers['webhook-signature']})
print(verify(secret, headers, body), verify(secret, rotated, body), verify(secret, headers, body + b' '),
      verify(secret, old, body), verify('whsec_AAAA', headers, body))
";
    let verdicts = run("python3", &(documented("verify.py") + checks));
    assert_eq!(verdicts, "True True False False False");
}

/// The block of code after the mark with this name.
fn documented(name: &str) -> String {
    let page = include_str!("../../../docs/webhooks.md");
    let (_, rest) = page.split_once(&format!("<!-- test: {name} -->\n```")).unwrap();
    let (_, code) = rest.split_once('\n').unwrap();
    code.split_once("\n```").unwrap().0.to_owned()
}
