//! One attempt at one task, from the start of its handler to the result that will be reported.
//!
//! The handler runs on the runtime of whoever runs the worker, and says there how it ended. What that means is decided on the
//! session's thread, so that a handler that blocks its own runtime still times out and still is cancelled on the wire. An attempt has
//! exactly one result, decided by what is known first: the handler's end, the order to stop, or the end of its time. Only one whose task
//! was dropped has none.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use avtomatika_proto::{outcome, task_error, v1};
use futures_util::FutureExt;
use tokio::{runtime::Handle, sync::mpsc::UnboundedSender};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, Span, debug, info_span, warn};

use crate::{Handler, STOP_GRACE, TaskContext, TaskError, TaskOutcome, context::timeout_of, traced::Traced};

/// Why an attempt is to stop before its end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stop {
    /// The orchestrator wants it stopped within this grace, and told so.
    Cancel(Duration),
    /// The orchestrator does not count on this attempt; nothing is reported. The task may come again under the same id.
    Drop,
    /// The worker stops and the time for draining is over; another worker shall do the task.
    Shutdown,
    /// Its time is up.
    Timeout,
}

/// What the handler ended with, in the form that travels.
pub(crate) type Outcome = Result<(String, String), TaskError>;

/// Names an attempt within its worker.
pub(crate) type Serial = u64;

/// An attempt whose result is not decided. Dropping it drops its handler.
pub(crate) struct Attempt {
    context: TaskContext,
    timeout: Option<Duration>,
    /// What the handler asks for when it is to stop.
    grace: Duration,
    stop: Option<Stop>,
    traced: Option<Traced>,
    span: Span,
    _running: AbortOnDropHandle<()>,
}

impl Attempt {
    /// Starts the handler on `handlers`. How it ends is told through `end`.
    pub(crate) fn start(
        task: v1::Task,
        handler: &Arc<dyn Handler>,
        context: TaskContext,
        traced: Option<Traced>,
        handlers: &Handle,
        end: End,
    ) -> Self {
        let (job, worker) = (context.job_id(), context.worker_id());
        let span = info_span!("task", job = %job, task = %task.task_id, worker);
        let timeout = timeout_of(&task);
        // This is the session's thread, on which no panic of somebody else may end.
        let grace = catch_unwind(AssertUnwindSafe(|| handler.stop_grace())).unwrap_or(STOP_GRACE);
        let (called, its_context) = (Arc::clone(handler), context.clone());
        let running = async move {
            // The call itself is inside, so that a panic before the first await is caught like any other.
            let call = async { called.call(task.params, its_context).await.and_then(TaskOutcome::into_wire) };
            // Nothing that the handler shares with others is looked at here after a panic.
            let ended = AssertUnwindSafe(call).catch_unwind().await;
            end.tell(ended.unwrap_or_else(|panic| Err(crash(panic.as_ref()))));
        };
        let running = AbortOnDropHandle::new(handlers.spawn(running.instrument(span.clone())));
        Self { context, timeout, grace, stop: None, traced, span, _running: running }
    }

    /// How long it may run; `None` when for ever.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Whether it has been told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// Asks the handler to stop. Returns how long to wait for that before it is dropped: at its next await, since nothing can be taken
    /// from a running thread.
    pub(crate) fn stop(&mut self, stop: Stop) -> Duration {
        self.stop = Some(stop);
        self.context.cancellation().cancel();
        self.patience(stop)
    }

    fn patience(&self, stop: Stop) -> Duration {
        match stop {
            Stop::Cancel(given) => given,
            Stop::Drop | Stop::Shutdown | Stop::Timeout => self.grace,
        }
    }

    /// The result of an attempt whose handler has ended; `None` when its task was dropped.
    pub(crate) fn ended(self, outcome: Outcome) -> Option<v1::TaskResult> {
        let result = match self.stop {
            None => match outcome {
                Ok((word, data)) => v1::TaskResult { outcome: word, data, ..v1::TaskResult::default() },
                Err(error) => failure(error),
            },
            // What it says of what it left running is to be known.
            Some(stop) => {
                self.stopped(stop, outcome.err().filter(|error| error.code() == task_error::NOT_STOPPED))
            }
        };
        self.report(result)
    }

