//! How long to wait before trying again: exponential, capped, with full jitter.
//!
//! Pure: randomness comes in, a duration goes out. Full jitter (anywhere between nothing and the step) spreads the workers
//! that lost the same orchestrator at the same instant.

use std::time::Duration;

/// The wait before the next try, which doubles with every try up to a cap.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, tries: 0 }
    }

    /// Somewhere between 0 and `first`, then twice that, and so on to the cap; `random` says where.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let step = self.first.saturating_mul(1_u32.checked_shl(self.tries).unwrap_or(u32::MAX)).min(self.cap);
        self.tries = self.tries.saturating_add(1);
        step.mul_f64(random as f64 / u64::MAX as f64)
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

    #[test]
    fn the_wait_doubles_up_to_the_cap_and_starts_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let longest: Vec<u128> = (0..9).map(|_| backoff.next(u64::MAX).as_millis()).collect();
        assert_eq!(longest, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        for _ in 0..100 {
            assert_eq!(backoff.next(u64::MAX), Duration::from_secs(5));
        }
        backoff.reset();
        assert_eq!(backoff.next(u64::MAX).as_millis(), 50);
        assert_eq!(backoff.next(0).as_millis(), 0);
    }
}
