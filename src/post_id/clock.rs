//! Whether ids can be given out at the time that the clock tells: `check`, which is pure.
//!
//! A wrong clock leaves a trace that outlives it: ids only grow, so after one that was given
//! out by a clock three days ahead, all are three days ahead until time has caught up. The
//! rules here keep such a trace short, and each refusal ends by itself once the clock is right.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::domain::PostId;

/// How far the newest id may be ahead of the clock, and the clock may jump ahead, unless
/// something else is set. Within it everything works and heals by itself; beyond it, posts
/// would bear wrong times for so long that an operator must decide.
pub const CLOCK_JUMP_MAX_DEFAULT: Duration = Duration::from_secs(7 * DAY_SECONDS);

const DAY_SECONDS: u64 = 24 * 3_600;
const DAY_MS: u64 = DAY_SECONDS * 1_000;
/// How far the clock of a start may be ahead of the newest id: nothing may have been published
/// for long, which looks the same as a clock that is ahead.
const IDLE_MAX_MS: u64 = 366 * DAY_MS;
/// Ids from before this come from clocks that had not been set, and say nothing of the time.
const PLAUSIBLE_MS: u64 = 366 * DAY_MS;
/// The last millisecond that an id has room for, in 2089.
pub(super) const MS_MAX: u64 = (1 << PostId::TIME_BITS) - 1;

/// Why no id can be given out now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// This process has lost its node number, and would give out ids that another one
    /// gives out too.
    #[error("this server has no node number at the moment; try again, or on another")]
    NoNode,
    /// The newest id is too far ahead of the clock.
    #[error(
        "the newest post is dated {} after the clock of this server, which is more than the {} \
         of --clock-jump-limit: nothing is published until the difference is smaller. If the \
         clock is behind, set it right; if an earlier clock was ahead, restore a backup from \
         before, or start with a larger --clock-jump-limit", span(*ahead), span(*limit)
    )]
    Ahead {
        /// How far it is ahead.
        ahead: Duration,
        /// How far it may be.
        limit: Duration,
    },
    /// The clock has jumped too far ahead while the process ran, or since the newest post.
    #[error(
        "the clock of this server is {} ahead of {}, which is more than {}: nothing is \
         published, since all later ids would be so far ahead too. If the clock is wrong, set \
         it right; if it is right, restart this server with a larger --clock-jump-limit",
        span(*by), since.words(), span(*limit)
    )]
    Jumped {
        /// How far it is ahead.
        by: Duration,
        /// Of what.
        since: JumpedSince,
        /// How far it may be.
        limit: Duration,
    },
    /// Ids have no room for this time, or for so many more.
    #[error("post ids end in 2089, and {}: nothing can be published", reason)]
    Exhausted {
        /// What is beyond their end.
        reason: &'static str,
    },
}

/// What a clock that has jumped is ahead of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JumpedSince {
    /// The newest post.
    NewestPost,
    /// The time that has passed since it was read last, as the system counts it from its start.
    LastReading,
}

impl JumpedSince {
    fn words(self) -> &'static str {
        match self {
            Self::NewestPost => "the newest post",
            Self::LastReading => "the time that has passed while it runs",
        }
    }
}

/// The time of day, and beside it a time that nobody sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Milliseconds since 1970, as the clock tells.
    pub unix_ms: u64,
    /// Milliseconds since the system started, those that it slept among them.
    pub uptime_ms: u64,
}

/// Milliseconds since the system started. They go on while it sleeps, so that a laptop that
/// wakes has not jumped; they stand still while a virtual machine is paused from outside.
pub(super) fn uptime_ms() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let time = clock_gettime(clock);
    let (seconds, nanos) = (time.tv_sec as u64, time.tv_nsec as u64);
    seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
}

/// The millisecond of the ids at this time; the first one where it is before.
pub(super) fn id_ms(unix_ms: u64) -> u64 {
    unix_ms.saturating_sub(PostId::EPOCH_UNIX_MS).max(1)
}

