//! The oracle: what every timeline must hold, by brute force.
//!
//! home(u) = the posts among those written or reposted by u and by the accounts that u
//! follows now, newest first, without the deleted, the muted and the blocked, and without what
//! repeats or answers these. The newest CAP are held ready, the hidden among them. Readers see
//! a post once that is repeated near by.
//! That is all there is here; nothing is shared with the engine. It is computed from
//! what the load generator itself has sent and the ids that it got back.

mod expected_inboxes;
mod grouped;
mod hidden;
mod home;
mod inbox;

use std::collections::BTreeSet;

use hashbrown::HashMap;
use roaring::RoaringBitmap;

pub(super) use self::{expected_inboxes::ExpectedInboxes, home::Home, inbox::Inboxes};
use self::{grouped::Grouped, hidden::Hidden};
use super::{
    churn::Changes,
    graph::{Graph, UserIndex},
};
use crate::domain::PostId;

/// Everything that timelines follow from, at rest.
pub(super) struct Model {
    cap: usize,
    /// Who follows whom in the end, by reader.
    following: Grouped<UserIndex>,
    /// The posts that are left in the end, by author, newest first.
    posts: Grouped<PostId>,
    /// Who wrote what posts repeat or answer.
    referred: HashMap<PostId, UserIndex, foldhash::fast::RandomState>,
    hidden: Hidden,
    /// Who reads, or has read, an author who is pulled, or was switched.
    read_pulled: RoaringBitmap,
}

/// The newest posts of a home timeline.
pub(super) struct Newest {
    /// What its reader sees, with every repost: as many posts as are held ready at the most.
    pub(super) shown: Vec<PostId>,
    /// The oldest post that is held ready, where there are as many as can be.
    pub(super) oldest_ready: Option<PostId>,
}

impl Model {
    /// Blocks, and for a large graph takes a while. `posts` are the author and the
    /// id of every post that was acknowledged and not deleted; `referred` says who wrote
    /// what posts of them repeat or answer; `pulled` are the authors whom the server has pulled.
    pub(super) fn new(
        graph: &Graph,
        changes: &Changes,
        posts: impl Iterator<Item = (UserIndex, PostId)> + Clone,
        referred: impl Iterator<Item = (PostId, UserIndex)>,
        pulled: &BTreeSet<UserIndex>,
        cap: usize,
    ) -> Self {
        let user_count = graph.user_count();
        let mut by_author = Grouped::new(user_count, PostId(0), posts);
        for author in 0..user_count {
            by_author.of_mut(author).sort_unstable_by(|a, b| b.cmp(a));
        }
        let following = following(graph, changes);
        Self {
            cap,
            read_pulled: read_pulled(pulled, changes, &following, user_count),
            following,
            posts: by_author,
            referred: referred.collect(),
            hidden: Hidden::new(changes),
        }
    }

    /// A reader's home timeline, to its very end.
    pub(super) fn home(&self, reader: UserIndex) -> Home {
        let is_hidden = |author, id| self.is_hidden(reader, author, id);
        let hidden = self.newest_of_each(reader, usize::MAX, is_hidden);
        let delivered = self.newest_of_each(reader, usize::MAX, |_, _| true);
        Home { delivered, hidden: hidden.into_iter().collect() }
    }

    /// The newest of it.
    pub(super) fn newest(&self, reader: UserIndex) -> Newest {
        let delivered = self.newest_of_each(reader, self.cap, |_, _| true);
        let oldest_ready = oldest_ready(&delivered, self.cap);
        let mut shown = if self.hidden.any(reader) {
            let is_shown = |author, id| !self.is_hidden(reader, author, id);
            self.newest_of_each(reader, self.cap, is_shown)
        } else {
            delivered
        };
        shown.truncate(self.cap);
        Newest { shown, oldest_ready }
    }

    /// A sorted list of the newest posts of each author that are to be `kept`.
    fn newest_of_each(
        &self,
        reader: UserIndex,
        count_max: usize,
        kept: impl Fn(UserIndex, PostId) -> bool,
    ) -> Vec<PostId> {
        let kept = &kept;
        let authors = self.following.of(reader).iter().copied().chain([reader]);
        let newest = |author| {
            let posts = self.posts.of(author).iter().copied();
            posts.filter(move |id| kept(author, *id)).take(count_max)
        };
        let mut ids: Vec<PostId> = authors.flat_map(newest).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids
    }

    /// Whether a reader does not see a post of an author whom it follows, or its own.
    fn is_hidden(&self, reader: UserIndex, author: UserIndex, id: PostId) -> bool {
        let referred = self.referred.get(&id).copied();
        self.hidden.any(reader)
            && [Some(author), referred]
                .into_iter()
                .flatten()
                .any(|author| self.hidden.contains(reader, author))
    }

    /// Whether a home timeline may hold posts that were ever pulled.
    pub(super) fn was_pulled(&self, reader: UserIndex) -> bool {
        self.read_pulled.contains(reader)
    }

