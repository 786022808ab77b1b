//! What a post says of an entry: its title, then its link. Pure.

use encoding_rs::WINDOWS_1252;
use unicode_segmentation::UnicodeSegmentation;

const ELLIPSIS: char = '…';
/// A link that would leave less room than this for a longer title is not in the text.
const TITLE_CHARS_MIN: usize = 20;
/// Tags that stand within words; others part them.
const INLINE_TAGS: [&str; 19] = [
    "a", "abbr", "b", "bdi", "cite", "code", "del", "em", "font", "i", "ins", "mark", "s", "small",
    "span", "strong", "sub", "sup", "u",
];

/// `title link` in at most `chars_max` characters (Unicode scalar values, as Roost
/// counts). The title is cut, the link never: one that leaves no room for a title is left
/// out, since a post has a field for its link too.
pub(super) fn post_text(title: &str, link: Option<&str>, chars_max: usize) -> String {
    match link {
        Some(link) if title.is_empty() && link.chars().count() <= chars_max => link.to_owned(),
        Some(link) if has_room(title, link, chars_max) => {
            let room = chars_max - link.chars().count() - 1;
            format!("{} {link}", cut(title, room))
        }
        Some(_) if title.is_empty() => ELLIPSIS.to_string(),
        _ => cut(title, chars_max),
    }
}

fn has_room(title: &str, link: &str, chars_max: usize) -> bool {
    let title_chars = title.chars().count().min(TITLE_CHARS_MIN);
    !title.is_empty() && title_chars + 1 + link.chars().count() <= chars_max
}

/// The text, or its beginning and an ellipsis: up to the end of a word where that is not
/// far, and never within what is read as one character.
fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let room = chars_max.saturating_sub(1);
    let (mut chars, mut end) = (0, 0);
    for grapheme in text.graphemes(true) {
        chars += grapheme.chars().count();
        if chars > room {
            break;
        }
        end += grapheme.len();
    }
    let (head, tail) = text.split_at(end);
    let word_end = match tail.starts_with(' ') {
        true => head.len(),
        false => head.rfind(' ').filter(|at| *at * 2 >= head.len()).unwrap_or(head.len()),
    };
    let mut cut = head[..word_end].trim_end().to_owned();
    cut.push(ELLIPSIS);
    cut
}

/// A line without control characters, and with single spaces. The controls of ISO 8859-1 mean
/// characters of windows-1252, as in HTML.
pub(super) fn plain_line(text: &str) -> String {
    let text: String = text.chars().map(without_c1).collect();
    let parts_words = |char: char| char.is_whitespace() || char.is_control();
    text.split(parts_words).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn without_c1(char: char) -> char {
    match u8::try_from(u32::from(char)) {
        Ok(byte @ 0x80..=0x9f) => {
            let byte = [byte];
            let (text, _) = WINDOWS_1252.decode_without_bom_handling(&byte);
            text.chars().next().unwrap_or(char)
        }
        _ => char,
    }
}

/// What HTML says, as a line: without tags, comments, scripts and styles, and with its
/// references resolved. What only looks like a tag, as in `1 < 2`, stays.
pub(super) fn line_of_html(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        match tag_end(rest) {
            Some(end) => {
                let name = tag_name(&rest[1..end]);
                if !INLINE_TAGS.contains(&name.as_str()) {
                    text.push(' ');
                }
                let hidden = matches!(name.as_str(), "script" | "style") && rest[1..2] != *"/";
                rest = &rest[end..];
                if hidden {
                    rest = rest.find("</").map_or("", |end| &rest[end..]);
                }
            }
            None => {
                text.push('<');
                rest = &rest[1..];
            }
        }
    }
    text.push_str(rest);
    plain_line(&html_escape::decode_html_entities(&text))
}

