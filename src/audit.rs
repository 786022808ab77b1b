//! The auditor: holds live home timelines against what they should be, one after the other.
//!
//! ```text
//!  some live timeline ──► as it is ─────────────┐
//!                    └──► as a rebuild makes it ─┴─► differ? ──► wait until all that is in
//!                                                                the log is delivered
//!                                   rebuilt, counted ◄── still ◄── both again ◄──┘
//! ```
//!
//! Only what is settled counts: a newer post may be on its way. What differs once may be a
//! follow that is under way; what still differs once everything is delivered that was in the
//! log by then was lost, or is too much.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::PostId,
    event_log::{EventLog, LogError},
    fanout::{Progress, Settled},
    home_timeline::{HomeTimelines, ReadError},
    store::{Floor, HomeRead, Store, StoreError},
    telemetry::{AuditMetrics, Kind},
};

/// How long an audit waits for what is under way.
const DELIVERED_WAIT_MAX: Duration = Duration::from_secs(30);
/// Ids of a timeline that are read at once.
const PAGE_LEN: usize = 1_000;

/// Looks after timelines.
pub struct Auditor<L, S: Store> {
    /// Says what is still to come.
    pub log: Arc<L>,
    /// Has the timelines.
    pub store: Arc<S>,
    /// Makes them anew.
    pub homes: Arc<HomeTimelines<S>>,
    /// Says how far the workers have come.
    pub progress: Arc<Progress>,
    /// Says what is settled.
    pub settled: Arc<Settled>,
    /// Where what is found is counted.
    pub metrics: Arc<AuditMetrics>,
}

/// What is wrong with a timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// Ids that should be there.
    pub missing: BTreeSet<PostId>,
    /// Ids that should not.
    pub extra: BTreeSet<PostId>,
    /// How many should be there, as far as was compared.
    pub compared: usize,
}

/// Why a turn has compared nothing. It is counted, lest the loss ratio of those that are seen
/// be taken for that of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skip {
    /// Nobody was come across who has a live timeline.
    Nobody,
    /// It sleeps.
    Asleep,
    /// Its reader follows too many to compare it.
    Follows,
}

/// Why a timeline could not be audited.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What may explain a difference is not delivered in time.
    #[error("the workers are behind")]
    Behind,
    /// It could not be rebuilt.
    #[error(transparent)]
    Rebuild(#[from] ReadError),
}

impl Finding {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty()
    }

    /// A timeline as it is beside as it should be, above `floor` and up to `settled`.
    fn of(
        is: &BTreeSet<PostId>,
        should: &BTreeSet<PostId>,
        floor: PostId,
        settled: PostId,
    ) -> Self {
        let counts = |id: &PostId| *id > floor && *id <= settled;
        let less = |one: &BTreeSet<PostId>, other: &BTreeSet<PostId>| {
            one.difference(other).copied().filter(counts).collect()
        };
        Self {
            missing: less(should, is),
            extra: less(is, should),
            compared: should.iter().filter(|id| counts(id)).count(),
        }
    }

    /// What is wrong both times.
    fn and(&self, other: &Self) -> Self {
        Self {
            missing: &self.missing & &other.missing,
            extra: &self.extra & &other.extra,
            compared: other.compared,
        }
    }
}

impl Skip {
    const ALL: [Self; 3] = [Self::Nobody, Self::Asleep, Self::Follows];

    fn kind(self) -> Kind {
        let kind = match self {
            Self::Nobody => "nobody",
            Self::Asleep => "asleep",
            Self::Follows => "follows",
        };
        Kind { kind }
    }
}

