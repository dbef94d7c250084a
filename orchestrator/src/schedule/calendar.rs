//! Due times by the calendar: on these days, at these times of day, in this time zone.
//!
//! A time of day that a day does not have, because the clocks go forward over it, is due at the first moment after the gap. One
//! that a day has twice, because they go back, is due the first time only.

use std::fmt;

use jiff::{
    Timestamp,
    civil::{Date, Time, Weekday},
    tz::{AmbiguousOffset, TimeZone},
};

/// Days that are looked at for the next due time: the 29th of February may be eight years away.
const DAYS_MAX: usize = 8 * 366;

/// Which days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Days {
    /// All of them.
    Every,
    /// These days of each week.
    Weekly(Vec<Weekday>),
    /// These days of each month, from 1; a month without such a day has none. `last` is the last one of each.
    Monthly {
        /// By number.
        dates: Vec<i8>,
        /// And the last one.
        last: bool,
    },
}

impl Days {
    fn has(&self, date: Date) -> bool {
        match self {
            Self::Every => true,
            Self::Weekly(weekdays) => weekdays.contains(&date.weekday()),
            Self::Monthly { dates, last } => {
                dates.contains(&date.day()) || (*last && date.day() == date.days_in_month())
            }
        }
    }
}

/// Days and times of day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    days: Days,
    /// Ascending, none twice, at least one.
    times: Vec<Time>,
}

impl Calendar {
    /// These days at these times; the order does not matter.
    pub fn new(mut days: Days, mut times: Vec<Time>) -> Self {
        times.sort_unstable();
        times.dedup();
        match &mut days {
            Days::Every => {}
            Days::Weekly(weekdays) => {
                weekdays.sort_unstable_by_key(|weekday| weekday.to_monday_zero_offset());
                weekdays.dedup();
            }
            Days::Monthly { dates, .. } => {
                dates.sort_unstable();
                dates.dedup();
            }
        }
        Self { days, times }
    }

    /// The first due time after this one.
    pub(super) fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // From the day before: a gap over midnight moves due times from there to here.
        let mut date = zone.to_datetime(after).date().yesterday().ok()?;
        for _ in 0..DAYS_MAX {
            if self.days.has(date) {
                let mut due = self.times.iter().filter_map(|time| instant(date, *time, zone));
                if let Some(due) = due.find(|due| *due > after) {
                    return Some(due);
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The last due time up to this one, inclusive.
    pub(super) fn last_until(&self, until: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut date = zone.to_datetime(until).date().tomorrow().ok()?;
        for _ in 0..DAYS_MAX {
            if self.days.has(date) {
                let mut due = self.times.iter().rev().filter_map(|time| instant(date, *time, zone));
                if let Some(due) = due.find(|due| *due <= until) {
                    return Some(due);
                }
            }
            date = date.yesterday().ok()?;
        }
        None
    }
}

/// When it is this time on this day, if the calendar reaches that far.
fn instant(date: Date, time: Time, zone: &TimeZone) -> Option<Timestamp> {
    let local = date.to_datetime(time);
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok(),
        // By the later offset it is a moment before the gap, and what follows next is the gap itself.
        AmbiguousOffset::Gap { after, .. } => {
            let before_gap = after.to_timestamp(local).ok()?;
            zone.following(before_gap).next().map(|transition| transition.timestamp())
        }
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.days {
            Days::Every => f.write_str("daily")?,
            Days::Weekly(weekdays) => {
                let names: Vec<&str> = weekdays.iter().map(|weekday| short_name(*weekday)).collect();
                write!(f, "weekly on {}", names.join(", "))?;
            }
            Days::Monthly { dates, last } => {
                let mut names: Vec<String> = dates.iter().map(ToString::to_string).collect();
                names.extend(last.then(|| "last".to_owned()));
                write!(f, "monthly on {}", names.join(", "))?;
            }
        }
        let times: Vec<String> = self.times.iter().map(time_of_day).collect();
        write!(f, " at {}", times.join(", "))
    }
}

fn time_of_day(time: &Time) -> String {
    match time.second() {
        0 => format!("{:02}:{:02}", time.hour(), time.minute()),
        second => format!("{:02}:{:02}:{second:02}", time.hour(), time.minute()),
    }
}

/// The weekday as people abbreviate it in schedules.
pub(super) fn short_name(weekday: Weekday) -> &'static str {
    match weekday {
        Weekday::Monday => "mon",
        Weekday::Tuesday => "tue",
        Weekday::Wednesday => "wed",
        Weekday::Thursday => "thu",
        Weekday::Friday => "fri",
        Weekday::Saturday => "sat",
        Weekday::Sunday => "sun",
    }
}
