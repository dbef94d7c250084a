//! What has to be known of an open job that rests, so that the job itself can stay in the store until it is needed.
//!
//! A stub follows from its job and is committed with it. It says when the job must be looked at again (by the clock, or by a
//! worker that is free) and what the job was then, so that a later one is not taken for it. It refuses to hold anything whose
//! size a client chooses without a limit.

use std::sync::Arc;

use avtomatika_proto::{JobId, TaskId};

use crate::{
    engine::{Children, Hold, Job, JobStatus, KeyScope},
    time::Timestamp,
};

/// An open job as last committed, without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stub {
    /// The job.
    pub id: JobId,
    /// Whose job it is.
    pub client: Arc<str>,
    /// Where it stands. Never terminal.
    pub status: JobStatus,
    /// Entries in its history. It grows with every change, hence it tells one version of the job from another.
    pub history_len: u64,
    /// When the first thing that it waits for becomes due, if the clock brings any.
    pub next_due: Option<Timestamp>,
    /// The task that waits for a worker.
    pub task: Option<StubTask>,
    /// The children that it waits for.
    pub children: Option<Children>,
    /// The parent that waits for it.
    pub parent: Option<JobId>,
    /// The keys that it holds or waits for.
    pub keys: Option<Box<StubKeys>>,
}

/// The keys of a job, as far as a queue must know them. They come from expressions of its blueprint, which bounds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StubKeys {
    /// What the job takes from its start to its end.
    pub job: Option<Hold>,
    /// What its attempt takes.
    pub task: Option<Hold>,
    /// Which of them it waits for.
    pub waits: Option<KeyScope>,
    /// Higher goes first.
    pub priority: i32,
}

impl StubKeys {
    fn of(job: &Job) -> Option<Box<Self>> {
        job.has_claims().then(|| {
            Box::new(Self {
                job: job.claim.clone(),
                task: job.task_claim.clone(),
                waits: job.awaited_keys(),
                priority: job.submission.priority,
            })
        })
    }
}

/// A ready task, as far as a queue must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StubTask {
    /// The attempt.
    pub task_id: TaskId,
    /// Whose job it is.
    pub client: Arc<str>,
    /// What a worker must serve.
    pub task_type: Arc<str>,
    /// What else is asked of it.
    pub needs: Option<Arc<str>>,
    /// Higher goes first.
    pub priority: i32,
    /// Since when it has been ready.
    pub ready_at: Timestamp,
}

impl Stub {
    /// The stub of a job; `None` when the job has ended.
    pub fn of(job: &Job) -> Option<Self> {
        if job.status.is_terminal() {
            return None;
        }
        let task = job.attempt.as_ref().map(|attempt| StubTask {
            task_id: attempt.task_id,
            client: job.client.clone(),
            task_type: attempt.task_type.clone(),
            needs: attempt.needs.clone(),
            priority: job.submission.priority,
            ready_at: attempt.ready_at,
        });
        Some(Self {
            id: job.id,
            client: job.client.clone(),
            status: job.status,
            history_len: job.history_len,
            next_due: job.first_due(),
            task,
            children: job.children().cloned(),
            parent: job.waiting_parent().map(|parent| parent.job_id),
            keys: StubKeys::of(job),
        })
    }
}
