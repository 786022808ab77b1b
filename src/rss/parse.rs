//! From the bytes of a feed to its entries. Pure, but may take a while.
//!
//! ```text
//!  bytes ──► decode ──► text ──┬─► xml_feed ──┬─► entry: names ──► oldest first
//!                              └─► json_feed ─┘
//! ```

use std::{cmp::Reverse, collections::HashSet};

use url::Url;

use super::{
    decode::decode,
    entry::{self, Found, RawEntry},
    json_feed, xml_feed,
};

/// Entries of a feed that are looked at, the newest ones.
pub(super) const WINDOW_ENTRIES_MAX: usize = 5_000;

/// What is in a feed.
#[derive(Debug)]
pub(super) struct Parsed {
    /// Oldest first, none twice, the newest where there are too many.
    pub(super) entries: Vec<Found>,
    /// The answer ends before the feed does: what is missing is in the next one.
    pub(super) is_cut: bool,
}

/// The entries of a feed. `feed` is its address in the list, `base` the one where it was found,
/// and `content_type` the header of that name.
///
/// # Errors
/// Why it cannot be read, and what to do.
pub(super) fn parse(
    feed: &Url,
    base: &Url,
    content_type: Option<&str>,
    body: &[u8],
) -> Result<Parsed, String> {
    let text = decode(body, content_type);
    let (entries, items, is_cut) = read(base, &text)?;
    let found: Vec<Found> = entries.iter().filter_map(|raw| entry::read(feed, raw)).collect();
    match (found.is_empty(), items, is_cut) {
        (true, 0 | 1, true) => {
            return Err(
                "it ends before its first entry does; see whether it opens in a browser".to_owned()
            );
        }
        (true, 1.., _) => {
            return Err(format!(
                "it has {items} entries, and none of them has a title, a text or a link; list \
                 another feed of the same site, or report this one to Roost"
            ));
        }
        _ => {}
    }
    let mut seen = HashSet::new();
    let found = in_order(found).into_iter();
    let newest = found.filter(|entry| seen.insert(entry.names[2])).take(WINDOW_ENTRIES_MAX);
    let mut entries: Vec<Found> = newest.collect();
    entries.reverse();
    Ok(Parsed { entries, is_cut })
}

fn read(base: &Url, text: &str) -> Result<(Vec<RawEntry>, usize, bool), String> {
    let begin = text.find(['<', '{']);
    let is_json = begin.is_some_and(|at| text[at..].starts_with('{'));
    match begin {
        Some(at) if is_json => {
            let json = json_feed::read(&text[at..], base);
            // A brace in a warning that stands before XML.
            let json = json.map(|json| (json.entries, json.items, json.is_cut));
            json.or_else(|error| read_xml(base, &text[at..]).map_err(|_| error))
        }
        Some(_) => read_xml(base, text),
        None if text.trim().is_empty() => {
            Err("it is empty; see whether it opens in a browser".to_owned())
        }
        None => {
            Err("it is neither XML nor JSON; list the address of an RSS, Atom or JSON feed"
                .to_owned())
        }
    }
}

fn read_xml(base: &Url, text: &str) -> Result<(Vec<RawEntry>, usize, bool), String> {
    let xml = xml_feed::read(text, base)?;
    Ok((xml.entries, xml.items, xml.is_cut))
}

/// Newest first: by their dates where all have one, else as they stand, as feeds do.
fn in_order(mut entries: Vec<Found>) -> Vec<Found> {
    if entries.iter().all(|entry| entry.unix_ms.is_some()) {
        entries.sort_by_key(|entry| Reverse(entry.unix_ms));
    }
    entries
}

#[cfg(test)]
mod cases;

#[cfg(test)]
mod tests {
    use super::{cases::CASES, *};
    use crate::fuzz::fuzz;

    fn parse_text(text: &str) -> Result<Parsed, String> {
        parse_bytes(None, text.as_bytes())
    }

    fn parse_bytes(content_type: Option<&str>, body: &[u8]) -> Result<Parsed, String> {
        let feed = Url::parse("https://example.org/feeds/all").expect("a URL");
        parse(&feed, &feed, content_type, body)
    }

