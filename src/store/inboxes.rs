//! What an account is told of, and its messages: the part that has I/O is a face of the store,
//! the rest is pure.
//!
//! The events of many partitions write the list of one account. So it is a set that keeps
//! its newest: whatever the order in which ids come to it, and however often, what is left
//! is the same.

use std::{collections::BTreeSet, future::Future};

use super::StoreError;
use crate::domain::{Message, MessageId, Post, PostId, UserId};

/// The lists of what accounts are told of, and direct messages.
pub trait Inboxes: Send + Sync + 'static {
    /// The newest posts that an account is told of, newest first: as many as its home
    /// timeline holds ready. Those that are deleted since, or of hidden accounts, are among
    /// them.
    fn notifications(
        &self,
        account: UserId,
    ) -> impl Future<Output = Result<Vec<PostId>, StoreError>> + Send;

    /// The newest messages that an account has received or sent, newest first: as many as
    /// notifications. Those that are deleted since, or of hidden accounts, are among them.
    fn message_ids(
        &self,
        account: UserId,
        side: MessageSide,
    ) -> impl Future<Output = Result<Vec<MessageId>, StoreError>> + Send;

    /// The messages that exist among `ids`, in the same places.
    fn messages(
        &self,
        ids: &[MessageId],
    ) -> impl Future<Output = Result<Vec<Option<Message>>, StoreError>> + Send;

    /// The message that a sender's request has made, if it has made one yet.
    fn message_of_request(
        &self,
        sender: UserId,
        request_id: &str,
    ) -> impl Future<Output = Result<Option<MessageId>, StoreError>> + Send;
}

/// One side of an account's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageSide {
    /// Those that were sent to it.
    Received,
    /// Those that it has sent.
    Sent,
}

/// Why an account is told of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotifyReason {
    /// The post mentions it.
    Mention,
    /// The post answers one of its own.
    Reply,
    /// The post repeats one of its own.
    Repost,
}

/// Whom a post is told to, and why: nobody of what they write themselves.
pub fn notified(post: &Post) -> BTreeSet<(UserId, NotifyReason)> {
    let mentions = post.mentions.iter().map(|user| (*user, NotifyReason::Mention));
    let reply = post.reply_to.map(|reference| (reference.author, NotifyReason::Reply));
    let repost = post.repost_of.map(|reference| (reference.author, NotifyReason::Repost));
    let all = mentions.chain(reply).chain(repost);
    // Posts of an older log do not say whose post they refer to.
    all.filter(|(user, _)| *user != post.author && *user != UserId(0)).collect()
}

/// Which of an account's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum InboxList {
    /// Posts that it is told of.
    Notifications,
    /// Messages that were sent to it.
    Received,
    /// Messages that it has sent.
    Sent,
}

impl InboxList {
    pub(crate) const ALL: [Self; 3] = [Self::Notifications, Self::Received, Self::Sent];

    /// As it stands in keys.
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Notifications => b'n',
            Self::Received => b'i',
            Self::Sent => b's',
        }
    }
}

impl From<MessageSide> for InboxList {
    fn from(side: MessageSide) -> Self {
        match side {
            MessageSide::Received => Self::Received,
            MessageSide::Sent => Self::Sent,
        }
    }
}

/// An id in an account's list.
pub(crate) type InboxEntry = (UserId, InboxList, u64);

/// What a post puts into lists, each entry once.
pub(crate) fn entries_of_post(post: &Post) -> BTreeSet<InboxEntry> {
    let users = notified(post).into_iter().map(|(user, _)| user);
    users.map(|user| (user, InboxList::Notifications, post.id.0)).collect()
}

/// What a message puts into lists.
pub(crate) fn entries_of_message(message: &Message) -> BTreeSet<InboxEntry> {
    let received = message.recipients.iter().map(|user| (*user, InboxList::Received));
    let all = received.chain([(message.sender, InboxList::Sent)]);
    all.map(|(user, list)| (user, list, message.id.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Reference;

    const ANN: UserId = UserId(1);
    const BOB: UserId = UserId(2);
    const CEM: UserId = UserId(3);

    #[test]
    fn a_post_is_told_to_whom_it_concerns_with_all_reasons_and_not_to_its_author() {
        let reference = |author| Some(Reference { post: PostId(1), author });
        let post = |reply_to, repost_of, mentions: &[UserId]| Post {
            reply_to,
            repost_of,
            mentions: mentions.to_vec(),
            ..Post::plain(PostId(2), ANN)
        };
        let told = notified(&post(reference(BOB), reference(CEM), &[BOB]));
        let (reply, repost) = (NotifyReason::Reply, NotifyReason::Repost);
        assert_eq!(told, [(BOB, NotifyReason::Mention), (BOB, reply), (CEM, repost)].into());
        assert!(notified(&post(reference(ANN), reference(ANN), &[])).is_empty());
        assert!(notified(&post(reference(UserId(0)), None, &[])).is_empty());
        let entries = entries_of_post(&post(reference(BOB), None, &[BOB]));
        assert_eq!(entries.len(), 1);
    }
}
