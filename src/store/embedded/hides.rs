//! Whom readers hide, in memory: few readers hide anybody.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    domain::UserId,
    store::{HideReason, Hides},
};

#[derive(Debug, Default)]
pub(super) struct HideTable {
    by_reader: RwLock<HashMap<u32, Arc<Hides>>>,
    nobody: Arc<Hides>,
}

impl HideTable {
    pub(super) fn of(&self, reader: u32) -> Arc<Hides> {
        let by_reader = self.by_reader.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(by_reader.get(&reader).unwrap_or(&self.nobody))
    }

    pub(super) fn set(&self, reader: u32, reason: HideReason, other: UserId, hides: bool) {
        let mut by_reader = self.by_reader.write().unwrap_or_else(PoisonError::into_inner);
        let of_reader = by_reader.entry(reader).or_default();
        Arc::make_mut(of_reader).set(reason, other, hides);
        if of_reader.is_empty() {
            by_reader.remove(&reader);
        }
    }
}
