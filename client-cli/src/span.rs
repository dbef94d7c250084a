//! Spans of time on the command line: read as the contract's grammar has them, shown in two units.

use std::{fmt, str::FromStr, time::Duration};

use avtomatika_proto::span;

const SECOND_MS: u64 = 1000;
const MINUTE_MS: u64 = 60 * SECOND_MS;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A span of time given on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// The text is not a span; says what is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole number and a unit, such as 500ms, 30s, 5m, 2h or 1d")]
pub struct InvalidSpan;

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        span::parse(text).map(Span).map_err(|_| InvalidSpan)
    }
}

impl Span {
    /// The shortest span that is no shorter than this one and is shown without a loss: for whoever must not come too early.
    pub fn rounded_up(self) -> Self {
        let total_ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let shown_ms = match total_ms {
            0..SECOND_MS => 1,
            SECOND_MS..MINUTE_MS => SECOND_MS / 10,
            MINUTE_MS..HOUR_MS => SECOND_MS,
            HOUR_MS..DAY_MS => MINUTE_MS,
            DAY_MS.. => HOUR_MS,
        };
        Self(Duration::from_millis(total_ms.div_ceil(shown_ms).saturating_mul(shown_ms)))
    }
}

impl fmt::Display for Span {
    /// At most two units, the larger ones: `850ms`, `4.2s`, `3m 12s`, `5h 2m`, `3d 4h`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total_ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        match total_ms {
            0..SECOND_MS => write!(f, "{total_ms}ms"),
            SECOND_MS..MINUTE_MS => write!(f, "{}.{}s", total_ms / SECOND_MS, total_ms % SECOND_MS / 100),
            MINUTE_MS..HOUR_MS => {
                write!(f, "{}m {}s", total_ms / MINUTE_MS, total_ms % MINUTE_MS / SECOND_MS)
            }
            HOUR_MS..DAY_MS => write!(f, "{}h {}m", total_ms / HOUR_MS, total_ms % HOUR_MS / MINUTE_MS),
            DAY_MS.. => write!(f, "{}d {}h", total_ms / DAY_MS, total_ms % DAY_MS / HOUR_MS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_needs_its_unit() {
        assert_eq!("7d".parse(), Ok(Span(Duration::from_secs(604_800))));
        for text in ["", "30", "1.5h", " 5m", "soon"] {
            assert_eq!(text.parse::<Span>(), Err(InvalidSpan), "{text:?}");
        }
    }

    #[test]
    fn a_span_is_shown_in_its_two_largest_units() {
        for (ms, text) in [
            (0, "0ms"),
            (850, "850ms"),
            (4_250, "4.2s"),
            (192_000, "3m 12s"),
            (18_120_000, "5h 2m"),
            (273_600_000, "3d 4h"),
        ] {
            assert_eq!(Span(Duration::from_millis(ms)).to_string(), text);
        }
    }

    #[test]
    fn a_span_that_is_rounded_up_is_never_shown_as_less() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (4_200, "4.2s"),
            (4_201, "4.3s"),
            (59_901, "1m 0s"),
            (192_001, "3m 13s"),
            (18_120_001, "5h 3m"),
            (273_600_001, "3d 5h"),
        ] {
            assert_eq!(Span(Duration::from_millis(ms)).rounded_up().to_string(), text);
        }
    }
}
