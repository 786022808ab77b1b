//! The event log: the truth from which everything else can be rebuilt.
//!
//! It is cut into partitions. Within one, events have consecutive offsets from 0
//! and are read in the order in which they were appended. [`partition_of`] says
//! which partition an account's events belong to.
//!
//! ```text
//! append ──► durable ──► acknowledged ──► read ──► commit
//! ```
//!
//! [`embedded`] keeps it on local disk, in one process; [`kafka`] in a topic of
//! Apache Kafka, which many processes share.

pub mod codec;
pub mod embedded;
pub mod kafka;

use std::future::Future;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::domain::UserId;

/// One entry of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition.
    pub offset: u64,
    /// The event, as [`codec::encode`] wrote it.
    pub payload: Bytes,
}

/// A durable, partitioned, append-only log.
///
/// Partitions are numbered from 0; another number is a bug of the caller, and
/// may panic.
pub trait EventLog: Send + Sync + 'static {
    /// How many partitions there are. Fixed when the log is made.
    fn partitions(&self) -> u32;

    /// Appends `payloads` to a partition in their order, and returns their offsets,
    /// ascending, once they are durable. What others append may come between them.
    ///
    /// On an error none, some or all of them may have been appended; those that
    /// were not acknowledged may or may not be read later.
    fn append(
        &self,
        partition: u32,
        payloads: Vec<Bytes>,
    ) -> impl Future<Output = Result<Vec<u64>, LogError>> + Send;

    /// Reads acknowledged records from `from` on: at least one where there is
    /// one, and no more than about `bytes_max` bytes of payload. Empty at the end.
    ///
    /// Of what other processes have appended, those records are sure to be read that
    /// [`end`](Self::end) or [`wait_past`](Self::wait_past) has told of here.
    fn read(
        &self,
        partition: u32,
        from: u64,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<Record>, LogError>> + Send;

    /// One past the last acknowledged record: of all writers, at some moment after
    /// the call.
    fn end(&self, partition: u32) -> impl Future<Output = Result<u64, LogError>> + Send;

    /// The end of a partition that is known to have reached `offset`. A log of several
    /// nodes answers an earlier end only once its nodes have said so for long enough: a
    /// single answer may come from a node that has been replaced and does not know it yet.
    fn end_reaching(
        &self,
        partition: u32,
        offset: u64,
    ) -> impl Future<Output = Result<u64, LogError>> + Send {
        let _ = offset;
        self.end(partition)
    }

    /// The ends of all partitions.
    fn ends(&self) -> impl Future<Output = Result<Vec<u64>, LogError>> + Send {
        async {
            let mut ends = Vec::new();
            for partition in 0..self.partitions() {
                ends.push(self.end(partition).await?);
            }
            Ok(ends)
        }
    }

    /// Waits until the partition's end is greater than `offset`, up to which it has been
    /// read: an end before it is one that the log has lost. An error once that is so, and
    /// once the log is closed or has failed and it never will be.
    fn wait_past(
        &self,
        partition: u32,
        offset: u64,
    ) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Where a worker that starts now resumes: the offset last committed, or 0.
    fn committed(&self, partition: u32) -> impl Future<Output = Result<u64, LogError>> + Send;

    /// Remembers durably that every record below `offset` has been dealt with.
    /// An `offset` below the one last committed says nothing new and changes
    /// nothing; one beyond the end is [`LogError::BeyondEnd`].
    fn commit(
        &self,
        partition: u32,
        offset: u64,
    ) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Takes no more, and waits until everything that was taken is durable. From then
    /// on appends answer [`LogError::Closed`].
    fn close(&self) -> impl Future<Output = ()> + Send;

    /// Joins the workers that share the partitions among them, and says from then
    /// on which of them are this process's. To be called once.
    fn join(&self) -> Assignments;
}

/// Which partitions a process works on, as it changes.
#[derive(Debug)]
pub struct Assignments(mpsc::Receiver<Assignment>);

impl Assignments {
    /// Assignments that are sent by whoever holds the other end.
    pub fn new(changes: mpsc::Receiver<Assignment>) -> Self {
        Self(changes)
    }

    /// Those of a log that has one process: all partitions, for ever.
    pub fn all(partitions: u32) -> Self {
        let (sender, changes) = mpsc::channel(partitions.max(1) as usize);
        for partition in 0..partitions {
            // There is room for all of them.
            let _ = sender.try_send(Assignment::Given { partition });
        }
        Self(changes)
    }

    /// The next change; `None` once there will be no more.
    pub async fn next(&mut self) -> Option<Assignment> {
        self.0.recv().await
    }
}

