//! Direct messages in Redis: what a batch of events makes of them, and how that is written.
//!
//! Whose request a message is goes as with posts, see `fold`: the first event of a name
//! counts, known by its offset, and what a later one made is taken back once both are read
//! again.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    Inner,
    control::{Call, bytes},
    damaged,
    fold::Made,
    keys,
    ledger::set_fields,
};
use crate::{
    domain::{Event, Message, MessageId, UserId},
    event_log::codec,
    store::StoreError,
};

/// What a batch of events makes of messages.
#[derive(Debug, Default)]
pub(super) struct MessageFold<'a> {
    /// New messages that outlive the batch.
    pub(super) sent: Vec<&'a Message>,
    /// Requests and the messages that they made.
    requests: Vec<(UserId, &'a str, Made)>,
    /// Messages that end.
    deleted: BTreeSet<MessageId>,
    /// Messages that the store may have, by a request whose first event made another.
    doubtful: BTreeSet<MessageId>,
}

impl<'a> MessageFold<'a> {
    /// Folds events that begin at `first_offset`, of whose requests some have made these
    /// messages before.
    fn new(first_offset: u64, events: &'a [Event], made: HashMap<(UserId, &'a str), Made>) -> Self {
        let mut fold = Self::default();
        let mut first = made;
        for (offset, event) in (first_offset..).zip(events) {
            match event {
                Event::MessageSent { message, request_id } => {
                    if let Some(request_id) = request_id {
                        let this = Made { id: message.id.0, offset };
                        let key = (message.sender, request_id.as_str());
                        let first = this.or_earlier(&mut first, key);
                        if first != this {
                            if first.id != this.id {
                                fold.doubtful.insert(message.id);
                            }
                            continue;
                        }
                        fold.requests.push((message.sender, request_id, this));
                    }
                    fold.sent.push(message);
                }
                Event::MessageDeleted { message, .. } => {
                    fold.deleted.insert(*message);
                }
                _ => {}
            }
        }
        let mut seen = HashSet::new();
        fold.sent.retain(|message| !fold.deleted.contains(&message.id) && seen.insert(message.id));
        fold
    }
}

/// The requests for messages that a batch names, each once.
fn requests(events: &[Event]) -> BTreeSet<(UserId, &str)> {
    let requests = events.iter().filter_map(|event| match event {
        Event::MessageSent { message, request_id: Some(request_id) } => {
            Some((message.sender, request_id.as_str()))
        }
        _ => None,
    });
    requests.collect()
}

impl Inner {
    /// What events make of messages. Those that are `read_again` also take back what was made
    /// by mistake.
    pub(super) async fn fold_messages<'a>(
        &self,
        first_offset: u64,
        events: &'a [Event],
        read_again: bool,
    ) -> Result<MessageFold<'a>, StoreError> {
        let requests: Vec<(UserId, &str)> = requests(events).into_iter().collect();
        let made = self.requests_made(&requests, keys::message_request).await?;
        let made =
            requests.into_iter().zip(made).filter_map(|(request, made)| Some((request, made?)));
        let mut fold = MessageFold::new(first_offset, events, made.collect());
        if read_again {
            fold.deleted.append(&mut fold.doubtful);
        }
        Ok(fold)
    }

    /// The messages themselves; they come before the lists that name them.
    pub(super) async fn write_messages(&self, fold: &MessageFold<'_>) -> Result<(), StoreError> {
        let mut calls = set_fields(fold.sent.iter().map(|message| {
            let key = keys::messages_of_second(message.id);
            (key, message.id.0, codec::encode_message(message))
        }));
        for (sender, name, made) in &fold.requests {
            let key = keys::message_request(*sender, name);
            calls.push(Call::of("SET", &[&key, &made.bytes()]));
        }
        for message in &fold.deleted {
            let key = keys::messages_of_second(*message);
            calls.push(Call::of("HDEL", &[&key, &message.0.to_be_bytes()]));
        }
        self.write(calls).await.map(drop)
    }

    pub(super) async fn messages(
        &self,
        ids: &[MessageId],
    ) -> Result<Vec<Option<Message>>, StoreError> {
        let call = |id: &MessageId| {
            Call::of("HGET", &[&keys::messages_of_second(*id), &id.0.to_be_bytes()])
        };
        let found = self.control.run(ids.iter().map(call).collect()).await?;
        let messages = found.into_iter().map(|value| {
            let Some(bytes) = bytes(value) else { return Ok(None) };
            codec::decode_message(&bytes).map(Some).map_err(|_| damaged("a message"))
        });
        messages.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: UserId = UserId(1);

    fn sent(id: u64) -> Event {
        let message = Message {
            id: MessageId(id),
            sender: ANN,
            recipients: vec![UserId(2)],
            text: "hi".to_owned(),
        };
        Event::MessageSent { message, request_id: Some("a".to_owned()) }
    }

    fn ids(events: &[Event], made: Option<(u64, u64)>) -> (Vec<u64>, Vec<u64>) {
        let made = made.map(|(id, offset)| Made { id, offset });
        let made = made.map(|made| ((ANN, "a"), made)).into_iter().collect();
        let fold = MessageFold::new(10, events, made);
        let ids = |of: Vec<MessageId>| of.into_iter().map(|id| id.0).collect();
        (
            ids(fold.sent.iter().map(|message| message.id).collect()),
            ids(fold.doubtful.into_iter().collect()),
        )
    }

    #[test]
    fn the_first_event_of_a_request_counts_and_what_a_later_one_made_is_in_doubt() {
        assert_eq!(ids(&[sent(5), sent(6)], None), (vec![5], vec![6]));
        assert_eq!(ids(&[sent(6)], Some((5, 3))), (vec![], vec![6]));
        assert_eq!(ids(&[sent(5)], Some((5, 10))), (vec![5], vec![]));
        // The later one was taken for the first, before both were read again.
        assert_eq!(ids(&[sent(5), sent(6)], Some((6, 11))), (vec![5], vec![6]));
    }

    #[test]
    fn what_is_deleted_in_its_own_batch_is_not_sent() {
        let deleted = Event::MessageDeleted { message: MessageId(5), sender: ANN };
        assert_eq!(ids(&[sent(5), deleted], None), (vec![], vec![]));
    }
}
