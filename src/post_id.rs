//! Giving out post ids.

pub mod clock;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

pub use self::clock::{CLOCK_JUMP_MAX_DEFAULT, IdError};
use self::clock::{MS_MAX, Reading};
use crate::domain::PostId;

/// The greatest node number.
pub const NODE_MAX: u16 = (1 << NODE_BITS) - 1;

const NODE_BITS: u32 = 10;
const SEQUENCE_BITS: u32 = 12;
/// The last number of a millisecond and a sequence that an id has room for.
const LAST_MAX: u64 = (MS_MAX << SEQUENCE_BITS) | ((1 << SEQUENCE_BITS) - 1);

/// Gives out ids that only ever grow, on one node. Nodes with different numbers
/// never give out the same id.
#[derive(Debug)]
pub struct PostIds {
    node: u16,
    state: Mutex<State>,
    /// Until when the node's number is this process's; `None` is for ever.
    valid_until: Mutex<Option<Instant>>,
    /// See [`with_clock_jump_max`](Self::with_clock_jump_max).
    clock_jump_max: Duration,
    /// How far the clock is ahead of that of the store, which is negative where it is behind.
    ahead_of_store_ms: AtomicI64,
}

#[derive(Debug)]
struct State {
    /// Milliseconds since the epoch of the ids, and the sequence number, of the
    /// id given out last, as one number.
    last: u64,
    /// The last reading of the clock at which ids might be given out.
    trusted: Option<Reading>,
}

impl PostIds {
    /// A generator for `node`, 0 to [`NODE_MAX`] (greater numbers are cut), whose
    /// ids are all greater than `greatest`: the greatest one that may have been
    /// given out before. It takes any clock.
    pub fn new(node: u16, greatest: Option<PostId>) -> Self {
        let last = greatest.map_or(0, |id| {
            let ms = id.0 >> PostId::NODE_AND_SEQUENCE_BITS;
            // Whatever its sequence number was.
            ((ms + 1) << SEQUENCE_BITS) - 1
        });
        Self {
            node: node & NODE_MAX,
            state: Mutex::new(State { last, trusted: None }),
            valid_until: Mutex::new(None),
            clock_jump_max: Duration::MAX,
            ahead_of_store_ms: AtomicI64::new(0),
        }
    }

    /// The same, which gives out no ids while they are so far ahead of the clock, or the clock
    /// has jumped so far ahead, that it must be wrong: see [`clock`].
    pub fn with_clock_jump_max(self, clock_jump_max: Duration) -> Self {
        Self { clock_jump_max, ..self }
    }

    /// The next id, of a plain repost or of another post, for a clock that says `unix_ms`
    /// milliseconds since 1970.
    ///
    /// Where the clock stands still or runs backwards, the time of the last id is
    /// used on; where 2,048 ids of a kind have one millisecond, the next one is borrowed.
    ///
    /// # Errors
    /// While the node's number may be another process's, while the clock must be wrong, and at
    /// the end of all ids. Nothing is given out then.
    pub fn next(&self, unix_ms: u64, is_repost: bool) -> Result<PostId, IdError> {
        let mut ids = self.several(unix_ms, [is_repost])?;
        ids.pop().ok_or(IdError::NoNode)
    }

    /// The next ids, in this order, each of a plain repost or of another post; otherwise as
    /// [`next`](Self::next).
    ///
    /// # Errors
    /// As `next`.
    pub fn several(
        &self,
        unix_ms: u64,
        are_reposts: impl IntoIterator<Item = bool>,
    ) -> Result<Vec<PostId>, IdError> {
        let valid_until = *self.valid_until.lock().unwrap_or_else(PoisonError::into_inner);
        if valid_until.is_some_and(|end| Instant::now() >= end) {
            return Err(IdError::NoNode);
        }
        let mut state = self.lock();
        self.trust(&mut state, unix_ms)?;
        let now = clock::id_ms(unix_ms) << SEQUENCE_BITS;
        let mut last = state.last;
        let ids = are_reposts.into_iter().map(|is_repost| {
            let next = now.max(last + 1);
            let is_of_this_kind = next & 1 == u64::from(is_repost);
            last = next + u64::from(!is_of_this_kind);
            if last > LAST_MAX {
                let reason = "the newest one is there";
                return Err(IdError::Exhausted { reason });
            }
            Ok(self.id(last))
        });
        let ids = ids.collect::<Result<Vec<PostId>, IdError>>()?;
        state.last = last;
        Ok(ids)
    }

