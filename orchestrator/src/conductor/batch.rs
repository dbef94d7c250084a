//! What one transaction holds: what to write, and what to do once it is written.

use std::sync::Arc;

use avtomatika_proto::{ApiError, JobId, SessionId, TaskId};
use tokio::sync::mpsc;

use super::{
    admission::Admission,
    book::Entry,
    keys::SeatBefore,
    mailbox::{Accepted, Follow, Registered, Reply},
    migration::Move,
    view::{Acted, JobView},
};
use crate::{
    blueprint::{Change, Registry},
    dispatch::{Mark, Verdict},
    engine::{Effect, Event, Job},
    metrics::Tally,
    store::{self, NoticeRecord, Reproach, ScheduleRecord, SessionRecord},
};

/// Decisions that become durable together.
#[derive(Default)]
pub(super) struct Batch {
    /// For the store.
    pub writes: store::Batch,
    /// For afterwards, in the order of the decisions. Answers that change nothing stand here too: they may rest on
    /// decisions before them that are not durable yet.
    pub afterwards: Vec<Afterwards>,
}

/// One thing to do when the batch is durable, or to undo when it cannot be.
pub(super) enum Afterwards {
    /// A job has changed: perform the effects, tell the watchers.
    Changed {
        job: Arc<Job>,
        before: Option<Entry>,
        /// What the gate knew of it, if that has changed.
        seat: Option<Box<SeatBefore>>,
        effects: Vec<Effect>,
        /// What to decide again when the commit fails and nobody outside would repeat it.
        again: Option<Event>,
        /// What it adds to the counters.
        tally: Tally,
    },
    /// Tell the submitter.
    Submitted { job: Arc<Job>, accepted: Accepted, follow: Follow, reply: Reply<Result<Accepted, ApiError>> },
    /// Tell whoever did something to the job.
    Acted { job: Arc<Job>, repeated: bool, reply: Reply<Result<Acted, ApiError>> },
    /// Start the watch.
    Watched { job: Arc<Job>, sender: mpsc::Sender<JobView>, reply: Reply<Result<(), ApiError>> },
    /// Tell the worker what became of its result.
    Answered { session_id: SessionId, task_id: TaskId, verdict: Verdict, mark: Mark },
    /// The session may be used: end the one that it replaces, tell the worker.
    Registered { record: SessionRecord, reply: Reply<Result<Registered, ApiError>> },
    /// The session's end is stored.
    SessionRemoved(SessionId),
    /// What is held against a worker is stored, where this was before.
    Reproached { worker_id: Arc<str>, before: Option<Reproach> },
    /// Tell the chore how many jobs are forgotten.
    Pruned { forgotten: Vec<JobId>, reply: Reply<Result<usize, ApiError>> },
    /// A webhook is owed this.
    Owed(Box<NoticeRecord>),
    /// What came of a message is stored.
    NoticeSettled { record: Arc<NoticeRecord>, reply: Reply<Result<(), ApiError>> },
    /// Messages are to be delivered again.
    Redelivered {
        before: Vec<NoticeRecord>,
        records: Vec<NoticeRecord>,
        reply: Reply<Result<Vec<NoticeRecord>, ApiError>>,
    },
    /// These blueprints may be served: put them in force.
    Enacted { registry: Arc<Registry>, changes: Vec<Change>, reply: Reply<Result<Vec<Change>, ApiError>> },
    /// A job that has ended was changed, and has ended still.
    Amended { job: Arc<Job>, before: Option<Entry> },
    /// Tell what became of the jobs that were to move.
    Migrated { moves: Vec<Move>, reply: Reply<Result<Vec<Move>, ApiError>> },
    /// Tell the chore how far the schedule has come, and with which job.
    Scheduled {
        record: ScheduleRecord,
        job: Option<Arc<Job>>,
        reply: Reply<Result<ScheduleRecord, ApiError>>,
    },
    /// Tell the chore that it is remembered.
    SchedulesKept(Reply<Result<(), ApiError>>),
    /// This was noticed, and no longer mattered for the job as decided. Should those decisions come to nothing, it matters.
    Noticed { job_id: JobId, event: Event },
    /// A large payload is durable: the next one may come in.
    Admitted(Admission),
    /// The key is in the store: forget that it was on its way there.
    KeyStored { client: Arc<str>, key: Arc<str>, job_id: JobId },
}

impl Afterwards {
    /// The job that was changed.
    pub fn changed(&self) -> Option<JobId> {
        match self {
            Self::Changed { job, .. } | Self::Amended { job, .. } => Some(job.id),
            _ => None,
        }
    }
}

impl Batch {
    /// An empty one with room for as much as this one holds.
    pub fn with_room_of(other: &Self) -> Self {
        Self {
            writes: store::Batch { writes: Vec::with_capacity(other.writes.writes.len()) },
            afterwards: Vec::with_capacity(other.afterwards.len()),
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.writes.writes.is_empty() && self.afterwards.is_empty()
    }
}
