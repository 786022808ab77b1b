//! Where a bench keeps its own data: one directory for all of it, which goes with the bench,
//! unless a signal ends that of which it learns nothing (`SIGKILL`).

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::BenchError;

/// Servers and workers that are ending may write for so long.
const REMOVE_MAX: Duration = Duration::from_secs(10);
const REMOVE_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The directory of one run.
#[derive(Debug)]
pub struct Workspace(TempDir);

impl Workspace {
    /// Makes it where the system keeps what is temporary.
    ///
    /// # Errors
    /// If it cannot be made there.
    pub fn make() -> Result<Self, BenchError> {
        TempDir::with_prefix("roost-bench-").map(Self).map_err(BenchError::Dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Removes it and all that is in it, once nobody writes there any more.
    ///
    /// # Errors
    /// If something of it is still there after ten seconds.
    pub async fn remove(self) -> Result<(), BenchError> {
        let dir = self.0.keep();
        let deadline = Instant::now() + REMOVE_MAX;
        loop {
            match removed(dir.clone()).await {
                Ok(()) => return Ok(()),
                Err(source) if Instant::now() >= deadline => {
                    return Err(BenchError::Left { dir, source });
                }
                Err(_) => sleep(REMOVE_AGAIN_AFTER).await,
            }
        }
    }
}

/// A directory of somebody's own in `workspace`, which goes when it is dropped.
pub(super) fn dir_in(workspace: &Path) -> Result<TempDir, BenchError> {
    TempDir::new_in(workspace).map_err(BenchError::Dir)
}

async fn removed(dir: PathBuf) -> io::Result<()> {
    let removed = tokio::task::spawn_blocking(move || match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ if dir.exists() => Err(io::Error::other("somebody has written into it meanwhile")),
        _ => Ok(()),
    });
    removed.await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc, thread};

    use super::*;

    #[tokio::test]
    async fn it_is_gone_though_somebody_still_wrote_into_it() {
        let workspace = Workspace::make().expect("a directory");
        let path = workspace.path().to_owned();
        let inner = dir_in(&path).expect("one in it").keep();
        let (begun, has_begun) = mpsc::channel();
        let writer = thread::spawn(move || {
            for file in 0..2_000 {
                // Whoever finds its directory gone has nothing more to write.
                let written = fs::write(inner.join(file.to_string()), "posts");
                if written.is_err() {
                    return;
                }
                let _ = begun.send(());
            }
        });
        has_begun.recv().expect("a file");
        workspace.remove().await.expect("it goes");
        assert!(!path.exists());
        writer.join().expect("a writer");
    }
}
