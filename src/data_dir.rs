//! The directory in which a node keeps everything: one process at a time, and
//! one format.
//!
//! ```text
//! dir/FORMAT    the version of the layout, for people too
//! dir/LOCK      locked by the process that uses it, with its pid
//! dir/log/      the embedded event log
//! dir/store/    the embedded store
//! ```
//!
//! Directories are made with mode 0700 and files with 0600.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::durable_file;

/// The version that this program reads and writes.
const VERSION: u32 = 1;
const FORMAT: &str = "FORMAT";
const FORMAT_NEW: &str = "FORMAT.new";
const LOCK: &str = "LOCK";
const STORE: &str = "store";
/// A store on its way out.
const STORE_OLD: &str = "store.old";
const FORMAT_PREFIX: &str = "Roost data directory, version ";

/// A data directory, locked for this process as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The operating system unlocks it when it is closed, however that happens.
    _lock: File,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("the data directory {dir} is in use by {holder}; stop it, or choose another directory")]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who has it, as far as it said.
        holder: String,
    },
    /// A later version of the program has written it.
    #[error(
        "the data directory {dir} has version {version}, and this program knows {VERSION} at \
         most; use a newer one. Nothing was changed"
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its version.
        version: u32,
    },
    /// There is none.
    #[error("there is no data directory at {dir}; name the one of your server with --data-dir")]
    Missing {
        /// Where it should be.
        dir: PathBuf,
    },
    /// There is something in it that is not Roost's.
    #[error("{dir} is neither empty nor a data directory; choose another one. Nothing was changed")]
    NotRoost {
        /// The directory.
        dir: PathBuf,
    },
    /// Its `FORMAT` says nothing that any version wrote.
    #[error(
        "{file} is damaged; if this is a data directory, its one line is \
             \"{FORMAT_PREFIX}{VERSION}\". Nothing was changed"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
    },
    /// The operating system refused.
    #[error("{action} {path} failed: {source}; {}", crate::free_space::advice(source))]
    Io {
        /// What was tried, as a present participle.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl DataDir {
    /// Opens a data directory, or makes one where there is nothing. Blocks.
    ///
    /// # Errors
    ///
    /// Nothing is changed in a directory of a newer version, or in one that is
    /// not Roost's.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DataDirError> {
        let path = path.into();
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { action, path, source }
        };
        durable_file::create_dir_all(&path).map_err(io("creating", &path))?;
        let is_new = match fs::read_to_string(path.join(FORMAT)) {
            Ok(text) => check_version(&path, &text).map(|()| false)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                check_empty(&path)
                    .map_err(io("listing", &path))?
                    .ok_or_else(|| DataDirError::NotRoost { dir: path.clone() })?;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(DataDirError::Damaged { file: path.join(FORMAT) });
            }
            Err(error) => return Err(io("reading", &path.join(FORMAT))(error)),
        };
        let lock = lock(&path)?;
        warn_if_open_to_others(&path);
        if is_new {
            let text = format!("{FORMAT_PREFIX}{VERSION}\n");
            durable_file::replace(&path, FORMAT, text.as_bytes())
                .map_err(io("writing", &path.join(FORMAT)))?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// As [`open`](Self::open), but makes none.
    ///
    /// # Errors
    ///
    /// As `open`; and if there is none.
    pub fn open_existing(path: &Path) -> Result<Self, DataDirError> {
        if !path.join(FORMAT).exists() {
            return Err(DataDirError::Missing { dir: path.to_owned() });
        }
        Self::open(path)
    }

    /// Removes the embedded store; after a crash all of it is there, or nothing that
    /// anybody looks at. Blocks.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    pub fn remove_store(&self) -> Result<(), DataDirError> {
        let (store, old) = (self.store_dir(), self.path.join(STORE_OLD));
        let remove = || {
            remove_dir_all(&old)?;
            match fs::rename(&store, &old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => durable_file::sync_dir(&self.path)?,
            }
            remove_dir_all(&old)
        };
        remove().map_err(|source| DataDirError::Io { action: "removing", path: store, source })
    }

    /// Where the embedded event log is. Not made yet.
    pub fn log_dir(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the embedded store is. Not made yet.
    pub fn store_dir(&self) -> PathBuf {
        self.path.join(STORE)
    }
}

