//! Readers who are known to sleep, so that nothing need be pushed to them.
//!
//! A push to a list that does not exist costs Redis as much as one that does some good,
//! and most readers sleep. Whom a push finds asleep is remembered here, and left out of
//! the pushes to come, until the reader is heard to wake:
//!
//! ```text
//!  worker:  hear who has woken ──► leave out who sleeps ──► push ──► learn who sleeps ─┐
//!               ▲   └──────────────────────────── one push at a time ◄────────────────┘
//!          the stream of wakes, in Redis
//!               ▲
//!  reader:  make the list ──► announce the wake ──► read the ledger
//! ```
//!
//! Nobody misses anything. A post that is pushed holds in the ledger by then. Either the
//! worker, which hears after it was given the post and before it leaves anybody out, has
//! heard of the wake, and pushes; or the wake comes later, and the ledger is read after
//! it. And whoever is learnt to sleep has not made a list before the answer of the push,
//! so that a wake is still to be heard.
//!
//! Redis may lose wakes, or bring back a list that was dropped. Where it loses, partitions
//! go back to what was delivered before (`watermarks`), and what is delivered again is
//! pushed to everybody; and nothing that was learnt before a partition was resumed counts
//! any more. The stream has an end as well: who does not find the wake in it that was heard
//! last has missed some, and forgets everything too.

use std::borrow::Cow;

use crate::{domain::UserId, store::Pushes};

/// What one worker process knows.
#[derive(Debug)]
pub(super) struct Sleepers {
    /// At each account's place that account, if it sleeps, or another one of the place,
    /// or nobody; made when the first is learnt.
    places: Vec<u64>,
    /// A power of two, or 0: nobody is learnt.
    places_max: usize,
    /// The wake that was heard last.
    last: Option<Wake>,
    /// How many partitions had been resumed when the first of it was learnt.
    resumed: u64,
}

/// No account: this one is never learnt, and wakes when somebody begins to listen.
pub(super) const NOBODY: u64 = 0;

/// Somebody has woken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wake {
    /// Where it is in the stream.
    pub(super) id: Vec<u8>,
    /// Who.
    pub(super) reader: UserId,
}

