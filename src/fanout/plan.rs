//! What a batch of events means for home timelines. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::domain::{Event, PostId, UserId};

/// What is left to do for home timelines once a batch holds in the ledger.
///
/// A home timeline depends on what holds in the end, not on the way there, so a
/// post that is deleted in its own batch is not delivered, and a follow that was
/// changed is looked up once the batch holds, however often it was changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The new posts of each author, with the offset of the author's first event.
    pub posted: BTreeMap<UserId, Posted>,
    /// The posts deleted: author, post, offset.
    pub deleted: Vec<(UserId, PostId, u64)>,
    /// For each followee, whose follow of it was changed.
    pub follows: BTreeMap<UserId, BTreeSet<UserId>>,
    /// Whose posts are pulled from now on, or pushed again.
    pub pulls: HashMap<UserId, bool>,
    /// Authors who were pulled and no longer are, with the offset of the event that says
    /// so: what was not pushed is to be brought to their followers.
    pub returned: BTreeMap<UserId, u64>,
}

/// New posts of one author.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Posted {
    /// The offset of the first of them.
    pub offset: u64,
    /// In the order of the log.
    pub ids: Vec<PostId>,
}

/// Plans the effects of events that begin at `first_offset`, of which the posts
/// in `absent` (ascending) are not there; before them these authors are `pulled`.
pub fn plan(
    first_offset: u64,
    events: &[Event],
    absent: &[PostId],
    pulled: &HashSet<UserId>,
) -> Effects {
    let deleted: HashSet<PostId> = events
        .iter()
        .filter_map(|event| match event {
            Event::PostDeleted { post, .. } => Some(*post),
            _ => None,
        })
        .collect();
    let mut effects = Effects::default();
    // One that is in the log twice, since nobody knew whether it was, is one post.
    let mut seen = HashSet::new();
    for (offset, event) in (first_offset..).zip(events) {
        match event {
            Event::PostPublished { post, .. } => {
                let is_there =
                    !deleted.contains(&post.id) && absent.binary_search(&post.id).is_err();
                let is_pulled = effects.is_pulled(post.author, pulled);
                if is_there && !is_pulled && seen.insert(post.id) {
                    effects
                        .posted
                        .entry(post.author)
                        .or_insert_with(|| Posted { offset, ids: Vec::new() })
                        .ids
                        .push(post.id);
                }
            }
            Event::PostDeleted { post, author } => effects.deleted.push((*author, *post, offset)),
            Event::Followed { followee, followers } => {
                effects.follows.entry(*followee).or_default().extend(followers);
            }
            Event::Unfollowed { followee, follower } => {
                effects.follows.entry(*followee).or_default().insert(*follower);
            }
            Event::PullChanged { author, pulled: true } => {
                effects.returned.remove(author);
                effects.pulls.insert(*author, true);
            }
            // Though it may be known to have returned: what was brought to its followers for
            // that may be lost.
            Event::PullChanged { author, pulled: false } => {
                effects.returned.insert(*author, offset);
                effects.pulls.insert(*author, false);
            }
            // Whom a reader hides is left out of what is read, and how far it has read
            // changes nothing in its timeline.
            Event::MuteChanged { .. }
            | Event::BlockChanged { .. }
            | Event::ReadMarkerMoved { .. } => {}
            // No timeline ever has a message.
            Event::MessageSent { .. } | Event::MessageDeleted { .. } => {}
        }
    }
    effects
}

/// Whether these may be applied beside what is being written: only what is new may, and
/// nothing that ends a follow or takes a post away, which a push that comes after it would
/// bring back.
pub fn are_only_new(events: &[Event]) -> bool {
    events.iter().all(|event| match event {
        Event::PostPublished { .. } => true,
        // They are left out of what is read, and change nothing in timelines.
        Event::MuteChanged { .. }
        | Event::BlockChanged { .. }
        | Event::ReadMarkerMoved { .. }
        | Event::MessageSent { .. }
        | Event::MessageDeleted { .. } => true,
        Event::PostDeleted { .. }
        | Event::Followed { .. }
        | Event::Unfollowed { .. }
        | Event::PullChanged { .. } => false,
    })
}

