//! What an account is told of, and its messages: the part that has I/O is a face of the store,
//! the rest is pure.
//!
//! The events of many partitions write the list of one account, and anybody may. So it is a
//! set, of which so much is [`kept`] that nobody drives out what others have written:
//! whatever the order in which entries come to it, and however often, what is left is the
//! same.

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
};

use super::StoreError;
use crate::domain::{Message, MessageId, Post, PostId, UserId};

/// The lists of what accounts are told of, and direct messages.
pub trait Inboxes: Send + Sync + 'static {
    /// The posts that an account is told of, newest first: as many as its home timeline holds
    /// ready. Of more, the oldest of whoever has written the most of them are gone. Those that
    /// are deleted since, or of hidden accounts, are among them.
    fn notifications(
        &self,
        account: UserId,
    ) -> impl Future<Output = Result<Vec<PostId>, StoreError>> + Send;

    /// The messages that an account has received or sent, newest first: as many as
    /// notifications, and kept as these are. Those that are deleted since, or of hidden
    /// accounts, are among them.
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

/// An entry of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InboxEntry {
    /// The post or the message.
    pub(crate) id: u64,
    /// Who has written it.
    pub(crate) from: UserId,
}

/// What a post puts into the lists of accounts, each entry once.
pub(crate) fn entries_of_post(post: &Post) -> BTreeSet<(UserId, InboxList, InboxEntry)> {
    let users = notified(post).into_iter().map(|(user, _)| user);
    let entry = InboxEntry { id: post.id.0, from: post.author };
    users.map(|user| (user, InboxList::Notifications, entry)).collect()
}

/// What a message puts into the lists of accounts.
pub(crate) fn entries_of_message(message: &Message) -> BTreeSet<(UserId, InboxList, InboxEntry)> {
    let received = message.recipients.iter().map(|user| (*user, InboxList::Received));
    let all = received.chain([(message.sender, InboxList::Sent)]);
    let entry = InboxEntry { id: message.id.0, from: message.sender };
    all.map(|(user, list)| (user, list, entry)).collect()
}

/// What is kept of a list, newest first, of which there may be `len_max` entries: as long as
/// there are more, the oldest of whoever has the most goes, and of several such the oldest.
///
/// Nothing that was dropped once would be kept later, so a list may be cut as often as one
/// likes: the entries of somebody that are newer than it only become more.
pub(crate) fn kept(entries: Vec<InboxEntry>, len_max: usize) -> Vec<InboxEntry> {
    if entries.len() <= len_max {
        return entries;
    }
    let mut counts = HashMap::<UserId, usize>::new();
    // The more newer ones somebody has, the sooner an entry goes.
    let mut ranked: Vec<(usize, usize)> = Vec::with_capacity(entries.len());
    for (place, entry) in entries.iter().enumerate() {
        let count = counts.entry(entry.from).or_default();
        ranked.push((*count, place));
        *count += 1;
    }
    ranked.sort_unstable();
    let mut places: Vec<usize> = ranked[..len_max].iter().map(|(_, place)| *place).collect();
    places.sort_unstable();
    places.into_iter().map(|place| entries[place]).collect()
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use proptest::prelude::*;

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

    /// The same, word by word.
    fn kept_by_the_rule(mut entries: Vec<InboxEntry>, len_max: usize) -> Vec<InboxEntry> {
        while entries.len() > len_max {
            let count = |from| entries.iter().filter(|entry| entry.from == from).count();
            let most = entries.iter().map(|entry| count(entry.from)).max();
            let goes = entries.iter().rposition(|entry| Some(count(entry.from)) == most);
            entries.remove(goes.unwrap());
        }
        entries
    }

    proptest! {
        #[test]
        fn what_is_kept_is_the_same_however_entries_come_and_however_often_a_list_is_cut(
            entries in proptest::collection::btree_map(0..500_u64, 0..4_u64, 0..60),
            order in any::<u64>(),
            cuts in proptest::collection::vec(any::<bool>(), 60),
            len_max in 1..20_usize,
        ) {
            let of = |(id, from): (&u64, &u64)| InboxEntry { id: *id, from: UserId(*from) };
            let all: Vec<InboxEntry> = entries.iter().rev().map(of).collect();
            let expected = kept_by_the_rule(all.clone(), len_max);
            prop_assert_eq!(&kept(all.clone(), len_max), &expected);
            let mut coming = all;
            coming.sort_by_key(|entry| entry.id.wrapping_mul(order | 1));
            let mut list = Vec::new();
            for (entry, is_cut) in coming.into_iter().zip(cuts) {
                list.push(entry);
                list.sort_unstable_by_key(|entry| Reverse(entry.id));
                if is_cut {
                    list = kept(list, len_max);
                }
            }
            prop_assert_eq!(kept(list, len_max), expected);
        }
    }

    #[test]
    fn who_floods_a_list_drives_out_nobody_else() {
        let of = |from| move |id| InboxEntry { id, from };
        let entries = (100..200).rev().map(of(BOB)).chain((0..5).rev().map(of(ANN)));
        let kept = kept(entries.collect(), 20);
        assert_eq!(kept.iter().filter(|entry| entry.from == ANN).count(), 5);
        assert_eq!((kept.len(), kept[14].id), (20, 185));
    }
}
