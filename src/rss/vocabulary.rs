//! Which vocabulary an element belongs to, and what its address is relative to. Pure.
//!
//! Namespaces of feeds are often misspelt, undeclared, or set for a whole document by mistake.
//! An element without a prefix therefore belongs to the feed's own vocabulary, unless its
//! namespace is known to be another one.

use std::{borrow::Cow, rc::Rc};

use url::Url;

use super::markup::{Names, Tag, is_xml_text, unescape};

/// A longer `xml:base` is left out.
const BASE_BYTES_MAX: usize = 1 << 16;

/// The form of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// RSS 0.91 to 2.0.
    Rss,
    /// RSS 0.90 and 1.0.
    Rdf,
    Atom,
}

/// Whose name an element has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vocabulary {
    /// The document's own, or what is meant to be.
    Own,
    /// Atom, within RSS.
    Atom,
    /// RSS, within Atom.
    Rss,
    DublinCore,
    /// `content:encoded`.
    Content,
    Other,
}

/// What an element says for those within it.
#[derive(Clone, Debug, Default)]
struct Scope<'a> {
    /// Prefixes and their namespaces; the default one has an empty prefix.
    namespaces: Vec<(&'a str, Cow<'a, str>)>,
    base: Option<Rc<Url>>,
}

/// The scopes that an element is in, outermost first.
#[derive(Clone, Debug)]
pub(super) struct Scopes<'a> {
    base: Rc<Url>,
    /// The default namespace of the root element.
    root_namespace: Option<Cow<'a, str>>,
    format: Format,
    scopes: Vec<Scope<'a>>,
}

impl<'a> Scopes<'a> {
    /// Of a document that was found at `base`.
    pub(super) fn new(base: &Url, format: Format, root: Tag<'a>) -> Self {
        let mut scopes =
            Self { base: Rc::new(base.clone()), root_namespace: None, format, scopes: Vec::new() };
        scopes.push(root);
        scopes.root_namespace = scopes.namespace("").map(|uri| Cow::Owned(uri.to_owned()));
        scopes
    }

    pub(super) fn len(&self) -> usize {
        self.scopes.len()
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Namespaces that are declared here.
    pub(super) fn namespaces(&self) -> usize {
        self.scopes.iter().map(|scope| scope.namespaces.len()).sum()
    }

    pub(super) fn push(&mut self, tag: Tag<'a>) {
        let scope = if tag.mentions("xml") { self.scope(tag) } else { Scope::default() };
        self.scopes.push(scope);
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.scopes.truncate(len);
    }

    fn scope(&self, tag: Tag<'a>) -> Scope<'a> {
        let mut scope = Scope::default();
        for (name, value) in tag.attributes() {
            let prefix = match name.split_once(':') {
                Some(("xmlns", prefix)) => prefix,
                Some(("xml", "base")) if scope.base.is_none() => {
                    let base = join(self.base(), &attribute_value(value)).map(Rc::new);
                    scope.base = base.filter(|base| base.as_str().len() <= BASE_BYTES_MAX);
                    continue;
                }
                None if name == "xmlns" => "",
                _ => continue,
            };
            scope.namespaces.push((prefix, unescape(value, Names::Xml)));
        }
        scope
    }

    /// What addresses are relative to.
    pub(super) fn base(&self) -> &Url {
        let base = self.scopes.iter().rev().find_map(|scope| scope.base.as_deref());
        base.unwrap_or(&self.base)
    }

    fn namespace(&self, prefix: &str) -> Option<&str> {
        let all = self.scopes.iter().rev().flat_map(|scope| scope.namespaces.iter().rev());
        all.clone().find(|(found, _)| *found == prefix).map(|(_, uri)| uri.as_ref())
    }

    /// The namespace of an element whose own scope is the innermost one; `None` if it has none,
    /// or its prefix is not declared.
    pub(super) fn namespace_of(&self, name: &str) -> Option<&str> {
        self.namespace(prefix(name)).filter(|uri| !uri.is_empty())
    }

    /// The vocabulary of an element whose own scope is the innermost one.
    pub(super) fn vocabulary(&self, name: &str) -> Vocabulary {
        let namespace = self.namespace_of(name);
        let vocabulary = match (prefix(name), namespace) {
            ("", uri) if uri.is_none() || uri == self.root_namespace.as_deref() => Vocabulary::Own,
            ("", Some(uri)) if known(uri) == Vocabulary::Other => Vocabulary::Own,
            (_, Some(uri)) => known(uri),
            (prefix, None) => usual(prefix),
        };
        match (self.format, vocabulary) {
            (Format::Atom, Vocabulary::Atom) => Vocabulary::Own,
            (Format::Rss | Format::Rdf, Vocabulary::Rss) => Vocabulary::Own,
            _ => vocabulary,
        }
    }
}

fn prefix(name: &str) -> &str {
    name.rsplit_once(':').map_or("", |(prefix, _)| prefix)
}

/// A name without its prefix.
pub(super) fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}

impl Format {
    pub(super) fn namespace(self) -> &'static str {
        match self {
            Self::Rss | Self::Rdf => "http://purl.org/rss/1.0/",
            Self::Atom => "http://www.w3.org/2005/Atom",
        }
    }
}

/// What a namespace is meant to be.
fn known(uri: &str) -> Vocabulary {
    let uri = uri.to_ascii_lowercase();
    let has = |part: &str| uri.contains(part);
    if has("purl.org/rss/1.0/modules/content") {
        Vocabulary::Content
    } else if has("purl.org/dc/") {
        Vocabulary::DublinCore
    } else if has("/modules/") {
        Vocabulary::Other
    } else if has("w3.org/2005/atom") || has("purl.org/atom") || has("purl.org/net/atom") {
        Vocabulary::Atom
    } else if ["purl.org/rss", "rdf/simple/0.9", "userland.com/rss", "tech/rss", "rssboard.org/rss"]
        .iter()
        .any(|part| has(part))
    {
        Vocabulary::Rss
    } else {
        Vocabulary::Other
    }
}

/// What a prefix stands for that is not declared.
fn usual(prefix: &str) -> Vocabulary {
    match prefix {
        "atom" | "a10" | "atom10" => Vocabulary::Atom,
        "rss" => Vocabulary::Rss,
        "dc" | "dcterms" => Vocabulary::DublinCore,
        "content" => Vocabulary::Content,
        _ => Vocabulary::Other,
    }
}

/// The value of an attribute. If it holds anything that is no reference of XML, then it is not
/// escaped at all: so addresses with a bare `&` have always been read.
pub(super) fn attribute_value(raw: &str) -> Cow<'_, str> {
    if is_xml_text(raw) { unescape(raw, Names::Xml) } else { Cow::Borrowed(raw) }
}

/// An address, relative to another one; `None` if it is none.
pub(super) fn join(base: &Url, address: &str) -> Option<Url> {
    match Url::parse(address) {
        Err(url::ParseError::RelativeUrlWithoutBase) => base.join(address).ok(),
        parsed => parsed.ok(),
    }
}
