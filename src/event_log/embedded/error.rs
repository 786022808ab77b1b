//! Short ways to say what went wrong with a file.

use std::{io, path::Path};

use crate::event_log::LogError;

/// The operating system refused; `action` is a present participle.
pub fn io_error(action: &'static str, path: &Path, source: io::Error) -> LogError {
    LogError::Io { action, file: path.display().to_string(), source }
}

/// A file cannot be right.
pub fn corrupt(path: &Path, position: u64, reason: impl Into<String>) -> LogError {
    LogError::Corrupt {
        file: path.display().to_string(),
        position,
        reason: reason.into(),
        advice: "restore this file from a backup, since events that were acknowledged cannot be \
                 read",
    }
}

/// Damage of a file that holds nothing of its own.
pub fn dispensable(path: &Path, reason: &str) -> LogError {
    LogError::Corrupt {
        file: path.display().to_string(),
        position: 0,
        reason: reason.to_owned(),
        advice: "remove this file: events that were delivered are delivered again, which changes \
                 nothing",
    }
}

/// An error once more, for each of several that wait for the same write.
pub fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
