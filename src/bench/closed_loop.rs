//! A closed loop: a fixed number of callers, each of whom calls again as soon as it has
//! its answer.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use super::{BenchError, Row, Series};

/// A minute; what takes longer counts as this.
const MICROSECONDS_MAX: u64 = 60_000_000;
/// Two figures of every latency are right.
const FIGURES: u8 = 2;

/// What calls of one kind took, all callers together.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    /// In microseconds.
    latencies: Histogram<u64>,
    elapsed: Duration,
    bytes: u64,
}

impl Calls {
    /// None yet.
    pub(super) fn none() -> Result<Self, BenchError> {
        // The bounds are constants that hdrhistogram takes.
        let latencies = Histogram::new_with_bounds(1, MICROSECONDS_MAX, FIGURES);
        let latencies = latencies.map_err(|_| BenchError::Panicked)?;
        Ok(Self { latencies, elapsed: Duration::ZERO, bytes: 0 })
    }

    fn record(&mut self, took: Duration, bytes: usize) {
        self.latencies.saturating_record(took.as_micros() as u64);
        self.bytes += bytes as u64;
    }

    /// Joins in what was called at the same time.
    fn join(&mut self, other: &Self) -> Result<(), BenchError> {
        // Histograms with the same bounds can be added.
        self.latencies.add(&other.latencies).map_err(|_| BenchError::Panicked)?;
        self.bytes += other.bytes;
        Ok(())
    }

    /// Joins in what was called at another time.
    pub(super) fn follow(&mut self, other: &Self) -> Result<(), BenchError> {
        self.elapsed += other.elapsed;
        self.join(other)
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.latencies.len()
    }

    /// Calls a second.
    pub(super) fn rate(&self) -> f64 {
        self.count() as f64 / self.elapsed.as_secs_f64()
    }

    /// The distribution of the latencies, in seconds.
    pub(super) fn series(&self, name: impl Into<String>) -> Series {
        let seconds = |share| self.latencies.value_at_quantile(share) as f64 / 1e6;
        Series::of_quantiles(name, self.count(), seconds)
    }

    /// A row of a report.
    pub(super) fn row(&self, name: impl Into<String>) -> Row {
        Row::new(name)
            .with("calls", self.rate(), "/s")
            .with("p50", self.latencies.value_at_quantile(0.5) as f64, "µs")
            .with("p99", self.latencies.value_at_quantile(0.99) as f64, "µs")
            .with("answer", self.bytes as f64 / self.count().max(1) as f64, "bytes")
    }
}

/// Which call of which caller one is: both are counted from 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) caller: usize,
    pub(super) number: usize,
}

/// What an answer was.
pub(super) struct Answered<const KINDS: usize> {
    /// Below `KINDS`.
    pub(super) kind: usize,
    pub(super) bytes: usize,
}

/// Lets `callers` call until the time is over; their last answers are waited for. Returns
/// what the calls of each kind took.
///
/// # Errors
/// The first call that fails ends it.
pub(super) async fn run<const KINDS: usize, C, F>(
    callers: usize,
    time: Duration,
    call: C,
) -> Result<[Calls; KINDS], BenchError>
where
    C: Fn(Turn) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Answered<KINDS>, BenchError>> + Send,
{
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let call = call.clone();
        let mut calls: [Calls; KINDS] = none()?;
        tasks.spawn(async move {
            let mut number = 0;
            while begun.elapsed() < time {
                let asked = Instant::now();
                let answered = call(Turn { caller, number }).await?;
                calls[answered.kind].record(asked.elapsed(), answered.bytes);
                number += 1;
            }
            Ok::<_, BenchError>(calls)
        });
    }
    let mut all: [Calls; KINDS] = none()?;
    while let Some(done) = tasks.join_next().await {
        for (all, calls) in all.iter_mut().zip(done.map_err(|_| BenchError::Panicked)??) {
            all.join(&calls)?;
        }
    }
    let elapsed = begun.elapsed();
    all.iter_mut().for_each(|calls| calls.elapsed = elapsed);
    Ok(all)
}

fn none<const KINDS: usize>() -> Result<[Calls; KINDS], BenchError> {
    let none = Calls::none()?;
    Ok(std::array::from_fn(|_| none.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_call_is_counted_once_under_its_kind() {
        use std::sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        };
        let made: Arc<[AtomicUsize; 2]> = Arc::default();
        let counted = Arc::clone(&made);
        let calls = run::<2, _, _>(3, Duration::from_millis(20), move |turn| {
            let made = Arc::clone(&counted);
            async move {
                tokio::task::yield_now().await;
                let kind = turn.number % 2;
                made[kind].fetch_add(1, Ordering::Relaxed);
                Ok(Answered { kind, bytes: 10 })
            }
        });
        let calls = calls.await.expect("calls");
        for (calls, made) in calls.iter().zip(&*made) {
            let count = made.load(Ordering::Relaxed) as u64;
            assert!(count >= 3, "each caller calls once at the least");
            assert_eq!(calls.count(), count);
            assert_eq!(calls.row("x").figure("answer"), Some(10.0));
        }
        let mut twice = calls[0].clone();
        twice.follow(&calls[0]).expect("the same bounds");
        assert_eq!(twice.count(), 2 * calls[0].count());
        assert!((twice.rate() / calls[0].rate() - 1.0).abs() < 1e-9);
    }

    #[tokio::test]
    async fn a_call_that_fails_ends_it() {
        let failed = run::<1, _, _>(2, Duration::from_secs(3_600), |turn| async move {
            if turn.number == 5 {
                return Err(BenchError::Panicked);
            }
            tokio::task::yield_now().await;
            Ok(Answered { kind: 0, bytes: 0 })
        });
        assert!(failed.await.is_err());
    }
}
