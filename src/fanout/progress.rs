//! How far the workers have come, for all who wait for them.

use tokio::sync::watch;

/// The positions of all partitions.
#[derive(Debug)]
pub struct Progress {
    partitions: Vec<watch::Sender<Position>>,
}

/// How far one partition has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Below it, every event holds in reads; large fan-outs may be under way.
    pub applied: u64,
    /// Below it, every event has reached every timeline it must reach.
    pub delivered: u64,
}

impl Progress {
    /// The positions before anything has been done.
    pub fn new(partitions: u32) -> Self {
        let partitions = (0..partitions).map(|_| watch::Sender::default()).collect();
        Self { partitions }
    }

    /// How far a partition has come.
    pub fn position(&self, partition: u32) -> Position {
        *self.partitions[partition as usize].borrow()
    }

    /// Waits until every event of the partition below `offset` is applied.
    pub async fn wait_applied(&self, partition: u32, offset: u64) {
        let mut position = self.partitions[partition as usize].subscribe();
        // The sender lives as long as `self`, so this ends when the condition holds.
        let _ = position.wait_for(|position| position.applied >= offset).await;
    }

    /// Waits until every event of the partition below `offset` is delivered.
    pub async fn wait_delivered(&self, partition: u32, offset: u64) {
        let mut position = self.partitions[partition as usize].subscribe();
        let _ = position.wait_for(|position| position.delivered >= offset).await;
    }

    pub(super) fn publish(&self, partition: u32, position: Position) {
        self.partitions[partition as usize].send_if_modified(|current| {
            let changed = *current != position;
            *current = position;
            changed
        });
    }
}
