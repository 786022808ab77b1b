//! What comes below the posts that a home timeline holds, out of the author timelines.
//! Pure.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{
    domain::PostId,
    store::{Floor, HomePage},
};

/// Gathers the newest of many lists, a bounded number of them.
#[derive(Debug)]
pub struct Newest {
    /// The oldest first.
    kept: BinaryHeap<Reverse<PostId>>,
    count_max: usize,
}

impl Newest {
    /// Keeps `count_max` ids at the most.
    pub fn new(count_max: usize) -> Self {
        Self { kept: BinaryHeap::with_capacity(count_max + 1), count_max }
    }

    /// Joins in a list that is sorted, newest first, and has no id of another.
    pub fn add(&mut self, list: impl IntoIterator<Item = PostId>) {
        for id in list {
            let is_full = self.kept.len() >= self.count_max;
            if is_full && self.kept.peek().is_none_or(|Reverse(oldest)| id < *oldest) {
                return;
            }
            self.kept.push(Reverse(id));
            if is_full {
                self.kept.pop();
            }
        }
    }

    /// What has been gathered, newest first.
    pub fn finish(self) -> Vec<PostId> {
        self.kept.into_sorted_vec().into_iter().map(|Reverse(id)| id).collect()
    }
}

/// A page of what is held ready, with what lists of posts, newest first, have beside it.
pub fn merge_pulled(page: HomePage, lists: Vec<Vec<PostId>>, count_max: usize) -> HomePage {
    // Below it other entries of the timeline come first, or everything is pulled.
    let end = match (page.more, page.ids.last(), page.floor) {
        (true, Some(last), _) => *last,
        (_, _, Floor::Cap(oldest) | Floor::Followees(oldest)) => oldest,
        (_, _, Floor::Beginning) => PostId(0),
    };
    let mut ids = page.ids;
    ids.extend(lists.into_iter().flatten().filter(|id| *id >= end));
    ids.sort_unstable_by_key(|id| Reverse(*id));
    ids.dedup();
    let more = page.more || ids.len() > count_max;
    ids.truncate(count_max);
    HomePage { ids, more, floor: page.floor, hides: page.hides }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_newest_of_all_come_out(
            ids in proptest::collection::btree_map(1..500_u64, 0..8_usize, 0..80),
            count_max in 0..20_usize,
        ) {
            let mut newest = Newest::new(count_max);
            for author in 0..8 {
                let of_author = ids.iter().rev().filter(|(_, of)| **of == author);
                newest.add(of_author.map(|(id, _)| PostId(*id)));
            }
            let all: BTreeSet<u64> = ids.into_keys().collect();
            let expected: Vec<PostId> =
                all.into_iter().rev().take(count_max).map(PostId).collect();
            prop_assert_eq!(newest.finish(), expected);
        }
    }
}
