//! What is set from outside, and the time.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::destination::AllowedHosts;

/// How feeds are followed.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) list: PathBuf,
    pub(super) state_dir: PathBuf,
    /// Each feed is polled once.
    pub(super) once: bool,
    pub(super) interval_seconds: u64,
    pub(super) fetch_timeout: Duration,
    /// What feeds may be fetched from though it is not public. The list may allow more.
    pub(super) allowed: AllowedHosts,
    /// Of a feed that was never read, so many of the newest are posted.
    pub(super) first_entries: usize,
    /// Of what waits of a feed, so many of the oldest are posted at a time.
    pub(super) turn_entries_max: usize,
}

/// Tells the seconds since 1970.
pub(super) type UnixSeconds = Arc<dyn Fn() -> u64 + Send + Sync>;
