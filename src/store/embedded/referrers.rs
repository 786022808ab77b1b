//! Which posts refer to others.

use super::EmbeddedStore;
use crate::{
    domain::PostId,
    store::{REFERRERS_COUNTED_MAX, ReferrerKind, Referrers, StoreError},
};

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
