//! The store dropped and made again from the log.
//!
//! ```text
//!  lock, check ──► drop what is derived ──► workers, from offset 0 ──► all of it delivered
//! ```
//!
//! On disk the directory of the store goes. In Redis Roost's own keys go, one by one;
//! workers of other processes wait meanwhile, and then take their part of the log.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Engine, Parts, both, open, open_log, store_settings};
use crate::{
    app::{AppError, Backend, RebuildStep, Rebuilt, Settings},
    data_dir::DataDir,
    event_log::{EventLog, kafka},
    post_id::PostIds,
    store::{
        Store,
        redis::{self as redis_store, RedisStore},
    },
    telemetry::Metrics,
    writes::Memory,
};

/// How often it is looked how far it has come.
const INTERVAL: Duration = Duration::from_millis(100);

impl Engine {
    /// Drops the store, and starts workers on what is left: the log.
    pub(in crate::app) async fn start_emptied(
        settings: &Settings,
        tell: &mut (dyn FnMut(RebuildStep) + Send),
    ) -> Result<Self, AppError> {
        let metrics = Metrics::default();
        // Nothing is published from here.
        let (ids, memory) = (PostIds::new(0, None), Memory::perfect());
        match &settings.backend {
            Backend::Embedded { data_dir, partitions } => {
                let opened = tokio::task::spawn_blocking({
                    let (data_dir, partitions) = (data_dir.clone(), *partitions);
                    let home_timeline_cap = settings.home_timeline_cap;
                    move || {
                        DataDir::open_existing(&data_dir)?.remove_store()?;
                        open(&data_dir, partitions, home_timeline_cap)
                    }
                });
                let (lock, log, store) = opened.await.map_err(|_| AppError::Panicked)??;
                let mut parts = Parts::new(log, store, ids, memory, settings, &metrics)?;
                parts._data_dir = Some(lock);
                Ok(Self::Embedded(parts))
            }
            Backend::Shared { kafka, redis } => {
                let check = async { Ok(redis_store::check(redis).await?) };
                // There is nothing to rebuild from where there is no topic.
                let existing = kafka::Settings { create: false, ..kafka::Settings::clone(kafka) };
                let opened = both(open_log(&existing, &metrics), check).await;
                let (log, ()) = opened.map_err(|error| error.of_rebuild(false))?;
                let store = store_settings(&log, kafka, redis, settings, &metrics);
                let told = |keys| tell(RebuildStep::Dropped { keys });
                let emptied = RedisStore::open_emptied(store, told).await.map_err(AppError::from);
                let store = Arc::new(emptied.map_err(|error| error.of_rebuild(true))?);
                Ok(Self::Shared(Parts::new(log, store, ids, memory, settings, &metrics)?))
            }
        }
    }

    /// Waits until everything that is in the log now is delivered.
    pub(in crate::app) async fn deliver_all(
        &mut self,
        tell: &mut (dyn FnMut(RebuildStep) + Send),
        stop: &CancellationToken,
    ) -> Result<Rebuilt, AppError> {
        match self {
            Self::Embedded(parts) => parts.deliver_all(tell, stop).await,
            Self::Shared(parts) => parts.deliver_all(tell, stop).await,
        }
    }
}

impl<L: EventLog, S: Store> Parts<L, S> {
    async fn deliver_all(
        &mut self,
        tell: &mut (dyn FnMut(RebuildStep) + Send),
        stop: &CancellationToken,
    ) -> Result<Rebuilt, AppError> {
        let ends = self.log.ends().await?;
        let events: u64 = ends.iter().sum();
        loop {
            self.follow_others().await;
            let delivered = (0..).zip(&ends).map(|(partition, end)| {
                let position = self.progress.position(partition);
                position.delivered.min(*end)
            });
            let done = delivered.sum();
            tell(RebuildStep::Delivered { done, events });
            if done == events {
                return Ok(Rebuilt { events, partitions: ends.len() as u32 });
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(AppError::RebuildStopped),
                error = self.failed() => return Err(error),
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Takes note of how far the workers of other processes have come.
    async fn follow_others(&self) {
        match self.store.marks().await {
            Ok(marks) => {
                for (partition, now) in (0..).zip(marks) {
                    self.progress.advance(partition, now.into());
                }
            }
            // It is asked again in a moment.
            Err(error) => tracing::warn!(%error, "the store does not say how far it is"),
        }
    }
}
