//! Who follows whom, as the load generator sees it.
//!
//! Accounts are dense indices from 0, 4 bytes each, so that 70 million follows
//! fit into 280 MB. A synthetic graph holds nothing at all: it computes each
//! account's followers when asked.

use std::sync::Arc;

use hashbrown::HashSet;

use super::population::Population;
use crate::{client::edge_list::Edge, domain::UserId, proto::v1::FollowerList};

/// An account by its place among the accounts of a graph, from 0.
pub type UserIndex = u32;

/// The accounts and follows of a load.
pub enum Graph {
    /// A seeded population, computed when it is asked for.
    Synthetic(Population),
    /// What a file lists.
    Listed(ListedGraph),
}

impl Graph {
    /// How many accounts there are.
    pub fn user_count(&self) -> u32 {
        match self {
            Self::Synthetic(population) => population.user_count(),
            Self::Listed(graph) => graph.ids.len() as u32,
        }
    }

    /// The id of an account.
    ///
    /// # Panics
    /// If there is no such account.
    pub fn id(&self, user: UserIndex) -> UserId {
        match self {
            Self::Synthetic(population) => population.id(user),
            Self::Listed(graph) => graph.ids[user as usize],
        }
    }

    /// Which account has an id.
    pub(super) fn index_of(&self, id: UserId) -> Option<UserIndex> {
        match self {
            Self::Synthetic(population) => population.index_of(id),
            Self::Listed(graph) => graph.index_of(id),
        }
    }

    /// How many follows there are; of a synthetic graph, about how many.
    pub(super) fn follow_count_estimate(&self) -> u64 {
        match self {
            Self::Synthetic(population) => population.follow_count_estimate(),
            Self::Listed(graph) => graph.follow_count(),
        }
    }

    /// How many followers an account has.
    pub(super) fn follower_count(&self, followee: UserIndex) -> u32 {
        match self {
            Self::Synthetic(population) => population.follower_count(followee),
            Self::Listed(graph) => graph.followers_of(followee).len() as u32,
        }
    }

    /// Puts the followers of an account into `followers`, ascending.
    pub fn followers_into(&self, followee: UserIndex, followers: &mut Vec<UserIndex>) {
        followers.clear();
        match self {
            Self::Synthetic(population) => population.follower_indices_into(followee, followers),
            Self::Listed(graph) => followers.extend_from_slice(graph.followers_of(followee)),
        }
    }

    /// Every account that has followers, with them.
    pub(super) fn follower_lists(self: &Arc<Self>) -> impl Iterator<Item = FollowerList> + use<> {
        let graph = Arc::clone(self);
        let mut followers = Vec::new();
        (0..graph.user_count()).filter_map(move |followee| {
            graph.followers_into(followee, &mut followers);
            (!followers.is_empty()).then(|| FollowerList {
                followee_id: graph.id(followee).0,
                follower_ids: followers.iter().map(|user| graph.id(*user).0).collect(),
            })
        })
    }
}

/// A graph that was read from a file: followers in one array, by followee.
pub struct ListedGraph {
    /// Ascending; an account's index is its place here.
    ids: Vec<UserId>,
    /// Where an account's followers begin in `followers`, and, at the end, where
    /// the last ones end.
    starts: Vec<usize>,
    followers: Vec<UserIndex>,
}

/// More accounts than an index can tell apart.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the graph names more than 2^32 accounts, which is more than the load generator can hold")]
pub struct TooManyAccounts;

impl ListedGraph {
    /// The graph of sorted edges and of further accounts that may have none.
    pub(super) fn new(
        edges: &[Edge],
        others: impl IntoIterator<Item = UserId>,
    ) -> Result<Self, TooManyAccounts> {
        let mut distinct: HashSet<UserId, foldhash::fast::RandomState> =
            others.into_iter().collect();
        distinct.extend(edges.iter().map(|edge| edge.follower));
        distinct.extend(edges.iter().map(|edge| edge.followee));
        u32::try_from(distinct.len()).map_err(|_| TooManyAccounts)?;
        let mut ids: Vec<UserId> = distinct.into_iter().collect();
        ids.sort_unstable();

        let mut followers = Vec::with_capacity(edges.len());
        let mut starts = Vec::with_capacity(ids.len() + 1);
        let mut rest = edges.iter().peekable();
        for id in &ids {
            starts.push(followers.len());
            while let Some(edge) = rest.next_if(|edge| edge.followee == *id) {
                followers.push(index_in(&ids, edge.follower));
            }
        }
        starts.push(followers.len());
        debug_assert!(rest.next().is_none(), "the edges were not sorted");
        Ok(Self { ids, starts, followers })
    }

    pub(super) fn follow_count(&self) -> u64 {
        self.followers.len() as u64
    }

    pub(super) fn index_of(&self, id: UserId) -> Option<UserIndex> {
        self.ids.binary_search(&id).ok().map(|index| index as UserIndex)
    }

    pub(super) fn followers_of(&self, followee: UserIndex) -> &[UserIndex] {
        let followee = followee as usize;
        &self.followers[self.starts[followee]..self.starts[followee + 1]]
    }
}

/// The place of an id that is known to be there.
fn index_in(ids: &[UserId], id: UserId) -> UserIndex {
    ids.partition_point(|other| *other < id) as UserIndex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_graph_knows_its_followers_and_its_loners() {
        let edge =
            |follower, followee| Edge { followee: UserId(followee), follower: UserId(follower) };
        let edges = [edge(30, 10), edge(50, 10), edge(10, 50)];
        let listed = ListedGraph::new(&edges, [UserId(20)]).expect("small");
        assert_eq!(listed.index_of(UserId(30)), Some(2));
        assert_eq!(listed.index_of(UserId(31)), None);
        let graph = Graph::Listed(listed);
        assert_eq!(graph.user_count(), 4);
        assert_eq!((graph.index_of(UserId(50)), graph.index_of(UserId(51))), (Some(3), None));
        let followers_of = |user| {
            let mut followers = Vec::new();
            graph.followers_into(user, &mut followers);
            followers.into_iter().map(|user| graph.id(user).0).collect::<Vec<_>>()
        };
        assert_eq!(followers_of(0), [30, 50]);
        assert!(followers_of(1).is_empty() && followers_of(2).is_empty());
        assert_eq!(followers_of(3), [10]);
    }

    #[test]
    fn a_synthetic_graph_lists_all_its_followers() {
        let population = Population::new(5, 400);
        let graph = Arc::new(Graph::Synthetic(population.clone()));
        let index_of = |id| graph.index_of(UserId(id));
        assert_eq!([0, 1, 400, 401].map(index_of), [None, Some(0), Some(399), None]);
        let mut listed = 0;
        for list in graph.follower_lists() {
            let followers = population.followers_of(UserId(list.followee_id));
            assert!(list.follower_ids.iter().eq(followers.iter().map(|user| &user.0)));
            listed += list.follower_ids.len();
        }
        let all: usize = (1..=400).map(|user| population.followers_of(UserId(user)).len()).sum();
        assert_eq!(listed, all);
    }
}
