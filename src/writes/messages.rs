//! Direct messages: what may be wrong with one, and how it comes into the log.
//!
//! Of several events with one sender and one request id the first counts, as with posts. No
//! id is claimed ahead: the answer waits until the ledger says which message there is, and
//! has all that it ever had.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{
    Inner, WriteError, Writes,
    draft::{FieldError, check_request_id, check_text, check_user},
    patience,
};
use crate::{
    domain::{Event, Message, MessageId, UserId},
    event_log::EventLog,
    store::{Inboxes, Lookups},
};

/// How many accounts a message may be sent to.
pub const RECIPIENTS_MAX: usize = 16;

/// A message that somebody wants to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageDraft {
    /// Who sends it.
    pub sender: UserId,
    /// Who is to read it.
    pub recipients: BTreeSet<UserId>,
    /// What it says.
    pub text: String,
    /// The client's own name for the request.
    pub request_id: Option<String>,
}

/// A message that is durable in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The message, which an earlier request of the same name may have made.
    pub message: MessageId,
    /// Whether its recipients can read it already.
    pub applied: bool,
}

impl MessageDraft {
    /// Checks every field by itself. `text_chars_max` counts Unicode scalar values.
    pub fn check(&self, text_chars_max: usize) -> Result<(), FieldError> {
        check_user("sender_id", self.sender)?;
        let field = "recipient_ids";
        let count = self.recipients.len();
        if !(1..=RECIPIENTS_MAX).contains(&count) {
            let reason = format!("names {count} accounts; name 1 to {RECIPIENTS_MAX}");
            return Err(FieldError::new(field, reason));
        }
        for user in &self.recipients {
            check_user(field, *user)?;
            if *user == self.sender {
                let reason = format!("names account {user}, the sender itself");
                return Err(FieldError::new(field, reason));
            }
        }
        check_text(&self.text, text_chars_max)?;
        self.request_id.as_deref().map_or(Ok(()), check_request_id)
    }

    /// About how many bytes of memory it takes.
    fn size_bytes(&self) -> usize {
        let recipients = self.recipients.len() * size_of::<UserId>();
        let request_id = self.request_id.as_ref().map_or(0, String::len);
        size_of::<Self>() + recipients + self.text.len() + request_id
    }
}

impl<L: EventLog, S: Lookups + Inboxes> Writes<L, S> {
    /// Sends a message. One with a request id is sent once, however often it is asked for.
    pub async fn send_message(&self, draft: MessageDraft) -> Result<Sent, WriteError> {
        let inner = &self.inner;
        draft.check(inner.settings.text_chars_max)?;
        let _room = inner.start_write(draft.size_bytes()).await?;
        let MessageDraft { sender, recipients, text, request_id } = draft;
        if let Some(name) = &request_id
            && inner.store.message_of_request(sender, name).await?.is_some()
        {
            return inner.message_made(sender, name, None).await;
        }
        let id = MessageId(inner.ids.next(inner.clock.unix_ms(), false)?.0);
        let recipients = recipients.into_iter().collect();
        let message = Message { id, sender, recipients, text };
        let event = Event::MessageSent { message, request_id: request_id.clone() };
        let Some(name) = request_id else {
            return Ok(Sent { message: id, applied: inner.write_and_wait(event).await? });
        };
        let place = inner.append(&[event]).await.pop().unwrap_or(Err(WriteError::Closing))?;
        inner.message_made(sender, &name, Some(place)).await
    }

    /// Deletes a message of a sender. True: nobody sees it any more; false: the workers are
    /// behind, and nobody will when they reach it.
    pub async fn delete_message(
        &self,
        sender: UserId,
        message: MessageId,
    ) -> Result<bool, WriteError> {
        check_user("sender_id", sender)?;
        if message.0 == 0 {
            let reason = "is required; message ids are never 0";
            return Err(FieldError::new("message_id", reason).into());
        }
        let inner = &self.inner;
        let mut found = inner.store.messages(&[message]).await?.pop().flatten();
        if found.is_none() {
            // It may be on its way through the log.
            let ids = [message];
            let (messages, caught_up) = inner.look_again(inner.store.messages(&ids)).await?;
            found = messages.into_iter().next().flatten();
            if found.is_none() && !caught_up {
                return Err(WriteError::Behind);
            }
        }
        // Nobody is told of messages of others.
        if found.is_none_or(|found| found.sender != sender) {
            return Err(WriteError::UnknownMessage { message, sender });
        }
        inner.write_and_wait(Event::MessageDeleted { message, sender }).await
    }
}

impl<L: EventLog, S: Lookups + Inboxes> Inner<L, S> {
    /// Waits until it is known which message a request has made whose event stands at `place`
    /// or, without one, is known to the ledger.
    ///
    /// What the ledger says at once does not tell: where the store has lost the first event's
    /// message, it names a later one's until the first is applied again.
    async fn message_made(
        &self,
        sender: UserId,
        name: &str,
        place: Option<(u32, u64)>,
    ) -> Result<Sent, WriteError> {
        let until = Instant::now() + self.settings.confirm_wait_max;
        let said = patience::ask_until_sure(&self.memory, until, || async {
            if let Some((partition, offset)) = place {
                self.progress.wait_applied(partition, offset + 1).await;
            }
            self.store.message_of_request(sender, name).await
        });
        let message = said.await.ok_or(WriteError::Unconfirmed)?;
        Ok(Sent { message, applied: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_a_sender_some_recipients_and_a_text() {
        let draft = |sender, recipients: &[u64], text: &str| MessageDraft {
            sender: UserId(sender),
            recipients: recipients.iter().copied().map(UserId).collect(),
            text: text.to_owned(),
            request_id: None,
        };
        let many: Vec<u64> = (2..18).collect();
        let too_many: Vec<u64> = (2..19).collect();
        for (draft, bad) in [
            (draft(1, &[2], "hi"), None),
            (draft(1, &many, &"🐦".repeat(140)), None),
            (draft(0, &[2], "hi"), Some("sender_id")),
            (draft(1, &[], "hi"), Some("recipient_ids")),
            (draft(1, &[0, 2], "hi"), Some("recipient_ids")),
            (draft(1, &[1, 2], "hi"), Some("recipient_ids")),
            (draft(1, &too_many, "hi"), Some("recipient_ids")),
            (draft(1, &[2], " \n"), Some("text")),
            (draft(1, &[2], &"a".repeat(141)), Some("text")),
            (
                MessageDraft { request_id: Some("r".repeat(65)), ..draft(1, &[2], "hi") },
                Some("request_id"),
            ),
        ] {
            assert_eq!(draft.check(140).err().map(|error| error.field), bad, "{draft:?}");
        }
    }
}
