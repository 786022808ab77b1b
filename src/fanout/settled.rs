//! What is settled: so old that all there will ever be of it has reached every timeline.
//!
//! ```text
//!  every second: above which id are new ones? ──► 75 s later ──► the ends of the log
//!                             settled up to that id ◄── all of it delivered? ◄──┘
//! ```
//!
//! The 75 seconds are waited for, and not subtracted from the time of day. Where one process gives
//! out all ids, it knows above which the next ones are, whatever any clock says or has said. Where
//! there are many, it is what the clock says, the least of all that it has said meanwhile.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Progress;
use crate::{
    domain::PostId,
    event_log::{EventLog, LogError},
};

/// After so long a post has come into the log, or never will: longer than a publish may wait
/// for room, for the posts that it refers to, for what its request made before and for Kafka,
/// 45 s together, and than the clocks of two servers should differ.
pub const SETTLED_AFTER_DEFAULT: Duration = Duration::from_secs(75);
/// How often it is found out what is settled.
const SETTLE_EVERY: Duration = Duration::from_secs(1);

/// Up to which post all is settled, as far as it was found out.
#[derive(Debug)]
pub struct Settled {
    up_to: AtomicU64,
    after: Duration,
}

impl Settled {
    /// Nothing is yet. A post that was made so long ago is in the log, or never will be.
    pub fn new(after: Duration) -> Self {
        Self { up_to: AtomicU64::new(0), after }
    }

    /// Up to this id every post that there will be has reached every timeline.
    pub fn up_to(&self) -> PostId {
        PostId(self.up_to.load(Ordering::Acquire))
    }

    /// Finds out again and again, until it is told to stop. Posts up to `at_start` are in the
    /// log by now, or never will be. `new_above` says above which id those are that are given
    /// out from now on.
    pub async fn run<L: EventLog>(
        self: Arc<Self>,
        log: Arc<L>,
        progress: Arc<Progress>,
        at_start: PostId,
        new_above: impl Fn() -> PostId + Send + Sync,
        stop: CancellationToken,
    ) {
        let settle = async {
            let mut is_failing = false;
            let mut bounds = Bounds::new(at_start, Instant::now());
            loop {
                bounds.add(new_above(), Instant::now() + self.after);
                let up_to = bounds.due(Instant::now());
                let settled = self.settle_up_to(&*log, &progress, up_to).await;
                if let Err(error) = &settled
                    && !is_failing
                {
                    tracing::warn!(
                        %error,
                        "the ends of the event log cannot be read, and are asked for again every \
                         second; until then no newer posts count as settled: streams name more of \
                         what they have sent, and audits leave them out"
                    );
                }
                is_failing = settled.is_err();
                tokio::time::sleep(SETTLE_EVERY).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = settle => {}
        }
    }

    /// Where ids go by a clock that can be trusted: the id up to which they were given out long
    /// enough before this one.
    pub(crate) fn less_the_wait(&self, id: PostId) -> PostId {
        let wait = (self.after.as_millis() as u64) << PostId::NODE_AND_SEQUENCE_BITS;
        PostId(id.0.saturating_sub(wait))
    }

    /// Waits until all that is in the log now is delivered: then posts up to `up_to` are
    /// settled, which are in the log by now, or never will be.
    pub(crate) async fn settle_up_to(
        &self,
        log: &impl EventLog,
        progress: &Progress,
        up_to: PostId,
    ) -> Result<(), LogError> {
        progress.wait_all_delivered(&log.ends().await?).await;
        self.up_to.fetch_max(up_to.0, Ordering::AcqRel);
        Ok(())
    }
}

/// Bounds of ids, each with the time from which on posts up to it are in the log or never will
/// be. One is added a second at the most, so that there are as many as seconds are waited for.
struct Bounds(VecDeque<(Instant, PostId)>);

impl Bounds {
    fn new(first: PostId, now: Instant) -> Self {
        Self(VecDeque::from([(now, first)]))
    }

    fn add(&mut self, bound: PostId, due: Instant) {
        self.0.push_back((due, bound));
    }

