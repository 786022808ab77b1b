//! Cursors as a partition's marks hold them.
//!
//! ```text
//!  D 7 950 10 11;R 8 40 12
//!  │ │  │   └──┴ the posts that were delivered, or the one that was removed
//!  │ │  └ the last follower reached
//!  │ └ the author
//!  └ D: deliver, R: remove
//! ```

use std::fmt::Write;

use crate::{
    domain::{PostId, UserId},
    store::{Cursor, Work},
};

/// Cursors as text.
pub(super) fn text(cursors: &[Cursor<UserId>]) -> String {
    let mut text = String::new();
    for Cursor { author, work, reached } in cursors {
        let (name, posts) = match work {
            Work::Deliver(ids) => ('D', ids.as_slice()),
            Work::Remove(post) => ('R', std::slice::from_ref(post)),
        };
        let separator = if text.is_empty() { "" } else { ";" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{name} {author} {reached}");
        for post in posts {
            let _ = write!(text, " {post}");
        }
    }
    text
}

/// The same, read. None of them where any cannot be read: whoever has none begins at
/// the start.
pub(super) fn of_text(text: &str) -> Vec<Cursor<UserId>> {
    let cursors = text.split(';').filter(|one| !one.is_empty());
    cursors.map(cursor).collect::<Option<_>>().unwrap_or_default()
}

fn cursor(text: &str) -> Option<Cursor<UserId>> {
    let mut words = text.split(' ');
    let name = words.next()?;
    let author = UserId(words.next()?.parse().ok()?);
    let reached = UserId(words.next()?.parse().ok()?);
    let posts: Vec<PostId> =
        words.map(|word| word.parse().ok().map(PostId)).collect::<Option<_>>()?;
    let work = match (name, &posts[..]) {
        ("D", [_, ..]) => Work::Deliver(posts),
        ("R", [post]) => Work::Remove(*post),
        _ => return None,
    };
    Some(Cursor { author, work, reached })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_they_are_written() {
        let deliver = Work::Deliver(vec![PostId(10), PostId(u64::MAX)]);
        let cursors = [
            Cursor { author: UserId(7), work: deliver, reached: UserId(u64::MAX) },
            Cursor { author: UserId(8), work: Work::Remove(PostId(12)), reached: UserId(0) },
        ];
        assert_eq!(of_text(&text(&cursors)), cursors);
        assert_eq!(text(&[]), "");
        assert!(of_text("").is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_no_cursor_and_neither_are_those_beside_it() {
        for damaged in ["D 7 950", "D 7 950 x", "R 7 950 1 2", "X 7 950 1", "D 7", "D 7 950  1"] {
            assert!(of_text(&format!("D 1 2 3;{damaged}")).is_empty(), "{damaged}");
        }
    }
}
