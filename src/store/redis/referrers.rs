//! Which posts refer to others, in Redis.
//!
//! Many partitions write the set of one post, so it is one that takes the same id twice and
//! keeps an order of its own: all scores are 0, and members of 8 bytes stand in the order of
//! their ids.

use super::{
    Inner, RedisStore,
    control::{Call, bytes, elements},
    damaged,
    fold::Fold,
    keys,
    ledger::post_id,
    reply,
};
use crate::{
    domain::PostId,
    store::{REFERRERS_COUNTED_MAX, ReferrerKind, Referrers, StoreError, referrers::referred_by},
};

impl Referrers for RedisStore {
    async fn referrers(
        &self,
        post: PostId,
        kind: ReferrerKind,
        after: Option<PostId>,
        count_max: usize,
    ) -> Result<Vec<PostId>, StoreError> {
        let first = match after {
            Some(after) => [b"(".as_slice(), &after.0.to_be_bytes()].concat(),
            None => b"-".to_vec(),
        };
        let (key, count) = (keys::referrers(post, kind), count_max.to_string());
        let arguments: [&[u8]; 6] = [&key, &first, b"+", b"LIMIT", b"0", count.as_bytes()];
        let call = Call::of("ZRANGEBYLEX", &arguments);
        let ids = elements(self.inner.control.one(call).await?).into_iter().filter_map(bytes);
        ids.map(|id| post_id(&id).ok_or_else(|| damaged("what refers to a post"))).collect()
    }

    async fn count_referrers(
        &self,
        posts: &[PostId],
        kind: ReferrerKind,
    ) -> Result<Vec<u64>, StoreError> {
        let calls = posts.iter().map(|post| Call::of("ZCARD", &[&keys::referrers(*post, kind)]));
        let counts = self.inner.control.run(calls.collect()).await?;
        let counted = |count| reply::number(count, "how many posts refer to a post");
        let counts = counts.iter().map(|count| Ok(counted(count)?.min(REFERRERS_COUNTED_MAX)));
        counts.collect()
    }
}

impl Inner {
    /// Adds what new posts refer to, and takes out what deleted ones did, which must be there
    /// still.
    pub(super) async fn write_referrers(&self, fold: &Fold<'_>) -> Result<(), StoreError> {
        let mut calls = Vec::new();
        for post in &fold.posts {
            for (of, kind) in referred_by(post) {
                let id = post.id.0.to_be_bytes();
                calls.push(Call::of("ZADD", &[&keys::referrers(of, kind), b"0", &id]));
            }
        }
        let deleted: Vec<PostId> = fold.deleted.keys().copied().collect();
        for post in self.read_posts(&deleted).await?.into_iter().flatten() {
            for (of, kind) in referred_by(&post) {
                let id = post.id.0.to_be_bytes();
                calls.push(Call::of("ZREM", &[&keys::referrers(of, kind), &id]));
            }
        }
        self.write(calls).await.map(drop)
    }
}
