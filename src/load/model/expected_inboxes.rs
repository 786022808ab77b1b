//! What accounts should find in lists other than timelines, from what the load has sent.

use std::collections::BTreeMap;

use super::{
    super::{
        board::Board,
        churn::Changes,
        graph::UserIndex,
        workload::{MessageParties, Workload},
    },
    inbox::{Entry, Inboxes},
};
use crate::domain::MessageId;

/// The lists of all accounts.
pub(crate) struct ExpectedInboxes {
    /// The posts that mention, answer or repeat them.
    pub(crate) notifications: Inboxes,
    pub(crate) received: Inboxes,
    pub(crate) sent: Inboxes,
}

impl ExpectedInboxes {
    pub(crate) fn new(
        workload: &Workload,
        board: &Board,
        messages: &BTreeMap<u32, MessageId>,
        changes: &Changes,
        cap: usize,
    ) -> Self {
        let inboxes = |entries: Vec<(UserIndex, Entry)>| {
            Inboxes::new(workload.graph.user_count(), entries.into_iter(), cap)
        };
        let acked = (0..workload.post_count()).filter_map(|it| Some((it, board.id(it)?)));
        let notified = acked.flat_map(|(number, id)| {
            let author = workload.author(number);
            let referred = workload.meant(number).map(|meant| workload.author(meant));
            let entry = Entry { id: id.0, author, referred, is_gone: changes.is_deleted(number) };
            workload.notified(number).into_iter().map(move |user| (user, entry))
        });
        let (mut received, mut sent) = (Vec::new(), Vec::new());
        for (number, id) in messages {
            let MessageParties { sender, recipients } = workload.message_parties(*number);
            let is_gone = changes.is_message_deleted(*number);
            let entry = Entry { id: id.0, author: sender, referred: None, is_gone };
            sent.push((sender, entry));
            received.extend(recipients.into_iter().map(|user| (user, entry)));
        }
        Self {
            notifications: inboxes(notified.collect()),
            received: inboxes(received),
            sent: inboxes(sent),
        }
    }

    /// Whether an account should find nothing at all.
    pub(crate) fn is_nothing(&self, user: UserIndex) -> bool {
        [&self.notifications, &self.received, &self.sent].iter().all(|list| list.is_empty(user))
    }
}
