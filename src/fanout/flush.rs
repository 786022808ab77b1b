//! Write combining across partitions: the deliveries of all workers of a process, a
//! flush at a time.
//!
//! ```text
//!  worker of partition 0: prepare ──► deliveries ─┐
//!  worker of partition 1: prepare ──► deliveries ─┼─► the next flush ──► combine ──► store
//!  worker of partition 2: prepare ──► (none)      ┘         ▲                          │
//!                                                           └─ waits for the one before ┘
//! ```
//!
//! A reader's ids of one flush are one push, and a push of eight costs little more than
//! a push of one. So the more there is to deliver, the longer a flush takes, the more
//! gathers meanwhile for the next one, and the less each delivery costs; while there is
//! little to do, nothing waits. A flush begins once the one before it has ended and all
//! those have come who were preparing deliveries when its first came: for a moment, while
//! any of its parts is in time, and for longer while all of them are late anyway.
//!
//! Where a flush fails, nobody knows what of it was written, and all who had a part in it
//! are told so. A worker that is ended takes its part along: out of the flush that
//! gathers, or, since nothing of a lost partition may be written any more, by ending the
//! one that runs ([`Flusher::left`]).

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant as StdInstant},
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{FanoutError, combine};
use crate::{
    domain::PostId,
    store::{Pushes, Store, StoreError},
    telemetry::FanoutMetrics,
};

/// Gathers what workers deliver, and writes it.
#[derive(Debug)]
pub(super) struct Flusher<A> {
    settings: FlushSettings,
    state: Mutex<State<A>>,
    /// For the one who writes: there may be a flush to begin.
    changed: Notify,
    /// For those who wait until a flush has ended.
    ended: Notify,
}

/// Why nobody knows what of a flush is written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FlushError {
    /// A partition that had a part in it is this process's no more.
    #[error("a flush was given up, since a partition that had a part in it is lost")]
    Ended,
    /// The store failed.
    #[error(transparent)]
    Store(Arc<StoreError>),
}

impl FlushError {
    /// Whether trying again cannot help.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Ended => false,
            Self::Store(error) => error.is_final(),
        }
    }
}

/// How flushes are made.
#[derive(Clone, Copy, Debug)]
pub struct FlushSettings {
    /// With so many deliveries a flush waits for nobody.
    pub deliveries_max: usize,
    /// No flush waits longer for those who prepare deliveries.
    pub wait_max: Duration,
    /// The same, of a flush all of whose parts are late.
    pub late_wait_max: Duration,
}

impl Default for FlushSettings {
    fn default() -> Self {
        Self {
            deliveries_max: 8 << 20,
            wait_max: Duration::from_millis(500),
            late_wait_max: Duration::from_secs(3),
        }
    }
}

#[derive(Debug)]
struct State<A> {
    /// The partitions whose workers are preparing deliveries.
    preparing: BTreeSet<u32>,
    next: Flush<A>,
    running: Option<Running>,
}

/// The flush that gathers.
#[derive(Debug)]
struct Flush<A> {
    parts: Vec<Part<A>>,
    /// Those it waits for.
    awaited: BTreeSet<u32>,
    /// When its first part came.
    since: Instant,
}

/// What one worker delivers.
#[derive(Debug)]
struct Part<A> {
    partition: u32,
    deliveries: Vec<(A, PostId)>,
    /// Whether all of it is late already.
    is_late: bool,
    done: oneshot::Sender<Result<(), FanoutError>>,
}

/// The flush that is being written.
#[derive(Debug)]
struct Running {
    partitions: BTreeSet<u32>,
    /// Ends it where it stands.
    end: CancellationToken,
}

/// A worker's announcement that deliveries may come; dropped, there are none.
#[derive(Debug)]
pub(super) struct Preparing<'a, A> {
    flusher: &'a Flusher<A>,
    partition: u32,
}

impl<A: Copy + Ord + Into<u64> + Send + Sync> Flusher<A> {
    pub(super) fn new(settings: FlushSettings) -> Self {
        Self {
            settings,
            state: Mutex::new(State {
                preparing: BTreeSet::new(),
                next: Flush::default(),
                running: None,
            }),
            changed: Notify::new(),
            ended: Notify::new(),
        }
    }

