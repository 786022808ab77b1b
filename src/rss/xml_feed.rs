//! Reads RSS, RDF and Atom, well formed or not. Pure.
//!
//! This is a reader of its own, and not a library behind a repairing pass. The parsers of feeds
//! that there are refuse a whole document for one bad value, and read much that no post needs.
//! Of an entry only its title, texts, link, name and date are needed, so that a repairing pass
//! would have to find out nearly all that the parser behind it finds out again; and the names of
//! entries must stay what they are, whatever a parser changes.
//!
//! ```text
//!  text ──► markup: tokens ──► here: which are those of an entry ──► xml_entry: what it says
//! ```
//!
//! An entry begins at its start tag wherever that stands, and ends at its end tag, at the next
//! entry, or at the end of the feed around it. So a broken entry costs no other one. One that
//! the document ends in is not read: the rest of it comes with the next answer.

use url::Url;

use super::{
    entry::RawEntry,
    markup::{Names, Tag, Token, Tokens, unescape},
    vocabulary::{Format, Scopes, Vocabulary, local},
    xml_entry,
};

/// Tags of a document, of starts and of ends. Each becomes less than a hundred bytes.
const TAGS_MAX: usize = 800_000;
/// Levels of elements around entries; deeper ones say nothing for them.
const DEPTH_MAX: usize = 128;
/// Those that are declared around an entry; every name looks through them.
const NAMESPACES_MAX: usize = 1_000;
/// Tags in which a web page is searched for its feed.
const PAGE_TAGS_MAX: usize = 10_000;

/// What was found in a document.
pub(super) struct Entries {
    pub(super) entries: Vec<RawEntry>,
    /// Entries that there are, read or not.
    pub(super) items: usize,
    /// The document ends before the feed does.
    pub(super) is_cut: bool,
}

/// Reads the entries of a document that was found at `base`.
///
/// # Errors
/// If it is no feed, or holds too much.
pub(super) fn read(document: &str, base: &Url) -> Result<Entries, String> {
    let mut tokens = Tokens::new(document);
    let root = root(&mut tokens, base)?;
    Reader::new(tokens, base, root).read()
}

/// The element that all of a feed is in.
struct Root<'a> {
    format: Format,
    tag: Tag<'a>,
}

/// Finds the root: what stands before it, as the warnings of a server, is skipped.
fn root<'a>(tokens: &mut Tokens<'a>, base: &Url) -> Result<Root<'a>, String> {
    let mut first = None;
    while let Some(token) = tokens.next() {
        let Token::Start(tag) = token else { continue };
        let name = local(tag.name).to_ascii_lowercase();
        let format = match name.as_str() {
            "rss" => Format::Rss,
            "rdf" => Format::Rdf,
            "feed" => Format::Atom,
            "channel" if first.is_none() => Format::Rss,
            "entry" if first.is_none() => Format::Atom,
            "html" | "head" | "body" => return Err(page(tokens, base)),
            _ => {
                first.get_or_insert(name);
                continue;
            }
        };
        return Ok(Root { format, tag });
    }
    let root: String = first.unwrap_or_default().chars().take(40).collect();
    Err(format!(
        "it is XML, but no feed (its root is {root:?}); list the address of an RSS, Atom or JSON feed"
    ))
}

/// What is wrong with a web page: that it is one, and where its feed is.
fn page(tokens: &mut Tokens<'_>, base: &Url) -> String {
    let feed = tokens.take(PAGE_TAGS_MAX).find_map(|token| {
        let Token::Start(tag) = token else { return None };
        let attribute = |name| tag.attribute(name).unwrap_or_default().to_ascii_lowercase();
        let kind = attribute("type");
        let is_feed = ["rss+xml", "atom+xml", "feed+json"].iter().any(|feed| kind.contains(feed));
        let is_link = tag.name.eq_ignore_ascii_case("link") && attribute("rel") == "alternate";
        let address = unescape(tag.attribute("href")?, Names::Xml);
        base.join(&address).ok().filter(|_| is_link && is_feed)
    });
    match feed {
        Some(feed) => format!("it is a web page, no feed; list the address of its feed, {feed}"),
        None => "it is a web page, no feed; look on it for the address of its feed, and list that"
            .to_owned(),
    }
}

struct Reader<'a> {
    tokens: Tokens<'a>,
    /// A token that was looked at, and is to be read again.
    pending: Option<Token<'a>>,
    tags: usize,
    scopes: Scopes<'a>,
    /// The names of the elements that are open, one for each scope.
    open: Vec<&'a str>,
    root: Root<'a>,
    entries: Vec<RawEntry>,
    items: usize,
}

