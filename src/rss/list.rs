//! The list of feeds: `account URL` a line, and `allow-host NAME-OR-NETWORK` for those that are
//! not on public addresses. Pure, but for the file.

use std::{collections::HashMap, fmt, path::Path};

use url::Url;

use super::{
    RssError,
    destination::AllowedHosts,
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
/// The first word of a line that allows a host.
const ALLOW_HOST: &[u8] = b"allow-host";

/// What a list says.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) feeds: Vec<Feed>,
    pub(super) allowed: AllowedHosts,
}

/// A feed of the list.
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

enum Line {
    Feed(UserId, Url),
    /// These hosts or networks, one word each.
    Allow(Vec<String>),
    Empty,
}

/// Reads and checks the whole list. Blocks. `allowed` are the hosts that the settings allow,
/// beside those of the list.
///
/// # Errors
/// If the file cannot be read or names no feed, or with every line that is broken.
pub(super) fn read(path: &Path, allowed: AllowedHosts) -> Result<List, RssError> {
    let mut file = TextFile::open(path)?;
    let mut list = List { allowed, ..List::default() };
    let mut lines = HashMap::new();
    let mut problems: Vec<FileError> = Vec::new();
    while let Some(line) = file.next_line()? {
        let (parsed, text) = (parse_line(line), String::from_utf8_lossy(line).into_owned());
        let line = file.line_number();
        let problem = match parsed {
            Ok(Line::Empty) => continue,
            Ok(Line::Allow(hosts)) => {
                match hosts.iter().try_for_each(|host| list.allowed.allow(host)) {
                    Ok(()) => continue,
                    Err(problem) => problem,
                }
            }
            Ok(Line::Feed(author, url)) => match lines.insert((author, url.clone()), line) {
                None if list.feeds.len() == FEEDS_MAX => {
                    return Err(RssError::LongList { path: path.to_owned(), feeds_max: FEEDS_MAX });
                }
                None => {
                    list.feeds.push(Feed { line, author, url });
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
    match (problems.is_empty(), list.feeds.is_empty()) {
        (false, _) => Err(RssError::BrokenList(problems)),
        (true, true) => Err(RssError::EmptyList { path: path.to_owned() }),
        (true, false) => Ok(list),
    }
}

fn parse_line(line: &[u8]) -> Result<Line, &'static str> {
    let mut fields = fields(line);
    let Some(first) = fields.next().filter(|field| !field.starts_with(b"#")) else {
        return Ok(Line::Empty);
    };
    if first == ALLOW_HOST {
        let hosts = fields.take_while(|field| !field.starts_with(b"#"));
        let hosts = hosts.flat_map(|hosts| hosts.split(|byte| *byte == b','));
        let hosts: Vec<String> = hosts
            .filter(|host| !host.is_empty())
            .map(|host| String::from_utf8_lossy(host).into_owned())
            .collect();
        return match hosts.is_empty() {
            true => Err("allow-host wants a host name, an address or a network"),
            false => Ok(Line::Allow(hosts)),
        };
    }
    let (Some(url), None) = (fields.next(), fields.next()) else {
        return Err("not of the form `account URL`");
    };
    let author = number(first).filter(|id| *id > 0);
    let author = author.ok_or("the account is no decimal number from 1 to 2^64-1")?;
    Ok(Line::Feed(UserId(author), parse_url(url)?))
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
        let file = file_of(text.as_bytes());
        read(file.path(), AllowedHosts::default()).map(|list| list.feeds)
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
    fn a_list_may_allow_hosts() {
        let text =
            "allow-host localhost 10.0.0.0/8, fd00::/8 # ours\n1 http://a/\nallow-host ::1\n";
        let mut settings = AllowedHosts::default();
        settings.allow("192.168.0.0/16").expect("a network");
        let list = read(file_of(text.as_bytes()).path(), settings).expect("a list");
        assert_eq!(list.feeds.len(), 1);
        for address in ["10.0.0.1", "fd00::1", "::1", "192.168.0.1"] {
            let address = address.parse().expect("an address");
            assert_eq!(list.allowed.check("a", address), Ok(()), "{address}");
        }
        let link_local = "169.254.169.254".parse().expect("an address");
        assert!(list.allowed.check("a", link_local).is_err());
        assert_eq!(list.allowed.check("localhost", link_local), Ok(()));

        let text = "allow-host\nallow-host http://a/\n";
        let error = read_text(text).expect_err("broken").to_string();
        assert!(error.contains("line 1: allow-host wants a host name"), "{error}");
        assert!(error.contains("line 2: \"http://a/\" is no host name"), "{error}");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        assert_eq!(read_text("\u{feff}7 http://a/\r\n").expect("a list").len(), 1);
    }

    #[test]
    fn neither_feeds_nor_problems_show_secrets() {
        let feed = &read_text("7 http://a/b?key=secret#secret\n").expect("a list")[0];
        assert_eq!(feed.to_string(), "line 1, http://a/b?…");
        assert_eq!(feed.url.as_str(), "http://a/b?key=secret");
        for line in ["7 https://me:secret@a/", "x http://a/?secret", "7 http://a/?secret b"] {
            let error = read_text(line).expect_err(line).to_string();
            assert!(error.contains("line 1: ") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_list_without_feeds_and_one_that_is_none_are_told() {
        assert!(read_text("# none\n").expect_err("none").to_string().contains("names no feed"));
        let binary = "\u{0}\u{1}\n".repeat(1_000);
        let error = read_text(&binary).expect_err("binary").to_string();
        assert!(error.len() < 5_000, "{error}");
    }
}