    /// The result of an attempt that was told to stop and whose handler has not ended in time; `None` when its task was dropped. The
    /// handler is.
    pub(crate) fn abandoned(self) -> Option<v1::TaskResult> {
        // Whoever waits for an attempt to stop has told it to.
        let stop = self.stop.unwrap_or(Stop::Drop);
        let patience = self.patience(stop);
        let message = format!("the handler did not stop within {patience:?} and was abandoned");
        let result = self.stopped(stop, Some(TaskError::custom(task_error::NOT_STOPPED, message)));
        self.report(result)
    }

    /// What is reported of a stopped attempt. `forced` is what there is to say of one that did not stop by itself.
    fn stopped(&self, stop: Stop, forced: Option<TaskError>) -> v1::TaskResult {
        match stop {
            Stop::Cancel(_) => end(outcome::CANCELLED, forced),
            // For the trace alone.
            Stop::Drop => end(outcome::CANCELLED, None),
            Stop::Shutdown => {
                let given_back = "the worker stopped before the task was done";
                failure(TaskError::custom(task_error::WORKER_STOPPED, given_back))
            }
            Stop::Timeout => {
                let limit = self.timeout.unwrap_or_default();
                let mut message = format!("the task ran longer than {limit:?}");
                if let Some(forced) = forced {
                    message.push_str("; ");
                    message.push_str(forced.message());
                }
                end(outcome::TIMEOUT, Some(TaskError::custom(task_error::TIMEOUT, message)))
            }
        }
    }

    /// Names the result, and tells the log and the trace of it. That of a dropped task stays here: results are filed by the ids of tasks,
    /// and another attempt may run under the same one.
    fn report(self, result: v1::TaskResult) -> Option<v1::TaskResult> {
        let (task_id, job_id) = (self.context.task_id().to_owned(), self.context.job_id().to_owned());
        let result = v1::TaskResult { task_id, job_id, ..result };
        self.span.in_scope(|| log(&result));
        if let Some(traced) = self.traced {
            traced.end(&self.context, &result);
        }
        (!matches!(self.stop, Some(Stop::Drop))).then_some(result)
    }
}

/// Where an attempt's handler says how it ended. It says so even when it is dropped.
pub(crate) struct End {
    serial: Serial,
    ends: Option<UnboundedSender<(Serial, Outcome)>>,
}

impl End {
    /// Of this attempt.
    pub(crate) fn of(serial: Serial, ends: UnboundedSender<(Serial, Outcome)>) -> Self {
        Self { serial, ends: Some(ends) }
    }

    fn tell(mut self, outcome: Outcome) {
        self.tell_once(|| outcome);
    }

    fn tell_once(&mut self, outcome: impl FnOnce() -> Outcome) {
        if let Some(ends) = self.ends.take() {
            // Without a receiver the worker is gone, and with it everybody who could use the result.
            let _ = ends.send((self.serial, outcome()));
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.tell_once(|| Err(TaskError::transient("the handler's runtime was shut down")));
    }
}

/// A panic is a failed attempt; another one may go well.
fn crash(panic: &(dyn Any + Send)) -> TaskError {
    TaskError::transient(format!("the handler panicked: {}", panic_message(panic)))
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

fn failure(error: TaskError) -> v1::TaskResult {
    end(outcome::FAILURE, Some(error))
}

fn end(outcome: &str, error: Option<TaskError>) -> v1::TaskResult {
    let error = error.map(v1::TaskError::from);
    v1::TaskResult { outcome: outcome.to_owned(), error, ..v1::TaskResult::default() }
}

/// A result for a task that no handler was started for.
pub(crate) fn refused(task: &v1::Task, error: TaskError) -> v1::TaskResult {
    let result = failure(error);
    v1::TaskResult { task_id: task.task_id.clone(), job_id: task.job_id.clone(), ..result }
}

fn log(result: &v1::TaskResult) {
    match &result.error {
        Some(error) => warn!("Task ended with {}: {}: {}", result.outcome, error.code, error.message),
        None => debug!("Task ended with {}", result.outcome),
    }
}
