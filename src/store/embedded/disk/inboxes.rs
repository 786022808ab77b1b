//! What accounts are told of, on disk: each list is a range of keys.

use std::collections::BTreeSet;

use super::{Disk, DiskBatch, SECOND_PLACE, join_by, u64_at};
use crate::{
    domain::UserId,
    store::{
        StoreError,
        inboxes::{InboxEntry, InboxList, kept},
    },
};

impl Disk {
    /// A list as it stands there, newest first.
    pub(in crate::store::embedded) fn inbox(
        &self,
        account: UserId,
        list: InboxList,
    ) -> Result<Vec<InboxEntry>, StoreError> {
        self.inboxes
            .range(key(account, list, 0)..=key(account, list, u64::MAX))
            .rev()
            .map(|entry| {
                let (key, value) = entry.into_inner().map_err(|error| self.failure(error))?;
                // An entry of an older store does not say whose it is: all of those count as one's.
                let from = if value.is_empty() { Some(0) } else { u64_at(&value, 0) };
                let entry = u64_at(&key, SECOND_PLACE).zip(from);
                let (id, from) = entry.ok_or_else(|| self.damage("an inbox is malformed"))?;
                Ok(InboxEntry { id, from: UserId(from) })
            })
            .collect()
    }
}

impl DiskBatch<'_> {
    pub(in crate::store::embedded) fn add_to_inboxes(
        &mut self,
        entries: impl IntoIterator<Item = (UserId, InboxList, InboxEntry)>,
    ) {
        for (account, list, InboxEntry { id, from }) in entries {
            self.batch.insert(&self.disk.inboxes, key(account, list, id), from.0.to_be_bytes());
        }
    }

    /// Drops what is not kept of a list.
    pub(in crate::store::embedded) fn trim_inbox(
        &mut self,
        account: UserId,
        list: InboxList,
        len_max: usize,
    ) -> Result<(), StoreError> {
        let all = self.disk.inbox(account, list)?;
        let kept: BTreeSet<InboxEntry> = kept(all.clone(), len_max).into_iter().collect();
        for InboxEntry { id, .. } in all.into_iter().filter(|entry| !kept.contains(entry)) {
            self.batch.remove(&self.disk.inboxes, key(account, list, id));
        }
        Ok(())
    }
}

fn key(account: UserId, list: InboxList, id: u64) -> [u8; 17] {
    join_by(account.0, list.byte(), id)
}
