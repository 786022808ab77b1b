//! Whether a process does what its role says.

use std::sync::{Arc, Mutex, PoisonError};

/// Whether a process does what its role says, and why it does not. Clones are
/// handles of the same.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<Option<String>>>);

impl Readiness {
    /// Not yet, and why.
    pub fn not_yet(reason: &str) -> Self {
        Self(Arc::new(Mutex::new(Some(reason.to_owned()))))
    }

    /// It does.
    pub fn set_ready(&self) {
        self.set(None);
    }

    /// It does not, or not any more.
    pub fn set_unready(&self, reason: String) {
        self.set(Some(reason));
    }

    /// Why it does not; `None` while it does.
    pub fn reason(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, reason: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}
