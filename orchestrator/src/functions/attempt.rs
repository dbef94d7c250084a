//! One call from its start to the result that is reported. It has exactly one, decided by what came first: the function's end, the
//! order to stop, or the end of its time.

use std::{any::Any, sync::Arc, time::Duration};

use avtomatika_proto::{outcome, task_error};
use tokio::{sync::oneshot, task::JoinError};
use tokio_util::task::AbortOnDropHandle;

use super::{Call, Function, Outcome, TaskError, call::Running, outcome::job_error};
use crate::{conductor::WorkerResult, engine::Offer, json::Json};

/// How long a function that was told to stop may take before it is dropped.
pub const STOP_GRACE: Duration = Duration::from_secs(1);

/// Why a call is to stop before its end.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    /// Nobody wants its result.
    Cancel,
    /// The orchestrator stops.
    Shutdown,
}

/// A call that is about to begin.
pub struct Attempt {
    pub offer: Offer,
    pub function: Arc<dyn Function>,
    pub call: Call,
    pub running: Running,
    pub stop: oneshot::Receiver<Stop>,
}

impl Attempt {
    pub async fn run(self) -> WorkerResult {
        let Self { offer, function, call, running, stop } = self;
        let Offer { task_id, job_id, params, timeout, .. } = offer;
        let token = call.cancellation().clone();
        let kept = call.clone();
        // The call itself is inside, so that a panic before the first await is caught like any other.
        let calling = async move { function.call(params, call, running).await };
        let mut calling = AbortOnDropHandle::new(tokio::spawn(calling));
        let ended = tokio::select! {
            // A function that has ended has ended, whatever else happened at the same moment.
            biased;
            ended = &mut calling => ended_by_itself(ended),
            // Without a sender the session is over: nobody will look at the result.
            stop = stop => {
                token.cancel();
                let _ = tokio::time::timeout(STOP_GRACE, calling).await;
                match stop.unwrap_or(Stop::Cancel) {
                    Stop::Cancel => (Arc::from(outcome::CANCELLED), Json::empty(), None),
                    Stop::Shutdown => {
                        let message = "the orchestrator stopped before the function was done";
                        failure(outcome::FAILURE, TaskError::custom(task_error::WORKER_STOPPED, message))
                    }
                }
            }
            () = tokio::time::sleep(timeout) => {
                token.cancel();
                let _ = tokio::time::timeout(STOP_GRACE, calling).await;
                let message = format!("the function ran longer than {timeout:?}");
                failure(outcome::TIMEOUT, TaskError::custom(task_error::TIMEOUT, message))
            }
        };
        let (outcome, data, error) = ended;
        // Of what it saved last the host need not have heard.
        let checkpoint = if error.is_some() { kept.saved() } else { None };
        let error = error.map(job_error);
        WorkerResult { task_id, job_id: Some(job_id), outcome, data, error, checkpoint }
    }
}

type Ended = (Arc<str>, Json, Option<TaskError>);

fn ended_by_itself(ended: Result<Result<Outcome, TaskError>, JoinError>) -> Ended {
    let ended = match ended {
        Ok(ended) => ended.and_then(Outcome::into_parts),
        // A panic is a failed attempt; another one may go well.
        Err(error) => Err(match error.try_into_panic() {
            Ok(panic) => TaskError::transient(format!("the function panicked: {}", message_of(&*panic))),
            Err(_) => TaskError::transient("the runtime was shut down"),
        }),
    };
    match ended {
        Ok((outcome, data)) => (outcome, data, None),
        Err(error) => failure(outcome::FAILURE, error),
    }
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

fn failure(outcome: &str, error: TaskError) -> Ended {
    (Arc::from(outcome), Json::empty(), Some(error))
}
