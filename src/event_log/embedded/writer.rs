//! Frames to a file, each durable before the next begins.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use crate::durable_file;

/// What the appender needs of a file. There are two: the operating system's, and
/// in the tests one that fails when told to.
pub trait DiskFile: Sized + Send + 'static {
    /// Makes a new, empty file in the same file system.
    fn create(&self, path: &Path) -> io::Result<Self>;
    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Forgets everything from `bytes` on.
    fn truncate(&self, bytes: u64) -> io::Result<()>;
    /// Removes a file that [`create`](Self::create) may have made.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

impl DiskFile for File {
    fn create(&self, path: &Path) -> io::Result<Self> {
        durable_file::private().create_new(true).open(path)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.write_all_at(bytes, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        durable_file::sync_dir(dir)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Why a frame is not durable.
#[derive(Debug)]
pub struct Failure {
    /// What was tried, as a present participle.
    pub action: &'static str,
    /// What the operating system said.
    pub source: io::Error,
    /// Whether the file is as it was before, so that another try is safe. It is
    /// not after a failed fsync: the kernel may have dropped the pages, and a
    /// second fsync would answer that all is well. Then the file must be
    /// [repaired](SegmentWriter::repair) first.
    pub undone: bool,
}

/// The end of a segment.
#[derive(Debug)]
pub struct SegmentWriter<F> {
    pub(super) file: F,
    pub(super) path: Arc<Path>,
    /// The length of the durable frames.
    pub(super) position: u64,
}

impl<F: DiskFile> SegmentWriter<F> {
    /// Writes a frame with one write and makes it durable.
    pub fn append(&mut self, frame: &[u8]) -> Result<(), Failure> {
        if let Err(source) = self.file.write_at(frame, self.position) {
            let undone = self.file.truncate(self.position).is_ok();
            return Err(Failure { action: "writing", source, undone });
        }
        if let Err(source) = self.file.sync() {
            // As far as it goes: the next open should not find a frame in memory
            // that may be missing on disk.
            let _ = self.file.truncate(self.position);
            return Err(Failure { action: "syncing", source, undone: false });
        }
        self.position += frame.len() as u64;
        Ok(())
    }

    /// Cuts the file to the frames that are durable, and makes that durable. What an earlier
    /// fsync may have lost lies behind them; of the page that holds their end, the kernel
    /// writes again what was there.
    pub fn repair(&self) -> Result<(), Failure> {
        let failed = |action| move |source| Failure { action, source, undone: false };
        self.file.truncate(self.position).map_err(failed("truncating"))?;
        self.file.sync().map_err(failed("syncing"))
    }
}
