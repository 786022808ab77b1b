//! A Roost in this process: a log, a store, the workers between them, and the write path
//! of the API; with what the workers count.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, future};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{BenchError, log::BenchLog, machine::own_cpu, town::Town};
use crate::{
    app::{WorkerThreads, worker_threads_default},
    domain::{Event, PostId, UserId},
    event_log::{EventLog, codec, partition_of},
    fanout::{self, FanoutError, Progress, SETTLED_AFTER_DEFAULT, Settled, WorkerPool},
    grpc::{Api, Gate, Limits, StreamSlots},
    home_stream::Watch,
    home_timeline::{Filter, HomeTimelines},
    post_id::PostIds,
    store::{
        HOME_TIMELINE_CAP_DEFAULT, NewestPosts, Store,
        embedded::{self as embedded_store, EmbeddedStore},
    },
    telemetry::FanoutMetrics,
    writes::{self, Memory, TEXT_CHARS_MAX_DEFAULT, Writes, system_clock},
};

/// First reads under way at once.
const WAKES_AT_ONCE: usize = 64;
/// The same of readers for whom there is nothing to read.
const WAKES_AT_ONCE_TO_NOTHING: usize = 512;
/// Their accounts are looked up together.
const WAKES_PREPARED: usize = 65_536;
/// How often a drain is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// Bytes of events appended at once.
const APPEND_BYTES: usize = 256 << 10;

/// A Roost that works. Dropping it ends its workers where they stand.
pub(super) struct Roost<S> {
    pub(super) log: Arc<BenchLog>,
    pub(super) store: Arc<S>,
    /// Nobody finds it out but who asks for it.
    pub(super) settled: Arc<Settled>,
    progress: Arc<Progress>,
    metrics: Arc<FanoutMetrics>,
    stop: CancellationToken,
    workers: JoinHandle<Result<(), FanoutError>>,
    _threads: WorkerThreads,
}

/// What the workers have done, and what this process has used for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct WorkDone {
    pub(super) elapsed: Duration,
    /// Of this whole process.
    pub(super) own_cpu: Duration,
    /// Ids written to live timelines.
    pub(super) deliveries: u64,
    /// Ids not written since their readers sleep.
    pub(super) skipped: u64,
    /// Writes that carried them.
    pub(super) pushes: u64,
    pub(super) flushes: u64,
}

/// A backlog that has become timelines.
#[derive(Clone, Debug)]
pub(super) struct Drained {
    pub(super) work: WorkDone,
    /// Seconds since it began, and the deliveries a second up to there.
    pub(super) rates: Vec<(f64, f64)>,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    at: Instant,
    own_cpu: Duration,
    deliveries: u64,
    skipped: u64,
    pushes: u64,
    flushes: u64,
}

impl Roost<EmbeddedStore> {
    /// One with an embedded log and store, both empty, in `dir`.
    pub(super) fn embedded(dir: &TempDir, partitions: Option<u32>) -> Result<Self, BenchError> {
        Self::embedded_watched(dir, partitions, |_| {})
    }

    /// The same, and tells of posts that have reached every reader.
    pub(super) fn embedded_watched(
        dir: &TempDir,
        partitions: Option<u32>,
        on_delivered: impl Fn(&[PostId]) + Send + Sync + 'static,
    ) -> Result<Self, BenchError> {
        let settings = embedded_store::Settings::default();
        let store = Arc::new(EmbeddedStore::open(&dir.path().join("store"), settings)?);
        Self::start_watched(
            Arc::new(BenchLog::embedded(dir.path(), partitions)?),
            store,
            on_delivered,
        )
    }
}

