//! The attempts that run, and when each of them must have ended.
//!
//! One clock for all of them: an attempt has no task of its own that watches it, so that one that ends in time costs nothing more than
//! its end. Whoever owns this looks at it ([`overdue`](Attempts::overdue)) when [`next_due`](Attempts::next_due) has come.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use avtomatika_proto::v1::{Task, TaskResult};
use tokio::{runtime::Handle, sync::mpsc, time::Instant};

use crate::{
    Handler, TaskContext,
    attempt::{Attempt, End, Outcome, Serial, Stop},
    traced::Traced,
};

/// See the module.
pub(crate) struct Attempts {
    handlers_run_on: Handle,
    undecided: HashMap<Serial, Undecided>,
    /// When time is up for each of them that has a limit, or was told to stop.
    due: BTreeSet<(Instant, Serial)>,
    last_serial: Serial,
    /// Where handlers say how they ended. Has no limit of its own: each attempt says so once, and whoever reads it waits for nothing.
    ends: mpsc::UnboundedSender<(Serial, Outcome)>,
    told: mpsc::UnboundedReceiver<(Serial, Outcome)>,
}

struct Undecided {
    attempt: Attempt,
    due: Option<Instant>,
}

impl Attempts {
    /// None yet. Their handlers will run there.
    pub(crate) fn new(handlers_run_on: Handle) -> Self {
        let (ends, told) = mpsc::unbounded_channel();
        let (undecided, due) = (HashMap::new(), BTreeSet::new());
        Self { handlers_run_on, undecided, due, last_serial: 0, ends, told }
    }

    /// A name for an attempt, to be [started](Self::start) under it or never.
    pub(crate) fn name_one(&mut self) -> Serial {
        self.last_serial += 1;
        self.last_serial
    }

    /// Starts an attempt under this name.
    pub(crate) fn start(
        &mut self,
        serial: Serial,
        task: Task,
        handler: &Arc<dyn Handler>,
        context: TaskContext,
        traced: Option<Traced>,
    ) {
        let end = End::of(serial, self.ends.clone());
        let attempt = Attempt::start(task, handler, context, traced, &self.handlers_run_on, end);
        let timeout = attempt.timeout();
        self.undecided.insert(serial, Undecided { attempt, due: None });
        if let Some(timeout) = timeout {
            self.set_due(serial, timeout);
        }
    }

    /// Tells an attempt to stop, unless it has been told to. One whose handler has ended is decided already when the caller has looked
    /// at [`ended`](Self::ended) before.
    pub(crate) fn stop(&mut self, serial: Serial, stop: Stop) {
        if let Some(Undecided { attempt, .. }) = self.undecided.get_mut(&serial)
            && !attempt.is_stopping()
        {
            let patience = attempt.stop(stop);
            self.set_due(serial, patience);
        }
    }

    /// Waits for a handler to end, and returns its attempt's result. Safe to drop and call again.
    pub(crate) async fn next_ended(&mut self) -> TaskResult {
        loop {
            let Some((serial, outcome)) = self.told.recv().await else {
                // A sender stays here, so the channel never closes.
                std::future::pending().await
            };
            if let Some(result) = self.decided(serial, outcome) {
                return result;
            }
        }
    }

    /// The result of an attempt whose handler has ended, if there is one.
    pub(crate) fn ended(&mut self) -> Option<TaskResult> {
        while let Ok((serial, outcome)) = self.told.try_recv() {
            if let Some(result) = self.decided(serial, outcome) {
                return Some(result);
            }
        }
        None
    }

    /// The result of an attempt whose handler has ended so; `None` when it was abandoned before, or its task was dropped.
    fn decided(&mut self, serial: Serial, outcome: Outcome) -> Option<TaskResult> {
        self.take(serial)?.ended(outcome)
    }

