//! What a batch of events comes to in the end. Pure.
//!
//! A batch is applied as a whole, again and again if need be until it holds, and
//! what came and went within it never shows.
//!
//! A request whose outcome nobody knew may be in the log twice. Its first event
//! counts, wherever it stands; one that is read again is known by its offset. Where the
//! store has lost what the first one made, it may have taken a later one for it. When
//! both are read again the first counts, and what the later one made is taken back.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::damaged;
use crate::{
    domain::{Event, Post, PostId, UserId},
    store::{HideReason, StoreError, hides::hide_changes},
};

/// The outcome of a batch.
#[derive(Debug, Default)]
pub(super) struct Fold<'a> {
    /// New posts that outlive the batch.
    pub(super) posts: Vec<&'a Post>,
    /// Requests and the posts that they made.
    pub(super) requests: Vec<(UserId, &'a str, Made)>,
    /// Posts that end, with their authors.
    pub(super) deleted: BTreeMap<PostId, UserId>,
    /// For each followee, who follows it and who no longer does.
    pub(super) follows: BTreeMap<UserId, BTreeMap<UserId, bool>>,
    /// For each reader, whom it hides or no longer does.
    pub(super) hides: BTreeMap<UserId, BTreeMap<(HideReason, UserId), bool>>,
    /// Authors whose posts are no longer pushed from some event on.
    pub(super) pulled: BTreeSet<UserId>,
    /// How far readers have read.
    pub(super) read_markers: BTreeMap<UserId, PostId>,
    /// Everybody whom an event names, unless by a post that is there to tell.
    pub(super) accounts: BTreeSet<UserId>,
    /// Posts that are not to be made, ascending: their author's request made another
    /// one before.
    pub(super) duplicates: Vec<PostId>,
    /// Those of them that the store may have all the same, with their authors: posts of
    /// their own, by a request whose first event made another.
    pub(super) doubtful: BTreeMap<PostId, UserId>,
    /// The greatest id of a post or a message, or 0.
    pub(super) greatest_post: u64,
}

/// What a request made: a post or a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Made {
    /// Its id.
    pub(super) id: u64,
    /// Where its event stands in the partition of whoever asked.
    pub(super) offset: u64,
}

impl Made {
    /// What counts of a request: what its first event has made, this one or another that is
    /// known, which is noted.
    pub(super) fn or_earlier<'a>(
        self,
        known: &mut HashMap<(UserId, &'a str), Self>,
        request: (UserId, &'a str),
    ) -> Self {
        let first = known.entry(request).or_insert(self);
        if self.offset < first.offset {
            *first = self;
        }
        *first
    }

    /// As it stands in Redis.
    pub(super) fn bytes(self) -> [u8; 16] {
        (u128::from(self.id) << 64 | u128::from(self.offset)).to_be_bytes()
    }

    /// The same, read.
    ///
    /// # Errors
    /// If it is not of that length.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        let both = bytes.try_into().map_err(|_| damaged("what a request has made"))?;
        let both = u128::from_be_bytes(both);
        Ok(Self { id: (both >> 64) as u64, offset: both as u64 })
    }
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
    /// Folds events that begin at `first_offset`, of whose requests some have made
    /// these posts before. They are the end of a batch that begins at `batch_offset`: what is
    /// before them in it was applied by an earlier try.
    pub(super) fn new(
        batch_offset: u64,
        first_offset: u64,
        events: &'a [Event],
        made: &HashMap<(UserId, &str), Made>,
    ) -> Self {
        let mut fold = Self::default();
        let mut first = made.clone();
        for (offset, event) in (first_offset..).zip(events) {
            match event {
                Event::PostPublished { post, request_id } => {
                    fold.greatest_post = fold.greatest_post.max(post.id.0);
                    if let Some(request_id) = request_id {
                        let key = (post.author, request_id.as_str());
                        let this = Made { id: post.id.0, offset };
                        let first = this.or_earlier(&mut first, key);
                        if first != this {
                            if first.id != this.id {
                                fold.doubtful.insert(post.id, post.author);
                            }
                            // The same post may be new in this batch all the same, or have
                            // been applied and not delivered.
                            if first.id != this.id || first.offset < batch_offset {
                                fold.duplicates.push(post.id);
                            }
                            continue;
                        }
                        fold.requests.push((post.author, request_id, this));
                    }
                    fold.accounts.extend(&post.mentions);
                    fold.posts.push(post);
                }
                Event::PostDeleted { post, author } => {
                    // Its posts may have been all that named it.
                    fold.accounts.insert(*author);
                    fold.deleted.insert(*post, *author);
                }
                Event::Followed { followee, followers } => {
                    fold.accounts.insert(*followee);
                    fold.accounts.extend(followers);
                    let changes = fold.follows.entry(*followee).or_default();
                    changes.extend(followers.iter().map(|follower| (*follower, true)));
                }
                Event::Unfollowed { followee, follower } => {
                    fold.accounts.extend([*followee, *follower]);
                    fold.follows.entry(*followee).or_default().insert(*follower, false);
                }
                Event::PullChanged { author, pulled } => {
                    fold.accounts.insert(*author);
                    fold.pulled.extend(pulled.then_some(*author));
                }
                // What becomes of them is in a fold of its own (`messages`).
                Event::MessageSent { message, .. } => {
                    fold.greatest_post = fold.greatest_post.max(message.id.0);
                    fold.accounts.insert(message.sender);
                    fold.accounts.extend(&message.recipients);
                }
                Event::MessageDeleted { sender, .. } => {
                    fold.accounts.insert(*sender);
                }
                Event::ReadMarkerMoved { reader, post } => {
                    fold.accounts.insert(*reader);
                    let marker = fold.read_markers.entry(*reader).or_insert(*post);
                    *marker = (*marker).max(*post);
                }
                Event::MuteChanged { muter: one, muted: other, .. }
                | Event::BlockChanged { blocker: one, blocked: other, .. } => {
                    fold.accounts.extend([*one, *other]);
                    for change in hide_changes(event) {
                        let of_reader = fold.hides.entry(change.reader).or_default();
                        of_reader.insert((change.reason, change.other), change.hides);
                    }
                }
            }
        }
        let mut seen = HashSet::new();
        fold.posts.retain(|post| !fold.deleted.contains_key(&post.id) && seen.insert(post.id));
        fold.duplicates.sort_unstable();
        fold.duplicates.dedup();
        fold
    }

