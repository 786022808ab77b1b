//! Fan-outs that a worker before this one has begun. Pure.
//!
//! They go on where they were, when the log is read again and asks for them anew. What
//! a cursor says was written before it was told, and stays true:
//!
//! - Whoever began to follow since, at a place that was passed, has been given the
//!   author's posts by the follow itself; whoever ceased to was freed of them. Those
//!   follows come after the post in the log, so they are looked up again as well.
//! - A place is a handle, which nobody else is given. Whoever came above it is reached
//!   yet, and it does not matter whether the follower at it is one still.
//! - The log is read again in other pieces than the first time: one fan-out may now have
//!   posts that were begun, that were not, and that went different ways. So it is cut up
//!   by what is known of each post.
//! - A post that was taken out does not come back: its deletion was applied before its
//!   removal began, so that no batch of what is read again delivers it.
//!
//! Only a store that has lost something makes it untrue, and then it gives no cursors.
//! The followers behind a cursor may have been reached too, so they are written to with
//! a look.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use crate::{
    domain::PostId,
    store::{Cursor, Work},
};

/// What is known of them.
#[derive(Debug)]
pub(super) struct HalfDone<A> {
    cursors: Vec<Cursor<A>>,
    /// The last follower whom each of an author's posts was brought to.
    delivered: HashMap<(A, PostId), A>,
    /// The last one from whom it was taken.
    removed: HashMap<(A, PostId), A>,
}

impl<A: Copy + Ord + Hash> HalfDone<A> {
    pub(super) fn new(cursors: Vec<Cursor<A>>) -> Self {
        let (mut delivered, mut removed) = (HashMap::new(), HashMap::new());
        for Cursor { author, work, reached } in &cursors {
            match work {
                Work::Deliver(ids) => {
                    delivered.extend(ids.iter().map(|id| ((*author, *id), *reached)));
                }
                Work::Remove(post) => drop(removed.insert((*author, *post), *reached)),
            }
        }
        Self { cursors, delivered, removed }
    }

    /// As the store has told them.
    pub(super) fn cursors(&self) -> &[Cursor<A>] {
        &self.cursors
    }

    /// Cuts a fan-out up by the last follower that it has reached already, the parts
    /// that have come farthest first.
    pub(super) fn split(&self, author: A, work: Work) -> Vec<(Work, Option<A>)> {
        match work {
            Work::Remove(post) => vec![(work, self.removed.get(&(author, post)).copied())],
            work if self.delivered.is_empty() => vec![(work, None)],
            Work::Deliver(ids) => {
                let mut parts = BTreeMap::<Option<A>, Vec<PostId>>::new();
                for id in ids {
                    let reached = self.delivered.get(&(author, id)).copied();
                    parts.entry(reached).or_default().push(id);
                }
                let parts = parts.into_iter().rev();
                parts.map(|(reached, ids)| (Work::Deliver(ids), reached)).collect()
            }
        }
    }

    /// All that may have been begun is under way again.
    pub(super) fn forget(&mut self) {
        *self = Self::new(Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliver(ids: &[u64]) -> Work {
        Work::Deliver(ids.iter().copied().map(PostId).collect())
    }

    #[test]
    fn a_fan_out_is_cut_up_by_what_is_known_of_each_post() {
        let cursor = |author, work, reached| Cursor { author, work, reached };
        let half_done = HalfDone::new(vec![
            cursor(1, deliver(&[10, 11]), 700),
            cursor(1, deliver(&[12]), 900),
            cursor(1, Work::Remove(PostId(14)), 800),
            cursor(2, deliver(&[13]), 600),
        ]);
        let parts = half_done.split(1, deliver(&[10, 12, 13, 11, 14]));
        let expected = [
            (deliver(&[12]), Some(900)),
            (deliver(&[10, 11]), Some(700)),
            (deliver(&[13, 14]), None),
        ];
        assert_eq!(parts, expected);
        let removal =
            |author, post| half_done.split(author, Work::Remove(PostId(post))).remove(0).1;
        assert_eq!(removal(1, 14), Some(800));
        assert_eq!((removal(1, 10), removal(2, 14)), (None, None));
    }

    #[test]
    fn a_fan_out_of_which_nothing_is_known_stays_whole() {
        let mut half_done =
            HalfDone::new(vec![Cursor { author: 1, work: deliver(&[10]), reached: 7 }]);
        half_done.forget();
        assert_eq!(half_done.split(1, deliver(&[11, 10])), [(deliver(&[11, 10]), None)]);
        assert!(half_done.cursors().is_empty());
    }
}
