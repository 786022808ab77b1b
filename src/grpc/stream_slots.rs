//! How many streams of home timelines a process has room for.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::telemetry::{CallMetrics, Held};

/// Room for streams. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct StreamSlots {
    free: Arc<Semaphore>,
    max: usize,
    metrics: Arc<CallMetrics>,
}

/// What a stream holds for as long as it is open.
pub(super) struct StreamSlot {
    _permit: OwnedSemaphorePermit,
    _open: Held,
}

impl StreamSlots {
    /// Room for so many; `metrics` say how many there are.
    pub fn new(max: usize, metrics: Arc<CallMetrics>) -> Self {
        Self { free: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))), max, metrics }
    }

    /// Takes room for one, if there is some.
    pub(super) fn take(&self) -> Result<StreamSlot, Status> {
        let permit = Arc::clone(&self.free).try_acquire_owned().map_err(|_| self.full())?;
        Ok(StreamSlot { _permit: permit, _open: Held::new(&self.metrics.home_streams, 1) })
    }

    fn full(&self) -> Status {
        Status::resource_exhausted(format!(
            "this process has as many home timeline streams as it may, {}: open it on another \
             process with an API, or later; its operator sets --home-stream-limit",
            self.max
        ))
    }
}
