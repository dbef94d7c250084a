//! One worker's stream: the wire on one side, the conductor's words on the other.
//!
//! It is one of the two places that know wire types (the other is `api/`). It promises that whatever a worker sends is either
//! passed on in domain words or answered with a named error, that a worker is read no faster than it is served, that
//! what is ready goes out together, and that silence in either direction is noticed. It refuses to know what a result does.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use avtomatika_proto::{
    ApiError, ErrorCode, SessionId, TaskId,
    limits::{
        BATCH_BYTES_TARGET, BATCH_ITEMS_MAX, CANCEL_GRACE, CHECKPOINT_BYTES_MAX, ERROR_MESSAGE_BYTES_MAX,
        KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX,
        MESSAGE_BYTES_MAX, NAME_BYTES_MAX, OUTCOME_BYTES_MAX, PAYLOAD_BYTES_MAX, PROGRESS_MESSAGE_BYTES_MAX,
        WORKER_SLOTS_MAX, WORKER_TASK_TYPES_MAX,
    },
    names::{CODE_PREFIX, is_name, is_outcome},
    outcome, task_error,
    trace::{TraceContext, span_of_attempt},
    v1::{self, orchestrator_message::Message as Down, worker_message::Message as Up},
    wire_time,
};
use futures_util::{Stream, StreamExt, stream};
use tokio::{sync::mpsc, time::timeout};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Farewell, Fleet, Outbox, ToWorker, Verdict,
    fleet::{Manners, Member},
    pulse::{Patience, Pulse},
};
use crate::{
    api::auth::{Auth, WorkerPass},
    conductor::{Admission, FromWorker, OpenStream, Progress, Sessions, WorkerResult},
    engine::JobError,
    functions,
    json::Json,
    store::{Terms, WorkerRecord},
    tls::Peer,
    trust::Standing,
};

/// How long a new stream may take to say Hello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// Results that the conductor decides in one go; a message with more is handed on in parts.
const RESULTS_AT_ONCE: usize = 256;

/// Warm task types that a worker may name.
const HOT_CACHE_MAX: usize = 64;

/// The gRPC service that workers call.
pub struct WorkerGate {
    sessions: Sessions,
    auth: Arc<Auth>,
    fleet: Fleet,
}

impl WorkerGate {
    /// A gate that lets in workers with a known token, and tells them how to come back.
    pub fn new(sessions: Sessions, auth: Arc<Auth>, fleet: Fleet) -> Self {
        Self { sessions, auth, fleet }
    }

    /// Who calls: whom the gate in front has found, or else whom the token names.
    fn pass<T>(&self, request: &Request<T>) -> Result<WorkerPass, ApiError> {
        match request.extensions().get::<WorkerPass>() {
            Some(pass) => Ok(pass.clone()),
            None => self.auth.worker(request.metadata().as_ref()),
        }
    }

