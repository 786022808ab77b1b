//! The pull definition, by brute force, from the log alone.
//!
//! home(u) = the posts among those written by u and by the accounts u follows now, newest
//! first, without the deleted, the muted and the blocked. The newest CAP are held ready, those
//! of hidden accounts among them; the others are pulled.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use roost::{
    domain::{Event, PostId, UserId},
    event_log::codec,
};

#[derive(Debug, Default)]
pub struct Model {
    /// The posts that are there, by id.
    pub posts: BTreeMap<PostId, UserId>,
    /// Follower, followee.
    pub follows: BTreeSet<(UserId, UserId)>,
    pub read_markers: HashMap<UserId, PostId>,
    /// Muter, muted.
    pub mutes: BTreeSet<(UserId, UserId)>,
    /// Blocker, blocked.
    pub blocks: BTreeSet<(UserId, UserId)>,
    /// What each request made.
    pub requests: HashMap<(UserId, String), PostId>,
    /// Everyone who ever posted what, deleted or not.
    pub authors: HashMap<PostId, UserId>,
}

impl Model {
    /// What a log says. An author's events are all in one partition, so the order
    /// between partitions does not matter.
    pub fn of(log: &[Vec<Bytes>]) -> Self {
        let mut model = Self::default();
        for payload in log.iter().flatten() {
            match codec::decode(payload).expect("the simulation wrote it") {
                Event::PostPublished { post, request_id } => {
                    if let Some(request_id) = request_id {
                        let key = (post.author, request_id);
                        if model.requests.contains_key(&key) {
                            continue;
                        }
                        model.requests.insert(key, post.id);
                    }
                    model.posts.insert(post.id, post.author);
                    model.authors.insert(post.id, post.author);
                }
                Event::PostDeleted { post, .. } => {
                    model.posts.remove(&post);
                }
                Event::Followed { followee, followers } => {
                    model
                        .follows
                        .extend(followers.into_iter().map(|follower| (follower, followee)));
                }
                Event::Unfollowed { followee, follower } => {
                    model.follows.remove(&(follower, followee));
                }
                Event::ReadMarkerMoved { reader, post } => {
                    let marker = model.read_markers.entry(reader).or_insert(post);
                    *marker = post.max(*marker);
                }
                Event::MuteChanged { muter, muted, mutes: true } => {
                    model.mutes.insert((muter, muted));
                }
                Event::MuteChanged { muter, muted, mutes: false } => {
                    model.mutes.remove(&(muter, muted));
                }
                Event::BlockChanged { blocker, blocked, blocks: true } => {
                    model.blocks.insert((blocker, blocked));
                }
                Event::BlockChanged { blocker, blocked, blocks: false } => {
                    model.blocks.remove(&(blocker, blocked));
                }
            }
        }
        model
    }

    pub fn home(&self, reader: UserId) -> Vec<PostId> {
        let is_read = |author| author == reader || self.follows.contains(&(reader, author));
        let of_those = self.posts.iter().rev().filter(|(_, author)| is_read(**author));
        of_those.filter(|(_, author)| !self.hides(reader, **author)).map(|(id, _)| *id).collect()
    }

    /// The home timeline as it is held ready: with those whom the reader hides.
    pub fn delivered(&self, reader: UserId) -> Vec<PostId> {
        let seeing =
            Self { posts: self.posts.clone(), follows: self.follows.clone(), ..Self::default() };
        seeing.home(reader)
    }

    fn hides(&self, reader: UserId, author: UserId) -> bool {
        self.mutes.contains(&(reader, author))
            || self.blocks.contains(&(reader, author))
            || self.blocks.contains(&(author, reader))
    }
}
