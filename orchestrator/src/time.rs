//! Points in time, and where they come from.
//!
//! Time is an argument everywhere: the engine and the conductor are told `now`, and only [`SystemClock`] asks the machine.

use std::{
    fmt,
    ops::{Add, Sub},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::museum::{Mistake, plants};

mod month;

pub use month::Month;

/// A point in time: microseconds since 1970-01-01T00:00:00Z. Shown as RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The point this many microseconds after 1970.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since 1970; 0 for earlier times.
    pub fn as_unix_ms(self) -> u64 {
        u64::try_from(self.0 / 1000).unwrap_or(0)
    }

    /// The point that a text such as `2026-12-24T18:00:00Z` names.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|time| Self(time.as_microsecond()))
    }

    /// As a text with no more digits than it takes: `2026-12-24T18:00:00Z`.
    pub fn to_rfc3339(self) -> String {
        jiff::Timestamp::from_microsecond(self.0).map_or_else(|_| self.to_string(), |time| time.to_string())
    }

    /// The time from `earlier` to this point; zero when `earlier` is later.
    pub fn saturating_since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(time) => write!(f, "{time:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where the conductor gets `now` from.
pub trait Clock: Send + Sync + 'static {
    /// The present time. Never goes back.
    fn now(&self) -> Timestamp;

    /// The time of day, for what is meant by the calendar. May jump when somebody sets the machine's clock, or after the machine
    /// was suspended.
    fn wall(&self) -> Timestamp {
        self.now()
    }
}

/// The two hands of a machine's clock.
pub trait Hands: Send + Sync + 'static {
    /// What the wall clock shows. Anybody may set it forward or back.
    fn wall(&self) -> Timestamp;

    /// How much time has passed since some moment. Nobody can set it.
    fn passed(&self) -> Duration;
}

/// The hands of this machine.
#[derive(Debug, Clone, Copy)]
pub struct Machine(Instant);

impl Hands for Machine {
    fn wall(&self) -> Timestamp {
        machine_time()
    }

    fn passed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The machine's clock as it stood when the process started, and the time that has really passed since. A wall clock that is
/// set forward or back under a running orchestrator therefore expires nothing and delays nothing; what is stored follows
/// the wall clock again after the next start.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock<H = Machine> {
    hands: H,
    started: Timestamp,
    passed: Duration,
}

impl SystemClock {
    /// Reads the machine's clock.
    pub fn new() -> Self {
        Self::over(Machine(Instant::now()))
    }
}

impl<H: Hands> SystemClock<H> {
    /// Reads these hands.
    pub fn over(hands: H) -> Self {
        Self { started: hands.wall(), passed: hands.passed(), hands }
    }
}

fn machine_time() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX))
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: Hands> Clock for SystemClock<H> {
    fn now(&self) -> Timestamp {
        if plants(Mistake::WallClock) {
            return self.hands.wall();
        }
        self.started + self.hands.passed().saturating_sub(self.passed)
    }

    fn wall(&self) -> Timestamp {
        self.hands.wall()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reads_as_rfc_3339_and_arithmetic_saturates() {
        let time = Timestamp::from_micros(1_700_000_000_123_456);
        assert_eq!(time.to_string(), "2023-11-14T22:13:20.123456Z");
        assert_eq!(Timestamp::from_micros(1_700_000_000_000_000).to_rfc3339(), "2023-11-14T22:13:20Z");
        assert_eq!((time + Duration::from_secs(1)).saturating_since(time), Duration::from_secs(1));
        assert_eq!(time.saturating_since(time + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(Timestamp::from_micros(i64::MAX) + Duration::MAX, Timestamp::from_micros(i64::MAX));
    }
}
