//! Splits markup into tokens. Pure, and never fails.
//!
//! XML that is well formed is read as XML. What is not is read as its author meant it, as far as
//! that can be seen locally: `<` that begins no tag and `&` that begins no reference are text,
//! attributes need no quotes, and a section or a quote that is never closed is not opened.
//! Declarations, comments, processing instructions and a DOCTYPE are left out; entities that a
//! DOCTYPE defines are never expanded.
//!
//! Every token is a slice of the document. All scans together pass over it a few times: what is
//! looked for ahead is remembered until it is passed ([`Ahead`]).

use std::borrow::Cow;

/// Attributes of an element beyond these are not seen.
const ATTRIBUTES_MAX: usize = 256;
/// The longest reference, from `&` to `;`.
const REFERENCE_BYTES_MAX: usize = 40;

/// Bytes that are scanned in vain for the end of a tag. Beyond them no value holds a `<`, so that
/// such scans are short.
const WASTED_BYTES_MAX: usize = 16 << 20;

/// A piece of a document. Text is not decoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Text(&'a str),
    CData(&'a str),
    Start(Tag<'a>),
    /// The end of an element of this name.
    End(&'a str),
}

/// The start of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag<'a> {
    /// As it is written, with its prefix.
    pub(super) name: &'a str,
    /// As they are written.
    attributes: &'a str,
    /// It has no content and no end.
    pub(super) is_empty: bool,
}

impl<'a> Tag<'a> {
    pub(super) fn attributes(&self) -> Attributes<'a> {
        Attributes { rest: self.attributes, count: 0 }
    }

    /// The value of an attribute, as it is written. Case counts.
    pub(super) fn attribute(&self, name: &str) -> Option<&'a str> {
        self.attributes().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// Whether an attribute may have this in its name or value.
    pub(super) fn mentions(&self, part: &str) -> bool {
        self.attributes.contains(part)
    }
}

/// Names and values of attributes, as they are written.
pub(super) struct Attributes<'a> {
    rest: &'a str,
    count: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.count += 1;
        let rest = self.rest.trim_start_matches(|char: char| char.is_whitespace() || char == '/');
        if rest.is_empty() || self.count > ATTRIBUTES_MAX {
            return None;
        }
        let name_end = rest.find(|char: char| char.is_whitespace() || char == '=');
        let (name, rest) = rest.split_at(name_end.unwrap_or(rest.len()));
        let Some(value) = rest.trim_start().strip_prefix('=').map(str::trim_start) else {
            self.rest = rest;
            return Some((name, ""));
        };
        let quoted = value.strip_prefix(['"', '\'']).and_then(|inner| {
            let end = inner.find(value.get(..1)?)?;
            Some((&inner[..end], &inner[end + 1..]))
        });
        let (value, rest) = quoted.unwrap_or_else(|| {
            let end = value.find(char::is_whitespace).unwrap_or(value.len());
            (value[..end].trim_matches(['"', '\'']), &value[end..])
        });
        self.rest = rest;
        Some((name, value))
    }
}

