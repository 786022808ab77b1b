//! Finding out, on open, what a partition's files hold.
//!
//! A group's write begins only after the fsync of the one before, and a segment
//! is begun only after the seal of the one before is durable. So a crash leaves at
//! most one bad frame, at the end of the last segment, and nothing else:
//!
//! | found | done |
//! |---|---|
//! | a sealed segment | its seal is checked, its frames are when they are read |
//! | the last segment, without a seal | every frame is checked |
//! | there, a bad frame with nothing whole behind it | it was never acknowledged: cut off |
//! | a bad frame with a whole one behind it | [`LogError::Corrupt`] |
//! | a segment that is missing, or not sealed and not the last | [`LogError::Corrupt`] |
//!
//! So opening reads one segment of a partition, however long the log is.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use super::{
    error::{corrupt, io_error},
    frame::{self, Kind},
    frame_reader::{Frame, FrameReader, Stop},
    seal::{self, Seal},
    segments::{Segment, base_offset_of, file_name},
};
use crate::{durable_file, event_log::LogError};

/// What the files of a partition hold.
#[derive(Debug)]
pub struct Recovered {
    /// The segments in order, at least one.
    pub segments: Vec<Segment>,
    /// One past the last record.
    pub end: u64,
    /// Whether the last segment takes no more records.
    pub last_is_sealed: bool,
}

/// Reads what a partition holds, cuts off the torn end of an interrupted write
/// and makes the rest durable.
pub fn recover(dir: &Path) -> Result<Recovered, LogError> {
    let bases = list(dir).map_err(|error| io_error("listing", dir, error))?;
    let mut found = Recovered { segments: Vec::new(), end: 0, last_is_sealed: true };
    for base_offset in &bases {
        let segment = Segment::empty(dir, *base_offset);
        let path = segment.path.clone();
        if *base_offset != found.end {
            let missing = dir.join(file_name(found.end));
            let reason = format!("it is missing, while {} is there", file_name(*base_offset));
            return Err(corrupt(&missing, 0, reason));
        }
        let is_last = Some(base_offset) == bases.last();
        let file = OpenOptions::new().read(true).write(is_last).open(&path);
        let file = file.map_err(|error| io_error("opening", &path, error))?;
        let sealed = read_seal(&file, *base_offset).map_err(|stop| stop.into_error(&path))?;
        match sealed {
            Some(Seal { position, end_offset, marks }) => {
                found.end = end_offset;
                found.segments.push(Segment { data_bytes: position, marks, ..segment });
            }
            None if is_last => {
                let (segment, end) = scan(&file, segment)?;
                // The process may have died between its last write and the fsync.
                file.sync_all().map_err(|error| io_error("syncing", &path, error))?;
                found.end = end;
                found.segments.push(segment);
                found.last_is_sealed = false;
            }
            None => return Err(corrupt(&path, 0, "it does not end in a whole seal")),
        }
    }
    if bases.is_empty() {
        return Err(corrupt(&dir.join(file_name(0)), 0, "it is missing"));
    }
    durable_file::sync_dir(dir).map_err(|error| io_error("syncing", dir, error))?;
    Ok(found)
}

/// The first offsets of the segments in a directory, in order.
pub fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(dir)? {
        bases.extend(entry?.file_name().to_str().and_then(base_offset_of));
    }
    bases.sort_unstable();
    Ok(bases)
}

/// The seal at the end of a file. `None` if there is no whole one.
fn read_seal(file: &File, base_offset: u64) -> Result<Option<Seal>, Stop> {
    let file_bytes = file.metadata().map_err(Stop::Io)?.len();
    let Some(trailer_at) = file_bytes.checked_sub(seal::TRAILER_BYTES as u64) else {
        return Ok(None);
    };
    let mut trailer = [0; seal::TRAILER_BYTES];
    file.read_exact_at(&mut trailer, trailer_at).map_err(Stop::Io)?;
    let Some(position) = seal::position(trailer, file_bytes) else {
        return Ok(None);
    };
    let mut bytes = vec![0; (file_bytes - position) as usize];
    file.read_exact_at(&mut bytes, position).map_err(Stop::Io)?;
    Ok(seal::decode(&bytes, position, base_offset).ok())
}

