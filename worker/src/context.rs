//! What a handler knows about its attempt, and what it may say while it runs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use avtomatika_proto::{limits, trace::TraceContext, v1};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::cut;

/// One attempt at one task, as its handler sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TaskContext {
    attempt: Arc<Attempt>,
    cancellation: CancellationToken,
    progress: Arc<ProgressBoard>,
}

#[derive(Debug)]
struct Attempt {
    task_id: String,
    job_id: String,
    task_type: String,
    worker_id: Arc<str>,
    attempt: u32,
    priority: i32,
    deadline: Option<SystemTime>,
    /// By this process's monotonic clock; `None` when the attempt may run for ever.
    stops_at: Option<Instant>,
    trace: Option<TraceContext>,
}

impl TaskContext {
    pub(crate) fn new(
        task: &v1::Task,
        worker_id: Arc<str>,
        progress: Arc<ProgressBoard>,
        trace: Option<TraceContext>,
    ) -> Self {
        let attempt = Attempt {
            task_id: task.task_id.clone(),
            job_id: task.job_id.clone(),
            task_type: task.r#type.clone(),
            worker_id,
            attempt: task.attempt,
            priority: task.priority,
            deadline: task.deadline.and_then(|deadline| SystemTime::try_from(deadline).ok()),
            stops_at: timeout_of(task).and_then(|timeout| Instant::now().checked_add(timeout)),
            trace,
        };
        Self { attempt: Arc::new(attempt), cancellation: CancellationToken::new(), progress }
    }

    /// Names this attempt, not the work: a retry has another one.
    pub fn task_id(&self) -> &str {
        &self.attempt.task_id
    }

    /// The job that the task belongs to.
    pub fn job_id(&self) -> &str {
        &self.attempt.job_id
    }

    /// The task type that was asked for.
    pub fn task_type(&self) -> &str {
        &self.attempt.task_type
    }

    /// The name under which this worker is registered.
    pub fn worker_id(&self) -> &str {
        &self.attempt.worker_id
    }

    /// Counts from 1 within the job's state.
    pub fn attempt(&self) -> u32 {
        self.attempt.attempt
    }

    /// The trace that the job belongs to, and the span in it below which the handler's own spans go: this run's, where the worker
    /// [tells](crate::WorkerBuilder::spans) of its spans, and the attempt's otherwise. `None` when the job has no trace.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.attempt.trace.as_ref()
    }

    /// The job's priority, -100 to 100.
    pub fn priority(&self) -> i32 {
        self.attempt.priority
    }

    /// When the orchestrator gives the attempt up, by its clock. For people; use [`remaining`](Self::remaining) to decide.
    pub fn deadline(&self) -> Option<SystemTime> {
        self.attempt.deadline
    }

    /// How long the attempt may still run, by this machine's monotonic clock. `None`: no limit.
    pub fn remaining(&self) -> Option<Duration> {
        self.attempt.stops_at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Fires when the attempt is to stop: its time is up, its job was cancelled, or the worker stops. The handler then has a
    /// short grace before it is dropped at its next `await`.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }

    /// Whether the attempt is to stop. For handlers that compute in a loop.
    pub fn is_cancelled(&self) -> bool {
        self.cancellation.is_cancelled()
    }

    /// Tells the orchestrator how far the attempt is: `fraction` from 0.0 to 1.0, and a word for people. Never waits; when
    /// called faster than the worker sends, only the latest counts.
    pub fn progress(&self, fraction: f64, message: impl Into<String>) {
        let fraction = if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) };
        let mut message = message.into();
        cut(&mut message, limits::PROGRESS_MESSAGE_BYTES_MAX);
        let task_id = self.attempt.task_id.clone();
        self.progress.put(v1::TaskProgress { task_id, fraction, message });
    }

    /// The orchestrator's deadline in its wire form, whose `Display` is RFC 3339.
    pub(crate) fn deadline_text(&self) -> Option<String> {
        self.attempt.deadline.map(|deadline| prost_types::Timestamp::from(deadline).to_string())
    }
}

/// How long the task may run from its receipt. `None`: no limit.
pub(crate) fn timeout_of(task: &v1::Task) -> Option<Duration> {
    task.timeout.and_then(|timeout| Duration::try_from(timeout).ok()).filter(|timeout| !timeout.is_zero())
}

/// Where handlers leave their progress and the session picks it up. Holds one report per task: the latest.
#[derive(Debug, Default)]
pub(crate) struct ProgressBoard {
    latest: Mutex<HashMap<String, v1::TaskProgress>>,
    news: Notify,
}

impl ProgressBoard {
    fn put(&self, progress: v1::TaskProgress) {
        self.lock().insert(progress.task_id.clone(), progress);
        self.news.notify_one();
    }

    /// Waits until something may be on the board. Safe to drop and call again.
    pub(crate) async fn changed(&self) {
        self.news.notified().await;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Takes everything off the board.
    pub(crate) fn take(&self) -> Vec<v1::TaskProgress> {
        self.lock().drain().map(|(_, report)| report).collect()
    }

    /// Forgets the task's report, because the task ended.
    pub(crate) fn forget(&self, task_id: &str) {
        self.lock().remove(task_id);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, v1::TaskProgress>> {
        // A map of whole reports is never left half changed.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) fn context_for_test(task: &v1::Task) -> TaskContext {
    TaskContext::new(task, Arc::from("test-worker"), Arc::default(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_progress_of_a_task_is_kept() {
        let board = Arc::new(ProgressBoard::default());
        let task = v1::Task { task_id: "t".into(), ..v1::Task::default() };
        let context = TaskContext::new(&task, Arc::from("w"), Arc::clone(&board), None);
        context.progress(0.1, "begun");
        context.progress(7.0, "ж".repeat(limits::PROGRESS_MESSAGE_BYTES_MAX));
        let report = board.take().pop().unwrap();
        assert_eq!(report.fraction, 1.0);
        assert_eq!(report.message.len(), limits::PROGRESS_MESSAGE_BYTES_MAX);
        assert!(board.is_empty());
    }

    #[test]
    fn a_task_without_a_timeout_runs_without_a_limit() {
        let mut task = v1::Task::default();
        assert_eq!(context_for_test(&task).remaining(), None);
        task.timeout = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        assert!(context_for_test(&task).remaining().unwrap() > Duration::from_secs(50));
        task.timeout = Some(prost_types::Duration { seconds: -1, nanos: 0 });
        assert_eq!(context_for_test(&task).remaining(), None);
    }
}