/// The tokens of a document.
pub(super) struct Tokens<'a> {
    document: &'a str,
    at: usize,
    had_doctype: bool,
    wasted_bytes: usize,
    comment_end: Ahead,
    section_end: Ahead,
    instruction_end: Ahead,
    declaration_end: Ahead,
    quote: Ahead,
    apostrophe: Ahead,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(document: &'a str) -> Self {
        Self {
            document,
            at: 0,
            had_doctype: false,
            wasted_bytes: 0,
            comment_end: Ahead::of("-->"),
            section_end: Ahead::of("]]>"),
            instruction_end: Ahead::of("?>"),
            declaration_end: Ahead::of(">"),
            quote: Ahead::of("\""),
            apostrophe: Ahead::of("'"),
        }
    }

    fn rest(&self) -> &'a str {
        &self.document[self.at..]
    }

    /// Text up to what may be markup. The first `min` bytes are text in any case.
    fn text(&mut self, min: usize) -> Token<'a> {
        let rest = self.rest();
        let mut end = min;
        loop {
            let Some(at) = rest[end..].find('<') else {
                end = rest.len();
                break;
            };
            end += at;
            if begins_markup(&rest[end..]) {
                break;
            }
            end += 1;
        }
        self.at += end;
        Token::Text(&rest[..end])
    }

    /// Skips `<!…`, or reads it if it is a CDATA section.
    fn declaration(&mut self) -> Option<Token<'a>> {
        let (rest, at) = (self.rest(), self.at);
        if rest.starts_with("<!--") {
            let end = self.comment_end.find(self.document, at + 4);
            self.at = end.unwrap_or(at + 4);
        } else if rest.starts_with("<![CDATA[") {
            let begin = at + "<![CDATA[".len();
            match self.section_end.find(self.document, begin) {
                Some(end) if !is_left_open(&self.document[begin..end]) => {
                    self.at = end;
                    return Some(Token::CData(&self.document[begin..end - "]]>".len()]));
                }
                _ => self.at = begin,
            }
        } else {
            let end = self.doctype_end().or(self.declaration_end.find(self.document, at));
            self.at = end.unwrap_or(at + 2);
        }
        None
    }

    /// Where the first DOCTYPE ends that holds declarations.
    fn doctype_end(&mut self) -> Option<usize> {
        let rest = self.rest();
        let is_doctype = rest.get(..9).is_some_and(|name| name.eq_ignore_ascii_case("<!doctype"));
        if !is_doctype || std::mem::replace(&mut self.had_doctype, true) {
            return None;
        }
        let begin = rest.find(['[', '>']).filter(|at| rest[*at..].starts_with('['))?;
        let mut ends = rest[begin..].match_indices(']').map(|(at, _)| begin + at + 1);
        let end = ends.find(|end| rest[*end..].trim_start().starts_with('>'))?;
        rest[end..].find('>').map(|at| self.at + end + at + 1)
    }

    fn instruction(&mut self) {
        let is_declaration = self.rest().get(..5).is_some_and(|name| name == "<?xml");
        let end = match is_declaration {
            true => None,
            false => self.instruction_end.find(self.document, self.at),
        };
        let end = end.or_else(|| self.declaration_end.find(self.document, self.at));
        self.at = end.unwrap_or(self.document.len());
    }

    fn end(&mut self) -> Token<'a> {
        let rest = &self.rest()[2..];
        let name_end = rest.find(|char: char| char.is_whitespace() || "/<>".contains(char));
        let name = &rest[..name_end.unwrap_or(rest.len())];
        let end = rest.find(['<', '>']).unwrap_or(rest.len());
        let is_closed = rest[end..].starts_with('>');
        self.at += 2 + end + usize::from(is_closed);
        Token::End(name)
    }

    /// The start of an element, or the `<` that begins none; `None` if the document ends in it.
    fn start(&mut self) -> Option<Token<'a>> {
        let (begin, document) = (self.at + 1, self.document);
        let is_name_end = |char: char| char.is_whitespace() || "/<>=".contains(char);
        let name_end = begin + document[begin..].find(is_name_end)?;
        let mut at = name_end;
        loop {
            at += document[at..].find(['<', '>', '='])?;
            match document.as_bytes().get(at)? {
                b'>' => break,
                b'<' => {
                    self.wasted_bytes += at - begin;
                    return Some(self.text(1));
                }
                _ => at = self.value_end(at + 1),
            }
        }
        self.at = at + 1;
        let attributes = &document[name_end..at];
        let is_empty = attributes.ends_with('/');
        Some(Token::Start(Tag { name: &document[begin..name_end], attributes, is_empty }))
    }

    /// Where a value ends that begins at `at`, if it is quoted. A value that reaches over the end
    /// of another element to a quote that ends nothing was not closed.
    fn value_end(&mut self, at: usize) -> usize {
        let rest = self.document[at..].trim_start();
        let begin = self.document.len() - rest.len() + 1;
        let quote = match rest.as_bytes().first() {
            Some(b'"') => &mut self.quote,
            Some(b'\'') => &mut self.apostrophe,
            _ => return at,
        };
        let may_scan = self.wasted_bytes <= WASTED_BYTES_MAX;
        let is_value = |end: &usize| {
            let (value, after) = (&self.document[begin..*end], &self.document[*end..]);
            let ends_well =
                after.starts_with(|char: char| char.is_whitespace() || "/>".contains(char));
            if may_scan { ends_well || !value.contains("</") } else { !value.contains('<') }
        };
        quote.find(self.document, begin).filter(is_value).unwrap_or(begin)
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let rest = self.rest();
            if rest.is_empty() {
                return None;
            }
            if !begins_markup(rest) {
                return Some(self.text(0));
            }
            match rest.as_bytes().get(1) {
                Some(b'!') => {
                    if let Some(section) = self.declaration() {
                        return Some(section);
                    }
                }
                Some(b'?') => self.instruction(),
                Some(b'/') => return Some(self.end()),
                _ => {
                    let start = self.start();
                    if start.is_none() {
                        self.at = self.document.len();
                    }
                    return start;
                }
            }
        }
    }
}

