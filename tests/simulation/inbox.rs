//! What clients do with messages, and what they are told of.

use std::collections::BTreeSet;

use roost::{
    domain::UserId,
    inbox,
    store::{MessageSide, notified},
    writes::MessageDraft,
};

use crate::{client::Client, run::CAP};

impl Client {
    pub async fn send_message(&self) {
        let sender = self.author();
        let recipients: BTreeSet<UserId> = (0..self.faults.pick(1..4))
            .map(|_| self.user())
            .filter(|user| *user != sender)
            .collect();
        // Mostly a repetition.
        let request_id = self.faults.chance(50).then(|| self.faults.pick(0..8).to_string());
        let text = "psst".to_owned();
        let draft = MessageDraft { sender, recipients, text, request_id: request_id.clone() };
        let Ok(sent) = self.writes.send_message(draft).await else { return };
        self.acknowledged.messages.lock().unwrap().insert(sent.message, sender);
        if let Some(request_id) = request_id {
            let mut requests = self.acknowledged.message_requests.lock().unwrap();
            let first = *requests.entry((sender, request_id)).or_insert(sent.message);
            assert_eq!(first, sent.message, "one request sent two messages");
        }
    }

    pub async fn delete_message(&self) {
        let (message, sender) = {
            let messages = self.acknowledged.messages.lock().unwrap();
            let Some((message, sender)) = self.pick_one(messages.iter()) else { return };
            (*message, *sender)
        };
        if let Ok(true) = self.writes.delete_message(sender, message).await {
            self.acknowledged.deleted_messages.lock().unwrap().insert(message);
        }
    }

    /// What an account is told of and was sent, at any time.
    pub async fn read_inbox(&self) {
        let (reader, store) = (self.user(), &*self.store);
        let deleted = self.acknowledged.deleted.lock().unwrap().clone();
        let unsent = self.acknowledged.deleted_messages.lock().unwrap().clone();
        let Ok(told) = inbox::notifications(store, reader, None, CAP).await else { return };
        let received = MessageSide::Received;
        let Ok(sent) = inbox::messages(store, reader, received, None, CAP).await else { return };
        for post in told.entries {
            let original = post.repeats().map_or(post.id, |original| original.post);
            for id in [post.id, original] {
                assert!(!deleted.contains(&id), "{id} is deleted, and {reader} is told");
            }
            let is_for_reader = notified(&post).iter().any(|(user, _)| *user == reader);
            assert!(is_for_reader, "{} is not for {reader}", post.id);
        }
        assert!(sent.entries.is_sorted_by(|newer, older| newer.id > older.id), "{sent:?}");
        for message in sent.entries {
            let id = message.id;
            assert!(!unsent.contains(&id), "message {id} is deleted, and {reader} sees it");
            assert!(message.recipients.contains(&reader), "message {id} is not for {reader}");
        }
    }
}
