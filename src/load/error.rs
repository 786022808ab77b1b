//! What can go wrong in a load.

use std::{io, path::PathBuf, time::Duration};

use tonic::Status;

use super::{graph::TooManyAccounts, trace::TraceError};
use crate::client::{ClientError, edge_list::EdgeListError};

/// Why a load failed or ended early.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The settings contradict each other or pass a limit.
    #[error("{0}")]
    BadSettings(String),
    /// The server cannot be reached, refused a request or failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server has been away for longer than `--retry-for`.
    #[error(
        "the server has failed for {} s ({}); the same command goes on where this one stopped, \
         --retry-for waits longer",
        .patience.as_secs(),
        crate::client::status_line(.last)
    )]
    GaveUp {
        /// For how long it was retried.
        patience: Duration,
        /// What the last try said.
        last: Box<Status>,
    },
    /// The server does not say what it holds ready, with which timelines are compared.
    #[error(
        "the server says that it holds 0 posts of a home timeline ready, so that timelines \
         cannot be verified; leave out --verify"
    )]
    NothingHeldReady,
    /// The server refused a post that this program made.
    #[error("the server refused post number {number} of the load: {problem}")]
    PostRefused {
        /// Which post, from 0.
        number: u32,
        /// What the server said.
        problem: String,
    },
    /// The edge list cannot be used.
    #[error(transparent)]
    EdgeList(#[from] EdgeListError),
    /// The trace cannot be used.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The graph is too large.
    #[error(transparent)]
    TooManyAccounts(#[from] TooManyAccounts),
    /// The report cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Json {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The journal cannot be used.
    #[error("the journal {}: {problem}; another --journal begins anew", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The timelines differ from the model.
    #[error("{0} differences between the timelines and the model")]
    Differences(u64),
    /// Ctrl-C came before the end.
    #[error(
        "stopped before the timelines were verified; the same command goes on where this one \
         stopped"
    )]
    Interrupted,
    /// A background thread of this process died.
    #[error("a background task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl From<Status> for LoadError {
    fn from(status: Status) -> Self {
        Self::Client(status.into())
    }
}
