//! Activity traces in the form of SNAP's higgs-twitter data set:
//! `userA userB unix_time RT|MT|RE` a line.
//!
//! A trace is read as a follow graph (A follows B, for each distinct pair) and a
//! stream of posts by A in the order of the file: RT reposts B's newest post, RE
//! answers it, MT mentions B. Where B has not posted yet, there is nothing to
//! repost or to answer, and RT and RE are plain posts.

use std::{path::PathBuf, time::Duration};

use hashbrown::HashMap;

use super::graph::{ListedGraph, TooManyAccounts, UserIndex};
use crate::{
    client::{
        edge_list::Edge,
        text_file::{FileError, TextFile, fields, is_comment, number},
    },
    domain::UserId,
};

const LINES_BETWEEN_REPORTS: u64 = 1 << 16;

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read, or a line is broken.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file names too many accounts.
    #[error(transparent)]
    TooManyAccounts(#[from] TooManyAccounts),
    /// The file has no actions.
    #[error("{} holds no actions", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
}

/// A trace, ready to be replayed.
pub(super) struct Trace {
    /// Its follows are the distinct pairs.
    pub(super) graph: ListedGraph,
    pub(super) posts: Vec<TracePost>,
    /// Distinct pairs that are no follow, because nobody follows himself here.
    pub(super) self_pair_count: u64,
    pub(super) fingerprint: u64,
}

/// One post of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TracePost {
    pub(super) author: UserIndex,
    pub(super) kind: TraceKind,
    /// Since the first action of the trace.
    pub(super) at: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TraceKind {
    /// A repost or an answer of someone who had not posted yet.
    Plain,
    /// Names an account.
    Mention(UserIndex),
    /// Repeats the post of this number.
    Repost(u32),
    /// Answers the post of this number.
    Reply(u32),
}

/// Reads and checks a whole trace, adding `id_offset` to every id. Blocks.
pub(super) fn read(
    path: PathBuf,
    id_offset: u64,
    mut on_line: impl FnMut(u64) -> Result<(), FileError>,
) -> Result<Trace, TraceError> {
    let mut file = TextFile::open(&path)?;
    let mut actions = Vec::new();
    while let Some(line) = file.next_line()? {
        match parse_line(line, id_offset) {
            Ok(Some(action)) => actions.push(action),
            Ok(None) => {}
            Err(problem) => return Err(file.broken(problem).into()),
        }
        if file.line_number().is_multiple_of(LINES_BETWEEN_REPORTS) {
            on_line(file.line_number())?;
        }
    }
    on_line(file.line_number())?;
    if actions.is_empty() {
        return Err(TraceError::Empty { path });
    }
    let mut edges: Vec<Edge> =
        actions.iter().map(|action| Edge { followee: action.b, follower: action.a }).collect();
    edges.sort_unstable();
    edges.dedup();
    let pair_count = edges.len();
    edges.retain(|edge| edge.follower != edge.followee);
    let self_pair_count = (pair_count - edges.len()) as u64;
    let graph = ListedGraph::new(&edges, actions.iter().flat_map(|action| [action.a, action.b]))?;
    let posts = posts_of(&actions, &graph)?;
    Ok(Trace { graph, posts, self_pair_count, fingerprint: file.fingerprint() })
}

struct Action {
    a: UserId,
    b: UserId,
    unix_s: u64,
    kind: ActionKind,
}

#[derive(Clone, Copy)]
enum ActionKind {
    Repost,
    Mention,
    Reply,
}

/// `None` for a line that holds no action.
fn parse_line(line: &[u8], id_offset: u64) -> Result<Option<Action>, String> {
    if is_comment(line) {
        return Ok(None);
    }
    let mut fields = fields(line);
    let Some(a) = fields.next() else { return Ok(None) };
    let (Some(b), Some(unix_s), Some(kind), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err("not of the form `userA userB unix_time RT|MT|RE`".to_owned());
    };
    let id = |field| {
        let id = number(field).ok_or("a user is not a decimal number below 2^64")?;
        match id.checked_add(id_offset) {
            Some(0) => {
                Err("the ids of Roost begin at 1, but here is a 0; --id-offset 1 adds 1 to \
                            every id of the file"
                    .to_owned())
            }
            Some(id) => Ok(UserId(id)),
            None => Err(format!(
                "a user passes 2^64 - 1, the greatest id, with --id-offset {id_offset}"
            )),
        }
    };
    let kind = match kind {
        b"RT" => ActionKind::Repost,
        b"MT" => ActionKind::Mention,
        b"RE" => ActionKind::Reply,
        _ => return Err("the action is none of RT, MT and RE".to_owned()),
    };
    let unix_s = number(unix_s).ok_or("the time is not in whole seconds")?;
    Ok(Some(Action { a: id(a)?, b: id(b)?, unix_s, kind }))
}

