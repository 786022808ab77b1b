//! One value per account, in chunks with a lock each.
//!
//! Handles are dense, so a value is found by position, without hashing; accounts
//! with near handles share a lock and lie side by side, so that writing in order
//! of handles is fast.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Accounts to a chunk.
const CHUNK_LEN: usize = 1_024;

/// A growing array with a value for every account handle; those not yet written
/// hold the default.
#[derive(Debug)]
pub(super) struct Slots<T> {
    chunks: RwLock<Vec<Arc<Mutex<Vec<T>>>>>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { chunks: RwLock::default() }
    }
}

impl<T: Default> Slots<T> {
    /// Works on the value of one account.
    pub(super) fn with<R>(&self, account: u32, work: impl FnOnce(&mut T) -> R) -> R {
        let (chunk, place) = split(account);
        let chunk = self.chunk(chunk);
        work(&mut lock(&chunk)[place])
    }

    /// Works on the values of many accounts, which come in ascending order, and
    /// takes each lock once.
    pub(super) fn with_each<I>(
        &self,
        items: impl IntoIterator<Item = (u32, I)>,
        mut work: impl FnMut(&mut T, I),
    ) {
        let mut items = items.into_iter().peekable();
        while let Some(&(first, _)) = items.peek() {
            let (number, _) = split(first);
            let chunk = self.chunk(number);
            let mut values = lock(&chunk);
            while let Some((account, item)) = items.next_if(|(next, _)| split(*next).0 == number) {
                work(&mut values[split(account).1], item);
            }
        }
    }

    fn chunk(&self, number: usize) -> Arc<Mutex<Vec<T>>> {
        let chunks = self.chunks.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunk) = chunks.get(number) {
            return Arc::clone(chunk);
        }
        drop(chunks);
        let mut chunks = self.chunks.write().unwrap_or_else(PoisonError::into_inner);
        while chunks.len() <= number {
            let values = std::iter::repeat_with(T::default).take(CHUNK_LEN).collect();
            chunks.push(Arc::new(Mutex::new(values)));
        }
        Arc::clone(&chunks[number])
    }
}

fn split(account: u32) -> (usize, usize) {
    let account = account as usize;
    (account / CHUNK_LEN, account % CHUNK_LEN)
}

/// A panic while the lock was held leaves values that are each still whole.
fn lock<T>(chunk: &Mutex<Vec<T>>) -> MutexGuard<'_, Vec<T>> {
    chunk.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_account_has_a_value_of_its_own() {
        let slots = Slots::<u32>::default();
        let accounts = [0, 1, 1_023, 1_024, 1_025, 9_000];
        slots.with_each(accounts.map(|account| (account, account)), |value, account| {
            *value += account + 1;
        });
        for account in accounts {
            assert_eq!(slots.with(account, |value| *value), account + 1);
        }
        assert_eq!(slots.with(2, |value| *value), 0);
    }
}
