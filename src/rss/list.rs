//! The list of feeds: `account URL` a line. Pure, but for the file.

use std::{collections::HashMap, fmt, path::Path};

use url::Url;

use super::{
    RssError,
    shown_url::{shown, shown_text},
};
use crate::{
    client::text_file::{FileError, TextFile, fields, number},
    domain::UserId,
};

/// The longest list; each feed takes memory for what was seen of it.
const FEEDS_MAX: usize = 10_000;
/// More broken lines than these are not told.
const PROBLEMS_MAX: usize = 20;

/// A line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Feed {
    /// Where it stands in the list, from 1.
    pub(super) line: u64,
    /// The account that posts what is in the feed.
    pub(super) author: UserId,
    /// Where the feed is, without a fragment.
    pub(super) url: Url,
}

impl fmt::Display for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, {}", self.line, shown(&self.url))
    }
}

/// Reads and checks the whole list. Blocks.
///
/// # Errors
/// If the file cannot be read or names no feed, or with every line that is broken.
pub(super) fn read(path: &Path) -> Result<Vec<Feed>, RssError> {
    let mut file = TextFile::open(path)?;
    let mut feeds: Vec<Feed> = Vec::new();
    let mut lines = HashMap::new();
    let mut problems: Vec<FileError> = Vec::new();
    while let Some(line) = file.next_line()? {
        let (parsed, text) = (parse_line(line), String::from_utf8_lossy(line).into_owned());
        let line = file.line_number();
        let problem = match parsed {
            Ok(None) => continue,
            Ok(Some((author, url))) => match lines.insert((author, url.clone()), line) {
                None if feeds.len() == FEEDS_MAX => {
                    return Err(RssError::LongList { path: path.to_owned(), feeds_max: FEEDS_MAX });
                }
                None => {
                    feeds.push(Feed { line, author, url });
                    continue;
                }
                Some(first) => format!("line {first} says the same; remove one of them"),
            },
            Err(problem) => problem.to_owned(),
        };
        problems.push(file.broken_quoting(problem, &shown_text(&text)));
        if problems.len() == PROBLEMS_MAX {
            break;
        }
    }
    match (problems.is_empty(), feeds.is_empty()) {
        (false, _) => Err(RssError::BrokenList(problems)),
        (true, true) => Err(RssError::EmptyList { path: path.to_owned() }),
        (true, false) => Ok(feeds),
    }
}

/// `None` for a line that names no feed.
fn parse_line(line: &[u8]) -> Result<Option<(UserId, Url)>, &'static str> {
    let mut fields = fields(line);
    let Some(author) = fields.next().filter(|field| !field.starts_with(b"#")) else {
        return Ok(None);
    };
    let (Some(url), None) = (fields.next(), fields.next()) else {
        return Err("not of the form `account URL`");
    };
    let author = number(author).filter(|id| *id > 0);
    let author = author.ok_or("the account is no decimal number from 1 to 2^64-1")?;
    Ok(Some((UserId(author), parse_url(url)?)))
}

fn parse_url(field: &[u8]) -> Result<Url, &'static str> {
    let url = std::str::from_utf8(field).ok().and_then(|text| Url::parse(text).ok());
    let mut url = url.ok_or("the feed has no whole URL, as in https://example.org/feed.xml")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("the URL of a feed begins with http:// or https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("feeds that want a name and a password are not supported");
    }
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::text_file::tests::file_of;

    fn read_text(text: &str) -> Result<Vec<Feed>, RssError> {
        read(file_of(text.as_bytes()).path())
    }

    #[test]
    fn a_line_is_an_account_and_a_url() {
        let text = "# the town's feeds\r\n\n  7\thttps://example.org/feed.xml#top \n8 http://b/\n\
                    9 http://b/\n";
        let feeds = read_text(text).expect("a good list");
        let shown: Vec<String> =
            feeds.iter().map(|feed| format!("{} {feed}", feed.author)).collect();
        assert_eq!(
            shown,
            [
                "7 line 3, https://example.org/feed.xml",
                "8 line 4, http://b/",
                "9 line 5, http://b/"
            ]
        );
    }

    #[test]
    fn every_broken_line_is_named_at_once() {
        let text = "1 https://a/\n1\n0 https://a/\nx https://a/\n1 a/feed\n1 ftp://a/\n\
                    1 https://me:secret@a/\n1 https://a/ b\n1 https://a/#again\n2 https://a/\n";
        let error = read_text(text).expect_err("broken").to_string();
        for part in [
            "line 2: not of the form `account URL`",
            "line 3: the account is",
            "line 4: the account is",
            "line 5: the feed has no whole URL",
            "line 6: the URL of a feed begins with",
            "line 7: feeds that want a name",
            "line 8: not of the form",
            "line 9: line 1 says the same",
        ] {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert!(!error.contains("line 1:") && !error.contains("line 10:"), "{error}");
    }

    #[test]
    fn a_list_without_feeds_and_one_that_is_none_are_told() {
        assert!(read_text("# none\n").expect_err("none").to_string().contains("names no feed"));
        let binary = "\u{0}\u{1}\n".repeat(1_000);
        let error = read_text(&binary).expect_err("binary").to_string();
        assert!(error.len() < 5_000, "{error}");
    }
}
