//! An orchestrator that does what the test tells it: a real gRPC server whose every answer the test gives by hand.

// Every test file uses its part.
#![allow(dead_code)]

use std::{fmt::Debug, fs, path::Path, sync::Arc, time::Duration};

use avtomatika_proto::v1::{
    CancelTask, CancelTasks, Goodbye, GoodbyeReason, Hello, OrchestratorMessage, RegisterWorkerRequest,
    RegisterWorkerResponse, ResultAck, ResultVerdict, ResultsAck, Task, TaskResult, Tasks, Welcome,
    WorkerMessage,
    orchestrator_message::Message as Down,
    worker_message::Message as Up,
    worker_service_server::{WorkerService, WorkerServiceServer},
};
use avtomatika_worker::{Worker, WorkerBuilder, WorkerError, WorkerHandle};
use rustix::process::{Pid, test_kill_process};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// For anything that must happen. Long, because only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What `future` brings, which must come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// Asks `condition` until it holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

type Answer<T> = oneshot::Sender<Result<T, Status>>;

/// A worker's call of RegisterWorker, waiting for the test's answer.
pub struct Registration {
    pub request: RegisterWorkerRequest,
    pub authorization: String,
    answer: Answer<RegisterWorkerResponse>,
}

impl Registration {
    pub fn accept(self, session_id: &str) {
        self.accept_with_keepalive(session_id, 1.0, 60.0);
    }

    /// A worker without a name is given one.
    pub fn accept_with_keepalive(self, session_id: &str, interval_s: f64, timeout_s: f64) {
        let RegisterWorkerRequest { worker_id, worker_type, .. } = self.request;
        let worker_id = if worker_id.is_empty() { format!("{worker_type}-1a2b3c4d") } else { worker_id };
        let span = |seconds| Duration::from_secs_f64(seconds).try_into().ok();
        let response = RegisterWorkerResponse {
            session_id: session_id.into(),
            worker_id,
            keepalive_interval: span(interval_s),
            keepalive_timeout: span(timeout_s),
            ..RegisterWorkerResponse::default()
        };
        let _ = self.answer.send(Ok(response));
    }

    pub fn refuse(self, status: Status) {
        let _ = self.answer.send(Err(status));
    }
}

/// A worker's call of TaskStream, waiting for the test's answer.
pub struct Call {
    up: Streaming<WorkerMessage>,
    answer: Answer<mpsc::Receiver<Result<OrchestratorMessage, Status>>>,
}

impl Call {
    pub fn refuse(self, status: Status) {
        let _ = self.answer.send(Err(status));
    }

    /// Opens the stream and reads Hello.
    pub async fn open(mut self) -> (Stream, Hello) {
        let (down, queue) = mpsc::channel(16);
        let _ = self.answer.send(Ok(queue));
        let hello = match soon("Hello", self.up.message()).await {
            Ok(Some(WorkerMessage { message: Some(Up::Hello(hello)) })) => hello,
            other => panic!("the first message must be Hello, not {other:?}"),
        };
        (Stream { up: self.up, down }, hello)
    }
}

/// An open stream, seen from the orchestrator. Dropping it breaks the stream.
pub struct Stream {
    up: Streaming<WorkerMessage>,
    down: mpsc::Sender<Result<OrchestratorMessage, Status>>,
}

impl Stream {
    pub async fn say(&self, message: Down) {
        self.down.send(Ok(OrchestratorMessage { message: Some(message) })).await.expect("the worker listens");
    }

    pub async fn welcome(&self, adopted: &[&str]) {
        let adopted_task_ids = adopted.iter().map(|&id| id.to_owned()).collect();
        self.say(Down::Welcome(Welcome { adopted_task_ids, ..Welcome::default() })).await;
    }

    pub async fn send(&self, task: Task) {
        self.say(Down::Tasks(Tasks { tasks: vec![task] })).await;
    }

    pub async fn cancel(&self, task_id: &str) {
        let grace = Some(prost_types::Duration { seconds: 30, nanos: 0 });
        let order = CancelTask { task_id: task_id.into(), reason: "job cancelled".into(), grace };
        self.say(Down::CancelTasks(CancelTasks { tasks: vec![order] })).await;
    }

    pub async fn acknowledge(&self, task_id: &str, verdict: ResultVerdict) {
        let ack = ResultAck { task_id: task_id.into(), verdict: verdict.into(), reason: String::new() };
        self.say(Down::ResultsAck(ResultsAck { acks: vec![ack] })).await;
    }

    pub async fn goodbye(&self, reason: GoodbyeReason) {
        self.say(Down::Goodbye(Goodbye { reason: reason.into(), message: "as the test wills".into() })).await;
    }

    /// The next message. `None` when the worker has ended the stream.
    pub async fn hear(&mut self) -> Option<Up> {
        let message = soon("a message", self.up.message()).await.expect("the stream is whole")?;
        Some(message.message.expect("the worker says nothing empty"))
    }

    /// The first message that `pick` takes; others are passed over.
    pub async fn hear_a<T>(&mut self, what: &str, mut pick: impl FnMut(Up) -> Option<T>) -> T {
        soon(what, async {
            loop {
                let message = self.hear().await.unwrap_or_else(|| panic!("the stream ended without {what}"));
                if let Some(picked) = pick(message) {
                    return picked;
                }
            }
        })
        .await
    }

    pub async fn credits(&mut self) -> u32 {
        self.hear_a("credits", |message| match message {
            Up::Credits(credits) => Some(credits.slots),
            _ => None,
        })
        .await
    }

