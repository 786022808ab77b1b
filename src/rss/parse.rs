//! From the bytes of a feed to its entries. Pure, but may take a while.

use std::{cmp::Reverse, collections::HashSet};

use feed_rs::{
    model::{self, FeedType},
    parser,
};
use url::Url;

use super::{
    entry::{self, Entry},
    guard,
};

/// Entries of a feed that are looked at, the newest ones.
pub(super) const WINDOW_ENTRIES_MAX: usize = 5_000;

/// The entries of a feed, oldest first, none twice, the newest where there are too many.
/// `feed` is its address in the list, `base` the one where it was found.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn parse(feed: &Url, base: &Url, body: &[u8]) -> Result<Vec<Entry>, String> {
    let begin = body.iter().position(|byte| matches!(byte, b'<' | b'{'));
    let raw = match begin.map(|at| (body[at], &body[at..])) {
        Some((b'{', json)) => read(base, &guard::lean_json(json)?)?,
        Some(_) => {
            guard::check_xml(body)?;
            read(base, body)?
        }
        None if body.is_empty() => return Err("it is empty".to_owned()),
        None => return Err("it is neither XML nor JSON".to_owned()),
    };
    let is_rss = !matches!(raw.feed_type, FeedType::Atom | FeedType::JSON);
    let mut seen = HashSet::new();
    let entries = in_order(raw.entries);
    let entries = entries.iter().filter_map(|raw| entry::read(feed, base, is_rss, raw));
    let mut newest: Vec<Entry> =
        entries.filter(|entry| seen.insert(entry.id)).take(WINDOW_ENTRIES_MAX).collect();
    newest.reverse();
    Ok(newest)
}

fn read(base: &Url, body: &[u8]) -> Result<model::Feed, String> {
    parser::Builder::new()
        .base_uri(Some(base))
        // Those without a name are named by us: the parser would draw one.
        .id_generator(|_, _, _| String::new())
        .build()
        .parse(body)
        .map_err(|error| error.to_string())
}

/// Newest first: by their dates where all have one, else as they stand, as feeds do.
fn in_order(mut entries: Vec<model::Entry>) -> Vec<model::Entry> {
    let date = |entry: &model::Entry| entry.published.or(entry.updated);
    if entries.iter().all(|entry| date(entry).is_some()) {
        entries.sort_by_key(|entry| Reverse(date(entry)));
    }
    entries
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_text(text: &str) -> Result<Vec<Entry>, String> {
        let feed = Url::parse("https://example.org/feeds/all").expect("a URL");
        parse(&feed, &feed, text.as_bytes())
    }

    /// Titles and links, oldest first.
    fn told(text: &str) -> Vec<String> {
        let entries = parse_text(text).expect("a feed");
        let tell = |entry: Entry| format!("{}|{}", entry.title, entry.link.unwrap_or_default());
        entries.into_iter().map(tell).collect()
    }

    #[test]
    fn rss_is_read_oldest_first() {
        let feed = r#"<?xml version="1.0"?><rss version="2.0"><channel><title>t</title>
            <item><title>Tom &amp;amp; &lt;i&gt;Jerry&lt;/i&gt;</title><link>/b</link>
                <guid>2</guid><pubDate>Tue, 02 Jan 2024 00:00:00 GMT</pubDate></item>
            <item><description>&lt;p&gt;no title&lt;/p&gt;</description>
                <guid>https://example.org/p</guid>
                <pubDate>Mon, 01 Jan 2024 00:00:00 GMT</pubDate></item>
            <item><title>newest</title><guid isPermaLink="false">x</guid>
                <pubDate>Wed, 03 Jan 2024 00:00:00 GMT</pubDate></item>
            <item><title>repeated</title><guid>2</guid>
                <pubDate>Mon, 01 Jan 2024 00:00:00 GMT</pubDate></item>
            <item><pubDate>Mon, 01 Jan 2024 00:00:00 GMT</pubDate></item>
            </channel></rss>"#;
        assert_eq!(
            told(feed),
            ["no title|https://example.org/p", "Tom & Jerry|https://example.org/b", "newest|"]
        );
    }

    #[test]
    fn atom_says_what_is_html() {
        let feed = r#"<feed xmlns="http://www.w3.org/2005/Atom"><title>t</title><id>f</id>
            <entry><title type="html">&lt;b&gt;bold&lt;/b&gt; &amp;eacute;</title><id>urn:2</id>
                <link rel="self" href="https://example.org/self"/>
                <link rel="enclosure" href="https://example.org/sound"/>
                <link href="../b" xml:base="https://example.org/deep/er/"/></entry>
            <entry><title>how to &lt;b&gt;</title><id>urn:1</id>
                <link rel="alternate" href="javascript:alert(1)"/></entry>
            </feed>"#;
        assert_eq!(told(feed), ["how to <b>|", "bold é|https://example.org/deep/b"]);
    }

    #[test]
    fn a_json_feed_is_read() {
        let feed = r#"{"version":"https://jsonfeed.org/version/1.1","title":"t",
            "authors":[{"name":"somebody"}],"items":[
            {"id":"2","url":"/two","title":"1 < 2 <b>"},
            {"id":"1","content_text":"hello\nworld"}]}"#;
        assert_eq!(told(feed), ["hello world|", "1 < 2 <b>|https://example.org/two"]);
    }

    #[test]
    fn what_has_no_name_is_known_by_its_link_or_its_text() {
        let feed = |title: &str, link: &str| {
            let text = format!(
                "<rss version='2.0'><channel><item><title>{title}</title>{link}</item></channel></rss>"
            );
            parse_text(&text).expect("a feed").remove(0).id
        };
        let link = "<link>https://example.org/a</link>";
        assert_eq!(feed("one", link), feed("one, corrected", link));
        assert_ne!(feed("one", link), feed("one", "<link>https://example.org/b</link>"));
        assert_eq!(feed("one", ""), feed("one", ""));
        assert_ne!(feed("one", ""), feed("two", ""));
    }

    #[test]
    fn what_is_no_feed_is_told() {
        for (text, problem) in [
            ("", "it is empty"),
            ("hello", "neither XML nor JSON"),
            ("<html><body>not found</body></html>", "no root element"),
            ("<rss version='2.0'><channel><item><title>cut", "XML"),
            ("{\"items\":[]}", "JSON"),
            ("{\"version\":\"x\",\"title\":\"\",\"items\":[]}", "version"),
        ] {
            let error = parse_text(text).expect_err(text);
            assert!(error.contains(problem), "{text}: {error}");
        }
        assert!(told("<rss version='2.0'><channel></channel></rss>").is_empty());
    }

    #[test]
    fn of_a_huge_feed_the_newest_are_read() {
        let items: String =
            (0..6_000).rev().map(|n| format!("<item><title>{n}</title></item>")).collect();
        let told = told(&format!("<rss version='2.0'><channel>{items}</channel></rss>"));
        assert_eq!(told.len(), WINDOW_ENTRIES_MAX);
        assert_eq!((told[0].as_str(), told[4_999].as_str()), ("1000|", "5999|"));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let feed = Url::parse("https://example.org/").expect("a URL");
            let _ = parse(&feed, &feed, &body);
            let rss = [b"<rss version='2.0'><channel><item><title>", &body[..]].concat();
            let _ = parse(&feed, &feed, &rss);
        }
    }
}