/// Whether `<` begins a tag or the like.
fn begins_markup(text: &str) -> bool {
    let begins_name = |char: char| char.is_alphabetic() || matches!(char, '_' | ':');
    let mut chars = text.chars();
    chars.next() == Some('<')
        && match chars.next() {
            Some('/') => chars.next().is_some_and(begins_name),
            Some('!' | '?') => true,
            Some(char) => begins_name(char),
            None => false,
        }
}

/// Whether a section was not closed where it should have been: another one begins in it, in
/// another entry.
fn is_left_open(section: &str) -> bool {
    let Some(next) = section.find("<![CDATA[") else { return false };
    let before = &section.as_bytes()[..next];
    let has = |end: &[u8]| before.windows(end.len()).any(|part| part.eq_ignore_ascii_case(end));
    has(b"</item") || has(b"</entry")
}

/// Looks ahead for a text, and remembers where it was until that is passed.
struct Ahead {
    needle: &'static str,
    /// Where it ended; `None` inside if it does not come again.
    found: Option<Option<usize>>,
}

impl Ahead {
    fn of(needle: &'static str) -> Self {
        Self { needle, found: None }
    }

    /// Where the next one from `from` on ends. Calls go forward only.
    fn find(&mut self, document: &str, from: usize) -> Option<usize> {
        match self.found {
            Some(None) => None,
            Some(Some(end)) if end >= from + self.needle.len() => Some(end),
            _ => {
                let at = document[from..].find(self.needle);
                let end = at.map(|at| from + at + self.needle.len());
                self.found = Some(end);
                end
            }
        }
    }
}

/// Which named references are resolved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// The five of XML. Others stay as they are written.
    Xml,
    /// Those of HTML too.
    Html,
}

