//! One Roost in one process: which parts there are and how they are joined. The
//! only file that names the backends.
//!
//! ```text
//!  data directory ──► log ──► workers (threads of their own) ──► store
//!                      ▲                                           │
//!                      └────────────── gRPC ◄──────────────────────┘
//! ```

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::future;
use tokio::{
    net::TcpListener,
    runtime::{Handle, Runtime},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::server::TcpIncoming};

use crate::{
    data_dir::{DataDir, DataDirError},
    domain::{Event, PostId},
    event_log::{
        EventLog, LogError,
        codec::{self, CodecError},
        embedded::{self as embedded_log, EmbeddedLog},
    },
    fanout::{self, Counters, FanoutError, Progress, WorkerPool},
    grpc::{self, Api, Gate, Limits},
    home_timeline::HomeTimelines,
    post_id::PostIds,
    store::{
        Lookups, StoreError,
        embedded::{self as embedded_store, EmbeddedStore},
    },
    writes::{self, Clock, Writes},
};

/// How often a start says how far it has come.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// How a Roost runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where everything is kept. Made where it does not exist.
    pub data_dir: PathBuf,
    /// The address of the gRPC API. Port 0 lets the system choose one.
    pub listen: SocketAddr,
    /// How many partitions the event log has. `None` takes what is there, or the
    /// default for a new one; another number than what is there is an error.
    pub partitions: Option<u32>,
    /// CAP: how many posts a home timeline shows.
    pub home_timeline_cap: usize,
    /// The longest text of a post, in Unicode scalar values.
    pub text_chars_max: usize,
    /// Threads that the workers share.
    pub worker_threads: usize,
    /// How long a stop waits for calls under way.
    pub drain_max: Duration,
}

impl Settings {
    /// The defaults, for this data directory and address.
    pub fn new(data_dir: PathBuf, listen: SocketAddr) -> Self {
        let worker_threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            data_dir,
            listen,
            partitions: None,
            home_timeline_cap: 800,
            text_chars_max: 140,
            worker_threads,
            drain_max: Duration::from_secs(10),
        }
    }
}

/// Why a Roost did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The event log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A worker cannot go on.
    #[error(transparent)]
    Fanout(#[from] FanoutError),
    /// The store holds events that the log has lost.
    #[error(
        "the event log in {data_dir} ends at offset {end} of partition {partition}, and the store \
         holds events up to {applied}: the log has lost its end, or was replaced by an older one. \
         Restore log/ from a backup; or, to go on without what is lost, move store/ away"
    )]
    LogBehindStore {
        /// The data directory.
        data_dir: String,
        /// Which partition.
        partition: u32,
        /// Where the log ends.
        end: u64,
        /// Where the store's events end.
        applied: u64,
    },
    /// The end of the log is not readable.
    #[error("the end of the event log is not readable: {0}")]
    Event(#[from] CodecError),
    /// The address cannot be listened on.
    #[error(
        "{address} is in use: another roost or another program listens there; stop it, or \
         choose another address with --listen"
    )]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The gRPC server failed.
    #[error("the gRPC server failed: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// The reflection service cannot be built.
    #[error("the gRPC reflection service failed: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The system gives no threads.
    #[error("the worker threads did not start: {0}")]
    Threads(io::Error),
    /// A part of the process panicked; the log says where.
    #[error("a part of the server panicked, see the log above; please report it")]
    Panicked,
}

/// A Roost that serves.
pub struct App {
    server: Server,
    engine: Engine,
}

impl App {
    /// Opens everything, lets the workers apply what they had not, and serves. Until
    /// then calls are answered UNAVAILABLE, and health says NOT_SERVING.
    pub async fn start(settings: Settings) -> Result<Self, AppError> {
        // First what fails most often, and before anything on disk is touched.
        let server = Server::start(&settings).await?;
        match Engine::start(&settings, &server.gate).await {
            Ok(engine) => {
                server.gate.open(engine.routes()?).await;
                Ok(Self { server, engine })
            }
            Err(error) => {
                server.stop(Duration::ZERO).await;
                Err(error)
            }
        }
    }

    /// The address of the gRPC API.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Waits until a part of it has failed, which is why it should stop.
    pub async fn failed(&mut self) -> AppError {
        tokio::select! {
            error = self.engine.failed() => error,
            error = self.server.failed() => error,
        }
    }

    /// Takes no more calls, finishes those under way as far as there is time,
    /// commits what the workers have done, and closes the log.
    pub async fn stop(self) -> Result<(), AppError> {
        self.server.stop(self.engine.settings.drain_max).await;
        self.engine.stop().await
    }
}

/// The gRPC server, with a gate before the services.
struct Server {
    address: SocketAddr,
    gate: Gate,
    stop: CancellationToken,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Server {
    async fn start(settings: &Settings) -> Result<Self, AppError> {
        let listener = listen(settings.listen).await?;
        let address = listener
            .local_addr()
            .map_err(|source| AppError::Listen { address: settings.listen, source })?;
        let (gate, routes) = Gate::new().await;
        let stop = CancellationToken::new();
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(8 << 20)
            .max_concurrent_streams(1_000)
            .http2_keepalive_interval(Some(Duration::from_secs(60)))
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                stop.clone().cancelled_owned(),
            );
        Ok(Self { address, gate, stop, task: tokio::spawn(server) })
    }

    async fn failed(&mut self) -> AppError {
        match (&mut self.task).await {
            Ok(Err(error)) => error.into(),
            _ => AppError::Panicked,
        }
    }

    async fn stop(mut self, drain_max: Duration) {
        self.gate.close().await;
        self.stop.cancel();
        // One that is finished was awaited already: `failed` has said what it said.
        if !self.task.is_finished()
            && tokio::time::timeout(drain_max, &mut self.task).await.is_err()
        {
            if !drain_max.is_zero() {
                tracing::warn!("calls were still under way when the time to drain them was over");
            }
            self.task.abort();
        }
    }
}

/// The log, the store, and the workers between them.
struct Engine {
    settings: Settings,
    log: Arc<EmbeddedLog>,
    store: Arc<EmbeddedStore>,
    progress: Arc<Progress>,
    counters: Arc<Counters>,
    /// The greatest post id given out before the start.
    greatest_post: Option<PostId>,
    stop_workers: CancellationToken,
    workers: JoinHandle<Result<(), FanoutError>>,
    _worker_threads: WorkerThreads,
    // Last, so that the lock is given back when all else is gone.
    _data_dir: DataDir,
}

impl Engine {
    /// Opens everything, and applies what is in the log.
    async fn start(settings: &Settings, gate: &Gate) -> Result<Self, AppError> {
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
            workers,
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

    fn routes(&self) -> Result<Routes, AppError> {
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

    async fn failed(&mut self) -> AppError {
        match (&mut self.workers).await {
            Ok(Err(error)) => error.into(),
            _ => AppError::Panicked,
        }
    }

    async fn stop(self) -> Result<(), AppError> {
        // One that has ended was awaited already: `failed` has said what it said.
        let workers = (!self.workers.is_finished()).then_some(self.workers);
        self.stop_workers.cancel();
        let result = match workers {
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

async fn listen(address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => AppError::AddressInUse { address },
        _ => AppError::Listen { address, source },
    })
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
