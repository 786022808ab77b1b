//! Posts at times that are fixed beforehand, and when each of them has reached every
//! reader.
//!
//! ```text
//!  schedule ─► due? ─► writes ─► log ─► workers ─► Redis
//!                 └── latency ──────────────► told by the worker: reached all
//! ```
//!
//! A latency begins when the post is due, not when it is sent: a Roost that falls behind
//! makes no post come later, so nothing is left out. It ends when the worker has the
//! answers to the last of the post's pushes, which is after any reader can see it. What
//! is due within a millisecond or two goes out together, as a client's stream would.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{
    BenchError, Row, Series,
    ground::Ground,
    log::BenchLog,
    roost::{Roost, Work},
    town::Town,
};
use crate::{
    domain::PostId,
    store::redis::RedisStore,
    writes::{Draft, Writes},
};

/// Posts that go out together at most, as in a stream of the API.
const POSTS_AT_ONCE: usize = 256;
/// How often what was seen is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How many looks make a sample of the throughput.
const LOOKS_A_SAMPLE: u32 = 25;

/// The posts that have reached all their readers, and when; taken away at every look.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Vec<(PostId, Instant)>>>);

/// Posts at a steady rate, by the authors of a town in the order of its posts.
#[derive(Clone, Copy)]
pub(super) struct Stream<'a> {
    pub(super) town: &'a Town,
    pub(super) posts_per_second: f64,
    /// Whether how long they take is asked for.
    pub(super) is_counted: bool,
}

/// What became of a window's posts.
pub(super) struct Held {
    /// Deliveries a second in the second half of the window: at its beginning nothing has
    /// been delivered yet, and at its end nothing more comes.
    pub(super) rate: f64,
    /// Of the counted ones, ascending. Those that have not been seen in time stand here
    /// with the time for which they were waited for.
    pub(super) latencies: Latencies,
    /// Counted posts that were not seen in time.
    pub(super) unseen: usize,
    pub(super) work: Work,
    pub(super) redis_cpu: Duration,
    pub(super) samples: Vec<Sample>,
}

/// Latencies, ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies(Vec<Duration>);

/// The state at some time after the window began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at: Duration,
    pub(super) deliveries: u64,
    pub(super) pushes: u64,
    /// Posts that are due and have not reached everybody.
    pub(super) waiting: usize,
}

impl Seen {
    pub(super) fn note(&self, posts: &[PostId]) {
        let now = Instant::now();
        self.lock().extend(posts.iter().map(|post| (*post, now)));
    }

