//! Group commit: one thread a partition, which turns everything that waits into
//! one frame, one write and one fsync, and then acknowledges all of it.
//!
//! ```text
//! append ─┐
//! append ─┼─► queue ──► frame ──► write ──► fdatasync ──► index, end ──► acknowledge
//! append ─┘   (bounded in bytes)    ▲                                        │
//!                                   └──────────── the next group ────────────┘
//! ```

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::{
    error::{again, io_error},
    frame,
    seal::{self, Seal},
    segments::{Segment, Segments},
    writer::{DiskFile, Failure, SegmentWriter},
};
use crate::event_log::LogError;

/// What the thread is asked for.
pub enum Command {
    /// Make records durable.
    Append(Append),
    /// Finish what is queued, then end.
    Close,
}

/// Records that wait to be durable.
pub struct Append {
    /// One after the other, with nothing between them.
    pub payloads: Vec<Bytes>,
    /// What they take in a frame's body.
    pub body_bytes: usize,
    /// Their share of the queue, given back when this is dropped.
    pub _room: OwnedSemaphorePermit,
    /// Who waits for them.
    pub acknowledge: oneshot::Sender<Result<Range<u64>, LogError>>,
}

/// The writing end of a partition.
pub struct Appender<F> {
    /// Its number.
    pub partition: u32,
    /// Where its segments are.
    pub dir: PathBuf,
    /// The end of the last segment.
    pub writer: SegmentWriter<F>,
    /// Whether that segment takes no more records.
    pub is_sealed: bool,
    /// A segment is sealed once it has this many bytes.
    pub segment_bytes_max: u64,
    /// A frame's body takes no more appends past this.
    pub group_bytes_max: usize,
    /// What the readers find records by.
    pub segments: Arc<Segments>,
    /// One past the last acknowledged record. Dropped when the thread ends.
    pub end: watch::Sender<u64>,
    /// A failure has left it unknown what is in the file behind the durable frames, or in the
    /// directory: that is to be put right before anything else is written.
    pub needs_repair: bool,
    /// What waits. Its bound are the permits that the appends carry.
    pub queue: mpsc::UnboundedReceiver<Command>,
    /// An append that had no place in the group before.
    pub carried: Option<Append>,
    /// The frame being written; kept for its memory.
    pub frame: Vec<u8>,
}

impl<F: DiskFile> Appender<F> {
    /// Commits group after group, until closed. A group that fails is refused, and
    /// the next one is tried: so a full disk needs no restart once it has room.
    pub fn run(mut self) {
        while let Some(group) = self.next_group() {
            match self.commit(&group) {
                Ok(offset) => acknowledge(group, offset),
                Err(failure) => {
                    self.needs_repair |= !failure.undone;
                    self.refuse(group, &failure);
                }
            }
        }
    }

    /// Everything that waits, as far as it fits a frame; at least one append.
    /// `None` once closed and empty.
    fn next_group(&mut self) -> Option<Vec<Append>> {
        let mut group: Vec<Append> = Vec::new();
        let mut group_bytes = 0;
        loop {
            let command = match self.carried.take() {
                Some(append) => Command::Append(append),
                None if group.is_empty() => self.queue.blocking_recv()?,
                None => match self.queue.try_recv() {
                    Ok(command) => command,
                    Err(_) => return Some(group),
                },
            };
            match command {
                // What was sent before is still received.
                Command::Close => self.queue.close(),
                Command::Append(append)
                    if !group.is_empty()
                        && group_bytes + append.body_bytes > self.group_bytes_max =>
                {
                    self.carried = Some(append);
                    return Some(group);
                }
                Command::Append(append) => {
                    group_bytes += append.body_bytes;
                    group.push(append);
                }
            }
        }
    }

    /// Makes a group durable and lets the readers see it. Returns the offset of
    /// its first record.
    fn commit(&mut self, group: &[Append]) -> Result<u64, Failure> {
        if self.needs_repair {
            self.repair()?;
        }
        if self.is_sealed || self.writer.position >= self.segment_bytes_max {
            self.roll()?;
        }
        let offset = *self.end.borrow();
        self.frame.clear();
        let payloads = group.iter().flat_map(|append| &append.payloads);
        frame::encode_records(offset, payloads, &mut self.frame);
        self.writer.append(&self.frame)?;
        self.segments.extend_last(offset, self.frame.len() as u64);
        let count: usize = group.iter().map(|append| append.payloads.len()).sum();
        self.end.send_replace(offset + count as u64);
        Ok(offset)
    }

    /// Seals the last segment and begins the next one. Can be tried again after
    /// a failure that was undone.
    fn roll(&mut self) -> Result<(), Failure> {
        let end_offset = *self.end.borrow();
        if !self.is_sealed {
            let marks = self.segments.last_marks();
            let position = self.writer.position;
            self.writer.append(&seal::encode(&Seal { position, end_offset, marks }))?;
            self.is_sealed = true;
        }
        let segment = Segment::empty(&self.dir, end_offset);
        let path = segment.path.clone();
        let file = self.writer.file.create(&path).map_err(|source| Failure {
            action: "creating the segment after",
            source,
            undone: true,
        })?;
        self.writer.file.sync_dir(&self.dir).map_err(|source| Failure {
            action: "syncing the directory of",
            source,
            undone: false,
        })?;
        self.writer = SegmentWriter { file, path, position: 0 };
        self.segments.push(segment);
        self.is_sealed = false;
        Ok(())
    }

    /// Puts the file and its directory back to what was acknowledged.
    fn repair(&mut self) -> Result<(), Failure> {
        self.writer.repair()?;
        if self.is_sealed {
            // It may have been begun, and holds nothing yet.
            let next = Segment::empty(&self.dir, *self.end.borrow()).path;
            let failed =
                |source| Failure { action: "removing the segment after", source, undone: false };
            self.writer.file.remove(&next).map_err(failed)?;
            self.writer.file.sync_dir(&self.dir).map_err(failed)?;
        }
        self.needs_repair = false;
        tracing::warn!(
            partition = self.partition, file = %self.writer.path.display(),
            "the end of the event log was cut to what had been acknowledged, after a write of \
             unknown outcome; events are taken again"
        );
        Ok(())
    }

    fn refuse(&self, group: Vec<Append>, failure: &Failure) {
        let Failure { action, source, undone } = failure;
        let path: &Path = &self.writer.path;
        tracing::error!(
            partition = self.partition, file = %path.display(), %source, must_repair = !undone,
            "{action} the event log failed"
        );
        for append in group {
            let error = io_error(action, path, again(source));
            let _ = append.acknowledge.send(Err(error));
        }
    }
}

fn acknowledge(group: Vec<Append>, mut offset: u64) {
    for append in group {
        let end = offset + append.payloads.len() as u64;
        // Who waited may have gone; the records are there all the same.
        let _ = append.acknowledge.send(Ok(offset..end));
        offset = end;
    }
}
