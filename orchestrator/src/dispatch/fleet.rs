//! How many workers are connected, and what that asks of each of them.
//!
//! Ten thousand that come back within a second, when they lose us all at the same moment, take the machine from everybody else;
//! and so do ten thousand that say several times a second that they have nothing to say. One alone should neither wait nor be
//! quiet. So both times grow with their number, and every stream is told when they have changed. It promises that whoever keeps to
//! them is back while its tasks are still waited for. It refuses to know what is said in which message.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use avtomatika_proto::limits::{KEEPALIVE_INTERVAL, QUIET_FOR_MAX};

/// Time for each worker that comes back. Its connection and its Hello cost a small machine 0.1 ms, so they take a third of one
/// processor.
const RETURN_PACE: Duration = Duration::from_micros(300);

/// Time for each heartbeat of a worker that has nothing to do: four thousand a second, each way.
const HEARTBEAT_PACE: Duration = Duration::from_micros(250);

/// As little as this spreads nobody: workers are apart by more than that of their own accord.
const WORTH_TELLING: Duration = Duration::from_millis(50);

/// The longest time over which workers come back, whatever their number: nobody wants to wait longer for them.
pub const RECONNECT_WITHIN_MAX: Duration = Duration::from_secs(30);

/// The streams that are open. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fleet(Arc<Streams>);

#[derive(Debug)]
struct Streams {
    open: AtomicUsize,
    adoption_window: Duration,
    reconnect_within_max: Duration,
}

/// One open stream. It counts until it is dropped.
#[derive(Debug)]
pub struct Member {
    streams: Arc<Streams>,
    told: Option<Manners>,
}

/// What is asked of each worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manners {
    /// Over how long all of them come back. Zero: each as it likes.
    pub reconnect_within: Duration,
    /// For how long one that holds no tasks may say nothing. Zero: no longer than any other.
    pub quiet_for: Duration,
}

impl Fleet {
    /// Nobody is connected. After a restart workers are waited for so long; with no time at all, nobody is, and nothing is lost by
    /// coming late.
    pub fn new(adoption_window: Duration) -> Self {
        let reconnect_within_max = match adoption_window {
            Duration::ZERO => RECONNECT_WITHIN_MAX,
            // Whoever has tried in vain before we were there waits once more. What is left is for the way, and for the others.
            window => RECONNECT_WITHIN_MAX.min(window * 3 / 5),
        };
        Self(Arc::new(Streams { open: AtomicUsize::new(0), adoption_window, reconnect_within_max }))
    }

    /// How long workers are waited for that may have tasks and have left us through no fault of theirs.
    pub fn adoption_window(&self) -> Duration {
        self.0.adoption_window
    }

    /// One more stream.
    pub fn join(&self) -> Member {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Member { streams: self.0.clone(), told: None }
    }
}

impl Streams {
    fn manners(&self) -> Manners {
        let open = u32::try_from(self.open.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let reconnect_within = RETURN_PACE.saturating_mul(open).min(self.reconnect_within_max);
        let quiet_for = HEARTBEAT_PACE.saturating_mul(open).min(QUIET_FOR_MAX);
        Manners {
            reconnect_within: at_least(WORTH_TELLING, reconnect_within),
            quiet_for: at_least(KEEPALIVE_INTERVAL, quiet_for),
        }
    }
}

/// The time, if it is long enough to make a difference.
fn at_least(least: Duration, time: Duration) -> Duration {
    if time < least { Duration::ZERO } else { time }
}

impl Member {
    /// What is asked of this worker, when it has not been told or it is something else by more than an eighth.
    pub fn news(&mut self) -> Option<Manners> {
        let manners = self.streams.manners();
        if self.told.is_some_and(|told| told.is_about(manners)) {
            return None;
        }
        self.told = Some(manners);
        self.told
    }
}

impl Manners {
    fn is_about(self, other: Self) -> bool {
        let about = |told: Duration, time: Duration| told.abs_diff(time) <= told / 8;
        about(self.reconnect_within, other.reconnect_within) && about(self.quiet_for, other.quiet_for)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.streams.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manners(reconnect_within_ms: u64, quiet_for_ms: u64) -> Option<Manners> {
        Some(Manners {
            reconnect_within: Duration::from_millis(reconnect_within_ms),
            quiet_for: Duration::from_millis(quiet_for_ms),
        })
    }

    #[test]
    fn a_worker_alone_is_asked_for_nothing_and_many_share_the_time_in_which_they_are_waited_for() {
        let fleet = Fleet::new(Duration::from_secs(5));
        let mut first = fleet.join();
        assert_eq!(first.news(), manners(0, 0));
        assert_eq!(first.news(), None, "it has been told");
        let mut others: Vec<Member> = (1..1000).map(|_| fleet.join()).collect();
        assert_eq!(first.news(), manners(300, 0), "those who came first know of those who came later");
        others.pop();
        assert_eq!(first.news(), None, "one less makes no difference");
        others.extend((0..9001).map(|_| fleet.join()));
        assert_eq!(first.news(), manners(3000, 2500), "no longer than their tasks are waited for");
        others.extend((0..10_000).map(|_| fleet.join()));
        assert_eq!(first.news(), manners(3000, 3000), "and never so quiet that they could be gone for long");
        drop(others);
        assert_eq!(first.news(), manners(0, 0));
    }

    #[test]
    fn where_nobody_is_waited_for_the_number_alone_counts() {
        let fleet = Fleet::new(Duration::ZERO);
        let mut members: Vec<Member> = (0..20_000).map(|_| fleet.join()).collect();
        assert_eq!(members[0].news(), manners(6000, 3000));
    }
}
