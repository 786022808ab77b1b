//! What a load has done, in a file, for the next run of the same load.
//!
//! Without it a run sends everything again, which a server that has forgotten what it
//! acknowledged would take for new; with it what was acknowledged is never sent again,
//! and is missed if it is gone.

use std::{fmt::Write, io, path::Path};

use super::{LoadError, board::Board, messages::Messages};
use crate::domain::{MessageId, PostId};

const IMPORTED: &str = "imported";
const MESSAGE: &str = "message ";

/// A line with the run's name, one that says whether the follows were imported,
/// `number id` of every acknowledged post, and `message number id` of every message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Journal {
    pub(super) run: String,
    /// Whether all follows were imported.
    pub(super) imported: bool,
    pub(super) acked: Vec<(u32, PostId)>,
    pub(super) messages: Vec<(u32, MessageId)>,
}

impl Journal {
    /// That of a run; an empty one where there is no file.
    pub(super) async fn read(path: &Path, run: &str, posts: u32) -> Result<Self, LoadError> {
        let bad = |problem: String| LoadError::Journal { path: path.to_owned(), problem };
        let text = match tokio::fs::read_to_string(path).await {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { run: run.to_owned(), ..Self::default() });
            }
            Err(error) => return Err(bad(error.to_string())),
        };
        let journal = Self::parse(&text).ok_or_else(|| bad("it is no journal".to_owned()))?;
        if journal.run != run || journal.acked.iter().any(|(number, _)| *number >= posts) {
            return Err(bad(format!("it is of the run {}, and this one is {run}", journal.run)));
        }
        Ok(journal)
    }

    /// With everything that has been acknowledged by now.
    pub(super) async fn write(
        &self,
        path: &Path,
        board: &Board,
        messages: &Messages,
    ) -> Result<(), LoadError> {
        let acked = (0..board.post_count()).filter_map(|number| Some((number, board.id(number)?)));
        let journal = Self {
            run: self.run.clone(),
            imported: self.imported,
            acked: acked.collect(),
            messages: messages.all().into_iter().collect(),
        };
        let text = journal.to_text();
        let written = tokio::fs::write(path, text).await;
        written.map_err(|error| LoadError::Journal {
            path: path.to_owned(),
            problem: error.to_string(),
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let run = lines.next()?.to_owned();
        let imported = lines.next()? == IMPORTED;
        let mut journal = Self { run, imported, ..Self::default() };
        for line in lines {
            let message = line.strip_prefix(MESSAGE);
            let (number, id) = message.unwrap_or(line).split_once(' ')?;
            let (number, id) = (number.parse().ok()?, id.parse().ok()?);
            match message {
                Some(_) => journal.messages.push((number, MessageId(id))),
                None => journal.acked.push((number, PostId(id))),
            }
        }
        Some(journal)
    }

    fn to_text(&self) -> String {
        let imported = if self.imported { IMPORTED } else { "" };
        let mut text = format!("{}\n{imported}\n", self.run);
        for (number, id) in &self.acked {
            // A string takes everything.
            let _ = writeln!(text, "{number} {id}");
        }
        for (number, id) in &self.messages {
            let _ = writeln!(text, "{MESSAGE}{number} {id}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_says_what_was_written() {
        for imported in [true, false] {
            let acked = vec![(0, PostId(7)), (3, PostId(5))];
            let messages = vec![(1, MessageId(6))];
            let journal = Journal { run: "r".to_owned(), imported, acked, messages };
            assert_eq!(Journal::parse(&journal.to_text()), Some(journal));
        }
        assert_eq!(Journal::parse(""), None);
        assert_eq!(Journal::parse("r\nimported\n1 x\n"), None);
        assert_eq!(Journal::parse("r\nimported\nmessage 1\n"), None);
    }
}