    /// When the next attempt's time is up.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Tells the attempts to stop whose time is up. Returns the result of one that has not stopped in time, if there is one.
    pub(crate) fn overdue(&mut self, now: Instant) -> Option<TaskResult> {
        while let Some(&(due, serial)) = self.due.first().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, serial));
            if !self.undecided.get(&serial).is_some_and(|known| known.attempt.is_stopping()) {
                self.stop(serial, Stop::Timeout);
            } else if let Some(result) = self.take(serial).and_then(Attempt::abandoned) {
                return Some(result);
            }
        }
        None
    }

    fn take(&mut self, serial: Serial) -> Option<Attempt> {
        let Undecided { attempt, due } = self.undecided.remove(&serial)?;
        if let Some(due) = due {
            self.due.remove(&(due, serial));
        }
        Some(attempt)
    }

    /// From now on the attempt's time is up after so long; never, when that is further than clocks go.
    fn set_due(&mut self, serial: Serial, after: Duration) {
        let Some(undecided) = self.undecided.get_mut(&serial) else { return };
        if let Some(due) = undecided.due.take() {
            self.due.remove(&(due, serial));
        }
        undecided.due = Instant::now().checked_add(after);
        self.due.extend(undecided.due.map(|due| (due, serial)));
    }
}

#[cfg(test)]
mod tests {
    use avtomatika_proto::{outcome, task_error};
    use tokio::time::advance;

    use super::*;
    use crate::{HandlerFuture, TaskOutcome, context::context_for_test};

    /// Ends at once, or never.
    #[derive(Clone, Copy)]
    enum Acts {
        AtOnce,
        Never,
    }

    impl Handler for Acts {
        fn call(&self, _: String, _: TaskContext) -> HandlerFuture {
            match self {
                Self::AtOnce => Box::pin(async { Ok(TaskOutcome::success(())) }),
                Self::Never => Box::pin(std::future::pending()),
            }
        }
    }

    fn start(attempts: &mut Attempts, acts: Acts, timeout: Duration) -> TaskContext {
        let timeout = timeout.try_into().ok();
        let task = Task { task_id: "t".into(), timeout, ..Task::default() };
        let context = context_for_test(&task);
        let handler: Arc<dyn Handler> = Arc::new(acts);
        let serial = attempts.name_one();
        attempts.start(serial, task, &handler, context.clone(), None);
        context
    }

    fn code(result: &TaskResult) -> &str {
        result.error.as_ref().map_or("", |error| &error.code)
    }

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn of_an_attempt_that_has_ended_nothing_is_left() {
        let mut attempts = Attempts::new(Handle::current());
        start(&mut attempts, Acts::AtOnce, LIMIT);
        assert!(attempts.next_due().is_some());
        assert_eq!(attempts.next_ended().await.outcome, outcome::SUCCESS);
        assert!(attempts.undecided.is_empty() && attempts.due.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_stop_is_abandoned_and_what_it_says_afterwards_is_not_heard() {
        let mut attempts = Attempts::new(Handle::current());
        let context = start(&mut attempts, Acts::Never, LIMIT);
        advance(LIMIT).await;
        assert_eq!(attempts.overdue(Instant::now()), None, "it may stop by itself");
        assert!(context.is_cancelled());
        // An order that comes now changes nothing.
        attempts.stop(1, Stop::Cancel(LIMIT));
        advance(Acts::Never.stop_grace()).await;
        let result = attempts.overdue(Instant::now()).unwrap();
        assert_eq!((&*result.outcome, code(&result)), (outcome::TIMEOUT, task_error::TIMEOUT));
        // Its handler is dropped now.
        tokio::task::yield_now().await;
        assert!(!attempts.told.is_empty());
        assert_eq!((attempts.ended(), attempts.next_due()), (None, None));
    }

    #[tokio::test]
    async fn one_that_is_stopped_before_its_time_is_up_has_only_its_grace_left() {
        let mut attempts = Attempts::new(Handle::current());
        start(&mut attempts, Acts::Never, LIMIT);
        attempts.stop(1, Stop::Shutdown);
        assert!(attempts.next_due().unwrap() < Instant::now() + LIMIT / 2);
        assert_eq!(attempts.due.len(), 1);
    }

    #[tokio::test]
    async fn one_whose_runtime_is_shut_down_has_failed() {
        let elsewhere = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut attempts = Attempts::new(elsewhere.handle().clone());
        start(&mut attempts, Acts::Never, LIMIT);
        elsewhere.shutdown_background();
        let result = attempts.next_ended().await;
        assert_eq!((&*result.outcome, code(&result)), (outcome::FAILURE, task_error::TRANSIENT));
    }

    #[tokio::test]
    async fn a_limit_that_no_clock_reaches_is_none() {
        let mut attempts = Attempts::new(Handle::current());
        start(&mut attempts, Acts::Never, Duration::from_secs(i64::MAX as u64));
        assert_eq!(attempts.next_due(), None);
    }
}
