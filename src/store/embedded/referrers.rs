//! Which posts refer to others, on disk: those of one post are a range of keys.

use super::{
    EmbeddedStore,
    disk::{Disk, DiskBatch, u64_at},
};
use crate::{
    domain::{Post, PostId},
    store::{REFERRERS_COUNTED_MAX, ReferrerKind, Referrers, StoreError, referrers::referred_by},
};

/// Where the id of the one that refers stands in a key.
const ID_PLACE: usize = 9;

impl Referrers for EmbeddedStore {
    async fn referrers(
        &self,
        post: PostId,
        kind: ReferrerKind,
        after: Option<PostId>,
        count_max: usize,
    ) -> Result<Vec<PostId>, StoreError> {
        self.run_blocking(move |inner| inner.disk.referrers(post, kind, after, count_max)).await
    }

    async fn count_referrers(
        &self,
        posts: &[PostId],
        kind: ReferrerKind,
    ) -> Result<Vec<u64>, StoreError> {
        let posts = posts.to_vec();
        self.run_blocking(move |inner| {
            let count_max = REFERRERS_COUNTED_MAX as usize;
            let count = |post| Ok(inner.disk.referrers(post, kind, None, count_max)?.len() as u64);
            posts.into_iter().map(count).collect()
        })
        .await
    }
}

impl Disk {
    fn referrers(
        &self,
        post: PostId,
        kind: ReferrerKind,
        after: Option<PostId>,
        count_max: usize,
    ) -> Result<Vec<PostId>, StoreError> {
        let first = after.map_or(0, |after| after.0.saturating_add(1));
        let all = key(post, kind, PostId(first))..=key(post, kind, PostId(u64::MAX));
        let found = self.referrers.range(all).take(count_max).map(|entry| {
            let key = entry.key().map_err(|error| self.failure(error))?;
            let id = u64_at(&key, ID_PLACE).map(PostId);
            id.ok_or_else(|| self.damage("what refers to a post is malformed"))
        });
        found.collect()
    }
}

impl DiskBatch<'_> {
    pub(super) fn add_referrer(&mut self, post: &Post) {
        for (of, kind) in referred_by(post) {
            self.batch.insert(&self.disk.referrers, key(of, kind, post.id), []);
        }
    }

    pub(super) fn remove_referrer(&mut self, post: &Post) {
        for (of, kind) in referred_by(post) {
            self.batch.remove(&self.disk.referrers, key(of, kind, post.id));
        }
    }
}

fn key(of: PostId, kind: ReferrerKind, by: PostId) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&of.0.to_be_bytes());
    key[8] = kind.byte();
    key[ID_PLACE..].copy_from_slice(&by.0.to_be_bytes());
    key
}
