//! The pull definition, by brute force, from the log alone.
//!
//! home(u) = the newest CAP posts among those written by u and by the accounts u
//! follows now, newest first, without the deleted.

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
            }
        }
        model
    }

    pub fn home(&self, reader: UserId, cap: usize) -> Vec<PostId> {
        let is_read = |author: UserId| author == reader || self.follows.contains(&(reader, author));
        let newest_first = self.posts.iter().rev();
        newest_first.filter(|(_, author)| is_read(**author)).map(|(id, _)| *id).take(cap).collect()
    }
}
