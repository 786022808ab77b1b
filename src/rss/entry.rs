//! An entry of a feed, and what makes it the same entry the next time. Pure.

use std::fmt;

use feed_rs::model;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use url::Url;

use super::text::{line_of_html, plain_line};

/// What is kept of a title: more than fits into any post.
const TITLE_CHARS_MAX: usize = 500;
/// What is read of a title, or of a content in its place.
const MARKUP_CHARS_MAX: usize = 8_192;
/// The longest link that Roost takes.
const LINK_BYTES_MAX: usize = 2_048;

/// What is to be posted of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) id: EntryId,
    /// A line of text; empty if there is a link only.
    pub(super) title: String,
    pub(super) link: Option<String>,
}

/// Which entry it is, of which feed: the half of a SHA-256, so that no feed can name the
/// entries of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EntryId(u128);

impl EntryId {
    /// Of what a feed names so, links to, or says. The three are never the same.
    fn new(feed: &Url, kind: &str, parts: &[&str]) -> Self {
        Self::of(&[&[feed.as_str(), kind], parts].concat())
    }

    /// Of any texts, none of which runs into the next.
    pub(super) fn of(parts: &[&str]) -> Self {
        let mut hash = Context::new(&SHA256);
        for part in parts {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let hash = hash.finish();
        let half = hash.as_ref().iter().take(16);
        Self(half.fold(0, |id, byte| id << 8 | u128::from(*byte)))
    }

    /// The name of the request that posts it: of an author, always the same.
    pub(super) fn request_id(self) -> String {
        format!("rss-{self}")
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for EntryId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EntryId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let id = u128::from_str_radix(&text, 16).map_err(|_| D::Error::custom("no id"))?;
        Ok(Self(id))
    }
}

/// The entry of a feed of the list, whose links are relative to `base`. `None` if it says
/// nothing.
pub(super) fn read(feed: &Url, base: &Url, rss: bool, raw: &model::Entry) -> Option<Entry> {
    let link = link_of(raw, base);
    let title = title_of(raw, rss);
    if title.is_empty() && link.is_none() {
        return None;
    }
    let id = match (raw.id.trim(), &link) {
        ("", Some(link)) => EntryId::new(feed, "link", &[link]),
        ("", None) => EntryId::new(feed, "text", &texts(raw).map(|text| text.0)),
        (name, _) => EntryId::new(feed, "name", &[name]),
    };
    Some(Entry { id, title, link })
}

/// The title, or the beginning of what there is in its place. In RSS nothing says whether
/// it is HTML, and most write it as if it were.
fn title_of(raw: &model::Entry, rss: bool) -> String {
    let mut lines = texts(raw).into_iter().map(|(text, kind)| {
        let text = beginning(text, MARKUP_CHARS_MAX);
        if rss || kind != "text/plain" { line_of_html(text) } else { plain_line(text) }
    });
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    beginning(&line, TITLE_CHARS_MAX).to_owned()
}

/// Title, summary and content as they are written, each with its type.
fn texts(raw: &model::Entry) -> [(&str, &str); 3] {
    let content = raw
        .content
        .as_ref()
        .and_then(|content| Some((content.body.as_deref()?, content.content_type.as_str())));
    [typed(&raw.title), typed(&raw.summary), content].map(Option::unwrap_or_default)
}

fn typed(text: &Option<model::Text>) -> Option<(&str, &str)> {
    text.as_ref().map(|text| (text.content.as_str(), text.content_type.as_str()))
}

/// The page that the entry is about. A name that is an address is one where there is no
/// link, as RSS has it.
fn link_of(raw: &model::Entry, base: &Url) -> Option<String> {
    let is_page = |link: &&model::Link| {
        link.target.is_none() && matches!(link.rel.as_deref(), None | Some("alternate"))
    };
    let links = raw.links.iter().filter(is_page).filter_map(|link| base.join(&link.href).ok());
    let name = Url::parse(raw.id.trim()).ok();
    links
        .chain(name)
        .find(|url| matches!(url.scheme(), "http" | "https"))
        .map(String::from)
        .filter(|link| link.len() <= LINK_BYTES_MAX)
}

fn beginning(text: &str, chars_max: usize) -> &str {
    text.char_indices().nth(chars_max).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_same_for_ever_and_differ_by_feed_kind_and_name() {
        let feed = |url: &str| Url::parse(url).expect("a URL");
        let id = EntryId::new(&feed("https://example.org/feed"), "name", &["1"]);
        // Another one would post again what was posted before an update of the program.
        assert_eq!(id.request_id(), "rss-b6f3b32c66050ba7c218fa708ca760c3");
        assert!(id.request_id().len() <= 64);
        assert_ne!(id, EntryId::new(&feed("https://example.org/feed"), "link", &["1"]));
        assert_ne!(id, EntryId::new(&feed("https://example.org/other"), "name", &["1"]));
        assert_ne!(EntryId::of(&["a", "bc"]), EntryId::of(&["ab", "c"]));
    }

    #[test]
    fn an_id_is_written_and_read() {
        let id = EntryId(7);
        let text = serde_json::to_string(&id).expect("written");
        assert_eq!(text, "\"00000000000000000000000000000007\"");
        assert_eq!(serde_json::from_str::<EntryId>(&text).expect("read"), id);
        assert!(serde_json::from_str::<EntryId>("\"x\"").is_err());
    }
}
