//! Workers that break the rules of the task stream, or send what cannot be used: each gets its named answer, and nothing
//! changes that should not. These talk the wire protocol by hand.

use avtomatika_proto::{
    ApiError, ErrorCode, TaskId,
    limits::{CHECKPOINT_BYTES_MAX, PAYLOAD_BYTES_MAX},
    v1::{
        self, JobStatus, ResultVerdict, SubmitJobRequest, orchestrator_message::Message as Down,
        worker_message::Message as Up, worker_service_client::WorkerServiceClient,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, metadata::MetadataValue, transport::Channel};

use crate::stack::{CLIENT_TOKEN, Client, SECOND_WORKER_TOKEN, Stack, WORKER_TOKEN, in_time};

/// A worker that says exactly what the test tells it to.
struct Wire {
    client: WorkerServiceClient<Channel>,
    token: &'static str,
}

/// An open stream, welcome or not.
struct Stream {
    up: mpsc::Sender<v1::WorkerMessage>,
    down: Streaming<v1::OrchestratorMessage>,
}

impl Wire {
    async fn new(stack: &Stack, token: &'static str) -> Self {
        let channel = Channel::from_shared(stack.url.clone()).unwrap().connect().await.unwrap();
        let client = WorkerServiceClient::new(channel).max_encoding_message_size(16 * 1024 * 1024);
        Self { client, token }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("x-worker-token", MetadataValue::from_static(self.token));
        request
    }

    async fn register(
        &mut self,
        request: v1::RegisterWorkerRequest,
    ) -> Result<v1::RegisterWorkerResponse, Status> {
        let request = self.request(request);
        in_time(self.client.register_worker(request)).await.map(tonic::Response::into_inner)
    }

    async fn open(&mut self, first: Up) -> Result<Stream, Status> {
        let (up, messages) = mpsc::channel(64);
        up.send(v1::WorkerMessage { message: Some(first) }).await.unwrap();
        let request = self.request(ReceiverStream::new(messages));
        let down = in_time(self.client.task_stream(request)).await?.into_inner();
        Ok(Stream { up, down })
    }

    /// Registers and opens a stream with one slot.
    async fn join(&mut self, name: &str) -> Stream {
        let registered = self.register(worker(name)).await.unwrap();
        let mut stream = self.open(hello(&registered.session_id)).await.unwrap();
        assert!(matches!(stream.next().await, Down::Welcome(_)));
        stream.say(Up::Credits(v1::Credits { slots: 1 })).await;
        stream
    }
}

impl Stream {
    async fn say(&self, message: Up) {
        self.up.send(v1::WorkerMessage { message: Some(message) }).await.unwrap();
    }

    /// The next message that is no heartbeat.
    async fn next(&mut self) -> Down {
        loop {
            let message = in_time(self.down.message()).await.unwrap().expect("the stream is open");
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

    /// Reports a result and returns what became of it.
    async fn report(&mut self, result: v1::TaskResult) -> (ResultVerdict, String) {
        self.say(Up::TaskResults(v1::TaskResults { results: vec![result] })).await;
        match self.next().await {
            Down::ResultsAck(acks) => (acks.acks[0].verdict(), acks.acks[0].reason.clone()),
            other => panic!("expected an answer, got {other:?}"),
        }
    }
}

fn worker(name: &str) -> v1::RegisterWorkerRequest {
    v1::RegisterWorkerRequest {
        worker_id: name.into(),
        supported_tasks: vec![v1::SupportedTask { r#type: "slow".into(), ..Default::default() }],
        max_concurrent_tasks: 1,
        ..Default::default()
    }
}

fn hello(session_id: &str) -> Up {
    Up::Hello(v1::Hello { session_id: session_id.into(), held_task_ids: vec![] })
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

async fn submit(stack: &Stack) -> (Client, String) {
    let mut client = stack.grpc().await;
    let request = SubmitJobRequest { blueprint: "slow".into(), ..Default::default() };
    let job_id = in_time(client.jobs.submit_job(request)).await.unwrap().into_inner().job_id;
    (client, job_id)
}

#[tokio::test]
async fn a_worker_needs_a_workers_token() {
    let stack = Stack::start().await;
    for token in ["", "wrong", CLIENT_TOKEN] {
        let mut wire = Wire::new(&stack, token).await;
        let refused = wire.register(worker("w1")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token:?}");
        let refused = wire.open(hello("x")).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token:?}");
    }
}

#[tokio::test]
async fn a_worker_is_told_as_soon_as_it_is_there_what_so_many_are_asked_for() {
    let stack = Stack::start().await;
    let mut stream = Wire::new(&stack, WORKER_TOKEN).await.join("w1").await;
    let first = in_time(stream.down.message()).await.unwrap().and_then(|message| message.message);
    let zero = Some(prost_types::Duration::default());
    let manners = v1::Heartbeat { reconnect_within: zero, quiet_for: zero, tasks_received: 0 };
    assert_eq!(first, Some(Down::Heartbeat(manners)));
}

#[tokio::test]
async fn a_stream_begins_with_the_hello_of_its_own_session() {
    let stack = Stack::start().await;
    let mut wire = Wire::new(&stack, WORKER_TOKEN).await;
    let session_id = wire.register(worker("w1")).await.unwrap().session_id;
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    for (first, code) in [
        (Up::Heartbeat(v1::Heartbeat::default()), ErrorCode::ProtocolViolation),
        (Up::Credits(v1::Credits { slots: 5 }), ErrorCode::ProtocolViolation),
        (hello(""), ErrorCode::SessionUnknown),
        (hello("no id"), ErrorCode::SessionUnknown),
        (hello(unknown), ErrorCode::SessionUnknown),
    ] {
        let refused = wire.open(first.clone()).await.err().unwrap();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{first:?}");
        let error = ApiError::from_status(&refused);
        assert_eq!(error.code, code, "{first:?}");
        assert!(!error.hint.is_empty());
    }
    let mut other = Wire::new(&stack, SECOND_WORKER_TOKEN).await;
    let refused = other.open(hello(&session_id)).await.err().unwrap();
    assert_eq!(ApiError::from_status(&refused).code, ErrorCode::SessionUnknown, "another worker's session");
    let refused = other.register(worker("w1")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "another worker's name");
    assert!(wire.open(hello(&session_id)).await.is_ok(), "the session itself has come to no harm");
}

#[tokio::test]
async fn what_a_worker_says_of_itself_is_checked() {
    let stack = Stack::start().await;
    let mut wire = Wire::new(&stack, WORKER_TOKEN).await;
    let task = |name: &str| v1::SupportedTask { r#type: name.into(), ..Default::default() };
    let long = "x".repeat(200);
    let cases: [(&str, v1::RegisterWorkerRequest); 10] = [
        ("no task types", v1::RegisterWorkerRequest { supported_tasks: vec![], ..worker("w") }),
        (
            "a task type with a space",
            v1::RegisterWorkerRequest { supported_tasks: vec![task("a b")], ..worker("w") },
        ),
        (
            "too many task types",
            v1::RegisterWorkerRequest { supported_tasks: vec![task("a"); 300], ..worker("w") },
        ),
        (
            "a function of the orchestrator's own process",
            v1::RegisterWorkerRequest { supported_tasks: vec![task("a"), task("code:b")], ..worker("w") },
        ),
        (
            "the name of those functions",
            v1::RegisterWorkerRequest { worker_id: "in-process".into(), ..worker("w") },
        ),
        ("no slots", v1::RegisterWorkerRequest { max_concurrent_tasks: 0, ..worker("w") }),
        ("too many slots", v1::RegisterWorkerRequest { max_concurrent_tasks: u32::MAX, ..worker("w") }),
        ("a long name", v1::RegisterWorkerRequest { worker_id: long, ..worker("w") }),
        ("a name with a line break", v1::RegisterWorkerRequest { worker_id: "a\nb".into(), ..worker("w") }),
        (
            "a quantity that is no number",
            v1::RegisterWorkerRequest { resources: [("gpu".to_owned(), f64::NAN)].into(), ..worker("w") },
        ),
    ];
    for (what, request) in cases {
        let refused = wire.register(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{what}");
    }
    assert_eq!(stack.get("/api/workers").await.1, serde_json::json!([]));
}

#[tokio::test]
async fn results_that_are_stale_unknown_foreign_or_repeated_change_nothing() {
    let stack = Stack::start().await;
    let (mut client, job_id) = submit(&stack).await;
    let mut wire = Wire::new(&stack, WORKER_TOKEN).await;
    let mut holder = wire.join("w1").await;
    let task = holder.task().await;
    let mut thief = wire.join("w2").await;

    let invented = TaskId::from_random(7).to_string();
    let stale = v1::TaskResult { task_id: invented.clone(), ..success(&task, "{}") };
    let unknown = v1::TaskResult { job_id: invented, ..stale.clone() };
    let nonsense = v1::TaskResult { job_id: "no id".into(), ..stale.clone() };
    for (result, reason) in [(stale, "stale_task"), (unknown, "unknown_job"), (nonsense, "unknown_job")] {
        assert_eq!(holder.report(result).await, (ResultVerdict::Refused, reason.to_owned()));
    }
    let foreign = thief.report(success(&task, r#"{"mine":true}"#)).await;
    assert_eq!(foreign, (ResultVerdict::Refused, "foreign_session".to_owned()));
    client.until(&job_id, |job| job.status() == JobStatus::Running).await;

    assert_eq!(holder.report(success(&task, r#"{"a":1}"#)).await.0, ResultVerdict::Applied);
    let again = holder.report(success(&task, r#"{"a":2}"#)).await;
    assert_eq!(again, (ResultVerdict::Refused, "duplicate".to_owned()));
    let job = client.until(&job_id, |job| job.status() == JobStatus::Finished).await;
    assert_eq!(job.state_history, r#"{"a":1}"#);
    let metrics = reqwest::get(format!("{}/_public/metrics", stack.url)).await.unwrap().text().await.unwrap();
    for counted in ["foreign_session", "stale_task", "duplicate", "unknown_job"] {
        assert!(metrics.contains(&format!("reason=\"{counted}\"")), "{counted} is counted");
    }
}

#[tokio::test]
async fn f28_the_late_result_of_a_lost_worker_is_refused_by_name() {
    let stack = Stack::start().await;
    let (mut client, job_id) = submit(&stack).await;
    let mut wire = Wire::new(&stack, WORKER_TOKEN).await;
    let mut lost = wire.join("w1").await;
    let late = lost.task().await;
    drop(lost);
    let mut heir = wire.join("w2").await;
    let task = heir.task().await;
    assert_ne!(task.task_id, late.task_id, "every attempt has its own");
    let mut back = wire.join("w1").await;
    let refused = |reason: &str| (ResultVerdict::Refused, reason.to_owned());
    assert_eq!(back.report(success(&late, "{}")).await, refused("stale_task"));
    assert_eq!(heir.report(success(&task, r#"{"by":"w2"}"#)).await.0, ResultVerdict::Applied);
    assert_eq!(back.report(success(&late, "{}")).await, refused("job_terminal"));
    let job = client.until(&job_id, |job| job.status() == JobStatus::Finished).await;
    assert_eq!(job.state_history, r#"{"by":"w2"}"#);
}

#[tokio::test]
async fn a_result_that_cannot_be_used_fails_its_attempt_and_the_stream_lives() {
    let stack = Stack::start().await;
    let mut wire = Wire::new(&stack, WORKER_TOKEN).await;
    let mut stream = wire.join("w1").await;
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES_MAX));
    let unusable = [
        ("success", "[]", "not usable"),
        ("success", "{\"a\":", "not usable"),
        ("success", "{\"a\":1,\"a\":2}", "stands twice"),
        ("success", large.as_str(), "the limit is"),
        ("", "{}", "outcome"),
        ("two words", "{}", "outcome"),
    ];
    for (outcome, data, reason) in unusable {
        let (mut client, job_id) = submit(&stack).await;
        let task = stream.task().await;
        let result = v1::TaskResult { outcome: outcome.into(), ..success(&task, data) };
        assert_eq!(stream.report(result).await.0, ResultVerdict::Applied, "{reason}");
        let job = client.until(&job_id, |job| job.finished_at.is_some()).await;
        assert_eq!((job.status(), job.error_code.as_str()), (JobStatus::Quarantined, "INVALID_RESULT_ERROR"));
        assert!(job.error_message.contains(reason), "{}", job.error_message);
    }
}

#[tokio::test]
async fn a_checkpoint_that_cannot_be_used_is_not_taken_and_the_last_good_one_stays() {
    let stack = Stack::start().await;
    submit(&stack).await;
    let mut wire = Wire::new(&stack, WORKER_TOKEN).await;
    let mut stream = wire.join("w1").await;
    let task = stream.task().await;
    assert_eq!(task.checkpoint, "");
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(CHECKPOINT_BYTES_MAX));
    let said = |checkpoint: &str| {
        let (task_id, checkpoint) = (task.task_id.clone(), checkpoint.to_owned());
        Up::TaskProgress(v1::TaskProgress { task_id, fraction: 0.5, message: "half".into(), checkpoint })
    };
    for checkpoint in [r#"{"page":7}"#, "", "[]", r#"{"page":"#, "7", &large] {
        stream.say(said(checkpoint)).await;
    }
    let failure = v1::TaskResult {
        outcome: "failure".into(),
        error: Some(v1::TaskError { code: "WORKER_STOPPED".into(), message: "stopping".into() }),
        checkpoint: large.clone(),
        ..success(&task, "")
    };
    // Given back by a worker that leaves, so that the next attempt is ready at once.
    stream.say(Up::Drain(v1::Drain {})).await;
    assert_eq!(stream.report(failure.clone()).await.0, ResultVerdict::Applied);
    let mut stream = wire.join("w2").await;
    let again = stream.task().await;
    assert_eq!((again.job_id.as_str(), again.checkpoint.as_str()), (task.job_id.as_str(), r#"{"page":7}"#));

    // What stands in the result is the last word.
    stream.say(Up::Drain(v1::Drain {})).await;
    let failure =
        v1::TaskResult { task_id: again.task_id.clone(), checkpoint: r#"{"page":8}"#.into(), ..failure };
    assert_eq!(stream.report(failure).await.0, ResultVerdict::Applied);
    assert_eq!(wire.join("w3").await.task().await.checkpoint, r#"{"page":8}"#);
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_stream_and_the_task_is_ready_for_others() {
    let stack = Stack::start().await;
    let (_client, _job_id) = submit(&stack).await;
    let mut wire = Wire::new(&stack, WORKER_TOKEN).await;
    let mut stream = wire.join("w1").await;
    let task = stream.task().await;
    let huge = format!("{{\"a\":\"{}\"}}", "x".repeat(8 * 1024 * 1024));
    stream.say(Up::TaskResults(v1::TaskResults { results: vec![success(&task, &huge)] })).await;
    let mut other = wire.join("w2").await;
    assert_eq!(other.task().await.job_id, task.job_id);
}
