//! What accounts are told of, and the lists of their messages, in Redis.

use std::collections::BTreeMap;

use super::{
    Inner, RedisStore,
    control::{Call, bytes, elements},
    damaged,
    fold::Fold,
    keys,
    ledger::{id_bytes, post_id, with_ids},
    messages::MessageFold,
    scripts,
};
use crate::{
    domain::{Message, MessageId, PostId, UserId},
    store::{
        Inboxes, MessageSide, StoreError,
        inboxes::{InboxList, entries_of_message, entries_of_post},
    },
};

impl Inboxes for RedisStore {
    async fn notifications(&self, account: UserId) -> Result<Vec<PostId>, StoreError> {
        self.inner.inbox(account, InboxList::Notifications).await
    }

    async fn message_ids(
        &self,
        account: UserId,
        side: MessageSide,
    ) -> Result<Vec<MessageId>, StoreError> {
        let ids = self.inner.inbox(account, side.into()).await?;
        Ok(ids.into_iter().map(|id| MessageId(id.0)).collect())
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
        Ok(made.into_iter().flatten().next().map(|made| MessageId(made.post.0)))
    }
}

impl Inner {
    /// The newest ids of a list, newest first.
    async fn inbox(&self, account: UserId, list: InboxList) -> Result<Vec<PostId>, StoreError> {
        let first = format!("-{}", self.limits.cap);
        let key = keys::inbox(account, list);
        let entries = self.control.one(Call::of("LRANGE", &[&key, first.as_bytes(), b"-1"]));
        let ids = elements(entries.await?).into_iter().rev().filter_map(bytes);
        ids.map(|id| post_id(&id).ok_or_else(|| damaged("an entry of an inbox"))).collect()
    }

    /// Each list has many writers, so every id is looked for its place, in a script.
    pub(super) async fn write_inboxes(
        &self,
        fold: &Fold<'_>,
        messages: &MessageFold<'_>,
    ) -> Result<(), StoreError> {
        let mut by_list = BTreeMap::<(UserId, InboxList), Vec<PostId>>::new();
        let of_posts = fold.posts.iter().flat_map(|post| entries_of_post(post));
        let of_messages = messages.sent.iter().flat_map(|message| entries_of_message(message));
        for (account, list, id) in of_posts.chain(of_messages) {
            by_list.entry((account, list)).or_default().push(PostId(id));
        }
        let [kept, len_max] = [self.limits.cap, self.limits.kept].map(|count| count.to_string());
        let calls = by_list.into_iter().map(|((account, list), ids)| {
            let ids = id_bytes(&ids);
            let arguments = with_ids([kept.as_bytes(), len_max.as_bytes()], &ids);
            scripts::INSERT_CAPPED.call(&keys::inbox(account, list), &arguments)
        });
        self.write(calls.collect()).await.map(drop)
    }
}
