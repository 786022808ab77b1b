//! What of a home timeline a stream has sent. Pure.
//!
//! Posts do not come in the order of their ids: a partition may be behind the others. So the
//! last id that was sent does not tell what was. But below some id nothing comes any more: it
//! is settled. Above it, a position names all that was sent.

use std::collections::BTreeSet;

use crate::domain::PostId;

/// Ids above what is settled that a position names; with more, the oldest are taken for
/// settled.
const SENT_MAX: usize = 800;

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
        let mut forgotten = None;
        while self.sent.len() > SENT_MAX
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

    proptest! {
        /// Posts come in any order, but only above what is settled; streams end at any time
        /// and others go on where they were.
        #[test]
        fn each_post_is_sent_once(
            delays in proptest::collection::vec(0..20_u64, 1..60),
            seen_every in 1..6_usize,
        ) {
            let mut position = Position::after(PostId(0));
            let mut sent = Vec::new();
            let (mut there, mut pending) = (BTreeSet::new(), BTreeSet::new());
            for (now, delay) in (1_u64..).zip(delays.iter().copied().chain([0; 20])) {
                pending.insert((now + delay, PostId(now)));
                while let Some((at, id)) = pending.first().copied().filter(|(at, _)| *at <= now) {
                    pending.remove(&(at, id));
                    there.insert(id);
                }
                if !(now as usize).is_multiple_of(seen_every) {
                    continue;
                }
                let settled = pending.iter().map(|(_, id)| id.0 - 1).min().unwrap_or(now);
                let new = position.unsent(&there.iter().rev().copied().collect::<Vec<_>>());
                prop_assert!(new.is_sorted());
                position.sent(&new);
                position.settle(PostId(settled));
                sent.extend(new);
                position = Position::of_bytes(&position.to_bytes()).expect("as it was written");
            }
            sent.extend(position.unsent(&there.iter().copied().collect::<Vec<_>>()));
            let all: BTreeSet<PostId> = sent.iter().copied().collect();
            prop_assert_eq!(all.len(), sent.len(), "twice: {:?}", sent);
            prop_assert_eq!(all, there);
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
        let ids: Vec<PostId> = (1..=1_000).map(PostId).collect();
        assert_eq!(position.sent(&ids), Some(PostId(200)));
        assert_eq!(position.sent(&ids[900..]), None);
        assert_eq!((position.sent.len(), position.settled()), (SENT_MAX, PostId(200)));
        assert_eq!(position.unsent(&ids), []);
    }
}
