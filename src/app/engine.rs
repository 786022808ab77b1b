//! The engine: the log, the store, and the workers between them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::future;
use tokio::{
    runtime::{Handle, Runtime},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::{AppError, Settings};
use crate::{
    data_dir::DataDir,
    domain::{Event, PostId},
    event_log::{
        EventLog, codec,
        embedded::{self as embedded_log, EmbeddedLog},
    },
    fanout::{self, Counters, FanoutError, Progress, WorkerPool},
    grpc::{self, Api, Gate, Limits},
    home_timeline::HomeTimelines,
    post_id::PostIds,
    store::{
        Lookups,
        embedded::{self as embedded_store, EmbeddedStore},
    },
    writes::{self, Clock, Writes},
};

/// How often a start says how far it has come.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// The log, the store, and the workers between them.
pub(super) struct Engine {
    settings: Settings,
    log: Arc<EmbeddedLog>,
    store: Arc<EmbeddedStore>,
    progress: Arc<Progress>,
    counters: Arc<Counters>,
    /// The greatest post id given out before the start.
    greatest_post: Option<PostId>,
    stop_workers: CancellationToken,
    /// `None` once `failed` has told how they ended.
    workers: Option<JoinHandle<Result<(), FanoutError>>>,
    _worker_threads: WorkerThreads,
    // Last, so that the lock is given back when all else is gone.
    _data_dir: DataDir,
}

impl Engine {
    /// Opens everything, and applies what is in the log.
    pub(super) async fn start(settings: &Settings, gate: &Gate) -> Result<Self, AppError> {
        let opened = tokio::task::spawn_blocking({
            let settings = settings.clone();
            move || open(&settings)
        });
        let (data_dir, log, store) = opened.await.map_err(|_| AppError::Panicked)??;
        let ends = ends(settings, &log, &store).await?;
        let greatest_post = greatest_post(&log, &store).await?;
        let progress = Arc::new(Progress::new(log.partitions()));
        let counters = Arc::new(Counters::default());
        let worker_threads = WorkerThreads::start(settings.worker_threads)?;
        let stop_workers = CancellationToken::new();
        let pool = WorkerPool {
            log: Arc::clone(&log),
            store: Arc::clone(&store),
            progress: Arc::clone(&progress),
            counters: Arc::clone(&counters),
            settings: fanout::Settings::default(),
        };
        let workers = worker_threads.handle.spawn(pool.run(stop_workers.clone()));
        let mut engine = Self {
            settings: settings.clone(),
            log,
            store,
            progress,
            counters,
            greatest_post,
            stop_workers,
            workers: Some(workers),
            _worker_threads: worker_threads,
            _data_dir: data_dir,
        };
        // A request id is looked up in the store, and a read must not show what
        // was taken away before: so nobody is served before all that was
        // acknowledged holds.
        if let Err(error) = engine.catch_up(&ends, gate).await {
            // What failed first says more than what fails on the way out.
            let _ = engine.stop().await;
            return Err(error);
        }
        Ok(engine)
    }

    /// What answers from it.
    pub(super) fn routes(&self) -> Result<Routes, AppError> {
        let text_chars_max = self.settings.text_chars_max;
        let writes = Writes::new(
            Arc::clone(&self.log),
            Arc::clone(&self.store),
            Arc::clone(&self.progress),
            PostIds::new(0, self.greatest_post),
            system_clock(),
            writes::Settings { text_chars_max, ..Default::default() },
        );
        let api = Api {
            writes,
            homes: Arc::new(HomeTimelines::new(Arc::clone(&self.store))),
            store: Arc::clone(&self.store),
            log: Arc::clone(&self.log),
            progress: Arc::clone(&self.progress),
            counters: Arc::clone(&self.counters),
            limits: Limits { home_timeline_cap: self.settings.home_timeline_cap, text_chars_max },
        };
        Ok(grpc::routes(api)?)
    }

    /// Waits until a part of it has failed.
    pub(super) async fn failed(&mut self) -> AppError {
        let Some(workers) = &mut self.workers else { return future::pending().await };
        let ended = workers.await;
        self.workers = None;
        match ended {
            Ok(Err(error)) => error.into(),
            _ => AppError::Panicked,
        }
    }

    /// Commits what the workers have done, and closes the log.
    pub(super) async fn stop(mut self) -> Result<(), AppError> {
        self.stop_workers.cancel();
        let result = match self.workers.take() {
            Some(workers) => workers.await.map_err(|_| AppError::Panicked),
            None => Ok(Ok(())),
        };
        self.log.close().await;
        Ok(result??)
    }

    async fn catch_up(&mut self, ends: &[u64], gate: &Gate) -> Result<(), AppError> {
        let progress = Arc::clone(&self.progress);
        let left = || -> u64 {
            let partitions = (0..).zip(ends);
            partitions.map(|(at, end)| end.saturating_sub(progress.position(at).applied)).sum()
        };
        let applied = future::join_all(
            (0..).zip(ends).map(|(partition, end)| progress.wait_applied(partition, *end)),
        );
        tokio::pin!(applied);
        let mut tell = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                biased;
                _ = &mut applied => return Ok(()),
                error = self.failed() => return Err(error),
                _ = tell.tick() => gate.tell(format!(
                    "{} events of the log are to be applied to the store",
                    left()
                )),
            }
        }
    }
}

