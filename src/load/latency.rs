//! Latencies in HDR histograms, and what a report says of them.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// An hour; what takes longer counts as this.
const MICROSECONDS_MAX: u64 = 3_600_000_000;
/// Three figures of every latency are right.
const FIGURES: u8 = 3;

/// Latencies that several tasks record.
pub(super) struct Latencies(Mutex<Option<Histogram<u64>>>);

/// The quantiles of a latency, in microseconds. All 0 where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// How many measurements.
    pub count: u64,
    /// Half of them were at most this.
    pub p50_us: u64,
    /// 90 % of them were at most this.
    pub p90_us: u64,
    /// 99 % of them were at most this.
    pub p99_us: u64,
    /// 99.9 % of them were at most this.
    pub p99_9_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Latencies {
    pub(super) fn new() -> Self {
        // The bounds are constants that hdrhistogram takes.
        Self(Mutex::new(Histogram::new_with_bounds(1, MICROSECONDS_MAX, FIGURES).ok()))
    }

    pub(super) fn record(&self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let mut histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(histogram) = histogram.as_mut() {
            histogram.saturating_record(us);
        }
    }

    pub(super) fn quantiles(&self) -> Quantiles {
        let histogram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        histogram.as_ref().map_or_else(Quantiles::default, |histogram| Quantiles {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p99_9_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_come_back_within_three_figures() {
        let latencies = Latencies::new();
        assert_eq!(latencies.quantiles(), Quantiles::default());
        (1..=10_000).for_each(|us| latencies.record(Duration::from_micros(us)));
        latencies.record(Duration::from_secs(7_200));
        let quantiles = latencies.quantiles();
        assert_eq!(quantiles.count, 10_001);
        assert!(quantiles.p50_us.abs_diff(5_000) <= 10, "{quantiles:?}");
        assert!(quantiles.p99_us.abs_diff(9_900) <= 20, "{quantiles:?}");
        assert!(quantiles.max_us >= MICROSECONDS_MAX, "{quantiles:?}");
    }
}