    /// The bound that is due, or a lesser one that was added since: the clock was wrong then.
    fn due(&mut self, now: Instant) -> PostId {
        while self.0.get(1).is_some_and(|(due, _)| *due <= now) {
            self.0.pop_front();
        }
        self.0.iter().map(|(_, bound)| *bound).min().unwrap_or(PostId(0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use bytes::Bytes;
    use futures::FutureExt;
    use tokio::time::{sleep, timeout};
    use tracing::{Event, Level, Metadata, Subscriber, span};

    use super::*;
    use crate::{
        event_log::{Assignments, Record},
        fanout::Position,
    };

    const NOW_MS: u64 = PostId::EPOCH_UNIX_MS + 100_000;

    /// A log of one event, that answers some questions for its end and not others.
    struct Log {
        asked: AtomicU64,
        answers: fn(u64) -> bool,
    }

    impl EventLog for Log {
        fn partitions(&self) -> u32 {
            1
        }

        async fn end(&self, _: u32) -> Result<u64, LogError> {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            if (self.answers)(asked) { Ok(1) } else { Err(LogError::Closed) }
        }

        async fn append(&self, _: u32, _: Vec<Bytes>) -> Result<Vec<u64>, LogError> {
            unreachable!()
        }

        async fn read(&self, _: u32, _: u64, _: usize) -> Result<Vec<Record>, LogError> {
            unreachable!()
        }

        async fn wait_past(&self, _: u32, _: u64) -> Result<(), LogError> {
            unreachable!()
        }

        async fn committed(&self, _: u32) -> Result<u64, LogError> {
            unreachable!()
        }

        async fn commit(&self, _: u32, _: u64) -> Result<(), LogError> {
            unreachable!()
        }

        async fn close(&self) {}

        fn join(&self) -> Assignments {
            Assignments::all(1)
        }
    }

    /// Counts the warnings of a thread.
    struct Warnings(Arc<AtomicUsize>);

    impl Subscriber for Warnings {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == Level::WARN
        }

        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    fn delivered(offset: u64) -> Position {
        Position { applied: offset, delivered: offset }
    }

    #[test]
    fn what_is_old_enough_is_settled_once_all_of_the_log_is_delivered() {
        let log = Log { asked: AtomicU64::new(0), answers: |_| true };
        let (progress, settled) = (Progress::new(1), Settled::new(Duration::from_secs(75)));
        let made_before = settled.less_the_wait(PostId::first_of(NOW_MS));
        assert_eq!(made_before, PostId::first_of(NOW_MS - 75_000));
        let mut settle = Box::pin(settled.settle_up_to(&log, &progress, made_before));
        assert!(settle.as_mut().now_or_never().is_none());
        assert_eq!(settled.up_to(), PostId(0));
        progress.advance(0, delivered(1));
        assert!(settle.as_mut().now_or_never().is_some_and(|settled| settled.is_ok()));
        assert_eq!(settled.up_to(), PostId::first_of(NOW_MS - 75_000));
        let made_before = settled.less_the_wait(PostId::first_of(NOW_MS - 1));
        let earlier = settled.settle_up_to(&log, &progress, made_before).now_or_never();
        assert!(earlier.is_some_and(|settled| settled.is_ok()));
        assert_eq!(settled.up_to(), PostId::first_of(NOW_MS - 75_000), "it never goes back");
    }

    #[test]
    fn bound_is_due_after_its_time_and_never_above_a_later_one() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut bounds = Bounds::new(PostId(10), begun);
        bounds.add(PostId(20), at(75));
        assert_eq!(bounds.due(at(74)), PostId(10));
        assert_eq!(bounds.due(at(75)), PostId(20));
        // The clock was an hour ahead for a moment.
        bounds.add(PostId(3_600), at(76));
        bounds.add(PostId(21), at(77));
        assert_eq!(bounds.due(at(76)), PostId(21));
        assert_eq!((bounds.due(at(77)), bounds.0.len()), (PostId(21), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn that_it_fails_is_said_once_each_time_and_it_goes_on() {
        let warnings = Arc::new(AtomicUsize::new(0));
        let _guard = tracing::subscriber::set_default(Warnings(Arc::clone(&warnings)));
        let answers = |asked: u64| matches!(asked, 3 | 7..);
        let log = Arc::new(Log { asked: AtomicU64::new(0), answers });
        let (progress, settled) = (Arc::new(Progress::new(1)), Settled::new(Duration::ZERO));
        progress.advance(0, delivered(1));
        let (settled, stop) = (Arc::new(settled), CancellationToken::new());
        let new_above = || PostId::first_of(NOW_MS);
        let at_start = PostId(0);
        let run =
            Arc::clone(&settled).run(Arc::clone(&log), progress, at_start, new_above, stop.clone());
        let run = tokio::spawn(run);
        let mut seen = Vec::new();
        for turn in [1, 3, 4, 7, 9] {
            let turned = async {
                while log.asked.load(Ordering::Relaxed) < turn {
                    sleep(SETTLE_EVERY / 10).await;
                }
            };
            timeout(SETTLE_EVERY * 60, turned).await.expect("it goes on");
            seen.push((warnings.load(Ordering::Relaxed), settled.up_to() > PostId(0)));
        }
        assert_eq!(seen, [(1, false), (1, false), (1, true), (2, true), (2, true)]);
        stop.cancel();
        run.await.unwrap();
    }
}
