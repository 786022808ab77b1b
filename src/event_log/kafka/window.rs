//! The records of a partition that have been fetched: a window that moves along
//! with those who read.
//!
//! ```text
//!        start      passed                 next
//!          │ kept     │ not yet read         │ to be fetched
//!  ────────┴──────────┴──────────────────────┴──────────►
//! ```

use std::collections::VecDeque;

use crate::event_log::Record;

/// What a record costs beside its payload, in bytes.
const RECORD_BYTES: usize = 64;
/// How many bytes stay after they have been read, for a reader that is a little
/// behind another.
const KEPT_BYTES: usize = 256 << 10;

/// Records with consecutive offsets.
#[derive(Debug)]
pub struct Window {
    records: VecDeque<Record>,
    /// Offset of the first record that is kept.
    start: u64,
    /// Below it, somebody has read.
    passed: u64,
    bytes: usize,
    bytes_max: usize,
}

/// What became of a record that was offered to a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is the window's last now.
    Added,
    /// It comes before what is to be fetched next, so it is known.
    Known,
    /// Records before it are missing.
    Gap,
}

impl Window {
    /// An empty window, which is full once it has `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { records: VecDeque::new(), start: 0, passed: 0, bytes: 0, bytes_max }
    }

    /// Empties it; the next record is to be the one at `offset`.
    pub fn restart(&mut self, offset: u64) {
        *self = Self { start: offset, passed: offset, ..Self::new(self.bytes_max) };
    }

    /// The offset of the record to be fetched next.
    pub fn next(&self) -> u64 {
        self.start + self.records.len() as u64
    }

    /// Whether a reader can go on from `offset` without a new start.
    pub fn covers(&self, offset: u64) -> bool {
        (self.start..=self.next()).contains(&offset)
    }

    /// Takes a record in, if it is the next.
    pub fn push(&mut self, record: Record) -> Pushed {
        if record.offset < self.next() {
            return Pushed::Known;
        }
        if record.offset > self.next() {
            return Pushed::Gap;
        }
        self.bytes += cost(&record);
        self.records.push_back(record);
        self.forget();
        Pushed::Added
    }

    /// Notes that what is before `offset` has been read.
    pub fn pass(&mut self, offset: u64) {
        self.passed = offset;
        self.forget();
    }

    /// How many records there are from `offset` on, and no more than `bytes_max`
    /// bytes of payload allow; at least one where there is one.
    pub fn count(&self, offset: u64, bytes_max: usize) -> usize {
        let mut bytes = 0usize;
        let fits = |(at, record): &(usize, &Record)| {
            bytes = bytes.saturating_add(record.payload.len());
            *at == 0 || bytes <= bytes_max
        };
        self.from(offset).enumerate().take_while(fits).count()
    }

    /// The first `count` records from `offset` on.
    pub fn read(&self, offset: u64, count: usize) -> Vec<Record> {
        self.from(offset).take(count).cloned().collect()
    }

    /// Whether nothing more should be fetched until somebody has read.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    /// Whether there is room enough again to fetch more.
    pub fn has_room(&self) -> bool {
        self.bytes <= self.bytes_max / 2
    }

    fn from(&self, offset: u64) -> impl Iterator<Item = &Record> {
        let skipped = offset.saturating_sub(self.start);
        self.records.range(self.records.len().min(skipped as usize)..)
    }

    fn forget(&mut self) {
        let kept_bytes = KEPT_BYTES.min(self.bytes_max / 4);
        while self.bytes > kept_bytes {
            let Some(record) = self.records.front().filter(|first| first.offset < self.passed)
            else {
                break;
            };
            self.bytes -= cost(record);
            self.start = record.offset + 1;
            self.records.pop_front();
        }
    }
}

fn cost(record: &Record) -> usize {
    record.payload.len() + RECORD_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(offset: u64) -> Record {
        Record { offset, payload: Bytes::from(vec![0; 100]) }
    }

    fn window(bytes_max: usize, offsets: std::ops::Range<u64>) -> Window {
        let mut window = Window::new(bytes_max);
        window.restart(offsets.start);
        offsets.for_each(|offset| assert_eq!(window.push(record(offset)), Pushed::Added));
        window
    }

    #[test]
    fn it_takes_only_the_next_record() {
        let mut window = window(1 << 20, 5..8);
        assert_eq!(window.push(record(7)), Pushed::Known);
        assert_eq!(window.push(record(9)), Pushed::Gap);
        assert_eq!(window.push(record(8)), Pushed::Added);
        assert_eq!(window.next(), 9);
    }

    #[test]
    fn it_covers_what_it_has_and_what_comes_next() {
        let window = window(1 << 20, 5..8);
        let covered: Vec<_> = (0..12).filter(|offset| window.covers(*offset)).collect();
        assert_eq!(covered, [5, 6, 7, 8]);
    }

    #[test]
    fn a_read_keeps_to_its_limit_but_answers_one_record() {
        let window = window(1 << 20, 5..8);
        assert_eq!(window.count(5, 0), 1);
        assert_eq!(window.count(5, 250), 2);
        assert_eq!(window.count(6, usize::MAX), 2);
        assert_eq!(window.count(8, usize::MAX), 0);
        assert_eq!(window.read(6, 1), [record(6)]);
    }

    #[test]
    fn it_is_full_until_somebody_has_read() {
        let mut window = window(10 * (100 + RECORD_BYTES), 0..10);
        assert!(window.is_full());
        window.pass(4);
        assert!(!window.is_full() && !window.has_room());
        window.pass(10);
        assert!(window.has_room());
        assert_eq!(window.next(), 10);
        assert!(window.covers(9), "a little of what was read is kept");
        assert!(!window.covers(4));
    }
}
