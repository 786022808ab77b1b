//! A histogram to which many values are added at the cost of a few: prometheus-client's
//! own takes a lock for each.

use std::{
    fmt,
    iter::zip,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// The most bounds that one may have.
const BOUNDS_MAX: usize = 16;

/// How often which values were seen. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// One for each bound, of what is not above it but above the one before, and
    /// one of what is above all.
    counts: [AtomicU64; BOUNDS_MAX + 1],
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl Histogram {
    /// An empty one.
    ///
    /// # Panics
    /// If there are more than 16 bounds.
    pub fn new(bounds: &'static [f64]) -> Self {
        assert!(bounds.len() <= BOUNDS_MAX, "a histogram has {BOUNDS_MAX} bounds at the most");
        Self { bounds, inner: Arc::default() }
    }

    /// Adds a value.
    pub fn observe(&self, value: f64) {
        self.observe_all([value]);
    }

    /// Adds the seconds since then.
    pub fn observe_since(&self, begun: Instant) {
        self.observe(begun.elapsed().as_secs_f64());
    }

    /// Adds values: what is shared is touched once for all of them.
    pub fn observe_all(&self, values: impl IntoIterator<Item = f64>) {
        let mut counts = [0; BOUNDS_MAX + 1];
        let mut sum = 0.0;
        for value in values {
            let above = || self.bounds.len();
            counts[self.bounds.iter().position(|bound| value <= *bound).unwrap_or_else(above)] += 1;
            sum += value;
        }
        for (shared, count) in zip(&self.inner.counts, counts).filter(|(_, count)| *count > 0) {
            shared.fetch_add(count, Ordering::Relaxed);
        }
        let add = |bits| Some((f64::from_bits(bits) + sum).to_bits());
        // It fails only where `add` says `None`.
        let _ = self.inner.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.inner.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let counts = self.inner.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = zip(bounds, counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = f64::from_bits(self.inner.sum.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_where_it_is_not_above_the_bound() {
        let histogram = Histogram::new(&[1.0, 10.0]);
        histogram.observe_all([0.5, 1.0, 1.5, 10.0, 99.0]);
        histogram.observe(2.0);
        let counts: Vec<u64> =
            histogram.inner.counts[..3].iter().map(|it| it.load(Ordering::Relaxed)).collect();
        assert_eq!(counts, [2, 3, 1]);
        assert_eq!(histogram.count(), 6);
        assert_eq!(f64::from_bits(histogram.inner.sum.load(Ordering::Relaxed)), 114.0);
    }
}
