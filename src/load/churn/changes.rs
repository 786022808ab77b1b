//! What the planned changes come to in the end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::{super::graph::UserIndex, Change, Hide};

/// What the planned changes make of the graph and the posts.
#[derive(Default)]
pub(crate) struct Changes {
    /// By follower: whom it follows, or not, in the end.
    follows: HashMap<UserIndex, Vec<(UserIndex, bool)>, foldhash::fast::RandomState>,
    deleted: RoaringBitmap,
    /// Whether authors whose delivery was changed are pulled in the end.
    pulled: BTreeMap<UserIndex, bool>,
    /// Whether an account hides another in the end.
    hides: HashMap<(Hide, UserIndex, UserIndex), bool, foldhash::fast::RandomState>,
    sent_count: u32,
    deleted_messages: RoaringBitmap,
}

impl Changes {
    pub(crate) fn is_deleted(&self, number: u32) -> bool {
        self.deleted.contains(number)
    }

    /// Whether a follow has been changed, and into what.
    pub(crate) fn follow(&self, follower: UserIndex, followee: UserIndex) -> Option<bool> {
        let changes = self.follows.get(&follower)?;
        changes.iter().find(|(other, _)| *other == followee).map(|(_, follows)| *follows)
    }

    pub(crate) fn follows_of(&self, follower: UserIndex) -> &[(UserIndex, bool)] {
        self.follows.get(&follower).map_or(&[], Vec::as_slice)
    }

    /// The authors whose delivery was ever changed, and whether they are pulled in the end.
    pub(crate) fn pulled(&self) -> &BTreeMap<UserIndex, bool> {
        &self.pulled
    }

    /// Everyone who hides another in the end, how, and whom.
    pub(crate) fn hides(&self) -> impl Iterator<Item = (Hide, UserIndex, UserIndex)> {
        self.hides.iter().filter(|(_, hides)| **hides).map(|(hide, _)| *hide)
    }

    /// Whether an account was ever hidden from a reader.
    pub(crate) fn was_hidden(&self, reader: UserIndex, author: UserIndex) -> bool {
        [(Hide::Mute, reader, author), (Hide::Block, reader, author), (Hide::Block, author, reader)]
            .iter()
            .any(|hide| self.hides.contains_key(hide))
    }

    /// How many messages are sent, numbered from 0.
    pub(crate) fn sent_count(&self) -> u32 {
        self.sent_count
    }

    /// Whether a message is deleted.
    pub(crate) fn is_message_deleted(&self, number: u32) -> bool {
        self.deleted_messages.contains(number)
    }

    pub(crate) fn record(&mut self, change: Change) {
        let (follower, followee, follows) = match change {
            Change::DeletePost(number) => {
                self.deleted.insert(number);
                return;
            }
            Change::SetDelivery { author, pulled } => {
                self.pulled.insert(author, pulled);
                return;
            }
            Change::SendMessage(number) => {
                self.sent_count = number + 1;
                return;
            }
            Change::DeleteMessage(number) => {
                self.deleted_messages.insert(number);
                return;
            }
            Change::Hide { how, by, other, hides } => {
                self.hides.insert((how, by, other), hides);
                return;
            }
            Change::Follow { follower, followee } => (follower, followee, true),
            Change::Unfollow { follower, followee } => (follower, followee, false),
        };
        let changes = self.follows.entry(follower).or_default();
        match changes.iter_mut().find(|(other, _)| *other == followee) {
            Some(change) => change.1 = follows,
            None => changes.push((followee, follows)),
        }
    }
}

/// Changes that planning writes, and probes and the model read.
#[derive(Clone, Default)]
pub(crate) struct SharedChanges(Arc<Mutex<Changes>>);

impl SharedChanges {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Changes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
