//! What is reported of a load.

use std::sync::atomic::Ordering;

use super::Load;
use crate::{
    load::{Report, delivery::DeliveryMeter, report::LatencyReport},
    proto::v1::GetStatusResponse,
};

impl Load {
    /// A report of nothing yet.
    pub(super) fn empty_report(&self, status: &GetStatusResponse) -> Report {
        Report {
            settings: self.settings.clone(),
            server_version: status.version.clone(),
            run: self.workload.run.clone(),
            interrupted: false,
            users: self.workload.graph.user_count().into(),
            follows: 0,
            import_seconds: 0.0,
            woken_readers: 0,
            wake_seconds: 0.0,
            posts_planned: self.workload.post_count().into(),
            posts: 0,
            churn_follows: 0,
            churn_unfollows: 0,
            churn_deletions: 0,
            switches: 0,
            hides: 0,
            messages: 0,
            message_deletions: 0,
            publish_seconds: 0.0,
            delivered_seconds: 0.0,
            deliveries: 0,
            skipped_deliveries: 0,
            pushes: 0,
            reconnects: 0,
            server_restarts: 0,
            latencies: LatencyReport::default(),
            unwatched_posts: 0,
            missed_posts: 0,
            failed_reads: 0,
            wrong_reads: 0,
            verification: None,
        }
    }

    /// Fills in what is counted while it publishes.
    pub(super) fn fill_in(&self, report: &mut Report, meter: &DeliveryMeter) {
        let churned = &self.churning.counts;
        report.churn_follows = churned.follows.load(Ordering::Relaxed);
        report.churn_unfollows = churned.unfollows.load(Ordering::Relaxed);
        report.churn_deletions = churned.deletions.load(Ordering::Relaxed);
        report.switches = churned.switches.load(Ordering::Relaxed);
        report.hides = churned.hides.load(Ordering::Relaxed);
        report.messages = churned.messages.load(Ordering::Relaxed);
        report.message_deletions = churned.message_deletions.load(Ordering::Relaxed);
        report.deliveries = meter.deliveries();
        report.skipped_deliveries = meter.skipped();
        report.pushes = meter.pushes();
        report.server_restarts = meter.restart_count();
        report.latencies.delivery = self.sightings.latencies.quantiles();
        report.latencies.home_ids = self.reads.ids_only.quantiles();
        report.latencies.home_posts = self.reads.hydrated.quantiles();
        report.missed_posts = self.sightings.missed_count.load(Ordering::Relaxed);
        report.wrong_reads = self.reads.wrong_count.load(Ordering::Relaxed);
        report.failed_reads = self.reads.failed_count.load(Ordering::Relaxed);
    }
}
