//! Whom readers do not see.

use hashbrown::HashSet;
use roaring::RoaringBitmap;

use super::super::{
    churn::{Changes, Hide},
    graph::UserIndex,
};

/// Who is hidden from whom in the end: who mutes another does not see it, and a block hides
/// each from the other.
#[derive(Default)]
pub(super) struct Hidden {
    /// Reader and author.
    pairs: HashSet<(UserIndex, UserIndex), foldhash::fast::RandomState>,
    readers: RoaringBitmap,
}

impl Hidden {
    pub(super) fn new(changes: &Changes) -> Self {
        let mut hidden = Self::default();
        for (how, by, other) in changes.hides() {
            hidden.add(by, other);
            if how == Hide::Block {
                hidden.add(other, by);
            }
        }
        hidden
    }

    pub(super) fn contains(&self, reader: UserIndex, author: UserIndex) -> bool {
        self.pairs.contains(&(reader, author))
    }

    /// Whether anybody is hidden from a reader.
    pub(super) fn any(&self, reader: UserIndex) -> bool {
        self.readers.contains(reader)
    }

    fn add(&mut self, reader: UserIndex, author: UserIndex) {
        self.pairs.insert((reader, author));
        self.readers.insert(reader);
    }
}
