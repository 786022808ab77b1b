//! The offset at which a worker resumes, in a small file beside the segments.
//!
//! ```text
//!  0        4        8                16
//!  ┌────────┬────────┬────────────────┐
//!  │ magic  │ crc32c │ offset         │   little-endian
//!  └────────┴────────┴────────────────┘
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::error::{dispensable, io_error};
use crate::{durable_file, event_log::LogError};

const FILE_NAME: &str = "committed";
const MAGIC: [u8; 4] = *b"\xF5rc1";

/// The committed offset of a partition.
#[derive(Debug)]
pub struct Committed {
    dir: PathBuf,
    offset: AtomicU64,
    /// Held while the file is replaced.
    replacing: Mutex<()>,
}

impl Committed {
    /// Reads the file in `dir`; without one the offset is 0.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        let path = dir.join(FILE_NAME);
        let offset = match fs::read(&path) {
            Ok(bytes) => {
                decode(&bytes).ok_or_else(|| dispensable(&path, "it is not a committed offset"))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(io_error("reading", &path, error)),
        };
        Ok(Self { dir: dir.to_owned(), offset: offset.into(), replacing: Mutex::default() })
    }

    /// The offset last committed.
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// Remembers `offset`, unless one beyond it is remembered already. Blocks.
    pub fn commit(&self, offset: u64) -> Result<(), LogError> {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        if offset > self.offset() {
            durable_file::replace(&self.dir, FILE_NAME, &encode(offset))
                .map_err(|error| io_error("writing", &self.dir.join(FILE_NAME), error))?;
            self.offset.store(offset, Ordering::Release);
        }
        Ok(())
    }
}

fn encode(offset: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..8].copy_from_slice(&crc32c::crc32c(&offset.to_le_bytes()).to_le_bytes());
    bytes[8..].copy_from_slice(&offset.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let bytes: &[u8; 16] = bytes.try_into().ok()?;
    let offset = u64::from_le_bytes(*bytes.last_chunk()?);
    (encode(offset) == *bytes).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_survives_and_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let committed = Committed::open(dir.path()).unwrap();
        assert_eq!(committed.offset(), 0);
        committed.commit(7).unwrap();
        committed.commit(3).unwrap();
        assert_eq!(committed.offset(), 7);
        assert_eq!(Committed::open(dir.path()).unwrap().offset(), 7);
    }

    #[test]
    fn a_changed_file_is_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        Committed::open(dir.path()).unwrap().commit(7).unwrap();
        let path = dir.path().join(FILE_NAME);
        let good = fs::read(&path).unwrap();
        for byte in 0..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 1;
            fs::write(&path, bad).unwrap();
            let error = Committed::open(dir.path()).unwrap_err();
            assert!(matches!(error, LogError::Corrupt { .. }), "byte {byte}: {error}");
        }
        fs::write(&path, []).unwrap();
        assert!(Committed::open(dir.path()).is_err());
    }
}
