//! Which follows begin and end, and which posts are deleted.

use std::{collections::VecDeque, sync::Arc};

use rand::rngs::Xoshiro256PlusPlus;

use super::{
    super::{
        graph::{Graph, UserIndex},
        random::{Purpose, below, generator},
    },
    Change, Changes, DRAWS_MAX,
    draw::Follows,
};

/// How many ended follows are remembered, to be begun again.
const ENDED_FOLLOWS_MAX: usize = 1_000;

/// Decides it, from the seed alone.
pub(super) struct ChurnPlan {
    random: Xoshiro256PlusPlus,
    follows: Follows,
    ended: VecDeque<(UserIndex, UserIndex)>,
}

impl ChurnPlan {
    pub(super) fn new(seed: u64, graph: Arc<Graph>) -> Self {
        let random = generator(seed, Purpose::Churn, 0);
        Self { random, follows: Follows::new(graph), ended: VecDeque::new() }
    }

    /// The next change, after `post_count` posts and `changes`.
    pub(super) fn next(&mut self, post_count: u32, changes: &Changes) -> Change {
        match below(&mut self.random, 3) {
            0 => self.deletion(post_count, changes),
            1 => self.unfollow(changes),
            _ => None,
        }
        .unwrap_or_else(|| self.follow())
    }

    fn deletion(&mut self, post_count: u32, changes: &Changes) -> Option<Change> {
        if post_count == 0 {
            return None;
        }
        (0..DRAWS_MAX)
            .map(|_| below(&mut self.random, u64::from(post_count)) as u32)
            .find(|number| !changes.is_deleted(*number))
            .map(Change::DeletePost)
    }

    fn unfollow(&mut self, changes: &Changes) -> Option<Change> {
        for _ in 0..DRAWS_MAX {
            let Some((follower, followee)) = self.follows.one(&mut self.random) else { continue };
            if changes.follow(follower, followee) != Some(false) {
                if self.ended.len() == ENDED_FOLLOWS_MAX {
                    self.ended.pop_front();
                }
                self.ended.push_back((follower, followee));
                return Some(Change::Unfollow { follower, followee });
            }
        }
        None
    }

    /// Half of the follows begin one again that had ended, so that undoing is
    /// tried too.
    fn follow(&mut self) -> Change {
        if below(&mut self.random, 2) == 0
            && let Some((follower, followee)) = self.ended.pop_front()
        {
            return Change::Follow { follower, followee };
        }
        let (follower, followee) = self.follows.possible(&mut self.random);
        Change::Follow { follower, followee }
    }
}

#[cfg(test)]
mod tests {
    use hashbrown::HashMap;
    use roaring::RoaringBitmap;

    use super::*;
    use crate::load::population::Population;

    fn plan(seed: u64, count: u32) -> (Vec<Change>, Changes) {
        let graph = Arc::new(Graph::Synthetic(Population::new(1, 500)));
        let mut plan = ChurnPlan::new(seed, graph);
        let mut changes = Changes::default();
        let made = (0..count).map(|n| {
            let change = plan.next(n * 3, &changes);
            changes.record(change);
            change
        });
        let made = made.collect();
        (made, changes)
    }

    #[test]
    fn the_plan_is_a_function_of_the_seed() {
        assert_eq!(plan(1, 300).0, plan(1, 300).0);
        assert_ne!(plan(1, 300).0, plan(2, 300).0);
    }

    #[test]
    fn the_last_word_on_a_pair_holds_and_no_post_is_deleted_twice() {
        let (made, changes) = plan(3, 2_000);
        let mut deleted = RoaringBitmap::new();
        let mut last = HashMap::new();
        let mut kinds = [0; 3];
        for change in made {
            match change {
                Change::DeletePost(number) => {
                    kinds[0] += 1;
                    assert!(deleted.insert(number) && changes.is_deleted(number));
                }
                Change::Follow { follower, followee } => {
                    kinds[1] += 1;
                    assert_ne!(follower, followee);
                    last.insert((follower, followee), true);
                }
                Change::Unfollow { follower, followee } => {
                    kinds[2] += 1;
                    last.insert((follower, followee), false);
                }
                other => panic!("{other:?}"),
            }
        }
        for ((follower, followee), follows) in last {
            assert_eq!(changes.follow(follower, followee), Some(follows));
        }
        assert!(kinds.iter().all(|kind| *kind > 400), "{kinds:?}");
    }
}
