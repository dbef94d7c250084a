//! How often somebody may call: a bucket that holds so many tokens, refills evenly, and says how long to wait when it is empty.
//!
//! It refuses to know the time: whoever asks says how much has passed since some moment.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// So many in so much time, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Calls per period, and in one burst. At least one.
    pub count: u32,
    /// The period, in whole seconds.
    pub period: Duration,
}

/// Calls in a period.
const COUNT_MAX: u32 = 1_000_000;

impl Rate {
    /// The rate that a text such as `50/s`, `600/m` or `1000/h` names.
    pub fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once('/')?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        let count = count.parse().ok().filter(|count| (1..=COUNT_MAX).contains(count))?;
        Some(Self { count, period: Duration::from_secs(seconds) })
    }

    /// Time in which one more may come. A period is at most an hour and a count at most a million, so it is never 0.
    fn interval(self) -> Duration {
        self.period / self.count
    }

    /// The rate as one number, which is never 0.
    fn to_bits(self) -> u64 {
        (u64::from(self.count) << 32) | (self.period.as_secs() & u64::from(u32::MAX))
    }

    /// The rate that this number is; `None` for 0.
    fn from_bits(bits: u64) -> Option<Self> {
        let (count, seconds) = ((bits >> 32) as u32, bits & u64::from(u32::MAX));
        (count > 0).then(|| Self { count, period: Duration::from_secs(seconds) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.period.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// What is left of a rate. It is kept as the moment when the bucket is full again, so that it needs no refilling.
#[derive(Debug, Default)]
pub struct Bucket(Mutex<Duration>);

impl Bucket {
    /// Takes one, or says how long until there is one.
    ///
    /// # Errors
    /// The time to wait.
    pub fn take(&self, rate: Rate, now: Duration) -> Result<(), Duration> {
        // A single moment, written in one go: there is nothing torn to be seen after a panic.
        let mut full_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let then = (*full_at).max(now) + rate.interval();
        match then.checked_sub(now + rate.period) {
            None | Some(Duration::ZERO) => {
                *full_at = then;
                Ok(())
            }
            Some(wait) => Err(wait),
        }
    }
}

/// How often one client may call as things are now, and what is left of it. Whoever was let in under another rate is held to the
/// present one, and whoever has none pays for no lock.
#[derive(Debug, Default)]
pub struct Allowance {
    rate: AtomicU64,
    left: Bucket,
}

impl Allowance {
    /// From now on, this rate holds; `None` for any.
    pub fn limit(&self, rate: Option<Rate>) {
        // The number says all that there is to know: nothing else need be seen with it.
        self.rate.store(rate.map_or(0, Rate::to_bits), Ordering::Relaxed);
    }

    /// The rate that holds.
    pub fn rate(&self) -> Option<Rate> {
        Rate::from_bits(self.rate.load(Ordering::Relaxed))
    }

    /// [`Bucket::take`] of what is left.
    ///
    /// # Errors
    /// The time to wait.
    pub fn take(&self, rate: Rate, now: Duration) -> Result<(), Duration> {
        self.left.take(rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_shown() {
        for text in ["1/s", "600/m", "1000000/h"] {
            let rate = Rate::parse(text).unwrap();
            assert_eq!(rate.to_string(), text);
            assert_eq!(Rate::from_bits(rate.to_bits()), Some(rate));
        }
        for text in ["", "5", "0/s", "-1/s", "5/d", "5 /s", "1000001/h", "1e3/s", "5/s "] {
            assert_eq!(Rate::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_burst_goes_through_then_so_many_in_each_period_and_never_more() {
        let (rate, bucket) = (Rate::parse("10/s").unwrap(), Bucket::default());
        let ms = Duration::from_millis;
        for _ in 0..10 {
            assert_eq!(bucket.take(rate, ms(5000)), Ok(()));
        }
        assert_eq!(bucket.take(rate, ms(5000)), Err(ms(100)));
        assert_eq!(bucket.take(rate, ms(5060)), Err(ms(40)), "and asking costs nothing");
        assert_eq!(bucket.take(rate, ms(5100)), Ok(()));
        assert_eq!(bucket.take(rate, ms(5100)), Err(ms(100)));
        let passed = (0..100_000).filter(|n| bucket.take(rate, ms(6100 + n / 10)).is_ok()).count();
        assert_eq!(passed, 10 + 99, "ten at once, and ten in each of ten seconds");
    }
}
