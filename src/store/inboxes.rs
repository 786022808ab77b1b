//! What an account is told of: the part that has I/O is a face of the store, the rest is pure.
//!
//! The events of many partitions write the list of one account. So it is a set that keeps
//! its newest: whatever the order in which ids come to it, and however often, what is left
//! is the same.

use std::{collections::BTreeSet, future::Future};

use super::StoreError;
use crate::domain::{Post, PostId, UserId};

/// The lists of what accounts are told of.
pub trait Inboxes: Send + Sync + 'static {
    /// The newest posts that an account is told of, newest first: as many as its home
    /// timeline holds ready. Those that are deleted since, or of hidden accounts, are among
    /// them.
    fn notifications(
        &self,
        account: UserId,
    ) -> impl Future<Output = Result<Vec<PostId>, StoreError>> + Send;
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
}

impl InboxList {
    pub(crate) const ALL: [Self; 1] = [Self::Notifications];

    /// As it stands in keys.
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Notifications => b'n',
        }
    }
}

/// What events put into lists, each id once: of which account, which list, which id.
pub(crate) fn inbox_entries<'a>(
    posts: impl IntoIterator<Item = &'a Post>,
) -> BTreeSet<(UserId, InboxList, u64)> {
    let entries = posts.into_iter().flat_map(|post| {
        let users = notified(post).into_iter().map(|(user, _)| user);
        users.map(|user| (user, InboxList::Notifications, post.id.0))
    });
    entries.collect()
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
        let entries = inbox_entries([&post(reference(BOB), None, &[BOB])]);
        assert_eq!(entries.len(), 1);
    }
}
