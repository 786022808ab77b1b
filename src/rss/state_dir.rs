//! Where it is kept what is remembered of feeds: a file for each, which its owner alone can
//! read, since it holds whole URLs. All calls block.
//!
//! ```text
//! dir/LOCK        held while a process polls
//! dir/<id>.json   a feed; <id> follows from its account and its URL
//! ```

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use super::{
    RssError,
    entry::EntryId,
    list::Feed,
    state::{FeedState, VERSION},
};
use crate::durable_file;

const LOCK: &str = "LOCK";

/// The directory, locked for this process as long as this lives.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    /// The operating system unlocks it when it is closed, however that happens.
    _lock: File,
}

impl StateDir {
    /// Opens the directory, and makes it where there is none.
    ///
    /// # Errors
    /// If another process has it, or the operating system refuses.
    pub(super) fn open(path: &Path) -> Result<Self, RssError> {
        durable_file::create_dir_all(path).map_err(failed("making", path))?;
        let file = path.join(LOCK);
        let lock = durable_file::create_file(&file).map_err(failed("opening", &file))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(RssError::InUse { dir: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed("locking", &file)(source)),
        }
    }

    /// What was written of a feed; of one that is new, that it was never read.
    ///
    /// # Errors
    /// If it cannot be read, or is of another feed or version.
    pub(super) fn read(&self, feed: &Feed) -> Result<FeedState, RssError> {
        let path = self.file(feed);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(FeedState::new(feed));
            }
            Err(error) => return Err(failed("reading", &path)(error)),
        };
        let state: Result<FeedState, String> =
            serde_json::from_slice(&text).map_err(|error| error.to_string());
        let checked =
            state.and_then(|state| match (state.version, state.author, state.url.as_str()) {
                (VERSION, author, url) if author == feed.author.0 && url == feed.url.as_str() => {
                    Ok(state)
                }
                (VERSION, ..) => Err("it is of another feed".to_owned()),
                (version, ..) => Err(format!("it has version {version}, known is {VERSION}")),
            });
        checked.map_err(|problem| RssError::DamagedState { path, problem })
    }

    /// Writes what is remembered of a feed: after a crash it is there, or what was before.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(super) fn write(&self, feed: &Feed, state: &FeedState) -> Result<(), RssError> {
        let path = self.file(feed);
        let written = serde_json::to_vec(state)
            .map_err(io::Error::other)
            .and_then(|text| durable_file::replace(&self.path, &name(feed), &text));
        written.map_err(failed("writing", &path))
    }

    /// Where that of a feed is.
    pub(super) fn file(&self, feed: &Feed) -> PathBuf {
        self.path.join(name(feed))
    }
}

fn name(feed: &Feed) -> String {
    format!("{}.json", EntryId::of(&[&feed.author.to_string(), feed.url.as_str()]))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RssError {
    let path = path.to_owned();
    move |source| RssError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use url::Url;

    use super::*;
    use crate::domain::UserId;

    fn feed(author: u64, url: &str) -> Feed {
        Feed { line: 1, author: UserId(author), url: Url::parse(url).expect("a URL") }
    }

    #[test]
    fn what_was_written_is_read_and_feeds_are_kept_apart() {
        let dir = TempDir::new().expect("a directory");
        let state_dir = StateDir::open(&dir.path().join("a/b")).expect("opened");
        let feeds = [feed(1, "http://a/"), feed(2, "http://a/"), feed(1, "http://b/")];
        for (feed, errors) in feeds.iter().zip(1..) {
            let state = FeedState { errors, ..FeedState::new(feed) };
            state_dir.write(feed, &state).expect("written");
        }
        let errors = feeds.map(|feed| state_dir.read(&feed).expect("read").errors);
        assert_eq!(errors, [1, 2, 3]);
        assert!(!state_dir.read(&feed(3, "http://a/")).expect("read").is_known);
    }

    #[test]
    fn a_directory_has_one_process() {
        let dir = TempDir::new().expect("a directory");
        let first = StateDir::open(dir.path()).expect("opened");
        let error = StateDir::open(dir.path()).expect_err("in use").to_string();
        assert!(error.contains("--state"), "{error}");
        drop(first);
        StateDir::open(dir.path()).expect("free again");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = TempDir::new().expect("a directory");
        let state_dir = StateDir::open(dir.path()).expect("opened");
        let feed = feed(1, "http://a/");
        let newer = FeedState { version: 2, ..FeedState::new(&feed) };
        let other = FeedState { author: 2, ..FeedState::new(&feed) };
        let texts = [newer, other].map(|state| serde_json::to_string(&state).expect("JSON"));
        for text in ["", "{", &texts[0], &texts[1]] {
            fs::write(state_dir.file(&feed), text).expect("written");
            let error = state_dir.read(&feed).expect_err(text).to_string();
            assert!(error.contains(".json is damaged") && error.contains("remove it"), "{error}");
        }
    }
}
