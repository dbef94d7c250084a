//! Why a job is where it is.
//!
//! A job says most of it itself: it is read from the store, as for any reader. Where its task stands in the queue and how its
//! children are doing only the conductor knows, and is asked once, in one message that costs it a bounded look around. A job that
//! has moved on between the two is read again. It refuses to know the words for any of it.

use std::sync::Arc;

use avtomatika_proto::{ApiError, JobId, TaskId};

use super::{
    Conductor,
    core::Core,
    families::{ChildCounts, keys_of},
    gate::AwaitedKey,
    mailbox::Request,
    view::{JobView, LeaseView},
};
use crate::{
    blueprint::Blueprint,
    dispatch::{Obstacle, Standing, Whereabouts},
    engine::{Children, HistoryEntry, HistoryEvent, Job, JobError, JobStatus, KeyScope, Wait, code, outlook},
    time::Timestamp,
};

/// Children that an answer names.
const CHILDREN_NAMED_MAX: usize = 10;

/// Times that a job is read when it moves on while it is being explained.
const READS_MAX: usize = 3;

/// Entries of a history that are read at once, from its end backwards.
const HISTORY_PAGE: usize = 64;

/// Entries of a history that are looked through for what failed last.
const HISTORY_LOOKED_AT_MAX: u64 = 1024;

/// Why a job is where it is, or how it ended.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The job, and who holds its task.
    pub view: JobView,
    /// What it waits for, or how it ended.
    pub situation: Situation,
    /// Since when it has been so.
    pub since: Timestamp,
    /// As of when: the present, or its end.
    pub at: Timestamp,
    /// Attempts that the state's task has at most, where the job stands in a task.
    pub attempts_max: Option<u32>,
    /// What failed last.
    pub failing: Option<Failing>,
    /// Outcomes with which a human may let it go on past its state.
    pub skips: Vec<Arc<str>>,
    /// The disk is full: nothing moves until there is room.
    pub storage_full: bool,
}

/// What a job waits for, or how it ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Situation {
    /// Its first step.
    Accepted,
    /// Something has just happened to it, and what follows is not stored yet.
    Changing,
    /// A worker, to take its task.
    Worker(Box<Standing>),
    /// A worker, to be done with its task.
    Running,
    /// The next attempt at its task.
    Retry,
    /// Its start.
    Start,
    /// A point in time.
    Timer,
    /// A signal.
    Signal,
    /// A human's decision.
    Approval {
        /// What can be decided.
        decisions: Vec<Arc<str>>,
    },
    /// Keys, for all of itself or for its next attempt.
    Keys {
        /// For which of the two.
        scope: KeyScope,
        /// What is in the way. Of those who hold a key, only jobs of the same client are named.
        keys: Vec<AwaitedKey>,
    },
    /// Its children.
    Children {
        /// How they are doing.
        counts: ChildCounts,
        /// The first of those that run.
        running: Vec<JobId>,
    },
    /// Nothing: it has ended.
    Ended,
}

/// What went wrong, where.
#[derive(Debug, Clone, PartialEq)]
pub struct Failing {
    /// The state.
    pub state: Arc<str>,
    /// The attempt, if it was one at a task.
    pub attempt: Option<u32>,
    /// Who had it.
    pub worker_id: Option<Arc<str>>,
    /// What went wrong.
    pub error: JobError,
    /// When.
    pub at: Timestamp,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $name:literal;)*) => {
        /// What a job waits for, or how it ended, in one word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $variant = $number,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Reason] = &[$(Self::$variant),*];

            /// Its name on every surface.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// It takes its first step.
    Accepted = 1 "accepted";
    /// Something has just happened to it.
    Changing = 2 "changing";
    /// It is not to start yet.
    StartTime = 3 "start_time";
    /// Nobody serves its task.
    NoWorker = 4 "no_worker";
    /// Nobody who serves it has a free slot.
    WorkersFull = 5 "workers_full";
    /// Nobody who serves it takes tasks at the moment.
    WorkersPaused = 6 "workers_paused";
    /// All who serve it are about to leave.
    WorkersDraining = 7 "workers_draining";
    /// Workers of before a restart are expected back.
    WorkersExpected = 8 "workers_expected";
    /// A worker is free.
    Dispatching = 9 "dispatching";
    /// The orchestrator stops.
    Stopping = 10 "stopping";
    /// A worker holds its task.
    Running = 11 "running";
    /// Its task is tried again later.
    Retry = 12 "retry";
    /// Its branches run.
    Branches = 13 "branches";
    /// Its child runs.
    Child = 14 "child";
    /// A human has to decide.
    Human = 15 "human";
    /// A signal has to come.
    Event = 16 "event";
    /// A point in time has to come.
    Timer = 17 "timer";
    /// It ended well.
    Finished = 18 "finished";
    /// It ended badly.
    Failed = 19 "failed";
    /// Its client ended it.
    Cancelled = 20 "cancelled";
    /// It was stopped for a human.
    Quarantined = 21 "quarantined";
    /// A key has no room for it.
    Key = 22 "key";
    /// Nobody who serves its task meets what it requires.
    NoSuitableWorker = 23 "no_suitable_worker";
    /// All who serve its task are set aside, because too many jobs failed on them.
    WorkersSetAside = 24 "workers_set_aside";
}