impl<L: EventLog, S: Store> Auditor<L, S> {
    /// Audits a timeline every so often, until it is told to stop.
    pub async fn run(self, every: Duration, stop: CancellationToken) {
        // They stand at 0 before the first, so that it is seen to be one more.
        for skip in Skip::ALL {
            drop(self.metrics.audit_skips.get_or_create(&skip.kind()));
        }
        let audits = async {
            loop {
                tokio::time::sleep(every).await;
                if let Err(error) = self.turn().await {
                    tracing::debug!(%error, "a timeline could not be audited");
                    self.metrics.audit_failures.inc();
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = audits => {}
        }
    }

    async fn turn(&self) -> Result<(), AuditError> {
        match self.store.some_live().await? {
            Some(reader) => self.audit(reader).await.map(drop),
            None => {
                self.skipped(Skip::Nobody);
                Ok(())
            }
        }
    }

    /// Audits a timeline, and makes it anew where something is wrong with it. `None`: it
    /// sleeps, or its reader follows too many to compare it, which is counted.
    ///
    /// # Errors
    /// If it could not be audited or rebuilt; then nothing is counted.
    pub async fn audit(&self, reader: S::Account) -> Result<Option<Finding>, AuditError> {
        let settled = self.settled.up_to();
        let Some(mut finding) = self.compare(reader, settled).await? else { return Ok(None) };
        if !finding.is_clean() {
            let ends = self.log.ends().await?;
            let delivered = self.progress.wait_all_delivered(&ends);
            timeout(DELIVERED_WAIT_MAX, delivered).await.map_err(|_| AuditError::Behind)?;
            let Some(again) = self.compare(reader, settled).await? else { return Ok(None) };
            finding = finding.and(&again);
        }
        if !finding.is_clean() {
            let (missing, extra) = (finding.missing.len(), finding.extra.len());
            tracing::warn!(
                reader = ?reader, missing, extra, compared = finding.compared,
                "a home timeline is not what it should be, and is made anew"
            );
            self.homes.rebuild(reader).await?;
        }
        let Finding { missing, extra, compared } = &finding;
        self.metrics.audited(*compared, missing.len(), extra.len());
        Ok(Some(finding))
    }

    async fn compare(
        &self,
        reader: S::Account,
        settled: PostId,
    ) -> Result<Option<Finding>, StoreError> {
        let (mut is, mut before) = (BTreeSet::new(), None);
        let floor = loop {
            let read = self.store.look_at_page(reader, before, PAGE_LEN).await?;
            let HomeRead::Page(page) = read else { return Ok(self.skipped(Skip::Asleep)) };
            before = page.ids.last().copied();
            is.extend(page.ids);
            if !page.more || before.is_none() {
                break match page.floor {
                    Floor::Beginning => PostId(0),
                    // The oldest itself is there.
                    Floor::Cap(oldest) | Floor::Followees(oldest) => PostId(oldest.0 - 1),
                };
            }
        };
        let Some(should) = self.homes.recomputed(reader).await? else {
            return Ok(self.skipped(Skip::Follows));
        };
        let floor = floor.max(should.floor.unwrap_or(PostId(0)));
        let mut should: BTreeSet<PostId> = should.ids.into_iter().collect();
        // Posts of authors who are pulled may be there, and need not, if the reader reads them.
        let pulled = self.store.read_among(reader, &self.store.pulled_authors()).await?;
        for posts in self.store.newest_of(&pulled, self.store.entries_max()).await? {
            for id in posts.ids {
                is.remove(&id);
                should.remove(&id);
            }
        }
        Ok(Some(Finding::of(&is, &should, floor, settled)))
    }

    /// Nothing is found, for this reason.
    fn skipped(&self, skip: Skip) -> Option<Finding> {
        self.metrics.audit_skips.get_or_create(&skip.kind()).inc();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Event, Post, UserId},
        event_log::embedded::{self, EmbeddedLog},
        fanout::combine,
        store::{
            Accounts, Homes, Ledger, NewestPosts,
            embedded::{EmbeddedStore, Settings},
        },
    };

    const READER: UserId = UserId(1);
    const AUTHOR: UserId = UserId(2);

    type Embedded = Auditor<EmbeddedLog, EmbeddedStore>;

    /// A reader who is awake, and follows an author of ten posts.
    async fn auditor(dir: &std::path::Path) -> (Embedded, u32) {
        let settings = embedded::Settings { partitions: Some(1), ..Default::default() };
        let log = Arc::new(EmbeddedLog::open(&dir.join("log"), settings).unwrap());
        let store = EmbeddedStore::open(&dir.join("store"), Settings::default()).unwrap();
        let store = Arc::new(store);
        let follow = Event::Followed { followee: AUTHOR, followers: vec![READER] };
        let posts = (1..=10).map(|id| Event::PostPublished {
            post: Post::plain(PostId(id), AUTHOR),
            request_id: None,
        });
        let events: Vec<Event> = [follow].into_iter().chain(posts).collect();
        store.apply(0, 0, events.into()).await.unwrap();
        let (progress, homes) =
            (Arc::new(Progress::new(1)), Arc::new(HomeTimelines::new(Arc::clone(&store))));
        let settled = Arc::new(Settled::new(Duration::ZERO));
        settled.settle_up_to(&*log, &progress, PostId(u64::MAX - 2)).await.unwrap();
        let reader = store.account(READER).await.unwrap().unwrap();
        assert!(homes.rebuild(reader).await.is_ok());
        (Auditor { log, store, homes, progress, settled, metrics: Arc::default() }, reader)
    }

    fn ids(ids: impl IntoIterator<Item = u64>) -> BTreeSet<PostId> {
        ids.into_iter().map(PostId).collect()
    }

    #[tokio::test]
    async fn what_is_lost_and_what_is_too_much_is_found_once_and_mended() {
        let dir = tempfile::tempdir().unwrap();
        let (auditor, reader) = auditor(dir.path()).await;
        let whole = Finding { compared: 10, ..Finding::default() };
        assert_eq!(auditor.audit(reader).await.unwrap(), Some(whole.clone()));
        auditor.store.remove(&[reader], PostId(4)).await.unwrap();
        let foreign = NewestPosts { ids: vec![PostId(77)], floor: None };
        auditor.store.merge(reader, &foreign).await.unwrap();
        let broken = Finding { missing: ids([4]), extra: ids([77]), compared: 10 };
        assert_eq!(auditor.audit(reader).await.unwrap(), Some(broken));
        assert_eq!(auditor.audit(reader).await.unwrap(), Some(whole));
        let metrics = &auditor.metrics;
        let counts = [
            metrics.audited_timelines.get(),
            metrics.audited_entries.get(),
            metrics.audit_missing_entries.get(),
            metrics.audit_extra_entries.get(),
            metrics.audit_repairs.get(),
        ];
        assert_eq!(counts, [3, 30, 1, 1, 1]);
        assert_eq!(metrics.audit_loss_ratio.get(), 1.0 / 30.0);
    }

    #[tokio::test]
    async fn who_sleeps_is_not_woken_and_what_is_on_its_way_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (auditor, reader) = auditor(dir.path()).await;
        let author = auditor.store.account(AUTHOR).await.unwrap().unwrap();
        assert_eq!(auditor.audit(author).await.unwrap(), None);
        // Not settled: a post that is pushed before it is in the author's timeline.
        let unsettled = PostId(u64::MAX - 1);
        auditor.store.push(&combine(vec![(reader, unsettled)])).await.unwrap();
        assert!(auditor.audit(reader).await.unwrap().unwrap().is_clean());
        assert_eq!(auditor.store.some_live().await.unwrap(), Some(reader));
    }

    #[tokio::test]
    async fn what_is_not_compared_is_counted_by_why() {
        let dir = tempfile::tempdir().unwrap();
        let (auditor, reader) = auditor(dir.path()).await;
        let skips =
            || Skip::ALL.map(|skip| auditor.metrics.audit_skips.get_or_create(&skip.kind()).get());
        let author = auditor.store.account(AUTHOR).await.unwrap().unwrap();
        assert_eq!(auditor.audit(author).await.unwrap(), None);
        assert_eq!(skips(), [0, 1, 0]);
        let follow =
            |followee| Event::Followed { followee: UserId(followee), followers: vec![READER] };
        auditor.store.apply(0, 11, (1_000..6_001).map(follow).collect()).await.unwrap();
        assert_eq!(auditor.audit(reader).await.unwrap(), None);
        assert_eq!(skips(), [0, 1, 1]);
        assert_eq!(auditor.metrics.audited_timelines.get(), 0);

        let empty = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(empty.path(), Settings::default()).unwrap();
        let auditor = Auditor { store: Arc::new(store), ..auditor };
        auditor.turn().await.unwrap();
        assert_eq!(auditor.metrics.audit_skips.get_or_create(&Skip::Nobody.kind()).get(), 1);
    }
}
