//! A span of time as people write it: `30s`, `500ms`, `5m`, `1h`, `2d`, or a plain number of seconds.

use std::time::Duration;

/// The text is not a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a span of time such as 30s, 500ms, 5m, 1h or 2d")]
pub struct InvalidSpan;

/// Spans beyond this are refused, so that arithmetic on them stays far from its edge: a thousand years.
const SECONDS_MAX: f64 = 1000.0 * 366.0 * 86_400.0;

/// Reads a span. Whole and decimal numbers, no sign; without a unit the number counts seconds.
pub fn parse(text: &str) -> Result<Duration, InvalidSpan> {
    let text = text.trim();
    let split = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number: f64 = number.parse().ok().filter(|_| plain).ok_or(InvalidSpan)?;
    let seconds_each = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(InvalidSpan),
    };
    from_seconds(number * seconds_each)
}

/// The span of this many seconds, to the microsecond.
pub fn from_seconds(seconds: f64) -> Result<Duration, InvalidSpan> {
    if (0.0..=SECONDS_MAX).contains(&seconds) {
        // Below 2^53 microseconds for two centuries, and never near the end of u64.
        Ok(Duration::from_micros((seconds * 1e6).round() as u64))
    } else {
        Err(InvalidSpan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_write_them() {
        for (text, millis) in [
            ("30s", 30_000),
            ("30", 30_000),
            (" 1.5s ", 1_500),
            ("500ms", 500),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in
            ["", "s", "-1s", "+1s", "1 s", "1e9", "inf", "NaN", "1w", "1.2.3s", "999999999999d", "30S"]
        {
            assert_eq!(parse(text), Err(InvalidSpan), "{text}");
        }
        assert_eq!(from_seconds(f64::NAN), Err(InvalidSpan));
        assert_eq!(from_seconds(-0.5), Err(InvalidSpan));
    }
}
