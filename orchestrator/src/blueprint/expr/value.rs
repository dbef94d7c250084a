//! Values while an expression is evaluated: borrowed from the job's data wherever possible, so that looking a member up
//! copies nothing.

use std::{cmp::Ordering, rc::Rc};

use super::{
    budget::Budget,
    datum::{Datum, Items, Members},
};
use crate::time::Timestamp;

/// A value, alive as long as the data `'d` that it was taken from.
#[derive(Debug, Clone)]
pub enum Val<'d> {
    Null,
    Bool(bool),
    /// Within the range of i64 and u64 together; [`Val::int`] sees to it.
    Int(i128),
    Float(f64),
    /// Text of the data or of the expression.
    Str(&'d str),
    /// Text that was made.
    Made(Rc<str>),
    List(List<'d>),
    Map(MapVal<'d>),
    Time(Timestamp),
    /// A span of time in microseconds.
    Span(i64),
}

/// A list of the data, or one that was made.
#[derive(Debug, Clone)]
pub enum List<'d> {
    Data(&'d Items<'d>),
    Made(Rc<[Val<'d>]>),
}

/// A map of the data, or one that was made. Keys are strings, as in JSON.
#[derive(Debug, Clone)]
pub enum MapVal<'d> {
    Data(&'d Members<'d>),
    Made(Rc<[(Rc<str>, Val<'d>)]>),
}

/// What a `getX` function gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeField {
    FullYear,
    Month,
    Date,
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

impl<'d> Val<'d> {
    /// An integer, if it is in range.
    pub fn int(value: i128) -> Result<Self, String> {
        if (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value) {
            Ok(Val::Int(value))
        } else {
            Err("integer overflow".to_owned())
        }
    }

    /// A view of the data.
    pub fn of(datum: &'d Datum<'d>) -> Self {
        match datum {
            Datum::Null => Val::Null,
            Datum::Bool(value) => Val::Bool(*value),
            Datum::Number(written) => Self::of_number(written),
            Datum::Text(text) => Val::Str(text.as_str()),
            Datum::List(items) => Val::List(List::Data(items)),
            Datum::Map(members) => Val::Map(MapVal::Data(members)),
        }
    }

    /// What is written as an integer is one if it is in range; every other number is the float next to it.
    fn of_number(written: &str) -> Self {
        match (written.parse::<i64>(), written.parse::<u64>()) {
            (Ok(value), _) => Val::Int(i128::from(value)),
            (_, Ok(value)) => Val::Int(i128::from(value)),
            // The gate lets no number pass that is out of a float's range.
            _ => Val::Float(written.parse().unwrap_or(f64::NAN)),
        }
    }

    /// The name of its type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Val::Null => "null",
            Val::Bool(_) => "a boolean",
            Val::Int(_) => "an integer",
            Val::Float(_) => "a float",
            Val::Str(_) | Val::Made(_) => "a string",
            Val::List(_) => "a list",
            Val::Map(_) => "a map",
            Val::Time(_) => "a timestamp",
            Val::Span(_) => "a duration",
        }
    }

    /// The value in a few words, for messages: its type, and as much of it as is of help.
    pub fn shown(&self) -> String {
        const TEXT_CHARS_MAX: usize = 40;
        let name = self.type_name();
        match self {
            Val::Null => name.to_owned(),
            Val::Bool(value) => format!("{name} ({value})"),
            Val::Int(value) => format!("{name} ({value})"),
            Val::Float(value) => format!("{name} ({value})"),
            Val::List(list) => format!("{name} of {}", list.len()),
            Val::Map(map) => format!("{name} of {}", map.len()),
            Val::Time(time) => format!("{name} ({time})"),
            Val::Span(micros) => format!("{name} ({})", span_text(*micros)),
            Val::Str(_) | Val::Made(_) => {
                let text = self.as_text().unwrap_or_default();
                let end = text.char_indices().nth(TEXT_CHARS_MAX).map(|(end, _)| end);
                let dots = if end.is_some() { "…" } else { "" };
                format!("{name} ({:?}{dots})", &text[..end.unwrap_or(text.len())])
            }
        }
    }

    /// The text of a string.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Val::Str(text) => Some(text),
            Val::Made(text) => Some(text),
            _ => None,
        }
    }

    /// Equality as CEL has it: values of different types differ, numbers compare by value.
    pub fn equals(&self, other: &Val<'d>, budget: &Budget) -> Result<bool, String> {
        budget.step()?;
        Ok(match (self, other) {
            (Val::Null, Val::Null) => true,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::List(a), Val::List(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for index in 0..a.len() {
                    let (Some(a), Some(b)) = (a.get(index), b.get(index)) else { return Ok(false) };
                    if !a.equals(&b, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Val::Map(a), Val::Map(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for key in a.keys() {
                    let key = key.as_text().unwrap_or_default();
                    match (a.get(key), b.get(key)) {
                        (Some(a), Some(b)) if a.equals(&b, budget)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            _ => self.order(other, budget)? == Some(Ordering::Equal),
        })
    }

    /// The order of two numbers, strings, booleans, timestamps or durations; none between different types and beside NaN.
    pub fn order(&self, other: &Val<'d>, budget: &Budget) -> Result<Option<Ordering>, String> {
        if let (Some(a), Some(b)) = (self.as_text(), other.as_text()) {
            budget.scan(a.len().min(b.len()))?;
            return Ok(Some(a.cmp(b)));
        }
        Ok(match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
            (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
            (Val::Float(a), Val::Float(b)) => a.partial_cmp(b),
            (Val::Int(a), Val::Float(b)) => order_mixed(*a, *b),
            (Val::Float(a), Val::Int(b)) => order_mixed(*b, *a).map(Ordering::reverse),
            (Val::Time(a), Val::Time(b)) => Some(a.cmp(b)),
            (Val::Span(a), Val::Span(b)) => Some(a.cmp(b)),
            _ => None,
        })
    }
}

/// The order of an integer and a float, exact beyond 2^53 too.
fn order_mixed(int: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    // The cast truncates and saturates; what it saturates is beyond every integer of ours.
    let whole = float.trunc() as i128;
    Some(int.cmp(&whole).then_with(|| 0.0_f64.total_cmp(&(float.fract() + 0.0))))
}

impl<'d> List<'d> {
    pub fn len(&self) -> usize {
        match self {
            List::Data(items) => items.len(),
            List::Made(items) => items.len(),
        }
    }

    pub fn get(&self, index: usize) -> Option<Val<'d>> {
        match self {
            List::Data(items) => items.get(index).map(Val::of),
            List::Made(items) => items.get(index).cloned(),
        }
    }
}

impl<'d> MapVal<'d> {
    pub fn len(&self) -> usize {
        match self {
            MapVal::Data(members) => members.len(),
            MapVal::Made(members) => members.len(),
        }
    }

    pub fn get(&self, key: &str) -> Option<Val<'d>> {
        match self {
            MapVal::Data(members) => members.get(key).map(Val::of),
            MapVal::Made(members) => {
                members.iter().find(|(known, _)| &**known == key).map(|(_, value)| value.clone())
            }
        }
    }

    /// The keys as values.
    pub fn keys(&self) -> Vec<Val<'d>> {
        match self {
            MapVal::Data(members) => members.iter().map(|(key, _)| Val::Str(key)).collect(),
            MapVal::Made(members) => members.iter().map(|(key, _)| Val::Made(key.clone())).collect(),
        }
    }
}

/// The text of a span of time: seconds, as in protobuf's JSON.
pub fn span_text(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let (seconds, rest) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:06}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

impl TimeField {
    /// The field of a timestamp, in UTC. Months, days of month by [`TimeField::DayOfMonth`], and days of year count from 0, and
    /// the week begins with Sunday, as CEL has it.
    pub fn of_time(self, time: Timestamp) -> Result<i64, String> {
        let time = jiff::Timestamp::from_microsecond(time.as_micros())
            .map_err(|_| "the timestamp is out of range".to_owned())?
            .to_zoned(jiff::tz::TimeZone::UTC);
        Ok(match self {
            TimeField::FullYear => i64::from(time.year()),
            TimeField::Month => i64::from(time.month()) - 1,
            TimeField::Date => i64::from(time.day()),
            TimeField::DayOfMonth => i64::from(time.day()) - 1,
            TimeField::DayOfWeek => i64::from(time.weekday().to_sunday_zero_offset()),
            TimeField::DayOfYear => i64::from(time.day_of_year()) - 1,
            TimeField::Hours => i64::from(time.hour()),
            TimeField::Minutes => i64::from(time.minute()),
            TimeField::Seconds => i64::from(time.second()),
            TimeField::Milliseconds => i64::from(time.millisecond()),
        })
    }

    /// A span of time in the field's unit, rounded towards zero; milliseconds are those beyond the second.
    pub fn of_span(self, micros: i64) -> Option<i64> {
        Some(match self {
            TimeField::Hours => micros / 3_600_000_000,
            TimeField::Minutes => micros / 60_000_000,
            TimeField::Seconds => micros / 1_000_000,
            TimeField::Milliseconds => micros / 1_000 % 1_000,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_floats_compare_exactly() {
        for (int, float, order) in [
            (1, 1.0, Some(Ordering::Equal)),
            (1, 1.5, Some(Ordering::Less)),
            (2, 1.5, Some(Ordering::Greater)),
            (-1, -1.5, Some(Ordering::Greater)),
            (0, -0.0, Some(Ordering::Equal)),
            (9_007_199_254_740_993, 9_007_199_254_740_992.0, Some(Ordering::Greater)),
            (i128::from(u64::MAX), f64::INFINITY, Some(Ordering::Less)),
            (i128::from(i64::MIN), f64::NEG_INFINITY, Some(Ordering::Greater)),
            (0, f64::NAN, None),
        ] {
            assert_eq!(order_mixed(int, float), order, "{int} {float}");
        }
    }

    #[test]
    fn spans_read_as_seconds() {
        assert_eq!(span_text(5_400_000_000), "5400s");
        assert_eq!(span_text(-1_500_000), "-1.5s");
        assert_eq!(span_text(1), "0.000001s");
    }
}
