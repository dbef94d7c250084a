//! What others may see of a job, a worker and the whole: committed state, with what only this process knows laid over it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::families::ChildCounts;
use crate::{
    engine::{Job, JobStatus},
    json::Json,
    store::WorkerRecord,
    time::Timestamp,
};

/// A committed job, and who holds its task.
#[derive(Debug, Clone)]
pub struct JobView {
    /// The job as committed.
    pub job: Arc<Job>,
    /// Present while a worker holds the job's current attempt.
    pub lease: Option<LeaseView>,
    /// How far the children are that the job waits for, where somebody asked.
    pub children: Option<ChildCounts>,
}

/// What was done to a job.
#[derive(Debug, Clone)]
pub struct Acted {
    /// The job afterwards.
    pub view: JobView,
    /// Whether it had been done before, so that nothing has changed.
    pub repeated: bool,
}

impl JobView {
    /// How far the job's task is, or was when its last attempt ended without a result: what the next attempt would be given.
    pub fn checkpoint(&self) -> Option<&Json> {
        let said = self.lease.as_ref().and_then(|lease| lease.progress.as_ref()?.checkpoint.as_ref());
        said.or(self.job.checkpoint.as_ref())
    }

    /// Where the job stands: as stored, except that a task in a worker's hands reads as running.
    pub fn status(&self) -> JobStatus {
        match self.lease {
            Some(_) => JobStatus::Running,
            None => self.job.status,
        }
    }
}

/// An attempt in a worker's hands. Not durable.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaseView {
    /// The worker.
    pub worker_id: Arc<str>,
    /// Since when.
    pub dispatched_at: Timestamp,
    /// Until when.
    pub deadline: Timestamp,
    /// What the worker last said of it.
    pub progress: Option<Progress>,
}

/// How far a handler says it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// 0.0 to 1.0.
    pub fraction: f64,
    /// For people.
    pub message: Arc<str>,
    /// What the next attempt should be given, if this one does not come to its end.
    pub checkpoint: Option<Json>,
}

/// A connected worker.
#[derive(Debug, Clone)]
pub struct WorkerView {
    /// What it said of itself.
    pub worker: Arc<WorkerRecord>,
    /// What it is doing.
    pub status: WorkerStatus,
    /// Tasks that it holds.
    pub running_tasks: u32,
    /// Its own figure, or the share of its slots that are taken.
    pub load: f64,
    /// Task types that it has warm.
    pub hot_cache: Vec<Arc<str>>,
    /// How well its tasks end, from a little over 0 to 1.
    pub reputation: f64,
    /// Until when it gets no tasks, because too many jobs failed on it.
    pub aside_until: Option<Timestamp>,
    /// Tasks that it was told to stop and did not stop in time, since it connected.
    pub unstopped_tasks: u32,
    /// When its stream was opened.
    pub connected_at: Timestamp,
}

/// What a connected worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerStatus {
    /// Holds no task.
    Idle,
    /// Holds tasks and has free slots.
    Busy,
    /// Has no free slot.
    Full,
    /// Takes no more tasks.
    Draining,
    /// Gets no tasks for a time, because too many jobs failed on it.
    SetAside,
    /// Gets no tasks until it is heard again: it has been silent for longer than it should.
    Suspected,
}

impl WorkerStatus {
    /// Its name on every surface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Draining => "draining",
            Self::SetAside => "set_aside",
            Self::Suspected => "suspected",
        }
    }
}

/// Counts of the whole.
#[derive(Debug, Clone)]
pub struct Stats {
    /// Open jobs by status, and jobs that ended since the start by status.
    pub jobs: BTreeMap<JobStatus, u64>,
    /// Workers with an open stream.
    pub connected_workers: u64,
    /// Ready tasks that no worker holds, by type.
    pub ready_tasks: BTreeMap<Arc<str>, u64>,
    /// Tasks in workers' hands.
    pub running_tasks: u64,
    /// Messages that wait for webhooks.
    pub undelivered_notices: u64,
    /// When the orchestrator started.
    pub started_at: Timestamp,
}

/// A job was accepted, durably.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// Its name.
    pub job_id: avtomatika_proto::JobId,
    /// Whether an earlier request with the same key made it.
    pub deduplicated: bool,
    /// The job when the wait ended; `None` when nobody waited.
    pub job: Option<JobView>,
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct SubmitRequest {
    /// Name of the blueprint; the newest version is taken.
    pub blueprint: Arc<str>,
    /// What the job starts with.
    pub submission: crate::engine::Submission,
    /// Makes the request safe to repeat.
    pub idempotency_key: Option<Arc<str>>,
    /// Start the job this much later than it is accepted. Whoever repeats a request means the same delay, and not the same time.
    pub delay: Option<Duration>,
    /// How long to hold the answer for the end of the job; zero answers when it is accepted.
    pub wait: Duration,
}

impl SubmitRequest {
    /// A job of this blueprint with this input, and nothing else asked for.
    pub fn of(blueprint: &str, initial_data: Json) -> Self {
        Self {
            blueprint: Arc::from(blueprint),
            submission: crate::engine::Submission::of(initial_data),
            idempotency_key: None,
            delay: None,
            wait: Duration::ZERO,
        }
    }
}
