//! Which posts refer to others.

use std::sync::Arc;

use super::{EmbeddedStore, Inner};
use crate::{
    domain::PostId,
    store::{REFERRERS_COUNTED_MAX, ReferrerKind, Referrers, StoreError},
};

/// Pieces of counting that walk the disk at once: there is room left for everybody else on
/// the threads for blocking calls.
pub(super) const COUNTS_AT_ONCE: usize = 4;
/// Posts whose referrers are counted in one piece, since nothing stops a thread. Who counts
/// waits for its turn again after each, and walks no further once its client has gone.
const PIECE_POSTS_MAX: usize = 8;

impl Referrers for EmbeddedStore {
    async fn referrers(
        &self,
        post: PostId,
        kind: ReferrerKind,
        after: Option<PostId>,
        count_max: usize,
    ) -> Result<Vec<PostId>, StoreError> {
        self.run_blocking(move |inner| inner.disk.get()?.referrers(post, kind, after, count_max))
            .await
    }

    async fn count_referrers(
        &self,
        posts: &[PostId],
        kind: ReferrerKind,
    ) -> Result<Vec<u64>, StoreError> {
        let mut counts = Vec::with_capacity(posts.len());
        for piece in posts.chunks(PIECE_POSTS_MAX) {
            let piece = piece.to_vec();
            // Nobody closes it, and the thread has it until it has ended.
            let turn = Arc::clone(&self.counting).acquire_owned().await;
            let count = move |inner: &Inner| {
                let _turn = turn;
                inner.count_referrers(&piece, kind)
            };
            counts.extend(self.run_blocking(count).await?);
        }
        Ok(counts)
    }
}

impl Inner {
    fn count_referrers(
        &self,
        posts: &[PostId],
        kind: ReferrerKind,
    ) -> Result<Vec<u64>, StoreError> {
        let count =
            |post: &PostId| self.disk.get()?.count_referrers(*post, kind, REFERRERS_COUNTED_MAX);
        posts.iter().map(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::poll;
    use tokio::time::timeout;

    use super::*;
    use crate::{
        domain::{Event, Post, Reference, UserId},
        store::{Ledger, embedded::Settings},
    };

    const AUTHOR: UserId = UserId(1);

    #[tokio::test]
    async fn counting_takes_turns_and_ends_with_whoever_wants_to_know() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(dir.path(), Settings::default()).unwrap();
        let published = |post| Event::PostPublished { post, request_id: None };
        let answered = Reference { post: PostId(1), author: AUTHOR };
        let posts = (1..=4).map(|id| Post::plain(PostId(id), AUTHOR));
        let events = posts.map(|post| match post.id {
            PostId(1) => published(post),
            _ => published(Post { reply_to: Some(answered), ..post }),
        });
        store.apply(0, 0, events.collect()).await.unwrap();
        let ids: Vec<PostId> = (1..=3 * PIECE_POSTS_MAX as u64).map(PostId).collect();
        let whole = store.count_referrers(&ids, ReferrerKind::Reply).await.unwrap();
        assert_eq!((whole.len(), whole[0], whole.iter().sum::<u64>()), (ids.len(), 3, 3));

        let mut all = store.counting.acquire_many(COUNTS_AT_ONCE as u32).await.unwrap();
        let mut counting = Box::pin(store.count_referrers(&ids, ReferrerKind::Reply));
        assert!(poll!(&mut counting).is_pending());
        let mut behind = Box::pin(store.counting.acquire());
        assert!(poll!(&mut behind).is_pending());
        // The first piece has the one turn that there is, and the next one comes behind whoever
        // has waited meanwhile.
        drop(all.split(1));
        let turn = async {
            tokio::select! {
                turn = &mut behind => turn.unwrap(),
                _ = &mut counting => panic!("it has waited for no second turn"),
            }
        };
        let turn = timeout(Duration::from_secs(60), turn).await.expect("a turn");
        assert_eq!(store.counting.available_permits(), 0);
        // As if its client had gone: nobody counts any more.
        drop((turn, counting));
        assert_eq!(store.counting.available_permits(), 1);
        drop(all);
    }
}
