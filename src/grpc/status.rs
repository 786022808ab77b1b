//! `roost.v1.StatusService`.

use futures::future;
use tonic::{Request, Response, Status};

use super::{Api, log_status};
use crate::{
    event_log::{EventLog, LogError},
    proto::v1,
    store::Store,
};

#[tonic::async_trait]
impl<L: EventLog, S: Store> v1::status_service_server::StatusService for Api<L, S> {
    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let partitions = (0..self.log.partitions()).map(async |partition| {
            let position = self.progress.position(partition);
            Ok::<_, LogError>(v1::PartitionStatus {
                partition,
                end_offset: self.log.end(partition).await?,
                applied_offset: position.applied,
                delivered_offset: position.delivered,
            })
        });
        let partitions =
            future::try_join_all(partitions).await.map_err(|error| log_status(&error))?;
        let fanout = v1::FanoutCounters {
            deliveries: self.fanout.deliveries.get(),
            skipped_deliveries: self.fanout.skipped_deliveries.get(),
            pushes: self.fanout.pushes.get(),
            events: self.fanout.events.get(),
        };
        let size = self.store.size().await?;
        let store = v1::StoreSize {
            accounts: size.accounts,
            follows: size.follows,
            live_timelines: size.live_timelines,
            timeline_entries: size.timeline_entries,
            timeline_bytes: size.timeline_bytes,
        };
        Ok(Response::new(v1::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            home_timeline_cap: self.limits.home_timeline_cap as u32,
            post_text_limit: self.limits.text_chars_max as u32,
            partitions,
            fanout: Some(fanout),
            store: Some(store),
        }))
    }
}
