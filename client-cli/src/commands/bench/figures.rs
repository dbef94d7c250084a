//! Latencies: a histogram that many record into, the percentiles that are told, and medians of several runs.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer latencies count as this: an hour, far above every timeout here.
const LATENCY_MAX_US: u64 = 3_600_000_000;

/// Significant digits that are kept: a figure is off by a thousandth at most.
const DIGITS: u8 = 3;

/// Counts latencies, to the microsecond.
#[derive(Debug)]
pub(super) struct Latencies(Mutex<Histogram<u64>>);

impl Latencies {
    pub(super) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS);
        Self(Mutex::new(histogram.expect("the bounds are constants, and a test has made one")))
    }

    /// Counts one.
    pub(super) fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
    }

    /// What was counted, in short. `None` when nothing was.
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        let histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        (!histogram.is_empty()).then(|| Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: histogram.max() as f64 / 1000.0,
            count: histogram.len(),
        })
    }
}

/// A distribution of latencies, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p99_9: f64,
    pub(super) max: f64,
    /// How many there were.
    pub(super) count: u64,
}

impl Percentiles {
    /// Figure by figure, the median of several distributions.
    pub(super) fn median(several: &[Self]) -> Option<Self> {
        let of = |figure: fn(&Self) -> f64| median(several.iter().map(figure));
        Some(Self {
            p50: of(|one| one.p50)?,
            p90: of(|one| one.p90)?,
            p99: of(|one| one.p99)?,
            p99_9: of(|one| one.p99_9)?,
            max: of(|one| one.max)?,
            count: several.iter().map(|one| one.count).sum(),
        })
    }
}

/// The middle one; of an even number, the mean of the two in the middle.
pub(super) fn median(figures: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    let half = figures.len() / 2;
    match figures.len() % 2 {
        1 => Some(figures[half]),
        _ if figures.is_empty() => None,
        _ => Some((figures[half - 1] + figures[half]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let latencies = Latencies::new();
        assert_eq!(latencies.percentiles(), None);
        (1..=1000).for_each(|ms| latencies.record(Duration::from_millis(ms)));
        let Percentiles { p50, p90, p99, p99_9, max, count } = latencies.percentiles().unwrap();
        for (figure, exact) in [(p50, 500.0), (p90, 900.0), (p99, 990.0), (p99_9, 999.0), (max, 1000.0)] {
            assert!((figure - exact).abs() <= exact / 1000.0, "{figure} for {exact}");
        }
        assert_eq!(count, 1000);
    }

    #[test]
    fn a_latency_beyond_every_bound_counts_as_the_longest() {
        let latencies = Latencies::new();
        latencies.record(Duration::MAX);
        latencies.record(Duration::ZERO);
        let told = latencies.percentiles().unwrap();
        assert!(told.max >= 3_599_000.0 && told.p50 <= 0.001, "{told:?}");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(2.5));
    }
}
