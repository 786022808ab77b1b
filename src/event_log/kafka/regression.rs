//! Whether a partition has lost records that it was known to have. Pure.
//!
//! A single answer does not prove it. A leader that was replaced while it was paused or
//! cut off answers from what it knew, until it hears of its successor; it then says that
//! the partition ends earlier. So a loss counts only once every answer has told of it for
//! a while; one answer to the contrary disproves all of them.

use std::time::{Duration, Instant};

/// A loss counts after at least so many answers, however long they have taken.
const ANSWERS_MIN: u32 = 5;
/// A pause between two answers that is no silence yet: a question may take as long.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The answers that tell of a loss, without one to the contrary since.
#[derive(Debug, Default)]
pub struct Regression {
    /// The greatest end that they contradict.
    known: u64,
    first_at: Option<Instant>,
    last_at: Option<Instant>,
    answers: u32,
}

impl Regression {
    /// Takes in an answer: where a partition ends that was known to reach `known`. Whether
    /// it is certain by now that the partition has lost records.
    pub fn is_certain(&mut self, now: Instant, known: u64, end: u64, after: Duration) -> bool {
        if end >= known {
            if end >= self.known {
                *self = Self::default();
            }
            return false;
        }
        // What was said before a long silence says nothing of the time since.
        if self
            .last_at
            .is_some_and(|last| now.saturating_duration_since(last) > after.max(PAUSE_MAX))
        {
            *self = Self::default();
        }
        self.known = self.known.max(known);
        self.answers = self.answers.saturating_add(1);
        self.last_at = Some(now);
        let first = *self.first_at.get_or_insert(now);
        self.answers >= ANSWERS_MIN && now.saturating_duration_since(first) >= after
    }

    /// Whether the latest answer told of a loss.
    pub fn is_suspected(&self) -> bool {
        self.first_at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const AFTER: Duration = Duration::from_secs(10);

    #[test]
    fn loss_counts_after_consistent_answers() {
        let (mut regression, begun) = (Regression::default(), Instant::now());
        for at in 0..10 {
            assert!(!regression.is_certain(begun + at * SECOND, 7, 5, AFTER), "after {at} s");
            assert!(regression.is_suspected());
        }
        assert!(regression.is_certain(begun + 10 * SECOND, 7, 5, AFTER));
    }

    #[test]
    fn loss_is_disproved_by_one_answer() {
        let (mut regression, begun) = (Regression::default(), Instant::now());
        for at in 0..9 {
            assert!(!regression.is_certain(begun + at * SECOND, 7, 5, AFTER));
        }
        assert!(!regression.is_certain(begun + 9 * SECOND, 7, 7, AFTER));
        assert!(!regression.is_suspected());
        assert!(!regression.is_certain(begun + 12 * SECOND, 7, 5, AFTER), "it begins again");
    }

    /// Readers wait at different offsets of a partition.
    #[test]
    fn loss_is_not_disproved_by_a_reader_behind_it() {
        let (mut regression, begun) = (Regression::default(), Instant::now());
        for at in 0..10 {
            assert!(!regression.is_certain(begun + at * SECOND, 7, 5, AFTER));
            assert!(!regression.is_certain(begun + at * SECOND, 5, 5, AFTER));
        }
        assert!(regression.is_certain(begun + 10 * SECOND, 7, 5, AFTER));
    }

    #[test]
    fn loss_needs_more_than_a_few_answers() {
        let (mut regression, begun) = (Regression::default(), Instant::now());
        for at in [0, 9, 18, 27] {
            assert!(!regression.is_certain(begun + at * SECOND, 7, 5, AFTER));
        }
        assert!(regression.is_certain(begun + 28 * SECOND, 7, 5, AFTER));
    }

    #[test]
    fn loss_counts_though_answers_take_longer_than_the_wait() {
        let (mut regression, begun) = (Regression::default(), Instant::now());
        for at in 0..4 {
            assert!(!regression.is_certain(begun + 3 * at * SECOND, 7, 5, SECOND));
        }
        assert!(regression.is_certain(begun + 12 * SECOND, 7, 5, SECOND));
        assert!(!Regression::default().is_certain(begun, 7, 5, Duration::ZERO), "one answer");
    }

    #[test]
    fn loss_begins_again_after_silence() {
        let (mut regression, begun) = (Regression::default(), Instant::now());
        for at in 0..9 {
            assert!(!regression.is_certain(begun + at * SECOND, 7, 5, AFTER));
        }
        assert!(!regression.is_certain(begun + 60 * SECOND, 7, 5, AFTER));
    }
}