    pub(super) fn take(&self) -> Vec<(PostId, Instant)> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(PostId, Instant)>> {
        // Whole even after a panic: it is changed by single calls only.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes streams for a window, and waits for their counted posts, no longer than
/// `patience` after its end.
pub(super) async fn hold(
    ground: &Ground<'_>,
    roost: &Roost<RedisStore>,
    writes: &Writes<BenchLog, RedisStore>,
    seen: &Seen,
    streams: &[Stream<'_>],
    window: Duration,
    patience: Duration,
) -> Result<Held, BenchError> {
    // What was left of the window before is not of this one.
    seen.take();
    let mut schedule = Schedule::of(streams, window);
    let redis_before = ground.redis.usage().await?;
    let (begun, before) = (Instant::now(), roost.moment());
    let mut board = Board::new(begun, schedule.dues().iter().filter(|due| due.is_counted).count());
    let mut samples = Vec::new();
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look_count = 0;
    let mut sending = FuturesUnordered::new();
    let give_up_at = begun + window + patience;
    while !board.is_done() {
        let next_at = schedule.next_at();
        tokio::select! {
            Some((dues, results)) = sending.next(), if !sending.is_empty() => {
                let dues: Vec<Due> = dues;
                let results: Vec<_> = results;
                for (due, result) in dues.into_iter().zip(results) {
                    board.published(result?, due);
                }
            }
            () = sleep_until(begun + next_at.unwrap_or_default()), if next_at.is_some() => {
                let dues = schedule.take_due(begun.elapsed());
                let published = writes.publish(drafts(streams, &dues));
                sending.push(async move { (dues, published.await) });
            }
            _ = looks.tick() => {
                board.seen(seen.take());
                if look_count % LOOKS_A_SAMPLE == 0 {
                    let done = roost.moment().since(&before);
                    samples.push(Sample {
                        at: begun.elapsed(),
                        deliveries: done.deliveries,
                        pushes: done.pushes,
                        waiting: schedule.taken - board.seen_count,
                    });
                }
                look_count += 1;
            }
            () = sleep_until(give_up_at) => break,
        }
    }
    let work = roost.moment().since(&before);
    let redis_cpu = ground.redis.usage().await?.cpu_since(&redis_before);
    let (latencies, unseen) = board.end(Instant::now(), schedule.dues());
    let rate = steady_rate(&samples, window).unwrap_or(work.rate());
    Ok(Held { rate, latencies, unseen, work, redis_cpu, samples })
}

/// Deliveries a second in the second half of a window; none where it is too short to tell.
fn steady_rate(samples: &[Sample], window: Duration) -> Option<f64> {
    let mut half = samples.iter().filter(|sample| sample.at >= window / 2 && sample.at <= window);
    let (first, last) = (half.next()?, half.next_back()?);
    Some((last.deliveries - first.deliveries) as f64 / (last.at - first.at).as_secs_f64())
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
    is_counted: bool,
}

impl Stream<'_> {
    fn draft(&self, place: usize) -> Draft {
        let posts = self.town.posts();
        self.town.draft(posts[place % posts.len()])
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

    pub(super) fn dues(&self) -> &[Due] {
        &self.dues
    }

    /// When the next one is due, after the window's beginning; `None`: all were taken.
    pub(super) fn next_at(&self) -> Option<Duration> {
        Some(self.dues.get(self.taken)?.at)
    }

    /// Takes what is due by `now`, or as much of it as goes out together.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<Due> {
        let left = self.dues[self.taken..].iter().take(POSTS_AT_ONCE);
        let dues: Vec<Due> = left.take_while(|due| due.at <= now).copied().collect();
        self.taken += dues.len();
        dues
    }
}

/// Which posts are where between being published and being seen.
struct Board {
    begun: Instant,
    /// Published and not seen.
    waiting: HashMap<PostId, Due>,
    /// Seen before their answers came.
    early: HashMap<PostId, Instant>,
    latencies: Vec<Duration>,
    seen_count: usize,
    counted: usize,
}

impl Board {
    fn new(begun: Instant, counted: usize) -> Self {
        let (waiting, early) = (HashMap::new(), HashMap::new());
        Self { begun, waiting, early, latencies: Vec::new(), seen_count: 0, counted }
    }

    fn published(&mut self, post: PostId, due: Due) {
        match self.early.remove(&post) {
            Some(at) => self.note(due, at),
            None => drop(self.waiting.insert(post, due)),
        }
    }

    fn seen(&mut self, posts: Vec<(PostId, Instant)>) {
        for (post, at) in posts {
            match self.waiting.remove(&post) {
                Some(due) => self.note(due, at),
                None => drop(self.early.insert(post, at)),
            }
        }
    }

    fn note(&mut self, due: Due, at: Instant) {
        self.seen_count += 1;
        if due.is_counted {
            self.latencies.push(at.saturating_duration_since(self.begun + due.at));
        }
    }

    /// Whether every counted post was seen.
    fn is_done(&self) -> bool {
        self.latencies.len() == self.counted
    }

    /// The latencies, with those of the posts that were not seen by `now`, and how many
    /// those are: whoever was due last is taken to be missing.
    fn end(self, now: Instant, schedule: &[Due]) -> (Latencies, usize) {
        let unseen = self.counted - self.latencies.len();
        let counted = schedule.iter().rev().filter(|due| due.is_counted);
        let waited =
            counted.take(unseen).map(|due| now.saturating_duration_since(self.begun + due.at));
        (Latencies::of(self.latencies.into_iter().chain(waited).collect()), unseen)
    }
}

impl Latencies {
    pub(super) fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        Self(latencies)
    }

    /// The latency that a share of the posts did not pass; 0 where there is none.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let place = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(place.clamp(1, self.0.len().max(1)) - 1).copied().unwrap_or_default()
    }

