//! How far the workers have come, for all who wait for them.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::{domain::PostId, store::Resume};

/// The positions of all partitions.
///
/// Those who wait are woken in the order in which they came, which a watch
/// channel does not do: a simulation must be able to run twice in the same way.
#[derive(Debug)]
pub struct Progress {
    partitions: Vec<Partition>,
    watcher: Watcher,
}

/// Who is told of posts that have reached every timeline they must reach, if anybody.
struct Watcher(Option<Box<TellPosts>>);

type TellPosts = dyn Fn(&[PostId]) + Send + Sync;

#[derive(Debug, Default)]
struct Partition {
    position: Mutex<Position>,
    changed: Notify,
}

/// How far one partition has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Below it, every event holds in reads; large fan-outs may be under way.
    pub applied: u64,
    /// Below it, every event has reached every timeline it must reach.
    pub delivered: u64,
}

/// As a worker of another process has told the store.
impl From<Resume> for Position {
    fn from(marks: Resume) -> Self {
        Self { applied: marks.shown, delivered: marks.delivered.unwrap_or_default() }
    }
}

impl Progress {
    /// The positions before anything has been done.
    pub fn new(partitions: u32) -> Self {
        let partitions = (0..partitions).map(|_| Partition::default()).collect();
        Self { partitions, watcher: Watcher(None) }
    }

    /// The same, and tells `watcher` of posts as soon as each has reached every timeline
    /// it must reach: for who measures that moment. Workers wait while it is told.
    pub fn watched(partitions: u32, watcher: impl Fn(&[PostId]) + Send + Sync + 'static) -> Self {
        Self { watcher: Watcher(Some(Box::new(watcher))), ..Self::new(partitions) }
    }

    /// How far a partition has come.
    pub fn position(&self, partition: u32) -> Position {
        self.partitions[partition as usize].position()
    }

    /// Waits until every event of the partition below `offset` is applied.
    pub async fn wait_applied(&self, partition: u32, offset: u64) {
        self.partitions[partition as usize].wait(|position| position.applied >= offset).await;
    }

    /// Waits until every event of the partition below `offset` is delivered.
    pub async fn wait_delivered(&self, partition: u32, offset: u64) {
        self.partitions[partition as usize].wait(|position| position.delivered >= offset).await;
    }

    /// Waits until of every partition all events below its end are applied.
    ///
    /// For one partition after the other, so that a simulation goes the same way twice.
    pub async fn wait_all_applied(&self, ends: &[u64]) {
        for (partition, end) in (0..).zip(ends) {
            self.wait_applied(partition, *end).await;
        }
    }

    /// The same until they are delivered.
    pub async fn wait_all_delivered(&self, ends: &[u64]) {
        for (partition, end) in (0..).zip(ends) {
            self.wait_delivered(partition, *end).await;
        }
    }

    /// Takes note of how far a worker of another process has come; what is known
    /// already of this one's stays.
    pub fn advance(&self, partition: u32, position: Position) {
        self.change(partition, |known| Position {
            applied: position.applied.max(known.applied),
            delivered: position.delivered.max(known.delivered),
        });
    }

    /// Takes note that the store has lost some of what was known of a partition.
    pub fn go_back(&self, partition: u32, position: Position) {
        self.publish(partition, position);
    }

    /// These posts have reached every timeline they must reach.
    pub(super) fn reached_all(&self, posts: &[PostId]) {
        if let Watcher(Some(watcher)) = &self.watcher {
            watcher(posts);
        }
    }

    pub(super) fn publish(&self, partition: u32, position: Position) {
        self.change(partition, |_| position);
    }

    fn change(&self, partition: u32, next: impl FnOnce(Position) -> Position) {
        let partition = &self.partitions[partition as usize];
        let mut current = partition.position.lock().unwrap_or_else(PoisonError::into_inner);
        let position = next(*current);
        let changed = *current != position;
        *current = position;
        drop(current);
        if changed {
            partition.changed.notify_waiters();
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watcher").field(&self.0.is_some()).finish()
    }
}

impl Partition {
    fn position(&self) -> Position {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn wait(&self, is_reached: impl Fn(Position) -> bool) {
        loop {
            // Before the look: a change that comes after it is not missed.
            let changed = self.changed.notified();
            if is_reached(self.position()) {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, pin_mut};

    use super::*;

    #[test]
    fn all_are_waited_for_in_whatever_order_they_come() {
        let progress = Progress::new(3);
        let (applied, delivered) =
            (progress.wait_all_applied(&[2, 0, 5]), progress.wait_all_delivered(&[2, 0, 5]));
        pin_mut!(applied, delivered);
        let mut come = |partition, applied_to, delivered_to| {
            let position = Position { applied: applied_to, delivered: delivered_to };
            progress.advance(partition, position);
            (applied.as_mut().now_or_never().is_some(), delivered.as_mut().now_or_never().is_some())
        };
        assert_eq!(come(2, 5, 5), (false, false));
        assert_eq!(come(0, 1, 1), (false, false));
        assert_eq!(come(1, 9, 9), (false, false));
        assert_eq!(come(0, 2, 1), (true, false));
    }
}