    /// Announces that the worker of a partition, which has one, prepares deliveries.
    pub(super) fn prepare(&self, partition: u32) -> Preparing<'_, A> {
        self.state().preparing.insert(partition);
        Preparing { flusher: self, partition }
    }

    /// Writes flushes, one after the other, for ever.
    pub(super) async fn run(&self, store: &impl Store<Account = A>, metrics: &FanoutMetrics) {
        loop {
            let (parts, end) = self.next().await;
            let (pushes, dones) = admit(parts, store);
            let written = tokio::select! {
                biased;
                () = end.cancelled() => Err(FlushError::Ended),
                written = write(&pushes, store, metrics) => {
                    written.map_err(|error| FlushError::Store(Arc::new(error)))
                }
            };
            self.state().running = None;
            self.ended.notify_waiters();
            for done in dones {
                // Who has gone meanwhile does not want to know.
                let _ = done.send(written.clone().map_err(FanoutError::Flush));
            }
        }
    }

    /// Waits until nothing of a partition, whose worker has ended, is written any more.
    pub(super) async fn left(&self, partition: u32) {
        loop {
            // Before the look: an end that comes after it is not missed.
            let ended = self.ended.notified();
            if !self.state().running.as_ref().is_some_and(|it| it.partitions.contains(&partition)) {
                return;
            }
            ended.await;
        }
    }

    /// The next flush, once it may begin, and what ends it early.
    async fn next(&self) -> (Vec<Part<A>>, CancellationToken) {
        loop {
            let waits_until = {
                let mut state = self.state();
                let waits_until = state.next.waits_until(self.settings);
                if waits_until.is_none_or(|until| Instant::now() < until) {
                    waits_until
                } else {
                    return state.begin();
                }
            };
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = sleep_until(waits_until.unwrap_or_else(Instant::now)),
                    if waits_until.is_some() => {}
            }
        }
    }

    /// Every change of it is whole.
    fn state(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: Copy + Ord + Into<u64> + Send + Sync> Preparing<'_, A> {
    /// Has these deliveries written, which may wait for longer if all of them are late
    /// already, and waits for it.
    ///
    /// # Errors
    /// If nobody knows what of them is written.
    pub(super) async fn flush(
        self,
        deliveries: Vec<(A, PostId)>,
        is_late: bool,
    ) -> Result<(), FanoutError> {
        let (done, is_done) = oneshot::channel();
        let _flushing = {
            let mut state = self.flusher.state();
            state.add(Part { partition: self.partition, deliveries, is_late, done });
            Flushing { flusher: self.flusher, partition: self.partition }
        };
        drop(self);
        is_done.await.unwrap_or(Err(FanoutError::Flush(FlushError::Ended)))
    }
}

impl<A> Drop for Preparing<'_, A> {
    fn drop(&mut self) {
        let mut state = self.flusher.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.preparing.remove(&self.partition);
        state.next.awaited.remove(&self.partition);
        drop(state);
        self.flusher.changed.notify_one();
    }
}

/// A worker that waits for its part to be written; dropped, it wants nothing more of it
/// to be.
struct Flushing<'a, A> {
    flusher: &'a Flusher<A>,
    partition: u32,
}

impl<A> Drop for Flushing<'_, A> {
    fn drop(&mut self) {
        let mut state = self.flusher.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.next.parts.retain(|part| part.partition != self.partition);
        if let Some(running) = &state.running
            && running.partitions.contains(&self.partition)
        {
            running.end.cancel();
        }
    }
}

impl<A> State<A> {
    fn add(&mut self, part: Part<A>) {
        if self.next.parts.is_empty() {
            self.next.since = Instant::now();
            self.next.awaited = self.preparing.clone();
        }
        self.next.parts.push(part);
    }

    fn begin(&mut self) -> (Vec<Part<A>>, CancellationToken) {
        let parts = std::mem::take(&mut self.next).parts;
        let end = CancellationToken::new();
        let partitions = parts.iter().map(|part| part.partition).collect();
        self.running = Some(Running { partitions, end: end.clone() });
        (parts, end)
    }
}

impl<A> Default for Flush<A> {
    fn default() -> Self {
        Self { parts: Vec::new(), awaited: BTreeSet::new(), since: Instant::now() }
    }
}

impl<A> Flush<A> {
    /// Until when it waits for others; `None` while it has no part.
    fn waits_until(&self, settings: FlushSettings) -> Option<Instant> {
        if self.parts.is_empty() {
            return None;
        }
        let deliveries: usize = self.parts.iter().map(|part| part.deliveries.len()).sum();
        if self.awaited.is_empty() || deliveries >= settings.deliveries_max {
            return Some(self.since);
        }
        let are_late = self.parts.iter().all(|part| part.is_late);
        let wait_max = if are_late { settings.late_wait_max } else { settings.wait_max };
        Some(self.since + wait_max)
    }
}

type Done = oneshot::Sender<Result<(), FanoutError>>;

/// The pushes of those whose partitions are still this process's; the others are told.
fn admit<S: Store>(parts: Vec<Part<S::Account>>, store: &S) -> (Pushes<S::Account>, Vec<Done>) {
    let mut dones = Vec::with_capacity(parts.len());
    let mut deliveries = Vec::new();
    for part in parts {
        match store.check(part.partition) {
            Ok(()) => {
                if deliveries.is_empty() {
                    deliveries = part.deliveries;
                } else {
                    deliveries.extend(part.deliveries);
                }
                dones.push(part.done);
            }
            Err(error) => drop(part.done.send(Err(error.into()))),
        }
    }
    (combine(deliveries), dones)
}

