//! What is to be done once a decision is durable. Data, not deeds: tests read it, the conductor performs it.

use std::{sync::Arc, time::Duration};

use avtomatika_proto::{JobId, TaskId, trace::TraceContext};

use super::{ChildSpec, Children};
use crate::{json::Json, time::Timestamp};

/// Something to do. Each can be derived again from the stored job, or is stored with it, so a crash loses none.
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
    /// Start the children that the job waits for, as many at once as its state allows.
    StartChildren,
    /// These children are no longer waited for: cancel those that run.
    CancelChildren(Children),
    /// Start this child, in the same transaction; nobody waits for it.
    StartDetached(Box<ChildSpec>),
    /// Tell the webhook, from a record in the same transaction.
    Notify(Notice),
}

/// What a webhook is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Notice {
    /// The job has ended.
    JobEnded = 1,
    /// A human is asked.
    ApprovalRequested = 2,
}

impl Notice {
    /// The notice with this number, as stored.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::JobEnded, Self::ApprovalRequested].into_iter().find(|notice| *notice as u8 == number)
    }
}

/// An attempt that is ready for a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The attempt.
    pub task_id: TaskId,
    /// Its job.
    pub job_id: JobId,
    /// Whose job it is.
    pub client: Arc<str>,
    /// What a worker must serve.
    pub task_type: Arc<str>,
    /// What else is asked of it: the canonical text of [`Needs`](crate::blueprint::Needs).
    pub needs: Option<Arc<str>>,
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
    /// How far the attempt before it came: JSON text.
    pub checkpoint: Option<Json>,
    /// The trace of its job.
    pub trace: Option<Arc<TraceContext>>,
}
