//! What a reader should not miss of what has come since it last looked. Pure.
//!
//! Who follows 500 accounts sees only those who post most. So of each author a few posts at
//! most are shown, in this order, which depends on nothing but the posts:
//!
//! 1. what is said to the reader: answers to its posts and posts that mention it, newest
//!    first, all of them;
//! 2. exclusive posts: the newest of every author, newest first, then the second of every
//!    author, and so on;
//! 3. all others, in the same way.
//!
//! An author's few posts are its newest, exclusive ones before others; what is said to the
//! reader does not count among them.

use std::{cmp::Reverse, collections::HashMap};

use crate::domain::{Origin, Post, PostId, UserId};

/// Why a post is shown; the first are shown first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It answers one of the reader's, or mentions the reader.
    Conversation,
    /// It is found nowhere else.
    Exclusive,
    /// It is one of the newest of its author.
    Voice,
}

/// Where a post stands: among those of its reason, in which round of authors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Why it is shown.
    pub reason: Reason,
    /// How many of its author come before it, for the same reason.
    pub round: u32,
    /// Newest first.
    pub post: Reverse<PostId>,
}

/// The posts to show out of those that are new, in their order. The reader's own are none.
pub fn catch_up<'a>(
    reader: UserId,
    new: impl IntoIterator<Item = &'a Post>,
    per_author_max: u32,
) -> Vec<Place> {
    let mut posts: Vec<(Reason, Reverse<PostId>, UserId)> = new
        .into_iter()
        .filter(|post| post.author != reader)
        .map(|post| (reason(reader, post), Reverse(post.id), post.author))
        .collect();
    posts.sort_unstable();
    let (mut of_author, mut of_reason) = (HashMap::new(), HashMap::new());
    let mut places = Vec::new();
    for (reason, post, author) in posts {
        let mut round = 0;
        if reason != Reason::Conversation {
            let count = of_author.entry(author).or_insert(0);
            if *count == per_author_max {
                continue;
            }
            *count += 1;
            let rounds = of_reason.entry((author, reason)).or_insert(0);
            round = *rounds;
            *rounds += 1;
        }
        places.push(Place { reason, round, post });
    }
    places.sort_unstable();
    places
}

fn reason(reader: UserId, post: &Post) -> Reason {
    let answers = post.reply_to.is_some_and(|answered| answered.author == reader);
    if answers || post.mentions.contains(&reader) {
        Reason::Conversation
    } else if post.origin == Origin::Exclusive {
        Reason::Exclusive
    } else {
        Reason::Voice
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Reference;

    const READER: UserId = UserId(1);

    fn post(id: u64, author: u64, origin: Origin) -> Post {
        Post { origin, ..Post::plain(PostId(id), UserId(author)) }
    }

    fn ids(places: &[Place]) -> Vec<u64> {
        places.iter().map(|place| place.post.0.0).collect()
    }

    #[test]
    fn every_voice_is_heard_before_any_is_heard_twice() {
        let mut posts: Vec<Post> = (10..20).map(|id| post(id, 2, Origin::Shared)).collect();
        posts.push(post(5, 3, Origin::Rss));
        posts.push(post(6, 4, Origin::Shared));
        posts.push(post(3, 4, Origin::Shared));
        assert_eq!(ids(&catch_up(READER, &posts, 3)), [19, 6, 5, 18, 3, 17]);
        assert_eq!(ids(&catch_up(READER, &posts, 1)), [19, 6, 5]);
    }

    #[test]
    fn conversations_come_first_then_what_is_exclusive() {
        let answered = Some(Reference { post: PostId(1), author: READER });
        let answer = |id| Post { reply_to: answered, ..post(id, 2, Origin::Shared) };
        let posts = [
            answer(10),
            answer(11),
            answer(12),
            post(13, 2, Origin::Exclusive),
            post(20, 2, Origin::Shared),
            post(21, 2, Origin::Shared),
            post(15, 3, Origin::Exclusive),
            post(30, 1, Origin::Exclusive),
            Post { mentions: vec![READER], ..post(9, 3, Origin::Shared) },
            Post { mentions: vec![UserId(4)], ..post(8, 3, Origin::Shared) },
        ];
        // Of account 2 all answers, the exclusive one, and one of the others.
        assert_eq!(ids(&catch_up(READER, &posts, 2)), [12, 11, 10, 9, 15, 13, 21, 8]);
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_the_posts_alone_and_nobody_has_more_than_allowed(
            drawn in proptest::collection::btree_map(1..200_u64, (1..6_u64, 0..3_u8), 0..60),
            per_author_max in 1..5_u32,
        ) {
            let origin = |number| [Origin::Rss, Origin::Shared, Origin::Exclusive][number as usize];
            let posts: Vec<Post> = drawn
                .iter()
                .map(|(id, (author, number))| post(*id, *author, origin(*number)))
                .collect();
            let places = catch_up(READER, &posts, per_author_max);
            prop_assert_eq!(&places, &catch_up(READER, posts.iter().rev(), per_author_max));
            prop_assert!(places.is_sorted_by(|one, other| one < other));
            for author in 1..6 {
                let all = drawn.values().filter(|(of, _)| *of == author).count();
                let shown = ids(&places).iter().filter(|id| drawn[id].0 == author).count();
                let expected = if author == 1 { 0 } else { all.min(per_author_max as usize) };
                prop_assert_eq!(shown, expected);
            }
        }
    }
}
