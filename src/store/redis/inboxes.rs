//! What accounts are told of, in Redis.

use std::collections::BTreeMap;

use super::{
    Inner, RedisStore,
    control::{Call, bytes, elements},
    damaged,
    fold::Fold,
    keys,
    ledger::{id_bytes, post_id, with_ids},
    scripts,
};
use crate::{
    domain::{PostId, UserId},
    store::{
        Inboxes, StoreError,
        inboxes::{InboxList, inbox_entries},
    },
};

impl Inboxes for RedisStore {
    async fn notifications(&self, account: UserId) -> Result<Vec<PostId>, StoreError> {
        self.inner.inbox(account, InboxList::Notifications).await
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
    pub(super) async fn write_inboxes(&self, fold: &Fold<'_>) -> Result<(), StoreError> {
        let mut by_list = BTreeMap::<(UserId, InboxList), Vec<PostId>>::new();
        for (account, list, id) in inbox_entries(fold.posts.iter().copied()) {
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
