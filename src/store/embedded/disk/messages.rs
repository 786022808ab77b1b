//! Direct messages, on disk, and the requests that have made them.

use super::{Disk, DiskBatch};
use crate::{
    domain::{Message, MessageId, UserId},
    event_log::codec,
    store::StoreError,
};

/// What stands before the name of a request for a message. No text has it, so that the names
/// of requests for posts are others.
const REQUEST_MARK: u8 = 0xFF;

impl Disk {
    pub(in crate::store::embedded) fn message(
        &self,
        id: MessageId,
    ) -> Result<Option<Message>, StoreError> {
        let value = self.messages.get(id.0.to_be_bytes()).map_err(|error| self.failure(error))?;
        let Some(value) = value else { return Ok(None) };
        let message = codec::decode_message(&value);
        message
            .map(Some)
            .map_err(|error| self.damage(&format!("message {id} is not readable: {error}")))
    }

    pub(in crate::store::embedded) fn message_of_request(
        &self,
        sender: UserId,
        request_id: &str,
    ) -> Result<Option<MessageId>, StoreError> {
        Ok(self.made(&request_key(sender, request_id))?.map(MessageId))
    }
}

impl DiskBatch<'_> {
    pub(in crate::store::embedded) fn add_message(
        &mut self,
        message: &Message,
        request_id: Option<&str>,
    ) {
        let (disk, id) = (self.disk, message.id.0.to_be_bytes());
        self.batch.insert(&disk.messages, id, codec::encode_message(message));
        if let Some(request_id) = request_id {
            self.batch.insert(&disk.requests, request_key(message.sender, request_id), id);
        }
    }

    pub(in crate::store::embedded) fn remove_message(&mut self, message: MessageId) {
        self.batch.remove(&self.disk.messages, message.0.to_be_bytes());
    }
}

fn request_key(sender: UserId, request_id: &str) -> Vec<u8> {
    [&sender.0.to_be_bytes(), &[REQUEST_MARK][..], request_id.as_bytes()].concat()
}