/// How an entry ends.
enum Ending {
    Whole,
    Cut,
}

impl<'a> Reader<'a> {
    fn new(tokens: Tokens<'a>, base: &Url, root: Root<'a>) -> Self {
        Self {
            tokens,
            pending: None,
            tags: 0,
            scopes: Scopes::new(base, root.format, root.tag),
            open: vec![root.tag.name],
            root,
            entries: Vec::new(),
            items: 0,
        }
    }

    fn read(mut self) -> Result<Entries, String> {
        let mut is_cut = !self.root.tag.is_empty;
        if local(self.root.tag.name).eq_ignore_ascii_case("entry") {
            self.open.clear();
            self.scopes.truncate(0);
            self.pending = Some(Token::Start(self.root.tag));
        }
        while let Some(token) = self.next()? {
            match token {
                Token::Start(tag) if self.is_entry(tag) => match self.entry(tag)? {
                    Ending::Whole => is_cut &= !self.open.is_empty(),
                    Ending::Cut => is_cut = true,
                },
                Token::Start(tag) if !tag.is_empty && self.open.len() < DEPTH_MAX => {
                    self.scopes.push(tag);
                    self.open.push(tag.name);
                    if self.scopes.namespaces() > NAMESPACES_MAX {
                        return Err(format!("it declares more than {NAMESPACES_MAX} namespaces"));
                    }
                }
                Token::End(name) => match self.open_at(name) {
                    // What the root says holds to the end, whatever stands behind it.
                    Some(0) => is_cut = false,
                    Some(at) => {
                        self.open.truncate(at);
                        self.scopes.truncate(at);
                    }
                    None => {}
                },
                Token::Start(_) | Token::Text(_) | Token::CData(_) => {}
            }
        }
        Ok(Entries { entries: self.entries, items: self.items, is_cut })
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, String> {
        let token = self.pending.take().or_else(|| self.tokens.next());
        self.tags += usize::from(matches!(token, Some(Token::Start(_) | Token::End(_))));
        if self.tags > TAGS_MAX {
            return Err(format!(
                "it has more than {TAGS_MAX} tags; list a feed with fewer entries"
            ));
        }
        Ok(token)
    }

    fn open_at(&self, name: &str) -> Option<usize> {
        self.open.iter().rposition(|open| open.eq_ignore_ascii_case(name))
    }

    fn is_entry(&mut self, tag: Tag<'a>) -> bool {
        let name = if self.root.format == Format::Atom { "entry" } else { "item" };
        if !local(tag.name).eq_ignore_ascii_case(name) {
            return false;
        }
        let outside = self.scopes.len();
        self.scopes.push(tag);
        let vocabulary = self.scopes.vocabulary(tag.name);
        self.scopes.truncate(outside);
        matches!(vocabulary, Vocabulary::Own | Vocabulary::Atom | Vocabulary::Rss)
    }

    /// Reads an entry whose start was read; the document may end in it.
    fn entry(&mut self, tag: Tag<'a>) -> Result<Ending, String> {
        self.items += 1;
        let Some(tokens) = self.content(tag)? else { return Ok(Ending::Cut) };
        self.entries.push(xml_entry::read(&mut self.scopes, tag, &tokens));
        Ok(Ending::Whole)
    }

    /// What is in an entry; `None` if the document ends in it.
    fn content(&mut self, tag: Tag<'a>) -> Result<Option<Vec<Token<'a>>>, String> {
        let mut tokens = Vec::new();
        if tag.is_empty {
            return Ok(Some(tokens));
        }
        while let Some(token) = self.next()? {
            match token {
                Token::End(name) if name.eq_ignore_ascii_case(tag.name) => return Ok(Some(tokens)),
                Token::End(name) if self.open_at(name).is_some() && is_container(name) => {
                    self.pending = Some(token);
                    return Ok(Some(tokens));
                }
                Token::Start(next) if self.is_entry(next) => {
                    self.pending = Some(token);
                    return Ok(Some(tokens));
                }
                _ => tokens.push(token),
            }
        }
        Ok(None)
    }
}

/// Elements that entries stand in.
fn is_container(name: &str) -> bool {
    let name = local(name);
    ["channel", "rss", "rdf", "feed"].iter().any(|container| name.eq_ignore_ascii_case(container))
}