    /// Has the doubtful ones taken out, as the deleted are, for events that are read again.
    pub(super) fn take_back_doubtful(&mut self) {
        self.deleted.append(&mut self.doubtful);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHOR: UserId = UserId(1);

    fn published(id: u64) -> Event {
        let post = Post::plain(PostId(id), AUTHOR);
        Event::PostPublished { post, request_id: Some("a".to_owned()) }
    }

    /// The posts and the duplicates of events that begin at offset 10.
    fn fold(events: &[Event], made: Option<(u64, u64)>) -> (Vec<u64>, Vec<u64>) {
        let made = made.map(|(id, offset)| Made { id, offset });
        let made = made.map(|made| ((AUTHOR, "a"), made)).into_iter().collect();
        let fold = Fold::new(10, 10, events, &made);
        let posts = fold.posts.iter().map(|post| post.id.0).collect();
        (posts, fold.duplicates.iter().map(|post| post.0).collect())
    }

    #[test]
    fn the_first_event_of_a_request_counts() {
        assert_eq!(fold(&[published(5)], None), (vec![5], vec![]));
        assert_eq!(fold(&[published(5), published(6)], None), (vec![5], vec![6]));
        assert_eq!(fold(&[published(6)], Some((5, 3))), (vec![], vec![6]));
    }

    #[test]
    fn a_later_event_that_was_taken_for_the_first_is_so_no_more_once_both_are_read_again() {
        let made = Made { id: 6, offset: 11 };
        let made = [((AUTHOR, "a"), made)].into();
        let events = [published(5), published(6)];
        let fold = Fold::new(10, 10, &events, &made);
        assert!(fold.posts.iter().map(|post| post.id).eq([PostId(5)]));
        assert_eq!(fold.requests, [(AUTHOR, "a", Made { id: 5, offset: 10 })]);
        assert_eq!(fold.duplicates, [PostId(6)]);
        assert_eq!(fold.doubtful, [(PostId(6), AUTHOR)].into());
        // The same post in both: there is nothing to take back.
        let made = [((AUTHOR, "a"), Made { id: 5, offset: 11 })].into();
        let events = [published(5), published(5)];
        let fold = Fold::new(10, 10, &events, &made);
        assert_eq!((fold.posts.len(), fold.duplicates.len(), fold.doubtful.len()), (1, 0, 0));
    }

    #[test]
    fn the_same_event_is_read_again() {
        assert_eq!(fold(&[published(5)], Some((5, 10))), (vec![5], vec![]));
    }

    #[test]
    fn the_same_post_written_again_is_made_once() {
        // Both in one batch: it is new, and delivered once.
        assert_eq!(fold(&[published(5), published(5)], None), (vec![5], vec![]));
        // The first before: it may have been deleted since.
        assert_eq!(fold(&[published(5)], Some((5, 9))), (vec![], vec![5]));
        // Both are read again.
        assert_eq!(fold(&[published(5), published(5)], Some((5, 10))), (vec![5], vec![]));
    }

    /// A duplicate would have its whole post left out of what the batch delivers.
    #[test]
    fn post_repeated_behind_its_applied_event_is_no_duplicate() {
        let (events, made) = ([published(5)], [((AUTHOR, "a"), Made { id: 5, offset: 10 })].into());
        let fold = Fold::new(10, 11, &events, &made);
        assert!(fold.posts.is_empty() && fold.duplicates.is_empty(), "{fold:?}");
        assert_eq!(Fold::new(11, 11, &events, &made).duplicates, [PostId(5)]);
    }

    #[test]
    fn what_a_request_made_is_read_as_it_was_written() {
        let made = Made { id: u64::MAX - 1, offset: 7 };
        assert_eq!(Made::read(&made.bytes()).unwrap(), made);
        assert!(Made::read(&[1; 8]).is_err());
    }
}