impl<S: Store> Roost<S> {
    /// Starts the workers, on as many threads of their own as `roost serve` has, and tells of
    /// posts that have reached every reader. The log and the store must be empty.
    pub(super) fn start_watched(
        log: Arc<BenchLog>,
        store: Arc<S>,
        on_delivered: impl Fn(&[PostId]) + Send + Sync + 'static,
    ) -> Result<Self, BenchError> {
        let progress = Arc::new(Progress::watched(log.partitions(), on_delivered));
        let metrics = Arc::<FanoutMetrics>::default();
        let threads = WorkerThreads::start(worker_threads_default())?;
        let stop = CancellationToken::new();
        let pool = WorkerPool::new(
            Arc::clone(&log),
            Arc::clone(&store),
            Arc::clone(&progress),
            Arc::clone(&metrics),
            fanout::Settings::default(),
        );
        let workers = threads.handle.spawn(pool.run(stop.clone()));
        let settled = Arc::new(Settled::new(SETTLED_AFTER_DEFAULT));
        Ok(Self { log, store, settled, progress, metrics, stop, workers, _threads: threads })
    }

    /// The write path of its API, whose ids go on from now.
    pub(super) fn writes(&self) -> Writes<BenchLog, S> {
        Writes::new(
            Arc::clone(&self.log),
            Arc::clone(&self.store),
            Arc::clone(&self.progress),
            Memory::perfect(),
            Arc::new(PostIds::new(0, None)),
            system_clock(),
            writes::Settings::default(),
        )
    }

    /// What its API answers from.
    pub(super) async fn api(&self) -> Api<BenchLog, S> {
        let (gate, _) = Gate::new().await;
        Api {
            watch: Arc::new(Watch::new(
                Arc::clone(&self.store),
                Arc::clone(&self.settled),
                Memory::perfect(),
            )),
            door: gate.door(),
            stream_slots: StreamSlots::new(usize::MAX, Arc::default()),
            writes: self.writes(),
            homes: Arc::new(HomeTimelines::new(Arc::clone(&self.store))),
            store: Arc::clone(&self.store),
            log: Arc::clone(&self.log),
            progress: Arc::clone(&self.progress),
            fanout: Arc::clone(&self.metrics),
            limits: Limits {
                home_timeline_cap: HOME_TIMELINE_CAP_DEFAULT,
                text_chars_max: TEXT_CHARS_MAX_DEFAULT,
            },
        }
    }

    /// Lets the readers follow the authors, and wakes all of them.
    pub(super) async fn prepare(&mut self, town: &Town) -> Result<(), BenchError> {
        self.append(town.follows()).await?;
        self.settle().await?;
        self.wake_to_nothing(&town.readers()).await
    }

    /// Wakes these as `wake` does, where nobody has posted yet: there is nothing to ask for,
    /// so that it takes minutes for ten millions and not an hour.
    async fn wake_to_nothing(&self, readers: &[UserId]) -> Result<(), BenchError> {
        for readers in readers.chunks(WAKES_PREPARED) {
            let accounts = self.store.accounts(readers).await?;
            let wakes = futures::stream::iter(accounts.into_iter().flatten()).map(|reader| {
                let store = &self.store;
                async move {
                    let ticket = store.begin_rebuild(reader).await?;
                    store.finish_rebuild(reader, ticket, NewestPosts::default()).await
                }
            });
            let woken = wakes.buffer_unordered(WAKES_AT_ONCE_TO_NOTHING);
            woken.try_for_each(|_| future::ready(Ok(()))).await?;
        }
        Ok(())
    }

    /// Puts the posts into the log while the workers are held back, lets them go, and
    /// measures how the posts become timelines.
    pub(super) async fn drain(&mut self, town: &Town) -> Result<Drained, BenchError> {
        self.log.hold();
        let appended = self.append(town.events()).await;
        let before = self.moment();
        self.log.release();
        appended?;
        let mut samples = vec![(0.0, 0)];
        self.settle_watched(&before, &mut samples).await?;
        let work = self.moment().since(&before);
        samples.push((work.elapsed.as_secs_f64(), work.deliveries));
        Ok(Drained { work, rates: rates(&samples) })
    }