/// Threads for the workers alone, whose rounds are long: calls do not wait for
/// them. Dropping it ends them without waiting.
struct WorkerThreads {
    handle: Handle,
    /// Taken by `drop` only.
    runtime: Option<Runtime>,
}

impl WorkerThreads {
    fn start(count: usize) -> Result<Self, AppError> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(count)
            .thread_name("roost-fanout")
            .enable_time()
            .build()
            .map(|runtime| Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
            .map_err(AppError::Threads)
    }
}

impl Drop for WorkerThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn open(settings: &Settings) -> Result<(DataDir, Arc<EmbeddedLog>, Arc<EmbeddedStore>), AppError> {
    let data_dir = DataDir::open(&settings.data_dir)?;
    let log_settings =
        embedded_log::Settings { partitions: settings.partitions, ..Default::default() };
    let log = EmbeddedLog::open(&data_dir.log_dir(), log_settings)?;
    let store_settings = embedded_store::Settings {
        home_timeline_cap: settings.home_timeline_cap,
        ..Default::default()
    };
    let store = EmbeddedStore::open(&data_dir.store_dir(), store_settings)?;
    Ok((data_dir, Arc::new(log), Arc::new(store)))
}

/// Where each partition ends, which is never before what the store holds.
async fn ends(
    settings: &Settings,
    log: &EmbeddedLog,
    store: &EmbeddedStore,
) -> Result<Vec<u64>, AppError> {
    let mut ends = Vec::new();
    for partition in 0..log.partitions() {
        let (end, applied) = (log.end(partition).await?, store.applied(partition));
        if applied > end {
            let data_dir = settings.data_dir.display().to_string();
            return Err(AppError::LogBehindStore { data_dir, partition, end, applied });
        }
        ends.push(end);
    }
    Ok(ends)
}

/// The greatest post id given out so far, as far as anything durable tells: the
/// store knows it up to where its events end, the log from there on.
async fn greatest_post(
    log: &EmbeddedLog,
    store: &EmbeddedStore,
) -> Result<Option<PostId>, AppError> {
    const BATCH_BYTES_MAX: usize = 1 << 20;
    let mut greatest = store.greatest_post().await?;
    for partition in 0..log.partitions() {
        let mut offset = store.applied(partition);
        loop {
            let records = log.read(partition, offset, BATCH_BYTES_MAX).await?;
            let Some(last) = records.last() else { break };
            offset = last.offset + 1;
            for record in records {
                if let Event::PostPublished { post, .. } = codec::decode(&record.payload)? {
                    greatest = greatest.max(Some(post.id));
                }
            }
        }
    }
    Ok(greatest)
}

fn system_clock() -> Clock {
    Arc::new(|| {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since_1970.as_millis() as u64
    })
}
