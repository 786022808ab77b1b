//! One Roost in one process: which parts there are and how they are joined. Only
//! `engine` names the backends.
//!
//! ```text
//!  data directory ──► log ──► workers (threads of their own) ──► store
//!                      ▲                                           │
//!                      └────────────── gRPC ◄──────────────────────┘
//! ```

mod clock_watch;
mod disk_watch;
mod engine;
mod follow;
mod lag;
mod rebuild;
mod server;
mod supervisor;
mod waits;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use futures::future;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::rebuild::{RebuildStep, Rebuilt, rebuild};
use self::{engine::Engine, server::Server};
pub(crate) use self::{engine::WorkerThreads, server::serve_grpc};
use crate::{
    data_dir::DataDirError,
    event_log::{LogError, codec::CodecError, kafka},
    fanout::{FanoutError, PULL_ABOVE_DEFAULT, PullRule, SETTLED_AFTER_DEFAULT},
    free_space::DISK_RESERVE_BYTES_DEFAULT,
    listener::ConnectionTimes,
    post_id::CLOCK_JUMP_MAX_DEFAULT,
    store::{self, StoreError, redis::config::RedisConfig},
    telemetry::Metrics,
    writes::{self, Clock, system_clock},
};

/// How a Roost runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where everything is kept.
    pub backend: Backend,
    /// What this process does.
    pub roles: Roles,
    /// The address of the gRPC API. Port 0 lets the system choose one.
    pub listen: SocketAddr,
    /// Where metrics, liveness and readiness are answered over HTTP, if anywhere. Port 0
    /// lets the system choose one.
    pub metrics_listen: Option<SocketAddr>,
    /// CAP: how many posts a home timeline shows.
    pub home_timeline_cap: usize,
    /// When authors are pulled because of how many follow them.
    pub pull_rule: PullRule,
    /// The longest text of a post, in Unicode scalar values.
    pub text_chars_max: usize,
    /// Accounts that one may follow.
    pub followees_max: u64,
    /// Home timeline streams that a process has at once.
    pub home_streams_max: usize,
    /// Threads that the workers share.
    pub worker_threads: usize,
    /// What time it is.
    pub clock: Clock,
    /// How far the newest post may be dated after the clock, and the clock may jump ahead,
    /// before nothing is published any more.
    pub clock_jump_max: Duration,
    /// With less free space than this, in bytes, an embedded server writes nothing; 0 is none.
    pub disk_reserve_bytes: u64,
    /// After so long a post that was made is in the log, or never will be. Less, and a stream
    /// may miss one that took longer.
    pub settled_after: Duration,
    /// A home timeline that nobody has read for so long leaves memory, and is made anew at the
    /// next read.
    pub idle_max: Duration,
    /// How often a live timeline is audited, where there are workers; never, if `None`.
    pub audit_every: Option<Duration>,
    /// How long a stop waits for calls under way.
    pub drain_max: Duration,
    /// How many connections there may be, and how long they may take.
    pub connections: ConnectionLimits,
}

/// How many connections of clients a process has, and how long they may take.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionLimits {
    /// Connections to the API; `None`, or more than the process has file descriptors for: as
    /// many as it has, and 8,192 at the most.
    pub max: Option<usize>,
    /// Of these, from one address; `None`: half of them.
    pub peer_max: Option<usize>,
    /// How long a connection may take for what.
    pub times: ConnectionTimes,
}

/// Where everything is kept.
#[derive(Clone, Debug)]
pub enum Backend {
    /// On the local disk, and nothing beside this process.
    Embedded {
        /// Made where it does not exist.
        data_dir: PathBuf,
        /// How many partitions the event log has. `None` takes what is there, or the
        /// default for a new one; another number than what is there is an error.
        partitions: Option<u32>,
    },
    /// In Kafka and Redis, which any number of processes share.
    Shared {
        /// The event log.
        kafka: Box<kafka::Settings>,
        /// The store.
        redis: Arc<RedisConfig>,
    },
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// It answers calls.
    pub api: bool,
    /// It fans out.
    pub worker: bool,
}

impl Default for Roles {
    /// Everything.
    fn default() -> Self {
        Self { api: true, worker: true }
    }
}

impl Settings {
    /// The defaults, for this data directory and address.
    pub fn new(data_dir: PathBuf, listen: SocketAddr) -> Self {
        Self {
            backend: Backend::Embedded { data_dir, partitions: None },
            roles: Roles::default(),
            listen,
            metrics_listen: None,
            home_timeline_cap: store::HOME_TIMELINE_CAP_DEFAULT,
            pull_rule: PullRule { above: Some(PULL_ABOVE_DEFAULT) },
            text_chars_max: writes::TEXT_CHARS_MAX_DEFAULT,
            followees_max: writes::FOLLOWEES_MAX_DEFAULT,
            home_streams_max: HOME_STREAMS_MAX_DEFAULT,
            worker_threads: worker_threads_default(),
            clock: system_clock(),
            clock_jump_max: CLOCK_JUMP_MAX_DEFAULT,
            disk_reserve_bytes: DISK_RESERVE_BYTES_DEFAULT,
            settled_after: SETTLED_AFTER_DEFAULT,
            idle_max: store::IDLE_MAX_DEFAULT,
            audit_every: Some(AUDIT_EVERY_DEFAULT),
            drain_max: Duration::from_secs(10),
            connections: ConnectionLimits::default(),
        }
    }
}

