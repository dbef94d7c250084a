//! How long to wait before a failed task is tried again. A pure function of the policy, the retry's number and a fraction.

use std::time::Duration;

use crate::blueprint::RetryPolicy;

/// Share of the delay by which it varies either way, so that tasks that failed together do not return together.
const JITTER: f64 = 0.2;

impl RetryPolicy {
    /// The pause before this retry, counted from 1. `fraction` (0.0 to 1.0) places it within the jitter; the result never
    /// exceeds `max_delay`.
    pub fn delay(&self, retry: u32, fraction: f64) -> Duration {
        let exponent = f64::from(retry.saturating_sub(1));
        let seconds = self.initial_delay.as_secs_f64() * self.multiplier.powf(exponent);
        let jittered = seconds.min(self.max_delay.as_secs_f64()) * (1.0 - JITTER + 2.0 * JITTER * fraction);
        Duration::from_secs_f64(jittered.min(self.max_delay.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_from_the_first_to_the_longest_and_vary_by_a_fifth() {
        let policy = RetryPolicy::default();
        let seconds: Vec<u64> = (1..=8).map(|retry| policy.delay(retry, 0.5).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(policy.delay(2, 0.0), Duration::from_millis(1600));
        assert_eq!(policy.delay(2, 1.0), Duration::from_millis(2400));
        assert_eq!(policy.delay(u32::MAX, 1.0), Duration::from_secs(60));
    }
}
