//! What can happen to a job, as the engine is told it.

use std::{sync::Arc, time::Duration};

use avtomatika_proto::TaskId;

use super::JobError;
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
    },
    /// The worker that holds this attempt has not answered within the attempt's time.
    AttemptTimedOut {
        /// The attempt.
        task_id: TaskId,
        /// Who holds it.
        worker_id: Arc<str>,
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
}
