//! What a batch of events comes to in the end. Pure.
//!
//! A batch is applied as a whole, again and again if need be until it holds, and
//! what came and went within it never shows.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::domain::{Event, Post, PostId, UserId};

/// The outcome of a batch.
#[derive(Debug, Default)]
pub(super) struct Fold<'a> {
    /// New posts that outlive the batch.
    pub(super) posts: Vec<&'a Post>,
    /// Requests and the posts that they made.
    pub(super) requests: Vec<(UserId, &'a str, PostId)>,
    /// Posts that end, with their authors.
    pub(super) deleted: BTreeMap<PostId, UserId>,
    /// For each followee, who follows it and who no longer does.
    pub(super) follows: BTreeMap<UserId, BTreeMap<UserId, bool>>,
    /// Everybody whom an event names.
    pub(super) accounts: BTreeSet<UserId>,
    /// Posts that are not to be made, ascending: their author's request made another
    /// one before.
    pub(super) duplicates: Vec<PostId>,
    /// The greatest id of a post, or 0.
    pub(super) greatest_post: u64,
}

/// The requests that a batch names, each once.
pub(super) fn requests(events: &[Event]) -> Vec<(UserId, &str)> {
    let mut requests: Vec<(UserId, &str)> = events
        .iter()
        .filter_map(|event| match event {
            Event::PostPublished { post, request_id: Some(request_id) } => {
                Some((post.author, request_id.as_str()))
            }
            _ => None,
        })
        .collect();
    requests.sort_unstable();
    requests.dedup();
    requests
}

impl<'a> Fold<'a> {
    /// Folds events, of whose requests some have made these posts before.
    pub(super) fn new(events: &'a [Event], made: &HashMap<(UserId, &str), PostId>) -> Self {
        let mut fold = Self::default();
        let mut first = made.clone();
        for event in events {
            fold.accounts.insert(event.key());
            match event {
                Event::PostPublished { post, request_id } => {
                    fold.greatest_post = fold.greatest_post.max(post.id.0);
                    if let Some(request_id) = request_id {
                        let key = (post.author, request_id.as_str());
                        if *first.entry(key).or_insert(post.id) != post.id {
                            fold.duplicates.push(post.id);
                            continue;
                        }
                        fold.requests.push((post.author, request_id, post.id));
                    }
                    fold.posts.push(post);
                }
                Event::PostDeleted { post, author } => {
                    fold.deleted.insert(*post, *author);
                }
                Event::Followed { followee, followers } => {
                    fold.accounts.extend(followers);
                    let changes = fold.follows.entry(*followee).or_default();
                    changes.extend(followers.iter().map(|follower| (*follower, true)));
                }
                Event::Unfollowed { followee, follower } => {
                    fold.accounts.insert(*follower);
                    fold.follows.entry(*followee).or_default().insert(*follower, false);
                }
            }
        }
        let mut seen = HashSet::new();
        fold.posts.retain(|post| !fold.deleted.contains_key(&post.id) && seen.insert(post.id));
        fold.duplicates.sort_unstable();
        fold.duplicates.dedup();
        fold
    }
}
