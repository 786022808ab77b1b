//! When posts are due, which is fixed beforehand.

use std::{ops::Range, time::Duration};

use super::town::{Town, TownPost};
use crate::writes::Draft;

/// Posts that go out together at most, as in a stream of the API.
const POSTS_AT_ONCE: usize = 256;

/// Posts at a steady rate, by the authors of a town in the order of its posts.
#[derive(Clone, Copy)]
pub(super) struct Stream<'a> {
    pub(super) town: &'a Town,
    pub(super) posts_per_second: f64,
    /// Whether how long they take is asked for.
    pub(super) is_counted: bool,
}

/// The posts of a window in the order in which they are due, of which some were taken.
pub(super) struct Schedule {
    dues: Vec<Due>,
    /// How many.
    taken: usize,
}

/// A post that is to be published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Due {
    /// After the window's beginning.
    pub(super) at: Duration,
    pub(super) stream: usize,
    /// Which of the stream's posts.
    pub(super) place: usize,
    pub(super) is_counted: bool,
}

impl Stream<'_> {
    fn draft(&self, place: usize) -> Draft {
        self.town.draft(self.post(place))
    }

    fn reader_count(&self, place: usize) -> u64 {
        self.town.reader_count(self.post(place))
    }

    fn post(&self, place: usize) -> TownPost {
        let posts = self.town.posts();
        posts[place % posts.len()]
    }
}

/// What is due, as it is published.
pub(super) fn drafts(streams: &[Stream<'_>], dues: &[Due]) -> Vec<Draft> {
    dues.iter().map(|due| streams[due.stream].draft(due.place)).collect()
}

impl Schedule {
    /// Each stream's posts at even distances.
    pub(super) fn of(streams: &[Stream<'_>], window: Duration) -> Self {
        let mut dues = Vec::new();
        for (stream, Stream { posts_per_second, is_counted, .. }) in streams.iter().enumerate() {
            let count = (window.as_secs_f64() * posts_per_second).ceil() as usize;
            dues.extend((0..count).map(|place| Due {
                at: Duration::from_secs_f64(place as f64 / posts_per_second),
                stream,
                place,
                is_counted: *is_counted,
            }));
        }
        dues.sort_by_key(|due| due.at);
        Self { dues, taken: 0 }
    }

    /// All of them.
    pub(super) fn dues(&self) -> &[Due] {
        &self.dues
    }

    /// How many were taken.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// When the next one is due, after the window's beginning; `None`: all were taken.
    pub(super) fn next_at(&self) -> Option<Duration> {
        Some(self.dues.get(self.taken)?.at)
    }

    /// How many deliveries are due in some time after the window's beginning.
    pub(super) fn deliveries_due(&self, streams: &[Stream<'_>], within: Range<Duration>) -> u64 {
        let dues = self.dues.iter().filter(|due| within.contains(&due.at));
        dues.map(|due| streams[due.stream].reader_count(due.place)).sum()
    }

    /// Takes what is due by `now`, or as much of it as goes out together.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<Due> {
        let left = self.dues[self.taken..].iter().take(POSTS_AT_ONCE);
        let dues: Vec<Due> = left.take_while(|due| due.at <= now).copied().collect();
        self.taken += dues.len();
        dues
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::town::Drawn;

    #[test]
    fn what_is_due_is_counted_by_its_readers() {
        let drawn = Drawn { authors: 3, first_id: 1_001, followers: 40 };
        let town = Town::drawn(1, 1_000, drawn, 3);
        let streams = [Stream { town: &town, posts_per_second: 10.0, is_counted: true }];
        let schedule = Schedule::of(&streams, Duration::from_secs(2));
        let due = |from, to| {
            schedule.deliveries_due(&streams, Duration::from_secs(from)..Duration::from_secs(to))
        };
        assert_eq!((due(0, 2), due(1, 2), due(2, 9)), (20 * 41, 10 * 41, 0));
    }

    #[test]
    fn what_is_due_is_taken_once_and_not_too_much_of_it_together() {
        let ms = Duration::from_millis;
        let due = |at| Due { at: ms(at), stream: 0, place: 0, is_counted: true };
        let dues: Vec<Due> = (0..POSTS_AT_ONCE as u64 + 10).map(due).collect();
        let mut schedule = Schedule { dues: dues.clone(), taken: 0 };
        let mut taken = schedule.take_due(ms(1));
        assert_eq!(taken.len(), 2);
        assert!(schedule.take_due(ms(1)).is_empty());
        assert_eq!(schedule.next_at(), Some(ms(2)));
        taken.extend(schedule.take_due(ms(1_000)));
        assert_eq!(taken.len(), 2 + POSTS_AT_ONCE);
        taken.extend(schedule.take_due(ms(1_000)));
        assert_eq!((taken, schedule.next_at()), (dues, None));
    }
}
