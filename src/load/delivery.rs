//! How far the fan-out has come, read from the server's own counters.

use crate::proto::v1::{GetStatusResponse, PartitionStatus};

/// Adds up the server's delivery counters over its restarts.
#[derive(Debug, Default)]
pub(super) struct DeliveryMeter {
    last: Option<Counters>,
    deliveries: u64,
    pushes: u64,
    skipped: u64,
    /// How often the counters fell, which they do when the server restarts. What
    /// was delivered between the last look and the end of the old process is not
    /// counted.
    restart_count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Counters {
    deliveries: u64,
    pushes: u64,
    skipped: u64,
    events: u64,
}

impl DeliveryMeter {
    /// Takes a look. What happened before the first one does not count.
    pub(super) fn look(&mut self, status: &GetStatusResponse) {
        let fanout = status.fanout.unwrap_or_default();
        let now = Counters {
            deliveries: fanout.deliveries,
            pushes: fanout.pushes,
            skipped: fanout.skipped_deliveries,
            events: fanout.events,
        };
        if let Some(last) = self.last {
            let restarted = now.events < last.events || now.deliveries < last.deliveries;
            self.restart_count += u32::from(restarted);
            let delta =
                |now: u64, last: u64| if restarted { now } else { now.saturating_sub(last) };
            self.deliveries += delta(now.deliveries, last.deliveries);
            self.pushes += delta(now.pushes, last.pushes);
            self.skipped += delta(now.skipped, last.skipped);
        }
        self.last = Some(now);
    }

    pub(super) fn deliveries(&self) -> u64 {
        self.deliveries
    }

    pub(super) fn pushes(&self) -> u64 {
        self.pushes
    }

    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    pub(super) fn restart_count(&self) -> u32 {
        self.restart_count
    }
}

/// How many events lie between what has been delivered and `ends`, the ends of the
/// partitions at some earlier time.
pub(super) fn undelivered(ends: &[PartitionStatus], now: &[PartitionStatus]) -> u64 {
    ends.iter()
        .map(|end| {
            let delivered = now
                .iter()
                .find(|partition| partition.partition == end.partition)
                .map_or(0, |partition| partition.delivered_offset);
            end.end_offset.saturating_sub(delivered)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::FanoutCounters;

    fn status(events: u64, deliveries: u64) -> GetStatusResponse {
        let fanout = FanoutCounters { deliveries, events, ..FanoutCounters::default() };
        GetStatusResponse { fanout: Some(fanout), ..GetStatusResponse::default() }
    }

    #[test]
    fn deliveries_add_up_over_a_restart() {
        let mut meter = DeliveryMeter::default();
        for (events, deliveries) in [(10, 1_000), (20, 1_500), (3, 40), (5, 60)] {
            meter.look(&status(events, deliveries));
        }
        assert_eq!((meter.deliveries(), meter.restart_count()), (560, 1));
    }

    #[test]
    fn everything_is_delivered_when_every_partition_has_passed_its_end() {
        let partition = |partition, end_offset, delivered_offset| PartitionStatus {
            partition,
            end_offset,
            delivered_offset,
            ..PartitionStatus::default()
        };
        let ends = [partition(0, 5, 0), partition(1, 7, 7)];
        assert_eq!(undelivered(&ends, &ends), 5);
        assert_eq!(undelivered(&ends, &[partition(1, 9, 7), partition(0, 9, 6)]), 0);
        assert_eq!(undelivered(&ends, &[]), 12);
    }
}
