//! What is settled: so old that all there will ever be of it has reached every timeline.
//!
//! ```text
//!  now, less 75 s ──► the ends of the log ──► all of it delivered? ──► settled up to there
//! ```

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

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

    /// Finds out again and again, until it is told to stop.
    pub async fn run<L: EventLog>(
        self: Arc<Self>,
        log: Arc<L>,
        progress: Arc<Progress>,
        unix_ms: impl Fn() -> u64 + Send + Sync,
        stop: CancellationToken,
    ) {
        let settle = async {
            let mut is_failing = false;
            loop {
                let settled = self.settle(&*log, &progress, unix_ms()).await;
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

    /// Waits until all that is in the log now is delivered: then what was made long enough
    /// before is settled.
    pub(crate) async fn settle(
        &self,
        log: &impl EventLog,
        progress: &Progress,
        unix_ms: u64,
    ) -> Result<(), LogError> {
        let made_before = unix_ms.saturating_sub(self.after.as_millis() as u64);
        progress.wait_all_delivered(&log.ends().await?).await;
        let settled = PostId::first_of(made_before).0;
        self.up_to.fetch_max(settled, Ordering::AcqRel);
        Ok(())
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
        let mut settle = Box::pin(settled.settle(&log, &progress, NOW_MS));
        assert!(settle.as_mut().now_or_never().is_none());
        assert_eq!(settled.up_to(), PostId(0));
        progress.advance(0, delivered(1));
        assert!(settle.as_mut().now_or_never().is_some_and(|settled| settled.is_ok()));
        assert_eq!(settled.up_to(), PostId::first_of(NOW_MS - 75_000));
        let earlier = settled.settle(&log, &progress, NOW_MS - 1).now_or_never();
        assert!(earlier.is_some_and(|settled| settled.is_ok()));
        assert_eq!(settled.up_to(), PostId::first_of(NOW_MS - 75_000), "it never goes back");
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
        let run = Arc::clone(&settled).run(Arc::clone(&log), progress, || NOW_MS, stop.clone());
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