    /// What of a list an account reads.
    pub(super) fn shown(&self, inboxes: &Inboxes, user: UserIndex) -> Vec<u64> {
        inboxes.shown(user, &self.hidden)
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

/// The oldest post of a home timeline that is held ready, where there are as many as can be.
pub(super) fn oldest_ready(delivered: &[PostId], cap: usize) -> Option<PostId> {
    delivered.get(cap.checked_sub(1)?).copied()
}

/// Turns the graph around: from followers by followee to followees by reader.
fn following(graph: &Graph, changes: &Changes) -> Grouped<UserIndex> {
    let mut grouped = Grouped::reserved(graph.user_count(), 0, |count| {
        each_follow(graph, changes, |follower, _| count(follower));
    });
    each_follow(graph, changes, |follower, followee| grouped.push(follower, followee));
    grouped
}

fn read_pulled(
    pulled: &BTreeSet<UserIndex>,
    changes: &Changes,
    following: &Grouped<UserIndex>,
    user_count: u32,
) -> RoaringBitmap {
    let was_pulled =
        |author: &UserIndex| pulled.contains(author) || changes.pulled().contains_key(author);
    if pulled.is_empty() && changes.pulled().is_empty() {
        return RoaringBitmap::new();
    }
    let reads_one = |reader: &UserIndex| {
        let changed = changes.follows_of(*reader).iter().map(|(followee, _)| followee);
        let followees = following.of(*reader).iter().chain(changed);
        followees.chain([reader]).any(was_pulled)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::edge_list::Edge,
        domain::UserId,
        load::{
            churn::{Change, Hide},
            graph::ListedGraph,
        },
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

    fn model(changes: &Changes, posts: &[(UserIndex, u64)], cap: usize) -> Model {
        let posts = posts.iter().map(|(author, id)| (*author, PostId(*id)));
        Model::new(&graph(), changes, posts, [(PostId(11), 2)].into_iter(), &BTreeSet::new(), cap)
    }

    fn shown(model: &Model, reader: UserIndex) -> Vec<u64> {
        ids(&model.home(reader).shown())
    }

    #[test]
    fn a_home_timeline_is_the_one_sentence() {
        let posts = [(1, 10), (0, 11), (2, 12), (1, 14), (1, 13)];
        let model = model(&Changes::default(), &posts, 3);
        assert_eq!(shown(&model, 0), [14, 13, 11, 10]);
        assert_eq!(ids(&model.newest(0).shown), [14, 13, 11]);
        assert_eq!(shown(&model, 1), [14, 13, 10]);
        assert_eq!(shown(&model, 2), [14, 13, 12, 10]);
        assert_eq!(ids(model.author(1)), [14, 13, 10]);
    }

    #[test]
    fn nothing_is_the_oldest_where_less_is_held_ready_than_can_be() {
        let home = [3, 2, 1].map(PostId);
        assert_eq!(oldest_ready(&home, 2), Some(PostId(2)));
        assert_eq!(oldest_ready(&home, 4), None);
        assert_eq!(oldest_ready(&home, 0), None);
    }

    #[test]
    fn changed_follows_count_as_they_are_in_the_end() {
        let mut changes = Changes::default();
        changes.record(Change::Unfollow { follower: 0, followee: 1 });
        changes.record(Change::Follow { follower: 0, followee: 2 });
        changes.record(Change::Follow { follower: 2, followee: 1 });
        let posts = [(1, 10), (0, 11), (2, 12)];
        let before = model(&changes, &posts, 800);
        assert_eq!(shown(&before, 0), [12, 11]);
        assert_eq!(shown(&before, 2), [12, 10]);
        changes.record(Change::Follow { follower: 0, followee: 1 });
        let model = model(&changes, &posts, 800);
        assert_eq!(shown(&model, 0), [12, 11, 10]);
    }

    #[test]
    fn the_muted_and_the_blocked_are_not_seen_nor_what_repeats_them() {
        // 11 repeats a post of account 2.
        let posts = [(0, 11), (1, 12), (1, 13), (2, 14), (2, 15)];
        let hide = |how, by, other, hides| Change::Hide { how, by, other, hides };
        let mut changes = Changes::default();
        changes.record(Change::Follow { follower: 0, followee: 2 });
        changes.record(hide(Hide::Mute, 0, 2, true));
        changes.record(hide(Hide::Block, 1, 2, true));
        let hiding = model(&changes, &posts, 3);
        assert_eq!(shown(&hiding, 0), [13, 12]);
        assert_eq!(shown(&hiding, 2), [15, 14]);
        let newest = hiding.newest(0);
        assert_eq!((ids(&newest.shown), newest.oldest_ready), (vec![13, 12], Some(PostId(13))));
        changes.record(hide(Hide::Mute, 0, 2, false));
        changes.record(hide(Hide::Block, 1, 2, false));
        let model = model(&changes, &posts, 3);
        assert_eq!(shown(&model, 0), [15, 14, 13, 12, 11]);
        assert_eq!(shown(&model, 2), [15, 14, 13, 12]);
    }

    #[test]
    fn who_reads_one_who_was_pulled_is_known() {
        let mut changes = Changes::default();
        let was_pulled = |changes: &Changes, pulled: &[UserIndex]| {
            let pulled = pulled.iter().copied().collect();
            let nothing = (std::iter::empty(), std::iter::empty());
            let model = Model::new(&graph(), changes, nothing.0, nothing.1, &pulled, 3);
            [0, 1, 2].map(|reader| model.was_pulled(reader))
        };
        assert_eq!(was_pulled(&changes, &[]), [false; 3]);
        assert_eq!(was_pulled(&changes, &[1]), [true; 3]);
        assert_eq!(was_pulled(&changes, &[0]), [true, false, false]);
        changes.record(Change::SetDelivery { author: 1, pulled: false });
        changes.record(Change::Unfollow { follower: 2, followee: 1 });
        assert_eq!(was_pulled(&changes, &[]), [true; 3]);
    }
}
