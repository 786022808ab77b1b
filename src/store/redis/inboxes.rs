//! What accounts are told of, and the lists of their messages, in Redis.

use std::collections::BTreeMap;

use super::{
    Inner, RedisStore,
    control::{Call, bytes, elements},
    damaged,
    fold::Fold,
    keys,
    messages::MessageFold,
    scripts,
};
use crate::{
    domain::{Message, MessageId, PostId, UserId},
    store::{
        Inboxes, MessageSide, StoreError,
        inboxes::{InboxEntry, InboxList, entries_of_message, entries_of_post, kept},
    },
};

impl Inboxes for RedisStore {
    async fn notifications(&self, account: UserId) -> Result<Vec<PostId>, StoreError> {
        let ids = self.inner.inbox(account, InboxList::Notifications).await?;
        Ok(ids.into_iter().map(PostId).collect())
    }

    async fn message_ids(
        &self,
        account: UserId,
        side: MessageSide,
    ) -> Result<Vec<MessageId>, StoreError> {
        let ids = self.inner.inbox(account, side.into()).await?;
        Ok(ids.into_iter().map(MessageId).collect())
    }

    async fn messages(&self, ids: &[MessageId]) -> Result<Vec<Option<Message>>, StoreError> {
        self.inner.messages(ids).await
    }

    async fn message_of_request(
        &self,
        sender: UserId,
        request_id: &str,
    ) -> Result<Option<MessageId>, StoreError> {
        let request = [(sender, request_id)];
        let made = self.inner.requests_made(&request, keys::message_request).await?;
        Ok(made.into_iter().flatten().next().map(|made| MessageId(made.id)))
    }
}

impl Inner {
    /// The ids that are kept of a list, newest first.
    async fn inbox(&self, account: UserId, list: InboxList) -> Result<Vec<u64>, StoreError> {
        let key = keys::inbox(account, list);
        let entries = self.control.one(Call::of("LRANGE", &[&key, b"0", b"-1"])).await?;
        let entries = elements(entries).into_iter().rev().filter_map(bytes);
        let entries: Option<Vec<InboxEntry>> = entries.map(|entry| read_entry(&entry)).collect();
        let entries = entries.ok_or_else(|| damaged("an entry of an inbox"))?;
        Ok(kept(entries, self.limits.cap).into_iter().map(|entry| entry.id).collect())
    }

    /// Each list has many writers, so every id is looked for its place, in a script.
    pub(super) async fn write_inboxes(
        &self,
        fold: &Fold<'_>,
        messages: &MessageFold<'_>,
    ) -> Result<(), StoreError> {
        let mut by_list = BTreeMap::<(UserId, InboxList), Vec<[u8; 16]>>::new();
        let of_posts = fold.posts.iter().flat_map(|post| entries_of_post(post));
        let of_messages = messages.sent.iter().flat_map(|message| entries_of_message(message));
        for (account, list, entry) in of_posts.chain(of_messages) {
            by_list.entry((account, list)).or_default().push(entry_bytes(entry));
        }
        let [kept, len_max] = [self.limits.cap, self.limits.kept].map(|count| count.to_string());
        let calls = by_list.into_iter().map(|((account, list), entries)| {
            let limits = [kept.as_bytes(), len_max.as_bytes()];
            let entries = entries.iter().map(<[u8; 16]>::as_slice);
            let arguments: Vec<&[u8]> = limits.into_iter().chain(entries).collect();
            scripts::INSERT_CAPPED.call(&keys::inbox(account, list), &arguments)
        });
        self.write(calls.collect()).await.map(drop)
    }
}

/// An entry as it stands in a list: its id, and who has written it.
fn entry_bytes(InboxEntry { id, from }: InboxEntry) -> [u8; 16] {
    (u128::from(id) << 64 | u128::from(from.0)).to_be_bytes()
}

/// The same, read.
fn read_entry(bytes: &[u8]) -> Option<InboxEntry> {
    let both = u128::from_be_bytes(bytes.try_into().ok()?);
    Some(InboxEntry { id: (both >> 64) as u64, from: UserId(both as u64) })
}
