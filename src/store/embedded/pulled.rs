//! Which authors are pulled.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::pulled::changed;

/// They are few, and every read asks for them.
#[derive(Debug, Default)]
pub(super) struct PulledTable(Mutex<Arc<[u32]>>);

impl PulledTable {
    pub(super) fn authors(&self) -> Arc<[u32]> {
        Arc::clone(&self.lock())
    }

    pub(super) fn set(&self, author: u32, is_pulled: bool) {
        let mut authors = self.lock();
        *authors = changed(&authors, author, is_pulled);
    }

    /// It is whole even after a panic: it is changed by single assignments only.
    fn lock(&self) -> MutexGuard<'_, Arc<[u32]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
