//! Making a home timeline live.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{
    HomeTimelines, Inner, ReadError,
    merge::{Merge, first_count, next_count},
};
use crate::store::{Homes, Lookups, NewestPosts, StoreError};

/// How often a rebuild begins again before it gives up.
const ATTEMPTS_MAX: usize = 100;
/// Ids that a rebuild has in hand at once, about, beside those that it keeps.
const REBUILD_IDS_MAX: usize = 60_000;
/// Followees that are asked at once.
const REBUILD_FOLLOWEES_MAX: usize = 1_000;

/// Whose rebuild is under way, and who waits for it.
pub(super) type Rebuilds<A> = Mutex<HashMap<A, Arc<Notify>>>;

impl<S: Homes + Lookups> HomeTimelines<S> {
    /// What a rebuild of a timeline would read now; none if its reader follows too many to
    /// ask all of them by the way.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn recomputed(&self, reader: S::Account) -> Result<Option<NewestPosts>, StoreError> {
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
        let entries_max = self.store.entries_max();
        let mut merge = Merge::new(entries_max);
        let (mut asked, mut count) =
            (Cow::Borrowed(authors), first_count(authors.len(), entries_max));
        loop {
            let authors_max = (REBUILD_IDS_MAX / count).clamp(1, REBUILD_FOLLOWEES_MAX);
            for authors in asked.chunks(authors_max) {
                merge.add(authors, self.store.newest_of(authors, count).await?);
                // A store in memory would let nobody else go on before the last one.
                tokio::task::yield_now().await;
            }
            let Some(next) = next_count(count, entries_max) else { return Ok(merge.finish()) };
            asked = Cow::Owned(merge.take_unfinished());
            if asked.is_empty() {
                return Ok(merge.finish());
            }
            count = next;
        }
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

#[cfg(test)]
mod tests {
    use futures::future;

    use super::*;
    use crate::{
        domain::{Event, Post, PostId, UserId},
        home_timeline::Filter,
        store::{Accounts, Ledger, embedded::EmbeddedStore},
    };

    const READER: UserId = UserId(1);

    #[tokio::test]
    async fn of_many_who_ask_at_once_one_rebuilds() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(dir.path(), Default::default()).unwrap();
        let events = [
            Event::Followed { followee: UserId(2), followers: vec![READER] },
            Event::PostPublished { post: Post::plain(PostId(10), UserId(2)), request_id: None },
        ];
        store.resume(0, 0).await.unwrap();
        store.apply(0, 0, events.into()).await.unwrap();
        let store = Arc::new(store);
        let homes = HomeTimelines::new(Arc::clone(&store));
        let filter = Filter::default();
        let reads = (0..50).map(|_| homes.read(READER, &filter, None, 10));
        for page in future::join_all(reads).await {
            assert_eq!(page.unwrap().ids, [PostId(10)]);
        }
        let reader = store.account(READER).await.unwrap().unwrap();
        let before = store.begin_rebuild(reader).await.unwrap();
        assert_eq!(before.0, 2, "the next one is the second");
    }
}
