//! The newest posts of authors who are pulled, for whom many reads ask.
//!
//! What was read of an author is good until this process hears of any event: of one that it
//! has applied itself, or in the marks of one that another has. So whoever knows here that
//! a post is applied reads it, and however many ask in between ask Redis once. A deletion
//! that another process has acknowledged is found among the deleted.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use quick_cache::sync::Cache;

use crate::{
    domain::{PostId, UserId},
    store::{PULLED_MAX, Resume, StoreError},
};

/// Ids that are kept of an author; a page of more, or far below, is asked for.
pub(super) const KEPT: usize = 256;
/// Of lists that are read at this moment a few are being replaced.
const LISTS_MAX: usize = 2 * PULLED_MAX;

#[derive(Debug)]
pub(super) struct HotAuthors {
    /// Another number after every event that this process hears of.
    heard: AtomicU64,
    marks: Mutex<Vec<Resume>>,
    /// By author and that number.
    lists: Cache<(UserId, u64), Arc<[PostId]>>,
}

impl Default for HotAuthors {
    fn default() -> Self {
        Self { heard: AtomicU64::default(), marks: Mutex::default(), lists: Cache::new(LISTS_MAX) }
    }
}

impl HotAuthors {
    /// This process has applied events, or has come across what is no longer so.
    pub(super) fn forget(&self) {
        self.heard.fetch_add(1, Ordering::AcqRel);
    }

    /// Other processes have come so far; to be told before anybody acts on it.
    pub(super) fn come(&self, marks: &[Resume]) {
        // Whole even after a panic: it is changed by single calls only.
        let mut last = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != marks {
            *last = marks.to_vec();
            self.forget();
        }
    }

    /// Up to `count_max` posts of an author older than `before`, newest first; none if they
    /// are not among those that are kept. `newest` asks for the newest [`KEPT`].
    pub(super) async fn older(
        &self,
        author: UserId,
        before: PostId,
        count_max: usize,
        newest: impl Future<Output = Result<Vec<PostId>, StoreError>>,
    ) -> Result<Option<Vec<PostId>>, StoreError> {
        let heard = self.heard.load(Ordering::Acquire);
        let newest = async { Ok::<_, StoreError>(newest.await?.into()) };
        let ids = self.lists.get_or_insert_async(&(author, heard), newest).await?;
        Ok(older_among(&ids, before, count_max))
    }
}

/// The same among the newest [`KEPT`].
fn older_among(newest: &[PostId], before: PostId, count_max: usize) -> Option<Vec<PostId>> {
    let older = &newest[newest.partition_point(|id| *id >= before)..];
    let is_all = older.len() >= count_max || newest.len() < KEPT;
    is_all.then(|| older[..older.len().min(count_max)].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(count: u64) -> Vec<PostId> {
        (1..=count).rev().map(PostId).collect()
    }

    async fn ask(hot: &HotAuthors, there: Vec<PostId>) -> Option<Vec<PostId>> {
        hot.older(UserId(1), PostId(u64::MAX), 2, async { Ok(there) }).await.unwrap()
    }

    #[tokio::test]
    async fn what_was_read_is_good_until_an_event_is_heard_of() {
        let hot = HotAuthors::default();
        assert_eq!(ask(&hot, newest(1)).await, Some(newest(1)));
        assert_eq!(ask(&hot, newest(2)).await, Some(newest(1)));
        hot.forget();
        assert_eq!(ask(&hot, newest(2)).await, Some(newest(2)));
        let marks = [Resume { applied: 7, ..Resume::default() }];
        hot.come(&marks);
        assert_eq!(ask(&hot, newest(1)).await, Some(newest(1)));
        hot.come(&marks);
        assert_eq!(ask(&hot, newest(2)).await, Some(newest(1)), "they say nothing new");
    }

    #[test]
    fn what_lies_below_those_that_are_kept_is_asked_for() {
        let all = newest(KEPT as u64);
        assert_eq!(older_among(&all, PostId(3), 2), Some(newest(2)));
        assert_eq!(older_among(&all, PostId(3), 3), None);
        let few = newest(5);
        assert_eq!(older_among(&few, PostId(3), 3), Some(newest(2)));
        assert_eq!(older_among(&few, PostId(1), 3), Some(vec![]));
    }
}
