//! An account's followers as sorted blocks, so that a change writes one block of about a
//! kilobyte and not the whole list. Pure.
//!
//! A block has for its name the least id that it may hold; the first one has 0. It holds
//! ascending ids, of which the first is written as what it is more than the name. So an id
//! takes two bytes where one account in 16,384 or more of them follows, and three where fewer
//! do. Blocks are never taken away, a block may be empty.

use std::collections::{BTreeMap, BTreeSet};

use crate::{domain::UserId, store::ascending_ids};

/// A block with more members is cut in two.
const BLOCK_LEN_MAX: usize = 512;

/// Blocks that are read at once, at the most: a megabyte in memory.
const BLOCKS_READ_MAX: usize = 256;

/// A block that holds nobody.
pub(super) const EMPTY_BLOCK: [u8; 1] = [0];

/// The followers of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Followers {
    blocks: BTreeMap<u64, Vec<u64>>,
    len: usize,
}

/// A block that is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block {0} of the followers is not a list of ascending ids")]
pub(super) struct BadBlock(pub(super) u64);

impl Followers {
    /// Reads all blocks, each with its name.
    ///
    /// Where Redis has lost that a block was cut in two, it may have both the whole and
    /// the part that was written again since: the part is right, so each ends where the
    /// next one begins.
    pub(super) fn of_blocks(
        written: impl IntoIterator<Item = (u64, Vec<u8>)>,
    ) -> Result<Self, BadBlock> {
        let mut blocks = BTreeMap::new();
        for (name, bytes) in written {
            blocks.insert(name, decode(name, &bytes).ok_or(BadBlock(name))?);
        }
        let mut next = None;
        let mut len = 0;
        for (name, block) in blocks.iter_mut().rev() {
            if let Some(next) = next {
                block.truncate(block.partition_point(|id| *id < next));
            }
            next = Some(*name);
            len += block.len();
        }
        Ok(Self { blocks, len })
    }

    /// Applies changes, `true` for a follow and `false` for its end; returns the
    /// names of the blocks that are to be written.
    pub(super) fn change(
        &mut self,
        changes: impl IntoIterator<Item = (UserId, bool)>,
    ) -> BTreeSet<u64> {
        let mut changed = BTreeSet::new();
        for (follower, follows) in changes {
            let id = follower.0;
            let name = self.blocks.range(..=id).next_back().map_or(0, |(name, _)| *name);
            let block = self.blocks.entry(name).or_default();
            match (block.binary_search(&id), follows) {
                (Err(place), true) => {
                    block.insert(place, id);
                    self.len += 1;
                }
                (Ok(place), false) => {
                    block.remove(place);
                    self.len -= 1;
                }
                _ => continue,
            }
            changed.insert(name);
            if block.len() > BLOCK_LEN_MAX {
                let upper = block.split_off(block.len() / 2);
                let name = upper[0];
                self.blocks.insert(name, upper);
                changed.insert(name);
            }
        }
        changed
    }

