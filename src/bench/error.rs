//! Why a bench has no figures.

use std::{io, path::PathBuf};

use tokio::task::JoinError;

use crate::{
    app::AppError,
    client::ClientError,
    event_log::LogError,
    fanout::FanoutError,
    home_timeline::ReadError,
    load::LoadError,
    store::{
        StoreError,
        redis::{config::RedisConfigError, error::NodeError},
    },
    writes::WriteError,
};

/// Why a bench ended without its figures.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A directory for the bench's own data could not be made.
    #[error("the bench's data directory cannot be made: {0}")]
    Dir(io::Error),
    /// Something of the bench's own data is still there.
    #[error("{} could not be removed: {source}; remove it", dir.display())]
    Left {
        /// Which directory.
        dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No server could be started.
    #[error(
        "redis-server cannot be started: {0}; install Redis (Debian: redis-server), or give one \
         that runs and is empty with --redis"
    )]
    NoRedis(io::Error),
    /// No broker could be started.
    #[error(
        "Kafka cannot be started: {0}; it needs Java 17 and Kafka's jars (`deploy/services up \
         kafka` fetches them); or give one that runs with --kafka, or measure on the embedded \
         log with --embedded-log"
    )]
    NoKafka(io::Error),
    /// The Redis that was given holds something.
    #[error("this Redis holds keys, and the bench empties what it measures; give it an empty one")]
    RedisInUse,
    /// Redis did not free the memory of what was dropped.
    #[error("Redis has not given back the memory of what was dropped; see its log")]
    NotEmptied,
    /// Connections broke while something was measured.
    #[error("Redis went away during a measurement; see its log, and run the bench again")]
    RedisWentAway,
    /// The address of Redis cannot be used.
    #[error(transparent)]
    RedisConfig(#[from] RedisConfigError),
    /// Redis said no.
    #[error(transparent)]
    Redis(#[from] NodeError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A timeline could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The event log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A part of a Roost in this process did not start, or failed.
    #[error(transparent)]
    App(#[from] AppError),
    /// A post could not be published.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Nothing can be listened on.
    #[error("nothing can listen on loopback: {0}")]
    Listen(io::Error),
    /// A call of an API in this process failed.
    #[error(transparent)]
    Call(#[from] ClientError),
    /// The bare producer failed.
    #[error("the bare producer failed: {0}; see the log of Kafka")]
    Producer(rdkafka::error::KafkaError),
    /// Not all streams could be opened.
    #[error(
        "only {connected} of {streams} streams were open after {seconds} s; ask for fewer with \
         --streams"
    )]
    NotConnected {
        /// Open ones.
        connected: u64,
        /// Those that were asked for.
        streams: u32,
        /// How long it was waited.
        seconds: u64,
    },
    /// A post was refused.
    #[error("a post was refused: {0}")]
    Refused(String),
    /// Some of what was published has no acknowledgement.
    #[error("some posts were not acknowledged; see the log of Kafka, and run the bench again")]
    Unacknowledged,
    /// A worker failed.
    #[error(transparent)]
    Fanout(#[from] FanoutError),
    /// The load could not be planned or run.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The raw connection broke.
    #[error("the connection for the raw limit broke: {0}")]
    Ceiling(io::Error),
    /// A report could not be written.
    #[error("the report {} cannot be written: {source}", path.display())]
    Report {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A task panicked.
    #[error("a part of the bench has panicked, which is a bug of Roost; see the messages above")]
    Panicked,
}

impl BenchError {
    /// Why workers ended that were not told to.
    pub(super) fn of_workers(ended: Result<Result<(), FanoutError>, JoinError>) -> Self {
        match ended {
            Ok(Err(error)) => error.into(),
            Ok(Ok(())) | Err(_) => Self::Panicked,
        }
    }
}