impl Explanation {
    /// The one word for it.
    pub fn reason(&self) -> Reason {
        match &self.situation {
            Situation::Accepted => Reason::Accepted,
            Situation::Changing => Reason::Changing,
            Situation::Worker(standing) => match standing.obstacle {
                Obstacle::Stopping => Reason::Stopping,
                Obstacle::WorkersExpected(_) => Reason::WorkersExpected,
                Obstacle::NoWorker => Reason::NoWorker,
                Obstacle::WorkersDraining => Reason::WorkersDraining,
                Obstacle::WorkersPaused => Reason::WorkersPaused,
                Obstacle::WorkersFull => Reason::WorkersFull,
                Obstacle::NoneSuits => Reason::NoSuitableWorker,
                Obstacle::WorkersSetAside => Reason::WorkersSetAside,
                Obstacle::Turn => Reason::Dispatching,
            },
            Situation::Running => Reason::Running,
            Situation::Retry => Reason::Retry,
            Situation::Start => Reason::StartTime,
            Situation::Timer => Reason::Timer,
            Situation::Signal => Reason::Event,
            Situation::Keys { .. } => Reason::Key,
            Situation::Approval { .. } => Reason::Human,
            Situation::Children { .. } => match self.view.job.status {
                JobStatus::WaitingForChild => Reason::Child,
                _ => Reason::Branches,
            },
            Situation::Ended => match self.view.job.status {
                JobStatus::Finished => Reason::Finished,
                JobStatus::Cancelled => Reason::Cancelled,
                JobStatus::Quarantined => Reason::Quarantined,
                _ => Reason::Failed,
            },
        }
    }

    /// When it goes on by itself, or is given up.
    pub fn until(&self) -> Option<Timestamp> {
        let job = &self.view.job;
        match &self.situation {
            Situation::Worker(standing) => match standing.obstacle {
                Obstacle::WorkersExpected(until) => Some(until),
                _ => job.dispatch_deadline(),
            },
            Situation::Running => self.view.lease.as_ref().map(|lease| lease.deadline),
            Situation::Ended => None,
            Situation::Keys { keys, .. } => keys.iter().filter_map(|key| key.next_token_at).max(),
            _ => job.resumes_at,
        }
    }
}

/// What of a job only the conductor knows.
#[derive(Debug, Default)]
pub(super) struct Question {
    task: Option<(TaskId, Arc<str>)>,
    children: Option<Children>,
    /// The job, if it waits for keys.
    keys: Option<JobId>,
}

/// What the conductor knows.
#[derive(Debug)]
pub(super) struct Facts {
    task: Option<Whereabouts>,
    children: Option<(ChildCounts, Vec<JobId>)>,
    /// What it waits for, and for which of the two.
    keys: Option<(KeyScope, Vec<AwaitedKey>)>,
    storage_full: bool,
    now: Timestamp,
}

impl Question {
    fn about(job: &Job) -> Self {
        let task = job.attempt.as_ref().map(|attempt| (attempt.task_id, attempt.task_type.clone()));
        Self { task, children: job.children().cloned(), keys: job.awaited_keys().map(|_| job.id) }
    }
}

impl Core {
    /// What only the conductor knows of a job that waits.
    pub fn facts(&self, question: &Question) -> Facts {
        let task = question.task.as_ref();
        Facts {
            task: task.map(|(task_id, task_type)| self.dispatch.whereabouts(*task_id, task_type)),
            children: question.children.as_ref().and_then(|children| {
                let running = self.book.open_between(keys_of(children)).take(CHILDREN_NAMED_MAX).collect();
                Some((self.families.counts(children)?, running))
            }),
            keys: question.keys.and_then(|id| self.gate.awaited(id, self.clock.now())),
            storage_full: *self.storage_full.borrow(),
            now: self.clock.now(),
        }
    }
}

