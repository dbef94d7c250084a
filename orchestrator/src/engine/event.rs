//! What can happen to a job, as the engine is told it.

use std::{fmt, sync::Arc, time::Duration};

use avtomatika_proto::{JobId, TaskId};

use super::{Displaced, JobError, MAP_BRANCHES_MAX, Signal};
use crate::json::Json;

/// Something that happened. Any of them may come twice, late, or for a job that has moved on.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The job was accepted and takes its first step.
    Submitted,
    /// A worker says how an attempt ended.
    Reported(Report),
    /// The worker that held this attempt is gone.
    WorkerLost {
        /// The attempt that it held.
        task_id: TaskId,
        /// Its name.
        worker_id: Arc<str>,
        /// How far it came, as far as is known.
        checkpoint: Option<Json>,
    },
    /// The worker that holds this attempt has not answered within the attempt's time.
    AttemptTimedOut {
        /// The attempt.
        task_id: TaskId,
        /// Who holds it.
        worker_id: Arc<str>,
        /// How far it came, as far as is known.
        checkpoint: Option<Json>,
    },
    /// The worker that holds this attempt has said how far it is, and that shall outlive this process.
    Checkpointed {
        /// The attempt.
        task_id: TaskId,
        /// Who holds it.
        worker_id: Arc<str>,
        /// How far it is.
        checkpoint: Json,
    },
    /// The attempt cannot be offered to workers: its params no longer compute, though they did when it was made.
    NotOfferable {
        /// The attempt.
        task_id: TaskId,
    },
    /// A point in time that the job waited for has come.
    Due {
        /// Whether a worker holds the current attempt.
        task_is_held: bool,
    },
    /// The child cannot be started: its first and last news.
    Stillborn(JobError),
    /// News from outside.
    Signalled(Signal),
    /// A human has decided.
    Decided(Ruling),
    /// All children have ended that the job waits for.
    ChildrenEnded(Harvest),
    /// The keys have room for which the job waits.
    KeysGranted,
    /// Somebody newer takes a key that the job or its attempt holds.
    Displaced(Displaced),
    /// A human wants the job to try again.
    RetryRequested(Retry),
    /// A human says what the present state shall have ended with.
    SkipRequested(Skip),
    /// A human moves the job to another version of its blueprint. The engine is given that version.
    MigrateRequested(Migration),
    /// The client wants the job to end.
    CancelRequested {
        /// Why, for the history.
        reason: Option<Arc<str>>,
    },
}

/// How an attempt ended, from the worker that ran it.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The attempt.
    pub task_id: TaskId,
    /// Who reports it.
    pub worker_id: Arc<str>,
    /// Whether the reporter's session is the one that the attempt was given to.
    pub by_holder: bool,
    /// `success`, `failure`, `timeout`, `cancelled`, or a word of the blueprint's own.
    pub outcome: Arc<str>,
    /// What to merge into the state history.
    pub data: Json,
    /// Why it failed.
    pub error: Option<JobError>,
    /// How long the worker held it.
    pub held_for: Option<Duration>,
    /// How far it came, as far as is known.
    pub checkpoint: Option<Json>,
}

/// What a human decided.
#[derive(Clone, PartialEq)]
pub struct Ruling {
    /// The approval's token; without it the client that owns the job has decided.
    pub token: Option<Arc<str>>,
    /// One of the state's transitions.
    pub decision: Arc<str>,
    /// Who, in their own words or by the client's name.
    pub by: Arc<str>,
    /// Why.
    pub comment: Option<Arc<str>>,
    /// What to merge into the state history.
    pub data: Json,
}

impl fmt::Debug for Ruling {
    /// Without the token: it is a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token: _, decision, by, comment, data } = self;
        let mut shown = f.debug_struct("Ruling");
        shown.field("decision", decision).field("by", by).field("comment", comment).field("data", data);
        shown.finish_non_exhaustive()
    }
}

/// What the children of a job ended with.
#[derive(Debug, Clone, PartialEq)]
pub struct Harvest {
    /// The first of the children: tells these from those of an earlier state.
    pub first: JobId,
    /// One for each child, in order.
    pub results: Result<Vec<ChildResult>, JobError>,
}

impl Harvest {
    /// Whether this job is one of the children.
    pub fn covers(&self, job_id: JobId) -> bool {
        let distance = u32::try_from(job_id.key() - self.first.key());
        distance.is_ok_and(|distance| distance < MAP_BRANCHES_MAX && self.first.sibling(distance) == job_id)
    }
}

/// What one child ended with.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildResult {
    /// `success`, `failure`, `cancelled`, `quarantined`, or a branch's own word.
    pub outcome: Arc<str>,
    /// Whether it counts as failed.
    pub failed: bool,
    /// Its result.
    pub data: Option<Json>,
    /// Why it failed.
    pub error: Option<JobError>,
}

/// How to try a job again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Where; the state in which it ended when nobody says.
    pub state: Option<Arc<str>>,
    /// What becomes of the input.
    pub initial_data: Option<Edit>,
    /// What becomes of the state history.
    pub state_history: Option<Edit>,
    /// Who.
    pub by: Arc<str>,
    /// Why.
    pub reason: Option<Arc<str>>,
    /// Makes it safe to repeat.
    pub key: Option<RepairKey>,
}

/// Tells a repair that is repeated from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairKey {
    /// The name that whoever asks has given to it.
    pub id: Arc<str>,
    /// Of what was asked for under that name.
    pub fingerprint: u64,
}

/// A change of data by a human.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// This instead.
    Replace(Json),
    /// These members over those that are there; one that is `null` takes its member out.
    Patch(Json),
}

impl Edit {
    /// The data after the change.
    pub fn apply(&self, data: &Json) -> Json {
        match self {
            Self::Replace(data) => data.clone(),
            Self::Patch(patch) => data.patched(patch),
        }
    }
}

/// What the present state shall have ended with.
#[derive(Debug, Clone, PartialEq)]
pub struct Skip {
    /// Selects the transition.
    pub outcome: Arc<str>,
    /// What to merge into the state history.
    pub data: Json,
    /// Who.
    pub by: Arc<str>,
    /// Why.
    pub reason: Option<Arc<str>>,
    /// Makes it safe to repeat.
    pub key: Option<RepairKey>,
}

/// Where a job is to be moved.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// To this version of its blueprint.
    pub version: u32,
    /// To this state, when the present one has another name there.
    pub state: Option<Arc<str>>,
    /// Whether a worker holds the current attempt.
    pub task_is_held: bool,
    /// Who.
    pub by: Arc<str>,
}
