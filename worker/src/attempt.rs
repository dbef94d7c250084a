//! One attempt at one task, from its start to the result that will be reported.
//!
//! The handler runs on the runtime of whoever runs the worker. Its supervisor runs on the session's runtime, so that a
//! handler that blocks its own runtime still times out and still is cancelled on the wire. An attempt has exactly one result,
//! decided by what came first: the handler's end, the order to stop, or the end of its time.

use std::{any::Any, sync::Arc, time::Duration};

use avtomatika_proto::{outcome, task_error, v1};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::JoinError,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, debug, info_span, warn};

use crate::{Handler, TaskContext, TaskError, TaskOutcome, traced::Traced};

/// Why an attempt is to stop before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The orchestrator wants it stopped within this grace, and told so.
    Cancel(Duration),
    /// The orchestrator has given the task to another; nothing is reported.
    Drop,
    /// The worker stops and the time for draining is over; another worker shall do the task.
    Shutdown,
}

/// What the supervisor of an attempt needs.
pub(crate) struct Attempt {
    pub(crate) task_id: String,
    pub(crate) job_id: String,
    pub(crate) params: String,
    pub(crate) timeout: Option<Duration>,
    pub(crate) context: TaskContext,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) stop: oneshot::Receiver<Stop>,
    pub(crate) results: mpsc::Sender<v1::TaskResult>,
    pub(crate) traced: Option<Traced>,
}

type Running = AbortOnDropHandle<Result<TaskOutcome, TaskError>>;

impl Attempt {
    /// Starts the handler on `handlers` and supervises it until its result has been handed over.
    pub(crate) async fn run(mut self, handlers: Handle) {
        let worker = self.context.worker_id();
        let span = info_span!("task", job = %self.job_id, task = %self.task_id, worker);
        let grace = self.handler.stop_grace();
        let token = self.context.cancellation().clone();
        let mut running = self.start(&handlers, span.clone());

        let result = tokio::select! {
            // A handler that has ended has ended, whatever else happened at the same moment.
            biased;
            ended = &mut running => ended_by_itself(ended),
            // The sender goes away when the task is dropped after it was told to stop.
            stop = &mut self.stop => {
                let stop = stop.unwrap_or(Stop::Drop);
                let given = match stop {
                    Stop::Cancel(given) => given,
                    Stop::Drop | Stop::Shutdown => grace,
                };
                let forced = stop_within(given, &token, running).await;
                match stop {
                    Stop::Cancel(_) => end(outcome::CANCELLED, forced),
                    // A result for nobody, since the task is no longer held.
                    Stop::Drop => end(outcome::CANCELLED, None),
                    Stop::Shutdown => {
                        let given_back = "the worker stopped before the task was done";
                        failure(TaskError::custom(task_error::WORKER_STOPPED, given_back))
                    }
                }
            }
            () = elapsed(self.timeout) => {
                let forced = stop_within(grace, &token, running).await;
                let limit = self.timeout.unwrap_or_default();
                let mut message = format!("the task ran longer than {limit:?}");
                if let Some(forced) = forced {
                    message.push_str("; ");
                    message.push_str(forced.message());
                }
                end(outcome::TIMEOUT, Some(TaskError::custom(task_error::TIMEOUT, message)))
            }
        };
        let result = v1::TaskResult { task_id: self.task_id, job_id: self.job_id, ..result };
        span.in_scope(|| log(&result));
        if let Some(traced) = self.traced {
            traced.end(&self.context, &result);
        }
        // Without a receiver the worker is gone, and with it everybody who could use the result.
        let _ = self.results.send(result).await;
    }

    fn start(&mut self, handlers: &Handle, span: tracing::Span) -> Running {
        let (handler, context) = (Arc::clone(&self.handler), self.context.clone());
        let params = std::mem::take(&mut self.params);
        // The call itself is inside, so that a panic before the first await is caught like any other.
        let running = async move { handler.call(params, context).await };
        AbortOnDropHandle::new(handlers.spawn(running.instrument(span)))
    }
}

async fn elapsed(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

/// Asks the handler to stop and drops it when it does not: at its next await, since nothing can be taken from a running
/// thread. Returns what is to be said of one that did not stop by itself.
async fn stop_within(
    grace: Duration,
    token: &tokio_util::sync::CancellationToken,
    mut running: Running,
) -> Option<TaskError> {
    token.cancel();
    match tokio::time::timeout(grace, &mut running).await {
        Ok(Ok(Err(error))) if error.code() == task_error::NOT_STOPPED => Some(error),
        Ok(_) => None,
        Err(_) => {
            let message = format!("the handler did not stop within {grace:?} and was abandoned");
            Some(TaskError::custom(task_error::NOT_STOPPED, message))
        }
    }
}

fn ended_by_itself(ended: Result<Result<TaskOutcome, TaskError>, JoinError>) -> v1::TaskResult {
    let outcome = match ended {
        Ok(result) => result.and_then(TaskOutcome::into_wire),
        Err(error) => Err(crash(error)),
    };
    match outcome {
        Ok((outcome, data)) => v1::TaskResult { outcome, data, ..v1::TaskResult::default() },
        Err(error) => failure(error),
    }
}

/// A panic is a failed attempt; another one may go well.
fn crash(error: JoinError) -> TaskError {
    match error.try_into_panic() {
        Ok(panic) => TaskError::transient(format!("the handler panicked: {}", panic_message(panic.as_ref()))),
        Err(_) => TaskError::transient("the handler's runtime was shut down"),
    }
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