/// A change of what a process works on.
#[derive(Debug)]
pub enum Assignment {
    /// From now on the partition is this process's, and nobody else's.
    Given {
        /// Which one.
        partition: u32,
    },
    /// The partition goes to another process, which is waiting: finish what is in
    /// hand, commit, then say so. Dropping `released` says so too.
    Withdrawn {
        /// Which one.
        partition: u32,
        /// Where to say it.
        released: oneshot::Sender<()>,
    },
    /// The partition has gone to another process already: stop at once, and do not
    /// commit.
    Lost {
        /// Which one.
        partition: u32,
    },
    /// This process can be no worker any more, so that no change comes after this one.
    Over {
        /// Why.
        error: LogError,
    },
}

/// The partition of an account's events. Every node must agree on it for ever,
/// so it is spelled out here: the high bits of a multiplicative hash
/// (Fibonacci hashing, Knuth, TAOCP 3, 6.4), scaled to the count.
pub fn partition_of(key: UserId, partitions: u32) -> u32 {
    let hash = key.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    ((hash * u64::from(partitions)) >> 32) as u32
}

/// Why the log could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// What is on disk cannot be right, and it is not the torn end of an
    /// interrupted write.
    #[error("{file} is corrupt at byte {position}: {reason}; {advice}")]
    Corrupt {
        /// The damaged file.
        file: String,
        /// Where in it.
        position: u64,
        /// What is wrong there.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// The operating system refused.
    #[error("{action} {file} failed: {source}; {}", crate::free_space::advice(source))]
    Io {
        /// What was tried, as a present participle.
        action: &'static str,
        /// On which file.
        file: String,
        /// What it said.
        source: std::io::Error,
    },
    /// The log is shutting down.
    #[error("the event log is closed")]
    Closed,
    /// An append has more bytes than the log takes at once. None of it was
    /// appended.
    #[error(
        "an append of {size} bytes is larger than the {size_max} that the log takes at once; \
         append fewer or smaller events"
    )]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The largest size in bytes.
        size_max: usize,
    },
    /// A commit names records that do not exist, which would be lost once they do.
    #[error(
        "offset {offset} of partition {partition} is not to be committed, since it ends at {end}: \
         the log has lost its end, or was replaced by another one. Restore the log from a backup; \
         or, to go on without what is lost, run `roost rebuild`"
    )]
    BeyondEnd {
        /// Which partition.
        partition: u32,
        /// What was to be committed, or was.
        offset: u64,
        /// One past the last acknowledged record.
        end: u64,
    },
    /// Records that were acknowledged are not in the log any more.
    #[error(
        "partition {partition} cannot be read at offset {offset}: {reason}; restore it from a \
         backup, since events that were acknowledged cannot be read"
    )]
    Incomplete {
        /// Which partition.
        partition: u32,
        /// The first record that is missing.
        offset: u64,
        /// What has become of it.
        reason: String,
    },
    /// A commit comes too late: the partition has gone to another worker.
    #[error(
        "offset {offset} of partition {partition} is not committed, since the group {group} does \
         not count this process among its workers now; whoever has the partition goes on from \
         what was committed before"
    )]
    Fenced {
        /// Which partition.
        partition: u32,
        /// What was to be committed.
        offset: u64,
        /// The group of the workers.
        group: String,
    },
    /// The group of the workers does not take this process, or not any more.
    #[error("this process can be no worker of the group {group}: {reason}")]
    NoWorker {
        /// The group of the workers.
        group: String,
        /// What the brokers say, and what to do.
        reason: String,
    },
    /// The brokers do not answer, or not in time. What was to be appended may or may
    /// not have been.
    #[error("Kafka does not do its part: {reason}; try again once its brokers are reachable")]
    Unavailable {
        /// What was asked of it, and what came of it.
        reason: String,
    },
    /// The brokers do not let this process do what it must.
    #[error(
        "Kafka refuses this process: {reason}; correct the user, the password or the certificates \
         in the settings of the event log, or have it allowed"
    )]
    Refused {
        /// What they say.
        reason: String,
    },
    /// The topic is there, or could not be made, and cannot hold a log like this.
    #[error("the topic {topic} cannot hold the event log: {problems}")]
    Topic {
        /// Its name.
        topic: String,
        /// All that is wrong with it, and what to do about each.
        problems: String,
    },
    /// There is no topic, and none is to be made.
    #[error("there is no topic {topic} in Kafka; check its name and the brokers")]
    NoTopic {
        /// Its name.
        topic: String,
    },
    /// The log cannot be opened with these settings.
    #[error("{reason}; change the settings of the event log")]
    Settings {
        /// Which of them, and why.
        reason: String,
    },
}

impl LogError {
    /// Whether trying again cannot help a reader.
    pub fn is_final(&self) -> bool {
        self.is_corrupt() || matches!(self, Self::BeyondEnd { .. })
    }

    /// Whether events that were acknowledged cannot be read.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Incomplete { .. })
    }
}
