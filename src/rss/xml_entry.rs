//! From the tokens of an entry in XML to what it says. Pure.

use std::{borrow::Cow, cmp::Reverse, collections::HashMap};

use url::Url;

use super::{
    date,
    entry::{Facts, RawEntry, Text, web_link},
    markup::{Names, Tag, Token, unescape},
    vocabulary::{Format, Scopes, Vocabulary, attribute_value, join, local},
};

const CONTENT: &str = "http://purl.org/rss/1.0/modules/content/";
const DUBLIN_CORE: &str = "http://purl.org/dc/elements/1.1/";
/// What is read of a text with markup, in bytes.
const MARKUP_BYTES_MAX: usize = 1 << 15;

/// An element right within an entry.
struct Child<'a, 't> {
    /// Without its prefix.
    name: &'a str,
    tag: Tag<'a>,
    namespace: Option<String>,
    vocabulary: Vocabulary,
    base: Option<Url>,
    pieces: &'t [Token<'a>],
}

/// Reads an entry that begins with `tag` and goes on with `tokens`, up to its end.
pub(super) fn read<'a>(scopes: &mut Scopes<'a>, tag: Tag<'a>, tokens: &[Token<'a>]) -> RawEntry {
    let outside = scopes.len();
    scopes.push(tag);
    let children = children(scopes, tokens);
    let about = scopes.format() == Format::Rdf;
    let about = tag.attributes().find(|(name, _)| about && local(name) == "about");
    let about = about.and_then(|(_, address)| join(scopes.base(), &attribute_value(address)));
    scopes.truncate(outside);
    let format = scopes.format();
    let (date, unix_ms) = date(&children);
    RawEntry {
        named_by: as_named(&children, format),
        says: as_meant(&children, format, about),
        date,
        unix_ms,
    }
}

/// The elements right within an entry. One that is never closed ends at the next tag.
fn children<'a, 't>(scopes: &mut Scopes<'a>, tokens: &'t [Token<'a>]) -> Vec<Child<'a, 't>> {
    let ends = ends(tokens);
    let (mut children, mut at) = (Vec::new(), 0);
    while let Some(token) = tokens.get(at) {
        at += 1;
        let Token::Start(tag) = *token else { continue };
        let end = match ends.get(&(at - 1)) {
            _ if tag.is_empty => at,
            Some(end) => *end,
            None => at + text_len(&tokens[at..]),
        };
        let outside = scopes.len();
        scopes.push(tag);
        children.push(Child {
            name: local(tag.name),
            tag,
            namespace: scopes.namespace_of(tag.name).map(str::to_owned),
            vocabulary: scopes.vocabulary(tag.name),
            base: (local(tag.name).eq_ignore_ascii_case("link")).then(|| scopes.base().clone()),
            pieces: &tokens[at..end],
        });
        scopes.truncate(outside);
        at = end;
    }
    children
}

fn text_len(tokens: &[Token<'_>]) -> usize {
    let is_text = |token: &&Token<'_>| matches!(token, Token::Text(_) | Token::CData(_));
    tokens.iter().take_while(is_text).count()
}

/// Where each element ends that is closed, by where it starts: the nearest of its name.
fn ends(tokens: &[Token<'_>]) -> HashMap<usize, usize> {
    let mut open: HashMap<Cow<'_, str>, Vec<usize>> = HashMap::new();
    let mut ends = HashMap::new();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Start(tag) if !tag.is_empty => {
                open.entry(lower(tag.name)).or_default().push(at);
            }
            Token::End(name) => {
                if let Some(start) = open.get_mut(&lower(name)).and_then(Vec::pop) {
                    ends.insert(start, at);
                }
            }
            _ => {}
        }
    }
    ends
}

fn lower(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}

impl Child<'_, '_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Text up to the first element within; `None` if there is none at all.
    fn lead(&self) -> Option<String> {
        let lead = &self.pieces[..text_len(self.pieces)];
        let is_empty = lead.iter().all(|piece| matches!(piece, Token::Text("") | Token::CData("")));
        (!is_empty).then(|| lead.iter().map(|piece| text_of(piece, Names::Xml)).collect())
    }

    /// All text.
    fn text(&self) -> String {
        self.pieces.iter().map(|piece| text_of(piece, Names::Html)).collect()
    }

    fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        self.tag.attribute(name).map(attribute_value)
    }

    fn lower_attribute(&self, name: &str) -> String {
        self.attribute(name).unwrap_or_default().trim().to_ascii_lowercase()
    }
}

