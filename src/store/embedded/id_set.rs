//! A set of account handles: a sorted array while it is small, a compressed
//! bitmap when it is not.

use roaring::RoaringBitmap;

/// Above this an insertion into the array would move too much, and the bitmap
/// takes less room.
const ARRAY_LEN_MAX: usize = 4_096;

/// About 4 bytes a member in an array, 2 or less in a large bitmap.
#[derive(Debug)]
pub(super) enum IdSet {
    Array(Vec<u32>),
    Bitmap(Box<RoaringBitmap>),
}

impl Default for IdSet {
    fn default() -> Self {
        Self::Array(Vec::new())
    }
}

impl IdSet {
    /// Whether the member was not there before.
    pub(super) fn insert(&mut self, id: u32) -> bool {
        match self {
            Self::Array(ids) => {
                let Err(place) = ids.binary_search(&id) else { return false };
                if ids.len() == ids.capacity() {
                    // A quarter at a time: most sets never grow again.
                    ids.reserve_exact((ids.len() / 4).max(2));
                }
                ids.insert(place, id);
                if ids.len() > ARRAY_LEN_MAX {
                    *self = Self::Bitmap(Box::new(ids.iter().copied().collect()));
                }
                true
            }
            Self::Bitmap(ids) => ids.insert(id),
        }
    }

    /// Inserts many and returns how many were not there before.
    pub(super) fn insert_all(&mut self, mut new: Vec<u32>) -> usize {
        let len_before = self.len();
        if let Self::Array(ids) = self {
            new.sort_unstable();
            new.dedup();
            if ids.is_empty() {
                *ids = new;
                ids.shrink_to_fit();
            } else {
                // Two sorted runs: the standard library's sort merges them.
                let mut joined = Vec::with_capacity(ids.len() + new.len());
                joined.extend_from_slice(ids);
                joined.append(&mut new);
                joined.sort();
                joined.dedup();
                joined.shrink_to_fit();
                *ids = joined;
            }
            if ids.len() > ARRAY_LEN_MAX {
                *self = Self::Bitmap(Box::new(ids.iter().copied().collect()));
            }
        } else if let Self::Bitmap(ids) = self {
            ids.extend(new);
        }
        self.len() - len_before
    }

    /// Whether the member was there.
    pub(super) fn remove(&mut self, id: u32) -> bool {
        match self {
            Self::Array(ids) => ids.binary_search(&id).map(|place| ids.remove(place)).is_ok(),
            Self::Bitmap(ids) => {
                let removed = ids.remove(id);
                // Half-way back, so that a set at the border does not flap.
                if removed && ids.len() < ARRAY_LEN_MAX as u64 / 2 {
                    *self = Self::Array(ids.iter().collect());
                }
                removed
            }
        }
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        match self {
            Self::Array(ids) => ids.binary_search(&id).is_ok(),
            Self::Bitmap(ids) => ids.contains(id),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Array(ids) => ids.len(),
            Self::Bitmap(ids) => ids.len() as usize,
        }
    }

    /// Up to `count_max` members greater than `after`, ascending.
    pub(super) fn after(&self, after: Option<u32>, count_max: usize) -> Vec<u32> {
        match self {
            Self::Array(ids) => {
                let start = after.map_or(0, |after| ids.partition_point(|id| *id <= after));
                let end = ids.len().min(start.saturating_add(count_max));
                ids[start..end].to_vec()
            }
            Self::Bitmap(ids) => match after {
                None => ids.iter().take(count_max).collect(),
                Some(u32::MAX) => Vec::new(),
                Some(after) => ids.range(after + 1..).take(count_max).collect(),
            },
        }
    }

    /// All members, ascending.
    pub(super) fn to_vec(&self) -> Vec<u32> {
        self.after(None, usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Runs over both forms: the steps are wide enough to cross the border.
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec(
            (any::<bool>(), 0..12_000_u32, 1..3_000_u32), 1..16,
        )) {
            let mut set = IdSet::default();
            let mut model = BTreeSet::new();
            for (insert, start, count) in steps {
                let range = start..start + count;
                if insert && count % 2 == 0 {
                    let before = model.len();
                    model.extend(range.clone());
                    prop_assert_eq!(set.insert_all(range.rev().collect()), model.len() - before);
                } else {
                    for id in range {
                        if insert {
                            prop_assert_eq!(set.insert(id), model.insert(id));
                        } else {
                            prop_assert_eq!(set.remove(id), model.remove(&id));
                        }
                    }
                }
                prop_assert_eq!(set.len(), model.len());
                prop_assert_eq!(set.contains(start), model.contains(&start));
                prop_assert_eq!(set.to_vec(), model.iter().copied().collect::<Vec<_>>());
                let after: Vec<u32> = model.range(start + 1..).take(10).copied().collect();
                prop_assert_eq!(set.after(Some(start), 10), after);
            }
        }
    }
}