/// What Roost makes is for its owner alone (0700 and 0600), the files of fjall by the directory
/// that they are in. A directory that was there is left as it is.
fn warn_if_open_to_others(dir: &Path) {
    let mode = fs::metadata(dir).map(|about| about.permissions().mode() & 0o777);
    if let Ok(mode) = mode.as_ref()
        && mode & 0o077 != 0
    {
        tracing::warn!(
            dir = %dir.display(),
            "other users may enter the data directory (mode {mode:o}), which holds private \
             messages: run `chmod 700 {}`", dir.display()
        );
    }
}

/// Removes a directory, if it is there.
fn remove_dir_all(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn check_version(dir: &Path, text: &str) -> Result<(), DataDirError> {
    match text.strip_prefix(FORMAT_PREFIX).and_then(|rest| rest.trim_end().parse().ok()) {
        Some(VERSION) => Ok(()),
        Some(version) if version > VERSION => {
            Err(DataDirError::Newer { dir: dir.to_owned(), version })
        }
        _ => Err(DataDirError::Damaged { file: dir.join(FORMAT) }),
    }
}

/// `None` if a directory without `FORMAT` holds more than an interrupted `open`
/// leaves.
fn check_empty(dir: &Path) -> io::Result<Option<()>> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if name != LOCK && name != FORMAT && name != FORMAT_NEW {
            return Ok(None);
        }
    }
    Ok(Some(()))
}

fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join(LOCK);
    let io = |action| {
        let path = path.clone();
        move |source| DataDirError::Io { action, path, source }
    };
    let open = durable_file::private().read(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(io("opening"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // Only for the message, so whatever it holds will do.
            let _ = file.take(20).read_to_string(&mut text);
            let holder = match text.trim().parse::<u32>() {
                Ok(pid) => format!("process {pid}"),
                Err(_) => "another process".to_owned(),
            };
            return Err(DataDirError::InUse { dir: dir.to_owned(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(io("locking")(error)),
    }
    let mut write_pid = || {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write_pid().map_err(io("writing"))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_store_is_gone_with_what_an_earlier_try_has_left() {
        let parent = tempfile::tempdir().unwrap();
        let dir = DataDir::open(parent.path()).unwrap();
        for name in [STORE, STORE_OLD] {
            fs::create_dir(parent.path().join(name)).unwrap();
            fs::write(parent.path().join(name).join("file"), "x").unwrap();
        }
        dir.remove_store().unwrap();
        assert_eq!(names(parent.path()), ["FORMAT", "LOCK"]);
        dir.remove_store().unwrap();
        let missing = DataDir::open_existing(&parent.path().join("none")).unwrap_err();
        assert!(matches!(missing, DataDirError::Missing { .. }));
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_directory_is_made_locked_and_opened_again() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let dir = DataDir::open(&path).unwrap();
        assert_eq!(names(&path), [FORMAT, LOCK]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(&path), mode(&parent.path().join("a"))], [0o700; 2]);
        assert_eq!([FORMAT, LOCK].map(|name| mode(&path.join(name))), [0o600; 2]);
        assert_eq!((dir.log_dir(), dir.store_dir()), (path.join("log"), path.join("store")));

        let message = DataDir::open(&path).unwrap_err().to_string();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");

        fs::create_dir(dir.log_dir()).unwrap();
        drop(dir);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn what_an_interrupted_open_left_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK), "1\n").unwrap();
        fs::write(dir.path().join(FORMAT_NEW), "Roo").unwrap();
        DataDir::open(dir.path()).unwrap();
        assert_eq!(names(dir.path()), [FORMAT, LOCK]);
    }

    #[test]
    fn a_newer_version_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FORMAT), format!("{FORMAT_PREFIX}2\n")).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Newer { version: 2, .. }), "{error}");
        assert_eq!(names(dir.path()), [FORMAT]);
    }

    #[test]
    fn a_format_that_nobody_wrote_is_refused() {
        for text in [b"".as_slice(), b"version 1", b"\xFF\xFF", b"Roost data directory, version 0"]
        {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FORMAT), text).unwrap();
            let error = DataDir::open(dir.path()).unwrap_err();
            assert!(matches!(error, DataDirError::Damaged { .. }), "{error}");
            assert_eq!(names(dir.path()), [FORMAT]);
        }
    }

    #[test]
    fn the_directory_of_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, DataDirError::NotRoost { .. }), "{error}");
        assert_eq!(names(dir.path()), ["thesis.tex"]);
    }
}