/// Resolves the references of a text. What is none, or is unknown, stays as it is written; a
/// number that is no character becomes U+FFFD.
pub(super) fn unescape(raw: &str, names: Names) -> Cow<'_, str> {
    if !raw.contains('&') {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('&') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.bytes().take(REFERENCE_BYTES_MAX).position(|byte| byte == b';');
        let resolved = end.and_then(|end| resolve(&rest[..=end], names));
        match (resolved, end) {
            (Some(resolved), Some(end)) => {
                text.push_str(&resolved);
                rest = &rest[end + 1..];
            }
            _ => {
                text.push('&');
                rest = &rest[1..];
            }
        }
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// Whether every `&` of a text begins a reference that XML knows.
pub(super) fn is_xml_text(raw: &str) -> bool {
    raw.match_indices('&').all(|(at, _)| {
        let rest = &raw[at..];
        let end = rest.bytes().take(REFERENCE_BYTES_MAX).position(|byte| byte == b';');
        end.is_some_and(|end| resolve(&rest[..=end], Names::Xml).is_some())
    })
}

/// Resolves a reference, given from `&` to `;`.
fn resolve(reference: &str, names: Names) -> Option<Cow<'_, str>> {
    let name = reference.strip_prefix('&')?.strip_suffix(';')?;
    if let Some(number) = name.strip_prefix('#') {
        let hex = number.strip_prefix(['x', 'X']);
        let (digits, radix) = hex.map_or((number, 10), |digits| (digits, 16));
        let are_digits = !digits.is_empty() && digits.chars().all(|char| char.is_digit(radix));
        let code = u32::from_str_radix(digits, radix).ok().filter(|code| *code > 0);
        let char = code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
        return are_digits.then(|| char.to_string().into());
    }
    let resolved = match name {
        "lt" => "<",
        "gt" => ">",
        "amp" => "&",
        "quot" => "\"",
        "apos" => "'",
        _ => {
            let html = html_escape::decode_html_entities(reference);
            return (names == Names::Html && html != reference).then_some(html);
        }
    };
    Some(resolved.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens as one line: text in brackets.
    fn split(document: &str) -> String {
        let show = |token| match token {
            Token::Text(text) => format!("[{text}]"),
            Token::CData(text) => format!("[[{text}]]"),
            Token::Start(tag) => {
                let attributes = tag.attributes().map(|(name, value)| format!(" {name}={value}"));
                let slash = if tag.is_empty { "/" } else { "" };
                format!("<{}{}{slash}>", tag.name, attributes.collect::<String>())
            }
            Token::End(name) => format!("</{name}>"),
        };
        Tokens::new(document).map(show).collect()
    }

    #[test]
    fn tokens_of_well_formed_xml_are_complete() {
        for (document, tokens) in [
            ("<a b='1' c=\"2\">x</a>", "<a b=1 c=2>[x]</a>"),
            ("<?xml version='1.0'?><a/><!-- <b> --><c />", "<a/><c/>"),
            ("<a><![CDATA[<b>&]]]]><![CDATA[>]]></a >", "<a>[[<b>&]]]][[>]]</a>"),
            ("<x:a t='a > \"b\"'>1 &lt; 2</x:a>", "<x:a t=a > \"b\">[1 &lt; 2]</x:a>"),
            ("<!DOCTYPE a [<!ENTITY b '<c>'> ] ><a>&b;</a>", "<a>[&b;]</a>"),
            ("<?php echo '<a>' ?><a\n/>", "<a/>"),
        ] {
            assert_eq!(split(document), tokens, "{document}");
        }
    }

    #[test]
    fn tokens_of_broken_markup_keep_what_was_meant() {
        for (document, tokens) in [
            ("<a>1 < 2 <3 << 4</a>", "<a>[1 < 2 <3 << 4]</a>"),
            ("<a>x <b then</a>", "<a>[x ][<b then]</a>"),
            ("<a b=1 c d=http://e/f>", "<a b=1 c= d=http://e/f>"),
            ("<a b=\"1>x</a><c d=\"2\">", "<a b=1>[x]</a><c d=2>"),
            ("<a b='1'c='2'>", "<a b=1 c=2>"),
            ("<a b='<i>1</i>' c='2'>", "<a b=<i>1</i> c=2>"),
            ("<a>x<![CDATA[y</a>", "<a>[x][y]</a>"),
            ("<a><![CDATA[x</item><a><![CDATA[y]]></a>", "<a>[x]</item><a>[[y]]</a>"),
            ("<a>x<!-- y</a>", "<a>[x][ y]</a>"),
            ("<?xml version='1.0'><a>?></a>", "<a>[?>]</a>"),
            ("</ x></3>&", "[</ x></3>&]"),
            ("<a>x<b", "<a>[x]"),
            ("<a>x</a", "<a>[x]</a>"),
        ] {
            assert_eq!(split(document), tokens, "{document}");
        }
    }

    #[test]
    fn references_are_resolved_or_kept() {
        let text = "&lt;&amp;amp;&#65;&#x42;&#X43; & &b &nosuch; &;&#; &#+1; &#0;&#xd800;&eacute;";
        let xml = "<&amp;ABC & &b &nosuch; &;&#; &#+1; \u{fffd}\u{fffd}&eacute;";
        assert_eq!(unescape(text, Names::Xml), xml);
        assert_eq!(unescape(text, Names::Html), xml.replace("&eacute;", "é"));
        assert!(is_xml_text("a&amp;b&#1;") && !is_xml_text("a&b") && !is_xml_text("&eacute;"));
    }

    #[test]
    fn tokens_of_hostile_markup_take_linear_time() {
        for piece in [
            "<![CDATA[",
            "<!--",
            "<?x ",
            "<a b=\"",
            "<a b='",
            "<a ",
            "</a",
            "<!d[",
            "<",
            "]",
            "=",
            "<![CDATA[</item>",
            "<!doctype[",
            "&",
            "<a b='</",
            "<a b=\"'",
            "<a b=\"<x\" b=",
        ] {
            let document = piece.repeat((1 << 20) / piece.len());
            assert!(Tokens::new(&document).count() <= document.len(), "{piece}");
            let _ = unescape(&document, Names::Html);
        }
    }
}
