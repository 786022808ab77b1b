//! Write combining across partitions: what all workers of a process deliver is gathered by
//! reader, and one writer goes round all readers, again and again.
//!
//! ```text
//!  worker of partition 0 ──► deliveries ─┐     readers  0 … 4,095 │ … │ … │ … │ … │
//!  worker of partition 1 ──► deliveries ─┼─►            gathered  │   │   │   │   │
//!  worker of partition 2 ──► deliveries ─┘                          └─ flush ─┘
//!                                                                        ▼
//!                                                          combine ──► store ──► round again
//! ```
//!
//! A reader's ids of one visit are one push, and a push of eight costs little more than a
//! push of one. So the more there is to deliver, the longer a turn round all readers takes,
//! the more gathers meanwhile for each of them, and the less each delivery costs; while there
//! is little to do, all that there is goes out at once, and nothing waits. Whatever the load,
//! what comes is written once the writer has gone round from there. Were all gathered first
//! and then written, it would take two turns for pushes of the same size: one to gather and
//! one to write.
//!
//! Where a push fails, nobody knows what of it was written, and all whose parts are not
//! written yet are told so. So it is when a worker is ended before its parts are written:
//! nothing of a lost partition may be written any more, and what is gathered is not told
//! apart ([`Sweep::left`]).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use futures::{StreamExt, stream::FuturesOrdered};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::{FanoutError, combine};
use crate::{
    domain::PostId,
    store::{Store, StoreError},
    telemetry::FanoutMetrics,
};

/// Ranges of readers. Beyond so many, those of equal remainder share a place.
const RANGES: u64 = 256;
/// A part is said to be well under way once so much of a turn is done since it came.
const UNDER_WAY: u64 = RANGES / 4;
/// Flushes that are under way at once: one is written while another is combined.
const FLUSHES_AT_ONCE: usize = 2;

/// Gathers what workers deliver, and writes it.
#[derive(Debug)]
pub(super) struct Sweep<A> {
    settings: SweepSettings,
    state: Mutex<State<A>>,
    /// A permit for each delivery that may still be gathered.
    room: Semaphore,
    /// For the writer: there may be something to write.
    changed: Notify,
    /// For those who wait until all that was not written has been given up.
    given_up: Notify,
}

/// Why nobody knows what of a part is written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SweepError {
    /// A partition of which something was to be written is this process's no more.
    #[error("what was to be written was given up, since a partition with a part in it is lost")]
    Ended,
    /// The store failed.
    #[error(transparent)]
    Store(Arc<StoreError>),
}

impl SweepError {
    /// Whether trying again cannot help.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Ended => false,
            Self::Store(error) => error.is_final(),
        }
    }
}

/// How deliveries are gathered. Every count is at least 1.
#[derive(Clone, Copy, Debug)]
pub struct SweepSettings {
    /// Deliveries that are gathered or being written, at most, 16 bytes each; with more,
    /// workers wait. A part that has more by itself waits until there is nothing else.
    pub deliveries_max: u32,
    /// Deliveries that are combined and pushed at once, at least, where there are so many.
    pub flush_deliveries_min: usize,
    /// Accounts, by their numbers, that are visited together, as a power of two: those made
    /// one after the other lie near each other in the store.
    pub range_bits: u32,
}

impl Default for SweepSettings {
    fn default() -> Self {
        Self { deliveries_max: 8 << 20, flush_deliveries_min: 64 << 10, range_bits: 12 }
    }
}

/// What is gathered, and who waits for it. A position is how many ranges the writer has come
/// to since the beginning.
#[derive(Debug)]
struct State<A> {
    /// By range.
    gathered: Vec<Vec<(A, PostId)>>,
    gathered_count: usize,
    /// Permits that those who added have left behind.
    permits: usize,
    /// Up to where ranges were taken to be written.
    taken: u64,
    /// In the order in which they came, and so in that in which they will be written.
    waiting: VecDeque<Waiting>,
    last_ticket: u64,
    /// Has all be given up that is not written.
    give_up: CancellationToken,
}

/// What one worker delivers in one round.
#[derive(Debug)]
struct Waiting {
    ticket: u64,
    partition: u32,
    /// It is written once the writer has gone round from here.
    from: u64,
    under_way: Option<oneshot::Sender<()>>,
    done: oneshot::Sender<Result<(), FanoutError>>,
}

