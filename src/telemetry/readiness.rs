//! Whether a process does what its role says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Whether a process does what its role says, and why it does not. Clones are
/// handles of the same.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Why it does not; `None` while it does.
    reason: Option<String>,
    /// What an operator should mend all the same, by what it is about.
    warnings: BTreeMap<&'static str, String>,
}

impl Readiness {
    /// Not yet, and why.
    pub fn not_yet(reason: &str) -> Self {
        let (reason, warnings) = (Some(reason.to_owned()), BTreeMap::new());
        Self(Arc::new(Mutex::new(State { reason, warnings })))
    }

    /// It does.
    pub fn set_ready(&self) {
        self.lock().reason = None;
    }

    /// It does not, or not any more.
    pub fn set_unready(&self, reason: String) {
        self.lock().reason = Some(reason);
    }

    /// Sets or withdraws the warning about something. It leaves the process ready: reads go on.
    pub fn set_warning(&self, about: &'static str, warning: Option<String>) {
        let warnings = &mut self.lock().warnings;
        match warning {
            Some(warning) => drop(warnings.insert(about, warning)),
            None => drop(warnings.remove(about)),
        }
    }

    /// Why it does not; `None` while it does.
    pub fn reason(&self) -> Option<String> {
        self.lock().reason.clone()
    }

    /// What an operator should mend, whether it is ready or not.
    pub fn warnings(&self) -> Vec<String> {
        self.lock().warnings.values().cloned().collect()
    }

    /// What it holds is whole even after a panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
