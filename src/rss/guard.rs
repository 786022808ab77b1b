//! What a feed may ask of the parser. Pure.
//!
//! The parser is made for feeds as people write them: some shapes of a small document
//! would take it gigabytes or hours. They are found before it sees them.

use quick_xml::{
    Reader,
    encoding::DecodingReader,
    events::{BytesStart, Event},
};
use serde_json::Value;

/// Each becomes some hundred bytes at most.
const ELEMENTS_MAX: usize = 400_000;
const DEPTH_MAX: usize = 128;
/// They are compared with each other.
const ATTRIBUTES_MAX: usize = 256;
/// Those that hold at one place; every name looks through them.
const NAMESPACES_MAX: usize = 1_000;
/// Of the addresses that are relative to each other; every element has a copy.
const BASE_BYTES_MAX: usize = 1 << 16;

/// What an element adds for those within it.
#[derive(Clone, Copy, Default)]
struct Scope {
    namespaces: usize,
    base_bytes: usize,
}

/// Checks XML. What is wrong with its form is left to the parser.
///
/// # Errors
/// What there is too much of.
pub(super) fn check_xml(body: &[u8]) -> Result<(), String> {
    let mut reader = Reader::from_reader(DecodingReader::new(body));
    reader.config_mut().check_end_names = false;
    let (mut buffer, mut elements) = (Vec::new(), 0);
    let mut scopes: Vec<Scope> = Vec::new();
    loop {
        buffer.clear();
        let (start, is_empty) = match reader.read_event_into(&mut buffer) {
            Ok(Event::Start(start)) => (start, false),
            Ok(Event::Empty(start)) => (start, true),
            Ok(Event::End(_)) => {
                scopes.pop();
                continue;
            }
            Ok(Event::Decl(declaration)) => {
                if let Some(encoding) = declaration.encoder() {
                    reader.get_mut().set_encoding(encoding);
                }
                continue;
            }
            // The parser does not come further either.
            Ok(Event::Eof) | Err(_) => return Ok(()),
            Ok(_) => continue,
        };
        elements += 1;
        let scope = scope_of(&start, scopes.last().copied().unwrap_or_default())?;
        within(elements, ELEMENTS_MAX, "elements")?;
        within(scopes.len() + 1, DEPTH_MAX, "levels of elements")?;
        within(scope.namespaces, NAMESPACES_MAX, "namespaces")?;
        within(scope.base_bytes, BASE_BYTES_MAX, "bytes of xml:base")?;
        if !is_empty {
            scopes.push(scope);
        }
    }
}

fn scope_of(start: &BytesStart<'_>, mut scope: Scope) -> Result<Scope, String> {
    for (count, attribute) in start.attributes().with_checks(false).enumerate() {
        within(count + 1, ATTRIBUTES_MAX, "attributes of an element")?;
        let Ok(attribute) = attribute else { continue };
        match attribute.key.as_ref() {
            "xml:base" => scope.base_bytes += attribute.value.len(),
            name if name.starts_with("xmlns") => scope.namespaces += 1,
            _ => {}
        }
    }
    Ok(scope)
}

fn within(count: usize, max: usize, what: &str) -> Result<(), String> {
    if count > max { Err(format!("it has more than {max} {what}")) } else { Ok(()) }
}

/// JSON without what the parser would copy into every entry, and no post needs.
///
/// # Errors
/// If it is no JSON, or holds too much.
pub(super) fn lean_json(body: &[u8]) -> Result<Vec<u8>, String> {
    within(body.iter().filter(|byte| **byte == b'{').count(), ELEMENTS_MAX, "objects")?;
    let mut feed: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if let Some(fields) = feed.as_object_mut() {
        fields.retain(|name, _| !matches!(name.as_str(), "author" | "authors"));
    }
    serde_json::to_vec(&feed).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(xml: &str, what: &str) {
        let error = check_xml(xml.as_bytes()).expect_err(what);
        assert!(error.contains(what), "{error}");
    }

    #[test]
    fn shapes_that_would_cost_the_parser_too_much_are_refused() {
        refused(&format!("<a>{}", "<b/>".repeat(ELEMENTS_MAX)), "elements");
        refused(&"<b>".repeat(DEPTH_MAX + 1), "levels");
        let attributes = |count: usize, name: &str, value: &str| -> String {
            (0..count).map(|number| format!(" {name}{number}=\"{value}\"")).collect()
        };
        refused(&format!("<a{}/>", attributes(ATTRIBUTES_MAX + 1, "n", ">")), "attributes");
        let namespaces = format!("<a{}>", attributes(200, "xmlns:n", "x"));
        refused(&namespaces.repeat(6), "namespaces");
        let base = format!("<a xml:base=\"{}\">", "x/".repeat(1_000));
        refused(&base.repeat(40), "xml:base");
        // In another encoding it is the same.
        let wide: Vec<u8> = format!("\u{feff}{}", base.repeat(40))
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert!(check_xml(&wide).is_err());
    }

    #[test]
    fn large_honest_feeds_pass() {
        let item = "<item xmlns:a=\"b\" xml:base=\"https://example.org/\"><title>t</title><d>\
                    <![CDATA[<p title='x'><br>]]></d></item>";
        check_xml(format!("<rss><channel>{}", item.repeat(20_000)).as_bytes()).expect("fine");
        for broken in ["", "<", "<a", "<a b", "<a b=>", "</a></a>", "text", "<!DOCTYPE"] {
            check_xml(broken.as_bytes()).expect("left to the parser");
        }
    }

    #[test]
    fn json_loses_the_authors_of_the_feed() {
        let json = br#"{"authors":[{"name":"a"}],"author":{},"items":[{"author":{}}]}"#;
        assert_eq!(lean_json(json).expect("JSON"), br#"{"items":[{"author":{}}]}"#);
        assert!(lean_json(b"{").is_err() && lean_json("[".repeat(1_000).as_bytes()).is_err());
        let many = format!("[{}]", vec!["{}"; ELEMENTS_MAX + 1].join(","));
        assert!(lean_json(many.as_bytes()).expect_err("many").contains("objects"));
    }
}
