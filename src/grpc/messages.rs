//! `roost.v1.MessageService`.

use prost_types::Timestamp;
use tonic::{Request, Response, Status};

use super::{
    Api,
    answer_size::{ANSWER_BYTES_MAX, Budget},
    page::{self, List},
};
use crate::{
    domain::{Message, MessageId, UserId},
    event_log::EventLog,
    inbox,
    proto::v1,
    store::{MessageSide, Store},
    writes::{MessageDraft, check_user},
};

#[tonic::async_trait]
impl<L: EventLog, S: Store> v1::message_service_server::MessageService for Api<L, S> {
    async fn send_message(
        &self,
        request: Request<v1::SendMessageRequest>,
    ) -> Result<Response<v1::SendMessageResponse>, Status> {
        let v1::SendMessageRequest { sender_id, recipient_ids, text, request_id } =
            request.into_inner();
        let recipients = recipient_ids.into_iter().map(UserId).collect();
        let request_id = (!request_id.is_empty()).then_some(request_id);
        let draft = MessageDraft { sender: UserId(sender_id), recipients, text, request_id };
        let sent = self.writes.send_message(draft).await?;
        let (message_id, applied) = (sent.message.0, sent.applied);
        Ok(Response::new(v1::SendMessageResponse { message_id, applied }))
    }

    async fn delete_message(
        &self,
        request: Request<v1::DeleteMessageRequest>,
    ) -> Result<Response<v1::DeleteMessageResponse>, Status> {
        let v1::DeleteMessageRequest { sender_id, message_id } = request.into_inner();
        let message = MessageId(message_id);
        let applied = self.writes.delete_message(UserId(sender_id), message).await?;
        Ok(Response::new(v1::DeleteMessageResponse { applied }))
    }

    async fn list_messages(
        &self,
        request: Request<v1::ListMessagesRequest>,
    ) -> Result<Response<v1::ListMessagesResponse>, Status> {
        let v1::ListMessagesRequest { user_id, page_size, page_token } = request.into_inner();
        let (messages, next_page_token) =
            self.message_page(user_id, MessageSide::Received, page_size, &page_token).await?;
        Ok(Response::new(v1::ListMessagesResponse { messages, next_page_token }))
    }

    async fn list_sent_messages(
        &self,
        request: Request<v1::ListSentMessagesRequest>,
    ) -> Result<Response<v1::ListSentMessagesResponse>, Status> {
        let v1::ListSentMessagesRequest { user_id, page_size, page_token } = request.into_inner();
        let (messages, next_page_token) =
            self.message_page(user_id, MessageSide::Sent, page_size, &page_token).await?;
        Ok(Response::new(v1::ListSentMessagesResponse { messages, next_page_token }))
    }
}

impl<L: EventLog, S: Store> Api<L, S> {
    async fn message_page(
        &self,
        user_id: u64,
        side: MessageSide,
        page_size: i32,
        page_token: &str,
    ) -> Result<(Vec<v1::Message>, String), Status> {
        let list = match side {
            MessageSide::Received => List::Messages,
            MessageSide::Sent => List::SentMessages,
        };
        check_user("user_id", UserId(user_id))?;
        let count_max = page::size(page_size, page::POSTS_DEFAULT, page::POSTS_MAX)?;
        // A message takes no more than a post.
        let count_max = count_max.min(self.posts_max());
        let before = page::parse(page_token, list, user_id)?.map(MessageId);
        let page = inbox::messages(&*self.store, UserId(user_id), side, before, count_max).await?;
        let entries_len = page.entries.len();
        let mut budget = Budget::new(ANSWER_BYTES_MAX);
        let messages = page.entries.into_iter().map(message_to_proto);
        let messages: Vec<_> = messages.take_while(|message| budget.take(message)).collect();
        let last = messages.last().filter(|_| page.more || messages.len() < entries_len);
        let next_page_token = page::next(list, user_id, last.map(|last| last.id));
        Ok((messages, next_page_token))
    }
}

fn message_to_proto(message: Message) -> v1::Message {
    v1::Message {
        id: message.id.0,
        sender_id: message.sender.0,
        recipient_ids: message.recipients.into_iter().map(u64::from).collect(),
        text: message.text,
        create_time: Some(Timestamp::from(message.id.created_at())),
    }
}