/// Where the tag or comment ends that a text begins with.
fn tag_end(text: &str) -> Option<usize> {
    if text.starts_with("<!--") {
        return text.find("-->").map(|at| at + 3);
    }
    let begins =
        text[1..].starts_with(|char: char| char.is_ascii_alphabetic() || "/!?".contains(char));
    begins.then(|| text.find('>').map(|at| at + 1))?
}

fn tag_name(tag: &str) -> String {
    let name = tag.trim_start_matches('/');
    name.chars().take_while(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINK: &str = "https://example.org/a";

    #[test]
    fn a_title_is_followed_by_its_link() {
        assert_eq!(post_text("Snow", Some(LINK), 140), "Snow https://example.org/a");
        assert_eq!(post_text("Snow", None, 140), "Snow");
        assert_eq!(post_text("", Some(LINK), 140), LINK);
    }

    #[test]
    fn a_long_title_is_cut_at_a_word_and_the_link_stays() {
        let title = "The lake has frozen over for the first time in twenty years";
        let text = post_text(title, Some(LINK), 60);
        assert_eq!(text, "The lake has frozen over for the… https://example.org/a");
        assert_eq!(cut("aaaa bbbb", 5), "aaaa…");
        assert_eq!(cut(&"a".repeat(9), 5), "aaaa…");
        // A family of four is one character to a reader, and seven to Roost.
        assert_eq!(cut("👨‍👩‍👧‍👦👨‍👩‍👧‍👦", 9), "👨‍👩‍👧‍👦…");
    }

    #[test]
    fn a_link_that_leaves_no_room_for_a_title_is_left_out() {
        let link = format!("https://example.org/{}", "a".repeat(100));
        assert_eq!(link.chars().count(), 120);
        let title = "Nineteen characters";
        assert_eq!(post_text(title, Some(&link), 140), format!("{title} {link}"));
        assert_eq!(post_text("Twenty one characters", Some(&link), 140), "Twenty one characters");
        assert_eq!(post_text("", Some(&"a".repeat(141)), 140), "…");
    }

    #[test]
    fn html_is_told_as_a_line() {
        for (html, line) in [
            ("AT&amp;T &lt;b&gt; &quot;x&quot; &#8212; &#x2014; &eacute;", "AT&T <b> \"x\" — — é"),
            ("<b>bo</b>ld\n <i class='a'>x</i>", "bold x"),
            ("<p>one</p><p>two<br/>three</p>", "one two three"),
            ("1 < 2 & 3 > 2 <", "1 < 2 & 3 > 2 <"),
            ("a<!-- <b> -->b<script>if (a < b) {}</script>c<style>p {}</style>", "a b c"),
            ("\u{7}bell\u{a0}and\u{2028}line\u{1b}[2J", "bell and line [2J"),
            ("It&#146;s\u{93}", "It’s“"),
            ("<", "<"),
            ("<é>", "<é>"),
            ("&nosuch; &#xffffffff; &", "&nosuch; &#xffffffff; &"),
        ] {
            assert_eq!(line_of_html(html), line, "{html}");
        }
    }

    proptest! {
        #[test]
        fn a_post_fits_and_keeps_its_link_whole(
            title in "\\PC{0,200}", path in "[a-z]{0,150}", chars_max in 1..200_usize,
        ) {
            let title = plain_line(&title);
            let link = format!("https://example.org/{path}");
            let text = post_text(&title, Some(&link), chars_max);
            prop_assert!(text.chars().count() <= chars_max);
            prop_assert!(!text.trim().is_empty());
            if link.chars().count() + 1 + TITLE_CHARS_MIN <= chars_max {
                prop_assert!(text.ends_with(&link));
            }
        }

        #[test]
        fn any_text_is_one_line(html in "(\\PC|[<>&;/!\n-]|<b>|&amp;|<!--|</style>){0,60}") {
            let line = line_of_html(&html);
            prop_assert!(!line.contains(char::is_control));
            prop_assert_eq!(line.trim(), line.as_str());
        }
    }
}
