//! The followers of those who post, in memory as long as there is room.

use std::sync::Arc;

use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter, sync::Cache};

use super::followers::Followers;
use crate::domain::UserId;

pub(super) type FollowersCache = Cache<UserId, Arc<Followers>, ByBytes>;

/// An account with more than its shard has room for is never kept, and then each slice
/// of its fan-outs reads all its followers. So the shards are few and large: this is
/// room for 16 million followers.
const SHARD_BYTES_MIN: u64 = 128 << 20;
/// About what an account takes that has 100 followers: to guess how many fit.
const ACCOUNT_BYTES: u64 = 1 << 10;

/// Holds so many bytes at the most; past it, the least used go.
pub(super) fn followers_cache(bytes_max: u64) -> FollowersCache {
    // The cache would round up to a power of two.
    let shards = 1 << (bytes_max / SHARD_BYTES_MIN).max(1).ilog2();
    let options = OptionsBuilder::new()
        .shards(shards)
        .weight_capacity(bytes_max)
        .estimated_items_capacity((bytes_max / ACCOUNT_BYTES).max(1) as usize)
        .build()
        .expect("what has no default is set");
    Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), Default::default())
}

#[derive(Clone)]
pub(super) struct ByBytes;

impl Weighter<UserId, Arc<Followers>> for ByBytes {
    fn weight(&self, _: &UserId, followers: &Arc<Followers>) -> u64 {
        followers.size_bytes() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many cores there are, by which the cache would choose its shards.
    #[test]
    fn an_account_of_two_million_followers_is_kept_in_half_a_gigabyte() {
        let cache = followers_cache(512 << 20);
        let mut followers = Followers::default();
        followers.change((1..=2_000_000).map(|id| (UserId(id), true)));
        cache.insert(UserId(1), Arc::new(followers));
        assert_eq!(cache.get(&UserId(1)).map(|followers| followers.len()), Some(2_000_000));
    }

    #[test]
    fn no_shard_is_small_unless_the_whole_is() {
        for bytes_max in [1, 1 << 20, 200 << 20, 512 << 20, 3 << 30] {
            let shard = followers_cache(bytes_max).shard_capacity();
            assert!(shard >= bytes_max.min(SHARD_BYTES_MIN), "{shard} of {bytes_max}");
        }
    }
}
