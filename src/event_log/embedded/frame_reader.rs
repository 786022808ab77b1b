//! Frames from a file, read in large pieces.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    error::{corrupt, io_error},
    frame::{self, Flaw, Header},
};
use crate::event_log::LogError;

/// How much is read at a time, unless a frame is longer. Large enough that a
/// sequential reader is bound by memory, small enough that a record which is
/// kept does not keep much alive.
const PIECE_BYTES: u64 = 1 << 20;

/// A place in a segment, and what is read from there already.
#[derive(Debug)]
pub struct FrameReader {
    file: File,
    path: Arc<Path>,
    /// Where `buffer` begins in the file.
    position: u64,
    /// Nothing from here on is looked at.
    limit: u64,
    buffer: Bytes,
}

/// A frame that matches its checksum.
#[derive(Debug)]
pub struct Frame {
    /// What it says of itself.
    pub header: Header,
    /// Its records, a part of the piece that was read.
    pub body: Bytes,
    /// Where in the file it begins.
    pub position: u64,
}

/// Why there is no next frame.
#[derive(Debug)]
pub enum Stop {
    /// The bytes at this position are not a frame.
    Flaw {
        /// In the file.
        position: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// The operating system refused.
    Io(io::Error),
}

impl Stop {
    /// For those to whom neither may happen.
    pub fn into_error(self, path: &Path) -> LogError {
        match self {
            Self::Flaw { position, reason } => corrupt(path, position, reason),
            Self::Io(source) => io_error("reading", path, source),
        }
    }
}

impl FrameReader {
    /// Reads the frames of a file between two positions.
    pub fn new(file: File, path: Arc<Path>, position: u64, limit: u64) -> Self {
        Self { file, path, position, limit, buffer: Bytes::new() }
    }

    /// The file that is read.
    pub fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// Where the next frame begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Lets more of the file be read, after it has grown.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// The next frame, or `None` at the limit.
    pub fn next(&mut self) -> Result<Option<Frame>, Stop> {
        loop {
            match frame::check(&self.buffer) {
                Ok(header) => {
                    let frame = self.buffer.split_to(header.frame_bytes());
                    let position = self.position;
                    self.position += frame.len() as u64;
                    let body = frame.slice(frame::HEADER_BYTES..);
                    return Ok(Some(Frame { header, body, position }));
                }
                Err(Flaw::Short { .. }) if self.position == self.limit => return Ok(None),
                Err(Flaw::Short { needed }) => self.fill(needed as u64)?,
                Err(Flaw::Bad(reason)) => {
                    return Err(Stop::Flaw { position: self.position, reason });
                }
            }
        }
    }

    /// Makes the buffer at least `needed` bytes long, a frame's length at most.
    fn fill(&mut self, needed: u64) -> Result<(), Stop> {
        let left = self.limit.saturating_sub(self.position);
        if needed > left {
            return Err(Stop::Flaw { position: self.position, reason: "the frame is cut off" });
        }
        let mut piece = vec![0; needed.max(PIECE_BYTES).min(left) as usize];
        let (known, new) = piece.split_at_mut(self.buffer.len());
        known.copy_from_slice(&self.buffer);
        let from = self.position + known.len() as u64;
        match self.file.read_exact_at(new, from) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let reason = "the file has become shorter";
                return Err(Stop::Flaw { position: self.position, reason });
            }
            result => result.map_err(Stop::Io)?,
        }
        self.buffer = piece.into();
        Ok(())
    }
}
