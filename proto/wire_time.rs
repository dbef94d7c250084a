//! Spans and points of time in the protocol's form.

use std::time::Duration;

/// A span in the protocol's form. One that the protocol cannot carry becomes the longest that it can.
pub fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        // Below a billion: fits.
        nanos: span.subsec_nanos() as i32,
    }
}

/// The point this many microseconds after 1970-01-01T00:00:00Z, in the protocol's form.
pub fn timestamp(unix_micros: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: unix_micros.div_euclid(1_000_000),
        // Below a billion: fits.
        nanos: (unix_micros.rem_euclid(1_000_000) * 1000) as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_below_a_second_counts_forward_on_both_sides_of_1970() {
        let wire = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
        assert_eq!(timestamp(1_700_000_000_000_001), wire(1_700_000_000, 1_000));
        assert_eq!(timestamp(-1), wire(-1, 999_999_000));
    }

    #[test]
    fn a_span_keeps_its_nanoseconds_and_ends_where_the_protocol_does() {
        let wire = |seconds, nanos| prost_types::Duration { seconds, nanos };
        assert_eq!(duration(Duration::new(61, 7)), wire(61, 7));
        assert_eq!(duration(Duration::MAX), wire(i64::MAX, 999_999_999));
    }
}
