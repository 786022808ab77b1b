//! Reading what an account is told of: its notifications and its messages, without those that
//! are hidden or gone.
//!
//! ```text
//!  read ──► whom the reader hides ──► the ids of the list ──► look up ──► not hidden? ──► page
//! ```
//!
//! A list is bounded, so a page is full unless it is the last one.

use std::sync::Arc;

use crate::{
    domain::{Message, MessageId, Post, PostId, UserId},
    store::{Inboxes, Lookups, MessageSide, StoreError},
};

/// Entries that are looked up together.
const LOOKED_UP_TOGETHER: usize = 100;

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxPage<T> {
    /// Newest first.
    pub entries: Vec<T>,
    /// Whether another page follows.
    pub more: bool,
}

impl<T> InboxPage<T> {
    /// Of entries that are one more than a page has, if there is one more.
    fn cut(mut entries: Vec<T>, count_max: usize) -> Self {
        let more = entries.len() > count_max;
        entries.truncate(count_max);
        Self { entries, more }
    }
}

/// Reads up to `count_max` posts older than `before` (or the newest) that an account is told
/// of, newest first, without what it [hides](crate::store::Hides::hide), and without what only
/// repeats a deleted post.
///
/// # Errors
/// If the store fails.
pub async fn notifications(
    store: &(impl Lookups + Inboxes),
    user: UserId,
    before: Option<PostId>,
    count_max: usize,
) -> Result<InboxPage<Arc<Post>>, StoreError> {
    // First, so that whom the reader hides by now is hidden.
    let hides = store.hides_of(user).await?;
    let mut ids = store.notifications(user).await?;
    ids.retain(|id| before.is_none_or(|before| *id < before));
    let mut shown = Vec::new();
    for ids in ids.chunks(LOOKED_UP_TOGETHER) {
        let posts = store.posts(ids).await?;
        let there = store.originals_there(&posts).await?;
        let is_seen = |post: &Arc<Post>| {
            let original = post.repeats().is_none_or(|original| there.contains(&original.post));
            original && !hides.hide(post)
        };
        shown.extend(posts.into_iter().flatten().filter(is_seen));
        if shown.len() > count_max {
            break;
        }
    }
    Ok(InboxPage::cut(shown, count_max))
}

/// Reads up to `count_max` messages older than `before` (or the newest) of one side of an
/// account's, newest first, without those of accounts that it does not see.
///
/// # Errors
/// If the store fails.
pub async fn messages(
    store: &(impl Lookups + Inboxes),
    user: UserId,
    side: MessageSide,
    before: Option<MessageId>,
    count_max: usize,
) -> Result<InboxPage<Message>, StoreError> {
    // First, so that whom the reader hides by now is hidden.
    let hides = store.hides_of(user).await?;
    let mut ids = store.message_ids(user, side).await?;
    ids.retain(|id| before.is_none_or(|before| *id < before));
    let mut shown = Vec::new();
    for ids in ids.chunks(LOOKED_UP_TOGETHER) {
        let messages = store.messages(ids).await?.into_iter().flatten();
        shown.extend(messages.filter(|message| !hides.hide_message(message)));
        if shown.len() > count_max {
            break;
        }
    }
    Ok(InboxPage::cut(shown, count_max))
}
