//! Writes to home timelines: ids gathered by reader, and what became of them.

use std::ops::AddAssign;

use crate::domain::PostId;

/// Ids to write into timelines, gathered by reader: one write a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushes<A> {
    /// The readers, ascending, each with where its ids end in `ids`.
    pub(crate) readers: Vec<(A, usize)>,
    /// The ids of all readers, one after the other, ascending for each.
    pub(crate) ids: Vec<PostId>,
}

impl<A: Copy> Pushes<A> {
    /// Each reader with its ids.
    pub fn iter(&self) -> impl Iterator<Item = (A, &[PostId])> {
        let mut start = 0;
        self.readers.iter().map(move |&(reader, end)| {
            let ids = &self.ids[start..end];
            start = end;
            (reader, ids)
        })
    }

    /// One reader with its ids, by its place among the readers.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn at(&self, place: usize) -> (A, &[PostId]) {
        let start = place.checked_sub(1).map_or(0, |before| self.readers[before].1);
        let (reader, end) = self.readers[place];
        (reader, &self.ids[start..end])
    }

    /// One reader, by its place among the readers.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn reader(&self, place: usize) -> A {
        self.readers[place].0
    }

    /// The readers at `places`, which are ascending, with their ids.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn only(&self, places: &[usize]) -> Self {
        let mut some = Self { readers: Vec::with_capacity(places.len()), ids: Vec::new() };
        for &place in places {
            let (reader, ids) = self.at(place);
            some.ids.extend_from_slice(ids);
            some.readers.push((reader, some.ids.len()));
        }
        some
    }

    /// How many readers there are.
    pub fn len(&self) -> usize {
        self.readers.len()
    }

    /// How many ids there are, those of all readers together.
    pub fn id_count(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.readers.is_empty()
    }
}

/// What a push did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushOutcome {
    /// Ids written to live timelines.
    pub deliveries: u64,
    /// Ids not written since their readers sleep.
    pub skipped: u64,
    /// Live timelines written to.
    pub pushes: u64,
}

impl AddAssign for PushOutcome {
    fn add_assign(&mut self, other: Self) {
        self.deliveries += other.deliveries;
        self.skipped += other.skipped;
        self.pushes += other.pushes;
    }
}
