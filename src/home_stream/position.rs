//! What of a home timeline a stream has sent. Pure.
//!
//! Posts do not come in the order of their ids: a partition may be behind the others. So the
//! last id that was sent does not tell what was. But below some id nothing comes any more: it
//! is settled. Above it, a position names all that was sent.
//!
//! A look reads the newest posts of the timeline, and need not reach down to what is settled:
//!
//! ```text
//!   settled            down to here the look is complete      newest
//!      │ ◄── not read ──► │ ◄──────── the look ──────────────► │
//! ```
//!
//! Where it shows a post that was sent, what is not read had mostly come before, and was sent
//! too; it is searched, now and then, for what has come late, before any of it is settled. Where
//! it shows none, more has come than a look holds, and what is not read is passed over.

use std::collections::BTreeSet;

use crate::{domain::PostId, home_timeline::Newer};

/// Ids above what is settled that a position names, 64 KiB as a token: at a post every 10 ms
/// the posts of more than 80 seconds. With more, the oldest are taken for settled.
pub(super) const SENT_MAX: usize = 8_192;
/// So many are named after that, so that it does not happen again with the next post.
const SENT_LEFT: usize = SENT_MAX / 4 * 3;

/// How far down a look at the newest posts has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// To what is settled: it shows all that is not.
    All,
    /// Not to what is settled, but to posts that were sent.
    Sent,
    /// Not even to those.
    Gap,
}

/// What was sent: everything up to some id, and these above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    settled: PostId,
    sent: BTreeSet<PostId>,
}

impl Position {
    /// Everything up to this id, and nothing above.
    pub fn after(settled: PostId) -> Self {
        Self { settled, sent: BTreeSet::new() }
    }

    /// Up to here everything was sent.
    pub fn settled(&self) -> PostId {
        self.settled
    }

    /// How far a look has come.
    pub(super) fn reach(&self, look: &Newer) -> Reach {
        match look.complete_down_to {
            None => Reach::All,
            Some(_) if look.ids.iter().any(|id| self.sent.contains(id)) => Reach::Sent,
            Some(_) => Reach::Gap,
        }
    }

    /// How many above what is settled were sent.
    pub(super) fn sent_count(&self) -> usize {
        self.sent.len()
    }

    /// Those of `ids` that were not sent, ascending.
    pub(super) fn unsent(&self, ids: &[PostId]) -> Vec<PostId> {
        let is_unsent = |id: &&PostId| **id > self.settled && !self.sent.contains(id);
        let mut unsent: Vec<PostId> = ids.iter().filter(is_unsent).copied().collect();
        unsent.sort_unstable();
        unsent
    }

    /// Takes note that these were sent. Where they are too many to be named, it returns the id
    /// up to which all are taken for settled.
    pub(super) fn sent(&mut self, ids: &[PostId]) -> Option<PostId> {
        self.sent.extend(ids.iter().filter(|id| **id > self.settled));
        if self.sent.len() <= SENT_MAX {
            return None;
        }
        let mut forgotten = None;
        while self.sent.len() > SENT_LEFT
            && let Some(oldest) = self.sent.pop_first()
        {
            self.settled = oldest;
            forgotten = Some(oldest);
        }
        forgotten
    }

    /// Takes note that nothing up to this id comes any more, and all of it was sent.
    pub(super) fn settle(&mut self, settled: PostId) {
        if settled > self.settled {
            self.settled = settled;
            self.sent = self.sent.split_off(&PostId(settled.0.saturating_add(1)));
        }
    }

