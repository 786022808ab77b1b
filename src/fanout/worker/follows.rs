//! What a changed follow does to its reader's live timeline.

use futures::{StreamExt, TryStreamExt, future, stream};

use super::Worker;
use crate::{
    domain::UserId,
    event_log::EventLog,
    fanout::{FanoutError, plan::Effects},
    store::Store,
};

/// Timelines that are changed at once where a follow was.
const MERGES_AT_ONCE: usize = 64;

impl<L: EventLog, S: Store> Worker<L, S> {
    /// Where a follow was changed: puts the followee's past posts into the
    /// reader's live timeline, or takes them out, as the ledger now says.
    pub(super) async fn change_follows(&self, effects: &Effects) -> Result<(), FanoutError> {
        for (followee, followers) in &effects.follows {
            let Some(followee) = self.store.account(*followee).await? else { continue };
            let followers: Vec<UserId> = followers.iter().copied().collect();
            let followers = self.store.accounts(&followers).await?;
            let mut readers: Vec<S::Account> = followers.into_iter().flatten().collect();
            readers.sort_unstable();
            let awake = self.store.awake(&readers).await?;
            if awake.is_empty() {
                continue;
            }
            let posts = self.newest_of(followee).await?;
            // Posts on their way out of the followers' timelines would stay with a
            // reader who has just ceased to be a follower.
            let mut gone = posts.clone();
            gone.ids.extend(self.store.deleted_of(followee).await?);
            gone.ids.sort_unstable();
            let (posts, gone) = (&posts, &gone);
            let changes = stream::iter(awake).map(|reader| async move {
                if self.store.follows(reader, followee).await? {
                    self.store.merge(reader, posts).await?;
                } else {
                    self.store.purge(reader, gone).await?;
                }
                // A store in memory would let nobody else go on before the last one.
                tokio::task::yield_now().await;
                Ok::<(), FanoutError>(())
            });
            changes
                .buffer_unordered(MERGES_AT_ONCE)
                .try_for_each(|()| future::ready(Ok(())))
                .await?;
        }
        Ok(())
    }
}
