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
        let body = json!({"blueprint": "instant", "initial_data": {"n": n}, "webhook_url": webhook_url});
        let (status, accepted) = self.post("/api/v1/jobs", &body).await;
        assert_eq!(status, 202, "{accepted}");
        accepted["job_id"].as_str().unwrap().to_owned()
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
