//! What accounts are told of: bounded lists of what concerns them.
//!
//! Of each list CAP entries are kept, those that are gone or of hidden accounts among them,
//! and the others are shown. As long as there are more, the oldest of whoever has the most
//! goes.

use std::{cmp::Reverse, collections::HashMap};

use super::{super::graph::UserIndex, grouped::Grouped, hidden::Hidden};

/// What is told: the post of an author.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) author: UserIndex,
    /// Who wrote what it repeats or answers.
    pub(crate) referred: Option<UserIndex>,
    /// Whether it is deleted in the end.
    pub(crate) is_gone: bool,
}

/// One list of every account.
pub(crate) struct Inboxes {
    cap: usize,
    /// Newest first.
    entries: Grouped<Entry>,
}

impl Inboxes {
    /// `entries` are all there ever were, and whom each concerns.
    pub(crate) fn new(
        user_count: u32,
        entries: impl Iterator<Item = (UserIndex, Entry)> + Clone,
        cap: usize,
    ) -> Self {
        let mut entries = Grouped::new(user_count, Entry::default(), entries);
        for user in 0..user_count {
            entries.of_mut(user).sort_unstable_by_key(|entry| Reverse(entry.id));
        }
        Self { cap, entries }
    }

    pub(crate) fn is_empty(&self, user: UserIndex) -> bool {
        self.entries.of(user).is_empty()
    }

    /// The ids that an account reads, newest first.
    pub(super) fn shown(&self, user: UserIndex, hidden: &Hidden) -> Vec<u64> {
        let kept = kept(self.entries.of(user), self.cap).into_iter();
        let is_shown = |entry: &Entry| {
            let mut authors = [Some(entry.author), entry.referred].into_iter().flatten();
            !entry.is_gone && !authors.any(|author| hidden.contains(user, author))
        };
        kept.filter(is_shown).map(|entry| entry.id).collect()
    }
}

/// What is kept of a list, newest first.
fn kept(entries: &[Entry], cap: usize) -> Vec<Entry> {
    let mut newer = HashMap::<UserIndex, usize>::new();
    let mut by_rank: Vec<(usize, &Entry)> = Vec::with_capacity(entries.len());
    for entry in entries {
        let newer = newer.entry(entry.author).or_default();
        by_rank.push((*newer, entry));
        *newer += 1;
    }
    by_rank.sort_by_key(|(rank, entry)| (*rank, Reverse(entry.id)));
    let mut kept: Vec<Entry> = by_rank.into_iter().take(cap).map(|(_, entry)| *entry).collect();
    kept.sort_by_key(|entry| Reverse(entry.id));
    kept
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::churn::{Change, Changes, Hide},
        *,
    };

    #[test]
    fn the_newest_are_kept_and_of_these_the_gone_and_the_hidden_left_out() {
        let of = |author, id, is_gone| (0, Entry { id, author, referred: None, is_gone });
        let quote = (1, Entry { id: 4, author: 1, referred: Some(3), is_gone: false });
        let entries = [of(1, 5, false), of(2, 9, false), of(1, 7, true), of(3, 8, false), quote];
        let inboxes = |cap| Inboxes::new(3, entries.into_iter(), cap);
        let mut changes = Changes::default();
        let shown = |cap, changes: &Changes| inboxes(cap).shown(0, &Hidden::new(changes));
        assert_eq!(shown(4, &changes), [9, 8, 5]);
        assert_eq!(shown(3, &changes), [9, 8]);
        assert_eq!(shown(2, &changes), [9, 8]);
        changes.record(Change::Hide { how: Hide::Block, by: 3, other: 0, hides: true });
        assert_eq!(shown(4, &changes), [9, 5]);
        let of_second = |changes: &Changes| inboxes(4).shown(1, &Hidden::new(changes));
        assert_eq!(of_second(&changes), [4]);
        changes.record(Change::Hide { how: Hide::Mute, by: 1, other: 3, hides: true });
        assert_eq!(of_second(&changes), [0; 0]);
        assert!(inboxes(4).is_empty(2) && !inboxes(4).is_empty(0));
    }
}