    /// The service, with its message limits.
    pub fn into_service(self) -> v1::worker_service_server::WorkerServiceServer<Self> {
        v1::worker_service_server::WorkerServiceServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

type DownStream = Pin<Box<dyn Stream<Item = Result<v1::OrchestratorMessage, Status>> + Send>>;

#[tonic::async_trait]
impl v1::worker_service_server::WorkerService for WorkerGate {
    async fn register_worker(
        &self,
        request: Request<v1::RegisterWorkerRequest>,
    ) -> Result<Response<v1::RegisterWorkerResponse>, Status> {
        let (pass, peer) = (self.pass(&request)?, peer(&request));
        let worker = pass.check(worker_record(request.into_inner())?)?;
        peer.vouch(&worker.worker_id)?;
        let registered = self.sessions.register(worker, peer.bind(pass.credential.to_bytes())).await?;
        Ok(Response::new(v1::RegisterWorkerResponse {
            session_id: registered.session_id.to_string(),
            worker_id: registered.worker_id.to_string(),
            keepalive_interval: Some(wire_time::duration(KEEPALIVE_INTERVAL)),
            keepalive_timeout: Some(wire_time::duration(KEEPALIVE_TIMEOUT)),
            max_message_bytes: MESSAGE_BYTES_MAX as u64,
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    type TaskStreamStream = DownStream;

    async fn task_stream(
        &self,
        request: Request<Streaming<v1::WorkerMessage>>,
    ) -> Result<Response<DownStream>, Status> {
        let WorkerPass { credential, standing, terms } = self.pass(&request)?;
        let credential = peer(&request).bind(credential.to_bytes());
        let mut inbound = request.into_inner();
        let hello = read_hello(&mut inbound).await?;
        let session_id: SessionId = hello.session_id.parse().map_err(|_| {
            ApiError::new(ErrorCode::SessionUnknown, "The session_id in Hello is no session id")
        })?;
        // What is no id was never handed out; the worker learns so because it is neither adopted nor dropped.
        let held = hello.held_task_ids.iter().filter_map(|id| id.parse().ok()).collect();
        let (outbox, messages) = Outbox::new();
        let open = self.sessions.open_on(Some(terms), session_id, credential, held, outbox).await?;
        let pulse = Pulse::default();
        let comes_back_within = self.fleet.adoption_window();
        tokio::spawn(read(inbound, open, standing, pulse.clone(), comes_back_within));
        Ok(Response::new(Box::pin(downstream(messages, self.fleet.join(), pulse))))
    }
}

/// What the connection says of the worker.
fn peer<T>(request: &Request<T>) -> Peer {
    request.extensions().get::<Peer>().cloned().unwrap_or_default()
}

// ---- Up ----

async fn read_hello(inbound: &mut Streaming<v1::WorkerMessage>) -> Result<v1::Hello, Status> {
    let first = match timeout(HELLO_WITHIN, inbound.message()).await {
        Ok(message) => message?,
        Err(_) => return Err(protocol_error("No Hello came within 10 s of opening the stream").into()),
    };
    match first.and_then(|message| message.message) {
        Some(Up::Hello(hello)) => Ok(hello),
        _ => Err(protocol_error("The first message of a stream must be Hello").into()),
    }
}

/// Passes on what the worker says until it stops talking. Who leaves because this process stood still is waited for as long as after a
/// restart.
async fn read(
    mut inbound: Streaming<v1::WorkerMessage>,
    open: OpenStream,
    standing: Standing,
    pulse: Pulse,
    comes_back_within: Duration,
) {
    let mut withdrawn = std::pin::pin!(standing.withdrawn());
    let mut suspected = false;
    let mut stood_still_at: Option<Instant> = None;
    let mut patience = pulse.usual();
    loop {
        let Patience { suspected_after, lost_after } = patience;
        let patient_for = if suspected { lost_after - suspected_after } else { suspected_after };
        let waiting_since = Instant::now();
        let message = tokio::select! {
            biased;
            // Nothing more is heard from it; the stream itself is ended where it is sent.
            () = withdrawn.as_mut() => break,
            // It was quiet, and tasks are on their way to it. It has as long to take them as any other.
            () = pulse.is_over() => {
                patience = pulse.usual();
                continue;
            }
            message = timeout(patient_for, inbound.message()) => message,
        };
        // Otherwise the wait would have ended in time.
        let stood_still = waiting_since.elapsed() > patient_for + KEEPALIVE_INTERVAL;
        if stood_still {
            stood_still_at = Some(Instant::now());
        }
        let message = match message {
            Ok(Ok(Some(message))) => message,
            // What the worker said meanwhile is yet to be read.
            Err(_) if stood_still => continue,
            Err(_) if !suspected => {
                suspected = true;
                open.tell(FromWorker::Silent).await;
                continue;
            }
            // It was right to leave, and has its tasks still.
            Ok(_) if stood_still_at.is_some_and(|at| at.elapsed() < KEEPALIVE_TIMEOUT) => {
                open.tell(FromWorker::Away).await;
                tokio::select! {
                    () = withdrawn.as_mut() => {}
                    () = tokio::time::sleep(comes_back_within) => {}
                }
                break;
            }
            // An error, the end of the stream and silence are one thing: the worker is gone.
            Ok(_) | Err(_) => break,
        };
        if std::mem::take(&mut suspected) {
            open.tell(FromWorker::Heard).await;
        }
        patience = match &message.message {
            Some(Up::Heartbeat(v1::Heartbeat { quiet_for: Some(quiet_for), tasks_received, .. })) => {
                pulse.quiet((*quiet_for).try_into().unwrap_or_default(), *tasks_received)
            }
            _ => pulse.usual(),
        };
        // A message without an arm that this version knows is a sign of life and nothing else.
        let Some(message) = message.message else { continue };
        let mut admission = open.admit(data_bytes(&message)).await;
        let mut said = domain(message).into_iter().peekable();
        while let Some(one) = said.next() {
            // The last one of a message keeps the admission of all.
            let admission =
                if said.peek().is_none() { std::mem::take(&mut admission) } else { Admission::default() };
            if !open.tell_admitted(one, admission).await {
                return;
            }
        }
    }
    open.tell(FromWorker::Ended).await;
}

fn data_bytes(message: &Up) -> usize {
    match message {
        Up::TaskResults(results) => {
            results.results.iter().map(|result| result.data.len() + result.checkpoint.len()).sum()
        }
        Up::TaskProgress(progress) => progress.checkpoint.len(),
        _ => 0,
    }
}

fn domain(message: Up) -> Vec<FromWorker> {
    match message {
        Up::TaskResults(results) => {
            let mut results: Vec<WorkerResult> = results.results.into_iter().filter_map(result).collect();
            let mut said = Vec::new();
            while !results.is_empty() {
                let rest = results.split_off(results.len().min(RESULTS_AT_ONCE));
                said.push(FromWorker::Results(std::mem::replace(&mut results, rest)));
            }
            said
        }
        other => word(other).into_iter().collect(),
    }
}

fn word(message: Up) -> Option<FromWorker> {
    match message {
        Up::Credits(credits) => Some(FromWorker::Credits(credits.slots)),
        Up::TaskProgress(progress) => {
            let task_id = progress.task_id.parse().ok()?;
            let fraction = if progress.fraction.is_nan() { 0.0 } else { progress.fraction.clamp(0.0, 1.0) };
            let message = Arc::from(cut(&progress.message, PROGRESS_MESSAGE_BYTES_MAX));
            let checkpoint = checkpoint(&progress.checkpoint);
            Some(FromWorker::Progress(task_id, Progress { fraction, message, checkpoint }))
        }
        Up::WorkerState(state) => {
            let hot_cache = state.hot_cache.into_iter().filter(|name| is_name(name)).take(HOT_CACHE_MAX);
            let load = if state.load.is_nan() { 0.0 } else { state.load };
            Some(FromWorker::State { hot_cache: hot_cache.map(Arc::from).collect(), load })
        }
        Up::Drain(_) => Some(FromWorker::Drain),
        // Accepted tasks inform nobody yet; a heartbeat has done its work by arriving; a second Hello is nothing new.
        Up::TasksAccepted(_) | Up::Heartbeat(_) | Up::Hello(_) | Up::TaskResults(_) => None,
    }
}

/// A result in domain words. One that cannot be stored becomes a failure of that attempt, which names the reason; one that
/// names no task cannot be about anything and is dropped.
fn result(result: v1::TaskResult) -> Option<WorkerResult> {
    let task_id: TaskId = result.task_id.parse().ok()?;
    let job_id = result.job_id.parse().ok();
    let checkpoint = checkpoint(&result.checkpoint);
    let error = result.error.map(|error| JobError {
        code: match error.code.as_str() {
            "" => Arc::from(task_error::TRANSIENT),
            code => Arc::from(cut(code, NAME_BYTES_MAX)),
        },
        message: Arc::from(cut(&error.message, ERROR_MESSAGE_BYTES_MAX)),
    });
    match checked(&result.outcome, &result.data) {
        Ok(data) => {
            let outcome = Arc::from(result.outcome);
            Some(WorkerResult { task_id, job_id, outcome, data, error, checkpoint })
        }
        Err(reason) => {
            let error = JobError { code: Arc::from(task_error::INVALID_RESULT), message: Arc::from(reason) };
            let outcome = Arc::from(outcome::FAILURE);
            let data = Json::empty();
            Some(WorkerResult { task_id, job_id, outcome, data, error: Some(error), checkpoint })
        }
    }
}

/// What a worker leaves for the next attempt, if it can be taken.
fn checkpoint(text: &str) -> Option<Json> {
    let usable = !text.is_empty() && text.len() <= CHECKPOINT_BYTES_MAX;
    usable.then(|| Json::object(text).ok()).flatten()
}

fn checked(outcome: &str, data: &str) -> Result<Json, String> {
    if !is_outcome(outcome) {
        return Err(format!("The outcome must be 1 to {OUTCOME_BYTES_MAX} characters of [a-zA-Z0-9._-]"));
    }
    if data.len() > PAYLOAD_BYTES_MAX {
        return Err(format!("The result has {} bytes; the limit is {PAYLOAD_BYTES_MAX}", data.len()));
    }
    match data {
        "" => Ok(Json::empty()),
        _ => Json::object(data).map_err(|error| format!("The result is not usable: {error}")),
    }
}

// ---- Down ----

/// What goes to the worker: all that is ready, together, and a heartbeat when nothing is.
fn downstream(
    messages: mpsc::Receiver<ToWorker>,
    member: Member,
    pulse: Pulse,
) -> impl Stream<Item = Result<v1::OrchestratorMessage, Status>> {
    let batches = stream::unfold(Some((messages, member, pulse)), |open| async {
        let (mut messages, mut member, pulse) = open?;
        let mut batch = Vec::new();
        match timeout(pulse.interval(), messages.recv_many(&mut batch, BATCH_ITEMS_MAX)).await {
            Err(_) => Some((vec![heartbeat(member.news())], Some((messages, member, pulse)))),
            Ok(0) => None,
            Ok(_) => {
                let last = batch.iter().any(|message| matches!(message, ToWorker::Goodbye(_)));
                pulse.hand(batch.iter().filter(|message| matches!(message, ToWorker::Task(_))).count());
                let mut packed = pack(batch);
                if last {
                    return Some((packed, None));
                }
                if let Some(news) = member.news() {
                    packed.push(heartbeat(Some(news)));
                }
                Some((packed, Some((messages, member, pulse))))
            }
        }
    });
    batches.flat_map(|batch| stream::iter(batch.into_iter().map(Ok)))
}

fn heartbeat(news: Option<Manners>) -> v1::OrchestratorMessage {
    wire(Down::Heartbeat(v1::Heartbeat {
        reconnect_within: news.map(|news| wire_time::duration(news.reconnect_within)),
        quiet_for: news.map(|news| wire_time::duration(news.quiet_for)),
        tasks_received: 0,
    }))
}

/// As few messages as the limits allow: one kind of thing in each, Welcome first and Goodbye last.
fn pack(batch: Vec<ToWorker>) -> Vec<v1::OrchestratorMessage> {
    let mut packed = Vec::new();
    let (mut tasks, mut task_bytes) = (Vec::new(), 0);
    let (mut acks, mut cancels, mut last) = (Vec::new(), Vec::new(), None);
    for message in batch {
        match message {
            ToWorker::Welcome { adopted, dropped } => packed.push(wire(Down::Welcome(v1::Welcome {
                adopted_task_ids: texts(&adopted),
                dropped_task_ids: texts(&dropped),
            }))),
            ToWorker::Task(assignment) => {
                let task = wire_task(*assignment);
                task_bytes += task.params.len() + task.checkpoint.len();
                tasks.push(task);
                if task_bytes >= BATCH_BYTES_TARGET {
                    packed.push(wire(Down::Tasks(v1::Tasks { tasks: std::mem::take(&mut tasks) })));
                    task_bytes = 0;
                }
            }
            ToWorker::Cancel { task_id, reason } => cancels.push(v1::CancelTask {
                task_id: task_id.to_string(),
                reason: reason.to_string(),
                grace: Some(wire_time::duration(CANCEL_GRACE)),
            }),
            ToWorker::Ack { task_id, verdict } => acks.push(wire_ack(task_id, verdict)),
            ToWorker::Drain => packed.push(wire(Down::Drain(v1::Drain {}))),
            ToWorker::Draining => packed.push(wire(Down::Draining(v1::Draining {}))),
            ToWorker::Goodbye(farewell) => last = Some(wire(Down::Goodbye(wire_goodbye(farewell)))),
        }
    }
    if !acks.is_empty() {
        packed.push(wire(Down::ResultsAck(v1::ResultsAck { acks })));
    }
    if !tasks.is_empty() {
        packed.push(wire(Down::Tasks(v1::Tasks { tasks })));
    }
    // After the tasks: a task may have been handed out and withdrawn within one batch.
    if !cancels.is_empty() {
        packed.push(wire(Down::CancelTasks(v1::CancelTasks { tasks: cancels })));
    }
    packed.extend(last);
    packed
}

fn wire(message: Down) -> v1::OrchestratorMessage {
    v1::OrchestratorMessage { message: Some(message) }
}

fn wire_task(assignment: super::Assignment) -> v1::Task {
    let offer = assignment.offer;
    // Of most tasks there is none, and nothing is made.
    let trace = offer.trace.map(|trace| trace.with_span(span_of_attempt(offer.task_id)));
    v1::Task {
        task_id: offer.task_id.to_string(),
        job_id: offer.job_id.to_string(),
        r#type: offer.task_type.to_string(),
        params: offer.params.to_string(),
        attempt: offer.attempt,
        priority: offer.priority,
        deadline: Some(wire_time::timestamp(assignment.deadline.as_micros())),
        timeout: Some(wire_time::duration(offer.timeout)),
        traceparent: trace.as_ref().map(TraceContext::traceparent).unwrap_or_default(),
        tracestate: trace.and_then(|trace| trace.state).map(|state| state.to_string()).unwrap_or_default(),
        checkpoint: offer.checkpoint.map(|checkpoint| checkpoint.to_string()).unwrap_or_default(),
    }
}

fn wire_ack(task_id: TaskId, verdict: Verdict) -> v1::ResultAck {
    let (verdict, reason) = match verdict {
        Verdict::Applied => (v1::ResultVerdict::Applied, ""),
        Verdict::Refused(reason) => (v1::ResultVerdict::Refused, reason),
        Verdict::RetryLater => (v1::ResultVerdict::RetryLater, ""),
    };
    v1::ResultAck { task_id: task_id.to_string(), verdict: verdict.into(), reason: reason.to_owned() }
}

fn wire_goodbye(farewell: Farewell) -> v1::Goodbye {
    let (reason, message) = match farewell {
        Farewell::Shutdown => {
            (v1::GoodbyeReason::Shutdown, "the orchestrator stops; come back with the same session")
        }
        Farewell::Replaced => (v1::GoodbyeReason::Replaced, "another registration took this worker_id"),
        Farewell::StreamTaken => (v1::GoodbyeReason::ProtocolError, "another stream took this session"),
    };
    v1::Goodbye { reason: reason.into(), message: message.to_owned() }
}

fn texts(ids: &[TaskId]) -> Vec<String> {
    ids.iter().map(TaskId::to_string).collect()
}

// ---- Registration ----

fn worker_record(request: v1::RegisterWorkerRequest) -> Result<WorkerRecord, ApiError> {
    let v1::RegisterWorkerRequest { worker_id, worker_type, supported_tasks, max_concurrent_tasks, .. } =
        &request;
    if !worker_id.is_empty() && !is_name(worker_id) {
        return Err(not_a_name("worker_id"));
    }
    if worker_type.len() > NAME_BYTES_MAX || worker_type.chars().any(char::is_control) {
        return Err(invalid(format!(
            "worker_type must be at most {NAME_BYTES_MAX} bytes without control characters"
        )));
    }
    if supported_tasks.is_empty() || supported_tasks.len() > WORKER_TASK_TYPES_MAX {
        return Err(invalid(format!("supported_tasks must name 1 to {WORKER_TASK_TYPES_MAX} task types")));
    }
    if supported_tasks.iter().any(|task| !is_name(&task.r#type)) {
        return Err(not_a_name("supported_tasks.type"));
    }
    check_reserved(&request)?;
    if !(1..=WORKER_SLOTS_MAX).contains(max_concurrent_tasks) {
        return Err(invalid(format!("max_concurrent_tasks must be 1 to {WORKER_SLOTS_MAX}")));
    }
    check_marks(&request)?;
    let terms = terms(&request.supported_tasks)?;
    let mut task_types: Vec<Arc<str>> =
        request.supported_tasks.iter().map(|task| Arc::from(task.r#type.as_str())).collect();
    task_types.sort();
    task_types.dedup();
    Ok(WorkerRecord {
        worker_id: Arc::from(request.worker_id),
        worker_type: Arc::from(request.worker_type),
        task_types,
        slots: request.max_concurrent_tasks,
        labels: request.labels.into_iter().collect::<BTreeMap<_, _>>(),
        resources: request.resources.into_iter().collect::<BTreeMap<_, _>>(),
        hostname: Arc::from(cut(&request.hostname, LABEL_VALUE_BYTES_MAX)),
        sdk_version: Arc::from(cut(&request.sdk_version, LABEL_VALUE_BYTES_MAX)),
        software: request.installed_software.into_iter().collect(),
        models: request.installed_models.into_iter().collect(),
        terms,
    })
}

/// The functions of this process are called here and nowhere else.
fn check_reserved(request: &v1::RegisterWorkerRequest) -> Result<(), ApiError> {
    if request.worker_id == functions::WORKER_ID {
        return Err(invalid(format!(
            "worker_id {:?} is the name of the orchestrator's own functions; choose another",
            functions::WORKER_ID
        )));
    }
    match request.supported_tasks.iter().find(|task| task.r#type.starts_with(CODE_PREFIX)) {
        None => Ok(()),
        Some(task) => Err(invalid(format!(
            "supported_tasks: {:?} is a function of the orchestrator's own process, which no worker can serve; types that begin \
             with {CODE_PREFIX:?} are reserved",
            task.r#type
        ))),
    }
}

/// On what terms the types are served that say something of it.
fn terms(tasks: &[v1::SupportedTask]) -> Result<BTreeMap<Arc<str>, Terms>, ApiError> {
    let mut terms = BTreeMap::new();
    for task in tasks {
        if task.cost.is_some_and(|cost| !cost.is_finite() || cost < 0.0) {
            return Err(invalid("supported_tasks.cost must be a finite number and not negative".to_owned()));
        }
        let limit = (task.max_concurrent_tasks > 0).then_some(task.max_concurrent_tasks);
        if limit.is_some() || task.cost.is_some() {
            // Of a negative zero, the sign.
            let cost = task.cost.map(f64::abs);
            terms.insert(Arc::from(task.r#type.as_str()), Terms { limit, cost });
        }
    }
    Ok(terms)
}

fn check_marks(request: &v1::RegisterWorkerRequest) -> Result<(), ApiError> {
    let v1::RegisterWorkerRequest { labels, resources, installed_software, installed_models, .. } = request;
    let counts = [labels.len(), resources.len(), installed_software.len(), installed_models.len()];
    if counts.into_iter().any(|count| count > LABELS_MAX) {
        return Err(invalid(format!(
            "labels, resources, installed_software and installed_models may have {LABELS_MAX} entries each"
        )));
    }
    let texts = || [labels, installed_software, installed_models].into_iter();
    let keys = resources.keys().chain(texts().flat_map(|texts| texts.keys()));
    let values = texts().flat_map(|texts| texts.values());
    let said_of_itself = [&request.hostname, &request.sdk_version];
    // They are shown to people, and a line break or an escape would say something else there.
    let shown = keys.clone().chain(values.clone()).chain(said_of_itself);
    if shown.into_iter().any(|text| text.chars().any(char::is_control)) {
        return Err(invalid(
            "labels, resources, installed_software, installed_models, hostname and sdk_version must have no control characters"
                .to_owned(),
        ));
    }
    let sound = keys.into_iter().all(|key| !key.is_empty() && key.len() <= LABEL_KEY_BYTES_MAX)
        && values.into_iter().all(|value| value.len() <= LABEL_VALUE_BYTES_MAX)
        && resources.values().all(|value| value.is_finite());
    match sound {
        true => Ok(()),
        false => Err(invalid(format!(
            "keys of labels, resources, software and models must be 1 to {LABEL_KEY_BYTES_MAX} bytes, values and versions at most {LABEL_VALUE_BYTES_MAX}, resources finite numbers"
        ))),
    }
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

fn not_a_name(field: &str) -> ApiError {
    invalid(format!("{field} must be 1 to {NAME_BYTES_MAX} characters of [a-zA-Z0-9._:-]"))
}

fn invalid(message: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidArgument, message)
}

fn protocol_error(message: &'static str) -> ApiError {
    ApiError::new(ErrorCode::ProtocolViolation, message)
}

#[cfg(test)]
#[path = "../fuzz/stream.rs"]
mod fuzz;
