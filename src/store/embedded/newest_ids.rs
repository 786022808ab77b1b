//! The newest ids of one timeline: a sorted ring that grows as it fills.

use std::collections::VecDeque;

use crate::{domain::PostId, store::NewestPosts};

/// Ascending ids without repetition, at most as many as each call allows, and
/// the floor: the greatest id ever dropped to keep that bound, or 0. Every id
/// that was inserted, is greater than the floor and was not removed is there.
#[derive(Clone, Debug, Default)]
pub(super) struct NewestIds {
    ids: VecDeque<u64>,
    floor: u64,
}

impl NewestIds {
    /// Inserts an id. It is dropped if it is not above the floor; if there are
    /// then more than `len_max` ids, the oldest is dropped and becomes the floor.
    ///
    /// Ids mostly come in order, so this is a push at the end that compares once.
    pub(super) fn insert(&mut self, id: u64, len_max: usize) {
        if id <= self.floor {
            return;
        }
        let place = match self.ids.back() {
            Some(&newest) if id <= newest => match self.ids.binary_search(&id) {
                Ok(_) => return,
                Err(place) => place,
            },
            _ => self.ids.len(),
        };
        if self.ids.len() >= len_max {
            if place == 0 {
                self.floor = id;
                return;
            }
            self.floor = self.ids.pop_front().unwrap_or(id);
            self.insert_at(place - 1, id, len_max);
        } else {
            self.insert_at(place, id, len_max);
        }
    }

    fn insert_at(&mut self, place: usize, id: u64, len_max: usize) {
        if self.ids.len() == self.ids.capacity() {
            // A quarter at a time: an entry costs 10 bytes at the most, and
            // copying stays a small part of inserting.
            let growth = (self.ids.len() / 4).max(4).min(len_max - self.ids.len());
            self.ids.reserve_exact(growth);
        }
        if place == self.ids.len() {
            self.ids.push_back(id);
        } else {
            self.ids.insert(place, id);
        }
    }

    /// Joins another timeline in: all its ids, and its floor.
    pub(super) fn merge(&mut self, posts: &NewestPosts, len_max: usize) {
        if let Some(floor) = posts.floor {
            self.raise_floor(floor.0);
        }
        for id in posts.ids.iter().rev() {
            if self.ids.len() >= len_max && self.ids.front().is_some_and(|oldest| id.0 < *oldest) {
                // This one and all the older ones fall below a full list.
                self.floor = self.floor.max(id.0);
                break;
            }
            self.insert(id.0, len_max);
        }
    }

    /// Takes another timeline out: all its ids, and whatever it may have lost
    /// below its floor.
    pub(super) fn purge(&mut self, posts: &NewestPosts) {
        if let Some(floor) = posts.floor {
            self.raise_floor(floor.0);
        }
        let oldest = self.ids.front().copied().unwrap_or(u64::MAX);
        let start = posts.ids.partition_point(|id| id.0 < oldest);
        if start < posts.ids.len() {
            let gone = &posts.ids[start..];
            self.ids.retain(|id| gone.binary_search(&PostId(*id)).is_err());
        }
    }

    /// Removes an id, if it is there.
    pub(super) fn remove(&mut self, id: u64) {
        if let Ok(place) = self.ids.binary_search(&id) {
            self.ids.remove(place);
        }
    }

    fn raise_floor(&mut self, floor: u64) {
        if floor > self.floor {
            self.floor = floor;
            let kept_from = self.ids.partition_point(|id| *id <= floor);
            self.ids.drain(..kept_from);
        }
    }

    /// Forgets everything, the floor too, and gives the memory back.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The greatest id dropped, or 0.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Bytes allocated for the ids.
    pub(super) fn heap_bytes(&self) -> usize {
        self.ids.capacity() * size_of::<u64>()
    }

    /// The ids from the newest to the oldest.
    pub(super) fn newest_first(&self) -> impl ExactSizeIterator<Item = u64> {
        self.ids.iter().rev().copied()
    }

    /// Up to `count_max` ids less than `before`, the greatest first; none if some of them may
    /// lie below the floor.
    pub(super) fn older(&self, before: u64, count_max: usize) -> Option<Vec<PostId>> {
        let end = self.ids.partition_point(|id| *id < before);
        let is_all = end >= count_max || self.floor == 0;
        let older = self.ids.range(end.saturating_sub(count_max)..end);
        is_all.then(|| older.rev().copied().map(PostId).collect())
    }

