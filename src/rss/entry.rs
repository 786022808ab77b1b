//! An entry of a feed, and what makes it the same entry the next time. Pure.

use std::fmt;

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

/// An entry as a reader of some format hands it over.
#[derive(Clone, Debug, Default)]
pub(super) struct RawEntry {
    /// What names it, by rules that never change.
    pub(super) named_by: Facts,
    /// What it is meant to say.
    pub(super) says: Facts,
    /// Its date, as it is written.
    pub(super) date: String,
    /// Its date in milliseconds since 1970.
    pub(super) unix_ms: Option<i64>,
}

/// What an entry says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its guid or id, trimmed.
    pub(super) name: String,
    /// The page that it is about.
    pub(super) link: Option<String>,
    /// Title, summary and content.
    pub(super) texts: [Text; 3],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) is_html: bool,
}

impl Text {
    pub(super) fn html(text: String) -> Self {
        Self { text, is_html: true }
    }

    pub(super) fn plain(text: String) -> Self {
        Self { text, is_html: false }
    }
}

/// The first address that is one of the web, if Roost takes it.
pub(super) fn web_link(mut addresses: impl Iterator<Item = Url>) -> Option<String> {
    let web = addresses.find(|url| matches!(url.scheme(), "http" | "https"));
    web.map(String::from).filter(|link| link.len() <= LINK_BYTES_MAX)
}

impl Facts {
    /// The title, or the beginning of what there is in its place, as a line.
    fn line(&self) -> String {
        let mut lines = self.texts.iter().map(|Text { text, is_html }| {
            let text = beginning(text, MARKUP_CHARS_MAX);
            if *is_html { line_of_html(text) } else { plain_line(text) }
        });
        let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
        beginning(&line, TITLE_CHARS_MAX).to_owned()
    }

    fn says_something(&self) -> bool {
        self.link.is_some() || !self.line().is_empty()
    }

    fn name(&self, feed: &Url) -> EntryId {
        match (self.name.as_str(), &self.link) {
            ("", Some(link)) => EntryId::new(feed, "link", &[link]),
            ("", None) => EntryId::new(feed, "text", &self.plain_texts()),
            (name, _) => EntryId::new(feed, "name", &[name]),
        }
    }

    fn plain_texts(&self) -> [&str; 3] {
        self.texts.each_ref().map(|text| text.text.as_str())
    }
}

/// An entry of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// What it may be known by: its guid, or else its link, or else its texts; that with its
    /// link and title; that with all that it says. The first that no other entry of the feed
    /// has is believed (`state`).
    pub(super) names: [EntryId; 3],
    /// A line of text; empty if there is a link only.
    pub(super) title: String,
    pub(super) link: Option<String>,
    /// Its date in milliseconds since 1970.
    pub(super) unix_ms: Option<i64>,
}

impl Found {
    /// What is to be posted of it, under one of its names.
    pub(super) fn entry(&self, id: EntryId) -> Entry {
        Entry { id, title: self.title.clone(), link: self.link.clone() }
    }
}

/// The entry of a feed of the list; `None` if it says nothing.
pub(super) fn read(feed: &Url, raw: &RawEntry) -> Option<Found> {
    let RawEntry { named_by, says, date, unix_ms } = raw;
    let (title, link) = (says.line(), says.link.clone());
    if title.is_empty() && link.is_none() {
        return None;
    }
    let named_by = if named_by.says_something() { named_by } else { says };
    let name = named_by.name(feed);
    let parts = [&name.to_string(), link.as_deref().unwrap_or_default(), &says.texts[0].text];
    let titled = EntryId::new(feed, "titled", &parts);
    let all = [&parts[..], &[date], &says.plain_texts()].concat();
    let names = [name, titled, EntryId::new(feed, "all", &all)];
    Some(Found { names, title, link, unix_ms: *unix_ms })
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
