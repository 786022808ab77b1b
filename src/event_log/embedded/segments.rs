//! Which file and which byte of it a record is in: the index that the appender
//! extends and the readers look into.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

/// One mark at most in this many bytes of a segment, so that the index takes
/// less than 1/8,000 of the log in memory, and a reader skips this much at most.
const MARK_EVERY_BYTES: u64 = 128 << 10;

/// A frame that the index knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its first record.
    pub offset: u64,
    /// Its first byte in the file.
    pub position: u64,
}

/// A file of the partition.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its first record; its name says it too.
    pub base_offset: u64,
    /// Where it is.
    pub path: Arc<Path>,
    /// The length of its acknowledged frames; nothing behind may be read.
    pub data_bytes: u64,
    /// Some of its frames, in order, the first among them.
    pub marks: Vec<Mark>,
}

impl Segment {
    /// A segment without records.
    pub fn empty(dir: &Path, base_offset: u64) -> Self {
        let path: PathBuf = dir.join(file_name(base_offset));
        Self { base_offset, path: path.into(), data_bytes: 0, marks: Vec::new() }
    }

    /// Takes note of one more frame at its end.
    pub fn extend(&mut self, frame_offset: u64, frame_bytes: u64) {
        let position = self.data_bytes;
        if self.marks.last().is_none_or(|last| position - last.position >= MARK_EVERY_BYTES) {
            self.marks.push(Mark { offset: frame_offset, position });
        }
        self.data_bytes += frame_bytes;
    }
}

/// Where to look for a record.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file's first record.
    pub base_offset: u64,
    /// The file.
    pub path: Arc<Path>,
    /// How much of it may be read.
    pub data_bytes: u64,
    /// The nearest known frame that is not past the record.
    pub mark: Mark,
}

/// All the segments of a partition, in order; there is always one.
#[derive(Debug)]
pub struct Segments(RwLock<Vec<Segment>>);

impl Segments {
    /// Those that were found on disk.
    pub fn new(segments: Vec<Segment>) -> Self {
        Self(RwLock::new(segments))
    }

    /// Where to look for `offset`. `None` if the log has nothing there.
    pub fn locate(&self, offset: u64) -> Option<Place> {
        let segments = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let at = segments.partition_point(|segment| segment.base_offset <= offset);
        let segment = &segments[at.checked_sub(1)?];
        let at = segment.marks.partition_point(|mark| mark.offset <= offset);
        Some(Place {
            base_offset: segment.base_offset,
            path: segment.path.clone(),
            data_bytes: segment.data_bytes,
            mark: segment.marks[at.checked_sub(1)?],
        })
    }

    /// Lets the readers see one more frame of the last segment.
    pub fn extend_last(&self, frame_offset: u64, frame_bytes: u64) {
        self.with_last(|last| last.extend(frame_offset, frame_bytes));
    }

    /// Begins a new last segment.
    pub fn push(&self, segment: Segment) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(segment);
    }

    /// The marks of the last segment.
    pub fn last_marks(&self) -> Vec<Mark> {
        self.with_last(|last| last.marks.clone())
    }

    fn with_last<T>(&self, change: impl FnOnce(&mut Segment) -> T) -> T {
        let mut segments = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let last = segments.last_mut().expect("a partition always has a segment");
        change(last)
    }
}

/// The name of the file that begins with `base_offset`.
pub fn file_name(base_offset: u64) -> String {
    format!("{base_offset:020}.log")
}

/// The first offset of a file, from its name. `None` if it is not a segment's.
pub fn base_offset_of(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".log")?;
    let is_segment = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_segment.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_looked_for_at_the_last_mark_that_is_not_past_it() {
        let dir = Path::new("p");
        let mut first = Segment::empty(dir, 0);
        for frame in 0..100 {
            first.extend(frame * 10, MARK_EVERY_BYTES / 4);
        }
        assert_eq!(first.marks.len(), 25);
        let segments = Segments::new(vec![first]);
        segments.push(Segment::empty(dir, 1000));
        segments.extend_last(1000, 100);
        let place = |offset| {
            let place = segments.locate(offset).unwrap();
            (place.base_offset, place.mark.offset, place.mark.position)
        };
        assert_eq!(place(0), (0, 0, 0));
        assert_eq!(place(39), (0, 0, 0));
        assert_eq!(place(40), (0, 40, MARK_EVERY_BYTES));
        assert_eq!(place(999), (0, 960, 24 * MARK_EVERY_BYTES));
        assert_eq!(place(1000), (1000, 1000, 0));
    }

    #[test]
    fn only_the_name_of_a_segment_is_one() {
        assert_eq!(base_offset_of(&file_name(12)), Some(12));
        assert_eq!(base_offset_of(&file_name(u64::MAX)), Some(u64::MAX));
        for name in ["committed", "12.log", "0000000000000000000x.log", "99999999999999999999.log"]
        {
            assert_eq!(base_offset_of(name), None, "{name}");
        }
    }
}
