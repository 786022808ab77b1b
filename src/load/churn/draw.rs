//! Drawing two accounts.

use std::sync::Arc;

use rand::rngs::Xoshiro256PlusPlus;

use super::super::{
    graph::{Graph, UserIndex},
    random::below,
};

/// Draws followers, each with the account that it follows.
pub(super) struct Follows {
    graph: Arc<Graph>,
    followers: Vec<UserIndex>,
}

impl Follows {
    pub(super) fn new(graph: Arc<Graph>) -> Self {
        Self { graph, followers: Vec::new() }
    }

    /// A follower of an account that is drawn, and that account; `None` if nobody follows it.
    pub(super) fn one(
        &mut self,
        random: &mut Xoshiro256PlusPlus,
    ) -> Option<(UserIndex, UserIndex)> {
        let followee = self.user(random);
        self.graph.followers_into(followee, &mut self.followers);
        if self.followers.is_empty() {
            return None;
        }
        let place = below(random, self.followers.len() as u64) as usize;
        Some((self.followers[place], followee))
    }

    /// Two different accounts, whoever follows whom.
    pub(super) fn possible(&self, random: &mut Xoshiro256PlusPlus) -> (UserIndex, UserIndex) {
        let followee = self.user(random);
        let other = below(random, u64::from(self.graph.user_count()) - 1) as UserIndex;
        (other + UserIndex::from(other >= followee), followee)
    }

    fn user(&self, random: &mut Xoshiro256PlusPlus) -> UserIndex {
        below(random, u64::from(self.graph.user_count())) as UserIndex
    }
}
