//! How long either end of one stream may be silent, which both of its halves have to know.
//!
//! A worker that holds no tasks may have leave to say nothing for a while; it says so whenever it makes use of that. It promises that
//! a worker to which tasks are handed is watched as closely as any other from that moment on, also if what it said before is still on
//! its way. It refuses to know who gives such leave, and for how long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use avtomatika_proto::limits::{
    KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, QUIET_FOR_MAX, SILENT_TIMES_MAX, SUSPECTED_AFTER,
};
use tokio::sync::Notify;

/// Shared by the halves of a stream. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// Tasks that were handed to the worker on this stream.
    handed: AtomicU64,
    /// For how long the worker is quiet, as it has said. 0: it is not.
    quiet_for_ms: AtomicU64,
    over: Notify,
}

/// How long the worker may be silent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Then it is suspected.
    pub suspected_after: Duration,
    /// Then it is lost.
    pub lost_after: Duration,
}

impl Pulse {
    /// So many tasks are handed to the worker: it is quiet no more.
    pub fn hand(&self, tasks: usize) {
        if tasks == 0 {
            return;
        }
        // In this order, and the other way around in `quiet`: one of the two sees what the other has done.
        self.0.handed.fetch_add(tasks as u64, Ordering::SeqCst);
        if self.0.quiet_for_ms.swap(0, Ordering::SeqCst) > 0 {
            self.0.over.notify_one();
        }
    }

    /// The worker says that it holds nothing of the tasks that it was handed, so many, and is quiet for so long. Nothing is made of
    /// that while more are on their way to it.
    pub fn quiet(&self, quiet_for: Duration, tasks_received: u64) -> Patience {
        let quiet_for_ms = quiet_for.min(QUIET_FOR_MAX).as_millis() as u64;
        self.0.quiet_for_ms.store(quiet_for_ms, Ordering::SeqCst);
        if self.0.handed.load(Ordering::SeqCst) != tasks_received {
            return self.usual();
        }
        let quiet_for = self.interval();
        Patience {
            suspected_after: SUSPECTED_AFTER.max(quiet_for * 2),
            lost_after: KEEPALIVE_TIMEOUT.max(quiet_for * SILENT_TIMES_MAX),
        }
    }

    /// The worker has said something else, or has been handed something: it is watched as usual.
    pub fn usual(&self) -> Patience {
        self.0.quiet_for_ms.store(0, Ordering::SeqCst);
        Patience { suspected_after: SUSPECTED_AFTER, lost_after: KEEPALIVE_TIMEOUT }
    }

    /// Waits until a worker that was quiet is handed something.
    pub async fn is_over(&self) {
        self.0.over.notified().await;
    }

    /// How often the worker is to hear something.
    pub fn interval(&self) -> Duration {
        KEEPALIVE_INTERVAL.max(Duration::from_millis(self.0.quiet_for_ms.load(Ordering::SeqCst)))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const USUAL: Patience = Patience { suspected_after: SUSPECTED_AFTER, lost_after: KEEPALIVE_TIMEOUT };

    #[test]
    fn a_worker_without_tasks_may_be_quiet_until_it_is_handed_one() {
        let pulse = Pulse::default();
        pulse.hand(2);
        let quiet = pulse.quiet(Duration::from_secs(2), 2);
        let (suspected_after, lost_after) = (Duration::from_secs(4), Duration::from_secs(8));
        assert_eq!(quiet, Patience { suspected_after, lost_after });
        assert_eq!(pulse.interval(), Duration::from_secs(2), "it is told as little as it tells");
        assert!(pulse.is_over().now_or_never().is_none());
        pulse.hand(1);
        assert!(pulse.is_over().now_or_never().is_some());
        assert_eq!((pulse.interval(), pulse.usual()), (KEEPALIVE_INTERVAL, USUAL));
        pulse.hand(1);
        assert!(
            pulse.is_over().now_or_never().is_none(),
            "who is not quiet need not be watched more closely"
        );
    }

    #[test]
    fn what_a_worker_said_before_it_had_its_tasks_makes_nobody_more_patient() {
        let pulse = Pulse::default();
        pulse.hand(1);
        assert_eq!(pulse.quiet(Duration::from_secs(2), 0), USUAL);
        assert_eq!(pulse.interval(), KEEPALIVE_INTERVAL);
    }

    #[test]
    fn nobody_is_quiet_for_longer_than_the_limit() {
        let pulse = Pulse::default();
        let lost_after = QUIET_FOR_MAX * SILENT_TIMES_MAX;
        assert_eq!(pulse.quiet(Duration::MAX, 0).lost_after, lost_after);
        assert_eq!(pulse.quiet(Duration::ZERO, 0), USUAL);
    }
}
