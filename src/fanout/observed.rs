//! What the workers count, and how: a few additions a round, however much it writes.

use std::time::SystemTime;

use super::{FanoutError, worker::round::Slice};
use crate::{
    domain::PostId,
    store::{PushOutcome, Pushes, StoreError},
    telemetry::{FanoutMetrics, Kind, Partition},
};

/// Why steps fail.
const FAILURES: [&str; 5] = ["log", "store", "fenced", "lost", "event"];

impl FanoutMetrics {
    /// Has every kind of failure stand at 0, so that the first of it is seen to be one more.
    pub(super) fn begin(&self) {
        for kind in FAILURES {
            drop(self.worker_failures.get_or_create(&Kind { kind }));
        }
    }

    /// Pushes were made.
    pub(super) fn pushed<A: Copy>(&self, pushes: &Pushes<A>, outcome: PushOutcome) {
        self.deliveries.inc_by(outcome.deliveries);
        self.skipped_deliveries.inc_by(outcome.skipped);
        self.pushes.inc_by(outcome.pushes);
        self.push_values.observe_all(pushes.iter().map(|(_, ids)| ids.len() as f64));
    }

    /// These slices are written, and those of them that are their fan-outs' last have
    /// brought their posts to everybody.
    pub(super) fn delivered<A>(&self, slices: &[Slice<A>]) {
        let now = SystemTime::now();
        let delay =
            |post: &PostId| now.duration_since(post.created_at()).unwrap_or_default().as_secs_f64();
        let last = slices.iter().filter(|slice| slice.reached.is_none());
        let posts = last.flat_map(|slice| slice.job.work.to_deliver());
        self.delivery_delay_seconds.observe_all(posts.map(delay));
    }

    /// So many fan-outs of a partition are under way.
    pub(super) fn queued(&self, partition: u32, fanouts: usize) {
        self.fanouts_in_progress.get_or_create(&Partition { partition }).set(fanouts as i64);
    }

    /// A step failed.
    pub(super) fn failed(&self, error: &FanoutError) {
        let kind = match error {
            FanoutError::Log(_) => "log",
            FanoutError::Store(StoreError::Fenced { .. }) => "fenced",
            FanoutError::Store(StoreError::Lost { .. }) => "lost",
            FanoutError::Store(_) | FanoutError::Sweep(_) => "store",
            FanoutError::Event { .. } => "event",
            FanoutError::LogBehindStore { .. } => "log",
        };
        self.worker_failures.get_or_create(&Kind { kind }).inc();
    }
}
