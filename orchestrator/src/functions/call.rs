//! What a function knows of its call, and what it may say while it runs.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use avtomatika_proto::{
    JobId, TaskError, TaskId,
    limits::{CHECKPOINT_BYTES_MAX, PROGRESS_MESSAGE_BYTES_MAX},
};
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{conductor::Progress, engine::Offer, json::Json};

/// One call of a function: one attempt at the task of a `code` state. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Call {
    attempt: Arc<Attempt>,
    cancellation: CancellationToken,
    board: Arc<Board>,
}

#[derive(Debug)]
struct Attempt {
    task_id: TaskId,
    job_id: JobId,
    number: u32,
    checkpoint: Option<Json>,
    /// What it leaves for the next attempt.
    saved: Mutex<Option<Json>>,
    /// By this process's monotonic clock; `None` when that is beyond what the clock can say.
    stops_at: Option<Instant>,
}

impl Call {
    pub(super) fn new(offer: &Offer, board: Arc<Board>) -> Self {
        let attempt = Attempt {
            task_id: offer.task_id,
            job_id: offer.job_id,
            number: offer.attempt,
            checkpoint: offer.checkpoint.clone(),
            saved: Mutex::default(),
            stops_at: Instant::now().checked_add(offer.timeout),
        };
        Self { attempt: Arc::new(attempt), cancellation: CancellationToken::new(), board }
    }

    /// The job that made the call.
    pub fn job_id(&self) -> JobId {
        self.attempt.job_id
    }

    /// Names this attempt, not the work: a retry has another one. After a crash of the process the same attempt runs again.
    pub fn task_id(&self) -> TaskId {
        self.attempt.task_id
    }

    /// Counts from 1 within the job's state.
    pub fn attempt(&self) -> u32 {
        self.attempt.number
    }

    /// How long the call may still run.
    pub fn remaining(&self) -> Option<Duration> {
        self.attempt.stops_at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Fires when the call is to stop: its time is up, its job was cancelled, or the orchestrator stops. A function has a short
    /// grace then, before its future is dropped.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }

    /// Whether the call is to stop. For functions that compute in a loop.
    pub fn is_cancelled(&self) -> bool {
        self.cancellation.is_cancelled()
    }

    /// Says how far the call is: `fraction` from 0.0 to 1.0, and a word for people. Never waits; of several in a row only the
    /// latest counts.
    pub fn progress(&self, fraction: f64, message: &str) {
        let fraction = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
        let message = Arc::from(&message[..message.floor_char_boundary(PROGRESS_MESSAGE_BYTES_MAX)]);
        self.board.note(self.attempt.task_id, |progress| {
            progress.fraction = fraction;
            progress.message = message;
        });
    }

    /// What the last attempt has saved, if it did not come to its end.
    pub fn checkpoint(&self) -> Option<&Json> {
        self.attempt.checkpoint.as_ref()
    }

    /// Saves how far the call came, for the next attempt if this one does not come to its end: an object of at most 64 KiB. It is
    /// stored, so that a kill does not lose it: the first one at once, later ones within a tenth of the time for which the call has
    /// run, at least a second and at most a minute.
    ///
    /// # Errors
    /// When it is no such object.
    pub fn save(&self, checkpoint: impl Serialize) -> Result<(), TaskError> {
        let text = serde_json::to_string(&checkpoint)?;
        if text.len() > CHECKPOINT_BYTES_MAX {
            let message =
                format!("the checkpoint has {} bytes; the limit is {CHECKPOINT_BYTES_MAX}", text.len());
            return Err(TaskError::permanent(message));
        }
        let checkpoint = Json::object(&text)
            .map_err(|error| TaskError::permanent(format!("the checkpoint is not usable: {error}")))?;
        *self.attempt.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(checkpoint.clone());
        self.board.note(self.attempt.task_id, |progress| progress.checkpoint = Some(checkpoint));
        Ok(())
    }

    /// What it has saved.
    pub(super) fn saved(&self) -> Option<Json> {
        self.attempt.saved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where calls leave what they say, and the host finds it: the latest of each, and which functions still run.
#[derive(Debug, Default)]
pub(super) struct Board {
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// The last word of each call that runs.
    progress: HashMap<TaskId, Progress>,
    /// Those of which the host has not been told.
    fresh: HashSet<TaskId>,
    running: HashSet<TaskId>,
}

impl Board {
    /// A function begins to run, and does so until the answer is dropped.
    pub fn run(self: &Arc<Self>, task_id: TaskId) -> Running {
        self.lock().running.insert(task_id);
        Running { task_id, board: self.clone() }
    }

    /// Waits until there may be something new. Safe to drop and call again.
    pub async fn changed(&self) {
        self.news.notified().await;
    }

    /// What calls have said since the last time.
    pub fn take_fresh(&self) -> Vec<(TaskId, Progress)> {
        let mut inner = self.lock();
        let fresh = std::mem::take(&mut inner.fresh);
        fresh
            .into_iter()
            .filter_map(|task_id| Some((task_id, inner.progress.get(&task_id)?.clone())))
            .collect()
    }

    /// Whether the function of this call still runs.
    pub fn runs(&self, task_id: TaskId) -> bool {
        self.lock().running.contains(&task_id)
    }

    fn note(&self, task_id: TaskId, change: impl FnOnce(&mut Progress)) {
        let mut inner = self.lock();
        // Whatever is said after the end is said to nobody.
        if !inner.running.contains(&task_id) {
            return;
        }
        let nothing = || Progress { fraction: 0.0, message: Arc::from(""), checkpoint: None };
        change(inner.progress.entry(task_id).or_insert_with(nothing));
        inner.fresh.insert(task_id);
        drop(inner);
        self.news.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Sets and maps of whole values are never left half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A function that runs. Dropped when it does no more.
#[derive(Debug)]
pub(super) struct Running {
    task_id: TaskId,
    board: Arc<Board>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut inner = self.board.lock();
        inner.running.remove(&self.task_id);
        inner.progress.remove(&self.task_id);
        inner.fresh.remove(&self.task_id);
        drop(inner);
        self.board.news.notify_one();
    }
}
