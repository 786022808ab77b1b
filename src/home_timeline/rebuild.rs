//! Making a home timeline live.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{HomeTimelines, Inner, REBUILD_FOLLOWEES_MAX, ReadError, merge::Merge};
use crate::store::{Homes, Lookups, NewestPosts, StoreError};

/// How often a rebuild begins again before it gives up.
const ATTEMPTS_MAX: usize = 100;

/// Whose rebuild is under way, and who waits for it.
pub(super) type Rebuilds<A> = Mutex<HashMap<A, Arc<Notify>>>;

impl<S: Homes + Lookups> HomeTimelines<S> {
    /// What a rebuild of a timeline would read now; none if its reader follows too many to
    /// ask all of them by the way.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn pulled(&self, reader: S::Account) -> Result<Option<NewestPosts>, StoreError> {
        let Some(authors) = self.inner.few_authors(reader).await? else { return Ok(None) };
        // The semaphore is never closed.
        let _permit = self.inner.at_work.acquire().await;
        self.inner.newest_of(&authors).await.map(Some)
    }

    /// Rebuilds a timeline, live or not, or waits for the rebuild that is under way. Once
    /// begun, it goes on to its end even if the client has gone: a client without patience
    /// would otherwise never find its timeline live.
    ///
    /// # Errors
    /// If it cannot be rebuilt.
    pub async fn rebuild(&self, reader: S::Account) -> Result<(), ReadError> {
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
        match tokio::spawn(async move { leader.rebuild().await }).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(StoreError::Closed.into()),
        }
    }
}

impl<S: Homes + Lookups> Inner<S> {
    /// The newest posts of all these authors together.
    async fn newest_of(&self, authors: &[S::Account]) -> Result<NewestPosts, StoreError> {
        let mut merge = Merge::new(self.store.entries_max());
        for authors in authors.chunks(REBUILD_FOLLOWEES_MAX) {
            merge.add(self.store.newest_of(authors).await?);
            // A store in memory would let nobody else go on before the last one.
            tokio::task::yield_now().await;
        }
        Ok(merge.finish())
    }
}

/// Whoever does a rebuild; those who wait go on when it is dropped.
struct Leader<S: Homes> {
    inner: Arc<Inner<S>>,
    reader: S::Account,
}

impl<S: Homes + Lookups> Leader<S> {
    async fn rebuild(&self) -> Result<(), ReadError> {
        // The semaphore is never closed.
        let _permit = self.inner.at_work.acquire().await;
        for _ in 0..ATTEMPTS_MAX {
            if self.try_rebuild().await? {
                return Ok(());
            }
        }
        Err(ReadError::Busy)
    }

    async fn try_rebuild(&self) -> Result<bool, StoreError> {
        let store = &self.inner.store;
        let ticket = store.begin_rebuild(self.reader).await?;
        let authors = self.inner.authors(self.reader).await?;
        let posts = self.inner.newest_of(&authors).await?;
        store.finish_rebuild(self.reader, ticket, posts).await
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
