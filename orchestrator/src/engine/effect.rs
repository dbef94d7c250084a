//! What is to be done once a decision is durable. Data, not deeds: tests read it, the conductor performs it.

use std::{sync::Arc, time::Duration};

use avtomatika_proto::{JobId, TaskId};

use crate::time::Timestamp;

/// Something to do after the commit. Each can be derived again from the stored job, so a crash loses none.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Give this attempt to a worker.
    Offer(Offer),
    /// This attempt is no longer wanted: take it from the queue, or tell the worker that holds it.
    Withdraw {
        /// The attempt.
        task_id: TaskId,
        /// Why, for the worker.
        reason: Arc<str>,
    },
}

/// An attempt that is ready for a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The attempt.
    pub task_id: TaskId,
    /// Its job.
    pub job_id: JobId,
    /// What a worker must serve.
    pub task_type: Arc<str>,
    /// What the handler is given: JSON text.
    pub params: Arc<str>,
    /// Its number, from 1.
    pub attempt: u32,
    /// Higher goes first.
    pub priority: i32,
    /// How long it may run.
    pub timeout: Duration,
    /// Since when it has been ready.
    pub ready_at: Timestamp,
}