/// Home timeline streams of a process unless something else is set: about a gigabyte of memory.
const HOME_STREAMS_MAX_DEFAULT: usize = 50_000;

/// How often a live timeline is audited unless something else is set.
const AUDIT_EVERY_DEFAULT: Duration = Duration::from_secs(1);

/// As many threads for the workers as the machine has.
pub(crate) fn worker_threads_default() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
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
    /// The topic is gone that the store was made from.
    #[error(
        "there is no topic {topic} in Kafka, though Redis holds what came from it: check the \
         brokers, or restore the topic. To begin a new log of this name, empty this Redis"
    )]
    LogGone {
        /// Its name.
        topic: String,
    },
    /// A worker cannot go on.
    #[error(transparent)]
    Fanout(#[from] FanoutError),
    /// The end of the log is not readable.
    #[error("the end of the event log is not readable: {0}")]
    Event(#[from] CodecError),
    /// Somebody else listens on the address.
    #[error(
        "{address} is in use: another roost or another program listens there; stop it, or \
         choose another address with {flag}"
    )]
    AddressInUse {
        /// The address.
        address: SocketAddr,
        /// What sets it.
        flag: &'static str,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The gRPC server, or that of the metrics, failed.
    #[error("a server of this process failed: {0}")]
    Serve(#[from] io::Error),
    /// The reflection service cannot be built.
    #[error("the gRPC reflection service failed: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The system gives no threads.
    #[error("the worker threads did not start: {0}")]
    Threads(io::Error),
    /// Two things are wrong.
    #[error("{0}; {1}")]
    Both(Box<AppError>, Box<AppError>),
    /// Somebody wanted it to stop before it served.
    #[error("it was stopped before it served")]
    Stopped,
    /// What a rebuild needs is away.
    #[error("{0}; nothing was changed: once that is mended, run `roost rebuild` again")]
    RebuildNotBegun(Box<AppError>),
    /// A rebuild met something that is away.
    #[error(
        "{0}; the store may not hold everything that it should: once that is mended, run \
         `roost rebuild` again, which begins again"
    )]
    RebuildBroken(Box<AppError>),
    /// Somebody wanted a rebuild to stop.
    #[error(
        "the rebuild was stopped, and the store does not hold everything that it should; run \
         `roost rebuild` again, which begins again"
    )]
    RebuildStopped,
    /// A background task returned though nothing had asked it to.
    #[error("the background task `{task}` ended by itself; please report it, with the log above")]
    TaskEnded {
        /// Its name.
        task: &'static str,
    },
    /// A background task panicked; the log says where.
    #[error("the background task `{task}` panicked, see the log above; please report it")]
    TaskPanicked {
        /// Its name.
        task: &'static str,
    },
    /// A part of the process panicked; the log says where.
    #[error("a part of the server panicked, see the log above; please report it")]
    Panicked,
}

impl AppError {
    /// The same, of a rebuild that has begun to change the store, or has not.
    fn of_rebuild(self, has_begun: bool) -> Self {
        match (self.may_pass(), has_begun) {
            (true, true) => Self::RebuildBroken(Box::new(self)),
            (true, false) => Self::RebuildNotBegun(Box::new(self)),
            (false, _) => self,
        }
    }

    /// Whether it is of something that is away, so that a later try may succeed.
    fn may_pass(&self) -> bool {
        match self {
            Self::Log(error) => matches!(error, LogError::Unavailable { .. }),
            Self::Store(error) => !error.is_final(),
            _ => false,
        }
    }
}

/// A Roost that serves.
pub struct App {
    server: Server,
    engine: Engine,
    drain_max: Duration,
}

impl App {
    /// Opens everything, lets the workers apply what they had not, and serves. Until
    /// then calls are answered UNAVAILABLE, and health says NOT_SERVING. Kafka and Redis
    /// are waited for while they are away.
    ///
    /// # Errors
    /// What trying again cannot mend, and [`AppError::Stopped`] once `stop` is cancelled.
    pub async fn start(settings: Settings, stop: &CancellationToken) -> Result<Self, AppError> {
        // First what fails most often, and before anything on disk is touched.
        let metrics = Metrics::default();
        let mut server = Server::start(&settings, &metrics).await?;
        match Engine::start(&settings, &server.gate, &metrics, stop).await {
            Ok(engine) => {
                let routes = engine.routes(&settings, &server.gate)?;
                server.gate.open(routes).await;
                Ok(Self { server, engine, drain_max: settings.drain_max })
            }
            Err(error) => {
                server.drain(Duration::ZERO).await;
                server.stop().await;
                Err(error)
            }
        }
    }

    /// The address of the gRPC API.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// The address of metrics, liveness and readiness, if they are answered.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.server.metrics_address
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
    pub async fn stop(mut self) -> Result<(), AppError> {
        self.server.drain(self.drain_max).await;
        let stopped = self.engine.stop().await;
        self.server.stop().await;
        stopped
    }
}

/// Waits until a part has ended, which it should not, and says why; for ever where
/// there is none, or where it has been said.
async fn ended<E: Into<AppError>>(task: &mut Option<JoinHandle<Result<(), E>>>) -> AppError {
    let Some(running) = task else { return future::pending().await };
    let ended = running.await;
    *task = None;
    match ended {
        Ok(Err(error)) => error.into(),
        _ => AppError::Panicked,
    }
}
