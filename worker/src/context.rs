//! What a handler knows about its attempt, and what it may say while it runs.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use avtomatika_proto::{limits, trace::TraceContext, v1};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{TaskError, attempt::Serial, error::cut};

/// One attempt at one task, as its handler sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TaskContext {
    attempt: Arc<Attempt>,
    cancellation: CancellationToken,
    progress: Arc<ProgressBoard>,
}

#[derive(Debug)]
struct Attempt {
    serial: Serial,
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
    /// As the orchestrator sent it; empty when there is none.
    checkpoint: String,
}

impl TaskContext {
    pub(crate) fn new(
        task: &v1::Task,
        serial: Serial,
        worker_id: Arc<str>,
        progress: Arc<ProgressBoard>,
        trace: Option<TraceContext>,
    ) -> Self {
        let attempt = Attempt {
            serial,
            task_id: task.task_id.clone(),
            job_id: task.job_id.clone(),
            task_type: task.r#type.clone(),
            worker_id,
            attempt: task.attempt,
            priority: task.priority,
            deadline: task.deadline.and_then(|deadline| SystemTime::try_from(deadline).ok()),
            stops_at: timeout_of(task).and_then(|timeout| Instant::now().checked_add(timeout)),
            trace,
            checkpoint: task.checkpoint.clone(),
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
        self.progress.progress(&self.attempt, fraction, message);
    }

    /// How far the attempts before this one came, as the last of them that [saved](Self::save) something left it; `None` for the
    /// first attempt, and when none of them did.
    ///
    /// # Errors
    ///
    /// When what was saved is no `T`: perhaps another version of the handler saved it.
    pub fn checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>, serde_json::Error> {
        match self.attempt.checkpoint.as_str() {
            "" => Ok(None),
            text => serde_json::from_str(text).map(Some),
        }
    }

    /// The same as JSON, as it was left.
    pub(crate) fn checkpoint_text(&self) -> Option<&str> {
        Some(self.attempt.checkpoint.as_str()).filter(|text| !text.is_empty())
    }

    /// Saves how far the attempt came, for the next one if this one does not come to its end: it fails, takes too long, or its worker
    /// is lost. `checkpoint` must serialise to a JSON object of at most 64 KiB; it takes the place of what was saved before, by
    /// earlier attempts too. Never waits: what was saved a tenth of a second before a worker is lost may be lost with it. The orchestrator
    /// stores it, so that it outlives its process as well: the first one at once, later ones within a tenth of the time for which the
    /// attempt has run, at least a second and at most a minute.
    ///
    /// # Errors
    ///
    /// When it is no such object. With `?` that fails the attempt.
    pub fn save(&self, checkpoint: impl Serialize) -> Result<(), TaskError> {
        let text = serde_json::to_string(&checkpoint).map_err(TaskError::permanent)?;
        if !text.starts_with('{') {
            return Err(TaskError::permanent(format!(
                "the checkpoint is not a JSON object: it starts with {:?}",
                text.chars().take(40).collect::<String>()
            )));
        }
        if text.len() > limits::CHECKPOINT_BYTES_MAX {
            let (bytes, limit) = (text.len(), limits::CHECKPOINT_BYTES_MAX);
            return Err(TaskError::permanent(format!(
                "the checkpoint has {bytes} bytes and the limit is {limit}; save where the work stands and not the work"
            )));
        }
        self.progress.save(&self.attempt, text);
        Ok(())
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

/// Where handlers leave their progress and the session picks it up. Holds one report for each attempt that runs: the latest.
#[derive(Debug, Default)]
pub(crate) struct ProgressBoard {
    reports: Mutex<Reports>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Reports {
    /// The running attempt of each task, and what it said last; `None` when it has said nothing.
    latest: HashMap<String, (Serial, Option<v1::TaskProgress>)>,
    /// Those of which the orchestrator has not been told.
    untold: HashSet<String>,
    /// Those of whose checkpoint it has not been told.
    unsaved: HashSet<String>,
}

impl ProgressBoard {
    /// An attempt begins; until its end it may say something.
    pub(crate) fn begin(&self, task_id: &str, serial: Serial) {
        self.lock().latest.insert(task_id.to_owned(), (serial, None));
    }

    fn progress(&self, attempt: &Attempt, fraction: f64, message: String) {
        self.note(attempt, |said, _| (said.fraction, said.message) = (fraction, message));
    }

    fn save(&self, attempt: &Attempt, checkpoint: String) {
        self.note(attempt, |said, unsaved| {
            said.checkpoint = checkpoint;
            unsaved.insert(attempt.task_id.clone());
        });
    }

    fn note(&self, attempt: &Attempt, change: impl FnOnce(&mut v1::TaskProgress, &mut HashSet<String>)) {
        let task_id = &attempt.task_id;
        let mut reports = self.lock();
        let Reports { latest, untold, unsaved } = &mut *reports;
        // Whatever is said after the end is said to nobody, also when the task was dropped and has come again.
        let Some((_, latest)) = latest.get_mut(task_id).filter(|(serial, _)| *serial == attempt.serial)
        else {
            return;
        };
        let nothing = || v1::TaskProgress { task_id: task_id.clone(), ..v1::TaskProgress::default() };
        change(latest.get_or_insert_with(nothing), unsaved);
        untold.insert(task_id.clone());
        drop(reports);
        self.news.notify_one();
    }

    /// Waits until something may be on the board. Safe to drop and call again.
    pub(crate) async fn changed(&self) {
        self.news.notified().await;
    }

    pub(crate) fn has_news(&self) -> bool {
        !self.lock().untold.is_empty()
    }

    /// Whose reports the orchestrator is to be told.
    pub(crate) fn take_news(&self) -> Vec<String> {
        self.lock().untold.drain().collect()
    }

    /// What to tell of an attempt, if it still runs: a checkpoint only when it is a new one.
    pub(crate) fn report(&self, task_id: &str) -> Option<v1::TaskProgress> {
        let mut reports = self.lock();
        let (_, report) = reports.latest.get(task_id)?;
        let mut report = report.clone()?;
        if !reports.unsaved.remove(task_id) {
            report.checkpoint.clear();
        }
        Some(report)
    }

    /// The orchestrator may know nothing any more of what it was told.
    pub(crate) fn tell_again(&self) {
        let mut reports = self.lock();
        let Reports { latest, untold, unsaved } = &mut *reports;
        for (task_id, _) in latest.iter().filter(|(_, (_, said))| said.is_some()) {
            untold.insert(task_id.clone());
            unsaved.insert(task_id.clone());
        }
        drop(reports);
        self.news.notify_one();
    }

    /// The attempt has ended. What it said last.
    pub(crate) fn end(&self, task_id: &str) -> Option<v1::TaskProgress> {
        let mut reports = self.lock();
        reports.untold.remove(task_id);
        reports.unsaved.remove(task_id);
        reports.latest.remove(task_id)?.1
    }

    fn lock(&self) -> MutexGuard<'_, Reports> {
        // Sets and maps of whole values are never left half changed.
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) fn context_for_test(task: &v1::Task) -> TaskContext {
    TaskContext::new(task, 1, Arc::from("test-worker"), Arc::default(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_progress_of_a_task_is_kept() {
        let (board, context) = running();
        context.progress(0.1, "begun");
        context.progress(7.0, "ж".repeat(limits::PROGRESS_MESSAGE_BYTES_MAX));
        assert_eq!(board.take_news(), ["t"]);
        let report = board.report("t").unwrap();
        assert_eq!(report.fraction, 1.0);
        assert_eq!(report.message.len(), limits::PROGRESS_MESSAGE_BYTES_MAX);
        assert!(!board.has_news());
    }

    /// An attempt named `t` that has begun.
    fn running() -> (Arc<ProgressBoard>, TaskContext) {
        let board = Arc::new(ProgressBoard::default());
        board.begin("t", 1);
        let task = v1::Task { task_id: "t".into(), ..v1::Task::default() };
        let context = TaskContext::new(&task, 1, Arc::from("w"), Arc::clone(&board), None);
        (board, context)
    }

    #[test]
    fn what_was_saved_is_told_again_and_nothing_after_the_end() {
        let (board, context) = running();
        board.begin("silent", 2);
        context.save(serde_json::json!({ "page": 7 })).unwrap();
        context.progress(0.5, "half");
        assert_eq!(board.take_news(), ["t"]);
        let checkpoint = || board.report("t").unwrap().checkpoint;
        assert_eq!((checkpoint().as_str(), checkpoint().as_str()), (r#"{"page":7}"#, ""), "told once");
        board.tell_again();
        assert_eq!(checkpoint(), r#"{"page":7}"#);
        assert_eq!(board.take_news(), ["t"], "who has said nothing has nothing to say again");
        assert_eq!(board.end("t").unwrap().checkpoint, r#"{"page":7}"#);
        context.save(serde_json::json!({ "page": 8 })).unwrap();
        assert!(!board.has_news() && board.report("t").is_none());
    }

    #[test]
    fn an_attempt_does_not_speak_for_the_next_one_at_the_same_task() {
        let (board, context) = running();
        board.end("t");
        board.begin("t", 2);
        context.progress(0.5, "half");
        context.save(serde_json::json!({ "page": 8 })).unwrap();
        assert!(!board.has_news() && board.report("t").is_none() && board.end("t").is_none());
    }

    #[test]
    fn what_is_no_checkpoint_is_refused_by_name() {
        let (board, context) = running();
        let refusal = context.save([1, 2]).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            r#"PERMANENT_ERROR: the checkpoint is not a JSON object: it starts with "[1,2]""#
        );
        let large = serde_json::json!({ "x": "y".repeat(limits::CHECKPOINT_BYTES_MAX) });
        assert!(context.save(large).unwrap_err().message().contains("the limit is 65536"));
        assert!(!board.has_news());
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
