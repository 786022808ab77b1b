//! The files of the store, which are opened again after a write to them has failed.
//!
//! After a failed write fjall takes no more: what reached the disk is not known. Reads go on
//! from what is open until there is room again; then the files are closed and opened, which
//! tells how far each partition has come on disk, and the workers write the rest once more.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use super::disk::{Disk, Mark};
use crate::{free_space, store::StoreError};

/// The files are opened again only with so much room: recovery writes too.
const REOPEN_FREE_MIN: u64 = 16 << 20;
/// How long reads under way may take to let go of the files.
const LET_GO_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(1);

pub(super) struct DiskSlot {
    dir: PathBuf,
    cache_bytes: u64,
    /// `None` while they are opened again.
    open: RwLock<Option<Arc<Disk>>>,
    /// Held by the one who opens them again.
    reopening: Mutex<()>,
}

impl DiskSlot {
    pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let open = RwLock::new(Some(Arc::new(Disk::open(dir, cache_bytes)?)));
        Ok(Self { dir: dir.to_owned(), cache_bytes, open, reopening: Mutex::default() })
    }

    /// The files, to be let go of soon.
    pub(super) fn get(&self) -> Result<Arc<Disk>, StoreError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or_else(|| self.unavailable("its files are being opened again"))
    }

    /// Whether they take no more writes.
    pub(super) fn has_failed(&self) -> bool {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().is_none_or(|disk| disk.has_failed())
    }

    /// Opens them again if a write has failed, and says how far each partition has come on
    /// disk. `None`: there was no need. Waits for the disk.
    pub(super) fn reopen(&self) -> Result<Option<BTreeMap<u32, Mark>>, StoreError> {
        let _reopening = self.reopening.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has_failed() {
            return Ok(None);
        }
        if free_space::available(&self.dir).is_some_and(|free| free < REOPEN_FREE_MIN) {
            let mib = REOPEN_FREE_MIN >> 20;
            let reason = format!("a write has failed, and its disk has less than {mib} MiB left");
            return Err(self.unavailable(&reason));
        }
        let failed = self.set(None);
        if let Some(failed) = failed {
            let begun = Instant::now();
            while Arc::strong_count(&failed) > 1 {
                if begun.elapsed() > LET_GO_MAX {
                    self.set(Some(failed));
                    return Err(self.unavailable("reads under way do not end"));
                }
                thread::sleep(LOOK_EVERY);
            }
        }
        let disk = Disk::open(&self.dir, self.cache_bytes)?;
        let marks = disk.marks()?;
        self.set(Some(Arc::new(disk)));
        tracing::warn!(
            dir = %self.dir.display(),
            "the store was opened again after a write had failed; what did not reach the disk is \
             written again from the event log"
        );
        Ok(Some(marks))
    }

    fn set(&self, disk: Option<Arc<Disk>>) -> Option<Arc<Disk>> {
        std::mem::replace(&mut *self.open.write().unwrap_or_else(PoisonError::into_inner), disk)
    }

    fn unavailable(&self, reason: &str) -> StoreError {
        StoreError::Disk { dir: self.dir.display().to_string(), reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Event, Post, PostId, UserId},
        store::{
            Accounts, Ledger, Lookups,
            embedded::{EmbeddedStore, Settings},
        },
    };

    fn post(id: u64) -> Event {
        let post = Post::plain(PostId(id), UserId(id));
        Event::PostPublished { post, request_id: None }
    }

    #[tokio::test]
    async fn failed_files_are_opened_again_and_the_rest_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(dir.path(), Settings::default()).unwrap();
        let events: Vec<Event> = (1..=4).map(post).collect();
        store.apply(0, 0, events[..2].into()).await.unwrap();
        assert!(store.check(0).is_ok());
        // A read under way holds the files for a while.
        let held = store.inner.disk.get().unwrap();
        held.set_failed();
        assert!(matches!(store.check(0), Err(StoreError::Lost { partition: 0 })));
        assert!(store.posts(&[PostId(1)]).await.unwrap()[0].is_some(), "reads go on");
        let resuming = {
            let store = store.clone();
            tokio::spawn(async move { store.resume(0, 0).await.unwrap().marks })
        };
        while store.inner.disk.get().is_ok() {
            tokio::task::yield_now().await;
        }
        drop(held);
        let marks = resuming.await.unwrap();
        assert_eq!((marks.applied, marks.attempted), (2, 2), "all of it is on disk");
        store.apply(0, 2, events[2..3].into()).await.unwrap();

        // As if the last two had not reached the disk.
        store.inner.behind.lock().unwrap().insert(0, 1);
        assert!(store.check(0).is_err());
        assert!(matches!(
            store.apply(0, 3, events[3..].into()).await,
            Err(StoreError::Lost { partition: 0 })
        ));
        let marks = store.resume(0, 0).await.unwrap().marks;
        assert_eq!((marks.applied, marks.attempted), (1, 3));
        store.apply(0, 1, events[1..].into()).await.unwrap();
        assert!(store.check(0).is_ok());
        drop(store);
        let store = EmbeddedStore::open(dir.path(), Settings::default()).unwrap();
        assert_eq!(store.applied(0), 4);
        for id in 1..=4 {
            assert!(store.account(UserId(id)).await.unwrap().is_some(), "{id}");
            assert!(store.posts(&[PostId(id)]).await.unwrap()[0].is_some(), "{id}");
        }
    }
}