    /// A row with the usual quantiles.
    pub(super) fn figures(&self, row: Row) -> Row {
        let ms = |share| self.quantile(share).as_secs_f64() * 1e3;
        row.with("p50", ms(0.5), "ms").with("p90", ms(0.9), "ms").with("p99", ms(0.99), "ms").with(
            "max",
            ms(1.0),
            "ms",
        )
    }

    /// The distribution, in seconds.
    pub(super) fn series(&self, name: impl Into<String>) -> Series {
        let seconds = |share| self.quantile(share).as_secs_f64();
        Series::of_quantiles(name, self.0.len() as u64, seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(ms: u64, is_counted: bool) -> Due {
        Due { at: Duration::from_millis(ms), stream: 0, place: 0, is_counted }
    }

    #[test]
    fn a_latency_counts_from_when_a_post_was_due_whoever_is_told_first() {
        let begun = Instant::now();
        let after = |ms| begun + Duration::from_millis(ms);
        let mut board = Board::new(begun, 2);
        // Sent late, and seen before its answer came.
        board.seen(vec![(PostId(1), after(700))]);
        assert!(!board.is_done());
        board.published(PostId(1), due(100, true));
        board.published(PostId(2), due(200, true));
        board.published(PostId(3), due(300, false));
        board.seen(vec![(PostId(3), after(500)), (PostId(2), after(250))]);
        assert!(board.is_done());
        let (latencies, unseen) = board.end(after(900), &[]);
        assert_eq!(unseen, 0);
        assert_eq!(latencies.0, [Duration::from_millis(50), Duration::from_millis(600)]);
    }

    #[test]
    fn what_was_not_seen_counts_with_the_time_for_which_it_was_waited_for() {
        let begun = Instant::now();
        let after = |ms| begun + Duration::from_millis(ms);
        let schedule = [due(0, true), due(10, true), due(20, false)];
        let mut board = Board::new(begun, 2);
        board.published(PostId(1), schedule[0]);
        board.seen(vec![(PostId(1), after(5))]);
        let (latencies, unseen) = board.end(after(1_010), &schedule);
        assert_eq!(unseen, 1);
        assert_eq!(latencies.0, [Duration::from_millis(5), Duration::from_secs(1)]);
    }

    #[test]
    fn what_is_due_is_taken_once_and_not_too_much_of_it_together() {
        let dues: Vec<Due> = (0..POSTS_AT_ONCE as u64 + 10).map(|ms| due(ms, true)).collect();
        let mut schedule = Schedule { dues: dues.clone(), taken: 0 };
        let ms = Duration::from_millis;
        let mut taken = schedule.take_due(ms(1));
        assert_eq!(taken.len(), 2);
        assert!(schedule.take_due(ms(1)).is_empty());
        assert_eq!(schedule.next_at(), Some(ms(2)));
        taken.extend(schedule.take_due(ms(1_000)));
        assert_eq!(taken.len(), 2 + POSTS_AT_ONCE);
        taken.extend(schedule.take_due(ms(1_000)));
        assert_eq!((taken, schedule.next_at()), (dues, None));
    }

    #[test]
    fn the_rate_is_that_of_the_windows_second_half() {
        let sample = |at, deliveries| Sample {
            at: Duration::from_secs(at),
            deliveries,
            pushes: 0,
            waiting: 0,
        };
        let samples = [sample(0, 0), sample(5, 10), sample(7, 30), sample(10, 60), sample(15, 70)];
        assert_eq!(steady_rate(&samples, Duration::from_secs(10)), Some(10.0));
        assert_eq!(steady_rate(&samples[..2], Duration::from_secs(10)), None);
    }

    #[test]
    fn quantiles_are_latencies_that_were_there() {
        let latencies = Latencies::of((1..=200).rev().map(Duration::from_millis).collect());
        let ms = |share| latencies.quantile(share).as_millis();
        assert_eq!([ms(0.0), ms(0.5), ms(0.99), ms(1.0)], [1, 100, 198, 200]);
        assert_eq!(Latencies::default().quantile(0.99), Duration::ZERO);
        let curve = latencies.series("x").points;
        assert_eq!(curve.first(), Some(&(0.0, 0.001)));
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{curve:?}");
    }
}
