//! Points in time: exact for records, "3s ago" for lists.

use std::time::Duration;

use jiff::Timestamp;

use crate::span::Span;

/// A protocol timestamp, if it names a point in time.
pub fn timestamp(time: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// RFC 3339 in UTC with all digits that there are; `None` when absent.
pub fn rfc3339(time: Option<&prost_types::Timestamp>) -> Option<String> {
    time.and_then(timestamp).map(|time| time.to_string())
}

/// RFC 3339 in UTC to the millisecond, so that columns line up; empty when absent.
pub fn exact(time: Option<&prost_types::Timestamp>) -> String {
    time.and_then(timestamp).map_or(String::new(), |time| format!("{time:.3}"))
}

/// How long ago, in the largest unit; empty when absent. A time ahead of this machine's clock reads as now.
pub fn ago(time: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    let Some(time) = time.and_then(timestamp) else { return String::new() };
    let seconds = now.as_second().saturating_sub(time.as_second()).max(0);
    match seconds {
        0 => "now".to_owned(),
        1..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..86_400 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

/// From one point to another; `None` when one is absent or they are the wrong way round.
pub fn between(from: Option<&prost_types::Timestamp>, to: Option<&prost_types::Timestamp>) -> Option<Span> {
    let (from, to) = (from.and_then(timestamp)?, to.and_then(timestamp)?);
    Duration::try_from(to.duration_since(from)).ok().map(Span)
}

/// The protocol's form of a point in time.
pub fn to_wire(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64, nanos: i32) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos })
    }

    #[test]
    fn records_show_the_exact_time() {
        assert_eq!(exact(at(1_700_000_000, 5_000_000).as_ref()), "2023-11-14T22:13:20.005Z");
        assert_eq!(rfc3339(at(1_700_000_000, 1).as_ref()).as_deref(), Some("2023-11-14T22:13:20.000000001Z"));
        assert_eq!(exact(None), "");
    }

    #[test]
    fn lists_show_how_long_ago() {
        let now = Timestamp::from_second(1_700_000_000).expect("is a time");
        for (before_s, text) in
            [(0, "now"), (-5, "now"), (59, "59s ago"), (61, "1m ago"), (7_300, "2h ago"), (200_000, "2d ago")]
        {
            assert_eq!(ago(at(1_700_000_000 - before_s, 0).as_ref(), now), text);
        }
    }

    #[test]
    fn a_time_that_is_none_shows_nothing() {
        let nonsense = at(i64::MAX, -5);
        assert_eq!(exact(nonsense.as_ref()), "");
        assert_eq!(rfc3339(nonsense.as_ref()), None);
        assert_eq!(between(at(2, 0).as_ref(), at(1, 0).as_ref()), None);
    }
}
