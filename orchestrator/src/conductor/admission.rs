//! Large payloads come in a few at a time, and leave the machine to the small ones in between.
//!
//! Whoever brings a large payload takes its admission before anybody looks into it, and lets go of it when it is durable.
//! A small one needs none and passes by. Everybody who reads, decides and syncs is kept busy by a large one for milliseconds, in
//! which small ones wait. So while small ones come too, after each large one there is a rest several times as long as that took: then
//! they have most of the time. It refuses to know what a payload is for.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use avtomatika_proto::limits::PAYLOAD_BYTES_MAX;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

/// From here on a payload is large: below it, looking into it costs about as much as everything else about its job.
const LARGE_BYTES: usize = 64 * 1024;

/// Large payloads under way at once, in bytes: one of the largest. With two, small jobs beside them took twice as long, and no more
/// of the large ones went through.
const UNDER_WAY_BYTES: usize = PAYLOAD_BYTES_MAX;

/// What permits count.
const UNIT_BYTES: usize = 1024;

/// How long the rest after a large payload is, in times of what that took. With once, small jobs beside 50 callers with 1 MB each had
/// 4.1 times the p99 that they have alone; with three times 3.0, with four times 2.6 to 2.7. Of the large ones 97, 65 and 57 a second
/// went through (2-core AMD EPYC, 26 November 2026, `cargo bench --bench scale -- payloads`).
const REST_TIMES: u32 = 4;

/// Longest rest after a large payload. One that took longer met a disk that is busy with something else.
const REST_MAX: Duration = Duration::from_millis(50);

/// Lets large payloads in. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Admissions(Arc<Pace>);

#[derive(Debug)]
struct Pace {
    under_way: Arc<Semaphore>,
    /// Whether a small payload has come since a large one was let in.
    small_ones_come: AtomicBool,
    /// When the next large one may come in.
    rests_until: Mutex<Instant>,
}

/// Held by what is under way. What is small holds none.
#[derive(Debug, Default)]
pub struct Admission(Option<Held>);

#[derive(Debug)]
struct Held {
    pace: Arc<Pace>,
    since: Instant,
    /// Given back after the rest is noted.
    _permit: OwnedSemaphorePermit,
}

impl Admissions {
    /// Nothing is under way.
    pub fn new() -> Self {
        let under_way = Arc::new(Semaphore::new(UNDER_WAY_BYTES / UNIT_BYTES));
        let rests_until = Mutex::new(Instant::now());
        Self(Arc::new(Pace { under_way, small_ones_come: AtomicBool::new(false), rests_until }))
    }

    /// Waits until a request with a payload of this size may come in; those before it come first.
    pub async fn admit(&self, bytes: usize) -> Admission {
        if bytes < LARGE_BYTES {
            self.0.small_ones_come.store(true, Ordering::Relaxed);
        }
        self.admit_results(bytes).await
    }

    /// The same for results of this size. Small ones are no reason to rest: those of large requests are mostly small.
    pub async fn admit_results(&self, bytes: usize) -> Admission {
        let pace = &self.0;
        if bytes < LARGE_BYTES {
            return Admission(None);
        }
        let units = (bytes.min(UNDER_WAY_BYTES) / UNIT_BYTES) as u32;
        // Nobody closes the semaphore; if somebody did, there would be nothing to wait for.
        let Ok(permit) = pace.under_way.clone().acquire_many_owned(units).await else {
            return Admission(None);
        };
        sleep_until(pace.rests_until()).await;
        pace.small_ones_come.store(false, Ordering::Relaxed);
        Admission(Some(Held { pace: pace.clone(), since: Instant::now(), _permit: permit }))
    }
}

impl Pace {
    fn rests_until(&self) -> Instant {
        // An instant is whole at any time.
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.pace.small_ones_come.load(Ordering::Relaxed) {
            let rest = (self.since.elapsed() * REST_TIMES).min(REST_MAX);
            let mut until = self.pace.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
            *until = Instant::now() + rest;
        }
    }
}

impl Admission {
    /// Whether there is anything to let go of.
    pub fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn large_ones_wait_for_each_other_and_small_ones_for_nobody() {
        let admissions = Admissions::new();
        let (first, second) = (admissions.admit(400_000).await, admissions.admit(400_000).await);
        assert!(first.is_held() && second.is_held());
        let mut third = Box::pin(admissions.admit(400_000));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(!admissions.admit(LARGE_BYTES - 1).await.is_held());
        drop(first);
        assert!(third.await.is_held());
        // One that is larger than everything that may be under way comes in alone.
        drop(second);
        assert!(admissions.admit(usize::MAX).await.is_held());
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_one_leaves_four_times_the_time_that_it_took_to_the_small_ones_if_there_are_any() {
        let admissions = Admissions::new();
        let started = Instant::now();
        for small_ones_come in [true, false] {
            let admission = admissions.admit(LARGE_BYTES).await;
            tokio::time::advance(Duration::from_millis(7)).await;
            if small_ones_come {
                admissions.admit(100).await;
            }
            admissions.admit_results(100).await;
            drop(admission);
        }
        // 7 ms, a rest of 28 ms, 7 ms, and no rest.
        assert!(admissions.admit(LARGE_BYTES).await.is_held());
        assert_eq!(started.elapsed(), Duration::from_millis(42));
    }
}