    /// A block's bytes.
    pub(super) fn block(&self, name: u64) -> Vec<u8> {
        let ids = self.blocks.get(&name).map_or(&[][..], Vec::as_slice);
        let mut bytes = Vec::new();
        ascending_ids::encode(name, ids.iter().copied(), &mut bytes);
        bytes
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Up to `count_max` of them, ascending, from the first greater than `after`.
    pub(super) fn after(&self, after: Option<UserId>, count_max: usize) -> Vec<UserId> {
        let after = after.map_or(0, |after| after.0);
        let first = self.blocks.range(..=after).next_back().map_or(0, |(name, _)| *name);
        let ids = self.blocks.range(first..).flat_map(|(_, block)| block);
        ids.filter(|id| **id > after).take(count_max).map(|id| UserId(*id)).collect()
    }

    /// Memory that they take, about.
    pub(super) fn size_bytes(&self) -> usize {
        128 + self.len * 8 + self.blocks.len() * 64
    }
}

/// The place among the names of blocks, which ascend, of the first one that can hold an
/// id greater than `after`.
pub(super) fn first_block(names: &[u64], after: Option<UserId>) -> usize {
    let after = after.map_or(0, |after| after.0);
    names.partition_point(|name| *name <= after).saturating_sub(1)
}

/// How many blocks to read for so many followers: enough, if they are at least half full.
pub(super) fn blocks_for(count: usize) -> usize {
    (1 + count / (BLOCK_LEN_MAX / 2)).min(BLOCKS_READ_MAX)
}

fn decode(name: u64, bytes: &[u8]) -> Option<Vec<u64>> {
    let ids = ascending_ids::decode(name, bytes)?;
    ids.is_sorted_by(|one, next| one < next).then_some(ids)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_a_set_in_blocks(
            changes in proptest::collection::vec((1..6_000_u64, any::<bool>(), 1..900_u64), 0..40),
            after in proptest::option::of(0..6_000_u64),
            count_max in 0..2_000_usize,
        ) {
            let mut followers = Followers::default();
            let mut written = BTreeMap::new();
            let mut expected = BTreeSet::new();
            for (first, follows, count) in changes {
                let ids: Vec<UserId> = (first..first + count).map(UserId).collect();
                for name in followers.change(ids.iter().map(|id| (*id, follows))) {
                    written.insert(name, followers.block(name));
                }
                for id in ids {
                    if follows { expected.insert(id); } else { expected.remove(&id); }
                }
            }
            // No difference is greater than 6,900, so that each takes two bytes at the most.
            prop_assert!(written.values().all(|block| block.len() <= 2 + BLOCK_LEN_MAX * 2));
            let read = Followers::of_blocks(written).unwrap();
            prop_assert_eq!(read.after(None, usize::MAX), followers.after(None, usize::MAX));
            prop_assert_eq!(read.len(), expected.len());
            let after = after.map(UserId);
            let page: Vec<UserId> = expected
                .iter()
                .copied()
                .filter(|id| after.is_none_or(|after| *id > after))
                .take(count_max)
                .collect();
            prop_assert_eq!(read.after(after, count_max), page);
        }
    }

    #[test]
    fn a_page_is_read_from_the_block_that_it_begins_in() {
        let names = [0, 100, 200];
        let first = |after: u64| first_block(&names, Some(UserId(after)));
        assert_eq!((first_block(&names, None), first(99), first(100)), (0, 0, 1));
        assert_eq!((first(199), first(200), first(u64::MAX)), (1, 2, 2));
        assert_eq!(first_block(&[], Some(UserId(7))), 0);
        assert_eq!((blocks_for(0), blocks_for(1_001), blocks_for(usize::MAX)), (1, 4, 256));
    }

    /// Writes may be lost up to some moment; what was written later is there.
    #[test]
    fn a_block_of_which_a_part_was_written_since_ends_where_that_begins() {
        let ids = |range: std::ops::Range<u64>| range.map(|id| (UserId(id), true));
        let mut followers = Followers::default();
        followers.change(ids(1..513));
        let whole = followers.block(0);
        // Lost: the cut, and that the upper half was written.
        let cut = followers.change(ids(513..514));
        let upper = *cut.last().expect("it is cut");
        assert!(upper > 0);
        // Not lost.
        assert!(followers.change([(UserId(500), false)]).contains(&upper));
        let read = Followers::of_blocks([(upper, followers.block(upper)), (0, whole)]).unwrap();
        assert_eq!(read.after(None, usize::MAX), followers.after(None, usize::MAX));
        assert_eq!(read.len(), followers.len());
    }

    #[test]
    fn a_damaged_block_is_an_error() {
        let of = |name, bytes: &[u8]| Followers::of_blocks([(name, bytes.to_vec())]);
        assert_eq!(of(7, &EMPTY_BLOCK).map(|followers| followers.len()), Ok(0));
        assert_eq!(of(7, &[3, 0, 1, 1]).map(|followers| followers.len()), Ok(3));
        // The same twice, one that does not end, one too few, one too many, no count, and one
        // past the greatest id.
        for block in [&[2, 1, 0][..], &[2, 1, 0x80], &[3, 0, 1], &[2, 0, 1, 1], &[]] {
            assert_eq!(of(7, block), Err(BadBlock(7)), "{block:?}");
        }
        assert_eq!(of(u64::MAX, &[1, 1]), Err(BadBlock(u64::MAX)));
    }

    /// Ids may be as large as they can be.
    #[test]
    fn any_ids_come_back() {
        let mut followers = Followers::default();
        let ids = [0, 1, 127, 128, 1 << 62, u64::MAX - 1, u64::MAX];
        followers.change(ids.map(|id| (UserId(id), true)));
        let read = Followers::of_blocks([(0, followers.block(0))]).unwrap();
        assert_eq!(read, followers);
    }
}