/// Finds for every repost and reply the newest post that it can mean.
fn posts_of(actions: &[Action], graph: &ListedGraph) -> Result<Vec<TracePost>, TooManyAccounts> {
    let index = |id| graph.index_of(id).ok_or(TooManyAccounts);
    let begin_s = actions.first().map_or(0, |action| action.unix_s);
    let mut newest: HashMap<UserIndex, u32, foldhash::fast::RandomState> = HashMap::default();
    let mut posts = Vec::with_capacity(actions.len());
    for (number, action) in (0u32..).zip(actions) {
        let (author, target) = (index(action.a)?, index(action.b)?);
        let kind = match (action.kind, newest.get(&target)) {
            (ActionKind::Mention, _) => TraceKind::Mention(target),
            (ActionKind::Repost, Some(post)) => TraceKind::Repost(*post),
            (ActionKind::Reply, Some(post)) => TraceKind::Reply(*post),
            (ActionKind::Repost | ActionKind::Reply, None) => TraceKind::Plain,
        };
        let at = Duration::from_secs(action.unix_s.saturating_sub(begin_s));
        posts.push(TracePost { author, kind, at });
        newest.insert(author, number);
    }
    Ok(posts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::text_file::tests::file_of;

    fn read_text(text: &str) -> Result<Trace, TraceError> {
        read(file_of(text.as_bytes()).path().to_owned(), 0, |_| Ok(()))
    }

    #[test]
    fn a_trace_is_a_graph_and_a_stream() {
        let trace = read_text(
            "10 20 100 RT\n20 30 101 MT\n10 20 103 RT\n30 10 103 RE\n30 30 104 RE\n10 20 105 MT\n",
        )
        .expect("a good trace");
        // Accounts 10, 20 and 30, in this order, have one follower each.
        let followers: Vec<&[UserIndex]> =
            (0..3).map(|user| trace.graph.followers_of(user)).collect();
        assert_eq!(followers, [[2], [0], [1]]);
        assert_eq!(trace.self_pair_count, 1);
        let kinds: Vec<TraceKind> = trace.posts.iter().map(|post| post.kind).collect();
        assert_eq!(
            kinds,
            [
                TraceKind::Plain,      // 20 has not posted yet
                TraceKind::Mention(2), // account 30
                TraceKind::Repost(1),  // 20's post
                TraceKind::Reply(2),   // 10's newest, not its first
                TraceKind::Reply(3),   // its own
                TraceKind::Mention(1),
            ]
        );
        assert_eq!(trace.posts[3].at, Duration::from_secs(3));
    }

    #[test]
    fn comments_and_byte_order_marks_are_skipped() {
        let long = "c".repeat(10_000);
        let text = format!("\u{feff}10 20 100 RT\r\n# {long}\r\n% c\r\n\r\n20 30 101 MT\r\n");
        assert_eq!(read_text(&text).expect("a trace").posts.len(), 2);
    }

    #[test]
    fn a_broken_line_is_named() {
        for (line, problem) in [
            ("1 2 3", "not of the form"),
            ("1 2 3 XX", "none of RT"),
            ("1 2 then RT", "whole seconds"),
            ("1 0 3 RT", "begin at 1"),
            ("1 b 3 RT", "not a decimal number"),
        ] {
            let error = read_text(&format!("1 2 3 RT\n{line}\n")).err().expect(line).to_string();
            assert!(error.contains("line 2: ") && error.contains(problem), "{error}");
        }
        let file = file_of(b"1 2 3 RT\n");
        let shifted = |id_offset| read(file.path().to_owned(), id_offset, |_| Ok(()));
        let error = shifted(u64::MAX - 1).err().expect("too far").to_string();
        assert!(error.contains("line 1: ") && error.contains("--id-offset"), "{error}");
        let graph = shifted(u64::MAX - 2).expect("just within").graph;
        assert_eq!(graph.index_of(UserId(u64::MAX)), Some(1));
        let empty = read_text("# nothing\n").err().expect("empty").to_string();
        assert!(empty.contains("holds no actions"), "{empty}");
    }
}
