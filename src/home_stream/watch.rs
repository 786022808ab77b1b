//! Which of the timelines that are followed have changed, and which posts are settled.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch::{Receiver, Sender};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{PostId, UserId},
    event_log::{EventLog, LogError},
    fanout::Progress,
    store::{HomeEnd, Homes, Lookups, StoreError},
};

/// How often the ends of timelines are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Timelines that are looked at together.
const LOOKED_AT_MAX: usize = 1_000;
/// After so long a post has come into the log, or never will: longer than a publish may wait
/// for room, for the posts that it refers to, for what its request made before and for Kafka,
/// 45 s together, and than the clocks of two servers should differ.
pub const SETTLED_AFTER_DEFAULT: Duration = Duration::from_secs(75);
/// How often it is found out what is settled.
const SETTLE_EVERY: Duration = Duration::from_secs(1);

/// Watches the timelines that are followed in this process.
pub struct Watch<S: Homes> {
    store: Arc<S>,
    readers: Mutex<HashMap<S::Account, Watched>>,
    settled: AtomicU64,
    settled_after: Duration,
}

struct Watched {
    /// As it was seen last.
    end: Option<HomeEnd>,
    changed: Sender<()>,
}

impl<S: Homes + Lookups> Watch<S> {
    /// Watches nothing yet. A post that was made so long ago is in the log, or never will be.
    pub fn new(store: Arc<S>, settled_after: Duration) -> Self {
        Self { store, readers: Mutex::default(), settled: AtomicU64::new(0), settled_after }
    }

    /// Up to this id every post that there will be has reached every timeline.
    pub(crate) fn settled(&self) -> PostId {
        PostId(self.settled.load(Ordering::Acquire))
    }

    /// Hears of every change of an account's timeline; `None` if no event has named it.
    pub(super) async fn subscribe(&self, user: UserId) -> Result<Option<Receiver<()>>, StoreError> {
        let Some(reader) = self.store.account(user).await? else { return Ok(None) };
        let mut readers = self.lock();
        let watched = readers
            .entry(reader)
            .or_insert_with(|| Watched { end: None, changed: Sender::new(()) });
        Ok(Some(watched.changed.subscribe()))
    }

    /// Watches until it is told to stop.
    pub async fn run<L: EventLog>(
        &self,
        log: Arc<L>,
        progress: Arc<Progress>,
        unix_ms: impl Fn() -> u64 + Send + Sync,
        stop: CancellationToken,
    ) {
        let look = async {
            let mut pulled = Vec::new();
            loop {
                // What fails here fails in the streams too, which tell of it.
                let _ = self.look().await;
                let _ = self.look_at_pulled(&mut pulled).await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let settle = async {
            loop {
                let _ = self.settle(&*log, &progress, unix_ms()).await;
                tokio::time::sleep(SETTLE_EVERY).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = look => {}
            () = settle => {}
        }
    }

    /// Tells those who follow a timeline that has another end than before.
    async fn look(&self) -> Result<(), StoreError> {
        let mut watched: Vec<S::Account> = {
            let mut readers = self.lock();
            readers.retain(|_, watched| watched.changed.receiver_count() > 0);
            readers.keys().copied().collect()
        };
        watched.sort_unstable();
        let mut failed = Ok(());
        for piece in watched.chunks(LOOKED_AT_MAX) {
            let ends = match self.store.ends(piece).await {
                Ok(ends) => ends,
                // Others may be elsewhere.
                Err(error) => {
                    failed = Err(error);
                    continue;
                }
            };
            let mut readers = self.lock();
            for (reader, end) in piece.iter().zip(ends) {
                let Some(watched) = readers.get_mut(reader) else { continue };
                if watched.end.replace(end) != Some(end) {
                    watched.changed.send_replace(());
                }
            }
        }
        failed
    }

    /// Tells everybody when an author has posted who is pulled, and so changes no end.
    async fn look_at_pulled(&self, last: &mut Vec<Vec<PostId>>) -> Result<(), StoreError> {
        let authors = self.store.pulled();
        if authors.is_empty() || self.lock().is_empty() {
            return Ok(());
        }
        let newest = self.store.older_of(&authors, PostId(u64::MAX), 1).await?;
        if newest != *last {
            *last = newest;
            self.lock().values().for_each(|watched| watched.changed.send_replace(()));
        }
        Ok(())
    }

    /// Waits until all that is in the log now is delivered: then what was made long enough
    /// before is settled.
    pub(crate) async fn settle(
        &self,
        log: &impl EventLog,
        progress: &Progress,
        unix_ms: u64,
    ) -> Result<(), LogError> {
        let made_before = unix_ms.saturating_sub(self.settled_after.as_millis() as u64);
        for (partition, end) in (0..).zip(log.ends().await?) {
            progress.wait_delivered(partition, end).await;
        }
        let settled = PostId::first_of(made_before).0;
        self.settled.fetch_max(settled, Ordering::AcqRel);
        Ok(())
    }

    /// The map is whole even after a panic: it is changed by single calls only.
    fn lock(&self) -> MutexGuard<'_, HashMap<S::Account, Watched>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
