//! One value per account, in chunks with a lock each.
//!
//! Handles are dense, so a value is found by position, without hashing; accounts
//! with near handles share a lock and lie side by side, so that writing in order
//! of handles is fast.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Accounts to a chunk.
const CHUNK_LEN: u32 = 1_024;
/// Level *n* has 2^n chunks, so that these are enough for every `u32`.
const LEVELS: usize = 23;

/// A growing array with a value for every account handle; those not yet written
/// hold the default. Nothing ever moves, so finding a chunk takes no lock.
#[derive(Debug)]
pub(super) struct Slots<T> {
    levels: [OnceLock<Box<[Chunk<T>]>>; LEVELS],
}

/// Empty until one of its accounts is used.
type Chunk<T> = Mutex<Vec<T>>;

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { levels: [const { OnceLock::new() }; LEVELS] }
    }
}

impl<T: Default> Slots<T> {
    /// Works on the value of one account.
    pub(super) fn with<R>(&self, account: u32, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.lock(account / CHUNK_LEN)[place(account)])
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
            let number = first / CHUNK_LEN;
            let mut values = self.lock(number);
            while let Some((account, item)) = items.next_if(|(next, _)| next / CHUNK_LEN == number)
            {
                work(&mut values[place(account)], item);
            }
        }
    }

    /// Works on the values of all accounts near which any was used.
    pub(super) fn each_used(&self, mut work: impl FnMut(&mut T)) {
        for chunk in self.levels.iter().filter_map(OnceLock::get).flatten() {
            let mut values = chunk.lock().unwrap_or_else(PoisonError::into_inner);
            values.iter_mut().for_each(&mut work);
        }
    }

    /// A panic while the lock was held leaves values that are each still whole.
    fn lock(&self, number: u32) -> MutexGuard<'_, Vec<T>> {
        // Counted from 1, the chunks of level n are those with n as logarithm.
        let number = number as usize + 1;
        let level = number.ilog2() as usize;
        let chunks = self.levels[level].get_or_init(|| {
            std::iter::repeat_with(|| Mutex::new(Vec::new())).take(1 << level).collect()
        });
        let mut values =
            chunks[number - (1 << level)].lock().unwrap_or_else(PoisonError::into_inner);
        if values.is_empty() {
            values.resize_with(CHUNK_LEN as usize, T::default);
        }
        values
    }
}

fn place(account: u32) -> usize {
    (account % CHUNK_LEN) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_account_has_a_value_of_its_own() {
        let slots = Slots::<u32>::default();
        let accounts = [0, 1, 1_023, 1_024, 1_025, 3_071, 3_072, 9_000, u32::MAX - 1];
        slots.with_each(accounts.map(|account| (account, account)), |value, account| {
            *value += account + 1;
        });
        for account in accounts {
            assert_eq!(slots.with(account, |value| *value), account + 1);
        }
        assert_eq!(slots.with(2, |value| *value), 0);
        let mut seen = Vec::new();
        slots.each_used(|value| seen.extend(value.checked_sub(1)));
        assert_eq!(seen, accounts);
    }
}
