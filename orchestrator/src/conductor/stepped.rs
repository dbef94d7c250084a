//! The conductor without threads: whoever drives it decides when a batch becomes durable, when the loader reads and answers,
//! and when time passes. For simulations.
//!
//! It decides nothing: everything goes through the same `House::turn` as in a running orchestrator. It promises that nothing
//! happens between two calls.

mod chores;

use std::{sync::Arc, time::Duration};

use avtomatika_proto::{ApiError, JobId, SessionId, TaskId};
use tokio::sync::{mpsc, oneshot};

pub use super::mailbox::Accepted;
use super::{
    WATCH_BACKLOG_MAX,
    admission::Admission,
    book::Version,
    core::{Core, Settings},
    handle::fingerprint,
    loader::{self, Loaded, Wanted},
    mailbox::{Act, Follow, FromWorker, Registered, Reply, Request, Submit},
    turn::{Happening, Helpers, House},
    view::{Acted, JobView, SubmitRequest, Submitted},
};
use crate::{
    blueprint::{Catalog, Registry},
    dispatch::Outbox,
    engine::{Event, Job},
    metrics::Metrics,
    store::{Batch, Removal, Store, StoreError, WorkerRecord},
    time::{Clock, Timestamp},
};

/// A conductor that stands still between two calls.
pub struct Stepped {
    house: House,
    helpers: Held,
    arrived: Vec<Request>,
}

/// What the helpers were asked for and have not done.
#[derive(Default)]
struct Held {
    batch: Option<Batch>,
    wanted: Option<Vec<Wanted>>,
}

impl Helpers for Held {
    fn commit(&mut self, batch: Batch) {
        self.batch = Some(batch);
    }

    fn load(&mut self, wanted: Vec<Wanted>) -> Result<(), StoreError> {
        self.wanted = Some(wanted);
        Ok(())
    }
}

/// What the loader has read, on its way back.
pub struct Reading(Vec<Loaded>);

/// An answer that may have been given already.
pub struct Answer<T>(oneshot::Receiver<T>);

/// Whether an answer has been given.
#[derive(Debug)]
pub enum Answered<T> {
    /// This one.
    Yes(T),
    /// Not yet.
    NotYet,
    /// There will be none: the conductor is gone.
    Never,
}

/// What will move an open job on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Whether a change of the job has been decided and is not durable yet.
    pub is_changing: bool,
    /// For when its timer is armed.
    pub timer: Option<Timestamp>,
    /// Who holds its attempt.
    pub holder: Option<SessionId>,
    /// Whether its attempt stands in a queue.
    pub is_queued: bool,
    /// Whether its children are looked after.
    pub has_family: bool,
    /// Whether it stands in line for keys.
    pub stands_in_line: bool,
    /// Whether it has its turn there, or somebody has, for which there is no room in the batch or on the disk; or whether nobody gets a
    /// turn for now, because the store cannot be read or the process is stopping.
    pub has_its_turn: bool,
    /// Whether something that was noticed of it is to be decided again.
    pub is_to_be_tried_again: bool,
}

/// Whether the conductor goes on. It does not when it has stopped as it was asked to.
type Turned = Result<bool, StoreError>;

impl<T> Answer<T> {
    fn new() -> (Reply<T>, Self) {
        let (reply, answer) = oneshot::channel();
        (reply, Self(answer))
    }

    /// Looks whether the answer has been given.
    pub fn look(&mut self) -> Answered<T> {
        match self.0.try_recv() {
            Ok(answer) => Answered::Yes(answer),
            Err(oneshot::error::TryRecvError::Empty) => Answered::NotYet,
            Err(oneshot::error::TryRecvError::Closed) => Answered::Never,
        }
    }
}

/// The answer to a submission.
pub type Acceptance = Answer<Result<Accepted, ApiError>>;

impl Acceptance {
    /// Looks whether a submission has been answered.
    pub fn look_accepted(&mut self) -> Answered<Result<Submitted, ApiError>> {
        let submitted = |Accepted { job_id, deduplicated }| Submitted { job_id, deduplicated, job: None };
        match self.look() {
            Answered::Yes(answer) => Answered::Yes(answer.map(submitted)),
            Answered::NotYet => Answered::NotYet,
            Answered::Never => Answered::Never,
        }
    }
}