    /// Whether ids can be given out at this time, as far as the clock is concerned.
    ///
    /// # Errors
    /// Why they cannot.
    pub fn check_clock(&self, unix_ms: u64) -> Result<(), IdError> {
        self.trust(&mut self.lock(), unix_ms)
    }

    /// The id that was given out last, or one that is greater than all that were before; 0 if
    /// there is none. Those that this node gives out from now on are greater.
    pub fn newest(&self) -> PostId {
        let last = self.lock().last;
        if last == 0 { PostId(0) } else { self.id(last) }
    }

    /// How far the newest id is ahead of a clock that says `unix_ms`.
    pub fn ahead_of(&self, unix_ms: u64) -> Duration {
        let last_ms = self.lock().last >> SEQUENCE_BITS;
        Duration::from_millis(last_ms.saturating_sub(clock::id_ms(unix_ms)))
    }

    /// Takes note of what the clock of the store said when this process's said `unix_ms`.
    pub fn compare_clocks(&self, unix_ms: u64, of_store_unix_ms: u64) {
        let ahead = i128::from(unix_ms) - i128::from(of_store_unix_ms);
        let ahead = i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX });
        self.ahead_of_store_ms.store(ahead, Ordering::Relaxed);
    }

    /// How many milliseconds the clock is ahead of that of the store, or behind it; 0 where they
    /// have not been compared.
    pub fn ahead_of_store_ms(&self) -> i64 {
        self.ahead_of_store_ms.load(Ordering::Relaxed)
    }

    /// Above which id those of other nodes are that are given out from now on, for a clock that
    /// says `unix_ms`: the earlier one of it and the store's counts.
    pub fn others_above(&self, unix_ms: u64) -> PostId {
        let ahead_ms = u64::try_from(self.ahead_of_store_ms()).unwrap_or(0);
        PostId::first_of(unix_ms.saturating_sub(ahead_ms))
    }

    /// The node's number, 0 to [`NODE_MAX`].
    pub fn node(&self) -> u16 {
        self.node
    }

    /// Gives out ids until then and no longer, unless this is called again.
    pub fn set_valid_until(&self, end: Instant) {
        *self.valid_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }

    fn trust(&self, state: &mut State, unix_ms: u64) -> Result<(), IdError> {
        let now = Reading { unix_ms, uptime_ms: clock::uptime_ms() };
        clock::check(now, state.trusted, state.last >> SEQUENCE_BITS, self.clock_jump_max)?;
        state.trusted = Some(now);
        Ok(())
    }

    fn id(&self, ms_and_sequence: u64) -> PostId {
        let ms = ms_and_sequence >> SEQUENCE_BITS;
        let sequence = ms_and_sequence & ((1 << SEQUENCE_BITS) - 1);
        let node = u64::from(self.node);
        PostId((ms << PostId::NODE_AND_SEQUENCE_BITS) | (node << SEQUENCE_BITS) | sequence)
    }

    /// What it holds is whole even after a panic.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    /// Any time, and those about which something ends.
    fn any_clock() -> impl Strategy<Value = u64> {
        let end = PostId::EPOCH_UNIX_MS + MS_MAX;
        prop_oneof![
            any::<u64>(),
            Just(0),
            PostId::EPOCH_UNIX_MS - 2..PostId::EPOCH_UNIX_MS + 2,
            end - 2..end + 2,
        ]
    }

    proptest! {
        #[test]
        fn ids_grow_whatever_the_clock_does(
            node in 0..=NODE_MAX,
            drawn in proptest::collection::vec((0..3_700_000_000_000_u64, any::<bool>()), 1..200),
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

        #[test]
        fn any_clock_gives_growing_ids_in_range_or_none(
            greatest in proptest::option::of(any::<u64>()),
            node in 0..=NODE_MAX,
            drawn in proptest::collection::vec((any_clock(), 0..3_000_usize), 1..20),
        ) {
            let ids = PostIds::new(node, greatest.map(PostId));
            let mut last = greatest.unwrap_or(0);
            for (unix_ms, count) in drawn {
                let newest = ids.newest();
                let Ok(several) = ids.several(unix_ms, (0..count).map(|at| at % 3 == 0)) else {
                    prop_assert_eq!(ids.newest(), newest, "nothing is given out");
                    continue;
                };
                prop_assert_eq!(several.len(), count);
                for (at, id) in several.into_iter().enumerate() {
                    prop_assert!(id.0 > last && id.0 >> 63 == 0);
                    prop_assert_eq!(id.may_be_repost(), at % 3 == 0);
                    prop_assert_eq!((id.0 >> 12) & 1_023, u64::from(node));
                    last = id.0;
                }
            }
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
            let expected: Result<Vec<PostId>, IdError> = are_reposts.iter().map(one).collect();
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
    fn last_millisecond_is_used_up_and_no_further() {
        let end = PostId::EPOCH_UNIX_MS + MS_MAX;
        let ids = PostIds::new(7, None);
        assert!(ids.several(end, [false; 2_049]).is_err(), "all of them or none");
        assert_eq!(ids.several(end, [true; 2_048]).map(|ids| ids.len()), Ok(2_048));
        for unix_ms in [0, end, end + 1, u64::MAX] {
            let refused = ids.next(unix_ms, false).unwrap_err();
            assert!(matches!(refused, IdError::Exhausted { .. }), "{refused}");
        }
    }

    #[test]
    fn jump_refused_until_clock_is_right_again() {
        const MONTH_MS: u64 = 30 * 24 * 3_600 * 1_000;
        let today = PostId::EPOCH_UNIX_MS + 72 * MONTH_MS;
        let ids = PostIds::new(0, Some(PostId::first_of(today)));
        let ids = ids.with_clock_jump_max(CLOCK_JUMP_MAX_DEFAULT);
        assert_eq!(ids.check_clock(today), Ok(()));
        assert!(ids.next(today + MONTH_MS, false).is_err());
        let id = ids.next(today + 5, false).unwrap();
        assert_eq!((id, ids.newest()), (PostId::first_of(today + 5), id));
        assert!(ids.next(today - MONTH_MS, false).is_err(), "ids would be a month ahead");
        assert_eq!(ids.ahead_of(today + 2), Duration::from_millis(3));
    }

    #[test]
    fn clock_ahead_of_store_does_not_count() {
        let (ids, now) = (PostIds::new(3, None), PostId::EPOCH_UNIX_MS + 10_000_000);
        assert_eq!(ids.others_above(now), PostId::first_of(now));
        ids.compare_clocks(now, now - 3_600_000);
        assert_eq!(ids.others_above(now), PostId::first_of(now - 3_600_000));
        ids.compare_clocks(now, now + 3_600_000);
        assert_eq!(
            (ids.others_above(now), ids.ahead_of_store_ms()),
            (PostId::first_of(now), -3_600_000)
        );
    }

    #[test]
    fn a_node_number_that_is_no_longer_ones_own_makes_no_ids() {
        let ids = PostIds::new(3, None);
        ids.set_valid_until(Instant::now() + Duration::from_secs(3_600));
        assert!(ids.next(PostId::EPOCH_UNIX_MS, false).is_ok());
        ids.set_valid_until(Instant::now());
        assert_eq!(ids.next(PostId::EPOCH_UNIX_MS, false), Err(IdError::NoNode));
    }
}
