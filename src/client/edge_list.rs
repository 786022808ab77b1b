//! Edge lists in SNAP's text form: `follower followee` a line.
//!
//! The whole file is read and checked before anything is done with it, so a
//! broken line imports nothing. An edge takes 16 bytes; they are sorted in place
//! by followee, so that the lists that go over the wire are long.

use std::path::PathBuf;

use tokio::task;

pub use super::text_file::FileError;
use super::{
    progress::Reporter,
    text_file::{OnLine, TextFile, fields, number, with_progress},
};
use crate::domain::UserId;

/// Lines between two looks at the clock of whoever watches.
const LINES_BETWEEN_REPORTS: u64 = 1 << 16;

/// A follow. Sorts by followee, then by follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// The account that is followed.
    pub followee: UserId,
    /// The account that follows it.
    pub follower: UserId,
}

/// What an edge list holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EdgeList {
    /// The follows, sorted, none twice, none of an account following itself.
    pub edges: Vec<Edge>,
    /// Lines skipped because an account follows itself there.
    pub self_follow_count: u64,
    /// Lines skipped because another says the same.
    pub duplicate_count: u64,
    /// A number that stands for the content of the file.
    pub fingerprint: u64,
}

/// Why an edge list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EdgeListError {
    /// The file cannot be read, or a line is broken.
    #[error(transparent)]
    File(#[from] FileError),
    /// The thread that read it died.
    #[error("reading the file failed: {0}")]
    Task(#[from] task::JoinError),
}

/// Reads and checks a whole edge list, adding `id_offset` to every id. Blocks.
///
/// `on_line` is told the number of lines read, now and then.
///
/// # Errors
/// If the file cannot be read, a line is not two ids of at least 1, or `on_line`
/// fails.
pub fn read(
    path: PathBuf,
    id_offset: u64,
    mut on_line: impl FnMut(u64) -> Result<(), FileError>,
) -> Result<EdgeList, FileError> {
    let mut file = TextFile::open(&path)?;
    let mut list = EdgeList::default();
    while let Some(line) = file.next_line()? {
        match parse_line(line, id_offset) {
            Ok(Some(edge)) if edge.follower == edge.followee => list.self_follow_count += 1,
            Ok(Some(edge)) => list.edges.push(edge),
            Ok(None) => {}
            Err(problem) => return Err(file.broken(problem)),
        }
        if file.line_number().is_multiple_of(LINES_BETWEEN_REPORTS) {
            on_line(file.line_number())?;
        }
    }
    on_line(file.line_number())?;
    list.fingerprint = file.fingerprint();
    let read_count = list.edges.len();
    list.edges.sort_unstable();
    list.edges.dedup();
    list.duplicate_count = (read_count - list.edges.len()) as u64;
    Ok(list)
}

/// [`read`] on a thread for blocking work, with its progress reported.
///
/// # Errors
/// As [`read`].
pub async fn read_with_progress(
    path: PathBuf,
    id_offset: u64,
    reporter: &mut impl Reporter,
) -> Result<EdgeList, EdgeListError> {
    let reading = move |on_line: &mut OnLine| read(path, id_offset, on_line);
    Ok(with_progress("reading lines", reporter, reading).await??)
}

/// `None` for a line that holds no edge.
fn parse_line(line: &[u8], id_offset: u64) -> Result<Option<Edge>, String> {
    let mut fields = fields(line);
    let Some(first) = fields.next() else { return Ok(None) };
    if first.starts_with(b"#") {
        return Ok(None);
    }
    let (Some(second), None) = (fields.next(), fields.next()) else {
        return Err("not of the form `follower followee`".to_owned());
    };
    let follower = parse_id(first, id_offset)?;
    let followee = parse_id(second, id_offset)?;
    Ok(Some(Edge { followee, follower }))
}

fn parse_id(field: &[u8], id_offset: u64) -> Result<UserId, String> {
    let id = number(field).ok_or("not two decimal numbers below 2^64")?;
    match id.checked_add(id_offset) {
        Some(0) => Err("the ids of Roost begin at 1, but here is a 0; --id-offset 1 adds 1 to \
                        every id of the file"
            .to_owned()),
        Some(id) => Ok(UserId(id)),
        None => Err(format!("the id passes 2^64 with --id-offset {id_offset}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::text_file::tests::{file_of, gzip},
        *,
    };

    fn read_bytes(content: &[u8], id_offset: u64) -> Result<EdgeList, FileError> {
        read(file_of(content).path().to_owned(), id_offset, |_| Ok(()))
    }

    fn edge(follower: u64, followee: u64) -> Edge {
        Edge { followee: UserId(followee), follower: UserId(follower) }
    }

    #[test]
    fn snap_files_are_read_sorted_and_counted() {
        let text = b"# Directed graph\r\n\r\n3 1\r\n2\t1\n  9   4  \n3 1\n5 5\n# end\n1 9";
        let list = read_bytes(text, 0).expect("a good file");
        assert_eq!(list.edges, [edge(2, 1), edge(3, 1), edge(9, 4), edge(1, 9)]);
        assert_eq!((list.self_follow_count, list.duplicate_count), (1, 1));
        let gzipped = read_bytes(&gzip(text), 0).expect("a good file");
        assert_eq!(list, gzipped);
    }

    #[test]
    fn a_broken_line_is_named_and_quoted() {
        for (line, problem) in [
            ("1", "not of the form"),
            ("1 2 3", "not of the form"),
            ("1 x", "not two decimal numbers"),
            ("1 -2", "not two decimal numbers"),
            ("1 99999999999999999999", "not two decimal numbers"),
            ("0 2", "--id-offset 1"),
        ] {
            let error = read_bytes(format!("# c\n1 2\n{line}\n4 5\n").as_bytes(), 0)
                .expect_err(line)
                .to_string();
            assert!(error.contains("line 3: "), "{error}");
            assert!(error.contains(problem), "{error}");
            assert!(error.contains(line), "{error}");
        }
    }

    #[test]
    fn an_offset_makes_room_for_id_zero() {
        let list = read_bytes(b"0 1\n", 1).expect("shifted");
        assert_eq!(list.edges, [edge(1, 2)]);
        let error = read_bytes(b"1 18446744073709551615\n", 1).expect_err("too far");
        assert!(error.to_string().contains("--id-offset"), "{error}");
    }

    #[test]
    fn binary_garbage_is_a_short_clear_error() {
        let garbage: Vec<u8> =
            (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let error = read_bytes(&garbage, 0).expect_err("garbage").to_string();
        assert!(error.contains("line 1: "), "{error}");
        assert!(error.len() < 400 && error.is_ascii(), "{error}");
    }
}
