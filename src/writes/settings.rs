//! How writes are done.

use std::{sync::Arc, time::Duration};

use crate::{fanout::PullRule, free_space::DiskReserve, telemetry::WriteMetrics};

/// The longest text unless something else is set, in Unicode scalar values.
pub const TEXT_CHARS_MAX_DEFAULT: usize = 140;
/// Accounts that one may follow unless something else is set.
pub const FOLLOWEES_MAX_DEFAULT: u64 = 100_000;

/// How writes are done.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The longest text, in Unicode scalar values.
    pub text_chars_max: usize,
    /// Accounts that one may follow: whoever reads asks all of them when its timeline is made.
    pub followees_max: u64,
    /// How long an answer waits for the worker to apply what was written.
    pub apply_wait_max: Duration,
    /// How long a retry waits until it is known what its request has made.
    pub confirm_wait_max: Duration,
    /// Bytes of writes under way, about; with more, new ones wait.
    pub in_flight_bytes_max: u32,
    /// How long they wait before they are refused.
    pub in_flight_wait_max: Duration,
    /// Requests with an id that are remembered until they are applied; with more,
    /// new ones are refused.
    pub requests_max: usize,
    /// Whom the workers have pulled because of how many follow them.
    pub pull_rule: PullRule,
    /// Says when the disk is too full.
    pub disk_reserve: DiskReserve,
    /// Where what is written is counted.
    pub metrics: Arc<WriteMetrics>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            text_chars_max: TEXT_CHARS_MAX_DEFAULT,
            followees_max: FOLLOWEES_MAX_DEFAULT,
            apply_wait_max: Duration::from_secs(5),
            confirm_wait_max: Duration::from_secs(10),
            in_flight_bytes_max: 64 << 20,
            in_flight_wait_max: Duration::from_secs(10),
            requests_max: 1_000_000,
            pull_rule: PullRule::default(),
            disk_reserve: DiskReserve::default(),
            metrics: Arc::default(),
        }
    }
}
