//! Counting what has become of posts: how many answer and repeat each, and in how many home
//! timelines it stands.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    domain::{Post, PostId, UserId},
    store::{Lookups, ReferrerKind, Referrers, StoreError},
};

/// Authors whose followers are counted at once.
const COUNTS_AT_ONCE: usize = 64;

/// What there is of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostCounts {
    /// What answers it.
    pub replies: u64,
    /// What repeats it and adds nothing.
    pub reposts: u64,
    /// The home timelines in which it stands once it is delivered: its author's, and those of
    /// all who follow the author now.
    pub home_timelines: u64,
}

/// Counts for each of some posts, in the same places; nothing of one that there is not.
///
/// # Errors
/// If the store fails.
pub async fn read<S: Lookups + Referrers>(
    store: &S,
    ids: &[PostId],
) -> Result<Vec<PostCounts>, StoreError> {
    let (replies, reposts, home_timelines) = tokio::try_join!(
        store.count_referrers(ids, ReferrerKind::Reply),
        store.count_referrers(ids, ReferrerKind::Repost),
        home_timelines(store, ids),
    )?;
    let counts = replies.into_iter().zip(reposts).zip(home_timelines);
    let counts = counts.map(|((replies, reposts), home_timelines)| PostCounts {
        replies,
        reposts,
        home_timelines,
    });
    Ok(counts.collect())
}

async fn home_timelines<S: Lookups>(store: &S, ids: &[PostId]) -> Result<Vec<u64>, StoreError> {
    let posts = store.posts(ids).await?;
    let authors: BTreeSet<UserId> = posts.iter().flatten().map(|post| post.author).collect();
    let authors: Vec<UserId> = authors.into_iter().collect();
    let accounts = store.accounts(&authors).await?;
    let counts =
        stream::iter(authors.into_iter().zip(accounts)).map(|(author, account)| async move {
            let followers = match account {
                Some(account) => store.count_follows(account).await?.followers,
                None => 0,
            };
            Ok::<_, StoreError>((author, 1 + followers))
        });
    let counts: HashMap<UserId, u64> =
        counts.buffer_unordered(COUNTS_AT_ONCE).try_collect().await?;
    let count = |post: &Option<Arc<Post>>| counts.get(&post.as_ref()?.author).copied();
    Ok(posts.iter().map(|post| count(post).unwrap_or_default()).collect())
}
