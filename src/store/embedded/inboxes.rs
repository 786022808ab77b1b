//! What accounts are told of, their messages, and how the lists stay bounded.

use std::collections::BTreeMap;

use super::{EmbeddedStore, Inner, apply::Repeated};
use crate::{
    domain::{Event, Message, MessageId, PostId, UserId},
    store::{
        Inboxes, MessageSide, StoreError,
        inboxes::{InboxList, entries_of_message, entries_of_post, kept},
    },
};

impl Inboxes for EmbeddedStore {
    async fn notifications(&self, account: UserId) -> Result<Vec<PostId>, StoreError> {
        let ids = self.inbox(account, InboxList::Notifications).await?;
        Ok(ids.into_iter().map(PostId).collect())
    }

    async fn message_ids(
        &self,
        account: UserId,
        side: MessageSide,
    ) -> Result<Vec<MessageId>, StoreError> {
        let ids = self.inbox(account, side.into()).await?;
        Ok(ids.into_iter().map(MessageId).collect())
    }

    async fn messages(&self, ids: &[MessageId]) -> Result<Vec<Option<Message>>, StoreError> {
        let ids = ids.to_vec();
        self.run_blocking(move |inner| {
            ids.into_iter().map(|id| inner.disk.get()?.message(id)).collect()
        })
        .await
    }

    async fn message_of_request(
        &self,
        sender: UserId,
        request_id: &str,
    ) -> Result<Option<MessageId>, StoreError> {
        let request_id = request_id.to_owned();
        self.run_blocking(move |inner| inner.disk.get()?.message_of_request(sender, &request_id))
            .await
    }
}

impl EmbeddedStore {
    async fn inbox(&self, account: UserId, list: InboxList) -> Result<Vec<u64>, StoreError> {
        self.run_blocking(move |inner| {
            let entries = kept(inner.disk.get()?.inbox(account, list)?, inner.limits.cap);
            Ok(entries.into_iter().map(|entry| entry.id).collect())
        })
        .await
    }
}

impl Inner {
    /// The messages whose sender has used their request id before.
    pub(super) fn find_repeated_messages(
        &self,
        events: &[Event],
    ) -> Result<Repeated<MessageId>, StoreError> {
        let requests = events.iter().map(|event| match event {
            Event::MessageSent { message, request_id: Some(name) } => {
                Some((message.sender, name.as_str(), message.id))
            }
            _ => None,
        });
        Repeated::find(requests, |sender, name| self.disk.get()?.message_of_request(sender, name))
    }

    /// Trims the lists that these events have grown, once they are on disk. To count a list is
    /// to walk through it, so that is done once in a tenth of what it keeps, and when it is
    /// written the first time since the store was opened.
    pub(super) fn trim_inboxes(
        &self,
        partition: u32,
        next_offset: u64,
        events: &[Event],
    ) -> Result<(), StoreError> {
        let mut grown = BTreeMap::<UserId, u32>::new();
        for event in events {
            let entries = match event {
                Event::PostPublished { post, .. } => entries_of_post(post),
                Event::MessageSent { message, .. } => entries_of_message(message),
                _ => continue,
            };
            entries.into_iter().for_each(|(user, ..)| *grown.entry(user).or_default() += 1);
        }
        let slack = (self.limits.entries_max - self.limits.cap) as u32;
        let disk = self.disk.get()?;
        let mut batch = None;
        for (user, count) in grown {
            let account = self.number(&[user])?.0[0];
            let is_due = self.inbox_writes.with(account, |writes| {
                let is_due = *writes == 0 || *writes + count > slack;
                *writes = if is_due { 1 } else { *writes + count };
                is_due
            });
            if is_due {
                let batch = batch.get_or_insert_with(|| disk.batch());
                for list in InboxList::ALL {
                    batch.trim_inbox(user, list, self.limits.cap)?;
                }
            }
        }
        batch.map_or(Ok(()), |batch| batch.commit(partition, self.mark(next_offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::Post,
        store::{Ledger, embedded::Settings},
    };

    #[tokio::test]
    async fn lists_are_trimmed_within_a_process_and_over_many() {
        const CAP: usize = 20;
        let (author, reader) = (UserId(1), UserId(2));
        let dir = tempfile::tempdir().unwrap();
        let mut id = 0;
        for events_of_process in [1, 3, 1, 50, 2, 1, 1, 1, 1, 1, 1, 1] {
            let settings = Settings { home_timeline_cap: CAP, ..Settings::default() };
            let store = EmbeddedStore::open(dir.path(), settings).unwrap();
            for _ in 0..events_of_process {
                id += 1;
                let post = Post { mentions: vec![reader], ..Post::plain(PostId(id), author) };
                let event = Event::PostPublished { post, request_id: None };
                store.apply(0, id - 1, [event].into()).await.unwrap();
                let kept = store.inner.disk.get().unwrap().inbox(reader, InboxList::Notifications);
                let kept = kept.unwrap().len();
                let entries_max = store.inner.limits.entries_max;
                assert!(kept <= entries_max && kept >= CAP.min(id as usize), "{kept} of {id}");
            }
        }
    }
}
