//! Looks every second whether the clock can be right, and says so where it cannot: in the
//! log, in `/readyz` and in a metric.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    domain::PostId,
    post_id::{IdError, PostIds, clock::span},
    telemetry::{Readiness, WriteMetrics},
    writes::Clock,
};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Ids may be ahead by so much without a word: servers' clocks differ, and are set.
const AHEAD_UNSAID: Duration = Duration::from_secs(60);
/// By how much the clocks of two servers may differ, which streams allow for.
const DIFFERS_UNSAID: Duration = Duration::from_secs(20);
/// What the warning is called in `/readyz`.
const WARNING: &str = "clock";

/// What is wrong with the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Finding {
    /// Nothing is published.
    Refused(IdError),
    /// Posts are dated later than they are made.
    Ahead(Duration),
    /// Posts are dated 2020.
    BeforeEpoch,
    /// The clock is so many milliseconds ahead of that of Redis, or behind it.
    DiffersFromStore(i64),
}

impl Finding {
    fn of(ids: &PostIds, unix_ms: u64) -> Option<Self> {
        if let Err(error) = ids.check_clock(unix_ms) {
            return Some(Self::Refused(error));
        }
        let (ahead, from_store_ms) = (ids.ahead_of(unix_ms), ids.ahead_of_store_ms());
        match unix_ms {
            ..PostId::EPOCH_UNIX_MS => Some(Self::BeforeEpoch),
            _ if ahead > AHEAD_UNSAID => Some(Self::Ahead(ahead)),
            _ if u128::from(from_store_ms.unsigned_abs()) > DIFFERS_UNSAID.as_millis() => {
                Some(Self::DiffersFromStore(from_store_ms))
            }
            _ => None,
        }
    }

    /// Whether it is the same, but for how much it is.
    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    fn words(&self) -> String {
        match self {
            Self::Refused(error) => error.to_string(),
            Self::Ahead(ahead) => format!(
                "the newest post is dated {} after the clock of this server, and new posts are \
                 dated after it until time has caught up: if the clock is behind, set it right",
                span(*ahead)
            ),
            Self::BeforeEpoch => "the clock of this server stands before 2020: posts are dated \
                                  2020 until it is set right"
                .to_owned(),
            Self::DiffersFromStore(ms) => {
                let way = if *ms > 0 { "ahead of" } else { "behind" };
                format!(
                    "the clock of this server is {} {way} that of Redis: set the wrong one right",
                    span(Duration::from_millis(ms.unsigned_abs()))
                )
            }
        }
    }
}

/// Watches until `stop` is cancelled.
pub(super) async fn watch(
    ids: Arc<PostIds>,
    clock: Clock,
    metrics: Arc<WriteMetrics>,
    readiness: Readiness,
    stop: CancellationToken,
) {
    let mut said: Option<Finding> = None;
    loop {
        let unix_ms = clock.unix_ms();
        metrics.ids_ahead_seconds.set(ids.ahead_of(unix_ms).as_secs_f64());
        let found = Finding::of(&ids, unix_ms);
        readiness.set_warning(WARNING, found.as_ref().map(Finding::words));
        match (&found, &said) {
            (Some(found), Some(said)) if found.is_like(said) => {}
            (Some(found), _) => tracing::warn!("{}", found.words()),
            (None, Some(_)) => tracing::info!("the clock and the newest post agree again"),
            (None, None) => {}
        }
        said = found;
        if stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::post_id::CLOCK_JUMP_MAX_DEFAULT;

    const TODAY: u64 = PostId::EPOCH_UNIX_MS + 200_000_000_000;

    fn found(newest_unix_ms: u64, unix_ms: u64) -> String {
        let ids = PostIds::new(0, Some(PostId::first_of(newest_unix_ms)));
        let ids = ids.with_clock_jump_max(CLOCK_JUMP_MAX_DEFAULT);
        Finding::of(&ids, unix_ms).map_or(String::new(), |found| found.words())
    }

    #[test]
    fn wrong_clocks_are_found_and_small_differences_are_not() {
        assert_eq!(found(TODAY + 59_000, TODAY), "");
        let ahead = found(TODAY + 3 * 86_400_000, TODAY);
        assert!(ahead.contains("dated 3 d 0 h after the clock"), "{ahead}");
        let refused = found(TODAY + 30 * 86_400_000, TODAY);
        assert!(refused.contains("nothing is published"), "{refused}");
        let ids = PostIds::new(0, None);
        ids.compare_clocks(TODAY, TODAY + 20_000);
        assert_eq!(Finding::of(&ids, TODAY), None);
        ids.compare_clocks(TODAY, TODAY - 3_600_000);
        let differs = Finding::of(&ids, TODAY).expect("a finding").words();
        assert!(differs.contains("1 h 0 min ahead of that of Redis"), "{differs}");
        let unset = found(PostId::EPOCH_UNIX_MS, 5);
        assert!(unset.contains("stands before 2020"), "{unset}");
    }

    #[tokio::test(start_paused = true)]
    async fn warning_shows_in_readiness_until_clock_is_right() {
        use std::sync::atomic::{AtomicU64, Ordering};

        let ids = Arc::new(PostIds::new(0, Some(PostId::first_of(TODAY + 3_600_000))));
        let now = Arc::new(AtomicU64::new(TODAY));
        let clock = Clock::new({
            let now = Arc::clone(&now);
            move || now.load(Ordering::Relaxed)
        });
        let (readiness, stop) = (Readiness::not_yet(""), CancellationToken::new());
        let metrics = Arc::new(WriteMetrics::default());
        let watching = watch(ids, clock, Arc::clone(&metrics), readiness.clone(), stop.clone());
        let watching = tokio::spawn(watching);
        tokio::time::sleep(LOOK_EVERY / 2).await;
        assert!(readiness.warnings()[0].contains("1 h 0 min"), "{:?}", readiness.warnings());
        assert_eq!(metrics.ids_ahead_seconds.get(), 3_600.0);
        now.store(TODAY + 3_600_000, Ordering::Relaxed);
        tokio::time::sleep(LOOK_EVERY).await;
        assert!(readiness.warnings().is_empty());
        stop.cancel();
        watching.await.unwrap();
    }
}
