//! Which posts of a home timeline a read shows. Pure.

use crate::{
    domain::{Origin, Post, UserId},
    store::Hides,
};

/// What a reader asks to see of a home timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Posts of these origins; of all, if there are none here.
    pub origins: Vec<Origin>,
    /// Of the answers to others only those to accounts that the reader follows too.
    pub followed_replies_only: bool,
    /// Also reposts of what is shown near by.
    pub all_reposts: bool,
}

impl Filter {
    /// Whether it lets the posts of all through.
    pub fn is_open(&self) -> bool {
        self.origins.is_empty() && !self.followed_replies_only
    }

    /// Whether a post is one to show, as far as it can tell without asking whom the reader
    /// follows.
    pub(super) fn shows(&self, hides: &Hides, post: &Post) -> bool {
        !hides.hide(post) && (self.origins.is_empty() || self.origins.contains(&post.origin))
    }

    /// Whom `reader` must follow for a post to be shown, beside its author.
    pub(super) fn other_side(&self, reader: UserId, post: &Post) -> Option<UserId> {
        let other = post.reply_to.filter(|_| self.followed_replies_only)?.author;
        // Answers of an older log do not say whom they answer.
        let is_known = other != UserId(0);
        // What the reader writes, and what is written to the reader, has both sides.
        (is_known && other != reader && other != post.author && post.author != reader)
            .then_some(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{PostId, Reference};

    const ANN: UserId = UserId(1);
    const BOB: UserId = UserId(2);
    const CEM: UserId = UserId(3);

    #[test]
    fn origins_that_are_named_are_shown_and_no_others() {
        let rss = Post { origin: Origin::Rss, ..Post::plain(PostId(1), BOB) };
        let shared = Post::plain(PostId(2), BOB);
        let shows = |origins: &[Origin], post| {
            let filter = Filter { origins: origins.to_vec(), ..Filter::default() };
            filter.shows(&Hides::default(), post)
        };
        assert!(shows(&[], &rss) && shows(&[], &shared));
        assert!(shows(&[Origin::Rss], &rss) && !shows(&[Origin::Rss], &shared));
        assert!(shows(&[Origin::Exclusive, Origin::Shared], &shared));
    }

    #[test]
    fn an_answer_has_another_side_unless_it_is_the_readers_or_the_authors_own() {
        let answer = |author, to| Post {
            reply_to: Some(Reference { post: PostId(1), author: to }),
            ..Post::plain(PostId(2), author)
        };
        let both = Filter { followed_replies_only: true, ..Filter::default() };
        assert_eq!(both.other_side(ANN, &answer(BOB, CEM)), Some(CEM));
        assert_eq!(both.other_side(ANN, &answer(BOB, ANN)), None);
        assert_eq!(both.other_side(ANN, &answer(BOB, BOB)), None);
        assert_eq!(both.other_side(ANN, &answer(ANN, CEM)), None);
        assert_eq!(both.other_side(ANN, &Post::plain(PostId(1), BOB)), None);
        assert_eq!(both.other_side(ANN, &answer(BOB, UserId(0))), None);
        assert_eq!(Filter::default().other_side(ANN, &answer(BOB, CEM)), None);
    }
}