impl Conductor {
    /// Why the job is where it is.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, `STORAGE_FAILED`, `OVERLOADED`, `SHUTTING_DOWN`.
    pub async fn explain(&self, client: &Arc<str>, job_id: JobId) -> Result<Explanation, ApiError> {
        for _ in 1..READS_MAX {
            let explanation = self.explain_once(client, job_id).await?;
            if explanation.situation != Situation::Changing {
                return Ok(explanation);
            }
        }
        self.explain_once(client, job_id).await
    }

    async fn explain_once(&self, client: &Arc<str>, job_id: JobId) -> Result<Explanation, ApiError> {
        let job = self.load_own(client, job_id).await?;
        let blueprint = self.blueprints().version(&job.blueprint, job.blueprint_version).cloned();
        let facts = match job.status.is_terminal() {
            true => Facts {
                task: None,
                children: None,
                keys: None,
                storage_full: false,
                now: job.finished_at.unwrap_or(job.updated_at),
            },
            false => {
                let question = Question::about(&job);
                self.mailbox.ask(|reply| Request::Explain(question, reply)).await?
            }
        };
        let (storage_full, at) = (facts.storage_full, facts.now);
        let (mut situation, lease) = situation(&job, blueprint.as_deref(), facts);
        if let Situation::Keys { keys, .. } = &mut situation {
            *keys = self.with_own_holders(client, std::mem::take(keys)).await?;
        }
        let entries = self.looked_back(&job, &situation).await?;
        let blueprint = blueprint.as_deref();
        Ok(Explanation {
            since: since(&job, &situation, lease.as_ref(), &entries),
            failing: failing(&job, &entries),
            attempts_max: blueprint.and_then(|blueprint| outlook::attempts_max(&job, blueprint)),
            skips: blueprint.map(|blueprint| outlook::skips(&job, blueprint)).unwrap_or_default(),
            storage_full,
            at,
            view: JobView { job, lease, children: None },
            situation,
        })
    }

    /// Names only holders that the client may see.
    async fn with_own_holders(
        &self,
        client: &Arc<str>,
        mut keys: Vec<AwaitedKey>,
    ) -> Result<Vec<AwaitedKey>, ApiError> {
        for key in &mut keys {
            let mut own = Vec::new();
            for id in std::mem::take(&mut key.holders) {
                let job = self.read(move |store| store.load(id)).await?;
                own.extend(job.filter(|job| job.client == *client).map(|job| job.id));
            }
            key.holders = own;
        }
        Ok(keys)
    }

    /// The end of the job's history, newest first, as far back as something failed or the present wait began. Nothing when the job
    /// itself says all.
    async fn looked_back(&self, job: &Job, situation: &Situation) -> Result<Vec<HistoryEntry>, ApiError> {
        let by_itself = !matches!(situation, Situation::Timer | Situation::Start | Situation::Retry);
        if by_itself && job.error.is_none() {
            return Ok(Vec::new());
        }
        let (id, from) = (job.id, job.history_len.saturating_sub(HISTORY_LOOKED_AT_MAX));
        let mut before = job.history_len;
        let mut entries = Vec::new();
        while before > from {
            let start = before.saturating_sub(HISTORY_PAGE as u64).max(from);
            let page = self.read(move |store| store.history(id, start, HISTORY_PAGE)).await?;
            // What came since the job was read is not of its past.
            let page: Vec<HistoryEntry> = page.into_iter().filter(|entry| entry.sequence < before).collect();
            let found = match &job.error {
                Some(error) => page.iter().any(|entry| tells_of(entry, error)),
                None => true,
            };
            entries.extend(page.into_iter().rev());
            if found {
                break;
            }
            before = start;
        }
        Ok(entries)
    }
}