    /// Writes events into the log, in their order.
    pub(super) async fn append(
        &self,
        events: impl Iterator<Item = Event>,
    ) -> Result<(), BenchError> {
        let partitions = self.log.partitions();
        let mut waiting = vec![(Vec::new(), 0); partitions as usize];
        for event in events {
            let partition = partition_of(event.key(), partitions);
            let (payloads, bytes) = &mut waiting[partition as usize];
            let payload = codec::encode(&event);
            *bytes += payload.len();
            payloads.push(payload);
            if *bytes >= APPEND_BYTES {
                *bytes = 0;
                self.log.append(partition, std::mem::take(payloads)).await?;
            }
        }
        for (partition, (payloads, _)) in (0..).zip(waiting) {
            if !payloads.is_empty() {
                self.log.append(partition, payloads).await?;
            }
        }
        Ok(())
    }

    /// Lets these read their timelines, which makes them live.
    pub(super) async fn wake(&self, readers: &[UserId]) -> Result<(), BenchError> {
        let homes = HomeTimelines::new(Arc::clone(&self.store));
        let everything = Filter::default();
        futures::stream::iter(readers)
            .map(|reader| homes.read(*reader, &everything, None, 1))
            .buffer_unordered(WAKES_AT_ONCE)
            .try_for_each(|_| future::ready(Ok(())))
            .await?;
        Ok(())
    }

    /// Waits until everything in the log is delivered.
    pub(super) async fn settle(&mut self) -> Result<(), BenchError> {
        let ends = self.log.ends().await?;
        tokio::select! {
            ended = &mut self.workers => Err(BenchError::of_workers(ended)),
            () = self.progress.wait_all_delivered(&ends) => Ok(()),
        }
    }

    /// The same, and samples the deliveries since `before`.
    async fn settle_watched(
        &mut self,
        before: &Moment,
        samples: &mut Vec<(f64, u64)>,
    ) -> Result<(), BenchError> {
        let metrics = Arc::clone(&self.metrics);
        let settled = self.settle();
        tokio::pin!(settled);
        loop {
            tokio::select! {
                settled = &mut settled => return settled,
                () = sleep(SAMPLE_EVERY) => {
                    let done = metrics.deliveries.get() - before.deliveries;
                    samples.push((before.at.elapsed().as_secs_f64(), done));
                }
            }
        }
    }

    /// What the workers have done so far.
    pub(super) fn moment(&self) -> Moment {
        Moment {
            at: Instant::now(),
            own_cpu: own_cpu(),
            deliveries: self.metrics.deliveries.get(),
            skipped: self.metrics.skipped_deliveries.get(),
            pushes: self.metrics.pushes.get(),
            flushes: self.metrics.flush_deliveries.count(),
        }
    }

    /// Ends the workers, and closes the log.
    pub(super) async fn stop(self) -> Result<(), BenchError> {
        self.stop.cancel();
        let ended = self.workers.await.map_err(|_| BenchError::Panicked)?;
        self.log.close().await;
        Ok(ended?)
    }
}

impl Moment {
    /// Ids written to live timelines so far.
    pub(super) fn deliveries(&self) -> u64 {
        self.deliveries
    }

    /// What was done since an earlier one.
    pub(super) fn since(&self, before: &Self) -> WorkDone {
        WorkDone {
            elapsed: self.at - before.at,
            own_cpu: self.own_cpu.saturating_sub(before.own_cpu),
            deliveries: self.deliveries - before.deliveries,
            skipped: self.skipped - before.skipped,
            pushes: self.pushes - before.pushes,
            flushes: self.flushes - before.flushes,
        }
    }
}

impl WorkDone {
    /// Deliveries a second.
    pub(super) fn rate(&self) -> f64 {
        self.deliveries as f64 / self.elapsed.as_secs_f64()
    }

    /// Ids that one write carried, on average.
    pub(super) fn values_a_push(&self) -> f64 {
        self.deliveries as f64 / self.pushes.max(1) as f64
    }
}

/// From counts at times: at the end of each stretch, how many a second came in it.
pub(super) fn rates(samples: &[(f64, u64)]) -> Vec<(f64, f64)> {
    let stretches = samples.windows(2).filter(|pair| pair[1].0 > pair[0].0);
    stretches
        .map(|pair| (pair[1].0, (pair[1].1 - pair[0].1) as f64 / (pair[1].0 - pair[0].0)))
        .collect()
}

/// A time for each of so many, in microseconds.
pub(super) fn micros_each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count.max(1) as f64
}
