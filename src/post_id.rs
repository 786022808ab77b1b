//! Giving out post ids.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::domain::PostId;

/// The greatest node number.
pub const NODE_MAX: u16 = (1 << NODE_BITS) - 1;

const NODE_BITS: u32 = 10;
const SEQUENCE_BITS: u32 = 12;
/// The last millisecond that an id has room for, in 2089.
const MS_MAX: u64 = (1 << 41) - 1;

/// Gives out ids that only ever grow, on one node. Nodes with different numbers
/// never give out the same id.
#[derive(Debug)]
pub struct PostIds {
    node: u16,
    /// Milliseconds since the epoch of the ids, and the sequence number, of the
    /// id given out last, as one number.
    last: Mutex<u64>,
    /// Until when the node's number is this process's; `None` is for ever.
    valid_until: Mutex<Option<Instant>>,
}

impl PostIds {
    /// A generator for `node`, 0 to [`NODE_MAX`] (greater numbers are cut), whose
    /// ids are all greater than `greatest`: the greatest one that may have been
    /// given out before.
    pub fn new(node: u16, greatest: Option<PostId>) -> Self {
        let last = greatest.map_or(0, |id| {
            let ms = id.0 >> PostId::NODE_AND_SEQUENCE_BITS;
            // Whatever its sequence number was.
            ((ms + 1) << SEQUENCE_BITS) - 1
        });
        Self { node: node & NODE_MAX, last: Mutex::new(last), valid_until: Mutex::new(None) }
    }

    /// The next id, of a plain repost or of another post, for a clock that says `unix_ms`
    /// milliseconds since 1970.
    ///
    /// Where the clock stands still or runs backwards, the time of the last id is
    /// used on; where 2,048 ids of a kind have one millisecond, the next one is borrowed.
    /// `None` while the node's number may be another process's.
    pub fn next(&self, unix_ms: u64, is_repost: bool) -> Option<PostId> {
        self.several(unix_ms, [is_repost])?.pop()
    }

    /// The next ids, in this order, each of a plain repost or of another post; otherwise as
    /// [`next`](Self::next).
    pub fn several(
        &self,
        unix_ms: u64,
        are_reposts: impl IntoIterator<Item = bool>,
    ) -> Option<Vec<PostId>> {
        let valid_until = *self.valid_until.lock().unwrap_or_else(PoisonError::into_inner);
        if valid_until.is_some_and(|end| Instant::now() >= end) {
            return None;
        }
        let now = unix_ms.saturating_sub(PostId::EPOCH_UNIX_MS).clamp(1, MS_MAX) << SEQUENCE_BITS;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = are_reposts.into_iter().map(|is_repost| {
            let next = now.max(*last + 1);
            let is_of_this_kind = next & 1 == u64::from(is_repost);
            *last = next + u64::from(!is_of_this_kind);
            let ms = *last >> SEQUENCE_BITS;
            let sequence = *last & ((1 << SEQUENCE_BITS) - 1);
            let node = u64::from(self.node);
            PostId((ms << PostId::NODE_AND_SEQUENCE_BITS) | (node << SEQUENCE_BITS) | sequence)
        });
        Some(ids.collect())
    }

    /// The node's number, 0 to [`NODE_MAX`].
    pub fn node(&self) -> u16 {
        self.node
    }

    /// Gives out ids until then and no longer, unless this is called again.
    pub fn set_valid_until(&self, end: Instant) {
        *self.valid_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_grow_whatever_the_clock_does(
            node in 0..=NODE_MAX,
            drawn in proptest::collection::vec((0..4_000_000_000_000_u64, any::<bool>()), 1..200),
        ) {
            let ids = PostIds::new(node, None);
            let mut last = PostId(0);
            for (unix_ms, is_repost) in drawn {
                let id = ids.next(unix_ms, is_repost).unwrap();
                prop_assert!(id > last);
                prop_assert_eq!(id.may_be_repost(), is_repost);
                prop_assert_eq!((id.0 >> 12) & 1_023, u64::from(node));
                last = id;
            }
        }

        #[test]
        fn ids_go_on_above_the_greatest_one(greatest in 1..1_u64 << 62, unix_ms: u32) {
            let ids = PostIds::new(0, Some(PostId(greatest)));
            prop_assert!(ids.next(u64::from(unix_ms), true).unwrap().0 > greatest);
        }
    }

    proptest! {
        #[test]
        fn several_are_as_one_after_the_other(
            unix_ms in PostId::EPOCH_UNIX_MS..PostId::EPOCH_UNIX_MS + 10,
            are_reposts in proptest::collection::vec(any::<bool>(), 0..5_000),
        ) {
            let (together, alone) = (PostIds::new(1, None), PostIds::new(1, None));
            let one = |is_repost: &bool| alone.next(unix_ms, *is_repost);
            let expected: Option<Vec<PostId>> = are_reposts.iter().map(one).collect();
            prop_assert_eq!(together.several(unix_ms, are_reposts.iter().copied()), expected);
        }
    }

    #[test]
    fn an_id_says_when_it_was_given_out() {
        let unix_ms = PostId::EPOCH_UNIX_MS + 123_456;
        let id = PostIds::new(3, None).next(unix_ms, false).unwrap();
        assert_eq!(id.created_at(), UNIX_EPOCH + Duration::from_millis(unix_ms));
    }

    #[test]
    fn a_full_millisecond_borrows_the_next() {
        let ids = PostIds::new(0, None);
        let unix_ms = PostId::EPOCH_UNIX_MS + 10;
        let times: Vec<u64> =
            (0..2_049).map(|_| ids.next(unix_ms, true).unwrap().0 >> 22).collect();
        assert_eq!((times[2_047], times[2_048]), (10, 11));
    }

    #[test]
    fn a_node_number_that_is_no_longer_ones_own_makes_no_ids() {
        let ids = PostIds::new(3, None);
        ids.set_valid_until(Instant::now() + Duration::from_secs(3_600));
        assert!(ids.next(PostId::EPOCH_UNIX_MS, false).is_some());
        ids.set_valid_until(Instant::now());
        assert_eq!(ids.next(PostId::EPOCH_UNIX_MS, false), None);
    }
}
