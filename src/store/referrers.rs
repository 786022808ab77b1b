//! Which posts answer or repeat a post.

use std::future::Future;

use super::StoreError;
use crate::domain::{Post, PostId};

/// The posts that refer to others, as the ledger has them.
pub trait Referrers: Send + Sync + 'static {
    /// Up to `count_max` posts that refer to a post, ascending, from the first one newer than
    /// `after` on.
    fn referrers(
        &self,
        post: PostId,
        kind: ReferrerKind,
        after: Option<PostId>,
        count_max: usize,
    ) -> impl Future<Output = Result<Vec<PostId>, StoreError>> + Send;

    /// How many there are for each of some posts, in the same places; not more than
    /// [`REFERRERS_COUNTED_MAX`], however many there are.
    fn count_referrers(
        &self,
        posts: &[PostId],
        kind: ReferrerKind,
    ) -> impl Future<Output = Result<Vec<u64>, StoreError>> + Send;
}

/// The posts that are counted of those that refer to one: a store on disk counts by walking.
pub const REFERRERS_COUNTED_MAX: u64 = 10_000;

/// How a post refers to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReferrerKind {
    /// It answers it.
    Reply,
    /// It repeats it and adds nothing.
    Repost,
}

impl ReferrerKind {
    /// As it stands in keys.
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Reply => b'a',
            Self::Repost => b'r',
        }
    }
}

/// What a post refers to.
pub(crate) fn referred_by(post: &Post) -> impl Iterator<Item = (PostId, ReferrerKind)> {
    let reply = post.reply_to.map(|reference| (reference.post, ReferrerKind::Reply));
    let repost = post.repeats().map(|reference| (reference.post, ReferrerKind::Repost));
    reply.into_iter().chain(repost)
}