/// All deliveries of some readers.
#[derive(Debug, PartialEq)]
struct Flush<A> {
    deliveries: Vec<(A, PostId)>,
    /// The position behind it.
    end: u64,
}

/// A part that is being written; dropped before it is, nothing more of it is to be.
#[derive(Debug)]
pub(super) struct Part<A> {
    sweep: Arc<Sweep<A>>,
    ticket: u64,
    is_done: oneshot::Receiver<Result<(), FanoutError>>,
}

/// Whether a part is well under way.
#[derive(Debug)]
pub(super) struct UnderWay(oneshot::Receiver<()>);

impl<A: Copy + Ord + Into<u64> + Send + Sync> Sweep<A> {
    pub(super) fn new(settings: SweepSettings) -> Self {
        Self {
            settings,
            state: Mutex::new(State::default()),
            room: Semaphore::new(settings.deliveries_max as usize),
            changed: Notify::new(),
            given_up: Notify::new(),
        }
    }

    /// Has deliveries of a partition written, once there is room for them.
    pub(super) async fn add(
        self: &Arc<Self>,
        partition: u32,
        deliveries: Vec<(A, PostId)>,
    ) -> (Part<A>, UnderWay) {
        let by_range = ByRange::of(deliveries, self.settings.range_bits);
        let count = u32::try_from(by_range.deliveries.len()).unwrap_or(u32::MAX);
        let room = count.min(self.settings.deliveries_max);
        // It is never closed.
        if let Ok(permits) = self.room.acquire_many(room).await {
            permits.forget();
        }
        let (under_way, is_under_way) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let ticket = self.state().add(partition, room as usize, &by_range, under_way, done);
        self.changed.notify_one();
        (Part { sweep: Arc::clone(self), ticket, is_done }, UnderWay(is_under_way))
    }

    /// Writes what comes, for ever.
    pub(super) async fn run(&self, store: &impl Store<Account = A>, metrics: &FanoutMetrics) {
        loop {
            let give_up = self.state().give_up.clone();
            let error = tokio::select! {
                biased;
                () = give_up.cancelled() => SweepError::Ended,
                error = self.go_round(store, metrics) => error,
            };
            let permits = self.state().give_up(&error, store);
            self.room.add_permits(permits);
            self.given_up.notify_waiters();
        }
    }

    /// Waits until nothing of a partition, whose worker has ended, is written any more.
    pub(super) async fn left(&self, partition: u32) {
        loop {
            // Before the look: what comes after it is not missed.
            let given_up = self.given_up.notified();
            if !self.state().waiting.iter().any(|part| part.partition == partition) {
                return;
            }
            given_up.await;
        }
    }

    /// Goes round all readers until something fails.
    async fn go_round(
        &self,
        store: &impl Store<Account = A>,
        metrics: &FanoutMetrics,
    ) -> SweepError {
        let mut writing = FuturesOrdered::new();
        loop {
            // While one flush is being written, another waits until it is worth it.
            let count_min = if writing.is_empty() { 1 } else { self.settings.flush_deliveries_min };
            tokio::select! {
                biased;
                Some(written) = writing.next() => match written {
                    Ok((count, end)) => {
                        let permits = self.state().wrote(count, end);
                        self.room.add_permits(permits);
                    }
                    Err(error) => return SweepError::Store(Arc::new(error)),
                },
                flush = self.next(count_min, store), if writing.len() < FLUSHES_AT_ONCE => {
                    let Some(flush) = flush else { return SweepError::Ended };
                    writing.push_back(write(flush, store, metrics));
                }
            }
        }
    }

    /// The next flush, once so much is gathered; none if a partition that has a part in it is
    /// no more this process's.
    async fn next(&self, count_min: usize, store: &impl Store) -> Option<Flush<A>> {
        loop {
            {
                let mut state = self.state();
                if state.gathered_count >= count_min {
                    let is_lost = |part: &Waiting| store.check(part.partition).is_err();
                    return (!state.waiting.iter().any(is_lost))
                        .then(|| state.take(self.settings.flush_deliveries_min));
                }
            }
            self.changed.notified().await;
        }
    }
}

