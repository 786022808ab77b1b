//! What can go wrong with feeds, each in one line that says what to do.

use std::{io, path::PathBuf};

use crate::client::{ClientError, text_file::FileError};

/// Why `roost rss` failed. What goes wrong with one feed is in the log, and does not end it.
#[derive(Debug, thiserror::Error)]
pub enum RssError {
    /// The list cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Lines of the list are broken. Nothing was polled.
    #[error("{}", one_line(.0))]
    BrokenList(Vec<FileError>),
    /// The list holds comments only, or nothing.
    #[error("{} names no feed; write `account URL` a line", path.display())]
    EmptyList {
        /// Which file.
        path: PathBuf,
    },
    /// The list is too long.
    #[error(
        "{} names more than {feeds_max} feeds, and one process polls no more; divide it among \
         several, each with a --state of its own", path.display()
    )]
    LongList {
        /// Which file.
        path: PathBuf,
        /// How many it may.
        feeds_max: usize,
    },
    /// A setting allows what is no host and no network.
    #[error("--allow-host (ROOST_RSS_ALLOW_HOST): {0}")]
    BadAllowedHost(String),
    /// Another process has the state.
    #[error(
        "{} is in use by another `roost rss`; stop it, or name another directory with --state",
        dir.display()
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// What is written of a feed says nothing.
    #[error(
        "{} is damaged ({problem}); remove it, and its feed is begun anew, without posting \
         twice what was posted", path.display()
    )]
    DamagedState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The operating system refused.
    #[error(
        "{action} {} failed: {source}; make sure that this user may write there and that the \
         disk has room", path.display()
    )]
    Io {
        /// What was tried, as a present participle.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// HTTPS cannot be spoken.
    #[error("HTTPS cannot be used: {0}")]
    Tls(String),
    /// The server's address is none, or a task died.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// With --once: some feeds could not be read, or not all that is new was posted.
    #[error("{failed} of {feeds} feeds failed; the log names each of them")]
    FeedsFailed {
        /// How many failed.
        failed: usize,
        /// How many there are.
        feeds: usize,
    },
}

fn one_line(problems: &[FileError]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
