//! The store made again from the log, without serving.

use tokio_util::sync::CancellationToken;

use super::{AppError, Roles, Settings, engine::Engine};

/// How far a rebuild has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildStep {
    /// So much of the old store is gone.
    Dropped {
        /// Keys of Redis.
        keys: u64,
    },
    /// So much of the log holds again and has reached every timeline.
    Delivered {
        /// Events, of all partitions together.
        done: u64,
        /// As many as there are.
        events: u64,
    },
}

/// What a rebuild did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Events that were applied.
    pub events: u64,
    /// Partitions that they were in.
    pub partitions: u32,
}

/// Drops everything that is derived from the log and makes it again, up to the end
/// that the log has when that begins. Whatever breaks it off, it can be begun again;
/// nothing but time is lost.
///
/// # Errors
/// If the store is in use by a server on the same disk, or is another log's, or if
/// `stop` is cancelled.
pub async fn rebuild(
    settings: Settings,
    tell: &mut (dyn FnMut(RebuildStep) + Send),
    stop: &CancellationToken,
) -> Result<Rebuilt, AppError> {
    let roles = Roles { api: false, worker: true };
    let settings = Settings { roles, metrics_listen: None, ..settings };
    let mut engine = tokio::select! {
        engine = Engine::start_emptied(&settings, tell) => engine?,
        () = stop.cancelled() => return Err(AppError::RebuildStopped),
    };
    let rebuilt = engine.deliver_all(tell, stop).await;
    let stopped = engine.stop().await;
    // What failed first says more than what fails on the way out.
    let rebuilt = rebuilt.map_err(|error| error.of_rebuild(true))?;
    stopped.map(|()| rebuilt)
}
