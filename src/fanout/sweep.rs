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

mod turn;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use futures::{StreamExt, stream::FuturesOrdered};
use tokio::sync::{Notify, Semaphore, oneshot};

use self::turn::{ByRange, Flush, Turn};
use super::{FanoutError, combine};
use crate::{
    domain::PostId,
    store::{Store, StoreError},
    telemetry::FanoutMetrics,
};

/// Flushes that are under way at once: one is combined, by the same task, while the answers
/// to another are on their way.
const FLUSHES_AT_ONCE: usize = 2;

/// Gathers what workers deliver, and writes it.
#[derive(Debug)]
pub(super) struct Sweep<A> {
    settings: SweepSettings,
    turn: Mutex<Turn<A>>,
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
            turn: Mutex::new(Turn::default()),
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
        let ticket = self.turn().add(partition, room as usize, &by_range, under_way, done);
        self.changed.notify_one();
        (Part { sweep: Arc::clone(self), ticket, is_done }, UnderWay(is_under_way))
    }

    /// Writes what comes, for ever.
    pub(super) async fn run(&self, store: &impl Store<Account = A>, metrics: &FanoutMetrics) {
        loop {
            let give_up = self.turn().give_up.clone();
            let error = tokio::select! {
                biased;
                () = give_up.cancelled() => SweepError::Ended,
                error = self.go_round(store, metrics) => error,
            };
            let permits = self.turn().give_up(|partition| match store.check(partition) {
                Ok(()) => FanoutError::Sweep(error.clone()),
                Err(lost) => lost.into(),
            });
            self.room.add_permits(permits);
            self.given_up.notify_waiters();
        }
    }

    /// Waits until nothing of a partition, whose worker has ended, is written any more.
    pub(super) async fn left(&self, partition: u32) {
        loop {
            // Before the look: what comes after it is not missed.
            let given_up = self.given_up.notified();
            if !self.turn().partitions().contains(&partition) {
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
                        let permits = self.turn().wrote(count, end);
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
                let mut turn = self.turn();
                if turn.gathered_count >= count_min {
                    let is_ours = |partition| store.check(partition).is_ok();
                    let are_ours = turn.partitions().into_iter().all(is_ours);
                    return are_ours.then(|| turn.take(self.settings.flush_deliveries_min));
                }
            }
            self.changed.notified().await;
        }
    }
}

impl<A> Sweep<A> {
    /// Every change of it is whole.
    fn turn(&self) -> MutexGuard<'_, Turn<A>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
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
        let turn = self.sweep.turn();
        if turn.has(self.ticket) {
            turn.give_up.cancel();
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

#[cfg(test)]
mod tests {
    use futures::FutureExt;

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
        let flush = sweep.turn().take(FLUSH);
        let permits = sweep.turn().wrote(flush.deliveries.len(), flush.end);
        sweep.room.add_permits(permits);
    }

    fn readers(flush: &Flush<u32>) -> Vec<u32> {
        flush.deliveries.iter().map(|(reader, _)| *reader).collect()
    }

    #[test]
    fn while_there_is_little_all_of_it_goes_out_at_once() {
        let sweep = sweep();
        let (mut part, mut under_way) = add(&sweep, 1, &[5, 200, 7]);
        let flush = sweep.turn().take(FLUSH);
        assert_eq!(readers(&flush), [5, 7, 200]);
        assert!(!is_done(&mut part));
        sweep.turn().wrote(3, flush.end);
        assert!(is_done(&mut part));
        assert!(under_way.wait().now_or_never().is_some());
    }

    #[test]
    fn what_comes_for_a_range_before_its_turn_is_written_with_what_is_there() {
        let sweep = sweep();
        let all: Vec<u32> = (0..40).collect();
        let (mut first, mut under_way) = add(&sweep, 1, &all);
        let flush = sweep.turn().take(FLUSH);
        assert_eq!(readers(&flush), all[..10]);
        let (mut second, _) = add(&sweep, 2, &[3, 15, 35]);
        sweep.turn().wrote(10, flush.end);
        assert!(under_way.wait().now_or_never().is_none());
        let flush = sweep.turn().take(FLUSH);
        assert_eq!(readers(&flush), [10, 11, 12, 13, 14, 15, 15, 16, 17, 18]);
        sweep.turn().wrote(10, flush.end);
        let mut end = 0;
        for _ in 0..3 {
            let flush = sweep.turn().take(FLUSH);
            sweep.turn().wrote(flush.deliveries.len(), flush.end);
            end = flush.end;
        }
        assert_eq!(sweep.turn().gathered_count, 0);
        assert!(is_done(&mut first) && is_done(&mut second));
        assert!(end >= turn::RANGES, "it has gone round");
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
}
