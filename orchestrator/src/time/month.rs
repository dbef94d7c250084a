//! Calendar months of UTC, by which quotas are counted. Months and not spans, because people are billed by them.

use std::fmt;

use jiff::{civil::Date, tz::TimeZone};

use super::Timestamp;

/// A calendar month of UTC, by which quotas are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: i16,
    month: i8,
}

impl Month {
    /// The month in which this time lies.
    pub fn of(time: Timestamp) -> Self {
        // Beyond the calendar, which ends in the year 9999, every time is its last month.
        let time = jiff::Timestamp::from_microsecond(time.as_micros()).unwrap_or(jiff::Timestamp::MAX);
        let date = time.to_zoned(TimeZone::UTC).date();
        Self { year: date.year(), month: date.month() }
    }

    /// The first moment of the next one.
    pub fn end(self) -> Timestamp {
        let (year, month) = if self.month == 12 { (self.year + 1, 1) } else { (self.year, self.month + 1) };
        let end = Date::new(year, month, 1).and_then(|date| date.to_zoned(TimeZone::UTC));
        let end = end.map_or(jiff::Timestamp::MAX, |zoned| zoned.timestamp());
        Timestamp::from_micros(end.as_microsecond())
    }

    /// As a number that grows by one from month to month, for storage.
    pub fn number(self) -> i32 {
        i32::from(self.year) * 12 + i32::from(self.month) - 1
    }

    /// The month with this number.
    pub fn from_number(number: i32) -> Option<Self> {
        let (year, month) = (number.div_euclid(12), number.rem_euclid(12) + 1);
        Some(Self { year: i16::try_from(year).ok()?, month: month as i8 })
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_ends_where_the_next_one_begins_in_utc() {
        let time = |text| Timestamp::from_rfc3339(text).unwrap();
        for (within, shown, end) in [
            ("2026-11-01T00:00:00Z", "2026-11", "2026-12-01T00:00:00Z"),
            ("2026-12-31T23:59:59.999999Z", "2026-12", "2027-01-01T00:00:00Z"),
            ("2028-02-29T12:00:00Z", "2028-02", "2028-03-01T00:00:00Z"),
            ("2026-12-01T00:30:00+01:00", "2026-11", "2026-12-01T00:00:00Z"),
        ] {
            let month = Month::of(time(within));
            assert_eq!((month.to_string().as_str(), month.end()), (shown, time(end)));
            assert_eq!(Month::from_number(month.number()), Some(month));
            assert_eq!(Month::of(month.end()).number(), month.number() + 1);
        }
        // The calendar's own ends are no reason to panic.
        for micros in [i64::MIN, i64::MAX] {
            let month = Month::of(Timestamp::from_micros(micros));
            assert!(month.end() >= Timestamp::from_micros(i64::MIN));
        }
        assert_eq!(Month::from_number(i32::MAX), None);
    }
}
