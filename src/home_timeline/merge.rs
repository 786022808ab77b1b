//! Merging author timelines into a home timeline: the pull definition. Pure.

use crate::{domain::PostId, store::NewestPosts};

/// Gathers the newest posts of many timelines, a bounded number of them.
#[derive(Debug)]
pub struct Merge {
    merged: NewestPosts,
    entries_max: usize,
}

impl Merge {
    /// Keeps `entries_max` ids at the most.
    pub fn new(entries_max: usize) -> Self {
        Self { merged: NewestPosts::default(), entries_max }
    }

    /// Joins timelines in.
    pub fn add(&mut self, timelines: Vec<NewestPosts>) {
        let merged = &mut self.merged;
        for timeline in timelines {
            merged.floor = merged.floor.max(timeline.floor);
            merged.ids.extend(timeline.ids);
        }
        merged.ids.sort_unstable();
        merged.ids.dedup();
        if let Some(excess) = merged.ids.len().checked_sub(self.entries_max)
            && excess > 0
        {
            merged.floor = merged.floor.max(Some(merged.ids[excess - 1]));
        }
        let floor = merged.floor.unwrap_or(PostId(0));
        let kept_from = merged.ids.partition_point(|id| *id <= floor);
        merged.ids.drain(..kept_from);
    }

    /// What has been gathered.
    pub fn finish(self) -> NewestPosts {
        self.merged
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const ENTRIES_MAX: usize = 6;

    /// The newest ids of a set, as a store would give them.
    fn newest(all: &BTreeSet<u64>) -> NewestPosts {
        let ids: Vec<PostId> = all.iter().copied().map(PostId).collect();
        let dropped = ids.len().saturating_sub(ENTRIES_MAX);
        let floor = dropped.checked_sub(1).map(|place| ids[place]);
        NewestPosts { ids: ids[dropped..].to_vec(), floor }
    }

    proptest! {
        #[test]
        fn the_newest_of_all_come_out(
            authors in proptest::collection::vec(
                proptest::collection::btree_set(1..500_u64, 0..20), 0..8,
            ),
            chunk_len in 1..4_usize,
        ) {
            let mut merge = Merge::new(ENTRIES_MAX);
            for chunk in authors.chunks(chunk_len) {
                merge.add(chunk.iter().map(newest).collect());
            }
            let all: BTreeSet<u64> = authors.iter().flatten().copied().collect();
            prop_assert_eq!(merge.finish(), newest(&all));
        }
    }
}