/// What a piece of text says; nothing of others.
fn text_of<'a>(piece: &Token<'a>, names: Names) -> Cow<'a, str> {
    match piece {
        Token::Text(raw) => unescape(raw, names),
        Token::CData(text) => Cow::Borrowed(text),
        Token::Start(_) | Token::End(_) => Cow::Borrowed(""),
    }
}

// What names an entry must never change: it would be posted again. So the following reads just
// what the first version of this program read, and in its way, with its oddities: the last of
// several elements counts even if it is empty, and a text ends at the first element within it,
// if it does not begin with one. Nothing of it is shown.

/// What has always named an entry.
fn as_named(children: &[Child<'_, '_>], format: Format) -> Facts {
    let mut facts = Facts::default();
    let mut addresses = Vec::new();
    if format == Format::Rdf && !children.iter().any(|child| is_rdf_link(child, format)) {
        // Such an item was not read at all.
        return facts;
    }
    for child in children {
        let own = child.namespace.as_deref().is_none_or(|uri| uri == format.namespace());
        let namespace = if own { "" } else { child.namespace.as_deref().unwrap_or_default() };
        let lead = || child.lead().map(|text| text.trim().to_owned()).unwrap_or_default();
        match (format, namespace, child.name) {
            (Format::Rss, "", "guid") => facts.name = child.lead().unwrap_or(facts.name),
            (Format::Atom, "", "id") => facts.name = child.lead().unwrap_or(facts.name),
            (Format::Rss | Format::Rdf, "", "title") => facts.texts[0] = Text::html(lead()),
            (Format::Rss | Format::Rdf, "", "description") => {
                facts.texts[1] = Text::html(lead());
            }
            (Format::Rdf, DUBLIN_CORE, "description") if facts.texts[1].text.is_empty() => {
                facts.texts[1] = Text::html(lead());
            }
            (Format::Rss, CONTENT, "encoded") => {
                facts.texts[2] = Text::html(child.lead().unwrap_or_default());
            }
            (Format::Rdf, CONTENT, "encoded") => facts.texts[2] = Text::html(lead()),
            (Format::Rss | Format::Rdf, "", "link") => addresses.extend(link_as_named(child)),
            (Format::Atom, "", "title") => facts.texts[0] = construct_as_named(child),
            (Format::Atom, "", "summary") => facts.texts[1] = construct_as_named(child),
            (Format::Atom, "", "content") => facts.texts[2] = content_as_named(child),
            (Format::Atom, "", "link") => addresses.extend(atom_link(child, "alternate")),
            _ => {}
        }
    }
    facts.name = facts.name.trim().to_owned();
    let name = Url::parse(&facts.name).ok();
    facts.link = web_link(addresses.into_iter().chain(name));
    facts
}

fn is_rdf_link(child: &Child<'_, '_>, format: Format) -> bool {
    let own = child.namespace.as_deref().is_none_or(|uri| uri == format.namespace());
    own && child.name == "link" && child.lead().is_some()
}

fn link_as_named(child: &Child<'_, '_>) -> Option<Url> {
    join(child.base.as_ref()?, &child.lead()?)
}

/// Where a link of Atom leads, if it has this relation or none.
fn atom_link(child: &Child<'_, '_>, relation: &str) -> Option<Url> {
    let rel = child.attribute("rel");
    let address = child.attribute("href").filter(|_| rel.is_none_or(|rel| rel == relation))?;
    join(child.base.as_ref()?, &address)
}

