//! The follow graph, in memory, in both directions.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{id_set::IdSet, slots::Slots};
use crate::store::{FollowCounts, FollowSide};

#[derive(Debug, Default)]
pub(super) struct Graph {
    followers: Slots<IdSet>,
    following: Slots<IdSet>,
    edge_count: AtomicU64,
}

impl Graph {
    pub(super) fn follow(&self, followee: u32, followers: &[u32]) {
        let added = match followers {
            [follower] => usize::from(self.followers.with(followee, |set| set.insert(*follower))),
            _ => self.followers.with(followee, |set| set.insert_all(followers.to_vec())),
        };
        for follower in followers {
            self.following.with(*follower, |set| set.insert(followee));
        }
        self.edge_count.fetch_add(added as u64, Ordering::Relaxed);
    }

    pub(super) fn unfollow(&self, followee: u32, follower: u32) {
        if self.followers.with(followee, |set| set.remove(follower)) {
            self.edge_count.fetch_sub(1, Ordering::Relaxed);
        }
        self.following.with(follower, |set| set.remove(followee));
    }

    /// Up to `count_max` accounts of one side greater than `after`, ascending.
    pub(super) fn after(
        &self,
        account: u32,
        side: FollowSide,
        after: Option<u32>,
        count_max: usize,
    ) -> Vec<u32> {
        let sets = match side {
            FollowSide::Followers => &self.followers,
            FollowSide::Following => &self.following,
        };
        sets.with(account, |set| set.after(after, count_max))
    }

    pub(super) fn followers(&self, account: u32) -> Vec<u32> {
        self.followers.with(account, |set| set.to_vec())
    }

    pub(super) fn following(&self, account: u32) -> Vec<u32> {
        self.following.with(account, |set| set.to_vec())
    }

    pub(super) fn follows(&self, follower: u32, followee: u32) -> bool {
        self.following.with(follower, |set| set.contains(followee))
    }

    pub(super) fn counts(&self, account: u32) -> FollowCounts {
        FollowCounts {
            followers: self.followers.with(account, |set| set.len() as u64),
            following: self.following.with(account, |set| set.len() as u64),
        }
    }

    pub(super) fn edge_count(&self) -> u64 {
        self.edge_count.load(Ordering::Relaxed)
    }
}
