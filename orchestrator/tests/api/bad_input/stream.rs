//! What workers may get wrong: B50 to B60. What names nothing that is known here is passed over, as the protocol says, so that a
//! newer worker can talk to an older orchestrator; what is meant and wrong has its answer, and the stream lives.

use std::collections::HashMap;

use avtomatika_proto::{
    ApiError, ErrorCode, TaskId,
    limits::{LABEL_VALUE_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX, WORKER_SLOTS_MAX, WORKER_TASK_TYPES_MAX},
    v1::{
        self, ResultVerdict, orchestrator_message::Message as Down, worker_message::Message as Up,
        worker_service_client::WorkerServiceClient,
    },
};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::unharmed;
use crate::{
    support::{BOB, Server, WORKER},
    tenants::with_token,
};

/// A worker that says exactly what the test tells it to.
struct Wire(WorkerServiceClient<Channel>);

struct Stream {
    up: mpsc::UnboundedSender<v1::WorkerMessage>,
    down: Streaming<v1::OrchestratorMessage>,
}

fn worker(name: &str) -> v1::RegisterWorkerRequest {
    v1::RegisterWorkerRequest {
        worker_id: name.into(),
        supported_tasks: vec![task_type("process_data")],
        max_concurrent_tasks: 1,
        ..Default::default()
    }
}

