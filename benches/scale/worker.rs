//! A worker that is nothing but the protocol: it answers each task at once. Ten thousand of them fit one process.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use avtomatika_proto::{
    limits::KEEPALIVE_INTERVAL,
    outcome,
    v1::{
        Credits, Heartbeat, Hello, RegisterWorkerRequest, ResultVerdict, SupportedTask, Task, TaskResult,
        TaskResults, WorkerMessage, orchestrator_message::Message as Down, worker_message::Message as Up,
        worker_service_client::WorkerServiceClient,
    },
};
use futures_util::stream;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::sleep_until,
};
use tonic::{
    Request, Status, Streaming,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::{
    load,
    process::{NAME, WORKER_TOKEN},
    report::progress,
};

/// Messages that may wait for the stream up: the results of every message down, with room.
const UP_MAX: usize = 256;

/// Connections that are opened side by side.
const CONNECTING_MAX: usize = 32;

/// What the workers of one scenario have seen, together.
pub struct Tally {
    /// How many results are durable; or why a worker's stream has ended.
    done: watch::Sender<Result<u64, String>>,
    last_arrival: Mutex<Instant>,
    pauses: Mutex<Pauses>,
    /// One for each job that has ended.
    pub room: Semaphore,
}

/// How long there was nothing new that was durable.
struct Pauses {
    since: Instant,
    longest: Duration,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            done: watch::Sender::new(Ok(0)),
            last_arrival: Mutex::new(Instant::now()),
            pauses: Mutex::new(Pauses { since: Instant::now(), longest: Duration::ZERO }),
            room: Semaphore::new(0),
        })
    }

    /// Results that are durable.
    pub fn done(&self) -> u64 {
        self.done.borrow().clone().unwrap_or_else(|reason| panic!("{reason}"))
    }

    /// Waits until so many are.
    pub async fn until_done(&self, target: u64) {
        let mut done = self.done.subscribe();
        // The sender lives as long as this.
        let _ = done.wait_for(|done| done.as_ref().is_ok_and(|&done| done >= target) || done.is_err()).await;
        self.done();
    }

    /// When the last task arrived.
    pub fn last_arrival(&self) -> Instant {
        *self.last_arrival.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The longest time between results that became durable, since the last call.
    pub fn longest_pause(&self) -> Duration {
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.end();
        std::mem::take(&mut pauses.longest)
    }

    fn arrived(&self) {
        *self.last_arrival.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn applied(&self, results: usize) {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner).end();
        self.room.add_permits(results);
        self.done.send_modify(|done| {
            if let Ok(done) = done {
                *done += results as u64;
            }
        });
    }

    fn lost(&self, reason: String) {
        self.done.send_modify(|done| *done = Err(reason));
    }
}

impl Pauses {
    fn end(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.since);
        self.since = now;
    }
}

/// Connected workers. They end with this.
pub struct Workers(JoinSet<()>);