impl Stepped {
    /// Recovers what the store holds.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn recover(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        blueprints: Arc<Registry>,
        settings: Settings,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        let core = Core::recover(store, clock, Catalog::new(blueprints), settings, metrics)?;
        Ok(Self { house: House::of(core), helpers: Held::default(), arrived: Vec::new() })
    }

    // ---- What arrives: each waits in the mailbox for the next [`Stepped::take_in`] ----

    /// See [`Conductor::submit`](super::Conductor::submit). With `follow`, the job's end is told too.
    ///
    /// # Errors
    /// When no such blueprint is served.
    pub fn submit(
        &mut self,
        client: &Arc<str>,
        request: SubmitRequest,
        follow: bool,
    ) -> Option<(Acceptance, Option<Answer<JobView>>)> {
        let SubmitRequest { blueprint: name, mut submission, idempotency_key, delay, .. } = request;
        let blueprint = self.house.core.blueprints.newest(&name)?.clone();
        let idempotency = idempotency_key.map(|key| (key, fingerprint(&name, &submission, delay)));
        let now = self.house.core.clock.now();
        submission.start_at = delay.map(|delay| now + delay).or(submission.start_at);
        let (follow, end) = if follow {
            let (reply, end) = Answer::new();
            (Follow::End(reply), Some(end))
        } else {
            (Follow::Not, None)
        };
        let submit = Submit {
            client: client.clone(),
            blueprint: Ok(blueprint),
            submission: Arc::new(submission),
            idempotency,
            follow,
            admission: Admission::default(),
        };
        let (reply, answer) = Answer::new();
        self.arrived.push(Request::Submit(submit, reply));
        Some((answer, end))
    }

    /// Something is to be done to a job. Without a client, what the event brings must prove its right.
    pub fn act(
        &mut self,
        client: Option<&Arc<str>>,
        job_id: JobId,
        event: Event,
    ) -> Answer<Result<Acted, ApiError>> {
        let (reply, answer) = Answer::new();
        let (client, event, admission) = (client.cloned(), Box::new(event), Admission::default());
        self.arrived.push(Request::Act(Act { client, job_id, event, seen: None, admission }, reply));
        answer
    }

    /// See [`Conductor::watch`](super::Conductor::watch).
    pub fn watch(
        &mut self,
        client: &Arc<str>,
        job_id: JobId,
    ) -> (Answer<Result<(), ApiError>>, mpsc::Receiver<JobView>) {
        let (sender, updates) = mpsc::channel(WATCH_BACKLOG_MAX);
        let (reply, answer) = Answer::new();
        self.arrived.push(Request::Watch { client: client.clone(), job_id, sender, reply });
        (answer, updates)
    }

    /// See [`Sessions::register`](super::Sessions::register).
    pub fn register(
        &mut self,
        worker: WorkerRecord,
        credential: [u8; 32],
    ) -> Answer<Result<Registered, ApiError>> {
        let (reply, answer) = Answer::new();
        self.arrived.push(Request::Register { worker, credential, reply });
        answer
    }

    /// See [`Sessions::open`](super::Sessions::open). The answer is the number of the stream.
    pub fn open(
        &mut self,
        session_id: SessionId,
        credential: [u8; 32],
        held: Vec<TaskId>,
        outbox: Outbox,
    ) -> Answer<Result<u64, ApiError>> {
        let (reply, answer) = Answer::new();
        self.arrived.push(Request::Open { session_id, credential, terms: None, held, outbox, reply });
        answer
    }

    /// A worker says something on its stream.
    pub fn tell(&mut self, session_id: SessionId, stream: u64, message: FromWorker) {
        let admission = Admission::default();
        self.arrived.push(Request::FromWorker { session_id, stream, message, admission });
    }

    /// See [`Conductor::prune`](super::Conductor::prune).
    pub fn prune(&mut self, removals: Vec<Removal>) -> Answer<Result<usize, ApiError>> {
        let (reply, answer) = Answer::new();
        self.arrived.push(Request::Prune(removals, reply));
        answer
    }

    /// See [`Conductor::drain`](super::Conductor::drain).
    pub fn drain(&mut self) -> Answer<()> {
        let (reply, answer) = Answer::new();
        self.arrived.push(Request::Drain(reply));
        answer
    }

    // ---- What happens: one turn each. The answer is whether the conductor goes on: it does not when it has stopped as asked ----

    /// Whether a turn would take in requests: there are some, and there is room in the batch.
    pub fn has_arrived(&self) -> bool {
        self.is_behind() && self.house.room() > 0
    }

    /// Whether something has arrived that is not taken in yet, perhaps for want of room.
    pub fn is_behind(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Takes in what has arrived, as far as there is room.
    ///
    /// # Errors
    /// Those of the store that nothing can go on after.
    pub fn take_in(&mut self) -> Turned {
        let rest = self.arrived.split_off(self.house.room().min(self.arrived.len()));
        let mut now = std::mem::replace(&mut self.arrived, rest);
        let turned = self.turn(Happening::Requests(&mut now));
        if self.arrived.is_empty() {
            // Its memory is used again.
            self.arrived = now;
        }
        turned
    }

    /// Time has passed.
    ///
    /// # Errors
    /// Those of the store that nothing can go on after.
    pub fn pass_time(&mut self) -> Turned {
        self.turn(Happening::TimePassed)
    }

    /// The batch that is with the store, until [`Stepped::committed`].
    pub fn batch(&self) -> Option<&Batch> {
        self.helpers.batch.as_ref()
    }

    /// What became of that batch.
    ///
    /// # Errors
    /// Those of the store that nothing can go on after.
    pub fn committed(&mut self, outcome: Result<(), StoreError>) -> Turned {
        self.helpers.batch = None;
        self.turn(Happening::Committed(outcome))
    }

    /// Whether the loader has been asked for jobs.
    pub fn wants_loading(&self) -> bool {
        self.helpers.wanted.is_some()
    }

    /// The loader reads. What it has read is to be brought to [`Stepped::loaded`].
    pub fn read(&mut self) -> Option<Reading> {
        let wanted = self.helpers.wanted.take()?;
        let core = &self.house.core;
        Some(Reading(loader::load(&*core.store, &core.blueprints, &wanted)))
    }

    /// Whether something of what was read has changed meanwhile.
    pub fn is_outdated(&self, reading: &Reading) -> bool {
        let is_outdated = |loaded: &Loaded| {
            let resting = self.house.core.book.resting(loaded.wanted.place.job_key());
            resting != Some((loaded.wanted.id, loaded.wanted.version))
        };
        reading.0.iter().any(is_outdated)
    }

    /// What was read is there.
    ///
    /// # Errors
    /// Those of the store that nothing can go on after.
    pub fn loaded(&mut self, reading: Reading) -> Turned {
        self.turn(Happening::Loaded(reading.0))
    }

    fn turn(&mut self, happening: Happening<'_>) -> Turned {
        Ok(self.house.turn(happening, &mut self.helpers)?.is_continue())
    }

    /// Whether something has been decided that no batch with the store has.
    pub fn has_more_decided(&self) -> bool {
        !self.house.core.batch.is_empty()
    }

    /// How long until something is due.
    pub fn until_due(&self) -> Duration {
        self.house.core.until_due()
    }

    // ---- What can be seen from outside, for those who check ----

    /// What will move this job on, which is open and durable as it is given; `None` when the conductor does not know it.
    pub fn hold(&self, job: &Job) -> Option<Hold> {
        let core = &self.house.core;
        let (version, timer) = core.book.standing(job.id)?;
        let task_id = job.attempt.as_ref().map(|attempt| attempt.task_id);
        let lease = task_id.and_then(|task_id| core.dispatch.lease(task_id));
        Some(Hold {
            is_changing: version != Version::of(job),
            timer,
            holder: lease.map(|lease| lease.session_id),
            is_queued: task_id.is_some_and(|task_id| core.dispatch.is_queued(task_id)),
            has_family: job.children().is_some_and(|children| core.families.counts(children).is_some()),
            stands_in_line: core.gate.stands_in_line(job.id),
            has_its_turn: core.gate.is_busy() || core.gate_is_held_up(core.clock.now()),
            is_to_be_tried_again: core.again.iter().any(|(job_id, _)| *job_id == job.id),
        })
    }

    /// Jobs that the conductor takes for open.
    pub fn open_total(&self) -> usize {
        self.house.core.book.open_total()
    }

    /// Every lease: the attempt, its job, and the session that holds it.
    pub fn leases(&self) -> impl Iterator<Item = (TaskId, JobId, SessionId)> {
        self.house.core.dispatch.leases().map(|(task_id, lease)| (task_id, lease.job_id, lease.session_id))
    }

    /// Ready tasks that no worker holds.
    pub fn queued_total(&self) -> usize {
        self.house.core.dispatch.ready_counts().values().map(|count| *count as usize).sum()
    }

    /// Whether a session is connected.
    pub fn is_connected(&self, session_id: SessionId) -> bool {
        self.house.core.dispatch.roster().get(session_id).is_some()
    }

    /// Bytes that waiting jobs and the params of ready tasks take.
    pub fn resident_bytes(&self) -> usize {
        self.house.core.resident_bytes()
    }
}
