//! A span of time as people write it: a number and a unit, `500ms`, `30s`, `5m`, `2h`, `1d`.
//!
//! There is one grammar and two doors. [`parse`] takes a whole number with its unit, where someone writes the span down for
//! others to read. [`parse_or_seconds`] also takes decimals and a plain number of seconds, where machines write it or a
//! standard has seconds. What lengths make sense is the caller's business.

use std::time::Duration;

/// The text is not a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a span of time such as 30s, 500ms, 5m, 1h or 2d")]
pub struct InvalidSpan;

/// Longer spans are refused, so that arithmetic on them stays far from its edge: a thousand years.
pub const SPAN_MAX: Duration = Duration::from_secs(1000 * 366 * 86_400);

/// Reads a whole number and a unit, and nothing else.
///
/// # Errors
/// The text is something else, or the span is over [`SPAN_MAX`].
pub fn parse(text: &str) -> Result<Duration, InvalidSpan> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| InvalidSpan)?;
    let millis = number.checked_mul(unit_ms(unit)?).ok_or(InvalidSpan)?;
    Some(Duration::from_millis(millis)).filter(|span| *span <= SPAN_MAX).ok_or(InvalidSpan)
}

/// A span as it would be written: whole seconds if it is some, milliseconds otherwise.
pub fn text(span: Duration) -> String {
    if span.subsec_millis() == 0 { format!("{}s", span.as_secs()) } else { format!("{}ms", span.as_millis()) }
}

/// Reads a whole or decimal number and a unit; without a unit the number counts seconds. Blanks around it do not matter.
///
/// # Errors
/// The text is something else, or the span is over [`SPAN_MAX`].
pub fn parse_or_seconds(text: &str) -> Result<Duration, InvalidSpan> {
    let text = text.trim();
    let number_len = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(number_len);
    let number: f64 = number.parse().map_err(|_| InvalidSpan)?;
    let unit_ms = if unit.is_empty() { SECOND_MS } else { unit_ms(unit)? };
    from_seconds(number * unit_ms as f64 / SECOND_MS as f64)
}

/// The span of this many seconds, to the microsecond.
///
/// # Errors
/// The number is negative, no number, or over [`SPAN_MAX`].
pub fn from_seconds(seconds: f64) -> Result<Duration, InvalidSpan> {
    if (0.0..=SPAN_MAX.as_secs_f64()).contains(&seconds) {
        // Below 2^53 microseconds for two centuries, and never near the end of u64.
        Ok(Duration::from_micros((seconds * 1e6).round() as u64))
    } else {
        Err(InvalidSpan)
    }
}

const SECOND_MS: u64 = 1000;

fn unit_ms(unit: &str) -> Result<u64, InvalidSpan> {
    match unit {
        "ms" => Ok(1),
        "s" => Ok(SECOND_MS),
        "m" => Ok(60 * SECOND_MS),
        "h" => Ok(3600 * SECOND_MS),
        "d" => Ok(86_400 * SECOND_MS),
        _ => Err(InvalidSpan),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_whole_number_and_a_unit() {
        for (text, ms) in [
            ("500ms", 500),
            ("0s", 0),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("007s", 7_000),
            ("366000d", 31_622_400_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(parse_or_seconds(text), parse(text), "{text}");
        }
    }

    #[test]
    fn decimals_and_plain_seconds_have_their_own_door() {
        for (text, micros) in
            [("30", 30_000_000), (" 1.5s ", 1_500_000), ("0", 0), ("1.5h", 5_400_000_000), ("0.5ms", 500)]
        {
            assert_eq!(parse_or_seconds(text), Ok(Duration::from_micros(micros)), "{text}");
            assert_eq!(parse(text), Err(InvalidSpan), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "s",
            "-1s",
            "+1s",
            "1 s",
            "5 m",
            "5M",
            "30S",
            "1e9",
            "inf",
            "NaN",
            "1w",
            "5min",
            "1h30m",
            "1.2.3s",
            "٣s",
            "366001d",
            "999999999999d",
            "213503982335d",
            "99999999999999999999s",
        ] {
            assert_eq!(parse(text), Err(InvalidSpan), "{text:?}");
            assert_eq!(parse_or_seconds(text), Err(InvalidSpan), "{text:?}");
        }
        assert_eq!(from_seconds(f64::NAN), Err(InvalidSpan));
        assert_eq!(from_seconds(-0.5), Err(InvalidSpan));
    }
}