/// Whether ids may be given out now. `last_ms` is the millisecond of the newest id, 0 without
/// one; `trusted` is the last reading at which they were.
pub(super) fn check(
    now: Reading,
    trusted: Option<Reading>,
    last_ms: u64,
    jump_max: Duration,
) -> Result<(), IdError> {
    let (now_ms, limit) = (id_ms(now.unix_ms), jump_max);
    let limit_ms = millis(limit);
    if now_ms > MS_MAX {
        return Err(IdError::Exhausted { reason: "the clock of this server is past that" });
    }
    let ahead = last_ms.saturating_sub(now_ms);
    if ahead > limit_ms {
        return Err(IdError::Ahead { ahead: Duration::from_millis(ahead), limit });
    }
    let jumped = |by, since, limit_ms| {
        let (by, limit) = (Duration::from_millis(by), Duration::from_millis(limit_ms));
        Err(IdError::Jumped { by, since, limit })
    };
    if let Some(trusted) = trusted {
        let passed = now.uptime_ms.saturating_sub(trusted.uptime_ms);
        let by = now.unix_ms.saturating_sub(trusted.unix_ms.saturating_add(passed));
        // A clock that stood before the epoch had not been set, and now it is.
        if by > limit_ms && trusted.unix_ms >= PostId::EPOCH_UNIX_MS {
            return jumped(by, JumpedSince::LastReading, limit_ms);
        }
    }
    let (idle, idle_max) = (now_ms.saturating_sub(last_ms), limit_ms.max(IDLE_MAX_MS));
    // A reading that is trusted has been compared with the newest post before.
    if trusted.is_none() && last_ms >= PLAUSIBLE_MS && idle > idle_max {
        return jumped(idle, JumpedSince::NewestPost, idle_max);
    }
    Ok(())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration for people, cut to its two greatest units.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / DAY_SECONDS, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        (..1_000, ..) => format!("{days} d {hours} h"),
        _ => format!("{} years", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Duration = CLOCK_JUMP_MAX_DEFAULT;
    const YEAR_MS: u64 = 365 * DAY_MS;
    /// Some day in 2026.
    const TODAY: u64 = PostId::EPOCH_UNIX_MS + 6 * YEAR_MS;

    fn at(unix_ms: u64) -> Reading {
        Reading { unix_ms, uptime_ms: 1_000 }
    }

    fn last(unix_ms: u64) -> u64 {
        id_ms(unix_ms)
    }

    #[test]
    fn ids_ahead_are_refused_beyond_the_limit_only() {
        let week = millis(LIMIT);
        assert_eq!(check(at(TODAY), None, last(TODAY + week), LIMIT), Ok(()));
        let refused = check(at(TODAY), None, last(TODAY + week + 1), LIMIT).unwrap_err();
        assert!(matches!(refused, IdError::Ahead { .. }), "{refused}");
        assert!(refused.to_string().contains("7 d 0 h after the clock"), "{refused}");
        let larger = Duration::from_secs(8 * DAY_SECONDS);
        assert_eq!(check(at(TODAY), None, last(TODAY + week + 1), larger), Ok(()));
        // A clock that stands in 1970 until it is set.
        assert!(check(at(0), None, last(TODAY), LIMIT).is_err());
        assert_eq!(check(at(0), None, 0, LIMIT), Ok(()), "nothing to be ahead");
    }

    #[test]
    fn start_clock_far_past_newest_post_is_refused() {
        let idle = |years| check(at(TODAY + years * YEAR_MS), None, last(TODAY), LIMIT);
        assert_eq!(idle(1), Ok(()));
        let refused = idle(62).unwrap_err();
        assert!(refused.to_string().contains("62 years ahead of the newest post"), "{refused}");
        let longer = Duration::from_millis(63 * YEAR_MS);
        assert_eq!(check(at(TODAY + 62 * YEAR_MS), None, last(TODAY), longer), Ok(()));
        assert_eq!(check(at(TODAY), None, last(5), LIMIT), Ok(()), "that clock was not set");
    }

    #[test]
    fn running_clock_that_jumps_is_refused_and_a_suspend_is_not() {
        let month = 30 * DAY_MS;
        let jumped = check(at(TODAY + month), Some(at(TODAY)), last(TODAY), LIMIT).unwrap_err();
        assert!(matches!(jumped, IdError::Jumped { since: JumpedSince::LastReading, .. }));
        let slept = Reading { unix_ms: TODAY + month, uptime_ms: 1_000 + month };
        assert_eq!(check(slept, Some(at(TODAY)), last(TODAY), LIMIT), Ok(()));
        assert_eq!(check(at(TODAY), Some(at(0)), 1, LIMIT), Ok(()), "the clock is set at last");
    }

    #[test]
    fn clock_past_2089_is_refused() {
        let end = PostId::EPOCH_UNIX_MS + MS_MAX;
        assert_eq!(check(at(end), None, 0, LIMIT), Ok(()));
        let refused = check(at(end + 1), None, 0, LIMIT).unwrap_err();
        assert!(matches!(refused, IdError::Exhausted { .. }), "{refused}");
    }

    #[test]
    fn span_names_its_two_greatest_units() {
        let said = [59, 61, 3_661, 90_000, 62 * 365 * DAY_SECONDS]
            .map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(said, ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h", "62 years"]);
    }

    proptest! {
        #[test]
        fn any_clock_gives_an_answer(
            unix_ms: u64, uptime_ms: u64, trusted: Option<(u64, u64)>, last_ms: u64, limit: u64,
        ) {
            let reading = |(unix_ms, uptime_ms)| Reading { unix_ms, uptime_ms };
            let trusted = trusted.map(reading);
            let limit = Duration::from_millis(limit);
            if check(reading((unix_ms, uptime_ms)), trusted, last_ms, limit).is_ok() {
                prop_assert!(id_ms(unix_ms) <= MS_MAX);
                prop_assert!(last_ms.saturating_sub(id_ms(unix_ms)) <= millis(limit));
            }
        }
    }
}
