//! Reads a JSON Feed. Pure.
//!
//! Of an item only what a post needs is looked at, whatever else it holds. A text may be a
//! number, as the specification says of ids. What is no JSON is read item by item, so that a
//! broken item costs no other one, and so does an item at which the document ends.

use std::ops::Range;

use serde_json::Value;
use url::Url;

use super::{
    date,
    entry::{Facts, RawEntry, Text, web_link},
    vocabulary::join,
};

/// Objects of a document.
const OBJECTS_MAX: usize = 400_000;

/// What was found in a document.
pub(super) struct Items {
    pub(super) entries: Vec<RawEntry>,
    pub(super) items: usize,
    /// The document ends before its items do.
    pub(super) is_cut: bool,
}

/// Reads the items of a document that begins with `{` and was found at `base`.
///
/// # Errors
/// If it has none, or holds too much.
pub(super) fn read(document: &str, base: &Url) -> Result<Items, String> {
    if document.bytes().filter(|byte| *byte == b'{').count() > OBJECTS_MAX {
        return Err(format!("it has more than {OBJECTS_MAX} objects; list a feed with fewer"));
    }
    let (items, count, is_cut) = match serde_json::from_str::<Value>(document) {
        Ok(mut document) => {
            let items = document.get_mut("items").map(Value::take);
            let Some(Value::Array(items)) = items else { return Err(no_items(String::new())) };
            let count = items.len();
            (items, count, false)
        }
        Err(error) => {
            let found = ranges(document).ok_or_else(|| no_items(format!(" ({error})")))?;
            let items = found.items.iter().filter_map(|range| salvage(&document[range.clone()]));
            let count = found.items.len() + usize::from(found.is_cut);
            (items.collect(), count, found.is_cut)
        }
    };
    let entries = items.iter().map(|item| entry(item, base)).collect();
    Ok(Items { entries, items: count, is_cut })
}

fn no_items(problem: String) -> String {
    format!("it is JSON without items{problem}; list the address of an RSS, Atom or JSON feed")
}

fn entry(item: &Value, base: &Url) -> RawEntry {
    let text = |name: &str| scalar(&item[name]);
    let trimmed = |name: &str| text(name).map(|text| text.trim().to_owned());
    let content_text = trimmed("content_text").map(Text::plain);
    // The text is the content if there is no HTML, and else the summary if there is none.
    let (content, other) = match trimmed("content_html").map(Text::html) {
        Some(html) => (Some(html), content_text),
        None => (content_text, None),
    };
    let summary = trimmed("summary").map(Text::plain).or(other);
    let title = trimmed("title").map(Text::plain);
    let attachments = item["attachments"].as_array().map(Vec::as_slice).unwrap_or_default();
    let attached = attachments.iter().filter_map(|attachment| scalar(&attachment["url"]));
    let addresses = [text("url"), text("external_url")].into_iter().flatten().chain(attached);
    let addresses = addresses.filter_map(|address| join(base, &address));
    let name = trimmed("id").unwrap_or_default();
    let link = web_link(addresses.chain(Url::parse(&name).ok()));
    let texts = [title, summary, content].map(Option::unwrap_or_default);
    let facts = Facts { name, link, texts };
    let dates = [trimmed("date_published"), trimmed("date_modified")];
    let dates = dates.into_iter().flatten().map(|date| (date::unix_ms(&date), date));
    let date = dates.into_iter().find(|(at, _)| at.is_some());
    let (unix_ms, date) = date.unwrap_or_default();
    RawEntry { named_by: facts.clone(), says: facts, date, unix_ms }
}

/// A text, or a number as the text that it is written as.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(bool) => Some(bool.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Where the items of a broken document stand.
struct Ranges {
    items: Vec<Range<usize>>,
    is_cut: bool,
}

/// Finds the items by their brackets; `None` if there is no array of that name.
fn ranges(document: &str) -> Option<Ranges> {
    let mut names = document.match_indices("\"items\"").map(|(at, name)| at + name.len());
    let begin = names.find_map(|at| {
        let array = document[at..].trim_start().strip_prefix(':')?.trim_start();
        array.starts_with('[').then_some(document.len() - array.len() + 1)
    })?;
    let mut found = Ranges { items: Vec::new(), is_cut: true };
    let (mut depth, mut item_begin, mut in_string, mut is_escaped) = (0_usize, 0, false, false);
    for (at, byte) in document.bytes().enumerate().skip(begin) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                item_begin = if depth == 0 { at } else { item_begin };
                depth += 1;
            }
            b'}' if depth == 1 => {
                depth = 0;
                found.items.push(item_begin..at + 1);
            }
            b']' if depth == 0 => {
                found.is_cut = false;
                break;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Some(found)
}

