//! Takes tasks on and collects their results: the part of the worker that lives on while streams come and go.

use std::{collections::HashMap, sync::Arc, time::Duration};

use avtomatika_proto::{
    limits,
    spans::Spans,
    v1::{self, ResultVerdict},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::{debug, info, warn};

use crate::{
    Handler, TaskContext, TaskError,
    attempt::{self, Attempt, Stop},
    backoff::{Backoff, random},
    context::{ProgressBoard, timeout_of},
    tasks::{Acknowledged, HeldTasks},
    traced::Traced,
};

/// The handlers of a worker, by task type.
pub(crate) type Handlers = HashMap<String, Arc<dyn Handler>>;

/// Between sending a result that the orchestrator could not take and sending it again: long enough for a disk to be freed,
/// short enough to notice.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_CAP: Duration = Duration::from_secs(5);

/// Ended attempts that wait for the session to notice; more only wait a little longer.
const ENDED_QUEUE: usize = limits::BATCH_ITEMS_MAX;

/// See the module.
pub(crate) struct Runner {
    pub(crate) held: HeldTasks<oneshot::Sender<Stop>>,
    pub(crate) progress: Arc<ProgressBoard>,
    handlers: Arc<Handlers>,
    handlers_run_on: Handle,
    worker_id: Arc<str>,
    spans: Option<Spans>,
    results: mpsc::Sender<v1::TaskResult>,
    ended: mpsc::Receiver<v1::TaskResult>,
    retry: Backoff,
    retry_at: Option<Instant>,
}

impl Runner {
    pub(crate) fn new(handlers: Arc<Handlers>, handlers_run_on: Handle, spans: Option<Spans>) -> Self {
        let (results, ended) = mpsc::channel(ENDED_QUEUE);
        Self {
            held: HeldTasks::new(),
            progress: Arc::default(),
            handlers,
            handlers_run_on,
            worker_id: Arc::from(""),
            spans,
            results,
            ended,
            retry: Backoff::new(RETRY_FIRST, RETRY_CAP),
            retry_at: None,
        }
    }

    /// A stream has been opened: the name under which it was, and what the orchestrator says of the held tasks.
    pub(crate) fn resume(&mut self, worker_id: &str, welcome: &v1::Welcome) {
        self.worker_id = Arc::from(worker_id);
        let held = self.held.ids();
        for stop in self.held.resume(&welcome.adopted_task_ids) {
            // The attempt may have ended by itself this very moment; then there is nothing to stop.
            let _ = stop.send(Stop::Drop);
        }
        for task_id in held.iter().filter(|task_id| !self.held.holds(task_id)) {
            info!(task = %task_id, "Dropping task {task_id}: the orchestrator no longer wants it");
            self.progress.end(task_id);
        }
        // What was said of tasks is in memory on the other side, and that may be another process now.
        self.progress.tell_again();
        self.retry_at = None;
        self.retry.reset();
    }

    /// Starts the task's handler. False when the task is held already.
    pub(crate) fn accept(&mut self, task: v1::Task) -> bool {
        let (stop, stopped) = oneshot::channel();
        if !self.held.start(&task.task_id, stop) {
            debug!(task = %task.task_id, "Task {} came twice; it is held already", task.task_id);
            return false;
        }
        let Some(handler) = self.handlers.get(&task.r#type) else {
            let known: Vec<&str> = self.handlers.keys().map(String::as_str).collect();
            let error = TaskError::permanent(format!(
                "this worker has no handler for the task type {:?}; it serves {}",
                task.r#type,
                known.join(", ")
            ));
            self.held.finish(attempt::refused(&task, error));
            return true;
        };
        self.progress.begin(&task.task_id);
        let traced = Traced::of(&task, self.spans.as_ref());
        let trace = traced.as_ref().map(|traced| traced.context.clone());
        let context = TaskContext::new(&task, Arc::clone(&self.worker_id), Arc::clone(&self.progress), trace);
        let attempt = Attempt {
            timeout: timeout_of(&task),
            task_id: task.task_id,
            job_id: task.job_id,
            params: task.params,
            context,
            handler: Arc::clone(handler),
            stop: stopped,
            traced,
            results: self.results.clone(),
        };
        tokio::spawn(attempt.run(self.handlers_run_on.clone()));
        true
    }

    /// Stops an attempt on the orchestrator's request; its result comes like any other.
    pub(crate) fn cancel(&mut self, order: v1::CancelTask) {
        let Some(stop) = self.held.stop(&order.task_id) else { return };
        info!(task = %order.task_id, "Cancelling task {}: {}", order.task_id, order.reason);
        let grace = order.grace.and_then(|grace| Duration::try_from(grace).ok());
        let _ = stop.send(Stop::Cancel(grace.unwrap_or(crate::handler::STOP_GRACE)));
    }

    /// Stops every attempt because the worker stops.
    pub(crate) fn stop_all(&mut self) {
        for stop in self.held.stop_all() {
            let _ = stop.send(Stop::Shutdown);
        }
    }

    /// The orchestrator answered a result.
    pub(crate) fn acknowledge(&mut self, ack: &v1::ResultAck) {
        match self.held.acknowledge(&ack.task_id, ack.verdict()) {
            Acknowledged::Applied => self.retry.reset(),
            Acknowledged::Refused if ack.verdict() == ResultVerdict::Refused => {
                info!(task = %ack.task_id, "The result of task {} was refused: {}", ack.task_id, ack.reason);
            }
            Acknowledged::Refused => {
                warn!(task = %ack.task_id, "The result of task {} got a verdict that this worker does not know", ack.task_id);
            }
            Acknowledged::Later => {
                if self.retry_at.is_none() {
                    let pause = self.retry.next(random());
                    warn!("The orchestrator cannot take results now; sending again in {pause:?}");
                    self.retry_at = Some(Instant::now() + pause);
                }
            }
            Acknowledged::Unknown => {}
        }
    }

    /// Waits for attempts to end and files the results of all that have. Safe to drop and call again.
    pub(crate) async fn collect(&mut self) {
        // The runner holds a sender itself, so the channel never closes.
        let Some(first) = self.ended.recv().await else { return };
        self.file(first);
        while let Ok(next) = self.ended.try_recv() {
            self.file(next);
        }
    }

    fn file(&mut self, mut result: v1::TaskResult) {
        // Where another attempt may follow, it is to know how far this one came.
        if let Some(last) = self.progress.end(&result.task_id)
            && result.error.is_some()
        {
            result.checkpoint = last.checkpoint;
        }
        self.held.finish(result);
    }

    /// When postponed results are due again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Makes postponed results ready when their time has come.
    pub(crate) fn retry_if_due(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.held.retry_now();
        }
    }
}
