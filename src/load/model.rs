//! The oracle: what every timeline must hold, by brute force.
//!
//! home(u) = the posts among those written or reposted by u and by the accounts that u
//! follows now, newest first, without the deleted; the newest CAP of them are held ready.
//! Readers see a post once that is repeated near by.
//! That is all there is here; nothing is shared with the engine. It is computed from
//! what the load generator itself has sent and the ids that it got back.

use roaring::RoaringBitmap;

use super::{
    churn::Changes,
    graph::{Graph, UserIndex},
};
use crate::domain::PostId;

/// How many posts below a repost are near it.
const NEAR_MAX: usize = 40;

/// Everything that timelines follow from, at rest.
pub(super) struct Model {
    cap: usize,
    /// Who follows whom in the end, by reader.
    following: Grouped<UserIndex>,
    /// The posts that are left in the end, by author, newest first.
    posts: Grouped<PostId>,
    /// The authors who were ever switched between push and pull.
    switched: Vec<UserIndex>,
    /// Those of them who are pulled in the end.
    pulled: Vec<UserIndex>,
    /// Who reads, or has read, one who was switched.
    read_switched: RoaringBitmap,
}

impl Model {
    /// Blocks, and for a large graph takes a while. `posts` are the author and the
    /// id of every post that was acknowledged and not deleted.
    pub(super) fn new(
        graph: &Graph,
        changes: &Changes,
        posts: impl Iterator<Item = (UserIndex, PostId)> + Clone,
        cap: usize,
    ) -> Self {
        let user_count = graph.user_count();
        let mut by_author = Grouped::new(user_count, PostId(0), posts);
        for author in 0..user_count {
            by_author.of_mut(author).sort_unstable_by(|a, b| b.cmp(a));
        }
        let following = following(graph, changes);
        let pulled = changes.pulled().iter().filter(|(_, pulled)| **pulled);
        Self {
            cap,
            read_switched: read_switched(changes, &following, user_count),
            following,
            posts: by_author,
            switched: changes.pulled().keys().copied().collect(),
            pulled: pulled.map(|(author, _)| *author).collect(),
        }
    }

    /// A reader's home timeline, to its very end.
    pub(super) fn home(&self, reader: UserIndex) -> Vec<PostId> {
        self.newest_of_each(reader, usize::MAX)
    }

    /// What is held ready of it.
    pub(super) fn ready(&self, reader: UserIndex) -> Vec<PostId> {
        let mut ids = self.newest_of_each(reader, self.cap);
        ids.truncate(self.cap);
        ids
    }

    fn newest_of_each(&self, reader: UserIndex, count_max: usize) -> Vec<PostId> {
        let authors = self.following.of(reader).iter().copied().chain([reader]);
        let newest = |author| self.posts.of(author).iter().take(count_max);
        let mut ids: Vec<PostId> = authors.flat_map(newest).copied().collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids
    }

    /// The authors who were ever switched between push and pull.
    pub(super) fn switched(&self) -> &[UserIndex] {
        &self.switched
    }

    /// The authors who are pulled, in the end.
    pub(super) fn pulled(&self) -> &[UserIndex] {
        &self.pulled
    }

    /// Whether a home timeline may hold posts that were ever pulled.
    pub(super) fn was_pulled(&self, reader: UserIndex) -> bool {
        self.read_switched.contains(reader)
    }

    /// How many posts are held ready, at the most.
    pub(super) fn cap(&self) -> usize {
        self.cap
    }

    /// Everything that an account has posted, newest first.
    pub(super) fn author(&self, author: UserIndex) -> &[PostId] {
        self.posts.of(author)
    }
}

/// A home timeline as its reader sees it, where `repeats` says what plain reposts repeat:
/// without those of which another, or what they repeat, is among the 40 posts below.
pub(super) fn seen(home: &[PostId], repeats: impl Fn(PostId) -> Option<PostId>) -> Vec<PostId> {
    let post = |id: PostId| repeats(id).unwrap_or(id);
    let is_repeated = |place: usize| {
        let near = home[place + 1..].iter().take(NEAR_MAX);
        repeats(home[place]).is_some_and(|said| near.copied().any(|id| post(id) == said))
    };
    (0..home.len()).filter(|place| !is_repeated(*place)).map(|place| home[place]).collect()
}

/// Turns the graph around: from followers by followee to followees by reader.
fn following(graph: &Graph, changes: &Changes) -> Grouped<UserIndex> {
    let mut grouped = Grouped::reserved(graph.user_count(), 0, |count| {
        each_follow(graph, changes, |follower, _| count(follower));
    });
    each_follow(graph, changes, |follower, followee| grouped.push(follower, followee));
    grouped
}

fn read_switched(
    changes: &Changes,
    following: &Grouped<UserIndex>,
    user_count: u32,
) -> RoaringBitmap {
    let switched = changes.pulled();
    if switched.is_empty() {
        return RoaringBitmap::new();
    }
    let reads_one = |reader: &UserIndex| {
        let changed = changes.follows_of(*reader).iter().map(|(followee, _)| followee);
        let followees = following.of(*reader).iter().chain(changed);
        followees.chain([reader]).any(|author| switched.contains_key(author))
    };
    (0..user_count).filter(reads_one).collect()
}

