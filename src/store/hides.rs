//! Whom a reader does not see. Pure.
//!
//! [`Hides::hide`] and [`Hides::hide_message`] are the only rules of what a reader sees: every
//! read path asks them. That an account is hidden cannot be asked here, so that no path makes a
//! rule of its own.

use std::collections::BTreeSet;

use crate::domain::{Event, Message, Post, Reference, UserId};

/// How it comes that a reader does not see an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HideReason {
    /// The reader mutes it.
    Muted,
    /// The reader blocks it.
    Blocked,
    /// It blocks the reader.
    BlockedBy,
}

/// The accounts that a reader does not see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hides {
    muted: BTreeSet<UserId>,
    blocked: BTreeSet<UserId>,
    blocked_by: BTreeSet<UserId>,
}

/// A change of whom a reader does not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HideChange {
    pub(crate) reader: UserId,
    pub(crate) reason: HideReason,
    pub(crate) other: UserId,
    /// Whether it is so from now on.
    pub(crate) hides: bool,
}

impl HideReason {
    /// As it stands in stores.
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Muted => b'm',
            Self::Blocked => b'b',
            Self::BlockedBy => b'B',
        }
    }

    /// The same, read.
    pub(crate) fn of_byte(byte: u8) -> Option<Self> {
        [Self::Muted, Self::Blocked, Self::BlockedBy].into_iter().find(|it| it.byte() == byte)
    }
}

impl Hides {
    /// Whether none is hidden.
    pub fn is_empty(&self) -> bool {
        self.muted.is_empty() && self.blocked.is_empty() && self.blocked_by.is_empty()
    }

    /// Whether a post is not shown: its author is hidden, or the author of the post that it
    /// repeats, quotes or answers. The post says these itself, except one of an old log, whose
    /// reference names account 0.
    pub fn hide(&self, post: &Post) -> bool {
        let is_hidden = |reference: Reference| self.contain(reference.author);
        self.contain(post.author)
            || post.repost_of.is_some_and(is_hidden)
            || post.reply_to.is_some_and(is_hidden)
    }

    /// Whether the post that `post` repeats or quotes is not shown, where `post` itself is: a
    /// reader may ask for any post by its id.
    pub fn hide_original(&self, post: &Post) -> bool {
        post.repost_of.is_some_and(|of| self.contain(of.author))
    }

    /// Whether a message is not shown. Other recipients do not matter.
    pub fn hide_message(&self, message: &Message) -> bool {
        self.contain(message.sender)
    }

    fn contain(&self, account: UserId) -> bool {
        [&self.muted, &self.blocked, &self.blocked_by].iter().any(|them| them.contains(&account))
    }

    /// Those who are hidden for this reason, ascending.
    pub fn for_reason(&self, reason: HideReason) -> &BTreeSet<UserId> {
        match reason {
            HideReason::Muted => &self.muted,
            HideReason::Blocked => &self.blocked,
            HideReason::BlockedBy => &self.blocked_by,
        }
    }

    /// Hides an account, or no longer for this reason.
    pub(crate) fn set(&mut self, reason: HideReason, other: UserId, hides: bool) {
        let accounts = match reason {
            HideReason::Muted => &mut self.muted,
            HideReason::Blocked => &mut self.blocked,
            HideReason::BlockedBy => &mut self.blocked_by,
        };
        if hides {
            accounts.insert(other);
        } else {
            accounts.remove(&other);
        }
    }
}

/// What an event changes of whom readers do not see.
pub(crate) fn hide_changes(event: &Event) -> impl Iterator<Item = HideChange> + use<> {
    let [one, other] = match *event {
        Event::MuteChanged { muter, muted, mutes } => {
            let reason = HideReason::Muted;
            [Some(HideChange { reader: muter, reason, other: muted, hides: mutes }), None]
        }
        Event::BlockChanged { blocker, blocked, blocks } => {
            let change =
                |reader, reason, other| HideChange { reader, reason, other, hides: blocks };
            [
                Some(change(blocker, HideReason::Blocked, blocked)),
                Some(change(blocked, HideReason::BlockedBy, blocker)),
            ]
        }
        Event::PostPublished { .. }
        | Event::PostDeleted { .. }
        | Event::Followed { .. }
        | Event::Unfollowed { .. }
        | Event::ReadMarkerMoved { .. }
        | Event::PullChanged { .. }
        | Event::MessageSent { .. }
        | Event::MessageDeleted { .. } => [None, None],
    };
    one.into_iter().chain(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{MessageId, PostId, Reference};

    const ANN: UserId = UserId(1);
    const BOB: UserId = UserId(2);

    fn hides(events: &[Event], reader: UserId) -> Hides {
        let mut hides = Hides::default();
        for change in events.iter().flat_map(hide_changes) {
            if change.reader == reader {
                hides.set(change.reason, change.other, change.hides);
            }
        }
        hides
    }

    #[test]
    fn neither_sees_the_other_while_either_blocks() {
        let block = |blocker, blocked, blocks| Event::BlockChanged { blocker, blocked, blocks };
        let (of_ann, of_bob) = (Post::plain(PostId(1), ANN), Post::plain(PostId(2), BOB));
        let mut events = vec![block(ANN, BOB, true), block(BOB, ANN, true)];
        events.push(block(ANN, BOB, false));
        assert!(hides(&events, ANN).hide(&of_bob) && hides(&events, BOB).hide(&of_ann));
        assert!(!hides(&events, ANN).hide(&of_ann));
        events.push(block(BOB, ANN, false));
        assert!(hides(&events, ANN).is_empty() && hides(&events, BOB).is_empty());
    }

    #[test]
    fn muted_account_hides_reposts_and_answers_of_others() {
        let mute = |mutes| Event::MuteChanged { muter: ANN, muted: BOB, mutes };
        let repost_of = Some(Reference { post: PostId(2), author: BOB });
        let repost = Post { repost_of, ..Post::plain(PostId(3), UserId(3)) };
        let answer = Post { reply_to: repost_of, ..Post::plain(PostId(4), UserId(3)) };
        let muting = hides(&[mute(true)], ANN);
        let quote = Post { text: "look".to_owned(), ..repost.clone() };
        assert!(muting.hide(&repost) && muting.hide(&quote) && muting.hide(&answer));
        assert!(muting.hide_original(&quote) && !muting.hide_original(&answer));
        let mention = Post { mentions: vec![BOB], ..Post::plain(PostId(5), UserId(3)) };
        assert!(!muting.hide(&mention));
        assert!(hides(&[mute(true)], BOB).is_empty());
        assert!(!hides(&[mute(true), mute(false)], ANN).hide(&repost));
    }

    #[test]
    fn message_is_hidden_for_its_sender_alone() {
        let message = |sender, recipients: &[UserId]| Message {
            id: MessageId(1),
            sender,
            recipients: recipients.to_vec(),
            text: "psst".to_owned(),
        };
        let muting = hides(&[Event::MuteChanged { muter: ANN, muted: BOB, mutes: true }], ANN);
        assert!(muting.hide_message(&message(BOB, &[ANN])));
        assert!(!muting.hide_message(&message(UserId(3), &[ANN, BOB])));
        assert!(!muting.hide_message(&message(ANN, &[BOB])));
    }

    #[test]
    fn reasons_are_read_as_they_were_written() {
        for reason in [HideReason::Muted, HideReason::Blocked, HideReason::BlockedBy] {
            assert_eq!(HideReason::of_byte(reason.byte()), Some(reason));
        }
        assert_eq!(HideReason::of_byte(b'x'), None);
    }
}
