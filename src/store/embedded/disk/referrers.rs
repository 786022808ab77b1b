//! Which posts refer to others, on disk: those of one post are a range of keys.

use super::{Disk, DiskBatch, SECOND_PLACE, join_by, u64_at};
use crate::{
    domain::{Post, PostId},
    store::{ReferrerKind, StoreError, referrers::referred_by},
};

impl Disk {
    pub(in crate::store::embedded) fn referrers(
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
            let id = u64_at(&key, SECOND_PLACE).map(PostId);
            id.ok_or_else(|| self.damage("what refers to a post is malformed"))
        });
        found.collect()
    }

    /// How many there are, `count_max` at the most.
    pub(in crate::store::embedded) fn count_referrers(
        &self,
        post: PostId,
        kind: ReferrerKind,
        count_max: u64,
    ) -> Result<u64, StoreError> {
        let all = key(post, kind, PostId(0))..=key(post, kind, PostId(u64::MAX));
        let mut count = 0;
        for entry in self.referrers.range(all).take(count_max as usize) {
            entry.key().map_err(|error| self.failure(error))?;
            count += 1;
        }
        Ok(count)
    }
}

impl DiskBatch<'_> {
    pub(in crate::store::embedded) fn add_referrer(&mut self, post: &Post) {
        for (of, kind) in referred_by(post) {
            self.batch.insert(&self.disk.referrers, key(of, kind, post.id), []);
        }
    }

    pub(in crate::store::embedded) fn remove_referrer(&mut self, post: &Post) {
        for (of, kind) in referred_by(post) {
            self.batch.remove(&self.disk.referrers, key(of, kind, post.id));
        }
    }
}

fn key(of: PostId, kind: ReferrerKind, by: PostId) -> [u8; 17] {
    join_by(of.0, kind.byte(), by.0)
}
