//! Reading home timelines.
//!
//! ```text
//!  read ──► live? ──► page
//!             │ no: asleep, or some of what it held was taken away
//!             ▼
//!           rebuild: announce ──► read followees, their newest posts ──► merge ──► live
//! ```
//!
//! The announcement comes first, see [`store`](crate::store): a post that the
//! rebuild reads too early to see is pushed, one that it sees too is there once,
//! and one that is taken away meanwhile is left out.

pub mod merge;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, Semaphore};

use self::merge::Merge;
use crate::{
    domain::{PostId, UserId},
    store::{Floor, HomePage, HomeRead, Homes, Lookups, StoreError},
};

/// How often a rebuild begins again before it gives up.
const REBUILD_ATTEMPTS_MAX: usize = 100;
/// How often a read that finds the timeline gone again asks for a rebuild.
const READ_ATTEMPTS_MAX: usize = 10;
/// Rebuilds at work at once, each with a few megabytes in hand at the most.
const REBUILDS_MAX: usize = 64;
/// Followees whose posts are in hand at once.
const REBUILD_FOLLOWEES_MAX: usize = 64;

/// Reads home timelines, and rebuilds those that sleep: one rebuild at a time for
/// each reader, however many ask.
pub struct HomeTimelines<S: Homes> {
    inner: Arc<Inner<S>>,
}

struct Inner<S: Homes> {
    store: Arc<S>,
    rebuilds: Rebuilds<S::Account>,
    /// One permit for each rebuild at work; the others wait.
    at_work: Semaphore,
}

/// Whose rebuild is under way, and who waits for it.
type Rebuilds<A> = Mutex<HashMap<A, Arc<Notify>>>;

/// Why a home timeline cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What the reader follows changes faster than it can be read.
    #[error("the timeline of {user} changes too fast to be rebuilt; try again")]
    Busy {
        /// Whose timeline.
        user: UserId,
    },
}

impl<S: Homes + Lookups> HomeTimelines<S> {
    /// Reads from this store.
    pub fn new(store: Arc<S>) -> Self {
        let at_work = Semaphore::new(REBUILDS_MAX);
        Self { inner: Arc::new(Inner { store, rebuilds: Mutex::default(), at_work }) }
    }

    /// Reads up to `count_max` posts older than `before` (or the newest), newest
    /// first. An account that no event has named has an empty timeline.
    pub async fn read(
        &self,
        user: UserId,
        before: Option<PostId>,
        count_max: usize,
    ) -> Result<HomePage, ReadError> {
        let store = &self.inner.store;
        let Some(reader) = store.account(user).await? else {
            return Ok(HomePage { ids: Vec::new(), more: false, floor: Floor::Beginning });
        };
        for _ in 0..READ_ATTEMPTS_MAX {
            match store.page(reader, before, count_max).await? {
                HomeRead::Page(page) => return Ok(page),
                HomeRead::Asleep => self.rebuild(user, reader).await?,
            }
        }
        Err(ReadError::Busy { user })
    }

    /// Rebuilds a timeline, or waits for the rebuild that is under way. Once begun,
    /// it goes on to its end even if the client has gone: a client without patience
    /// would otherwise never find its timeline live.
    async fn rebuild(&self, user: UserId, reader: S::Account) -> Result<(), ReadError> {
        let under_way = match lock(&self.inner.rebuilds).entry(reader) {
            // Under the lock, so that the leader is still to say that it is done.
            Entry::Occupied(entry) => Some(Arc::clone(entry.get()).notified_owned()),
            Entry::Vacant(entry) => {
                entry.insert(Arc::default());
                None
            }
        };
        if let Some(under_way) = under_way {
            under_way.await;
            return Ok(());
        }
        let leader = Leader { inner: Arc::clone(&self.inner), reader };
        match tokio::spawn(async move { leader.rebuild(user).await }).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(StoreError::Closed.into()),
        }
    }
}

/// Whoever does a rebuild; those who wait go on when it is dropped.
struct Leader<S: Homes> {
    inner: Arc<Inner<S>>,
    reader: S::Account,
}

impl<S: Homes + Lookups> Leader<S> {
    async fn rebuild(&self, user: UserId) -> Result<(), ReadError> {
        // The semaphore is never closed.
        let _permit = self.inner.at_work.acquire().await;
        for _ in 0..REBUILD_ATTEMPTS_MAX {
            if self.try_rebuild().await? {
                return Ok(());
            }
        }
        Err(ReadError::Busy { user })
    }

    async fn try_rebuild(&self) -> Result<bool, StoreError> {
        let store = &self.inner.store;
        let ticket = store.begin_rebuild(self.reader).await?;
        let mut authors = store.following(self.reader).await?;
        authors.push(self.reader);
        let mut merge = Merge::new(store.entries_max());
        for authors in authors.chunks(REBUILD_FOLLOWEES_MAX) {
            merge.add(store.newest_of(authors).await?);
            // A store in memory would let nobody else go on before the last one.
            tokio::task::yield_now().await;
        }
        store.finish_rebuild(self.reader, ticket, merge.finish()).await
    }
}

impl<S: Homes> Drop for Leader<S> {
    fn drop(&mut self) {
        if let Some(finished) = lock(&self.inner.rebuilds).remove(&self.reader) {
            finished.notify_waiters();
        }
    }
}

/// The map is whole even after a panic: it is changed by single calls only.
fn lock<A>(rebuilds: &Rebuilds<A>) -> MutexGuard<'_, HashMap<A, Arc<Notify>>> {
    rebuilds.lock().unwrap_or_else(PoisonError::into_inner)
}