    /// The same of all that is older than this, if there is such a post.
    pub(super) fn settle_below(&mut self, oldest: Option<PostId>) {
        if let Some(PostId(oldest)) = oldest {
            self.settle(PostId(oldest.saturating_sub(1)));
        }
    }

    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let ids = [self.settled].into_iter().chain(self.sent.iter().copied());
        ids.flat_map(|id| id.0.to_be_bytes()).collect()
    }

    /// The same, read; `None` for what is none.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (ids, rest) = bytes.as_chunks::<8>();
        let mut ids = ids.iter().map(|id| PostId(u64::from_be_bytes(*id)));
        let mut position = Self::after(ids.next()?);
        position.sent = ids.collect();
        let is_above = position.sent.first().is_none_or(|first| *first > position.settled);
        (rest.is_empty() && is_above && position.sent.len() <= SENT_MAX).then_some(position)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The newest posts of a timeline that are newer than what is settled, `window` at the most.
    fn look(there: &BTreeSet<PostId>, position: &Position, window: usize) -> Newer {
        let newer = || there.iter().rev().take_while(|id| **id > position.settled()).copied();
        let ids: Vec<PostId> = newer().take(window).collect();
        let is_cut = newer().nth(window).is_some();
        Newer { complete_down_to: ids.last().copied().filter(|_| is_cut), ids }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Posts come in any order, but only above what is settled; streams end at any time
        /// and others go on where they were. A look shows the newest few, and the rest is
        /// searched now and then. Only where more than a look holds has come since the look
        /// before may posts be missed, and then that is said.
        #[test]
        fn each_post_is_sent_once_or_said_to_be_missed(
            delays in proptest::collection::vec(prop_oneof![3 => 0..3_u64, 1 => 0..40_u64], 1..120),
            seen_every in proptest::collection::vec(1..12_usize, 1..20),
            window in 4..16_usize,
            searched_every in 1..5_usize,
        ) {
            let mut position = Position::after(PostId(0));
            let (mut sent, mut missed_before) = (Vec::new(), PostId(0));
            let (mut there, mut pending) = (BTreeSet::new(), BTreeSet::new());
            let (mut since, mut looks) = (0, 0);
            for (now, delay) in (1_u64..).zip(delays.iter().copied().chain([0; 50])) {
                pending.insert((now + delay, PostId(now)));
                while let Some((at, id)) = pending.first().copied().filter(|(at, _)| *at <= now) {
                    pending.remove(&(at, id));
                    there.insert(id);
                    since += 1;
                }
                if !(now as usize).is_multiple_of(seen_every[looks % seen_every.len()]) {
                    continue;
                }
                looks += 1;
                let arrived = std::mem::take(&mut since);
                let settled = pending.iter().map(|(_, id)| id.0 - 1).min().unwrap_or(now);
                let mut read = look(&there, &position, window);
                let mut is_complete = true;
                match position.reach(&read) {
                    Reach::All => {}
                    Reach::Sent if looks.is_multiple_of(searched_every) => {
                        read = look(&there, &position, usize::MAX);
                    }
                    Reach::Sent => is_complete = false,
                    Reach::Gap => {
                        // Just as many may have come as a look shows.
                        let one_more = look(&there, &position, window + 1);
                        is_complete = one_more.complete_down_to.is_none();
                        if position.reach(&one_more) == Reach::Gap {
                            prop_assert!(arrived > window, "nothing was passed over");
                            missed_before = missed_before.max(read.complete_down_to.unwrap());
                            position.settle_below(read.complete_down_to);
                            is_complete = true;
                        } else {
                            read = one_more;
                        }
                    }
                }
                let new = position.unsent(&read.ids);
                prop_assert!(new.is_sorted());
                prop_assert_eq!(position.sent(&new), None);
                if is_complete {
                    position.settle(PostId(settled));
                }
                sent.extend(new);
                position = Position::of_bytes(&position.to_bytes()).expect("as it was written");
            }
            let rest = look(&there, &position, usize::MAX);
            sent.extend(position.unsent(&rest.ids));
            let all: BTreeSet<PostId> = sent.iter().copied().collect();
            prop_assert_eq!(all.len(), sent.len(), "twice: {:?}", sent);
            let missed: Vec<&PostId> = there.difference(&all).collect();
            prop_assert!(missed.iter().all(|id| **id < missed_before), "{:?}", missed);
        }

        #[test]
        fn any_bytes_are_a_position_or_none(bytes: Vec<u8>) {
            if let Some(position) = Position::of_bytes(&bytes) {
                prop_assert_eq!(Position::of_bytes(&position.to_bytes()), Some(position));
            }
        }
    }

    #[test]
    fn no_more_than_so_many_are_named() {
        let mut position = Position::after(PostId(5));
        let max = SENT_MAX as u64;
        let ids = |range: std::ops::RangeInclusive<u64>| range.map(PostId).collect::<Vec<_>>();
        assert_eq!(position.sent(&ids(6..=max + 5)), None);
        let forgotten = PostId(max + 6 - SENT_LEFT as u64);
        assert_eq!(position.sent(&ids(max + 6..=max + 6)), Some(forgotten));
        assert_eq!((position.sent.len(), position.settled()), (SENT_LEFT, forgotten));
        assert_eq!(position.sent(&ids(max + 7..=max + 1_000)), None, "there is room again");
        assert_eq!(position.unsent(&ids(1..=max + 1_000)), []);
        assert_eq!(Position::of_bytes(&position.to_bytes()), Some(position));
    }
}
