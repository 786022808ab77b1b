//! How far the workers are behind the log, for the metrics: looked at again and again,
//! so that a scrape waits neither for brokers nor for a store.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    event_log::EventLog,
    fanout::Progress,
    telemetry::{LagMetrics, Partition},
};

const INTERVAL: Duration = Duration::from_secs(1);

/// Keeps these metrics up until it is told to stop.
pub(super) async fn watch<L: EventLog>(
    log: Arc<L>,
    progress: Arc<Progress>,
    metrics: LagMetrics,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = look(&*log, &progress, &metrics) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn look(log: &impl EventLog, progress: &Progress, metrics: &LagMetrics) {
    for number in 0..log.partitions() {
        // While the log does not answer, what was seen last stands.
        let Ok(end) = log.end(number).await else { return };
        let position = progress.position(number);
        let partition = Partition { partition: number };
        let behind = |offset: u64| end.saturating_sub(offset) as i64;
        metrics.log_end_offset.get_or_create(&partition).set(end as i64);
        metrics.apply_lag_events.get_or_create(&partition).set(behind(position.applied));
        metrics.delivery_lag_events.get_or_create(&partition).set(behind(position.delivered));
    }
}
