//! Whether the group still counts on this member, as far as it can tell by itself. Pure.
//!
//! ```text
//!  there ──► away for as long as a session lasts: cut off, its partitions are lost
//!    ▲                                               │
//!    └── there again, long enough for a heartbeat ◄──┘   what it still has is its own
//! ```
//!
//! A coordinator that was away itself remembers its members, and gives them the time of
//! a session anew. So a member that was cut off may come back to find that nothing has
//! been taken from it, and then nobody tells it so.

use std::time::{Duration, Instant};

/// What a member sees of its coordinator.
#[derive(Debug)]
pub struct Presence {
    session_timeout: Duration,
    away_since: Option<Instant>,
    /// Since when it has been there, and the group has not been in a rebalance.
    steady_since: Option<Instant>,
    /// Said of this absence.
    is_cut_off: bool,
    /// It was, and has not been back for long enough since.
    may_have_kept: bool,
}

impl Presence {
    /// Of a member that has just begun.
    pub fn new(session_timeout: Duration) -> Self {
        Self {
            session_timeout,
            away_since: None,
            steady_since: None,
            is_cut_off: false,
            may_have_kept: false,
        }
    }

    /// What was seen: whether the coordinator is there, and the group in no rebalance.
    pub fn saw(&mut self, now: Instant, is_there: bool, is_steady: bool) {
        self.away_since = if is_there { None } else { self.away_since.or(Some(now)) };
        self.is_cut_off &= !is_there;
        let is_steady = is_there && is_steady;
        self.steady_since = if is_steady { self.steady_since.or(Some(now)) } else { None };
    }

    /// Whether the group must have given away by now what the member had: said once.
    pub fn gets_cut_off(&mut self, now: Instant) -> bool {
        let away = self.away_since.map_or(Duration::ZERO, |since| now - since);
        if self.is_cut_off || away < self.session_timeout {
            return false;
        }
        (self.is_cut_off, self.may_have_kept) = (true, true);
        true
    }

    /// Whether a member that was cut off has been back for long enough to have heard if
    /// it is none any more: said once. A heartbeat comes at least three times a session.
    pub fn gets_back(&mut self, now: Instant) -> bool {
        let steady = self.steady_since.map_or(Duration::ZERO, |since| now - since);
        let is_back = self.may_have_kept && steady >= self.session_timeout / 3;
        self.may_have_kept &= !is_back;
        is_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn presence() -> (Presence, Instant) {
        (Presence::new(6 * SECOND), Instant::now())
    }

    #[test]
    fn a_member_is_cut_off_after_a_session_and_told_once() {
        let (mut presence, begun) = presence();
        assert!(!presence.gets_cut_off(begun + 100 * SECOND), "nothing was seen yet");
        presence.saw(begun, false, false);
        presence.saw(begun + 3 * SECOND, false, false);
        assert!(!presence.gets_cut_off(begun + 5 * SECOND));
        assert!(presence.gets_cut_off(begun + 6 * SECOND));
        assert!(!presence.gets_cut_off(begun + 7 * SECOND));
        assert!(!presence.gets_back(begun + 60 * SECOND), "it is away");
    }

    #[test]
    fn a_coordinator_that_comes_back_in_time_cuts_nobody_off() {
        let (mut presence, begun) = presence();
        presence.saw(begun, false, false);
        presence.saw(begun + 5 * SECOND, true, true);
        presence.saw(begun + 6 * SECOND, false, false);
        assert!(!presence.gets_cut_off(begun + 11 * SECOND));
        assert!(!presence.gets_back(begun + 60 * SECOND), "it never was cut off");
    }

    #[test]
    fn it_is_back_once_all_was_steady_for_a_heartbeat() {
        let (mut presence, begun) = presence();
        presence.saw(begun, false, false);
        assert!(presence.gets_cut_off(begun + 6 * SECOND));
        presence.saw(begun + 7 * SECOND, true, true);
        // A rebalance tells by itself who has what.
        presence.saw(begun + 8 * SECOND, true, false);
        assert!(!presence.gets_back(begun + 20 * SECOND));
        presence.saw(begun + 20 * SECOND, true, true);
        assert!(!presence.gets_back(begun + 21 * SECOND));
        assert!(presence.gets_back(begun + 22 * SECOND));
        assert!(!presence.gets_back(begun + 23 * SECOND));
    }

    #[test]
    fn every_absence_cuts_it_off() {
        let (mut presence, begun) = presence();
        presence.saw(begun, false, false);
        assert!(presence.gets_cut_off(begun + 6 * SECOND));
        // Long enough to be given something, and too short to be back.
        presence.saw(begun + 7 * SECOND, true, true);
        presence.saw(begun + 8 * SECOND, false, false);
        assert!(presence.gets_cut_off(begun + 14 * SECOND));
        presence.saw(begun + 20 * SECOND, true, true);
        assert!(presence.gets_back(begun + 22 * SECOND));
        presence.saw(begun + 30 * SECOND, false, false);
        assert!(presence.gets_cut_off(begun + 36 * SECOND));
    }
}
