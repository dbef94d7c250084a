//! How a worker stops: no new tasks, finish what runs, hand over what is finished, each within its time.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::runner::Runner;

/// Between the end of the drain timeout and the end of the worker: for stopping handlers that ran over it, and for the
/// acknowledgement of the last results.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The way from running to stopped.
pub(crate) struct Drain {
    requested: CancellationToken,
    timeout: Duration,
    phase: Phase,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Nobody asked the worker to stop.
    Off,
    /// Attempts may run to their end until this moment, and results be acknowledged.
    Working(Instant),
    /// Results may still be acknowledged until this moment.
    Flushing(Instant),
}

impl Drain {
    pub(crate) fn new(requested: CancellationToken, timeout: Duration) -> Self {
        Self { requested, timeout, phase: Phase::Off }
    }

    /// Begins to stop, as if the machine had asked for it.
    pub(crate) fn request(&self) {
        self.requested.cancel();
    }

    /// Whether the worker has begun to stop.
    pub(crate) fn is_on(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Waits until the worker is asked to stop, for those who do not know yet; for ever afterwards.
    pub(crate) async fn begins(&self) {
        match self.phase {
            Phase::Off => self.requested.cancelled().await,
            _ => std::future::pending().await,
        }
    }

    /// Takes the steps that are due. True when there is nothing left to wait for.
    pub(crate) fn advance(&mut self, runner: &mut Runner, now: Instant) -> bool {
        if matches!(self.phase, Phase::Off) && self.is_on() {
            info!(
                "Draining: {} tasks running, at most {:?} to finish them",
                runner.held.running(),
                self.timeout
            );
            self.phase = Phase::Working(now + self.timeout);
        }
        // Not sooner when nothing runs any more: the orchestrator may be away just now, and a task that was on its way here when it
        // heard of the stop still comes.
        if let Phase::Working(until) = self.phase
            && until <= now
        {
            if runner.held.running() > 0 {
                warn!("{} tasks did not finish in time and are given back", runner.held.running());
            }
            runner.stop_all();
            self.phase = Phase::Flushing(now + FLUSH_TIMEOUT);
        }
        match self.phase {
            Phase::Off => false,
            Phase::Working(_) => runner.held.is_empty(),
            Phase::Flushing(until) => runner.held.is_empty() || until <= now,
        }
    }

    /// When [`advance`](Self::advance) has something to do even if nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Off => None,
            Phase::Working(until) | Phase::Flushing(until) => Some(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use avtomatika_proto::v1::{ResultAck, ResultVerdict, Task};
    use tokio::runtime::Handle;

    use super::*;
    use crate::{Handler, HandlerFuture, TaskContext};

    const TIMEOUT: Duration = Duration::from_secs(30);

    /// Never returns.
    struct Hanging;

    impl Handler for Hanging {
        fn call(&self, _: String, _: TaskContext) -> HandlerFuture {
            Box::pin(std::future::pending())
        }
    }

    fn task(task_id: &str, task_type: &str) -> Task {
        Task { task_id: task_id.into(), r#type: task_type.into(), ..Task::default() }
    }

    /// A worker that is told to stop when all that it holds is a result that nobody has acknowledged.
    fn with_a_result() -> (Runner, Drain) {
        let handlers = HashMap::from([("hang".to_owned(), Arc::new(Hanging) as Arc<dyn Handler>)]);
        let mut runner = Runner::new(Arc::new(handlers), Handle::current(), None);
        assert!(runner.accept(task("done", "unknown")), "it has failed as soon as it has begun");
        let drain = Drain::new(CancellationToken::new(), TIMEOUT);
        drain.request();
        (runner, drain)
    }

    fn acknowledged() -> ResultAck {
        ResultAck { task_id: "done".into(), verdict: ResultVerdict::Applied.into(), reason: String::new() }
    }

    #[tokio::test]
    async fn a_result_has_all_the_time_of_the_drain_to_be_acknowledged() {
        let (mut runner, mut drain) = with_a_result();
        let begun = Instant::now();
        assert!(!drain.advance(&mut runner, begun));
        // As long as an orchestrator may be away that is deployed together with its workers.
        assert!(!drain.advance(&mut runner, begun + Duration::from_secs(8)));
        runner.acknowledge(&acknowledged());
        assert!(
            drain.advance(&mut runner, begun + Duration::from_secs(8)),
            "there is nothing left to wait for"
        );
    }

    #[tokio::test]
    async fn a_result_that_nobody_acknowledges_is_not_waited_for_for_ever() {
        let (mut runner, mut drain) = with_a_result();
        let begun = Instant::now();
        assert!(!drain.advance(&mut runner, begun));
        let end = drain.deadline().expect("it has begun");
        assert_eq!(end, begun + TIMEOUT);
        assert!(!drain.advance(&mut runner, end));
        assert_eq!(drain.deadline(), Some(end + FLUSH_TIMEOUT));
        assert!(drain.advance(&mut runner, end + FLUSH_TIMEOUT));
    }

    #[tokio::test]
    async fn a_task_that_comes_while_results_are_waited_for_is_given_back_as_others_are() {
        let (mut runner, mut drain) = with_a_result();
        let begun = Instant::now();
        assert!(!drain.advance(&mut runner, begun));
        assert!(runner.accept(task("late", "hang")));
        runner.acknowledge(&acknowledged());
        assert!(!drain.advance(&mut runner, begun + TIMEOUT));
        assert_eq!(runner.held.stop("late"), None, "it has been told to stop");
    }
}
