//! What the commands print: posts in a line each, ages in words, and when a change takes effect.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;

use crate::{domain::PostId, proto::v1::Post};

/// A post in one line.
pub(super) fn line_of(post: &Post, now: SystemTime) -> String {
    let head = head_of(post.id, post.author_id, post.create_time, now);
    format!("{head}{}", said_by(post)).trim_end().to_owned()
}

/// How a line begins: the id, who wrote it, and when.
pub(super) fn head_of(
    id: u64,
    author: u64,
    create_time: Option<Timestamp>,
    now: SystemTime,
) -> String {
    let created = create_time
        .and_then(|time| {
            let since = Duration::new(time.seconds.try_into().ok()?, time.nanos.try_into().ok()?);
            UNIX_EPOCH.checked_add(since)
        })
        .unwrap_or_else(|| PostId(id).created_at());
    let age = age_in_words(now.duration_since(created).unwrap_or_default());
    format!("{id}  {author:>8}  {age:>8}  ")
}

/// What a post says, in a line.
pub(super) fn said_by(post: &Post) -> String {
    let mut line = String::new();
    if post.repost_of_id != 0 {
        line.push_str(&format!("[reposts {}] ", post.repost_of_id));
    }
    if post.reply_to_id != 0 {
        line.push_str(&format!("[answers {}] ", post.reply_to_id));
    }
    // A plain repost says what it repeats.
    let said = post.original.as_deref().filter(|_| post.text.is_empty()).unwrap_or(post);
    line.push_str(&in_one_line(&said.text));
    // One that came from a feed says its link.
    if !said.link.is_empty() && !said.text.ends_with(&said.link) {
        line.push_str(&format!(" {}", said.link));
    }
    line
}

/// A text that does not move the cursor about or begin a line of its own.
pub(super) fn in_one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What to add to a line about a change that may still be under way.
pub(super) fn when(applied: bool) -> &'static str {
    if applied { "" } else { " (durable; it takes effect when the workers reach it)" }
}

fn age_in_words(age: Duration) -> String {
    match age.as_secs() {
        0 => "now".to_owned(),
        seconds @ 1..60 => format!("{seconds}s ago"),
        seconds @ 60..3_600 => format!("{}m ago", seconds / 60),
        seconds @ 3_600..86_400 => format!("{}h ago", seconds / 3_600),
        seconds => format!("{}d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_post_is_one_line_whatever_it_says() {
        let post = Post {
            id: 9 << PostId::NODE_AND_SEQUENCE_BITS,
            author_id: 7,
            text: "two\nlines\u{1b}[2J".to_owned(),
            reply_to_id: 3,
            link: "https://example.org".to_owned(),
            ..Post::default()
        };
        let now = PostId(post.id).created_at() + Duration::from_secs(7_300);
        assert_eq!(
            line_of(&post, now),
            "37748736         7    2h ago  [answers 3] two lines [2J https://example.org"
        );
        let fed = Post { text: "news https://example.org".to_owned(), reply_to_id: 0, ..post };
        assert_eq!(line_of(&fed, now), "37748736         7    2h ago  news https://example.org");
    }

    #[test]
    fn ages_are_told_in_the_largest_unit() {
        for (seconds, words) in
            [(0, "now"), (59, "59s ago"), (60, "1m ago"), (86_399, "23h ago"), (86_400, "1d ago")]
        {
            assert_eq!(age_in_words(Duration::from_secs(seconds)), words);
        }
    }
}