/// What the job waits for, and who holds its task.
fn situation(
    job: &Job,
    blueprint: Option<&Blueprint>,
    Facts { task, children, keys, .. }: Facts,
) -> (Situation, Option<LeaseView>) {
    if job.status.is_terminal() {
        return (Situation::Ended, None);
    }
    let situation = match (&job.wait, task) {
        (_, Some(Whereabouts::Held(lease))) => return (Situation::Running, Some(lease)),
        (_, Some(Whereabouts::Ready(standing))) => Situation::Worker(standing),
        (_, Some(Whereabouts::Nowhere)) => Situation::Changing,
        (Some(Wait::Start), None) => Situation::Start,
        (Some(Wait::Timer), None) => Situation::Timer,
        (Some(Wait::Signal { .. }), None) => Situation::Signal,
        (Some(Wait::Keys(scope)), None) => match keys {
            Some((of, keys)) if of == *scope => Situation::Keys { scope: of, keys },
            _ => Situation::Changing,
        },
        (Some(Wait::Approval { .. }), None) => {
            let decisions = blueprint.map(|blueprint| outlook::decisions(job, blueprint));
            Situation::Approval { decisions: decisions.unwrap_or_default() }
        }
        (Some(Wait::Children(_)), None) => match children {
            Some((counts, running)) => Situation::Children { counts, running },
            None => Situation::Changing,
        },
        (None, None) => match job.status {
            JobStatus::WaitingForTimer => Situation::Retry,
            JobStatus::Pending => Situation::Accepted,
            _ => Situation::Changing,
        },
    };
    (situation, None)
}

fn since(
    job: &Job,
    situation: &Situation,
    lease: Option<&LeaseView>,
    looked_back: &[HistoryEntry],
) -> Timestamp {
    let begun = |event| looked_back.iter().find(|entry| entry.event == event).map(|entry| entry.at);
    let known = match situation {
        Situation::Worker(_) => job.attempt.as_ref().map(|attempt| attempt.ready_at),
        Situation::Running => lease.map(|lease| lease.dispatched_at),
        Situation::Retry => begun(HistoryEvent::RetryScheduled),
        Situation::Start | Situation::Timer => begun(HistoryEvent::WaitStarted),
        Situation::Keys { scope, .. } => job.claim_for(*scope).map(|hold| hold.since),
        Situation::Accepted => Some(job.created_at),
        Situation::Ended => job.finished_at,
        Situation::Signal | Situation::Approval { .. } | Situation::Children { .. } => match &job.wait {
            Some(Wait::Signal { since, .. } | Wait::Approval { since, .. }) => Some(*since),
            Some(Wait::Children(children)) => Some(children.since),
            _ => None,
        },
        Situation::Changing => None,
    };
    known.unwrap_or(job.updated_at)
}

/// What failed last, if the job carries an error.
fn failing(job: &Job, looked_back: &[HistoryEntry]) -> Option<Failing> {
    let error = job.error.clone()?;
    if *error.code == *code::END_STATE
        && let Some(earlier) = failed_earlier(job, looked_back)
    {
        return Some(earlier);
    }
    // The state that failed before the last state of all, unless that is itself what is wrong.
    let led_here =
        matches!(job.status, JobStatus::Failed | JobStatus::Quarantined) && *error.code != *code::END_STATE;
    let state = job.failed_state.clone().filter(|_| led_here).unwrap_or_else(|| job.state.clone());
    let told = || looked_back.iter().filter(|entry| tells_of(entry, &error));
    let entry =
        told().find(|entry| entry.worker_id.is_some() && entry.state == state).or_else(|| told().next());
    Some(Failing {
        state,
        attempt: entry.and_then(|entry| entry.attempt),
        worker_id: entry.and_then(|entry| entry.worker_id.clone()),
        at: entry.map_or(job.updated_at, |entry| entry.at),
        error,
    })
}

/// What failed before a bad end that no error led to at once, such as a step whose forerunners were then undone.
fn failed_earlier(job: &Job, looked_back: &[HistoryEntry]) -> Option<Failing> {
    let state = job.failed_state.as_ref()?;
    let mut back = looked_back.iter().skip_while(|entry| entry.from_state.as_ref() != Some(state));
    // What the state was left with, if that was a failure and not a word of its own.
    let entry = back.find(|entry| entry.event != HistoryEvent::StateEntered)?;
    let error = entry.error.clone().filter(|_| entry.state == *state)?;
    Some(Failing {
        state: state.clone(),
        attempt: entry.attempt,
        worker_id: entry.worker_id.clone(),
        at: entry.at,
        error,
    })
}

/// Whether this is an entry about this error. The message of the last attempt's error says how many there were, so only the codes
/// are compared.
fn tells_of(entry: &HistoryEntry, error: &JobError) -> bool {
    match entry.event {
        HistoryEvent::SignalKept => false,
        HistoryEvent::WorkerLost => *error.code == *code::WORKER_LOST,
        _ => entry.error.as_ref().is_some_and(|told| told.code == error.code),
    }
}
