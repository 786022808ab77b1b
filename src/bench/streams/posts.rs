//! What is posted while readers follow, and to whom it is due.

use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use crate::{
    bench::{
        BenchError,
        log::BenchLog,
        schedule::{Due, Schedule, Stream, drafts},
        town::{Drawn, Town},
    },
    domain::{PostId, UserId},
    store::Store,
    writes::Writes,
};

/// Whom a reader follows, on average.
const FOLLOWS: usize = 5;
/// Of an author, where there are enough readers.
const AUTHOR_READERS: usize = 200;
/// For each reader, on average, where that makes enough posts.
const POSTS_PER_SECOND_EACH: f64 = 0.5;
/// At the least, in a window.
const POSTS_MIN: f64 = 200.0;
/// Those whom only slow readers follow, and who post so much while these take nothing that a
/// stream cannot send all of it.
const LOUD_AUTHORS: usize = 10;
const LOUD_POSTS: f64 = 1_200.0;

/// What is posted in each window.
pub(super) struct Posts {
    quiet: Town,
    loud: Town,
    quiet_per_second: f64,
    loud_per_second: f64,
    window: Duration,
}

/// A post that was published.
pub(super) struct Published {
    id: PostId,
    due: Due,
}

impl Posts {
    /// For the accounts 1 to `readers`, of whom the first `slow` take nothing for `stall`.
    pub(super) fn new(readers: u32, slow: u32, window: Duration, stall: Duration) -> Self {
        let authors = (readers as usize * FOLLOWS / AUTHOR_READERS).max(2 * FOLLOWS);
        let followers = (readers as usize * FOLLOWS / authors) as u32;
        let first_id = u64::from(readers) + 1;
        let quiet = Town::drawn(1, readers, Drawn { authors, first_id, followers }, authors);
        let first_id = first_id + authors as u64;
        let loud = Drawn { authors: LOUD_AUTHORS, first_id, followers: slow };
        let enough = authors as f64 * POSTS_PER_SECOND_EACH / FOLLOWS as f64;
        Self {
            quiet,
            loud: Town::drawn(2, slow, loud, LOUD_AUTHORS),
            quiet_per_second: enough.max(POSTS_MIN / window.as_secs_f64()),
            loud_per_second: LOUD_POSTS / stall.as_secs_f64(),
            window,
        }
    }

    pub(super) fn towns(&self) -> [&Town; 2] {
        [&self.quiet, &self.loud]
    }

    fn streams(&self) -> [Stream<'_>; 2] {
        let stream = |town, posts_per_second| Stream { town, posts_per_second, is_counted: true };
        [stream(&self.quiet, self.quiet_per_second), stream(&self.loud, self.loud_per_second)]
    }

    pub(super) fn per_second(&self) -> f64 {
        self.quiet_per_second + self.loud_per_second
    }

    /// How many are due to each of the accounts 1 to `readers` in a window.
    pub(super) fn due_counts(&self, readers: u32) -> Vec<usize> {
        let mut counts = vec![0; readers as usize];
        for due in Schedule::of(&self.streams(), self.window).dues() {
            for reader in self.readers(*due) {
                if let Some(count) = counts.get_mut(place_of(reader)) {
                    *count += 1;
                }
            }
        }
        counts
    }

    /// Those that are due to each of the accounts 1 to `readers`, ascending.
    pub(super) fn due(&self, readers: u32, published: &[Published]) -> Vec<Vec<PostId>> {
        let mut due = vec![Vec::new(); readers as usize];
        for post in published {
            for reader in self.readers(post.due) {
                if let Some(due) = due.get_mut(place_of(reader)) {
                    due.push(post.id);
                }
            }
        }
        due.iter_mut().for_each(|ids| ids.sort_unstable());
        due
    }

    fn readers(&self, due: Due) -> impl Iterator<Item = UserId> {
        let town = self.towns()[due.stream];
        let post = town.posts()[due.place % town.posts().len()];
        town.deliveries(&[post]).into_iter().map(|(reader, _)| reader)
    }

    /// Publishes a window's posts at their times, the first of which is `begun`.
    pub(super) async fn publish<S: Store>(
        &self,
        writes: &Writes<BenchLog, S>,
        begun: Instant,
    ) -> Result<Vec<Published>, BenchError> {
        let streams = self.streams();
        let mut schedule = Schedule::of(&streams, self.window);
        let (mut sending, mut published) = (FuturesUnordered::new(), Vec::new());
        while published.len() < schedule.dues().len() {
            let next_at = schedule.next_at();
            tokio::select! {
                Some(done) = sending.next(), if !sending.is_empty() => {
                    let (dues, results): (Vec<Due>, Vec<_>) = done;
                    for (due, result) in dues.into_iter().zip(results) {
                        published.push(Published { id: result?, due });
                    }
                }
                () = sleep_until(begun + next_at.unwrap_or_default()), if next_at.is_some() => {
                    let dues = schedule.take_due(begun.elapsed());
                    let publishing = writes.publish(drafts(&streams, &dues));
                    sending.push(async move { (dues, publishing.await) });
                }
            }
        }
        Ok(published)
    }
}

fn place_of(reader: UserId) -> usize {
    (reader.0 as usize).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_known_before_it_is_published() {
        let (window, stall) = (Duration::from_millis(500), Duration::from_millis(300));
        let posts = Posts::new(50, 8, window, stall);
        let counts = posts.due_counts(50);
        // As many more are due to slow readers as cannot be sent after they have stalled.
        assert!(counts[..8].iter().all(|count| *count > 1_200), "{counts:?}");
        assert!(counts[8..].iter().all(|count| *count < 300), "{counts:?}");
        let published: Vec<Published> = (1..)
            .map(PostId)
            .zip(Schedule::of(&posts.streams(), window).dues())
            .map(|(id, due)| Published { id, due: *due })
            .collect();
        let due = posts.due(50, &published);
        assert_eq!(due.iter().map(Vec::len).collect::<Vec<_>>(), counts);
        assert!(due.iter().all(|ids| ids.is_sorted_by(|a, b| a < b)));
    }
}