impl Workers {
    /// Connects so many workers, each over a connection of its own, and returns when each has been welcomed.
    pub async fn connect(url: &str, workers: u64, slots: u32, tally: &Arc<Tally>) -> Self {
        let (mut connecting, mut connected) = (JoinSet::new(), JoinSet::new());
        for number in 0..workers {
            if connecting.len() == CONNECTING_MAX {
                serve_next(&mut connecting, &mut connected, tally).await;
            }
            connecting.spawn(Stream::open(url.to_owned(), format!("bench-{number}"), slots));
            if number > 0 && number.is_multiple_of(1000) {
                progress(&format!("{number} workers are connected"));
            }
        }
        while !connecting.is_empty() {
            serve_next(&mut connecting, &mut connected, tally).await;
        }
        Self(connected)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

async fn serve_next(
    connecting: &mut JoinSet<Result<Stream, Status>>,
    connected: &mut JoinSet<()>,
    tally: &Arc<Tally>,
) {
    let Some(stream) = connecting.join_next().await else { return };
    let mut stream = stream.expect("connecting does not panic").expect("the worker is welcomed");
    let tally = tally.clone();
    connected.spawn(async move {
        let reason = match stream.serve(&tally).await {
            Ok(()) => "a worker's stream has ended".to_owned(),
            Err(status) => format!("a worker's stream broke: {status}"),
        };
        tally.lost(reason);
    });
}

/// One worker's stream.
pub struct Stream {
    session_id: String,
    up: mpsc::Sender<WorkerMessage>,
    down: Streaming<avtomatika_proto::v1::OrchestratorMessage>,
    slots: u32,
    /// Over how long the orchestrator has last asked the workers to spread their return, if it has on this stream.
    pub reconnect_within: Option<Duration>,
    /// For how long it may say nothing, as the orchestrator has told.
    quiet_for: Option<prost_types::Duration>,
    /// How many tasks have come.
    tasks: u64,
}

impl Stream {
    async fn open(url: String, worker_id: String, slots: u32) -> Result<Self, Status> {
        Self::register(load::connection(&url).await, worker_id, slots).await
    }

    /// Opens a session and its stream.
    pub async fn register(channel: Channel, worker_id: String, slots: u32) -> Result<Self, Status> {
        let mut service = WorkerServiceClient::with_interceptor(channel, Token);
        let registration = RegisterWorkerRequest {
            worker_id,
            worker_type: "bench".into(),
            supported_tasks: vec![SupportedTask { r#type: NAME.into(), ..SupportedTask::default() }],
            max_concurrent_tasks: slots,
            ..Default::default()
        };
        let session_id = service.register_worker(registration).await?.into_inner().session_id;
        Self::resume(service, session_id, slots).await
    }

    /// Opens the next stream of the session that this one had.
    pub async fn again(&self, channel: Channel) -> Result<Self, Status> {
        let service = WorkerServiceClient::with_interceptor(channel, Token);
        Self::resume(service, self.session_id.clone(), self.slots).await
    }

    async fn resume(
        mut service: WorkerServiceClient<InterceptedService<Channel, Token>>,
        session_id: String,
        slots: u32,
    ) -> Result<Self, Status> {
        let (up, said) = mpsc::channel(UP_MAX);
        let said = stream::unfold(said, |mut said| async { Some((said.recv().await?, said)) });
        let hello = Up::Hello(Hello { session_id: session_id.clone(), held_task_ids: Vec::new() });
        // The channel is new and has room.
        let _ = up.try_send(wire(hello));
        let mut down = service.task_stream(said).await?.into_inner();
        match down.message().await?.and_then(|message| message.message) {
            Some(Down::Welcome(_)) => {}
            other => return Err(Status::internal(format!("the first message is no welcome: {other:?}"))),
        }
        Ok(Self { session_id, up, down, slots, reconnect_within: None, quiet_for: None, tasks: 0 })
    }

    /// Answers tasks until the stream ends.
    pub async fn serve(&mut self, tally: &Tally) -> Result<(), Status> {
        self.say(Up::Credits(Credits { slots: self.slots })).await?;
        let mut heartbeat_at = Instant::now() + KEEPALIVE_INTERVAL;
        loop {
            let message = tokio::select! {
                message = self.down.message() => message?,
                () = sleep_until(heartbeat_at.into()) => {
                    // A worker that answers each task at once never holds one.
                    let quiet_for = self.quiet_for;
                    let heartbeat = Heartbeat { quiet_for, tasks_received: self.tasks, ..Heartbeat::default() };
                    self.say(Up::Heartbeat(heartbeat)).await?;
                    let quiet_for = quiet_for.and_then(|span| span.try_into().ok());
                    heartbeat_at = Instant::now() + KEEPALIVE_INTERVAL.max(quiet_for.unwrap_or_default());
                    continue;
                }
            };
            let Some(message) = message else { return Ok(()) };
            match message.message {
                Some(Down::Tasks(tasks)) => {
                    tally.arrived();
                    self.tasks += tasks.tasks.len() as u64;
                    heartbeat_at = Instant::now() + KEEPALIVE_INTERVAL;
                    let results = tasks.tasks.into_iter().map(success).collect();
                    self.say(Up::TaskResults(TaskResults { results })).await?;
                }
                Some(Down::ResultsAck(acks)) => {
                    let refused = acks.acks.iter().find(|ack| ack.verdict() != ResultVerdict::Applied);
                    if let Some(refused) = refused {
                        return Err(Status::internal(format!("a result was refused: {refused:?}")));
                    }
                    tally.applied(acks.acks.len());
                }
                Some(Down::Heartbeat(Heartbeat { reconnect_within: Some(within), quiet_for, .. })) => {
                    self.reconnect_within = within.try_into().ok();
                    self.quiet_for = quiet_for;
                }
                _ => {}
            }
        }
    }

    async fn say(&self, message: Up) -> Result<(), Status> {
        self.up.send(wire(message)).await.map_err(|_| Status::unavailable("the stream up has ended"))
    }
}

fn success(task: Task) -> TaskResult {
    TaskResult {
        task_id: task.task_id,
        job_id: task.job_id,
        outcome: outcome::SUCCESS.into(),
        data: r#"{"ok":true}"#.into(),
        error: None,
        checkpoint: String::new(),
    }
}

fn wire(message: Up) -> WorkerMessage {
    WorkerMessage { message: Some(message) }
}

/// Shows the worker's token with each call.
#[derive(Clone)]
pub struct Token;

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("x-worker-token", MetadataValue::from_static(WORKER_TOKEN));
        Ok(request)
    }
}
