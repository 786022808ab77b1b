//! Reading a thread: what a post answers, up to the beginning, and what answers it.

use std::sync::Arc;

use crate::{
    domain::{Post, PostId, UserId},
    store::{Hides, Lookups, ReferrerKind, Referrers, StoreError},
};

/// Posts above one that are read, at the most; a longer thread begins with the last of them.
const ANCESTORS_MAX: usize = 100;
/// Answers that are looked at for one page, about, however few of them are shown.
const LOOKED_AT_MAX: usize = 2_000;
/// Answers that are looked at together, at least.
const LOOKED_AT_MIN: usize = 100;

/// A part of a thread, as somebody sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// What the post answers, what that answers, and so on, the oldest first. It begins where
    /// one is deleted.
    pub ancestors: Vec<Arc<Post>>,
    /// The post, whatever the reader hides.
    pub post: Arc<Post>,
    /// Whether the reader sees the post that this one repeats or quotes.
    pub shows_original: bool,
    /// What answers the post itself, the oldest first.
    pub replies: Vec<Arc<Post>>,
    /// The next page has the answers newer than this; `None` on the last one.
    pub next: Option<PostId>,
}

/// Reads the thread around a post, with up to `count_max` of the answers that are newer than
/// `after`, without what `reader` hides.
///
/// # Errors
/// If the store fails.
pub async fn read<S: Lookups + Referrers>(
    store: &S,
    post: Arc<Post>,
    reader: Option<UserId>,
    after: Option<PostId>,
    count_max: usize,
) -> Result<Thread, StoreError> {
    let hides = match reader {
        Some(reader) => store.hides_of(reader).await?,
        None => Arc::default(),
    };
    let mut ancestors = Vec::new();
    let mut above = post.reply_to;
    // A deleted one does not say what it answered.
    while let Some(reference) = above.filter(|_| ancestors.len() < ANCESTORS_MAX) {
        let Some(ancestor) = store.posts(&[reference.post]).await?.pop().flatten() else { break };
        above = ancestor.reply_to;
        ancestors.push(ancestor);
    }
    ancestors.retain(|ancestor| !hides.hide(ancestor));
    ancestors.reverse();
    let (replies, next) = replies(store, post.id, &hides, after, count_max).await?;
    let shows_original = !hides.hide_original(&post);
    Ok(Thread { ancestors, post, shows_original, replies, next })
}

async fn replies<S: Lookups + Referrers>(
    store: &S,
    id: PostId,
    hides: &Hides,
    mut after: Option<PostId>,
    count_max: usize,
) -> Result<(Vec<Arc<Post>>, Option<PostId>), StoreError> {
    let (mut replies, mut looked_at) = (Vec::new(), 0);
    loop {
        // One more tells whether another page follows.
        let piece_len = (count_max + 1).max(LOOKED_AT_MIN);
        let ids = store.referrers(id, ReferrerKind::Reply, after, piece_len).await?;
        let posts = store.posts(&ids).await?;
        for (place, (id, post)) in ids.iter().zip(posts).enumerate() {
            replies.extend(post.filter(|post| !hides.hide(post)));
            let is_last = place + 1 == ids.len() && ids.len() < piece_len;
            if replies.len() == count_max {
                return Ok((replies, (!is_last).then_some(*id)));
            }
        }
        looked_at += ids.len();
        if ids.len() < piece_len {
            return Ok((replies, None));
        }
        after = ids.last().copied();
        if looked_at >= LOOKED_AT_MAX {
            return Ok((replies, after));
        }
    }
}