    /// Titles and links, oldest first.
    fn told(entries: &[Found]) -> Vec<String> {
        let tell = |entry: &Found| {
            format!("{}|{}", entry.title, entry.link.as_deref().unwrap_or_default())
        };
        entries.iter().map(tell).collect()
    }

    #[test]
    fn feed_of_any_kind_is_read() {
        for (name, content_type, body, expected) in CASES {
            let parsed = parse_bytes(*content_type, body).expect(name);
            assert_eq!(told(&parsed.entries), *expected, "{name}");
        }
    }

    #[test]
    fn feed_of_any_kind_is_read_in_utf16() {
        for (name, _, body, expected) in CASES {
            let Ok(text) = str::from_utf8(body) else { continue };
            let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let parsed = parse_bytes(None, &wide).expect(name);
            assert_eq!(told(&parsed.entries), *expected, "{name}");
        }
    }

    /// Literals: another id would post again what the first version of this program posted.
    #[test]
    fn entry_ids_are_those_of_first_version() {
        for (text, expected) in IDS {
            let parsed = parse_text(text).expect(text);
            let ids = parsed.entries.iter().map(|entry| entry.names[0].to_string());
            assert_eq!(ids.collect::<Vec<_>>(), *expected, "{text}");
        }
    }

    const IDS: &[(&str, &[&str])] = &[
        (
            r#"<rss version="2.0" xmlns:content="http://purl.org/rss/1.0/modules/content/"><channel>
            <item><title>1</title><guid isPermaLink="false"> tag:x,1 </guid><link>/1</link></item>
            <item><title>2</title><link> HTTPS://Example.org/a b?c=1&amp;d#e </link></item>
            <item><title>Hi <b>there</b></title><description>a &eacute; &#146;&amp;</description>
            <content:encoded> <![CDATA[<p>x</p>]]> </content:encoded></item>
            <item><guid>https://example.org/g</guid></item></channel></rss>"#,
            &[
                "c0b0b3d91ed9d8b1f10b23d3bf033612",
                "ad7811365eba7223ee0ce169a7588cc8",
                "b9f32527af6d8423fad2822028a1c5f9",
                "6b3959e02289946c109fae48c86ffb43",
            ],
        ),
        (
            r#"<rss version="0.91"><channel><item><title>1</title><link xml:base="https://example.org/b/">c</link>
            </item><item><description>only this</description></item></channel></rss>"#,
            &["aecadd6db86473ec7ea512e45d81859d", "049c67b8f6ec61292d17b8f20fbd7990"],
        ),
        (
            r#"<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/"
            ><item rdf:about="x"><title>1</title><link>https://example.org/1</link><guid>g</guid></item></rdf:RDF>"#,
            &["425b99e90ef0c0bf380d8ffff4c3ded1"],
        ),
        (
            r#"<feed xmlns="http://www.w3.org/2005/Atom" xml:base="https://example.org/a/">
            <entry><title>1</title><id> urn:1 </id></entry>
            <entry><title type="html">2</title><link href="c?a&b"/></entry>
            <entry><title> 3 &nbsp;</title><summary type="html">s</summary><content>c</content></entry>
            <entry><title type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">4 &lt; <em a='"'>5</em><br/></div></title></entry>
            <entry><title><b>6</b></title><content type="text/plain"> p </content></entry></feed>"#,
            &[
                "a06a0850feabba15ecef4d91928d35d4",
                "2e1784e83b93abd1b07ad31c603f9a91",
                "ea661fc3e59d5b8af0aa4a02408423ed",
                "cdc6f311883be96c5c847408597b5b27",
                "2c9c6f54aa0158aab448384affd81a86",
            ],
        ),
        (
            r#"{"version":"https://jsonfeed.org/version/1","title":"t","items":[{"id":" 1 ","title":"1"},
            {"url":"/2","title":"2"},{"title":" 3 ","content_html":" h ","content_text":"t"},
            {"title":"4","attachments":[{"url":"https://example.org/4","mime_type":"x/y"}]}]}"#,
            &[
                "5156cf791c3761f27f2d6365c98eca41",
                "119fcc859bc8fe556f46be35eab9a83f",
                "ecc888e50aeaf735abe0860ec8796919",
                "cc7a67ea071ff7642c69e677e98097db",
            ],
        ),
    ];

    #[test]
    fn what_is_no_feed_is_told_with_advice() {
        for (text, problem) in [
            ("", "it is empty"),
            (" \n", "it is empty"),
            ("hello", "neither XML nor JSON"),
            ("<!DOCTYPE html><html><body>not found</body></html>", "web page"),
            ("<opml version='2.0'><body/></opml>", "web page"),
            ("<urlset><url/></urlset>", "urlset"),
            ("<rss version='2.0'><channel><item><title>cut", "ends before its first entry"),
            ("<rss version='2.0'><channel><title>cut", "ends before its first entry"),
            ("<rss version='2.0'><channel><item/><item><x/></item></channel></rss>", "2 entries"),
            ("{\"version\":\"x\"}", "without items"),
            ("{\"items\":[{\"name\":\"x\"}]}", "1 entries"),
        ] {
            let error = parse_text(text).expect_err(text);
            assert!(error.contains(problem) && error.contains("; "), "{text}: {error}");
        }
        let page =
            "<html><head><link rel='alternate' type='application/rss+xml' href='/f?a&amp;b'>";
        let error = parse_text(page).expect_err("a page");
        assert!(error.contains("https://example.org/f?a&b"), "{error}");
    }

    #[test]
    fn cut_document_keeps_what_is_whole() {
        let feed = "<rss><channel><item><title>1</title></item><item><title>2</title></item>";
        for (text, count, is_cut) in [
            (format!("{feed}</channel></rss>"), 2, false),
            (feed.to_owned(), 2, true),
            (format!("{feed}<item><title>3</title><description>"), 2, true),
            (format!("{feed}<item><title>3</title></channel></rss>"), 3, false),
        ] {
            let parsed = parse_text(&text).expect("entries");
            assert_eq!((parsed.entries.len(), parsed.is_cut), (count, is_cut), "{text}");
        }
    }

    #[test]
    fn newest_entries_of_huge_feed_are_read() {
        let items: String =
            (0..6_000).rev().map(|n| format!("<item><title>{n}</title></item>")).collect();
        let parsed = parse_text(&format!("<rss><channel>{items}</channel></rss>")).expect("a feed");
        let told = told(&parsed.entries);
        assert_eq!(told.len(), WINDOW_ENTRIES_MAX);
        assert_eq!((told[0].as_str(), told[4_999].as_str()), ("1000|", "5999|"));
    }

    #[test]
    fn shapes_that_would_cost_too_much_are_refused_or_read() {
        let refused = |text: &str| parse_text(text).expect_err("refused");
        assert!(refused(&format!("<rss>{}", "<b/>".repeat(800_001))).contains("tags"));
        let names: String = (0..200).map(|n| format!(" xmlns:n{n}='x'")).collect();
        assert!(
            refused(&format!("<rss>{}", format!("<a{names}>").repeat(6))).contains("namespaces")
        );
        let base = format!("<a xml:base='{}'>", "x/".repeat(1_000)).repeat(200);
        let item = "<item><title>t</title><link>l</link></item>";
        let deep = format!("<rss>{base}{}</rss>", item.repeat(10_000));
        assert_eq!(parse_text(&deep).expect("read").entries.len(), 1);
        let attributes: String = (0..100_000).map(|n| format!(" n{n}='>'")).collect();
        let wide = format!("<rss><item{attributes}><title{attributes}>t</title></item></rss>");
        assert_eq!(told(&parse_text(&wide).expect("read").entries), ["t|"]);
        let nested = format!("<rss><item><title>{}t</title></item></rss>", "<b>".repeat(300_000));
        assert_eq!(parse_text(&nested).expect("read").entries.len(), 1);
    }

    /// Every input gives entries or an error, in a short time.
    #[test]
    fn fuzzed_feed_never_panics() {
        let corpus: Vec<&[u8]> = CASES.iter().map(|(_, _, body, _)| *body).collect();
        let types = [None, Some("text/xml; charset=utf-16"), Some("text/xml; charset=shift_jis")];
        let mut inputs = 0;
        fuzz(&corpus, 5_000, |body| {
            inputs += 1;
            let Ok(parsed) = parse_bytes(types[inputs % types.len()], body) else { return };
            for entry in &parsed.entries {
                assert!(!entry.title.is_empty() || entry.link.is_some());
                assert!(!entry.title.contains(char::is_control));
            }
        });
    }
}
