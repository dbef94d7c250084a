//! When a schedule is due: a rule and the time zone in which it is meant.
//!
//! Due times follow from the rule alone, and not from when somebody looked: whoever asks twice, or after a restart, is told the
//! same. They are whole seconds, except those of an interval that is none.

use std::{fmt, sync::Arc, time::Duration};

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    Zoned,
    tz::{self, TimeZone, TimeZoneDatabase},
};

use super::calendar::Calendar;
use crate::time::Timestamp;

/// Shortest interval.
pub(super) const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Longest interval: beyond a year, a typo is more likely than a plan.
pub(super) const INTERVAL_MAX: Duration = Duration::from_secs(366 * 86_400);

/// Length of a cron expression.
const CRON_BYTES_MAX: usize = 256;

/// A rule in a time zone.
#[derive(Debug, Clone)]
pub struct Timing {
    rule: Rule,
    zone: TimeZone,
}

/// From what due times follow.
#[derive(Debug, Clone)]
pub enum Rule {
    /// A cron expression, and its text.
    Cron(Box<Cron>, Arc<str>),
    /// Every so often, counted from 1970-01-01T00:00:00Z: every quarter of an hour is at :00, :15, :30 and :45.
    Interval(Duration),
    /// Days and times of day.
    Calendar(Calendar),
}

/// What is written as a rule is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTiming(pub(super) String);

impl Rule {
    /// The rule of a cron expression with five fields (minute, hour, day of the month, month, day of the week) or six (seconds
    /// before them).
    ///
    /// # Errors
    /// It is none.
    pub fn cron(text: &str) -> Result<Self, InvalidTiming> {
        if text.len() > CRON_BYTES_MAX {
            return Err(InvalidTiming(format!("it is longer than {CRON_BYTES_MAX} bytes")));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        match parser.parse(text) {
            Ok(cron) => {
                let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                Ok(Self::Cron(Box::new(cron), text.into()))
            }
            Err(error) => Err(InvalidTiming(error.to_string().trim_end_matches('.').to_owned())),
        }
    }

    /// The rule that is due every so often.
    ///
    /// # Errors
    /// Shorter than a second, or longer than a year.
    pub fn interval(interval: Duration) -> Result<Self, InvalidTiming> {
        match (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
            true => Ok(Self::Interval(interval)),
            false => Err(InvalidTiming("an interval is 1 second to 366 days long".to_owned())),
        }
    }
}

/// The time zone with this name, as the system knows it or, on a system that does not, as this program does.
///
/// # Errors
/// There is none.
pub fn time_zone(name: &str) -> Result<TimeZone, InvalidTiming> {
    let found = tz::db().get(name).or_else(|_| TimeZoneDatabase::bundled().get(name));
    found.map_err(|_| InvalidTiming("it is not a time zone of the IANA database".to_owned()))
}

impl Timing {
    /// This rule as it is meant there.
    pub fn new(rule: Rule, zone: TimeZone) -> Self {
        Self { rule, zone }
    }

    /// The name of the time zone.
    pub fn zone_name(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// What due times follow from.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The first due time after this point; `None` when there will be none.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Interval(interval) => {
                let step = micros(*interval);
                after
                    .as_micros()
                    .div_euclid(step)
                    .checked_add(1)?
                    .checked_mul(step)
                    .map(Timestamp::from_micros)
            }
            Rule::Calendar(calendar) => calendar.next_after(to_jiff(after)?, &self.zone).map(from_jiff),
            Rule::Cron(cron, _) => {
                let start = whole_second(to_jiff(after)?)?.to_zoned(self.zone.clone());
                let due = cron.find_next_occurrence::<Zoned>(&start, false).ok()?;
                Some(from_jiff(due.timestamp())).filter(|due| *due > after)
            }
        }
    }

    /// The last due time up to this point, inclusive; `None` when there was none.
    pub fn last_until(&self, until: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Interval(interval) => {
                let step = micros(*interval);
                until.as_micros().div_euclid(step).checked_mul(step).map(Timestamp::from_micros)
            }
            Rule::Calendar(calendar) => calendar.last_until(to_jiff(until)?, &self.zone).map(from_jiff),
            Rule::Cron(cron, _) => {
                let start = whole_second(to_jiff(until)?)?.to_zoned(self.zone.clone());
                let due = cron.find_previous_occurrence::<Zoned>(&start, true).ok()?;
                Some(from_jiff(due.timestamp())).filter(|due| *due <= until)
            }
        }
    }

    /// The due times after this point, the next one first.
    pub fn following(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next_after(after), |due| self.next_after(*due))
    }

    /// The due times up to this point, the last one first.
    pub fn preceding(&self, until: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.last_until(until), |due| self.last_until(*due - Duration::from_micros(1)))
    }
}

/// At most a year and at least a second: see [`Rule::interval`].
fn micros(interval: Duration) -> i64 {
    i64::try_from(interval.as_micros()).unwrap_or(i64::MAX).max(1)
}

fn to_jiff(time: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_microsecond(time.as_micros()).ok()
}

fn from_jiff(time: jiff::Timestamp) -> Timestamp {
    Timestamp::from_micros(time.as_microsecond())
}

fn whole_second(time: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let micros = time.as_microsecond();
    jiff::Timestamp::from_microsecond(micros - micros.rem_euclid(1_000_000)).ok()
}

impl fmt::Display for Timing {
    /// Two timings that read the same are due at the same times.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Rule::Cron(_, text) => write!(f, "cron {text} {}", self.zone_name()),
            Rule::Interval(interval) => {
                write!(f, "every {}", short(*interval))
            }
            Rule::Calendar(calendar) => write!(f, "{calendar} {}", self.zone_name()),
        }
    }
}

/// In the largest unit of which it is a whole number.
fn short(span: Duration) -> String {
    let millis = span.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    match units.into_iter().find(|(unit, _)| millis.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}
