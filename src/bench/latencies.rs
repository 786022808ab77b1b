//! How long posts took.

use std::time::Duration;

use super::{Row, Series};

/// Latencies, ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(super) fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        Self(latencies)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// All of them.
    #[cfg(test)]
    pub(super) fn all(&self) -> &[Duration] {
        &self.0
    }

    /// The latency that a share of the posts did not pass; 0 where there is none.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let place = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(place.clamp(1, self.0.len().max(1)) - 1).copied().unwrap_or_default()
    }

    /// A row with the usual quantiles.
    pub(super) fn figures(&self, row: Row) -> Row {
        let ms = |share| self.quantile(share).as_secs_f64() * 1e3;
        row.with("p50", ms(0.5), "ms").with("p90", ms(0.9), "ms").with("p99", ms(0.99), "ms").with(
            "max",
            ms(1.0),
            "ms",
        )
    }

    /// The distribution, in seconds.
    pub(super) fn series(&self, name: impl Into<String>) -> Series {
        let seconds = |share| self.quantile(share).as_secs_f64();
        Series::of_quantiles(name, self.0.len() as u64, seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_latencies_that_were_there() {
        let latencies = Latencies::of((1..=200).rev().map(Duration::from_millis).collect());
        let ms = |share| latencies.quantile(share).as_millis();
        assert_eq!([ms(0.0), ms(0.5), ms(0.99), ms(1.0)], [1, 100, 198, 200]);
        assert_eq!(Latencies::default().quantile(0.99), Duration::ZERO);
        let curve = latencies.series("x").points;
        assert_eq!(curve.first(), Some(&(0.0, 0.001)));
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{curve:?}");
    }
}
