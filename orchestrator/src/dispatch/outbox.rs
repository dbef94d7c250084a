//! What goes down one worker's stream, in domain words, and the queue that holds it until the stream takes it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use avtomatika_proto::TaskId;
use tokio::sync::mpsc;

use crate::{engine::Offer, time::Timestamp};

/// Messages that may wait for a stream. Tasks are bounded by the worker's credits and answers by its reports, so a stream that
/// is this far behind does not read any more.
pub const OUTBOX_MAX: usize = 32 * 1024;

/// One thing to tell a worker.
#[derive(Debug, Clone)]
pub enum ToWorker {
    /// The stream is open.
    Welcome {
        /// Go on with these.
        adopted: Vec<TaskId>,
        /// Drop these.
        dropped: Vec<TaskId>,
    },
    /// Run this.
    Task(Box<Assignment>),
    /// Stop this.
    Cancel {
        /// The attempt.
        task_id: TaskId,
        /// Why.
        reason: Arc<str>,
    },
    /// What became of a reported result.
    Ack {
        /// The attempt.
        task_id: TaskId,
        /// What became of it.
        verdict: Verdict,
    },
    /// Stop in order: somebody wants this worker to end.
    Drain,
    /// The orchestrator is about to stop.
    Draining,
    /// The stream ends here.
    Goodbye(Farewell),
}

/// Why the orchestrator ends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// It stops; the worker comes back with the same session.
    Shutdown,
    /// Another registration took the worker's name.
    Replaced,
    /// Another stream took the session.
    StreamTaken,
}

/// A task on its way to a worker.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The task.
    pub offer: Offer,
    /// When its time is over.
    pub deadline: Timestamp,
}

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is durable.
    Applied,
    /// It changed nothing and never will; the name says why.
    Refused(&'static str),
    /// It cannot be stored now.
    RetryLater,
}

/// The way to one worker's stream. Never blocks: a stream that does not take what it is sent is broken.
#[derive(Debug, Clone)]
pub struct Outbox {
    sender: mpsc::Sender<ToWorker>,
    broken: Arc<AtomicBool>,
}

impl Outbox {
    /// An outbox and the end that the stream reads.
    pub fn new() -> (Self, mpsc::Receiver<ToWorker>) {
        let (sender, receiver) = mpsc::channel(OUTBOX_MAX);
        (Self { sender, broken: Arc::default() }, receiver)
    }

    /// Queues a message, or marks the stream as broken.
    pub fn send(&self, message: ToWorker) {
        if self.sender.try_send(message).is_err() {
            self.broken.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a message could not be queued, or nobody will read the next one.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed) || self.sender.is_closed()
    }
}
