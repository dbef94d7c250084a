//! Over how long the connected workers are to spread their return when they lose us, all at the same moment.
//!
//! Ten thousand that come within a second take the machine from everybody else; one alone should not wait. So the time grows with
//! their number, and every stream is told when it has changed. It promises that whoever keeps to it is back while its tasks
//! are still waited for. It refuses to know what is said in which message.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Time for each worker that comes back. Its connection and its Hello cost a small machine 0.1 ms, so they take a third of one
/// processor.
const PACE: Duration = Duration::from_micros(300);

/// As little as this spreads nobody: workers are apart by more than that of their own accord.
const WORTH_TELLING: Duration = Duration::from_millis(50);

/// The longest time, whatever the number: nobody wants to wait longer for its workers.
pub const RECONNECT_WITHIN_MAX: Duration = Duration::from_secs(30);

/// The streams that are open. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Spread(Arc<Streams>);

#[derive(Debug)]
struct Streams {
    open: AtomicUsize,
    longest: Duration,
}

/// One open stream. It counts until it is dropped.
#[derive(Debug)]
pub struct Member {
    streams: Arc<Streams>,
    told: Option<Duration>,
}

impl Spread {
    /// Nobody is connected. After a restart workers are waited for so long; with no time at all, nobody is, and nothing is lost by
    /// coming late.
    pub fn new(adoption_window: Duration) -> Self {
        let longest = match adoption_window {
            Duration::ZERO => RECONNECT_WITHIN_MAX,
            // Whoever has tried in vain before we were there waits once more. What is left is for the way, and for the others.
            window => RECONNECT_WITHIN_MAX.min(window * 3 / 5),
        };
        Self(Arc::new(Streams { open: AtomicUsize::new(0), longest }))
    }

    /// One more stream.
    pub fn join(&self) -> Member {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Member { streams: self.0.clone(), told: None }
    }
}

impl Streams {
    fn within(&self) -> Duration {
        let open = u32::try_from(self.open.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let within = PACE.saturating_mul(open).min(self.longest);
        if within < WORTH_TELLING { Duration::ZERO } else { within }
    }
}

impl Member {
    /// The time over which all of them are to come back, when this one has not been told or it is another one by more than an eighth.
    pub fn news(&mut self) -> Option<Duration> {
        let within = self.streams.within();
        if self.told.is_some_and(|told| told.abs_diff(within) <= told / 8) {
            return None;
        }
        self.told = Some(within);
        self.told
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

    #[test]
    fn a_worker_alone_comes_back_at_once_and_many_share_the_time_in_which_they_are_waited_for() {
        let spread = Spread::new(Duration::from_secs(5));
        let mut first = spread.join();
        assert_eq!(first.news(), Some(Duration::ZERO));
        assert_eq!(first.news(), None, "it has been told");
        let mut others: Vec<Member> = (1..1000).map(|_| spread.join()).collect();
        assert_eq!(
            first.news(),
            Some(Duration::from_millis(300)),
            "those who came first know of those who came later"
        );
        others.pop();
        assert_eq!(first.news(), None, "one less makes no difference");
        others.extend((0..19_000).map(|_| spread.join()));
        assert_eq!(first.news(), Some(Duration::from_secs(3)), "no longer than their tasks are waited for");
        drop(others);
        assert_eq!(first.news(), Some(Duration::ZERO));
    }

    #[test]
    fn where_nobody_is_waited_for_the_number_alone_counts() {
        let spread = Spread::new(Duration::ZERO);
        let mut members: Vec<Member> = (0..20_000).map(|_| spread.join()).collect();
        assert_eq!(members[0].news(), Some(Duration::from_secs(6)));
    }
}
