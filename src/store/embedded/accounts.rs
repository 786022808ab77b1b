//! The accounts that events have named, numbered from 0.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use hashbrown::HashMap;

use crate::domain::UserId;

/// Numbers accounts densely in the order in which they become known. A number
/// holds as long as the process; on disk accounts go by their own ids.
#[derive(Debug, Default)]
pub(super) struct AccountTable {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    // Keys come from outside: foldhash is seeded at random, and the quality
    // variant keeps chosen ids from colliding on purpose.
    by_user: HashMap<UserId, u32, foldhash::quality::RandomState>,
    users: Vec<UserId>,
}

impl AccountTable {
    pub(super) fn find(&self, users: &[UserId]) -> Vec<Option<u32>> {
        let known = self.read();
        users.iter().map(|user| known.by_user.get(user).copied()).collect()
    }

    /// The number of each user, given out now where there was none; the users
    /// that are new are added to `new`. `None` where the numbers have run out.
    pub(super) fn number(&self, users: &[UserId], new: &mut Vec<UserId>) -> Option<Vec<u32>> {
        let mut numbers = Vec::with_capacity(users.len());
        {
            let known = self.read();
            numbers.extend(users.iter().map(|user| known.by_user.get(user).copied()));
        }
        if numbers.iter().all(Option::is_some) {
            return Some(numbers.into_iter().flatten().collect());
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        users
            .iter()
            .zip(numbers)
            .map(|(user, number)| match number {
                Some(number) => Some(number),
                None => known.number(*user, new),
            })
            .collect()
    }

    /// The users of these numbers, in the same places.
    pub(super) fn users(&self, numbers: &[u32]) -> Vec<UserId> {
        let known = self.read();
        numbers.iter().map(|number| known.users[*number as usize]).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.read().users.len()
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn number(&mut self, user: UserId, new: &mut Vec<UserId>) -> Option<u32> {
        if let Some(number) = self.by_user.get(&user) {
            return Some(*number);
        }
        let number = u32::try_from(self.users.len()).ok()?;
        self.users.push(user);
        self.by_user.insert(user, number);
        new.push(user);
        Some(number)
    }
}
