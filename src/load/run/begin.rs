//! What comes before the first post: the graph is imported, and readers wake.

use std::time::Instant;

use futures::StreamExt;
use tokio::time;

use super::Load;
use crate::{
    client::{
        ClientError, graph_import,
        progress::{REPORT_EVERY, Reporter},
    },
    load::{
        LoadError,
        probe::{channel_of, is_active},
        retry::{Backoff, retried},
    },
    proto::v1::{ListHomeTimelineRequest, timeline_service_client::TimelineServiceClient},
};

/// First reads that are under way at once when readers wake.
const WAKES_AT_ONCE: usize = 128;

impl Load {
    pub(super) async fn import_graph(
        &self,
        reporter: &mut impl Reporter,
    ) -> Result<u64, LoadError> {
        let graph = &self.workload.graph;
        let mut backoff = Backoff::new(self.settings.retry_for);
        reporter.begin("importing follows", Some(graph.follow_count_estimate()));
        let count = loop {
            // A broken import is repeated whole: importing twice changes nothing.
            let (channel, lists) = (self.channels[0].clone(), graph.follower_lists());
            match graph_import::import(channel, lists, reporter, self.stop.clone()).await {
                Ok(count) => break count,
                Err(ClientError::Refused(status)) => {
                    let wait = backoff.after(*status, Instant::now())?;
                    time::sleep(wait).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        reporter.end();
        if self.workload.skipped_follow_count > 0 {
            reporter.line(&format!(
                "left out of the graph: {} repeated follows or accounts following themselves",
                self.workload.skipped_follow_count
            ));
        }
        Ok(count)
    }

    /// Reads the home timelines of the active readers once, which makes them live.
    pub(super) async fn wake_readers(
        &self,
        reporter: &mut impl Reporter,
    ) -> Result<u64, LoadError> {
        let (seed, percent) = (self.workload.seed(), self.settings.active_percent);
        let users = self.workload.graph.user_count();
        reporter.begin("waking readers", Some(u64::from(users) * u64::from(percent) / 100));
        let mut wakes = futures::stream::iter(0..users)
            .filter(|reader| std::future::ready(is_active(seed, percent, *reader)))
            .map(|reader| {
                let timelines = TimelineServiceClient::new(channel_of(&self.channels, reader));
                let request = ListHomeTimelineRequest {
                    user_id: self.workload.graph.id(reader).0,
                    page_size: 1,
                    ids_only: true,
                    ..ListHomeTimelineRequest::default()
                };
                retried(self.settings.retry_for, move || {
                    let (mut timelines, request) = (timelines.clone(), request.clone());
                    async move { timelines.list_home_timeline(request).await }
                })
            })
            .buffer_unordered(WAKES_AT_ONCE);
        let mut woken = 0;
        let mut told = Instant::now();
        while let Some(wake) = wakes.next().await {
            wake?;
            woken += 1;
            if told.elapsed() >= REPORT_EVERY {
                told = Instant::now();
                reporter.advance(woken);
            }
        }
        reporter.advance(woken);
        reporter.end();
        Ok(woken)
    }
}
