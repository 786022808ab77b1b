//! Which authors are pulled, and pushed again.

use rand::rngs::Xoshiro256PlusPlus;

use super::{
    super::{
        graph::UserIndex,
        random::{Purpose, below, generator},
    },
    Change, Changes,
};

/// Decides it, from the seed alone: each time one of the most followed changes over, so
/// that about half of them are pulled in the end.
pub(super) struct PullPlan {
    random: Xoshiro256PlusPlus,
    authors: Vec<UserIndex>,
}

impl PullPlan {
    /// `authors` are at least one.
    pub(super) fn new(seed: u64, authors: &[UserIndex]) -> Self {
        Self { random: generator(seed, Purpose::Pulls, 0), authors: authors.to_owned() }
    }

    pub(super) fn next(&mut self, changes: &Changes) -> Change {
        let author = self.authors[below(&mut self.random, self.authors.len() as u64) as usize];
        let is_pulled = changes.pulled().get(&author).copied().unwrap_or(false);
        Change::SetDelivery { author, pulled: !is_pulled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_change_over_and_some_are_pulled_in_the_end() {
        let authors: Vec<UserIndex> = (10..26).collect();
        let mut plan = PullPlan::new(1, &authors);
        let mut changes = Changes::default();
        for _ in 0..200 {
            let change = plan.next(&changes);
            let Change::SetDelivery { author, pulled } = change else { panic!("{change:?}") };
            assert_ne!(changes.pulled().get(&author), Some(&pulled));
            changes.record(change);
        }
        assert!(changes.pulled().keys().eq(&authors));
        let pulled = changes.pulled().values().filter(|pulled| **pulled).count();
        assert!((4..=12).contains(&pulled), "{pulled}");
    }
}
