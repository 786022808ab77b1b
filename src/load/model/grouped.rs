//! Lists of many accounts, in little memory.

use super::super::graph::UserIndex;

/// A list a user in one array: 4 or 8 bytes an item and 8 bytes a user, which is
/// what lets a model of 70 million follows fit.
pub(super) struct Grouped<T> {
    /// Where the next item of a user goes; once all are in, where they end.
    ends: Vec<usize>,
    items: Vec<T>,
}

impl<T: Copy> Grouped<T> {
    pub(super) fn new(
        user_count: u32,
        filler: T,
        items: impl Iterator<Item = (UserIndex, T)> + Clone,
    ) -> Self {
        let mut grouped = Self::reserved(user_count, filler, |count| {
            items.clone().for_each(|(user, _)| count(user))
        });
        items.for_each(|(user, item)| grouped.push(user, item));
        grouped
    }

    /// Room for as many items as `count_each` counts, with `filler` in it.
    pub(super) fn reserved(
        user_count: u32,
        filler: T,
        count_each: impl FnOnce(&mut dyn FnMut(UserIndex)),
    ) -> Self {
        let mut ends = vec![0usize; user_count as usize];
        count_each(&mut |user| ends[user as usize] += 1);
        let mut total = 0;
        for end in &mut ends {
            total += std::mem::replace(end, total);
        }
        Self { ends, items: vec![filler; total] }
    }

    pub(super) fn push(&mut self, user: UserIndex, item: T) {
        let end = &mut self.ends[user as usize];
        self.items[*end] = item;
        *end += 1;
    }

    fn range(&self, user: UserIndex) -> std::ops::Range<usize> {
        let user = user as usize;
        let start = user.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[user]
    }

    pub(super) fn of(&self, user: UserIndex) -> &[T] {
        &self.items[self.range(user)]
    }

    pub(super) fn of_mut(&mut self, user: UserIndex) -> &mut [T] {
        let range = self.range(user);
        &mut self.items[range]
    }
}