async fn write<S: Store>(
    pushes: &Pushes<S::Account>,
    store: &S,
    metrics: &FanoutMetrics,
) -> Result<(), StoreError> {
    if !pushes.is_empty() {
        let begun = StdInstant::now();
        metrics.pushed(pushes, store.push(pushes).await?);
        metrics.flush_deliveries.observe(pushes.id_count() as f64);
        metrics.flush_seconds.observe_since(begun);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future::BoxFuture};

    use super::*;

    const WAIT_MAX: Duration = Duration::from_secs(5);
    const LATE_WAIT_MAX: Duration = Duration::from_secs(20);

    fn flusher() -> Flusher<u64> {
        Flusher::new(FlushSettings {
            deliveries_max: 100,
            wait_max: WAIT_MAX,
            late_wait_max: LATE_WAIT_MAX,
        })
    }

    /// A worker that has `count` deliveries, and waits.
    fn flush(preparing: Preparing<'_, u64>, count: u64) -> BoxFuture<'_, Result<(), FanoutError>> {
        flush_of(preparing, count, false)
    }

    fn flush_of(
        preparing: Preparing<'_, u64>,
        count: u64,
        is_late: bool,
    ) -> BoxFuture<'_, Result<(), FanoutError>> {
        let deliveries = (0..count).map(|reader| (reader, PostId(1))).collect();
        let mut flush = preparing.flush(deliveries, is_late).boxed();
        assert!((&mut flush).now_or_never().is_none(), "nobody has written it");
        flush
    }

    /// Whose parts are in the flush that may begin now, if one may.
    fn begun(flusher: &Flusher<u64>) -> Option<(Vec<u32>, CancellationToken)> {
        let (parts, end) = flusher.next().now_or_never()?;
        Some((parts.iter().map(|part| part.partition).collect(), end))
    }

    fn partitions(flusher: &Flusher<u64>) -> Option<Vec<u32>> {
        Some(begun(flusher)?.0)
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_is_alone_waits_for_nobody() {
        let flusher = flusher();
        assert_eq!(partitions(&flusher), None);
        let _one = flush(flusher.prepare(3), 1);
        assert_eq!(partitions(&flusher), Some(vec![3]));
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_those_who_were_preparing_and_not_for_those_who_come_later() {
        let flusher = flusher();
        let (one, two) = (flusher.prepare(1), flusher.prepare(2));
        let idle = flusher.prepare(3);
        let _one = flush(one, 1);
        let _later = flusher.prepare(4);
        assert_eq!(partitions(&flusher), None);
        let _two = flush(two, 1);
        assert_eq!(partitions(&flusher), None);
        drop(idle);
        assert_eq!(partitions(&flusher), Some(vec![1, 2]));
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_neither_for_ever_nor_when_it_is_full() {
        let flusher = flusher();
        let _slow = flusher.prepare(1);
        let _two = flush(flusher.prepare(2), 1);
        assert_eq!(partitions(&flusher), None);
        tokio::time::advance(WAIT_MAX).await;
        assert_eq!(partitions(&flusher), Some(vec![2]));
        let _three = flush(flusher.prepare(3), 60);
        assert_eq!(partitions(&flusher), None);
        let _four = flush(flusher.prepare(4), 40);
        assert_eq!(partitions(&flusher), Some(vec![3, 4]));
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_longer_while_all_are_late_anyway() {
        let flusher = flusher();
        let (_slow, late) = (flusher.prepare(1), flusher.prepare(2));
        let _late = flush_of(late, 1, true);
        tokio::time::advance(WAIT_MAX).await;
        assert_eq!(partitions(&flusher), None);
        // One comes who is not.
        let in_time = flush(flusher.prepare(3), 1);
        assert_eq!(partitions(&flusher), Some(vec![2, 3]));
        drop(in_time);
        let _late = flush_of(flusher.prepare(4), 1, true);
        tokio::time::advance(LATE_WAIT_MAX).await;
        assert_eq!(partitions(&flusher), Some(vec![4]));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_gone_has_no_part_in_it_and_ends_it_if_it_runs() {
        let flusher = flusher();
        let (one, two) = (flusher.prepare(1), flusher.prepare(2));
        let (one, two) = (flush(one, 1), flush(two, 1));
        drop(one);
        let (partitions, end) = begun(&flusher).expect("two waits for nobody");
        assert_eq!(partitions, [2]);
        assert!(!end.is_cancelled());
        let mut left = Box::pin(flusher.left(2));
        drop(two);
        assert!(end.is_cancelled());
        assert!((&mut left).now_or_never().is_none(), "it has not ended yet");
        assert!(flusher.left(1).now_or_never().is_some());
    }
}