fn construct_as_named(child: &Child<'_, '_>) -> Text {
    let kind = child.attribute("type").unwrap_or(Cow::Borrowed("text"));
    let text = match kind.as_ref() {
        "xhtml" => markup(child.pieces, true),
        _ => child.lead().unwrap_or_else(|| markup(child.pieces, false)),
    };
    Text { text: text.trim().to_owned(), is_html: kind != "text" }
}

fn content_as_named(child: &Child<'_, '_>) -> Text {
    match child.attribute("type").as_deref() {
        _ if child.attribute("src").is_some() => Text::default(),
        None | Some("text" | "html" | "xhtml" | "text/html") => construct_as_named(child),
        Some(kind) => {
            Text { text: child.lead().unwrap_or_default(), is_html: kind != "text/plain" }
        }
    }
}

/// Markup as the first version wrote it: names without prefixes, attributes in double quotes,
/// and without the `div` around it if asked.
fn markup(pieces: &[Token<'_>], without_div: bool) -> String {
    let (mut text, mut depth, mut is_first) = (String::new(), 0_usize, true);
    let (mut open, mut close) = (None, None);
    for piece in pieces {
        match piece {
            Token::Start(tag) => {
                if depth == 0 && !is_first {
                    (open, close) = (None, None);
                }
                text.push_str(&start_tag(*tag));
                if depth == 0 && is_first && local(tag.name) == "div" {
                    open = Some(text.len());
                }
                is_first = false;
                match tag.is_empty {
                    true => {
                        close = (depth == 0).then_some(text.len());
                        text.push_str(&format!("</{}>", local(tag.name)));
                    }
                    false => depth += 1,
                }
            }
            Token::End(name) => {
                depth = depth.saturating_sub(1);
                close = (depth == 0).then_some(text.len());
                text.push_str(&format!("</{}>", local(name)));
            }
            Token::Text(_) | Token::CData(_) => {
                let plain = text_of(piece, Names::Xml);
                if depth == 0 && !plain.trim_matches(is_space).is_empty() {
                    (is_first, open, close) = (false, None, None);
                }
                push_escaped(&mut text, &plain);
            }
        }
    }
    match open.zip(close).filter(|_| without_div) {
        Some((open, close)) => text[open..close.max(open)].to_owned(),
        None => text,
    }
}

fn is_space(char: char) -> bool {
    char.is_ascii_whitespace()
}

fn start_tag(tag: Tag<'_>) -> String {
    let mut text = format!("<{}", local(tag.name));
    let mut names: Vec<&str> = Vec::new();
    for (name, value) in tag.attributes() {
        if !names.contains(&name) {
            names.push(name);
            text.push_str(&format!(" {name}=\"{}\"", attribute_value(value)));
        }
    }
    text.push('>');
    text
}

fn push_escaped(text: &mut String, plain: &str) {
    for char in plain.chars() {
        match char {
            '<' => text.push_str("&lt;"),
            '&' => text.push_str("&amp;"),
            _ => text.push(char),
        }
    }
}

// From here on it is read as it is meant.

/// What an entry is meant to say. `about` is the address of an item of RDF.
fn as_meant(children: &[Child<'_, '_>], format: Format, about: Option<Url>) -> Facts {
    let texts =
        [best(children, title_rank), best(children, summary_rank), best(children, content_rank)];
    let name = best(children, name_rank);
    let is_address = name.is_none_or(|name| {
        let mut attributes = name.tag.attributes();
        !attributes.any(|(name, value)| {
            name.eq_ignore_ascii_case("isPermaLink") && value.trim().eq_ignore_ascii_case("false")
        })
    });
    let name = name.map(|name| name.text().trim().to_owned()).unwrap_or_default();
    let address = Url::parse(&name).ok().filter(|_| is_address);
    let mut links: Vec<_> = children.iter().filter(|child| own(child, &["link"]) > 0).collect();
    links.sort_by_key(|link| Reverse(own(link, &["link"])));
    let links = links.into_iter().filter_map(link);
    Facts {
        link: web_link(links.chain(about).chain(address)),
        name,
        texts: texts.map(|child| child.map(|child| text(child, format)).unwrap_or_default()),
    }
}

/// The child that says something and has the highest rank, the last of several. A rank of 0
/// does not count.
fn best<'c, 'a, 't>(
    children: &'c [Child<'a, 't>],
    rank: fn(&Child<'_, '_>) -> u8,
) -> Option<&'c Child<'a, 't>> {
    let says_something = |child: &&Child<'_, '_>| {
        let mut texts = child.pieces.iter().map(|piece| text_of(piece, Names::Xml));
        rank(child) > 0 && texts.any(|text| !text.trim().is_empty())
    };
    children.iter().filter(says_something).max_by_key(|child| rank(child))
}