impl Sleepers {
    /// Takes no more than so many bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        let places = bytes_max / size_of::<u64>();
        let places_max = if places == 0 { 0 } else { 1 << places.ilog2() };
        Self { places: Vec::new(), places_max, last: None, resumed: 0 }
    }

    /// Forgets everything if a partition was resumed since: `resumed` counts them.
    pub(super) fn resumed(&mut self, resumed: u64) {
        if self.resumed != resumed {
            self.forget();
            self.resumed = resumed;
        }
    }

    /// The wake that was heard last; where there is none, one is to be made to begin at.
    pub(super) fn last(&self) -> Option<&Wake> {
        self.last.as_ref()
    }

    /// Begins at a wake.
    pub(super) fn begin(&mut self, wake: Wake) {
        self.forget();
        self.last = Some(wake);
    }

    /// Hears the wakes from the last one on. False: the first of them is not that one, and
    /// everything is forgotten.
    pub(super) fn hear(&mut self, wakes: &[Wake]) -> bool {
        let Some((_, news)) = wakes.split_first().filter(|(first, _)| Some(*first) == self.last())
        else {
            self.forget();
            return false;
        };
        for wake in news {
            let place = self.place(wake.reader);
            if self.places.get(place) == Some(&wake.reader.0) {
                self.places[place] = NOBODY;
            }
        }
        if let Some(last) = news.last() {
            self.last = Some(last.clone());
        }
        true
    }

    /// The pushes to all who are not known to sleep.
    pub(super) fn leave_out<'a>(&self, pushes: &'a Pushes<UserId>) -> Cow<'a, Pushes<UserId>> {
        if self.places.is_empty() {
            return Cow::Borrowed(pushes);
        }
        let awake = |place: &usize| !self.sleeps(pushes.reader(*place));
        let places: Vec<usize> = (0..pushes.len()).filter(awake).collect();
        if places.len() == pushes.len() {
            return Cow::Borrowed(pushes);
        }
        Cow::Owned(pushes.only(&places))
    }

    /// Learns whom a push found asleep that was made since [`hear`](Self::hear).
    pub(super) fn learn(&mut self, readers: &[UserId]) {
        if self.places.is_empty() && !readers.is_empty() {
            self.places = vec![NOBODY; self.places_max];
        }
        for reader in readers {
            let place = self.place(*reader);
            if let Some(there) = self.places.get_mut(place) {
                *there = reader.0;
            }
        }
    }

    fn sleeps(&self, reader: UserId) -> bool {
        reader.0 != NOBODY && self.places.get(self.place(reader)) == Some(&reader.0)
    }

    /// Neighbours are neighbours, since pushes come in the order of accounts; and numbers
    /// that are apart by a power of two are not all in one place.
    fn place(&self, reader: UserId) -> usize {
        let id = reader.0;
        let mixed = id ^ (id >> 22) ^ (id >> 44);
        mixed as usize & self.places_max.saturating_sub(1)
    }

    fn forget(&mut self) {
        self.places = Vec::new();
        self.last = None;
    }
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::PostId, fanout::combine};

    fn wake(number: u64, reader: u64) -> Wake {
        Wake { id: number.to_be_bytes().to_vec(), reader: UserId(reader) }
    }

    fn pushes(readers: std::ops::Range<u64>) -> Pushes<UserId> {
        combine(readers.map(|reader| (UserId(reader), PostId(1))).collect())
    }

    fn awake(sleepers: &Sleepers, readers: std::ops::Range<u64>) -> Vec<u64> {
        sleepers.leave_out(&pushes(readers)).iter().map(|(reader, _)| reader.0).collect()
    }

    /// It has heard of one wake, and knows that 1 to 9 sleep.
    fn sleepers() -> Sleepers {
        let mut sleepers = Sleepers::new(128);
        sleepers.begin(wake(0, 0));
        sleepers.learn(&(0..10).map(UserId).collect::<Vec<_>>());
        sleepers
    }

    #[test]
    fn who_was_found_asleep_is_left_out_until_the_wake_is_heard() {
        let mut sleepers = sleepers();
        assert_eq!(awake(&sleepers, 0..12), [0, 10, 11], "and nobody is 0");
        assert!(sleepers.hear(&[wake(0, 0), wake(1, 3), wake(2, 5)]));
        assert_eq!(awake(&sleepers, 0..12), [0, 3, 5, 10, 11]);
        assert!(sleepers.hear(&[wake(2, 5)]), "nothing new");
        assert!(sleepers.hear(&[wake(2, 5), wake(3, 19)]), "in the place of 3");
        assert_eq!(awake(&sleepers, 0..12), [0, 3, 5, 10, 11]);
    }

    #[test]
    fn it_forgets_where_wakes_may_be_missing() {
        let everybody: Vec<u64> = (0..12).collect();
        for gap in [vec![], vec![wake(1, 3)]] {
            let mut sleepers = sleepers();
            assert!(!sleepers.hear(&gap));
            assert_eq!((sleepers.last(), awake(&sleepers, 0..12)), (None, everybody.clone()));
        }
        let mut sleepers = sleepers();
        sleepers.resumed(1);
        assert_eq!((sleepers.last(), awake(&sleepers, 0..12)), (None, everybody));
    }

    #[test]
    fn it_knows_no_more_than_it_may() {
        let mut sleepers = sleepers();
        sleepers.learn(&(0..1_000).map(UserId).collect::<Vec<_>>());
        assert_eq!(awake(&sleepers, 0..1_000).len(), 1_000 - 16);
        let mut off = Sleepers::new(7);
        off.begin(wake(0, 0));
        off.learn(&[UserId(1)]);
        assert_eq!(awake(&off, 0..3), [0, 1, 2]);
    }
}
