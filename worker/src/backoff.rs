//! How long to wait before trying again: exponential, capped, with full jitter.
//!
//! Pure: randomness comes in, a duration goes out. Full jitter (anywhere between nothing and the step) spreads the workers
//! that lost the same orchestrator at the same instant, over as long a time as that orchestrator has asked for.

use std::time::Duration;

/// The longest time over which a worker lets itself be spread, whatever the orchestrator says.
const SPREAD_MAX: Duration = Duration::from_secs(60);

/// The wait before the next try, which doubles with every try up to a cap.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
    spread: Duration,
    tries: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, spread: Duration::ZERO, tries: 0 }
    }

    /// Makes every step at least this long from now on: so many others wait for the same orchestrator.
    pub(crate) fn spread_over(&mut self, time: Duration) {
        self.spread = time.min(SPREAD_MAX);
    }

    /// Somewhere between 0 and `first`, then twice that, and so on to the cap; `random` says where.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let step = self.first.saturating_mul(1_u32.checked_shl(self.tries).unwrap_or(u32::MAX)).min(self.cap);
        self.tries = self.tries.saturating_add(1);
        step.max(self.spread).mul_f64(random as f64 / u64::MAX as f64)
    }

    /// Forgets the tries so far, because one went well.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

/// 64 random bits. Without a source of randomness the middle of the range will do: it only spreads retries.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest(backoff: &mut Backoff, tries: usize) -> Vec<u128> {
        (0..tries).map(|_| backoff.next(u64::MAX).as_millis()).collect()
    }

    #[test]
    fn the_wait_doubles_up_to_the_cap_and_starts_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        assert_eq!(longest(&mut backoff, 9), [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        for _ in 0..100 {
            assert_eq!(backoff.next(u64::MAX), Duration::from_secs(5));
        }
        backoff.reset();
        assert_eq!(backoff.next(u64::MAX).as_millis(), 50);
        assert_eq!(backoff.next(0).as_millis(), 0);
    }

    #[test]
    fn whoever_is_one_of_many_is_spread_from_the_first_try_on_and_after_every_stream() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        backoff.spread_over(Duration::from_millis(300));
        for _ in 0..2 {
            assert_eq!(longest(&mut backoff, 7), [300, 300, 300, 400, 800, 1600, 2000]);
            backoff.reset();
        }
        backoff.spread_over(Duration::from_secs(3));
        assert_eq!(longest(&mut backoff, 9), [3000; 9]);
        assert_eq!(backoff.next(u64::MAX / 4).as_millis(), 750, "anywhere within");
        backoff.spread_over(Duration::MAX);
        assert_eq!(backoff.next(u64::MAX), SPREAD_MAX);
    }
}
