//! Which messages have been acknowledged, and under which ids.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::domain::MessageId;

/// By the number of each message. There are few, compared with posts.
#[derive(Default)]
pub(super) struct Messages(Mutex<BTreeMap<u32, MessageId>>);

impl Messages {
    pub(super) fn ack(&self, number: u32, id: MessageId) {
        self.lock().insert(number, id);
    }

    pub(super) fn id(&self, number: u32) -> Option<MessageId> {
        self.lock().get(&number).copied()
    }

    /// All that are acknowledged by now, by number.
    pub(super) fn all(&self) -> BTreeMap<u32, MessageId> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, MessageId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
