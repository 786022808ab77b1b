//! What readers have received, held against what was due to them. Pure.

use std::{collections::HashMap, iter::Sum, time::Duration};

use crate::{bench::latencies::Latencies, domain::PostId};

/// Posts that are kept beyond those that are due; what comes after them is counted alone.
const SPARE: usize = 16;

/// What a reader has received over all its streams. It takes all its memory beforehand.
pub(super) struct Received {
    arrivals: Vec<Arrival>,
    /// For which there was no place, so that something has come twice.
    uncounted: u64,
    /// Of what is not newer than this something may be missing, as its reader was told.
    told_before: Option<PostId>,
    /// Streams after the first one.
    resumes: u64,
}

/// That a post has come.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    post: PostId,
    at_micros: u32,
    asked_at_micros: u32,
}

/// What all readers of a window have come to.
pub(super) struct Outcome {
    pub(super) quick: Tally,
    pub(super) slow: Tally,
    /// Of those who are not slow.
    pub(super) latencies: Latencies,
    pub(super) resumes: u64,
    /// Slow readers who were told that something may be missing.
    pub(super) told: u64,
}

/// What became of the posts that were due to some readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) due: u64,
    /// Over streams, each once.
    pub(super) received: u64,
    /// Their readers were told that something is missing, and have read it themselves.
    pub(super) listed: u64,
    /// Nobody has told of them.
    pub(super) missed: u64,
    /// They came before, or were not due at all.
    pub(super) repeated: u64,
}

impl Received {
    /// Nothing yet, and so much is due.
    pub(super) fn nothing_of(due: usize) -> Self {
        let arrivals = Vec::with_capacity(due + SPARE);
        Self { arrivals, uncounted: 0, told_before: None, resumes: 0 }
    }

    /// Takes note of a post, at times since the first one was due: when it came, and when the
    /// stream on which it came was asked for.
    pub(super) fn note(&mut self, post: PostId, at: Duration, asked_at: Duration) {
        if self.arrivals.len() == self.arrivals.capacity() {
            self.uncounted += 1;
            return;
        }
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.arrivals.push(Arrival {
            post,
            at_micros: micros(at),
            asked_at_micros: micros(asked_at),
        });
    }

    /// Takes note that something may be missing of what is not newer than this.
    pub(super) fn note_told(&mut self, before: PostId) {
        self.told_before = self.told_before.max(Some(before));
    }

    pub(super) fn told_before(&self) -> Option<PostId> {
        self.told_before
    }

    /// Takes note that its reader goes on with another stream.
    pub(super) fn note_resumed(&mut self) {
        self.resumes += 1;
    }

    /// Holds it against what was due, ascending, and what its reader has read by itself.
    fn tally(&self, due: &[PostId], listed: &[PostId]) -> Tally {
        let mut ids: Vec<PostId> = self.arrivals.iter().map(|arrival| arrival.post).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        let received = ids.iter().filter(|id| due.binary_search(id).is_ok()).count();
        let not_received = due.iter().filter(|id| ids.binary_search(id).is_err());
        let (listed, missed): (Vec<&PostId>, Vec<&PostId>) =
            not_received.partition(|id| listed.contains(id));
        Tally {
            due: due.len() as u64,
            received: received as u64,
            listed: listed.len() as u64,
            missed: missed.len() as u64,
            repeated: (all - received) as u64 + self.uncounted,
        }
    }
}

impl Outcome {
    /// Holds what each reader has received against what was due to it, ascending. The first
    /// ones are slow, and have read what is `listed` by themselves. Of each post it is known
    /// when it was visible.
    pub(super) fn of(
        received: &[Received],
        due: &[Vec<PostId>],
        listed: &[Vec<PostId>],
        visible: &HashMap<PostId, Duration>,
    ) -> Self {
        let (slow, quick) = received.split_at(listed.len());
        let (slow_due, quick_due) = due.split_at(listed.len());
        let latency = |arrival: &Arrival| Some(arrival.latency(*visible.get(&arrival.post)?));
        let arrivals = quick.iter().flat_map(|reader| &reader.arrivals);
        let slow_tallies = slow.iter().zip(slow_due).zip(listed);
        Self {
            quick: quick.iter().zip(quick_due).map(|(reader, due)| reader.tally(due, &[])).sum(),
            slow: slow_tallies.map(|((reader, due), listed)| reader.tally(due, listed)).sum(),
            latencies: Latencies::of(arrivals.filter_map(latency).collect()),
            resumes: received.iter().map(|reader| reader.resumes).sum(),
            told: slow.iter().filter(|reader| reader.told_before.is_some()).count() as u64,
        }
    }
}

