//! What happens on a connection: its calls, and how far its client has come.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Shared by the task of a connection, its calls, and the list of all connections.
#[derive(Debug)]
pub struct Activity {
    begun: Instant,
    calls: AtomicUsize,
    /// When the last call began or ended, in milliseconds since the connection began.
    last_ms: AtomicU64,
    bytes_read: AtomicUsize,
    had_call: AtomicBool,
}

impl Activity {
    pub(crate) fn new(begun: Instant) -> Self {
        Self {
            begun,
            calls: AtomicUsize::new(0),
            last_ms: AtomicU64::new(0),
            bytes_read: AtomicUsize::new(0),
            had_call: AtomicBool::new(false),
        }
    }

    /// When the connection was accepted.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// A call begins.
    pub fn begin_call(&self) {
        self.calls.fetch_add(1, Relaxed);
        self.had_call.store(true, Relaxed);
        self.touch();
    }

    /// A call has ended, however it did.
    pub fn end_call(&self) {
        self.touch();
        self.calls.fetch_sub(1, Relaxed);
    }

    /// Bytes that its client has sent.
    pub fn bytes_read(&self) -> usize {
        self.bytes_read.load(Relaxed)
    }

    /// For how long there has been no call; `None` while there is one.
    pub fn idle_for(&self, now: Instant) -> Option<Duration> {
        if self.calls.load(Relaxed) > 0 {
            return None;
        }
        let last = self.begun + Duration::from_millis(self.last_ms.load(Relaxed));
        Some(now.saturating_duration_since(last))
    }

    pub(super) fn has_had_call(&self) -> bool {
        self.had_call.load(Relaxed)
    }

    pub(crate) fn note_read(&self, bytes: usize) {
        self.bytes_read.fetch_add(bytes, Relaxed);
    }

    fn touch(&self) {
        self.last_ms.store(self.begun.elapsed().as_millis() as u64, Relaxed);
    }
}
