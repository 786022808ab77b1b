//! How much room a disk has left, and whether it is enough to take more writes. All calls
//! that ask the disk block.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::fs::statvfs;

/// Free space below which an embedded server takes no writes, in bytes, unless something else
/// is set: enough for what workers and compaction have under way.
pub const DISK_RESERVE_BYTES_DEFAULT: u64 = 64 << 20;

/// Bytes that this user can still write to the file system of `dir`; `None` if it does not say.
pub fn available(dir: &Path) -> Option<u64> {
    let stat = statvfs(dir).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

/// What to do about an error of a file.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    use io::ErrorKind::*;
    match error.kind() {
        StorageFull | QuotaExceeded => "free some of its disk",
        PermissionDenied => "make sure that this user may read and write there",
        ReadOnlyFilesystem => "make its file system writable",
        NotFound => "make sure that it is there, or restore it from a backup",
        _ => "make sure that its disk works",
    }
}

/// Whether writes are taken, which is no more the case once the disk is nearly full. Clones are
/// handles of the same.
#[derive(Clone, Debug, Default)]
pub struct DiskReserve(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    reserve_bytes: u64,
    is_low: AtomicBool,
}

impl DiskReserve {
    /// Keeps so many bytes free on the disk of `dir`. The default one keeps nothing.
    pub fn new(dir: PathBuf, reserve_bytes: u64) -> Self {
        Self(Some(Arc::new(Inner { dir, reserve_bytes, is_low: AtomicBool::new(false) })))
    }

    /// Looks how much is free, and says whether that has changed anything. Blocks.
    pub fn look(&self) -> bool {
        let Some(inner) = &self.0 else { return false };
        let Some(free) = available(&inner.dir) else { return false };
        let was_low = inner.is_low.load(Ordering::Relaxed);
        let is_low = is_low(was_low, free, inner.reserve_bytes);
        inner.is_low.store(is_low, Ordering::Relaxed);
        is_low != was_low
    }

    /// Why nothing may be written now, and what to do.
    pub fn refusal(&self) -> Option<String> {
        let inner = self.0.as_ref().filter(|inner| inner.is_low.load(Ordering::Relaxed))?;
        Some(format!(
            "the disk of {} has less than {} MiB left (--disk-reserve): free some. Nothing is \
             written meanwhile, reads go on, and writes resume by themselves",
            inner.dir.display(),
            inner.reserve_bytes.div_ceil(1 << 20)
        ))
    }
}

/// Whether so much is too little. Once it is, a quarter more than the reserve is needed again,
/// so that it does not change with every write.
fn is_low(was_low: bool, free: u64, reserve: u64) -> bool {
    free < if was_low { reserve.saturating_add(reserve / 4) } else { reserve }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_resume_only_above_the_reserve() {
        let mut low = false;
        let seen = [100, 99, 100, 124, 125, 100].map(|free| {
            low = is_low(low, free, 100);
            low
        });
        assert_eq!(seen, [false, true, true, true, false, false]);
        assert!(!is_low(false, 0, 0), "no reserve");
    }

    #[test]
    fn full_disk_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        assert!(available(dir.path()).unwrap() > 0);
        let reserve = DiskReserve::new(dir.path().to_owned(), u64::MAX);
        assert_eq!(reserve.refusal(), None, "it has not looked");
        assert!(reserve.look() && !reserve.look());
        let said = reserve.refusal().unwrap();
        assert!(said.contains(dir.path().to_str().unwrap()) && said.contains("--disk-reserve"));
        let plenty = DiskReserve::new(dir.path().to_owned(), 1);
        assert!(!plenty.look() && plenty.refusal().is_none());
        assert!(!DiskReserve::default().look());
    }
}
