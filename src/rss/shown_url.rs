//! URLs as logs and error messages show them: without user information, queries and fragments,
//! which often hold keys. Pure.

use url::Url;

use super::text::plain_line;

/// The longest URL that is shown whole.
const SHOWN_CHARS_MAX: usize = 200;

/// A URL without what may be secret in it.
pub(super) fn shown(url: &Url) -> String {
    let mut bare = url.clone();
    bare.set_fragment(None);
    bare.set_query(None);
    // Both fail for URLs that can have no user.
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    let hidden = if url.query().is_some() { "?…" } else { "" };
    format!("{}{hidden}", short(bare.as_str()))
}

/// A line with something like a URL in it, without what may be secret there.
pub(super) fn shown_text(text: &str) -> String {
    if let Ok(url) = Url::parse(text) {
        return shown(&url);
    }
    let (scheme, rest) = match text.split_once("//") {
        Some((scheme, rest)) => (format!("{scheme}//"), rest),
        None => (String::new(), text),
    };
    let (user, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("…@", rest),
        None => ("", rest),
    };
    let (rest, hidden) = match rest.find(['?', '#']) {
        Some(at) => (&rest[..at], "?…"),
        None => (rest, ""),
    };
    format!("{}{hidden}", short(&format!("{scheme}{user}{rest}")))
}

fn short(text: &str) -> String {
    plain_line(text).chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_urls_hold_no_secrets() {
        for (url, expected) in [
            ("https://example.org/feed.xml", "https://example.org/feed.xml"),
            ("https://example.org/feed?key=secret", "https://example.org/feed?…"),
            ("https://example.org/feed#secret", "https://example.org/feed"),
            ("https://me:secret@example.org:8/a@b?secret#secret", "https://example.org:8/a@b?…"),
            ("javascript:go?secret", "javascript:go?…"),
        ] {
            assert_eq!(shown(&Url::parse(url).expect(url)), expected);
        }
        let long = Url::parse(&format!("http://a/{}", "b".repeat(1_000))).expect("a URL");
        assert_eq!(shown(&long).len(), SHOWN_CHARS_MAX);
    }

    #[test]
    fn shown_texts_hold_no_secrets() {
        for (text, expected) in [
            ("https://example.org/@me/feed?secret", "https://example.org/@me/feed?…"),
            ("7 https://example.org/a b", "7 https://example.org/a b"),
            ("7 https://me:se cr?et@example.org/a b", "7 https://…@example.org/a b"),
            ("7 example.org/a?secret b", "7 example.org/a?…"),
            ("http://[bad/#secret", "http://[bad/?…"),
            ("http://bad host/?user=secret@example.org", "http://…@example.org"),
            ("\u{7}a\u{1b}[2J", "a [2J"),
        ] {
            assert_eq!(shown_text(text), expected);
        }
    }
}