fn task_type(name: &str) -> v1::SupportedTask {
    v1::SupportedTask { r#type: name.into(), ..Default::default() }
}

impl Wire {
    async fn to(server: &Server) -> Self {
        Self(WorkerServiceClient::connect(server.url("")).await.unwrap())
    }

    async fn register(&mut self, worker: v1::RegisterWorkerRequest) -> Result<String, Status> {
        self.0.register_worker(with_token(worker, WORKER)).await.map(|answer| answer.into_inner().session_id)
    }

    async fn open(&mut self, first: Option<Up>) -> Result<Stream, Status> {
        let (up, mut said) = mpsc::unbounded_channel();
        up.send(v1::WorkerMessage { message: first }).unwrap();
        let words = futures_util::stream::poll_fn(move |context| said.poll_recv(context));
        let down = self.0.task_stream(with_token(words, WORKER)).await?.into_inner();
        Ok(Stream { up, down })
    }

    async fn join(&mut self, name: &str) -> Stream {
        let session_id = self.register(worker(name)).await.unwrap();
        let mut stream = self.open(Some(hello(&session_id))).await.unwrap();
        assert!(matches!(stream.next().await, Down::Welcome(_)));
        stream
    }
}

fn hello(session_id: &str) -> Up {
    Up::Hello(v1::Hello { session_id: session_id.into(), held_task_ids: vec![] })
}

impl Stream {
    fn say(&self, message: Option<Up>) {
        self.up.send(v1::WorkerMessage { message }).unwrap();
    }

    async fn next(&mut self) -> Down {
        loop {
            let message = self.down.message().await.unwrap().expect("the stream is open");
            match message.message {
                Some(Down::Heartbeat(_)) | None => {}
                Some(message) => return message,
            }
        }
    }

    async fn task(&mut self) -> v1::Task {
        match self.next().await {
            Down::Tasks(tasks) => tasks.tasks.into_iter().next().unwrap(),
            other => panic!("expected a task, got {other:?}"),
        }
    }

    async fn report(&mut self, result: v1::TaskResult) -> (ResultVerdict, String) {
        self.say(Some(Up::TaskResults(v1::TaskResults { results: vec![result] })));
        match self.next().await {
            Down::ResultsAck(acks) => (acks.acks[0].verdict(), acks.acks[0].reason.clone()),
            other => panic!("expected an answer, got {other:?}"),
        }
    }
}

fn success(task: &v1::Task, data: &str) -> v1::TaskResult {
    v1::TaskResult {
        task_id: task.task_id.clone(),
        job_id: task.job_id.clone(),
        outcome: "success".into(),
        data: data.into(),
        error: None,
        checkpoint: String::new(),
    }
}

#[tokio::test]
async fn b50_b53_a_stream_begins_with_hello_and_with_nothing_else() {
    let server = Server::start().await;
    let mut wire = Wire::to(&server).await;
    let session_id = wire.register(worker("w1")).await.unwrap();
    let credits = Up::Credits(v1::Credits { slots: 1 });
    for (number, first, code) in [
        ("B50", None, ErrorCode::ProtocolViolation),
        ("B53", Some(credits), ErrorCode::ProtocolViolation),
        ("B53", Some(Up::Drain(v1::Drain {})), ErrorCode::ProtocolViolation),
        ("B53", Some(hello("")), ErrorCode::SessionUnknown),
        ("B53", Some(hello("\u{0}")), ErrorCode::SessionUnknown),
        ("B53", Some(hello(&"x".repeat(100_000))), ErrorCode::SessionUnknown),
        ("B53", Some(hello(&session_id.to_uppercase())), ErrorCode::SessionUnknown),
    ] {
        let status = wire.open(first).await.err().unwrap_or_else(|| panic!("{number} was let in"));
        assert_eq!(status.code(), Code::FailedPrecondition, "{number}");
        assert_eq!(ApiError::from_status(&status).code, code, "{number}");
    }
    assert!(wire.open(Some(hello(&session_id))).await.is_ok(), "the session has come to no harm");
    unharmed(&server).await;
}

#[tokio::test]
async fn b54_b55_what_a_worker_says_of_itself() {
    let server = Server::start().await;
    let mut wire = Wire::to(&server).await;
    let many = |count: usize, value: &str| -> HashMap<String, String> {
        (0..count).map(|n| (format!("k{n}"), value.to_owned())).collect()
    };
    let label = |key: &str, value: &str| HashMap::from([(key.to_owned(), value.to_owned())]);
    let base = || worker("w");
    let types = |names: Vec<String>| names.iter().map(|name| task_type(name)).collect::<Vec<_>>();
    type Said = v1::RegisterWorkerRequest;
    for (number, said) in [
        ("B47", Said::default()),
        ("B54", Said { worker_id: "in-process".into(), ..base() }),
        ("B55", Said { max_concurrent_tasks: 0, ..base() }),
        ("B55", Said { max_concurrent_tasks: 1 << 31, ..base() }),
        ("B55", Said { max_concurrent_tasks: WORKER_SLOTS_MAX + 1, ..base() }),
        ("B55", Said { supported_tasks: vec![], ..base() }),
        ("B55", Said { supported_tasks: vec![task_type("a"); WORKER_TASK_TYPES_MAX + 1], ..base() }),
        ("B55", Said { supported_tasks: vec![task_type("")], ..base() }),
        ("B55", Said { supported_tasks: types(vec!["x".repeat(NAME_BYTES_MAX + 1)]), ..base() }),
        ("B55", Said { supported_tasks: types(vec!["a\u{0}".into()]), ..base() }),
        ("B55", Said { supported_tasks: types(vec!["a\u{202e}b".into()]), ..base() }),
        ("B55", Said { supported_tasks: types(vec!["a\u{200b}".into()]), ..base() }),
        ("B55", Said { supported_tasks: types(vec!["code:a".into()]), ..base() }),
        ("B55", Said { worker_id: "a\u{0}".into(), ..base() }),
        ("B55", Said { worker_id: "\u{202e}w".into(), ..base() }),
        ("B55", Said { worker_id: "x".repeat(NAME_BYTES_MAX + 1), ..base() }),
        ("B55", Said { worker_type: "a\u{1b}[31m".into(), ..base() }),
        ("B55", Said { labels: many(10_000, "v"), ..base() }),
        ("B55", Said { labels: many(LABELS_MAX + 1, "v"), ..base() }),
        ("B55", Said { labels: label("k", &"v".repeat(1 << 20)), ..base() }),
        ("B55", Said { labels: label("k", "a\u{0}b"), ..base() }),
        ("B55", Said { labels: label("k\n", "v"), ..base() }),
        ("B55", Said { labels: label("k", "a\u{1b}[31m"), ..base() }),
        ("B55", Said { labels: label("", "v"), ..base() }),
        ("B55", Said { installed_software: label("k", &"v".repeat(LABEL_VALUE_BYTES_MAX + 1)), ..base() }),
        ("B55", Said { installed_models: label("k\u{7}", "v"), ..base() }),
        ("B55", Said { hostname: "a\u{1b}[31m".into(), ..base() }),
        ("B55", Said { sdk_version: "1\n2".into(), ..base() }),
        ("B55", Said { resources: HashMap::from([("gpu".to_owned(), f64::NAN)]), ..base() }),
        ("B55", Said { resources: HashMap::from([("gpu\r".to_owned(), 1.0)]), ..base() }),
        (
            "B55",
            Said {
                supported_tasks: vec![v1::SupportedTask { cost: Some(f64::INFINITY), ..task_type("a") }],
                ..base()
            },
        ),
    ] {
        let what = format!("{number} {:.200?}", said);
        let status = wire.register(said).await.err().unwrap_or_else(|| panic!("registered: {what}"));
        assert_eq!(ApiError::from_status(&status).code, ErrorCode::InvalidArgument, "{what}");
        assert!(
            !status.message().chars().any(char::is_control) && status.message().len() < 500,
            "{status:?}"
        );
    }
    assert_eq!(server.get("/api/workers").await.body, "[]");
    // The same type twice is that type.
    let twice = v1::RegisterWorkerRequest { supported_tasks: vec![task_type("a"), task_type("a")], ..base() };
    let session_id = wire.register(twice).await.unwrap();
    let _stream = wire.open(Some(hello(&session_id))).await.unwrap();
    assert_eq!(server.get("/api/workers").await.json()[0]["supported_tasks"], serde_json::json!(["a"]));
    unharmed(&server).await;
}

#[tokio::test]
async fn b50_b53_b57_b58_b60_what_is_said_of_tasks() {
    let server = Server::start().await;
    let job = server.by(BOB, "POST", "/api/jobs/test", "{}").await.text("job_id");
    let mut wire = Wire::to(&server).await;
    let (mut holder, mut other) = (wire.join("w1").await, wire.join("w2").await);
    holder.say(Some(Up::Credits(v1::Credits { slots: 1 })));
    let task = holder.task().await;
    let invented = TaskId::from_random(7).to_string();

    // Said and passed over: nothing of it is answered, and the stream lives.
    let progress = |task_id: &str, fraction: f64| {
        Some(Up::TaskProgress(v1::TaskProgress {
            task_id: task_id.into(),
            fraction,
            message: "x".repeat(10_000),
            // No object, hence no checkpoint.
            checkpoint: "[1".into(),
        }))
    };
    let nothing = v1::TaskResult { task_id: "no id".into(), ..success(&task, "{}") };
    for (_number, said) in [
        ("B50", None),
        ("B53", Some(hello("again"))),
        ("B60", Some(Up::Heartbeat(v1::Heartbeat::default()))),
        ("B60", progress("no id", 0.5)),
        ("B60", progress(&invented, f64::NAN)),
        ("B60", progress(&task.task_id, f64::NEG_INFINITY)),
        ("B57", Some(Up::TaskResults(v1::TaskResults { results: vec![nothing] }))),
        ("B57", Some(Up::TaskResults(v1::TaskResults::default()))),
        (
            "B60",
            Some(Up::TasksAccepted(v1::TasksAccepted { task_ids: vec![invented.clone(), "no id".into()] })),
        ),
    ] {
        holder.say(said);
    }
    other.say(progress(&task.task_id, 0.9));

    let stale = v1::TaskResult { task_id: invented.clone(), ..success(&task, "{}") };
    let unknown = v1::TaskResult { job_id: invented, ..stale.clone() };
    let nameless = v1::TaskResult { job_id: String::new(), ..stale.clone() };
    let refused = |reason: &str| (ResultVerdict::Refused, reason.to_owned());
    assert_eq!(holder.report(stale).await, refused("stale_task"), "B57");
    assert_eq!(holder.report(unknown).await, refused("unknown_job"), "B57");
    assert_eq!(holder.report(nameless).await, refused("unknown_job"), "B57");
    assert_eq!(other.report(success(&task, "{}")).await, refused("foreign_session"), "B57");
    let shown = server.by(BOB, "GET", &format!("/api/jobs/{job}"), "").await.json();
    assert_eq!(
        shown["current_task"]["progress"]["fraction"], 0.0,
        "B60: of its holder, within 0 and 1: {shown}"
    );

    assert_eq!(holder.report(success(&task, "{\"a\":1}")).await.0, ResultVerdict::Applied);
    for data in ["{\"a\":1}", "{\"a\":2}"] {
        assert_eq!(holder.report(success(&task, data)).await, refused("duplicate"), "B58");
    }
    let shown = server.by(BOB, "GET", &format!("/api/jobs/{job}"), "").await.json();
    assert_eq!(
        (&shown["status"], &shown["state_history"]),
        (&"finished".into(), &serde_json::json!({"a": 1}))
    );
}