impl<A> Sweep<A> {
    /// Every change of it is whole.
    fn state(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A> Part<A> {
    /// Waits until it is written.
    ///
    /// # Errors
    /// If nobody knows what of it is.
    pub(super) async fn done(&mut self) -> Result<(), FanoutError> {
        (&mut self.is_done).await.unwrap_or(Err(FanoutError::Sweep(SweepError::Ended)))
    }
}

impl<A> Drop for Part<A> {
    /// Changes nothing once it has ended.
    fn drop(&mut self) {
        let state = self.sweep.state();
        if state.waiting.iter().any(|part| part.ticket == self.ticket) {
            state.give_up.cancel();
        }
    }
}

impl UnderWay {
    /// Waits until it is, or has ended.
    pub(super) async fn wait(&mut self) {
        // Dropped, it has ended.
        let _ = (&mut self.0).await;
    }
}

/// Combines and pushes a flush; returns how many deliveries it was, and the position behind
/// it.
async fn write<S: Store>(
    flush: Flush<S::Account>,
    store: &S,
    metrics: &FanoutMetrics,
) -> Result<(usize, u64), StoreError> {
    let (count, end) = (flush.deliveries.len(), flush.end);
    let pushes = combine(flush.deliveries);
    let begun = Instant::now();
    metrics.pushed(&pushes, store.push(&pushes).await?);
    metrics.flush_deliveries.observe(count as f64);
    metrics.flush_seconds.observe_since(begun);
    Ok((count, end))
}

/// Deliveries in the order of their ranges, and where each begins.
struct ByRange<A> {
    deliveries: Vec<(A, PostId)>,
    begins: [usize; RANGES as usize + 1],
}

impl<A: Copy + Into<u64>> ByRange<A> {
    fn of(deliveries: Vec<(A, PostId)>, range_bits: u32) -> Self {
        let range = |reader: A| ((reader.into() >> range_bits) % RANGES) as usize;
        let mut begins = [0; RANGES as usize + 1];
        for (reader, _) in &deliveries {
            begins[range(*reader) + 1] += 1;
        }
        for at in 1..begins.len() {
            begins[at] += begins[at - 1];
        }
        let (mut ends, mut sorted) = (begins, deliveries.clone());
        for delivery in deliveries {
            let end = &mut ends[range(delivery.0)];
            sorted[*end] = delivery;
            *end += 1;
        }
        Self { deliveries: sorted, begins }
    }

    fn ranges(&self) -> impl Iterator<Item = &[(A, PostId)]> {
        self.begins.windows(2).map(|range| &self.deliveries[range[0]..range[1]])
    }
}

impl<A> Default for State<A> {
    fn default() -> Self {
        Self {
            gathered: (0..RANGES).map(|_| Vec::new()).collect(),
            gathered_count: 0,
            permits: 0,
            taken: 0,
            waiting: VecDeque::new(),
            last_ticket: 0,
            give_up: CancellationToken::new(),
        }
    }
}

impl<A: Copy + Into<u64>> State<A> {
    /// Adds a part, for which there are so many permits, and returns its ticket.
    fn add(
        &mut self,
        partition: u32,
        permits: usize,
        by_range: &ByRange<A>,
        under_way: oneshot::Sender<()>,
        done: oneshot::Sender<Result<(), FanoutError>>,
    ) -> u64 {
        for (gathered, deliveries) in self.gathered.iter_mut().zip(by_range.ranges()) {
            gathered.extend_from_slice(deliveries);
        }
        self.gathered_count += by_range.deliveries.len();
        self.permits += permits;
        self.last_ticket += 1;
        let (ticket, from, under_way) = (self.last_ticket, self.taken, Some(under_way));
        self.waiting.push_back(Waiting { ticket, partition, from, under_way, done });
        ticket
    }

    /// Takes the next ranges with so many deliveries, or all that there is.
    fn take(&mut self, count_min: usize) -> Flush<A> {
        let round = self.taken + RANGES;
        let mut deliveries = Vec::new();
        while self.taken < round && deliveries.len() < count_min && self.gathered_count > 0 {
            let mut range = std::mem::take(&mut self.gathered[(self.taken % RANGES) as usize]);
            self.gathered_count -= range.len();
            self.taken += 1;
            if deliveries.is_empty() {
                deliveries = range;
            } else {
                deliveries.append(&mut range);
            }
        }
        if self.gathered_count == 0 {
            // There is nothing in the others.
            self.taken = round;
        }
        Flush { deliveries, end: self.taken }
    }

    /// Takes note that a flush is written; returns how many permits are free by it.
    fn wrote(&mut self, count: usize, end: u64) -> usize {
        while self.waiting.front().is_some_and(|part| part.from + RANGES <= end) {
            let Some(part) = self.waiting.pop_front() else { break };
            // Who has gone meanwhile does not want to know.
            let _ = part.done.send(Ok(()));
        }
        for part in self.waiting.iter_mut().filter(|part| part.from + UNDER_WAY <= end) {
            if let Some(under_way) = part.under_way.take() {
                let _ = under_way.send(());
            }
        }
        // A part that is larger than all the room has fewer permits than deliveries.
        let free = if self.waiting.is_empty() { self.permits } else { count.min(self.permits) };
        self.permits -= free;
        free
    }

    /// Gives up all that is not written; returns how many permits are free by it.
    fn give_up(&mut self, error: &SweepError, store: &impl Store) -> usize {
        let Self { last_ticket, permits, waiting, .. } = std::mem::take(self);
        self.last_ticket = last_ticket;
        for part in waiting {
            let error = match store.check(part.partition) {
                Ok(()) => FanoutError::Sweep(error.clone()),
                Err(error) => error.into(),
            };
            let _ = part.done.send(Err(error));
        }
        permits
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;
    use crate::store::embedded::{self, EmbeddedStore};

    const FLUSH: usize = 10;

    fn sweep() -> Arc<Sweep<u32>> {
        Arc::new(Sweep::new(SweepSettings {
            deliveries_max: 100,
            flush_deliveries_min: FLUSH,
            range_bits: 0,
        }))
    }

    fn add(sweep: &Arc<Sweep<u32>>, partition: u32, readers: &[u32]) -> (Part<u32>, UnderWay) {
        let deliveries = readers.iter().map(|reader| (*reader, PostId(1))).collect();
        sweep.add(partition, deliveries).now_or_never().expect("there is room")
    }

    fn is_done(part: &mut Part<u32>) -> bool {
        part.done().now_or_never().is_some_and(|done| done.is_ok())
    }

    /// Writes the next flush at once.
    fn write_next(sweep: &Sweep<u32>) {
        let flush = sweep.state().take(FLUSH);
        let permits = sweep.state().wrote(flush.deliveries.len(), flush.end);
        sweep.room.add_permits(permits);
    }

    fn readers(flush: &Flush<u32>) -> Vec<u32> {
        flush.deliveries.iter().map(|(reader, _)| *reader).collect()
    }

    #[test]
    fn while_there_is_little_all_of_it_goes_out_at_once() {
        let sweep = sweep();
        let (mut part, mut under_way) = add(&sweep, 1, &[5, 200, 7]);
        let flush = sweep.state().take(FLUSH);
        assert_eq!(readers(&flush), [5, 7, 200]);
        assert!(!is_done(&mut part));
        sweep.state().wrote(3, flush.end);
        assert!(is_done(&mut part));
        assert!(under_way.wait().now_or_never().is_some());
    }

    #[test]
    fn what_comes_for_a_range_before_its_turn_is_written_with_what_is_there() {
        let sweep = sweep();
        let all: Vec<u32> = (0..40).collect();
        let (mut first, mut under_way) = add(&sweep, 1, &all);
        let flush = sweep.state().take(FLUSH);
        assert_eq!(readers(&flush), all[..10]);
        let (mut second, _) = add(&sweep, 2, &[3, 15, 35]);
        sweep.state().wrote(10, flush.end);
        assert!(under_way.wait().now_or_never().is_none());
        let flush = sweep.state().take(FLUSH);
        assert_eq!(readers(&flush), [10, 11, 12, 13, 14, 15, 15, 16, 17, 18]);
        sweep.state().wrote(10, flush.end);
        let mut end = 0;
        for _ in 0..3 {
            let flush = sweep.state().take(FLUSH);
            sweep.state().wrote(flush.deliveries.len(), flush.end);
            end = flush.end;
        }
        assert_eq!(sweep.state().gathered_count, 0);
        assert!(is_done(&mut first) && is_done(&mut second));
        assert!(end >= RANGES, "it has gone round");
    }

    #[test]
    fn who_is_full_has_others_wait_and_goes_on_when_something_is_written() {
        let sweep = sweep();
        let (_one, _) = add(&sweep, 1, &[1; 95]);
        let second = sweep.add(2, vec![(2, PostId(1)); 20]);
        let mut second = Box::pin(second);
        assert!((&mut second).now_or_never().is_none());
        write_next(&sweep);
        assert!(second.now_or_never().is_some());
        // One that has more than there is room for waits until there is nothing else.
        let mut third = Box::pin(sweep.add(3, vec![(3, PostId(1)); 300]));
        assert!((&mut third).now_or_never().is_none());
        write_next(&sweep);
        assert!(third.now_or_never().is_some());
        write_next(&sweep);
        assert_eq!(sweep.room.available_permits(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_has_all_given_up_that_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let settings = embedded::Settings::default();
        let store = EmbeddedStore::open(&dir.path().join("store"), settings).unwrap();
        let metrics = FanoutMetrics::default();
        let sweep = sweep();
        let (one, _) = add(&sweep, 1, &[1, 2]);
        let (mut two, mut under_way) = add(&sweep, 2, &[1, 2]);
        let mut left = Box::pin(sweep.left(1));
        drop(one);
        assert!((&mut left).now_or_never().is_none(), "nobody has given it up yet");
        let mut run = Box::pin(sweep.run(&store, &metrics));
        assert!((&mut run).now_or_never().is_none());
        left.await;
        under_way.wait().await;
        let error = two.done().await.unwrap_err();
        assert!(matches!(error, FanoutError::Sweep(SweepError::Ended)), "{error}");
        assert_eq!(sweep.room.available_permits(), 100);
        // It goes on with what comes then.
        let (mut three, _) = add(&sweep, 3, &[1]);
        tokio::select! {
            () = run => {}
            done = three.done() => done.unwrap(),
        }
        drop(three);
        assert!(sweep.left(2).now_or_never().is_some());
    }

    #[derive(Clone, Debug)]
    enum Turn {
        Add(Vec<u32>),
        Take,
        Write,
    }

    fn turn() -> impl Strategy<Value = Turn> {
        let readers = proptest::collection::vec(0..600_u32, 1..30);
        prop_oneof![readers.prop_map(Turn::Add), Just(Turn::Take), Just(Turn::Write)]
    }

    proptest! {
        #[test]
        fn a_part_is_done_once_all_of_it_is_written_and_no_later_than_after_one_turn(
            turns in proptest::collection::vec(turn(), 1..60),
        ) {
            let mut state = State::<u32>::default();
            let mut waiting = VecDeque::new();
            let mut flushes = VecDeque::<Flush<u32>>::new();
            let mut written = Vec::new();
            let (mut post, mut written_to) = (0, 0);
            for turn in turns {
                match turn {
                    Turn::Add(readers) => {
                        post += 1;
                        let deliveries: Vec<(u32, PostId)> =
                            readers.into_iter().map(|reader| (reader, PostId(post))).collect();
                        let by_range = ByRange::of(deliveries.clone(), 0);
                        let (under_way, is_under_way) = oneshot::channel();
                        let (done, is_done) = oneshot::channel();
                        state.add(1, deliveries.len(), &by_range, under_way, done);
                        waiting.push_back((deliveries, state.taken, is_under_way, is_done));
                    }
                    Turn::Take if state.gathered_count > 0 => {
                        flushes.push_back(state.take(FLUSH));
                    }
                    Turn::Write => {
                        let Some(flush) = flushes.pop_front() else { continue };
                        written.extend(flush.deliveries.iter().copied());
                        written_to = flush.end;
                        state.wrote(flush.deliveries.len(), flush.end);
                    }
                    Turn::Take => {}
                }
                while let Some((deliveries, from, ..)) = waiting.front() {
                    let is_whole = deliveries.iter().all(|one| written.contains(one));
                    let after_a_turn = written_to >= from + RANGES;
                    prop_assert!(is_whole || !after_a_turn);
                    let (.., is_done) = waiting.front_mut().expect("it is there");
                    let told = is_done.try_recv().is_ok();
                    prop_assert_eq!(told, after_a_turn);
                    if !told {
                        break;
                    }
                    waiting.pop_front();
                }
            }
            prop_assert!(state.permits >= state.gathered_count);
        }
    }
}
