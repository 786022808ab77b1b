//! A Roost in this process: a log, a store, and the workers between them.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use futures::{StreamExt, TryStreamExt, future};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{BenchError, redis::BenchRedis};
use crate::{
    app::{WorkerThreads, worker_threads_default},
    domain::{Event, UserId},
    event_log::{
        EventLog, codec,
        embedded::{self as embedded_log, EmbeddedLog},
        partition_of,
    },
    fanout::{self, FanoutError, Progress, WorkerPool},
    grpc::{Api, Limits},
    home_timeline::HomeTimelines,
    post_id::PostIds,
    store::{
        HOME_TIMELINE_CAP_DEFAULT, Store,
        embedded::{self as embedded_store, EmbeddedStore},
        redis::{self as redis_store, RedisStore},
    },
    telemetry::FanoutMetrics,
    writes::{self, Memory, TEXT_CHARS_MAX_DEFAULT, Writes},
};

/// First reads under way at once.
const WAKES_AT_ONCE: usize = 64;
/// Bytes of events appended at once.
const APPEND_BYTES: usize = 256 << 10;

/// The log of a Roost that is read.
pub(super) type BenchLog = EmbeddedLog;

/// A Roost that works. Dropping it ends its workers where they stand.
pub(super) struct Roost<S> {
    log: Arc<BenchLog>,
    store: Arc<S>,
    progress: Arc<Progress>,
    metrics: Arc<FanoutMetrics>,
    stop: CancellationToken,
    workers: JoinHandle<Result<(), FanoutError>>,
    _threads: WorkerThreads,
    _dir: TempDir,
}

/// One with an empty embedded store.
pub(super) fn embedded() -> Result<Roost<EmbeddedStore>, BenchError> {
    let (log, dir) = new_log()?;
    let settings = embedded_store::Settings::default();
    let store = EmbeddedStore::open(&dir.path().join("store"), settings)?;
    Roost::start(log, store, dir)
}

/// One with a Redis, which is emptied.
pub(super) async fn redis(redis: &BenchRedis) -> Result<Roost<RedisStore>, BenchError> {
    redis.empty().await?;
    let (log, dir) = new_log()?;
    let settings = redis_store::Settings::new(redis.config(), "bench".to_owned(), log.partitions());
    Roost::start(log, RedisStore::open(settings).await?, dir)
}

fn new_log() -> Result<(BenchLog, TempDir), BenchError> {
    let dir = TempDir::with_prefix("roost-bench-").map_err(BenchError::Dir)?;
    let log = EmbeddedLog::open(&dir.path().join("log"), embedded_log::Settings::default())?;
    Ok((log, dir))
}

impl<S: Store> Roost<S> {
    /// Starts the workers, on as many threads of their own as `roost serve` has. The log
    /// and the store must be empty, and are in `dir`.
    fn start(log: BenchLog, store: S, dir: TempDir) -> Result<Self, BenchError> {
        let (log, store) = (Arc::new(log), Arc::new(store));
        let progress = Arc::new(Progress::new(log.partitions()));
        let metrics = Arc::<FanoutMetrics>::default();
        let threads = WorkerThreads::start(worker_threads_default())?;
        let stop = CancellationToken::new();
        let pool = WorkerPool {
            log: Arc::clone(&log),
            store: Arc::clone(&store),
            progress: Arc::clone(&progress),
            metrics: Arc::clone(&metrics),
            settings: fanout::Settings::default(),
        };
        let workers = threads.handle.spawn(pool.run(stop.clone()));
        Ok(Self { log, store, progress, metrics, stop, workers, _threads: threads, _dir: dir })
    }

    /// What its API answers from. Post ids go on from now.
    pub(super) fn api(&self) -> Api<BenchLog, S> {
        let clock = || {
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            since_1970.as_millis() as u64
        };
        let writes = Writes::new(
            Arc::clone(&self.log),
            Arc::clone(&self.store),
            Arc::clone(&self.progress),
            Memory::perfect(),
            Arc::new(PostIds::new(0, None)),
            Arc::new(clock),
            writes::Settings::default(),
        );
        Api {
            writes,
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
    pub(super) async fn wake(&self, readers: Vec<UserId>) -> Result<(), BenchError> {
        let homes = HomeTimelines::new(Arc::clone(&self.store));
        futures::stream::iter(readers)
            .map(|reader| homes.read(reader, None, 1))
            .buffer_unordered(WAKES_AT_ONCE)
            .try_for_each(|_| future::ready(Ok(())))
            .await?;
        Ok(())
    }

    /// Waits until everything in the log is delivered.
    pub(super) async fn settle(&mut self) -> Result<(), BenchError> {
        let ends = self.log.ends().await?;
        let delivered = future::join_all(
            (0..).zip(ends).map(|(partition, end)| self.progress.wait_delivered(partition, end)),
        );
        tokio::select! {
            ended = &mut self.workers => Err(BenchError::of_workers(ended)),
            _ = delivered => Ok(()),
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
