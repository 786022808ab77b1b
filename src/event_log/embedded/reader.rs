//! Records from a partition's segments.
//!
//! A reader that goes on where it stopped finds its file open and the rest of
//! the last piece in memory, under the offset that it asks for next.

use std::{
    fs::File,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use super::{
    error::{corrupt, io_error},
    frame::{self, Kind},
    frame_reader::FrameReader,
    segments::{Place, Segments},
};
use crate::event_log::{LogError, Record};

/// How many readers of a partition can each go on where they stopped. One more
/// looks its place up in the index. Each keeps a file and a piece of it.
const CURSORS_MAX: usize = 4;

/// Where readers stopped, the latest last.
#[derive(Debug, Default)]
pub struct Cursors(Mutex<Vec<Cursor>>);

impl Cursors {
    /// Takes the place of the reader that stopped before `offset`.
    pub fn take(&self, offset: u64) -> Option<Cursor> {
        let mut cursors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = cursors.iter().rposition(|cursor| cursor.next_offset == offset)?;
        Some(cursors.remove(at))
    }

    /// Remembers where a reader stopped, and forgets the oldest of too many.
    pub fn put(&self, cursor: Cursor) {
        let mut cursors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cursors.len() == CURSORS_MAX {
            cursors.remove(0);
        }
        cursors.push(cursor);
    }
}

/// A place between two records.
#[derive(Debug)]
pub struct Cursor {
    /// The record that is read next.
    next_offset: u64,
    /// The rest of the frame that holds it; empty ahead of a frame.
    body: Bytes,
    /// How many records `body` holds.
    body_records: u64,
    /// The frames behind.
    frames: FrameReader,
    /// Which segment they are in.
    base_offset: u64,
}

impl Cursor {
    /// Finds the record `offset`, which must be below the partition's end.
    pub fn seek(segments: &Segments, offset: u64) -> Result<Self, LogError> {
        let mut cursor = Self::open(locate(segments, offset)?)?;
        while cursor.next_offset < offset {
            if cursor.body_records == 0 {
                cursor.next_frame(segments)?;
            }
            if cursor.next_offset + cursor.body_records <= offset {
                cursor.next_offset += cursor.body_records;
                cursor.body_records = 0;
                cursor.body.clear();
            } else {
                cursor.next_record()?;
            }
        }
        Ok(cursor)
    }

    /// Reads on, up to the record `end`: at least one, then as long as the
    /// payloads have no more than `bytes_max` bytes together.
    pub fn read(
        &mut self,
        segments: &Segments,
        end: u64,
        bytes_max: usize,
    ) -> Result<Vec<Record>, LogError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        while self.next_offset < end {
            if self.body_records == 0 {
                self.next_frame(segments)?;
            }
            bytes += self.next_payload_bytes();
            if bytes > bytes_max && !records.is_empty() {
                break;
            }
            records.push(self.next_record()?);
        }
        Ok(records)
    }

    fn open(place: Place) -> Result<Self, LogError> {
        let Place { base_offset, path, data_bytes, mark } = place;
        let file = File::open(&path).map_err(|error| io_error("opening", &path, error))?;
        let frames = FrameReader::new(file, path, mark.position, data_bytes);
        let (next_offset, body) = (mark.offset, Bytes::new());
        Ok(Self { next_offset, body, body_records: 0, frames, base_offset })
    }

    /// Goes on to the frame that begins with the next record, which must be below
    /// the partition's end.
    fn next_frame(&mut self, segments: &Segments) -> Result<(), LogError> {
        let mut frame = self.frames.next();
        if let Ok(None) = frame {
            // At the end of what could be read when this place was found.
            let place = locate(segments, self.next_offset)?;
            if place.base_offset == self.base_offset {
                self.frames.set_limit(place.data_bytes);
            } else {
                *self = Self::open(place)?;
            }
            frame = self.frames.next();
        }
        let frame =
            frame.map_err(|stop| stop.into_error(self.frames.path()))?.ok_or_else(|| {
                let reason = format!("the record {} is missing", self.next_offset);
                corrupt(self.frames.path(), self.frames.position(), reason)
            })?;
        let header = frame.header;
        if header.kind != Kind::Records || header.base_offset != self.next_offset {
            let reason = format!("{header:?} where offset {} is expected", self.next_offset);
            return Err(corrupt(self.frames.path(), frame.position, reason));
        }
        self.body = frame.body;
        self.body_records = u64::from(header.count);
        Ok(())
    }

    fn next_payload_bytes(&self) -> usize {
        self.body.len().min(frame::payload_bytes(&self.body))
    }

    fn next_record(&mut self) -> Result<Record, LogError> {
        let payload = frame::split_record(&mut self.body).ok_or_else(|| {
            let reason = format!("the record {} does not fit its frame", self.next_offset);
            corrupt(self.frames.path(), self.frames.position(), reason)
        })?;
        let offset = self.next_offset;
        self.next_offset += 1;
        self.body_records -= 1;
        Ok(Record { offset, payload })
    }
}

fn locate(segments: &Segments, offset: u64) -> Result<Place, LogError> {
    segments
        .locate(offset)
        .ok_or_else(|| corrupt("the index".as_ref(), 0, format!("the record {offset} is missing")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_log::embedded::segments::Segment;

    /// A file that holds `bytes`, which the index takes for the records 0 to 9.
    fn file_of(bytes: &[u8]) -> (tempfile::TempDir, Segments) {
        let dir = tempfile::tempdir().unwrap();
        let mut segment = Segment::empty(dir.path(), 0);
        std::fs::write(&segment.path, bytes).unwrap();
        segment.extend(0, bytes.len() as u64);
        (dir, Segments::new(vec![segment]))
    }

    #[test]
    fn a_whole_frame_in_the_wrong_place_is_corrupt() {
        for base_offset in [0, 5] {
            let mut bytes = Vec::new();
            frame::encode_records(
                base_offset,
                &vec![Bytes::from_static(b"record"); 10],
                &mut bytes,
            );
            let (_dir, segments) = file_of(&bytes);
            let found = Cursor::seek(&segments, 7).map(|cursor| cursor.next_offset);
            match base_offset {
                0 => assert_eq!(found.unwrap(), 7),
                _ => assert!(matches!(found, Err(LogError::Corrupt { position: 0, .. }))),
            }
        }
    }

    #[test]
    fn records_that_do_not_fit_their_frame_are_corrupt() {
        let mut bytes = Vec::new();
        frame::encode(Kind::Records, 0, &mut bytes, |body| {
            body.extend_from_slice(&[9, 0, 0, 0, 1, 2, 3, 4]);
            2
        });
        let (_dir, segments) = file_of(&bytes);
        let mut cursor = Cursor::seek(&segments, 0).unwrap();
        assert!(matches!(cursor.read(&segments, 2, 100), Err(LogError::Corrupt { .. })));
    }
}