    /// How many ids are at or above `id`.
    pub(super) fn rank_of(&self, id: u64) -> usize {
        self.ids.len() - self.ids.partition_point(|other| *other < id)
    }

    /// A copy of the newest `count_max` ids of it.
    pub(super) fn newest(&self, count_max: usize) -> NewestPosts {
        let first = self.ids.len().saturating_sub(count_max);
        let floor = first.checked_sub(1).map_or(self.floor, |last| self.ids[last]);
        NewestPosts {
            ids: self.ids.range(first..).copied().map(PostId).collect(),
            floor: (floor > 0).then_some(PostId(floor)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const LEN_MAX: usize = 8;

    #[derive(Clone, Debug)]
    enum Operation {
        Insert(u64),
        Remove(u64),
        Merge(BTreeSet<u64>, u64),
        Purge(BTreeSet<u64>, u64),
    }

    fn operations() -> impl Strategy<Value = Vec<Operation>> {
        let id = 1..60_u64;
        let ids = || proptest::collection::btree_set(1..60_u64, 0..12);
        let floor = || prop_oneof![3 => Just(0), 1 => 1..60_u64];
        let operation = prop_oneof![
            8 => id.clone().prop_map(Operation::Insert),
            2 => id.prop_map(Operation::Remove),
            1 => (ids(), floor()).prop_map(|(ids, floor)| Operation::Merge(ids, floor)),
            1 => (ids(), floor()).prop_map(|(ids, floor)| Operation::Purge(ids, floor)),
        ];
        proptest::collection::vec(operation, 0..80)
    }

    fn newest_posts(ids: &BTreeSet<u64>, floor: u64) -> NewestPosts {
        NewestPosts {
            ids: ids.iter().copied().filter(|id| *id > floor).map(PostId).collect(),
            floor: (floor > 0).then_some(PostId(floor)),
        }
    }

    proptest! {
        /// Above the floor, the list is exactly the set of what was put in and
        /// not taken out again.
        #[test]
        fn above_its_floor_nothing_is_missing(operations in operations()) {
            let mut list = NewestIds::default();
            let mut model = BTreeSet::new();
            for operation in operations {
                let floor_before = list.floor();
                match operation {
                    Operation::Insert(id) => {
                        list.insert(id, LEN_MAX);
                        model.insert(id);
                    }
                    Operation::Remove(id) => {
                        list.remove(id);
                        model.remove(&id);
                    }
                    Operation::Merge(ids, floor) => {
                        let posts = newest_posts(&ids, floor);
                        list.merge(&posts, LEN_MAX);
                        model.extend(posts.ids.iter().map(|id| id.0));
                        prop_assert!(list.floor() >= floor);
                    }
                    Operation::Purge(ids, floor) => {
                        let posts = newest_posts(&ids, floor);
                        list.purge(&posts);
                        model.retain(|id| !posts.ids.contains(&PostId(*id)));
                        prop_assert!(list.floor() >= floor);
                    }
                }
                prop_assert!(list.floor() >= floor_before);
                prop_assert!(list.len() <= LEN_MAX);
                let expected: Vec<u64> =
                    model.iter().rev().copied().filter(|id| *id > list.floor()).collect();
                prop_assert_eq!(list.newest_first().collect::<Vec<_>>(), expected);
                for count_max in [1, 3, LEN_MAX] {
                    let newest = list.newest(count_max);
                    let floor = newest.floor.map_or(0, |floor| floor.0);
                    let above = model.range(floor + 1..).copied().map(PostId);
                    prop_assert_eq!(&newest.ids, &above.collect::<Vec<_>>());
                    prop_assert!(newest.ids.len() == count_max.min(list.len()));
                }
                for (before, count_max) in [(u64::MAX, 2), (30, 3), (5, 1)] {
                    let older = model.range(..before).rev().take(count_max);
                    let older: Vec<PostId> = older.copied().map(PostId).collect();
                    let found = list.older(before, count_max);
                    prop_assert!(found.is_none() && list.floor() > 0 || found == Some(older));
                }
            }
        }
    }

    #[test]
    fn an_entry_costs_at_most_twelve_bytes_once_there_are_sixteen() {
        let mut list = NewestIds::default();
        for id in 1..=2_000 {
            list.insert(id, 880);
            if list.len() >= 16 {
                assert!(list.heap_bytes() <= 12 * list.len(), "at {} entries", list.len());
            }
        }
        assert_eq!(list.heap_bytes(), 880 * 8);
    }
}
