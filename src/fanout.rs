//! The fan-out worker: one for each partition of the event log.
//!
//! ```text
//!  log ──► read a batch ──► decode ──► apply (ledger) ──► plan ──► queue
//!                                                                   │ rounds
//!  commit ◄── delivered offset ◄── push, remove (homes) ◄── combine ◄┘ of slices
//! ```
//!
//! The worker is the only one that applies the events of its partition. While
//! deliveries are in its hands it applies new posts alone, and nothing that ends a
//! follow or takes a post away: every slice asks for the followers as they are then. An event is committed only once it, and every one
//! before it, has been written everywhere it must be. Whatever is applied or
//! pushed twice after a crash changes nothing the second time.

mod combine;
mod half_done;
mod observed;
pub mod plan;
mod pool;
mod progress;
mod pull_rule;
mod queue;
mod settled;
mod sweep;
mod worker;

use std::time::Duration;

pub use self::{
    combine::combine,
    pool::WorkerPool,
    progress::{Position, Progress},
    pull_rule::{PULL_ABOVE_DEFAULT, PullRule},
    settled::{SETTLED_AFTER_DEFAULT, Settled},
    sweep::{SweepError, SweepSettings},
};
use crate::{
    event_log::{LogError, codec::CodecError},
    store::{Resume, StoreError},
};

/// How a worker works. Every count is at least 1.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of events read from the log at once.
    pub batch_bytes_max: usize,
    /// Bytes of events that are applied at once after a crash, however many were
    /// under way then.
    pub replay_bytes_max: usize,
    /// Deliveries of one slice of a fan-out: posts times followers. At least one
    /// follower is reached, so it is passed where a fan-out has more posts.
    pub slice_deliveries_max: usize,
    /// Posts of one author that are fanned out together.
    pub fanout_posts_max: usize,
    /// Deliveries of one round that are new, the first slices of all fan-outs. A round may
    /// pass it by one slice. Of long fan-outs, those of several slices, no more is on its way
    /// than of new ones, or a slice.
    pub round_deliveries_max: usize,
    /// Posts whose half-done fan-outs the store remembers: the oldest. After a crash those
    /// beyond begin again from their start.
    pub cursor_posts_max: usize,
    /// Fan-outs under way; with more, no events are read until some are done.
    pub fanouts_max: usize,
    /// The longest time that deliveries stay uncommitted.
    pub commit_interval: Duration,
    /// How long to wait before a step that failed is tried again.
    pub retry_delay: Duration,
    /// When authors are pulled because of how many follow them.
    pub pull_rule: PullRule,
    /// How the deliveries of all workers are written together.
    pub sweep: SweepSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_bytes_max: 1 << 20,
            replay_bytes_max: 8 << 20,
            slice_deliveries_max: 4_096,
            fanout_posts_max: 256,
            round_deliveries_max: 262_144,
            cursor_posts_max: 1_024,
            fanouts_max: 65_536,
            commit_interval: Duration::from_secs(1),
            retry_delay: Duration::from_secs(1),
            pull_rule: PullRule::default(),
            sweep: SweepSettings::default(),
        }
    }
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FanoutError {
    /// The log failed; a later step may succeed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store failed; a later step may succeed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was written together with deliveries of other partitions failed; a later
    /// step may succeed.
    #[error(transparent)]
    Sweep(SweepError),
    /// An entry of the log cannot be read, so nothing after it can be applied.
    #[error(
        "partition {partition}, offset {offset}: {source}; run the version of roost \
         that wrote this log, or a newer one"
    )]
    Event {
        /// Where the entry is.
        partition: u32,
        /// Where the entry is.
        offset: u64,
        /// What is wrong with it.
        source: CodecError,
    },
    /// The store holds what is not in the log. What comes into the log at those offsets
    /// would be taken for it, and never be delivered.
    #[error(
        "partition {partition} of the event log ends at offset {end}, and the store holds events \
         up to {seen}: the log has lost its end, or was replaced by another one. Restore the log \
         from a backup; or, to go on without what is lost, run `roost rebuild`"
    )]
    LogBehindStore {
        /// Which partition.
        partition: u32,
        /// Where the log ends.
        end: u64,
        /// Where the store's events end.
        seen: u64,
    },
}

impl FanoutError {
    /// Whether trying again cannot help.
    fn is_final(&self) -> bool {
        match self {
            Self::Log(error) => error.is_final(),
            Self::Store(error) => error.is_final(),
            Self::Sweep(error) => error.is_final(),
            Self::Event { .. } | Self::LogBehindStore { .. } => true,
        }
    }

    /// Whether the partition must be resumed before anything else: another process has
    /// it, as far as the store knows, or the store has lost some of it.
    fn must_resume(&self) -> bool {
        matches!(self, Self::Store(StoreError::Fenced { .. } | StoreError::Lost { .. }))
    }
}

/// Whether the log has all that the store has seen of a partition.
///
/// # Errors
/// [`FanoutError::LogBehindStore`] if not.
pub fn check_end(partition: u32, marks: &Resume, end: u64) -> Result<(), FanoutError> {
    let seen = marks.seen();
    if seen > end { Err(FanoutError::LogBehindStore { partition, end, seen }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_has_seen_more_than_there_is_belongs_to_another_log() {
        let marks =
            Resume { applied: 70, shown: 60, attempted: 90, delivered: Some(50), history: 0 };
        assert!(check_end(3, &marks, 90).is_ok());
        let error = check_end(3, &marks, 89).unwrap_err();
        assert!(error.is_final());
        assert!(error.to_string().contains("ends at offset 89"), "{error}");
        let ahead = Resume { delivered: Some(91), ..marks };
        assert!(check_end(3, &ahead, 90).is_err());
    }
}
