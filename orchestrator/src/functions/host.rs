//! The session in which functions are called: a worker in this process, without a stream.
//!
//! It speaks with the conductor as the stream of a worker does: it registers, says how many calls it takes, is told of tasks, and
//! tells of results until they are durable. It promises that a function that does not stop costs its slot and nothing else.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use avtomatika_proto::{ApiError, ErrorCode, TaskId};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Call, Functions,
    attempt::{Attempt, STOP_GRACE, Stop},
    call::Board,
};
use crate::{
    conductor::{FromWorker, OpenStream, Sessions, WorkerResult},
    dispatch::{Farewell, Outbox, ToWorker, Verdict},
    engine::Offer,
    store::WorkerRecord,
};

/// The name under which the functions of this process appear among workers. No worker may take it.
pub const WORKER_ID: &str = "in-process";

/// How soon a session is opened again that could not be opened or was cut off, and a result told again that could not be stored.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How long the results of stopped calls may take to become durable.
const STORED_WITHIN: Duration = Duration::from_secs(2);

/// The functions, being served.
pub(crate) struct Hosting {
    stop: CancellationToken,
    served: AbortOnDropHandle<()>,
    patience: Duration,
}

impl Hosting {
    /// Takes no more calls and waits for those that run; those that take longer are told to stop and given back, to be made again
    /// after the next start.
    pub async fn drain(self) {
        self.stop.cancel();
        // Beyond that time the store does not answer. What is not durable then is done again, as after a crash.
        let _ = tokio::time::timeout(self.patience + STOP_GRACE + STORED_WITHIN, self.served).await;
    }
}

/// Begins to serve the functions. When they are told to stop, calls may go on for `patience`.
pub(crate) fn start(functions: Functions, sessions: Sessions, patience: Duration) -> Option<Hosting> {
    if functions.is_empty() {
        return None;
    }
    let stop = CancellationToken::new();
    let until = stop.clone();
    let served = tokio::spawn(async move {
        while let Next::Again = session(&functions, &sessions, &until, patience).await {
            tokio::select! {
                () = until.cancelled() => return,
                () = tokio::time::sleep(AGAIN_AFTER) => {}
            }
        }
    });
    Some(Hosting { stop, served: AbortOnDropHandle::new(served), patience })
}

/// What follows a session.
enum Next {
    Again,
    Nothing,
}

async fn session(
    functions: &Functions,
    sessions: &Sessions,
    stop: &CancellationToken,
    patience: Duration,
) -> Next {
    let (open, messages) = match connect(functions, sessions).await {
        Ok(connected) => connected,
        Err(error) if error.code == ErrorCode::ShuttingDown => return Next::Nothing,
        Err(error) => {
            tracing::warn!("The functions of this process cannot be served yet: {error}");
            return Next::Again;
        }
    };
    let session = Session {
        functions,
        open,
        board: Arc::default(),
        held: HashMap::new(),
        calls: JoinSet::new(),
        stuck: HashSet::new(),
        slots_told: 0,
        again_at: None,
        stage: Stage::Serving,
    };
    session.run(messages, stop, patience).await
}

async fn connect(
    functions: &Functions,
    sessions: &Sessions,
) -> Result<(OpenStream, mpsc::Receiver<ToWorker>), ApiError> {
    // Nobody else can know it, so nobody else can open the session.
    let mut credential = [0; 32];
    getrandom::fill(&mut credential)
        .map_err(|error| ApiError::new(ErrorCode::Internal, format!("no random numbers: {error}")))?;
    let worker = WorkerRecord {
        worker_id: Arc::from(WORKER_ID),
        worker_type: Arc::from("functions"),
        task_types: functions.task_types(),
        slots: functions.slots,
        labels: BTreeMap::new(),
        resources: BTreeMap::new(),
        hostname: Arc::from(""),
        sdk_version: Arc::from(env!("CARGO_PKG_VERSION")),
        ..WorkerRecord::default()
    };
    let registered = sessions.register(worker, credential).await?;
    let (outbox, messages) = Outbox::new();
    // What ran before a restart ended with the process: nothing is held.
    let open = sessions.open(registered.session_id, credential, Vec::new(), outbox).await?;
    Ok((open, messages))
}

/// How far the end of a session is.
enum Stage {
    Serving,
    /// No new calls; those that run may end until then.
    Draining(Instant),
    /// Those that run have been told to stop.
    Stopping,
}

struct Session<'f> {
    functions: &'f Functions,
    open: OpenStream,
    board: Arc<Board>,
    held: HashMap<TaskId, Held>,
    calls: JoinSet<WorkerResult>,
    /// Calls that are over while their functions run on.
    stuck: HashSet<TaskId>,
    /// The credits that the conductor knows.
    slots_told: u32,
    /// When results that could not be stored are told again.
    again_at: Option<Instant>,
    stage: Stage,
}

/// A call whose result is not durable yet.
struct Held {
    /// Gone when the call has been told to stop.
    stop: Option<oneshot::Sender<Stop>>,
    /// Present once it has ended.
    result: Option<WorkerResult>,
}

