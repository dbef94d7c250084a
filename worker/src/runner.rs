//! Takes tasks on and collects their results: the part of the worker that lives on while streams come and go.

use std::{collections::HashMap, sync::Arc, time::Duration};

use avtomatika_proto::{
    spans::Spans,
    v1::{self, ResultVerdict},
};
use tokio::{runtime::Handle, time::Instant};
use tracing::{debug, info, warn};

use crate::{
    Handler, TaskContext, TaskError,
    attempt::{self, Serial, Stop},
    attempts::Attempts,
    backoff::{Backoff, random},
    context::ProgressBoard,
    tasks::{Acknowledged, HeldTasks},
    traced::Traced,
};

/// The handlers of a worker, by task type.
pub(crate) type Handlers = HashMap<String, Arc<dyn Handler>>;

/// Between sending a result that the orchestrator could not take and sending it again: long enough for a disk to be freed,
/// short enough to notice.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_CAP: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Runner {
    pub(crate) held: HeldTasks<Serial>,
    pub(crate) progress: Arc<ProgressBoard>,
    attempts: Attempts,
    handlers: Arc<Handlers>,
    worker_id: Arc<str>,
    spans: Option<Spans>,
    retry: Backoff,
    retry_at: Option<Instant>,
}

impl Runner {
    pub(crate) fn new(handlers: Arc<Handlers>, handlers_run_on: Handle, spans: Option<Spans>) -> Self {
        Self {
            held: HeldTasks::new(),
            progress: Arc::default(),
            attempts: Attempts::new(handlers_run_on),
            handlers,
            worker_id: Arc::from(""),
            spans,
            retry: Backoff::new(RETRY_FIRST, RETRY_CAP),
            retry_at: None,
        }
    }

    /// A stream has been opened: the name under which it was, and what the orchestrator says of the held tasks.
    pub(crate) fn resume(&mut self, worker_id: &str, welcome: &v1::Welcome) {
        self.worker_id = Arc::from(worker_id);
        let held = self.held.ids();
        for attempt in self.held.resume(&welcome.adopted_task_ids) {
            self.attempts.stop(attempt, Stop::Drop);
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
        let serial = self.attempts.name_one();
        if !self.held.start(&task.task_id, serial) {
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
        self.progress.begin(&task.task_id, serial);
        let traced = Traced::of(&task, self.spans.as_ref());
        let trace = traced.as_ref().map(|traced| traced.context.clone());
        let (worker_id, progress) = (Arc::clone(&self.worker_id), Arc::clone(&self.progress));
        let context = TaskContext::new(&task, serial, worker_id, progress, trace);
        self.attempts.start(serial, task, handler, context, traced);
        true
    }

    /// Stops an attempt on the orchestrator's request; its result comes like any other.
    pub(crate) fn cancel(&mut self, order: v1::CancelTask) {
        // One that has ended has ended, whatever else happened at the same moment.
        self.file_ended();
        let Some(attempt) = self.held.stop(&order.task_id) else { return };
        info!(task = %order.task_id, "Cancelling task {}: {}", order.task_id, order.reason);
        let grace = order.grace.and_then(|grace| Duration::try_from(grace).ok());
        self.attempts.stop(attempt, Stop::Cancel(grace.unwrap_or(crate::handler::STOP_GRACE)));
    }

    /// Stops every attempt because the worker stops.
    pub(crate) fn stop_all(&mut self) {
        for attempt in self.held.stop_all() {
            self.attempts.stop(attempt, Stop::Shutdown);
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

    /// Waits for an attempt to end and files its result; [`advance`](Self::advance) files those of others that have. Safe to drop and
    /// call again.
    pub(crate) async fn collect(&mut self) {
        let result = self.attempts.next_ended().await;
        self.file(result);
    }

    fn file_ended(&mut self) {
        while let Some(result) = self.attempts.ended() {
            self.file(result);
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

    /// When [`advance`](Self::advance) has something to do even if nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.retry_at, self.attempts.next_due()].into_iter().flatten().min()
    }

    /// Takes the steps that are due: files the results of attempts that have ended, stops those whose time is up, and makes postponed
    /// results ready. To be called before any of them is told to stop, so that one that has ended has ended.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.file_ended();
        while let Some(result) = self.attempts.overdue(now) {
            self.file(result);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.held.retry_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use avtomatika_proto::{outcome, v1::CancelTask};

    use super::*;
    use crate::{HandlerFuture, TaskOutcome};

    struct AtOnce;

    impl Handler for AtOnce {
        fn call(&self, _: String, _: TaskContext) -> HandlerFuture {
            Box::pin(async { Ok(TaskOutcome::success(())) })
        }

        fn stop_grace(&self) -> Duration {
            panic!("no handler may end the session's thread")
        }
    }

    /// A task whose handler has ended, and nobody has looked yet.
    async fn ended_unseen() -> Runner {
        let handlers = HashMap::from([("work".to_owned(), Arc::new(AtOnce) as Arc<dyn Handler>)]);
        let mut runner = Runner::new(Arc::new(handlers), Handle::current(), None);
        assert!(runner.accept(v1::Task {
            task_id: "t".into(),
            r#type: "work".into(),
            ..v1::Task::default()
        }));
        tokio::task::yield_now().await;
        runner
    }

    fn outcomes(runner: &mut Runner) -> Vec<String> {
        let results = runner.held.next_batch().unwrap_or_default();
        results.into_iter().map(|result| result.outcome).collect()
    }

    #[tokio::test]
    async fn an_order_to_stop_comes_too_late_for_a_handler_that_has_ended() {
        let mut runner = ended_unseen().await;
        runner.cancel(CancelTask { task_id: "t".into(), ..CancelTask::default() });
        assert_eq!(outcomes(&mut runner), [outcome::SUCCESS]);

        let mut runner = ended_unseen().await;
        // As whoever drains does.
        runner.advance(Instant::now());
        runner.stop_all();
        assert_eq!(outcomes(&mut runner), [outcome::SUCCESS]);
    }
}
