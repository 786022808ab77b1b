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
//! is due within a millisecond or two goes out together, as a client's stream would. A post
//! that the write path turns away since it is busy is one that nobody sees in time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{
    BenchError,
    ground::Ground,
    latencies::Latencies,
    log::BenchLog,
    roost::{Roost, WorkDone},
    schedule::{Due, Schedule, Stream, drafts},
};
use crate::{
    domain::PostId,
    store::redis::RedisStore,
    writes::{WriteError, Writes},
};

/// How often what was seen is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How many looks make a sample of the throughput.
const LOOKS_A_SAMPLE: u32 = 25;

/// The posts that have reached all their readers, and when; taken away at every look.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Vec<(PostId, Instant)>>>);

/// What became of a window's posts.
pub(super) struct Held {
    /// None where the window is too short to tell.
    pub(super) steady: Option<Steady>,
    /// Of the counted ones, ascending. Those that have not been seen in time stand here
    /// with the time for which they were waited for.
    pub(super) latencies: Latencies,
    /// Counted posts that were not seen in time.
    pub(super) unseen: usize,
    pub(super) work: WorkDone,
    pub(super) redis_cpu: Duration,
    pub(super) samples: Vec<Sample>,
}

/// The second half of a window: at its beginning nothing has been delivered yet, and after
/// its end nothing more comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steady {
    /// Deliveries a second.
    pub(super) rate: f64,
    /// Those that were due, a second.
    pub(super) due: f64,
}

/// The state at some time after the window began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at: Duration,
    pub(super) deliveries: u64,
    pub(super) pushes: u64,
    /// Posts that are due and have not reached everybody.
    pub(super) waiting: usize,
}

impl Held {
    /// Deliveries a second: of the window's second half, if it is long enough for one.
    pub(super) fn rate(&self) -> f64 {
        self.steady.map_or(self.work.rate(), |steady| steady.rate)
    }
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
                    match result {
                        Ok(post) => board.published(post, due),
                        Err(WriteError::Busy) => board.turned_away(due),
                        Err(error) => return Err(error.into()),
                    }
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
                        waiting: schedule.taken() - board.settled_count,
                    });
                }
                look_count += 1;
            }
            () = sleep_until(give_up_at) => break,
        }
    }
    let work = roost.moment().since(&before);
    let redis_cpu = ground.redis.usage().await?.cpu_since(&redis_before);
    // Nothing more comes of what was turned away, however early that is known.
    let (latencies, unseen) = board.end(give_up_at.max(Instant::now()), schedule.dues());
    let steady = second_half(&samples, window).map(|(first, last)| {
        let seconds = (last.at - first.at).as_secs_f64();
        let due = schedule.deliveries_due(streams, first.at..last.at);
        Steady {
            rate: (last.deliveries - first.deliveries) as f64 / seconds,
            due: due as f64 / seconds,
        }
    });
    Ok(Held { steady, latencies, unseen, work, redis_cpu, samples })
}

/// The first and the last sample of the second half of a window; none where it is too short.
fn second_half(samples: &[Sample], window: Duration) -> Option<(Sample, Sample)> {
    let mut half = samples.iter().filter(|sample| sample.at >= window / 2 && sample.at <= window);
    Some((*half.next()?, *half.next_back()?))
}

/// Which posts are where between being published and being seen.
struct Board {
    begun: Instant,
    /// Published and not seen.
    waiting: HashMap<PostId, Due>,
    /// Seen before their answers came.
    early: HashMap<PostId, Instant>,
    latencies: Vec<Duration>,
    /// Seen or turned away.
    settled_count: usize,
    counted: usize,
    /// Of the counted ones.
    turned_away: usize,
}

impl Board {
    fn new(begun: Instant, counted: usize) -> Self {
        Self {
            begun,
            waiting: HashMap::new(),
            early: HashMap::new(),
            latencies: Vec::new(),
            settled_count: 0,
            counted,
            turned_away: 0,
        }
    }

    fn published(&mut self, post: PostId, due: Due) {
        match self.early.remove(&post) {
            Some(at) => self.note(due, at),
            None => drop(self.waiting.insert(post, due)),
        }
    }

    fn turned_away(&mut self, due: Due) {
        self.settled_count += 1;
        self.turned_away += usize::from(due.is_counted);
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
        self.settled_count += 1;
        if due.is_counted {
            self.latencies.push(at.saturating_duration_since(self.begun + due.at));
        }
    }

    /// Whether nothing more comes of the counted posts.
    fn is_done(&self) -> bool {
        self.latencies.len() + self.turned_away == self.counted
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
        assert_eq!(latencies.all(), [Duration::from_millis(50), Duration::from_millis(600)]);
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
        assert_eq!(latencies.all(), [Duration::from_millis(5), Duration::from_secs(1)]);
    }

    #[test]
    fn what_is_turned_away_is_not_waited_for_and_was_not_seen() {
        let begun = Instant::now();
        let schedule = [due(0, true), due(10, true)];
        let mut board = Board::new(begun, 2);
        board.published(PostId(1), schedule[0]);
        board.turned_away(schedule[1]);
        assert!(!board.is_done());
        board.seen(vec![(PostId(1), begun + Duration::from_millis(5))]);
        assert!(board.is_done());
        let (latencies, unseen) = board.end(begun + Duration::from_millis(1_010), &schedule);
        assert_eq!(unseen, 1);
        assert_eq!(latencies.all(), [Duration::from_millis(5), Duration::from_secs(1)]);
    }

    #[test]
    fn what_is_steady_is_the_windows_second_half() {
        let sample =
            |at| Sample { at: Duration::from_secs(at), deliveries: 0, pushes: 0, waiting: 0 };
        let samples = [0, 5, 7, 10, 15].map(sample);
        let half = |samples: &[Sample]| {
            let (first, last) = second_half(samples, Duration::from_secs(10))?;
            Some((first.at.as_secs(), last.at.as_secs()))
        };
        assert_eq!((half(&samples), half(&samples[..2])), (Some((5, 10)), None));
    }
}