fn each_follow(graph: &Graph, changes: &Changes, mut on: impl FnMut(UserIndex, UserIndex)) {
    let mut followers = Vec::new();
    for followee in 0..graph.user_count() {
        graph.followers_into(followee, &mut followers);
        for follower in &followers {
            if changes.follow(*follower, followee).is_none() {
                on(*follower, followee);
            }
        }
    }
    for follower in 0..graph.user_count() {
        for (followee, follows) in changes.follows_of(follower) {
            if *follows {
                on(follower, *followee);
            }
        }
    }
}

/// A list a user in one array: 4 or 8 bytes an item and 8 bytes a user, which is
/// what lets a model of 70 million follows fit.
struct Grouped<T> {
    /// Where the next item of a user goes; once all are in, where they end.
    ends: Vec<usize>,
    items: Vec<T>,
}

impl<T: Copy> Grouped<T> {
    fn new(
        user_count: u32,
        filler: T,
        items: impl Iterator<Item = (UserIndex, T)> + Clone,
    ) -> Self {
        let mut grouped = Self::reserved(user_count, filler, |count| {
            items.clone().for_each(|(user, _)| count(user))
        });
        items.for_each(|(user, item)| grouped.push(user, item));
        grouped
    }

    /// Room for as many items as `count_each` counts, with `filler` in it.
    fn reserved(
        user_count: u32,
        filler: T,
        count_each: impl FnOnce(&mut dyn FnMut(UserIndex)),
    ) -> Self {
        let mut ends = vec![0usize; user_count as usize];
        count_each(&mut |user| ends[user as usize] += 1);
        let mut total = 0;
        for end in &mut ends {
            total += std::mem::replace(end, total);
        }
        Self { ends, items: vec![filler; total] }
    }

    fn push(&mut self, user: UserIndex, item: T) {
        let end = &mut self.ends[user as usize];
        self.items[*end] = item;
        *end += 1;
    }

    fn range(&self, user: UserIndex) -> std::ops::Range<usize> {
        let user = user as usize;
        let start = user.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[user]
    }

    fn of(&self, user: UserIndex) -> &[T] {
        &self.items[self.range(user)]
    }

    fn of_mut(&mut self, user: UserIndex) -> &mut [T] {
        let range = self.range(user);
        &mut self.items[range]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::edge_list::Edge,
        domain::UserId,
        load::{churn::Churn, graph::ListedGraph},
    };

    /// Accounts 1, 2 and 3 are indices 0, 1 and 2; 1 and 3 follow 2.
    fn graph() -> Graph {
        let edge =
            |follower, followee| Edge { followee: UserId(followee), follower: UserId(follower) };
        Graph::Listed(ListedGraph::new(&[edge(1, 2), edge(3, 2)], []).expect("small"))
    }

    fn ids(posts: &[PostId]) -> Vec<u64> {
        posts.iter().map(|post| post.0).collect()
    }

    #[test]
    fn a_home_timeline_is_the_one_sentence() {
        let posts = [(1, 10), (0, 11), (2, 12), (1, 14), (1, 13)].map(|(u, p)| (u, PostId(p)));
        let model = Model::new(&graph(), &Changes::default(), posts.into_iter(), 3);
        assert_eq!(ids(&model.home(0)), [14, 13, 11, 10]);
        assert_eq!(ids(&model.ready(0)), [14, 13, 11]);
        assert_eq!(ids(&model.home(1)), [14, 13, 10]);
        assert_eq!(ids(&model.home(2)), [14, 13, 12, 10]);
        assert_eq!(ids(model.author(1)), [14, 13, 10]);
    }

    #[test]
    fn what_is_repeated_near_by_is_seen_once() {
        let home: Vec<PostId> = (1..=60).rev().map(PostId).collect();
        let left_out = |reposts: &[u64], said| {
            let repeats = |id: PostId| reposts.contains(&id.0).then_some(PostId(said));
            let seen = seen(&home, repeats);
            ids(&home).into_iter().filter(|id| !seen.contains(&PostId(*id))).collect::<Vec<u64>>()
        };
        assert_eq!(left_out(&[6, 45], 5), [45, 6]);
        assert_eq!(left_out(&[46], 5), [0; 0]);
        assert_eq!(left_out(&[10, 20], 1_000), [20]);
    }

    #[test]
    fn changed_follows_count_as_they_are_in_the_end() {
        let mut changes = Changes::default();
        changes.record(Churn::Unfollow { follower: 0, followee: 1 });
        changes.record(Churn::Follow { follower: 0, followee: 2 });
        changes.record(Churn::Follow { follower: 2, followee: 1 });
        let posts = [(1, 10), (0, 11), (2, 12)].map(|(u, p)| (u, PostId(p)));
        let model = Model::new(&graph(), &changes, posts.into_iter(), 800);
        assert_eq!(ids(&model.home(0)), [12, 11]);
        assert_eq!(ids(&model.home(2)), [12, 10]);
        changes.record(Churn::Follow { follower: 0, followee: 1 });
        let model = Model::new(&graph(), &changes, posts.into_iter(), 800);
        assert_eq!(ids(&model.home(0)), [12, 11, 10]);
    }
}
