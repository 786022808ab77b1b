//! Reading a thread: what a post answers, up to the beginning, and what answers it.

use std::sync::Arc;

use crate::{
    domain::{Post, PostId, UserId},
    store::{Hides, Lookups, ReferrerKind, Referrers, StoreError},
};

/// Posts above one that a page looks at.
const ANCESTORS_MAX: usize = 100;
/// Answers that are looked at for one page, about, however few of them are shown.
const LOOKED_AT_MAX: usize = 2_000;
/// Answers that are looked at together, at least.
const LOOKED_AT_MIN: usize = 100;

/// What a post answers, what that answers, and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestors {
    /// The nearest first.
    pub posts: Vec<Arc<Post>>,
    /// The next page begins with this one; `None` where the thread begins, or one is deleted.
    pub next: Option<PostId>,
}

/// The accounts that a reader of a thread hides; none where it has no reader.
///
/// # Errors
/// If the store fails.
pub async fn hides_of(
    store: &impl Lookups,
    reader: Option<UserId>,
) -> Result<Arc<Hides>, StoreError> {
    match reader {
        Some(reader) => store.hides_of(reader).await,
        None => Ok(Arc::default()),
    }
}

/// Reads a thread upwards, from this post on, without what its reader hides. A page ends once it
/// has looked at 100 posts, or holds `bytes_max` bytes of text or more.
///
/// # Errors
/// If the store fails.
pub async fn ancestors(
    store: &impl Lookups,
    from: Option<PostId>,
    hides: &Hides,
    bytes_max: usize,
) -> Result<Ancestors, StoreError> {
    let (mut posts, mut next, mut bytes) = (Vec::new(), from, 0);
    for _ in 0..ANCESTORS_MAX {
        let Some(id) = next.filter(|_| bytes < bytes_max) else { break };
        // A deleted one does not say what it answered.
        let post = store.posts(&[id]).await?.pop().flatten();
        next = post.as_ref().and_then(|post| post.reply_to).map(|reference| reference.post);
        if let Some(post) = post.filter(|post| !hides.hide(post)) {
            bytes += post.text.len();
            posts.push(post);
        }
    }
    Ok(Ancestors { posts, next })
}

/// Reads up to `count_max` of the answers to a post that are newer than `after`, the oldest
/// first, without what their reader hides. The next page has those newer than the post that
/// comes with them; `None` on the last one.
///
/// # Errors
/// If the store fails.
pub async fn replies<S: Lookups + Referrers>(
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
