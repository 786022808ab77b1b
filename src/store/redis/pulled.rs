//! Which authors are pulled, as this process has heard last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    Inner,
    control::{Call, elements},
    keys, reply,
};
use crate::{
    domain::UserId,
    store::{StoreError, pulled::changed},
};

/// They are few, and every read asks for them.
#[derive(Debug, Default)]
pub(super) struct Pulled(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    authors: Arc<[UserId]>,
    /// How often this process itself has changed them.
    changes: u64,
}

impl Pulled {
    pub(super) fn authors(&self) -> Arc<[UserId]> {
        Arc::clone(&self.lock().authors)
    }

    /// Notes what this process has written.
    pub(super) fn change(&self, author: UserId, is_pulled: bool) {
        let mut heard = self.lock();
        heard.authors = changed(&heard.authors, author, is_pulled);
        heard.changes += 1;
    }

    fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Notes what was read, unless this process has written since `changes` were counted:
    /// nobody knows which of the two came first.
    fn heard(&self, authors: Vec<UserId>, changes: u64) {
        let mut heard = self.lock();
        if heard.changes == changes && *heard.authors != *authors {
            heard.authors = authors.into();
        }
    }

    /// It is whole even after a panic: it is changed by single assignments only.
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Reads who is pulled, and remembers it.
    pub(super) async fn hear_pulled(&self) -> Result<Arc<[UserId]>, StoreError> {
        let changes = self.pulled.changes();
        let members = self.control.one(Call::of("SMEMBERS", &[keys::PULLED])).await?;
        let authors = reply::accounts(&elements(members), "the authors who are pulled")?;
        self.pulled.heard(authors.clone(), changes);
        Ok(authors.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_a_change_of_ones_own_is_not_believed() {
        let pulled = Pulled::default();
        let changes = pulled.changes();
        pulled.change(UserId(7), true);
        pulled.heard(vec![], changes);
        assert_eq!(*pulled.authors(), [UserId(7)]);
        pulled.heard(vec![UserId(7), UserId(8)], pulled.changes());
        pulled.change(UserId(7), false);
        assert_eq!(*pulled.authors(), [UserId(8)]);
    }
}