impl Session<'_> {
    async fn run(
        mut self,
        mut messages: mpsc::Receiver<ToWorker>,
        stop: &CancellationToken,
        patience: Duration,
    ) -> Next {
        loop {
            if !self.tell_credits().await {
                return Next::Nothing;
            }
            if !matches!(self.stage, Stage::Serving) && self.held.is_empty() {
                self.open.tell(FromWorker::Ended).await;
                return Next::Nothing;
            }
            let listens = tokio::select! {
                message = messages.recv() => match message {
                    Some(ToWorker::Goodbye(Farewell::Shutdown)) => return Next::Nothing,
                    // Cut off: what ran here is lost to the session, and will be told so by name if it reports.
                    None | Some(ToWorker::Goodbye(_)) => return Next::Again,
                    Some(message) => self.hear(message),
                },
                Some(result) = self.calls.join_next(), if !self.calls.is_empty() => match result {
                    Ok(result) => self.ended(result).await,
                    // The supervisor of a call neither panics nor is aborted while its session lives.
                    Err(_) => true,
                },
                () = self.board.changed() => self.tell_progress().await,
                () = until(self.again_at) => self.tell_again().await,
                () = stop.cancelled(), if matches!(self.stage, Stage::Serving) => {
                    self.stage = Stage::Draining(Instant::now() + patience);
                    self.open.tell(FromWorker::Drain).await
                }
                () = until(self.stage.ends_at()) => {
                    self.stage = Stage::Stopping;
                    self.held.values_mut().for_each(|held| held.stop(Stop::Shutdown));
                    true
                }
            };
            if !listens {
                return Next::Nothing;
            }
        }
    }

    fn hear(&mut self, message: ToWorker) -> bool {
        match message {
            ToWorker::Task(assignment) => self.begin(assignment.offer),
            ToWorker::Cancel { task_id, .. } => {
                if let Some(held) = self.held.get_mut(&task_id) {
                    held.stop(Stop::Cancel);
                }
            }
            ToWorker::Ack { verdict: Verdict::RetryLater, .. } => {
                self.again_at.get_or_insert(Instant::now() + AGAIN_AFTER);
            }
            ToWorker::Ack { task_id, verdict: Verdict::Applied | Verdict::Refused(_) } => {
                self.held.remove(&task_id);
            }
            // Nobody can have it drained: see `Conductor::drain_worker`.
            ToWorker::Drain => {}
            ToWorker::Welcome { .. } | ToWorker::Draining | ToWorker::Goodbye(_) => {}
        }
        true
    }

    fn begin(&mut self, offer: Offer) {
        let task_id = offer.task_id;
        let Some(function) = self.functions.of_type(&offer.task_type).cloned() else {
            // The session announced what it has; its deadline will take the task back from a conductor that errs.
            tracing::error!("Task {task_id} asks for {}, which was not announced", offer.task_type);
            return;
        };
        let (stop, stopped) = oneshot::channel();
        let call = Call::new(&offer, self.board.clone());
        let running = self.board.run(task_id);
        self.calls.spawn(Attempt { offer, function, call, running, stop: stopped }.run());
        let mut held = Held { stop: Some(stop), result: None };
        if matches!(self.stage, Stage::Stopping) {
            held.stop(Stop::Shutdown);
        }
        self.held.insert(task_id, held);
    }

    async fn ended(&mut self, result: WorkerResult) -> bool {
        let Some(held) = self.held.get_mut(&result.task_id) else { return true };
        held.result = Some(result.clone());
        // First the slot, or the next call would get it with the answer.
        if self.board.runs(result.task_id) {
            self.stuck.insert(result.task_id);
            self.tell_credits().await;
        }
        self.tell(result).await
    }

    async fn tell(&self, result: WorkerResult) -> bool {
        let admission = self.open.admit(result.data.as_str().len()).await;
        self.open.tell_admitted(FromWorker::Results(vec![result]), admission).await
    }

    /// Tells what has ended and is not durable. What is durable already is refused by name, and then forgotten here too.
    async fn tell_again(&mut self) -> bool {
        self.again_at = None;
        let results: Vec<WorkerResult> = self.held.values().filter_map(|held| held.result.clone()).collect();
        for result in results {
            if !self.tell(result).await {
                return false;
            }
        }
        true
    }

    async fn tell_progress(&mut self) -> bool {
        for (task_id, progress) in self.board.take_fresh() {
            if !self.open.tell(FromWorker::Progress(task_id, progress)).await {
                return false;
            }
        }
        true
    }

    /// A function that runs on after its call is over still has its slot.
    async fn tell_credits(&mut self) -> bool {
        let board = &self.board;
        self.stuck.retain(|task_id| board.runs(*task_id));
        let stuck = u32::try_from(self.stuck.len()).unwrap_or(u32::MAX);
        let slots = self.functions.slots.saturating_sub(stuck);
        if slots == self.slots_told {
            return true;
        }
        self.slots_told = slots;
        self.open.tell(FromWorker::Credits(slots)).await
    }
}

impl Held {
    fn stop(&mut self, why: Stop) {
        if let Some(stop) = self.stop.take() {
            // A call that has ended meanwhile needs no stopping.
            let _ = stop.send(why);
        }
    }
}

impl Stage {
    fn ends_at(&self) -> Option<Instant> {
        match self {
            Stage::Draining(at) => Some(*at),
            Stage::Serving | Stage::Stopping => None,
        }
    }
}

/// Waits until then; without a time for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
