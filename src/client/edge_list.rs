//! Edge lists: `follower followee` a line, as SNAP, KONECT and MatrixMarket have them and as
//! tables are saved.
//!
//! The whole file is read and checked before anything is done with it, so a
//! broken line imports nothing. An edge takes 16 bytes; they are sorted in place
//! by followee, so that the lists that go over the wire are long.

use std::path::PathBuf;

use tokio::task;

pub use super::text_file::FileError;
use super::{
    progress::Reporter,
    text_file::{OnLine, TextFile, is_comment, number, with_progress},
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
    /// Lines with more than two columns, of which the others were ignored.
    pub longer_line_count: u64,
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
/// If the file cannot be read, a line does not begin with two ids of at least 1, or
/// `on_line` fails.
pub fn read(
    path: PathBuf,
    id_offset: u64,
    mut on_line: impl FnMut(u64) -> Result<(), FileError>,
) -> Result<EdgeList, FileError> {
    let mut file = TextFile::open(&path)?;
    let mut list = EdgeList::default();
    let mut head = Head::Begin;
    while let Some(line) = file.next_line()? {
        let is_edge = head.is_behind(line).and_then(|is_behind| match is_behind {
            true => parse_line(line, id_offset).map(Some),
            false => Ok(None),
        });
        match is_edge {
            Ok(None) => {}
            Ok(Some((edge, is_longer))) => {
                list.longer_line_count += u64::from(is_longer);
                match edge.follower == edge.followee {
                    true => list.self_follow_count += 1,
                    false => list.edges.push(edge),
                }
            }
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

/// What a file may begin with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Head {
    /// Nothing has been read.
    Begin,
    /// The names of the columns, as in CSV, or the first edge.
    Names,
    /// MatrixMarket's line of `rows columns entries`.
    Size,
    Over,
}

impl Head {
    /// Whether a line is an edge, and not of the head, a comment or empty.
    fn is_behind(&mut self, line: &[u8]) -> Result<bool, String> {
        if *self == Self::Begin {
            *self = match is_matrix(line)? {
                true => Self::Size,
                false => Self::Names,
            };
        }
        if line.trim_ascii().is_empty() || is_comment(line) {
            return Ok(false);
        }
        match std::mem::replace(self, Self::Over) {
            Self::Size => check_size(line).map(|()| false),
            Self::Names => Ok(!has_names(line)),
            Self::Begin | Self::Over => Ok(true),
        }
    }
}

/// Whether the first line is that of a sparse MatrixMarket file.
fn is_matrix(line: &[u8]) -> Result<bool, String> {
    let line = line.to_ascii_lowercase();
    let mut words = line.split(|byte| byte.is_ascii_whitespace());
    if words.next() != Some(b"%%matrixmarket") {
        return Ok(false);
    }
    match words.any(|word| word == b"coordinate") {
        true => Ok(true),
        false => {
            Err("a MatrixMarket file must have the format coordinate to list edges".to_owned())
        }
    }
}

fn check_size(line: &[u8]) -> Result<(), String> {
    let words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let numbers: Option<Vec<u64>> = words.map(number).collect();
    match numbers.is_some_and(|numbers| numbers.len() == 3) {
        true => Ok(()),
        false => Err("not the size line `rows columns entries` of a MatrixMarket file".to_owned()),
    }
}

/// Whether a line names columns, as the first one of a table does.
fn has_names(line: &[u8]) -> bool {
    let is_name = |column: &[u8]| {
        std::str::from_utf8(column).is_ok_and(|name| {
            name.starts_with(|first: char| first.is_alphabetic() || first == '_')
                && !name.contains(char::is_control)
        })
    };
    let (first, rest) = split_column(line);
    let (second, _) = split_column(rest);
    is_name(first) && is_name(second)
}

/// The edge of a line, and whether there are further columns.
fn parse_line(line: &[u8], id_offset: u64) -> Result<(Edge, bool), String> {
    let (first, rest) = split_column(line);
    let (second, rest) = split_column(rest);
    if first.is_empty() || second.is_empty() {
        return Err("not of the form `follower followee`".to_owned());
    }
    let follower = parse_id(first, id_offset)?;
    let followee = parse_id(second, id_offset)?;
    Ok((Edge { followee, follower }, !rest.is_empty()))
}

/// The first column of a line, without quotation marks around it, and what is behind its
/// separator: white space, or a comma or semicolon that may have white space around it.
fn split_column(line: &[u8]) -> (&[u8], &[u8]) {
    let line = line.trim_ascii_start();
    let (column, rest) = quoted(line).unwrap_or_else(|| {
        let is_end = |byte: &u8| matches!(byte, b' ' | b'\t' | b',' | b';');
        line.split_at(line.iter().position(is_end).unwrap_or(line.len()))
    });
    match rest.trim_ascii_start() {
        [b',' | b';', rest @ ..] => (column, rest.trim_ascii_start()),
        rest => (column, rest),
    }
}

/// What stands in quotation marks at the beginning of a line, and what is behind them.
fn quoted(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let quoted = line.strip_prefix(b"\"")?;
    let (column, rest) = quoted.split_at(quoted.iter().position(|byte| *byte == b'"')?);
    Some((column, &rest[1..]))
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
            ("1,", "not of the form"),
            ("1,,2", "not of the form"),
            (",1,2", "not of the form"),
            ("1|2", "not of the form"),
            ("1 x", "not two decimal numbers"),
            ("x y", "not two decimal numbers"),
            ("1.0 2.0", "not two decimal numbers"),
            ("// 1 2", "not two decimal numbers"),
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

    /// What each file of a list holds, whatever separates its columns.
    #[test]
    fn columns_are_separated_in_many_ways() {
        for text in [
            "1 2\n1 3\n",
            "1\t2\r\n1\t3\r\n",
            "1,2\n1,3",
            "1;2\n1;3\n",
            " 1 , 2 \n\n1\t;\t3\n  \n",
            "\"1\",\"2\"\n\"1\",\"3\"\n",
            "\u{feff}1 2\n\u{feff}1 3\n",
        ] {
            let list = read_bytes(text.as_bytes(), 0).expect(text);
            assert_eq!(list.edges, [edge(1, 2), edge(1, 3)], "{text}");
            assert_eq!(list.longer_line_count, 0, "{text}");
        }
    }

    #[test]
    fn further_columns_are_ignored_and_counted() {
        for text in [
            "1 2 7\n1 3\n",
            "1,2,0.5,x\n1,3\n",
            "1 2 0,5\n1 3\n",
            "1 2 1217567877 RT\n1 3\n",
            "1\t2\t\t-1\n1\t3\t\n",
            "1 2 # so\n1 3\n",
        ] {
            let list = read_bytes(text.as_bytes(), 0).expect(text);
            assert_eq!(list.edges, [edge(1, 2), edge(1, 3)], "{text}");
            assert_eq!(list.longer_line_count, 1, "{text}");
        }
    }

    #[test]
    fn comments_of_all_data_sets_are_skipped() {
        let long = "c".repeat(10_000);
        for text in [
            "% asym unweighted\n% 3 3 3\n1 2\n1 3\n".to_owned(),
            "\u{feff}# a\n  % b\n1 2\n% 7 8\n1 3\n#".to_owned(),
            format!("# {long}\n1 2\n%{long}\n1 3\n"),
        ] {
            let list = read_bytes(text.as_bytes(), 0).expect(&text);
            assert_eq!(list.edges, [edge(1, 2), edge(1, 3)], "{text}");
        }
    }

    #[test]
    fn a_table_may_name_its_columns() {
        for names in [
            "id_1,id_2",
            "from,to",
            "# c\n\nSource;Target;Type",
            "\"node 1\" \"node 2\"",
            "von\tnäch",
        ] {
            let text = format!("{names}\n1,2\n1,3\n");
            let list = read_bytes(text.as_bytes(), 0).expect(names);
            assert_eq!(list.edges, [edge(1, 2), edge(1, 3)], "{names}");
        }
        for no_names in ["from", "from,2", "1,to", ",from,to", "from,,to", "from,to\nfrom,to"] {
            let text = format!("{no_names}\n1,2\n");
            assert!(read_bytes(text.as_bytes(), 0).is_err(), "{no_names}");
        }
    }

    #[test]
    fn the_size_line_of_a_matrix_is_no_edge() {
        for head in [
            "%%MatrixMarket matrix coordinate pattern general",
            "%%matrixmarket MATRIX Coordinate real symmetric\r",
            "\u{feff}%%MatrixMarket matrix coordinate integer general\n% a comment\n",
        ] {
            let text = format!("{head}\n  3 3  2\n1 2\n1 3 5\n");
            let list = read_bytes(text.as_bytes(), 0).expect(head);
            assert_eq!(list.edges, [edge(1, 2), edge(1, 3)], "{head}");
        }
        // Only the first line says what a file is.
        let late = "% a\n%%MatrixMarket matrix coordinate pattern general\n1 2 2\n1 3\n";
        assert_eq!(read_bytes(late.as_bytes(), 0).expect("edges").edges.len(), 2);
        for (text, problem) in [
            ("%%MatrixMarket matrix array real general\n2 2\n1\n", "line 1: a MatrixMarket file"),
            ("%%MatrixMarket matrix coordinate real general\n1 2\n", "line 2: not the size line"),
            ("%%MatrixMarket matrix coordinate real general\n1 2 x\n", "line 2: not the size line"),
        ] {
            let error = read_bytes(text.as_bytes(), 0).expect_err(text).to_string();
            assert!(error.contains(problem), "{error}");
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
