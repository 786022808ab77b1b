//! What accounts are told of, on disk: each list is a range of keys.

use super::{Disk, DiskBatch, SECOND_PLACE, join_by, u64_at};
use crate::{
    domain::UserId,
    store::{
        StoreError,
        inboxes::{InboxEntry, InboxList},
    },
};

impl Disk {
    /// Up to `count_max` ids of a list, newest first.
    pub(in crate::store::embedded) fn inbox(
        &self,
        account: UserId,
        list: InboxList,
        count_max: usize,
    ) -> Result<Vec<u64>, StoreError> {
        self.inboxes
            .range(key(account, list, 0)..=key(account, list, u64::MAX))
            .rev()
            .take(count_max)
            .map(|entry| {
                let key = entry.key().map_err(|error| self.failure(error))?;
                u64_at(&key, SECOND_PLACE).ok_or_else(|| self.damage("an inbox is malformed"))
            })
            .collect()
    }
}

impl DiskBatch<'_> {
    pub(in crate::store::embedded) fn add_to_inboxes(
        &mut self,
        entries: impl IntoIterator<Item = InboxEntry>,
    ) {
        for (account, list, id) in entries {
            self.batch.insert(&self.disk.inboxes, key(account, list, id), []);
        }
    }

    /// Drops the oldest ids of a list, down to the newest `kept`.
    pub(in crate::store::embedded) fn trim_inbox(
        &mut self,
        account: UserId,
        list: InboxList,
        kept: usize,
    ) -> Result<(), StoreError> {
        let all = key(account, list, 0)..=key(account, list, u64::MAX);
        for entry in self.disk.inboxes.range(all).rev().skip(kept) {
            let key = entry.key().map_err(|error| self.disk.failure(error))?;
            self.batch.remove(&self.disk.inboxes, key);
        }
        Ok(())
    }
}

fn key(account: UserId, list: InboxList, id: u64) -> [u8; 17] {
    join_by(account.0, list.byte(), id)
}