    pub async fn accepted(&mut self) -> Vec<String> {
        self.hear_a("accepted tasks", |message| match message {
            Up::TasksAccepted(accepted) => Some(accepted.task_ids),
            _ => None,
        })
        .await
    }

    /// The next results, which must be exactly one.
    pub async fn result(&mut self) -> TaskResult {
        let mut results = self
            .hear_a("results", |message| match message {
                Up::TaskResults(results) => Some(results.results),
                _ => None,
            })
            .await;
        assert_eq!(results.len(), 1, "{results:?}");
        results.remove(0)
    }
}

struct Script {
    registrations: mpsc::Sender<Registration>,
    calls: mpsc::Sender<Call>,
}

fn test_over<E: Debug>(_: E) -> Status {
    Status::unavailable("the test is over")
}

#[tonic::async_trait]
impl WorkerService for Script {
    async fn register_worker(
        &self,
        request: Request<RegisterWorkerRequest>,
    ) -> Result<Response<RegisterWorkerResponse>, Status> {
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let authorization = authorization.unwrap_or_default().to_owned();
        let (answer, answered) = oneshot::channel();
        let registration = Registration { request: request.into_inner(), authorization, answer };
        self.registrations.send(registration).await.map_err(|_| test_over(()))?;
        answered.await.map_err(test_over)?.map(Response::new)
    }

    type TaskStreamStream = ReceiverStream<Result<OrchestratorMessage, Status>>;

    async fn task_stream(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::TaskStreamStream>, Status> {
        let (answer, answered) = oneshot::channel();
        self.calls.send(Call { up: request.into_inner(), answer }).await.map_err(|_| test_over(()))?;
        Ok(Response::new(ReceiverStream::new(answered.await.map_err(test_over)??)))
    }
}

/// The server.
pub struct Orchestrator {
    pub url: String,
    registrations: mpsc::Receiver<Registration>,
    calls: mpsc::Receiver<Call>,
}

impl Orchestrator {
    pub async fn start() -> Self {
        Self::listen_on(TcpListener::bind("127.0.0.1:0").await.expect("a free port")).await
    }

    pub async fn listen_on(listener: TcpListener) -> Self {
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (registrations, registered) = mpsc::channel(4);
        let (calls, called) = mpsc::channel(4);
        let service = WorkerServiceServer::new(Script { registrations, calls });
        let server =
            Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        Self { url, registrations: registered, calls: called }
    }

    pub async fn registration(&mut self) -> Registration {
        soon("a registration", self.registrations.recv()).await.expect("the server runs")
    }

    pub async fn call(&mut self) -> Call {
        soon("a stream", self.calls.recv()).await.expect("the server runs")
    }

    /// The usual beginning: accepts the worker, welcomes its stream, hears its credits.
    pub async fn welcome_worker(&mut self, session_id: &str) -> Stream {
        self.registration().await.accept(session_id);
        let (mut stream, hello) = self.call().await.open().await;
        assert_eq!(hello.session_id, session_id);
        assert!(hello.held_task_ids.is_empty(), "{hello:?}");
        stream.welcome(&[]).await;
        assert!(stream.credits().await > 0);
        stream
    }

    /// No registration and no stream has come that the test has not seen.
    pub fn assert_quiet(&mut self) {
        assert!(self.registrations.try_recv().is_err(), "an unexpected registration");
        assert!(self.calls.try_recv().is_err(), "an unexpected stream");
    }

    pub fn worker(&self) -> WorkerBuilder {
        Worker::builder(&self.url).token("test-token").worker_id("w1").slots(5)
    }
}

/// A worker that runs in the background.
pub struct Running {
    pub handle: WorkerHandle,
    shutdown: CancellationToken,
    ended: JoinHandle<Result<(), WorkerError>>,
}

impl Running {
    pub fn start(builder: WorkerBuilder) -> Self {
        let worker = builder.build().expect("the worker is well described");
        let shutdown = CancellationToken::new();
        let handle = worker.handle();
        let ended = tokio::spawn(worker.run_until(shutdown.clone().cancelled_owned()));
        Self { handle, shutdown, ended }
    }

    /// Asks the worker to stop.
    pub fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// Drops the worker's future without asking.
    pub fn abandon(&self) {
        self.ended.abort();
    }

    /// How the worker ended.
    pub async fn end(self) -> Result<(), WorkerError> {
        soon("the worker's end", self.ended).await.expect("the worker does not panic")
    }
}

/// A task of type `work` without a timeout.
pub fn task(task_id: &str) -> Task {
    Task {
        task_id: task_id.into(),
        job_id: format!("job-of-{task_id}"),
        r#type: "work".into(),
        params: "{}".into(),
        attempt: 1,
        ..Task::default()
    }
}

/// A signal that handlers wait for and tests give.
pub fn gate() -> (Arc<tokio::sync::Semaphore>, Arc<tokio::sync::Semaphore>) {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    (Arc::clone(&gate), gate)
}

/// The process id that a command wrote, once it has.
pub async fn pid_in(file: &Path) -> Pid {
    let read = || fs::read_to_string(file).ok()?.strip_suffix('\n')?.parse().ok();
    until("the command's note", || read().is_some()).await;
    read().and_then(Pid::from_raw).expect("a process id")
}

/// Waits until the process has ended; one that its parent has not fetched yet counts as ended.
pub async fn gone(pid: Pid) {
    let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let zombie = || fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z "));
    until("the process to be gone", || test_kill_process(pid).is_err() || zombie()).await;
}