/// Reads an item that may not be JSON.
fn salvage(item: &str) -> Option<Value> {
    serde_json::from_str(item).or_else(|_| serde_json::from_str(&repaired(item))).ok()
}

/// Makes JSON of what is nearly so: with control characters or half a surrogate pair in its
/// strings, unknown escapes, or a comma too much.
fn repaired(item: &str) -> String {
    let (mut text, mut in_string) = (String::with_capacity(item.len()), false);
    let mut rest = item;
    while let Some(char) = rest.chars().next() {
        let (piece, after) = rest.split_at(char.len_utf8());
        rest = after;
        match char {
            '"' => {
                in_string = !in_string;
                text.push(char);
            }
            '\\' if in_string => {
                let (escape, len) = escape(rest);
                text.push_str(&escape);
                rest = &rest[len..];
            }
            _ if in_string && char.is_control() => text.push(' '),
            ',' if !in_string && rest.trim_start().starts_with(['}', ']']) => {}
            _ => text.push_str(piece),
        }
    }
    text
}

/// The escape to write for a backslash, and how much of what follows it belongs to it.
fn escape(rest: &str) -> (String, usize) {
    let unit = |text: &str| {
        let digits = text.strip_prefix('u')?.get(..4)?;
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(digits)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let low =
        |text: &str| unit(text.strip_prefix('\\')?).filter(|unit| (0xdc00..0xe000).contains(unit));
    match (unit(rest), rest.bytes().next()) {
        (Some(0xd800..0xdc00), _) if low(&rest[5..]).is_some() => {
            (format!("\\{}", &rest[..11]), 11)
        }
        (Some(0xd800..0xe000), _) => ("\\ufffd".to_owned(), 5),
        (Some(_), _) => (format!("\\{}", &rest[..5]), 5),
        (None, Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => {
            (format!("\\{}", &rest[..1]), 1)
        }
        _ => ("\\\\".to_owned(), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(document: &str) -> Vec<String> {
        let base = Url::parse("https://example.org/feed").expect("a URL");
        let items = read(document, &base).expect("items");
        let tell = |entry: RawEntry| {
            let Facts { name, link, texts } = entry.says;
            format!("{name}|{}|{}", texts[0].text, link.unwrap_or_default())
        };
        let cut = items.is_cut.then(|| "cut".to_owned());
        items.entries.into_iter().map(tell).chain(cut).collect()
    }

    #[test]
    fn broken_item_costs_no_other() {
        let items = r#"{"id":1,"title":"a","x":}, {"id":2,"title":"b\ud83d!\q"}, null,
            {"id":3,"title":"c, {] \" ","tags":["x",],}"#;
        let feed = format!("{{\"items\" : [ {items} ]}} trailing");
        assert_eq!(told(&feed), ["2|b\u{fffd}!\\q|", "3|c, {] \"|"]);
        assert_eq!(told(&feed.replace("b\\", "\u{1}\t\\")), ["2|\u{fffd}!\\q|", "3|c, {] \"|"]);
        let pair = r#"{"items":[{"id":"\ud83d\ude00"},]}"#;
        assert_eq!(told(pair), ["😀||"]);
    }

    #[test]
    fn cut_item_is_left_for_later() {
        let cut = r#"{"version":"x","items":[{"id":"1","title":"a"},{"id":"2","title":"b"#;
        assert_eq!(told(cut), ["1|a|", "cut"]);
        assert_eq!(told(r#"{"items":["#), ["cut"]);
    }

    #[test]
    fn document_without_items_or_with_too_many_objects_is_refused() {
        let refused = |document: &str| {
            let base = Url::parse("https://example.org/").expect("a URL");
            read(document, &base).err().expect("refused")
        };
        for document in ["{}", "{", r#"{"items":{}}"#, r#"{"items":null}"#] {
            assert!(refused(document).contains("without items"), "{document}");
        }
        let many = format!("{{\"items\":[{}{{}}]}}", "{},".repeat(OBJECTS_MAX));
        assert!(refused(&many).contains("objects"));
    }
}