/// An element of the feed's own goes before one that stands in for it.
fn own(child: &Child<'_, '_>, names: &[&str]) -> u8 {
    match child.vocabulary {
        _ if !names.iter().any(|name| child.is(name)) => 0,
        Vocabulary::Own => 3,
        Vocabulary::Atom | Vocabulary::Rss => 2,
        Vocabulary::DublinCore => 1,
        Vocabulary::Content | Vocabulary::Other => 0,
    }
}

fn title_rank(child: &Child<'_, '_>) -> u8 {
    own(child, &["title"])
}

fn summary_rank(child: &Child<'_, '_>) -> u8 {
    own(child, &["description", "summary"])
}

fn content_rank(child: &Child<'_, '_>) -> u8 {
    match child.vocabulary {
        Vocabulary::Content if child.is("encoded") => 3,
        _ => own(child, &["content", "body"]),
    }
}

fn name_rank(child: &Child<'_, '_>) -> u8 {
    own(child, &["guid", "id"])
}

/// Where the link of an entry leads, as text or as an attribute.
fn link(child: &Child<'_, '_>) -> Option<Url> {
    let base = child.base.as_ref()?;
    let text = child.text();
    let relation = child.lower_attribute("rel");
    let is_page = matches!(relation.as_str(), "" | "alternate");
    match child.tag.attribute("href").map(|href| unescape(href, Names::Xml)) {
        Some(href) if !href.trim().is_empty() => join(base, href.trim()).filter(|_| is_page),
        _ if text.trim().is_empty() => None,
        _ => join(base, text.trim()),
    }
}

fn text(child: &Child<'_, '_>, format: Format) -> Text {
    let kind = child.lower_attribute("type");
    let is_atom = format == Format::Atom || child.vocabulary == Vocabulary::Atom;
    let mode = child.lower_attribute("mode");
    let is_text =
        !kind.contains('/') || ["text/", "html", "xml"].iter().any(|part| kind.contains(part));
    if is_atom && (mode == "base64" || !is_text) {
        return Text::default();
    }
    let is_html = !is_atom || kind.contains("html") && kind != "xhtml" || mode == "escaped";
    let has_markup = text_len(child.pieces) < child.pieces.len();
    let mut text = String::new();
    for piece in child.pieces {
        match piece {
            Token::Start(tag) => text.push_str(&format!("<{}>", local(tag.name))),
            Token::End(name) => text.push_str(&format!("</{}>", local(name))),
            _ if has_markup && !is_html => push_escaped(&mut text, &text_of(piece, Names::Html)),
            _ => text.push_str(&text_of(piece, Names::Html)),
        }
        if text.len() > MARKUP_BYTES_MAX {
            break;
        }
    }
    Text { text, is_html: is_html || has_markup }
}

/// The date of an entry, as it is written and in milliseconds since 1970: when it was published,
/// or else changed.
fn date(children: &[Child<'_, '_>]) -> (String, Option<i64>) {
    let find = |names: &[&str]| {
        let dates = children.iter().filter(|child| own(child, names) > 0);
        let dates = dates.map(|child| child.text().trim().to_owned());
        dates.map(|date| (date::unix_ms(&date), date)).rfind(|(at, _)| at.is_some())
    };
    let date = find(&["pubDate", "published", "date", "issued", "created"]);
    let date = date.or_else(|| find(&["updated", "modified"]));
    date.map(|(at, date)| (date, at)).unwrap_or_default()
}