impl Effects {
    fn is_pulled(&self, author: UserId, before: &HashSet<UserId>) -> bool {
        self.pulls.get(&author).copied().unwrap_or_else(|| before.contains(&author))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Post;

    const AUTHOR: UserId = UserId(1);
    const READER: UserId = UserId(2);

    fn published(id: u64) -> Event {
        let post = Post::plain(PostId(id), AUTHOR);
        Event::PostPublished { post, request_id: None }
    }

    #[test]
    fn posts_are_gathered_by_author() {
        let effects = plan(7, &[published(10), published(11)], &[], &HashSet::new());
        let expected = Posted { offset: 7, ids: vec![PostId(10), PostId(11)] };
        assert_eq!(effects.posted[&AUTHOR], expected);
    }

    #[test]
    fn a_post_deleted_in_its_own_batch_and_an_absent_one_are_not_delivered() {
        let deleted = Event::PostDeleted { post: PostId(10), author: AUTHOR };
        let effects =
            plan(0, &[published(10), published(11), deleted], &[PostId(11)], &HashSet::new());
        assert!(effects.posted.is_empty());
        assert_eq!(effects.deleted, [(AUTHOR, PostId(10), 2)]);
    }

    #[test]
    fn a_changed_follow_is_named_once() {
        let followed = Event::Followed { followee: AUTHOR, followers: vec![READER, UserId(3)] };
        let unfollowed = Event::Unfollowed { followee: AUTHOR, follower: READER };
        let effects = plan(0, &[followed, unfollowed], &[], &HashSet::new());
        assert_eq!(effects.follows[&AUTHOR], [READER, UserId(3)].into());
    }

    #[test]
    fn what_an_author_posts_while_it_is_pulled_is_not_delivered() {
        let change = |pulled| Event::PullChanged { author: AUTHOR, pulled };
        let events = [
            published(10),
            change(true),
            published(11),
            change(false),
            published(12),
            change(false),
        ];
        let planned = |events: &[Event], pulled: &[UserId]| {
            let effects = plan(7, events, &[], &pulled.iter().copied().collect());
            let ids = effects.posted.get(&AUTHOR).map(|posted| posted.ids.clone());
            (ids.unwrap_or_default(), effects.returned.get(&AUTHOR).copied())
        };
        assert_eq!(planned(&events, &[]), (vec![PostId(10), PostId(12)], Some(12)));
        assert_eq!(planned(&events, &[AUTHOR]), (vec![PostId(12)], Some(12)));
        assert_eq!(planned(&events[..3], &[]), (vec![PostId(10)], None));
        assert_eq!(planned(&events[4..], &[]), (vec![PostId(12)], Some(8)));
        let again = [change(false), published(10), change(true)];
        assert_eq!(planned(&again, &[AUTHOR]), (vec![PostId(10)], None));
    }
    #[test]
    fn what_a_push_could_undo_is_not_applied_beside_one() {
        let muted = Event::MuteChanged { muter: READER, muted: AUTHOR, mutes: true };
        let read = Event::ReadMarkerMoved { reader: READER, post: PostId(10) };
        let new = [published(10), muted, read];
        assert!(are_only_new(&new));
        assert!(are_only_new(&[]));
        for other in [
            Event::PostDeleted { post: PostId(10), author: AUTHOR },
            Event::Followed { followee: AUTHOR, followers: vec![READER] },
            Event::Unfollowed { followee: AUTHOR, follower: READER },
            Event::PullChanged { author: AUTHOR, pulled: true },
        ] {
            let among_new: Vec<Event> = new.iter().cloned().chain([other.clone()]).collect();
            assert!(!are_only_new(&among_new), "{other:?}");
        }
    }
}
