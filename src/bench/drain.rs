//! *drain*: a prepared backlog in the log, and the workers as fast as they go.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, future};
use tokio_util::sync::CancellationToken;

use super::{BenchError, machine::own_cpu, town::Town};
use crate::{
    domain::{Event, UserId},
    event_log::{EventLog, codec, partition_of},
    fanout::{self, Progress, WorkerPool},
    home_timeline::HomeTimelines,
    store::Store,
    telemetry::FanoutMetrics,
};

/// First reads under way at once.
const WAKES_AT_ONCE: usize = 64;
/// Events appended at once.
const APPEND_EVENTS: usize = 500;

/// A log and a store, with all that stands between them but the workers.
pub(super) struct Drain<L, S> {
    log: Arc<L>,
    store: Arc<S>,
    progress: Arc<Progress>,
    metrics: Arc<FanoutMetrics>,
}

/// What a drain took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drained {
    pub(super) elapsed: Duration,
    /// Of this process.
    pub(super) own_cpu: Duration,
    /// Ids written to live timelines.
    pub(super) deliveries: u64,
    /// Writes that carried them.
    pub(super) pushes: u64,
    pub(super) rounds: u64,
}

impl<L: EventLog, S: Store> Drain<L, S> {
    /// The log and the store must be empty.
    pub(super) fn new(log: Arc<L>, store: Arc<S>) -> Self {
        let progress = Arc::new(Progress::new(log.partitions()));
        Self { log, store, progress, metrics: Arc::default() }
    }

    /// Lets the readers follow the authors, and wakes them.
    pub(super) async fn prepare(&self, town: &Town) -> Result<(), BenchError> {
        self.append(town.follows()).await?;
        self.drain().await?;
        self.wake(town.readers()).await
    }

    /// Puts the posts into the log, and then measures how they become timelines.
    pub(super) async fn measure(&mut self, town: &Town) -> Result<Drained, BenchError> {
        self.append(town.posts().iter().map(|post| town.event(*post))).await?;
        self.metrics = Arc::default();
        let (cpu_before, begun) = (own_cpu(), Instant::now());
        self.drain().await?;
        Ok(Drained {
            elapsed: begun.elapsed(),
            own_cpu: own_cpu().saturating_sub(cpu_before),
            deliveries: self.metrics.deliveries.get(),
            pushes: self.metrics.pushes.get(),
            rounds: self.metrics.round_deliveries.count(),
        })
    }

    async fn append(&self, events: impl Iterator<Item = Event>) -> Result<(), BenchError> {
        let partitions = self.log.partitions();
        let mut waiting = vec![Vec::new(); partitions as usize];
        for event in events {
            let partition = partition_of(event.key(), partitions);
            let payloads = &mut waiting[partition as usize];
            payloads.push(codec::encode(&event));
            if payloads.len() == APPEND_EVENTS {
                self.log.append(partition, std::mem::take(payloads)).await?;
            }
        }
        for (partition, payloads) in (0..).zip(waiting) {
            if !payloads.is_empty() {
                self.log.append(partition, payloads).await?;
            }
        }
        Ok(())
    }

    async fn wake(&self, readers: Vec<UserId>) -> Result<(), BenchError> {
        let homes = HomeTimelines::new(Arc::clone(&self.store));
        futures::stream::iter(readers)
            .map(|reader| homes.read(reader, None, 1))
            .buffer_unordered(WAKES_AT_ONCE)
            .try_for_each(|_| future::ready(Ok(())))
            .await?;
        Ok(())
    }

    /// Works until everything in the log is delivered.
    async fn drain(&self) -> Result<(), BenchError> {
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        let pool = WorkerPool::new(
            Arc::clone(&self.log),
            Arc::clone(&self.store),
            Arc::clone(&self.progress),
            Arc::clone(&self.metrics),
            fanout::Settings::default(),
        );
        let mut workers = tokio::spawn(pool.run(stop.clone()));
        let ends = self.log.ends().await?;
        let delivered = future::join_all(
            (0..).zip(ends).map(|(partition, end)| self.progress.wait_delivered(partition, end)),
        );
        tokio::select! {
            ended = &mut workers => return Err(BenchError::of_workers(ended)),
            _ = delivered => {}
        }
        stop.cancel();
        workers.await.map_err(|_| BenchError::Panicked)??;
        Ok(())
    }
}
