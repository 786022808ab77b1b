//! Files that a user names, which may be slow to come. All calls block.

use std::{
    fmt::Display,
    fs, io,
    path::Path,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

/// A file of which nothing has come for so long is waited for aloud.
const NOTICE_AFTER: Duration = Duration::from_secs(1);

/// Says on stderr that a file is waited for, unless it is dropped within a second.
///
/// Opening a FIFO waits until another process opens it for writing, and reading it until that
/// process writes, perhaps for ever.
pub(crate) struct SlowInputNotice {
    /// Hangs up when it is dropped.
    _come: Sender<()>,
}

impl SlowInputNotice {
    pub(crate) fn of(path: &Path) -> Self {
        let (come, waiting) = mpsc::channel();
        let notice = notice(path.display());
        let wait = move || {
            if waiting.recv_timeout(NOTICE_AFTER) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{notice}");
            }
        };
        // Without a thread it is waited for in silence.
        let _ = thread::Builder::new().spawn(wait);
        Self { _come: come }
    }
}

fn notice(path: impl Display) -> String {
    format!(
        "roost: waiting for {path}, from which nothing has come yet; if it is a FIFO, another \
         program has to write into it; Ctrl-C ends the wait"
    )
}

/// [`fs::read_to_string`], aloud where it has to wait.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    let _notice = SlowInputNotice::of(path);
    fs::read_to_string(path)
}
