//! How many calls a client may give up before they are answered. Pure.
//!
//! A client whose deadlines have passed gives up all that it has under way at once, and may
//! do so twice in a row. One that opens streams only to reset them makes work for nothing.

use std::time::{Duration, Instant};

/// Calls given up at once: all streams of a connection, twice.
const BURST_MAX: u32 = 2_000;
/// One more is forgiven after so long.
const FORGIVE_EVERY: Duration = Duration::from_millis(5);

/// What a connection has given up.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResetLimit {
    count: u32,
    since: Instant,
}

impl ResetLimit {
    pub(super) fn new(now: Instant) -> Self {
        Self { count: 0, since: now }
    }

    /// Counts a call that was given up; whether there were too many.
    pub(super) fn note(&mut self, now: Instant) -> bool {
        let forgiven =
            now.saturating_duration_since(self.since).as_millis() / FORGIVE_EVERY.as_millis();
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        if forgiven > 0 {
            self.count = self.count.saturating_sub(forgiven);
            self.since = now;
        }
        self.count += 1;
        self.count > BURST_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_does_not() {
        let begun = Instant::now();
        let mut limit = ResetLimit::new(begun);
        assert!((0..BURST_MAX).all(|_| !limit.note(begun)));
        assert!(limit.note(begun));
        // Ten seconds later all of them are forgiven.
        let later = begun + FORGIVE_EVERY * (BURST_MAX + 1);
        assert!((0..BURST_MAX).all(|_| !limit.note(later)));
    }

    #[test]
    fn what_is_given_up_now_and_then_is_no_flood() {
        let begun = Instant::now();
        let mut limit = ResetLimit::new(begun);
        assert!((0..100_000).all(|number| !limit.note(begun + Duration::from_millis(6) * number)));
    }
}
