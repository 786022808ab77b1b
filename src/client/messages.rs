//! `roost message`, `messages` and `delete-message`.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use clap::Args;

use super::{
    ClientError, Target,
    lines::{head_of, in_one_line, when},
    page::page_size,
};
use crate::{
    domain::{MessageId, UserId},
    proto::v1::{
        DeleteMessageRequest, ListMessagesRequest, ListSentMessagesRequest, Message,
        SendMessageRequest, message_service_client::MessageServiceClient,
    },
};

/// Sends a direct message and prints its id.
#[derive(Args, Clone, Debug)]
pub struct MessageArgs {
    /// What it says: 1 to 140 characters
    #[arg(allow_hyphen_values = true)]
    pub text: String,
    /// The account that sends
    #[arg(long, value_name = "USER")]
    pub from: UserId,
    /// An account that is to read it; may be said up to sixteen times
    #[arg(long = "to", value_name = "USER", required = true)]
    pub recipients: Vec<UserId>,
    /// A name for this request, at most 64 bytes: repeating it for one sender
    /// never sends a second message
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub request_id: String,
    /// Where to do it.
    #[command(flatten)]
    pub target: Target,
}

/// Prints direct messages, newest first.
#[derive(Args, Clone, Debug)]
pub struct MessagesArgs {
    /// Whose messages
    pub user: UserId,
    /// What the account has sent, in place of what it has received
    #[arg(long)]
    pub sent: bool,
    /// Print at most this many
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: u32,
    /// Where to read them.
    #[command(flatten)]
    pub target: Target,
}

/// Deletes a direct message, for everybody.
#[derive(Args, Clone, Debug)]
pub struct DeleteMessageArgs {
    /// The message to delete
    pub message_id: MessageId,
    /// The account that has sent it
    #[arg(long, value_name = "USER")]
    pub from: UserId,
    /// Where to do it.
    #[command(flatten)]
    pub target: Target,
}

impl MessageArgs {
    /// Sends and prints the message's id, alone on a line of stdout.
    ///
    /// # Errors
    /// If the server cannot be reached or refuses.
    pub async fn run(self) -> Result<(), ClientError> {
        let mut messages = MessageServiceClient::new(self.target.connect().await?);
        let request = SendMessageRequest {
            sender_id: self.from.0,
            recipient_ids: self.recipients.into_iter().map(u64::from).collect(),
            text: self.text,
            request_id: self.request_id,
        };
        println!("{}", messages.send_message(request).await?.into_inner().message_id);
        Ok(())
    }
}

impl MessagesArgs {
    /// Reads page by page, and prints a line a message (id, sender, age, to whom, text).
    ///
    /// # Errors
    /// If the server cannot be reached or refuses, or stdout is closed.
    pub async fn run(self) -> Result<(), ClientError> {
        let mut service = MessageServiceClient::new(self.target.connect().await?);
        let (mut left, mut page_token, user_id) = (self.limit, String::new(), self.user.0);
        while left > 0 {
            let page_size = page_size(left);
            let messages;
            (messages, page_token) = if self.sent {
                let request = ListSentMessagesRequest { user_id, page_size, page_token };
                let page = service.list_sent_messages(request).await?.into_inner();
                (page.messages, page.next_page_token)
            } else {
                let request = ListMessagesRequest { user_id, page_size, page_token };
                let page = service.list_messages(request).await?.into_inner();
                (page.messages, page.next_page_token)
            };
            let now = SystemTime::now();
            let mut out = io::stdout().lock();
            for message in messages.iter().take(left as usize) {
                writeln!(out, "{}", line_of(message, now))?;
            }
            left = left.saturating_sub(messages.len() as u32);
            if page_token.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

impl DeleteMessageArgs {
    /// Deletes and says so on stdout.
    ///
    /// # Errors
    /// If the server cannot be reached, or the account has sent no such message.
    pub async fn run(self) -> Result<(), ClientError> {
        let mut messages = MessageServiceClient::new(self.target.connect().await?);
        let message_id = self.message_id.0;
        let request = DeleteMessageRequest { sender_id: self.from.0, message_id };
        let applied = messages.delete_message(request).await?.into_inner().applied;
        println!("deleted message {message_id}{}", when(applied));
        Ok(())
    }
}

fn line_of(message: &Message, now: SystemTime) -> String {
    let head = head_of(message.id, message.sender_id, message.create_time, now);
    let to = message.recipient_ids.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    format!("{head}to {to}: {}", in_one_line(&message.text)).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_it_says() {
        let message = Message {
            id: 9 << 22,
            sender_id: 7,
            recipient_ids: vec![1, 2],
            text: "two\nlines".to_owned(),
            create_time: None,
        };
        let now = MessageId(message.id).created_at();
        assert_eq!(line_of(&message, now), "37748736         7       now  to 1, 2: two lines");
    }
}
