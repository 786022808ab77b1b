//! The messages of a load.

use super::Workload;
use crate::{
    load::{
        graph::UserIndex,
        random::{Purpose, below, generator},
    },
    proto::v1::SendMessageRequest,
};

/// How many accounts a message is for at the most.
const RECIPIENTS_MAX: u64 = 3;

/// Who sends a message to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MessageParties {
    pub(crate) sender: UserIndex,
    /// Ascending; at least one, the sender not among them.
    pub(crate) recipients: Vec<UserIndex>,
}

impl Workload {
    /// Who sends the message of this number to whom, the same every time. There are as many
    /// as the settings ask for.
    pub(crate) fn message_parties(&self, number: u32) -> MessageParties {
        let mut random = generator(self.seed, Purpose::Messages, u64::from(number));
        let sender = self.somebody(&mut random);
        let count = 1 + below(&mut random, RECIPIENTS_MAX);
        let mut recipients: Vec<UserIndex> =
            (0..count).map(|_| self.somebody(&mut random)).filter(|user| *user != sender).collect();
        if recipients.is_empty() {
            recipients.push((sender + 1) % self.graph.user_count());
        }
        recipients.sort_unstable();
        recipients.dedup();
        MessageParties { sender, recipients }
    }

    /// The request that sends it.
    pub(crate) fn message_request(&self, number: u32) -> SendMessageRequest {
        let MessageParties { sender, recipients } = self.message_parties(number);
        SendMessageRequest {
            sender_id: self.graph.id(sender).0,
            recipient_ids: recipients.iter().map(|user| self.graph.id(*user).0).collect(),
            text: format!("letter {number}").chars().take(self.text_chars_max).collect(),
            request_id: format!("{}-m{number}", self.run),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{planned, synthetic_settings};
    use crate::load::settings::Settings;

    #[test]
    fn a_message_is_the_same_every_time_and_for_others() {
        for users in [2, 100] {
            let settings = Settings { messages_percent: 5, ..synthetic_settings(users, 10) };
            let (load, same) = (planned(&settings), planned(&settings));
            for number in 0..200 {
                let message = load.message_request(number);
                assert_eq!(message, same.message_request(number));
                assert!((1..=3).contains(&message.recipient_ids.len()), "{message:?}");
                assert!(message.recipient_ids.is_sorted_by(|a, b| a < b), "{message:?}");
                assert!(!message.recipient_ids.contains(&message.sender_id), "{message:?}");
                assert!(message.request_id.len() <= 64);
            }
        }
    }
}