impl Arrival {
    /// How long its reader has waited for it since it was visible; not while it had no stream.
    fn latency(&self, visible_at: Duration) -> Duration {
        let from = visible_at.max(Duration::from_micros(self.asked_at_micros.into()));
        Duration::from_micros(self.at_micros.into()).saturating_sub(from)
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, tally| Self {
            due: sum.due + tally.due,
            received: sum.received + tally.received,
            listed: sum.listed + tally.listed,
            missed: sum.missed + tally.missed,
            repeated: sum.repeated + tally.repeated,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(due: usize, posts: &[u64]) -> Received {
        let mut received = Received::nothing_of(due);
        for post in posts {
            received.note(PostId(*post), Duration::from_secs(2), Duration::from_secs(1));
        }
        received
    }

    #[test]
    fn what_is_missing_and_what_came_twice_is_counted() {
        let due = [1, 2, 3, 4].map(PostId);
        let whole = Tally { due: 4, received: 4, ..Tally::default() };
        assert_eq!(received(4, &[1, 3, 2, 4]).tally(&due, &[]), whole);
        // One twice, another that was not due, and two that did not come.
        let tally = received(4, &[1, 1, 3, 9]).tally(&due, &[PostId(4)]);
        let expected = Tally { due: 4, received: 2, listed: 1, missed: 1, repeated: 2 };
        assert_eq!(tally, expected);
        let sum: Tally = [whole, expected].into_iter().sum();
        assert_eq!((sum.due, sum.received, sum.missed), (8, 6, 1));
    }

    #[test]
    fn slow_readers_may_read_what_they_are_told_of_and_their_latencies_do_not_count() {
        let due = [vec![PostId(1), PostId(2)], vec![PostId(1)], vec![PostId(3)]];
        let mut readers = [received(2, &[2]), received(1, &[1]), received(1, &[3])];
        readers[0].note_told(PostId(1));
        readers[1].note_resumed();
        readers[2].note_resumed();
        let visible = [(1, 1_800), (2, 0)];
        let visible = visible.map(|(id, ms)| (PostId(id), Duration::from_millis(ms)));
        let outcome = Outcome::of(&readers, &due, &[vec![PostId(1)]], &visible.into());
        let slow = Tally { due: 2, received: 1, listed: 1, ..Tally::default() };
        let quick = Tally { due: 2, received: 2, ..Tally::default() };
        assert_eq!((outcome.slow, outcome.quick), (slow, quick));
        assert_eq!((outcome.told, outcome.resumes), (1, 2));
        // Nobody knows when the third post was visible.
        assert_eq!(outcome.latencies.quantile(0.0), Duration::from_millis(200));
        assert_eq!(outcome.latencies.quantile(1.0), Duration::from_millis(200));
    }

    #[test]
    fn a_flood_takes_no_more_memory_and_is_counted() {
        let received = received(1, &[1; 100]);
        assert_eq!(received.arrivals.len(), received.arrivals.capacity());
        assert_eq!(received.tally(&[PostId(1)], &[]).repeated, 99);
    }

    #[test]
    fn a_post_is_waited_for_since_it_was_visible_and_there_was_a_stream() {
        let arrival = received(1, &[1]).arrivals[0];
        assert_eq!(arrival.latency(Duration::ZERO), Duration::from_secs(1));
        assert_eq!(arrival.latency(Duration::from_millis(1_900)), Duration::from_millis(100));
        assert_eq!(arrival.latency(Duration::from_secs(3)), Duration::ZERO);
    }
}
