//! The event log on local disk, in this process.
//!
//! ```text
//! dir/partitions                        how many there are
//! dir/p0000/00000000000000000000.log    segments, named by their first offset
//!          /00000000000000834561.log
//!          /committed                   where a worker resumes
//! ```
//!
//! Each partition has one appender thread, which commits in groups
//! (`appender`); the bytes are described in `frame`, what happens to them
//! after a crash in `recovery`. A read takes a blocking thread, finds its frame
//! by a sparse index in memory (`segments`) and hands out parts of the piece
//! that was read: a record that is kept keeps that piece, about 1 MiB, alive.
//!
//! Left out: old segments are never dropped, since the log is the truth from
//! which all else is rebuilt; and nothing here keeps a second process away from
//! the directory, which is [`DataDir`](crate::data_dir::DataDir)'s part.

mod appender;
mod committed;
mod error;
mod frame;
mod frame_reader;
mod manifest;
mod partition;
mod reader;
mod recovery;
mod seal;
mod segments;
mod writer;

use std::{path::Path, sync::Arc, thread};

use bytes::Bytes;

use super::{Assignments, EventLog, LogError, Record};
use partition::Partition;

/// How many partitions a new log has if nothing else is asked for.
pub const PARTITIONS_DEFAULT: u32 = 4;
/// The most partitions a log can have; each is a thread.
pub const PARTITIONS_MAX: u32 = 1024;

/// How many partitions are recovered at a time on open.
const RECOVERIES_MAX: usize = 4;

/// The choices of whoever runs the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many partitions there are, from 1 to [`PARTITIONS_MAX`]. A log keeps
    /// the count that it was made with, and asking for another one is an error;
    /// `None` takes what is there, or [`PARTITIONS_DEFAULT`] for a new log.
    pub partitions: Option<u32>,
    /// A segment takes no more records once it has this many bytes, from 1 to
    /// 64 GiB. Opening the log reads the last segment of every partition.
    pub segment_bytes_max: u64,
    /// How many bytes of a partition may wait for the disk, from 1 to 2 GiB.
    /// Appends beyond wait until there is room.
    pub queue_bytes_max: usize,
    /// How many bytes are written and made durable at once, from 1 to 64 MiB, and
    /// so the most that one append may have.
    pub group_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            partitions: None,
            segment_bytes_max: 256 << 20,
            queue_bytes_max: 32 << 20,
            group_bytes_max: 8 << 20,
        }
    }
}

impl Settings {
    /// Every field that is out of its range, and why.
    pub fn problems(&self) -> Vec<String> {
        let partitions = self.partitions.unwrap_or(PARTITIONS_DEFAULT);
        [
            ("partitions", u64::from(partitions), u64::from(PARTITIONS_MAX)),
            ("segment_bytes_max", self.segment_bytes_max, 64 << 30),
            ("queue_bytes_max", self.queue_bytes_max as u64, 2 << 30),
            ("group_bytes_max", self.group_bytes_max as u64, frame::BODY_BYTES_MAX as u64),
        ]
        .into_iter()
        .filter(|(_, value, max)| !(1..=*max).contains(value))
        .map(|(name, value, max)| format!("{name} is {value}, but must be from 1 to {max}"))
        .collect()
    }
}

/// A durable log in a directory of its own.
///
/// Dropping it makes what is queued durable, which blocks; [`close`](EventLog::close)
/// does the same and does not.
#[derive(Debug)]
pub struct EmbeddedLog {
    partitions: Arc<[Partition]>,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, or makes one. Blocks, for as long as it takes to
    /// read the last segment of every partition.
    ///
    /// # Errors
    ///
    /// [`LogError::Settings`] if the log cannot be opened like this,
    /// [`LogError::Corrupt`] if what is there cannot be right.
    pub fn open(dir: &Path, settings: Settings) -> Result<Self, LogError> {
        let problems = settings.problems();
        if !problems.is_empty() {
            return Err(LogError::Settings { reason: problems.join("; ") });
        }
        let partitions = match (manifest::read(dir)?, settings.partitions) {
            (Some(there), Some(asked)) if there != asked => {
                let reason = format!(
                    "the event log in {} has {there} partitions, which cannot change, and \
                     {asked} were asked for",
                    dir.display()
                );
                return Err(LogError::Settings { reason });
            }
            (Some(there), _) => there,
            (None, asked) => {
                let partitions = asked.unwrap_or(PARTITIONS_DEFAULT);
                manifest::create(dir, partitions)?;
                partitions
            }
        };
        let numbers: Vec<u32> = (0..partitions).collect();
        let mut opened = Vec::new();
        for numbers in numbers.chunks(RECOVERIES_MAX) {
            let open =
                |number| Partition::open(number, &manifest::partition_dir(dir, number), &settings);
            thread::scope(|scope| {
                let threads: Vec<_> =
                    numbers.iter().map(|&number| scope.spawn(move || open(number))).collect();
                for thread in threads {
                    opened.push(
                        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
                    );
                }
                Ok(())
            })?;
        }
        Ok(Self { partitions: opened.into() })
    }

    fn partition(&self, partition: u32) -> &Partition {
        &self.partitions[partition as usize]
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.partitions.iter().for_each(Partition::close);
        self.partitions.iter().for_each(Partition::join);
    }
}

impl EventLog for EmbeddedLog {
    fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    async fn append(&self, partition: u32, payloads: Vec<Bytes>) -> Result<Vec<u64>, LogError> {
        self.partition(partition).append(payloads).await.map(Iterator::collect)
    }

    async fn read(
        &self,
        partition: u32,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<Record>, LogError> {
        self.partition(partition).read(from, bytes_max).await
    }

    async fn end(&self, partition: u32) -> Result<u64, LogError> {
        Ok(self.partition(partition).end())
    }

    async fn wait_past(&self, partition: u32, offset: u64) -> Result<(), LogError> {
        self.partition(partition).wait_past(offset).await
    }

    async fn committed(&self, partition: u32) -> Result<u64, LogError> {
        Ok(self.partition(partition).committed())
    }

    async fn commit(&self, partition: u32, offset: u64) -> Result<(), LogError> {
        self.partition(partition).commit(offset).await
    }

    async fn close(&self) {
        self.partitions.iter().for_each(Partition::close);
        let partitions = self.partitions.clone();
        let join = move || partitions.iter().for_each(Partition::join);
        if tokio::task::spawn_blocking(join).await.is_err() {
            tracing::error!("the event log was not closed in order");
        }
    }

    fn join(&self) -> Assignments {
        Assignments::all(self.partitions())
    }
}
