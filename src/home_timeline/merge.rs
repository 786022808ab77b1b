//! Merging author timelines into a home timeline: the pull definition. Pure.
//!
//! Of an author among many only a few posts are among the newest of all. So each is asked for
//! a few first, and only those of whom all that came belong there are asked for more:
//!
//! ```text
//!  [`first_count`] of each ──► add ──► unfinished? ──► more of those ──► add ──► … ──► finish
//! ```
//!
//! They are never many: `entries_max` divided by how many posts each was asked for. It is the
//! threshold algorithm of Fagin, Lotem and Naor (2001), for lists in one order.

use crate::{domain::PostId, store::NewestPosts};

/// Of how many entries in all an author's share is asked for at first, for each that there is
/// room for: some post more than others.
const SHARES: usize = 4;
/// Posts that an author is asked for at first, at the least.
const COUNT_MIN: usize = 8;
/// An author who is asked again is asked for so many times as many posts.
const COUNT_FACTOR: usize = 8;

/// How many posts each of so many authors is asked for at first.
pub fn first_count(authors_len: usize, entries_max: usize) -> usize {
    (entries_max * SHARES / authors_len.max(1)).max(COUNT_MIN).min(entries_max)
}

/// How many posts an author is asked for who was asked for `count` before; none after the last
/// time.
pub fn next_count(count: usize, entries_max: usize) -> Option<usize> {
    (count < entries_max).then(|| count.saturating_mul(COUNT_FACTOR).min(entries_max))
}

/// Gathers the newest posts of many authors, a bounded number of them.
#[derive(Debug)]
pub struct Merge<A> {
    /// Ascending, without repetition.
    ids: Vec<PostId>,
    /// Nothing that was added is missing above this.
    floor: Option<PostId>,
    /// Whose timelines go on below what was added, and from where on.
    cut: Vec<(A, PostId)>,
    entries_max: usize,
}

impl<A: Copy> Merge<A> {
    /// Keeps `entries_max` ids at the most.
    pub fn new(entries_max: usize) -> Self {
        Self { ids: Vec::new(), floor: None, cut: Vec::new(), entries_max }
    }

    /// Joins in the newest posts of these authors, which are in the same places.
    pub fn add(&mut self, authors: &[A], timelines: Vec<NewestPosts>) {
        for (author, timeline) in authors.iter().zip(timelines) {
            self.ids.extend(timeline.ids);
            self.cut.extend(timeline.floor.map(|floor| (*author, floor)));
        }
        self.ids.sort_unstable();
        self.ids.dedup();
        if let Some(excess) = self.ids.len().checked_sub(self.entries_max)
            && excess > 0
        {
            self.floor = self.floor.max(Some(self.ids[excess - 1]));
            self.ids.drain(..excess);
        }
        // Whatever else these have is too old.
        self.cut.retain(|(_, cut)| Some(*cut) > self.floor);
    }

    /// Those of whom more belongs here than was added.
    pub fn take_unfinished(&mut self) -> Vec<A> {
        self.cut.drain(..).map(|(author, _)| author).collect()
    }

    /// What has been gathered. Of those who are unfinished nothing more is to be had.
    pub fn finish(self) -> NewestPosts {
        let cut = self.cut.into_iter().map(|(_, cut)| cut).max();
        let floor = self.floor.max(cut);
        let mut ids = self.ids;
        ids.drain(..ids.partition_point(|id| Some(*id) <= floor));
        NewestPosts { ids, floor }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The newest `count_max` of these ids, as a store would give them.
    fn newest(all: &BTreeSet<u64>, count_max: usize) -> NewestPosts {
        let ids: Vec<PostId> = all.iter().copied().map(PostId).collect();
        let dropped = ids.len().saturating_sub(count_max);
        let floor = dropped.checked_sub(1).map(|place| ids[place]);
        NewestPosts { ids: ids[dropped..].to_vec(), floor }
    }

    /// What is gathered of these authors, and how many ids were in hand for that.
    fn gather(authors: &[BTreeSet<u64>], chunk_len: usize, max: usize) -> (NewestPosts, usize) {
        let (mut merge, mut read) = (Merge::new(max), 0);
        let mut asked: Vec<usize> = (0..authors.len()).collect();
        let mut count = first_count(asked.len(), max);
        loop {
            for chunk in asked.chunks(chunk_len) {
                let lists = chunk.iter().map(|author| newest(&authors[*author], count));
                let lists: Vec<NewestPosts> = lists.collect();
                read += lists.iter().map(|list| list.ids.len()).sum::<usize>();
                merge.add(chunk, lists);
            }
            let Some(next) = next_count(count, max) else { return (merge.finish(), read) };
            asked = merge.take_unfinished();
            if asked.is_empty() {
                return (merge.finish(), read);
            }
            count = next;
        }
    }

    proptest! {
        #[test]
        fn the_newest_of_all_come_out_however_they_are_spread(
            // Many who post little beside some who post much.
            mut authors in proptest::collection::vec(
                proptest::collection::btree_set(1..5_000_u64, 0..4), 0..80,
            ),
            busy in proptest::collection::vec(
                proptest::collection::btree_set(1..5_000_u64, 0..120), 0..4,
            ),
            chunk_len in 1..40_usize,
            entries_max in 1..60_usize,
        ) {
            authors.extend(busy);
            let all: BTreeSet<u64> = authors.iter().flatten().copied().collect();
            let (gathered, _) = gather(&authors, chunk_len, entries_max);
            prop_assert_eq!(gathered, newest(&all, entries_max));
        }
    }

    #[test]
    fn of_very_many_authors_few_posts_are_read() {
        let (authors_len, entries_max) = (5_000, 880);
        let mut authors: Vec<BTreeSet<u64>> = (0..authors_len)
            .map(|author| (0..1_000).map(|post| post * authors_len + author).collect())
            .collect();
        // One has posted more, and later, than all the others.
        authors[7].extend(6_000_000..6_002_000);
        let all: BTreeSet<u64> = authors.iter().flatten().copied().collect();
        let (gathered, read) = gather(&authors, 64, entries_max);
        assert_eq!(gathered, newest(&all, entries_max));
        let bound = authors.len() * COUNT_MIN + entries_max / COUNT_MIN * entries_max * 2;
        assert!(read < bound.min(2 * authors.len() * COUNT_MIN), "{read} were read");
    }
}