/// Checks every frame of the last segment and cuts off a torn one. Returns the
/// segment and the offset behind it.
fn scan(file: &File, mut segment: Segment) -> Result<(Segment, u64), LogError> {
    let path = segment.path.clone();
    let reading = |error| io_error("reading", &path, error);
    let file_bytes = file.metadata().map_err(reading)?.len();
    let own_file = file.try_clone().map_err(reading)?;
    let mut frames = FrameReader::new(own_file, path.clone(), 0, file_bytes);
    let mut end = segment.base_offset;
    let (position, reason) = loop {
        match frames.next() {
            Ok(Some(Frame { header, .. }))
                if header.kind == Kind::Records && header.base_offset == end =>
            {
                segment.extend(end, header.frame_bytes() as u64);
                end = header.next_offset();
            }
            Ok(Some(Frame { header, position, .. })) => {
                let reason = format!("{header:?} where offset {end} is expected");
                return Err(corrupt(&path, position, reason));
            }
            Ok(None) => return Ok((segment, end)),
            Err(Stop::Io(error)) => return Err(reading(error)),
            Err(Stop::Flaw { position, reason }) => break (position, reason),
        }
    };
    let torn_bytes = file_bytes - position;
    if torn_bytes > (frame::HEADER_BYTES + frame::BODY_BYTES_MAX) as u64 {
        let reason = format!("{reason}, and no interrupted write leaves {torn_bytes} bytes");
        return Err(corrupt(&path, position, reason));
    }
    let mut tail = vec![0; torn_bytes as usize];
    file.read_exact_at(&mut tail, position).map_err(reading)?;
    if let Some(at) = later_frame(&tail, end) {
        let reason = format!("{reason}, while a whole frame follows at {}", position + at as u64);
        return Err(corrupt(&path, position, reason));
    }
    tracing::warn!(
        file = %path.display(), position, torn_bytes, reason,
        "cut off the end of an interrupted write, which was never acknowledged"
    );
    file.set_len(position).map_err(|error| io_error("truncating", &path, error))?;
    Ok((segment, end))
}

/// How many bytes [`later_frame`] sends through the checksum before it gives up.
const CHECKED_BYTES_MAX: usize = 4 << 30;

/// Where in `tail`, whose first frame is bad and should have begun with the
/// record `expected`, a later frame stands. A frame counts only if its offset can
/// be right at its distance, so that what a client wrote into a payload is
/// hardly ever taken for one.
///
/// Should the search take too long, which only bytes made for it can bring
/// about, it answers as if there were one: refusing to open loses nothing.
fn later_frame(tail: &[u8], expected: u64) -> Option<usize> {
    let mut checked_bytes = 0;
    (1..tail.len()).find(|&at| {
        let Ok(header) = frame::parse_header(&tail[at..]) else {
            return false;
        };
        let records_max = (at / frame::RECORD_HEADER_BYTES) as u64;
        if header.base_offset <= expected || header.base_offset - expected > records_max {
            return false;
        }
        checked_bytes += header.frame_bytes().min(tail.len() - at);
        checked_bytes > CHECKED_BYTES_MAX || frame::check(&tail[at..]).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn frame_of(base_offset: u64, records: usize) -> Vec<u8> {
        let mut out = Vec::new();
        frame::encode_records(
            base_offset,
            &vec![Bytes::from_static(b"payload"); records],
            &mut out,
        );
        out
    }

    #[test]
    fn a_later_frame_is_found_wherever_the_first_is_bad() {
        let (first, second) = (frame_of(10, 3), frame_of(13, 2));
        let tail = [first.clone(), second].concat();
        for at in 0..first.len() {
            let mut tail = tail.clone();
            tail[at] ^= 0x40;
            assert_eq!(later_frame(&tail, 10), Some(first.len()), "byte {at}");
        }
    }

    #[test]
    fn a_frame_whose_offset_cannot_be_right_is_none() {
        let garbage = vec![0; 100];
        for base_offset in [0, 9, 10, 36, u64::MAX - 1] {
            let tail = [garbage.clone(), frame_of(base_offset, 1)].concat();
            assert_eq!(later_frame(&tail, 10), None, "offset {base_offset}");
        }
        assert_eq!(later_frame(&[garbage, frame_of(35, 1)].concat(), 10), Some(100));
    }

    proptest! {
        #[test]
        fn a_part_of_a_frame_is_torn(records in 1..5usize, cut: prop::sample::Index) {
            let frame = frame_of(10, records);
            prop_assert_eq!(later_frame(&frame[..cut.index(frame.len())], 10), None);
        }

        /// Whatever a partition's only file holds, opening it answers.
        #[test]
        fn any_file_is_opened_or_refused(
            whole in 0..3u64,
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut contents: Vec<u8> = (0..whole).flat_map(|offset| frame_of(offset, 1)).collect();
            contents.extend(bytes);
            fs::write(dir.path().join(file_name(0)), contents).unwrap();
            prop_assert_eq!(recover(dir.path()).unwrap().end, whole);
        }
    }
}
