//! From the bytes of a feed to its text. Pure.
//!
//! Everything behind this works on one UTF-8 text, so that no parser decodes anything: an XML
//! declaration further down is skipped like a comment. The encoding is, in this order: the byte
//! order mark, UTF-16 or UTF-32 seen by their zero bytes, the charset of the Content-Type
//! (RFC 7303), the XML declaration, UTF-8. Two things are not believed, because feeds get them
//! wrong and have always been read: UTF-16 that has no zero bytes, and a charset that a server
//! adds by itself to a document that is valid UTF-8 and does not say otherwise. Of several
//! encodings the first that fits is taken; where none does, U+FFFD stands for what is broken.

use std::borrow::Cow;

use encoding_rs::{Encoding, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE};

/// The XML declaration begins within so many bytes: some servers write a warning before it.
const DECLARATION_BEGIN_MAX: usize = 4_096;

/// The text of a feed. `content_type` is the header of that name.
pub(super) fn decode<'a>(body: &'a [u8], content_type: Option<&str>) -> Cow<'a, str> {
    if let Some((unicode, bom_len)) = byte_order_mark(body).or_else(|| zero_bytes(body)) {
        return unicode.decode(&body[bom_len..]);
    }
    let charset = content_type.and_then(charset);
    let declared = declaration(body);
    if let Ok(text) = str::from_utf8(body)
        && !body.is_ascii()
        && declared.is_none_or(|encoding| encoding == UTF_8)
    {
        return Cow::Borrowed(text);
    }
    let candidates = [charset, declared, Some(UTF_8)];
    let mut candidates = candidates.into_iter().flatten();
    let fits = |encoding: &'static Encoding| {
        encoding.decode_without_bom_handling_and_without_replacement(body)
    };
    let first = candidates.clone().next().unwrap_or(UTF_8);
    candidates.find_map(fits).unwrap_or_else(|| first.decode_without_bom_handling(body).0)
}

/// The encodings that bytes give away.
#[derive(Clone, Copy)]
enum Unicode {
    Utf8,
    Utf16(&'static Encoding),
    Utf32 { is_big_endian: bool },
}

impl Unicode {
    fn decode(self, bytes: &[u8]) -> Cow<'_, str> {
        match self {
            Self::Utf8 => String::from_utf8_lossy(bytes),
            Self::Utf16(encoding) => encoding.decode_without_bom_handling(bytes).0,
            Self::Utf32 { is_big_endian } => {
                let decode = |unit: &[u8]| {
                    let unit = <[u8; 4]>::try_from(unit).ok()?;
                    let code = match is_big_endian {
                        true => u32::from_be_bytes(unit),
                        false => u32::from_le_bytes(unit),
                    };
                    char::from_u32(code)
                };
                let replaced = |unit| decode(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                bytes.chunks(4).map(replaced).collect()
            }
        }
    }
}

/// With the length of the mark.
fn byte_order_mark(body: &[u8]) -> Option<(Unicode, usize)> {
    match body {
        [0xef, 0xbb, 0xbf, ..] => Some((Unicode::Utf8, 3)),
        [0, 0, 0xfe, 0xff, ..] => Some((Unicode::Utf32 { is_big_endian: true }, 4)),
        [0xff, 0xfe, 0, 0, ..] => Some((Unicode::Utf32 { is_big_endian: false }, 4)),
        [0xfe, 0xff, ..] => Some((Unicode::Utf16(UTF_16BE), 2)),
        [0xff, 0xfe, ..] => Some((Unicode::Utf16(UTF_16LE), 2)),
        _ => None,
    }
}

/// The first characters of a feed are ASCII, so that the wide encodings begin with zero bytes.
fn zero_bytes(body: &[u8]) -> Option<(Unicode, usize)> {
    let first = body.iter().find(|byte| **byte != 0)?;
    if !(first.is_ascii_graphic() || first.is_ascii_whitespace()) {
        return None;
    }
    let are_zero: Vec<bool> = body.iter().take(4).map(|byte| *byte == 0).collect();
    let unicode = match are_zero[..] {
        [true, true, true, false] => Unicode::Utf32 { is_big_endian: true },
        [false, true, true, true] => Unicode::Utf32 { is_big_endian: false },
        [true, false, true, false] => Unicode::Utf16(UTF_16BE),
        [false, true, false, true] => Unicode::Utf16(UTF_16LE),
        _ => return None,
    };
    Some((unicode, 0))
}

fn charset(content_type: &str) -> Option<&'static Encoding> {
    let mut parameters = content_type.split([';', ',']).skip(1);
    let value = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then_some(value)
    })?;
    encoding(value.as_bytes())
}

/// The encoding that the XML declaration names.
fn declaration(body: &[u8]) -> Option<&'static Encoding> {
    let head = &body[..body.len().min(DECLARATION_BEGIN_MAX)];
    let begin = head.windows(5).position(|bytes| bytes.eq_ignore_ascii_case(b"<?xml"))?;
    let rest = &body[begin..];
    let declaration = &rest[..rest.iter().position(|byte| *byte == b'>')?];
    let name = b"encoding";
    let at = declaration.windows(name.len()).position(|bytes| bytes.eq_ignore_ascii_case(name))?;
    let value = declaration[at + name.len()..].trim_ascii_start().strip_prefix(b"=")?;
    let value = value.trim_ascii_start();
    let (quote, value) = value.split_first()?;
    let end = value.iter().position(|byte| byte == quote)?;
    encoding(&value[..end])
}

/// `None` too if no bytes that come here can be in that encoding.
fn encoding(label: &[u8]) -> Option<&'static Encoding> {
    let is_quote = |byte: &u8| matches!(byte, b'"' | b'\'' | b' ');
    let begin = label.iter().position(|byte| !is_quote(byte))?;
    let label = &label[begin..];
    let label = &label[..label.iter().position(is_quote).unwrap_or(label.len())];
    let encoding = Encoding::for_label(label)?;
    (![REPLACEMENT, UTF_16BE, UTF_16LE].contains(&encoding)).then_some(encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    fn utf32(text: &str, to_bytes: fn(u32) -> [u8; 4]) -> Vec<u8> {
        text.chars().flat_map(|char| to_bytes(char.into())).collect()
    }

    #[test]
    fn wide_encoding_is_seen_with_and_without_bom() {
        let text = "<?xml version=\"1.0\" encoding=\"UTF-16\"?><a>Grüße 😀</a>";
        for marked in [text.to_owned(), format!("\u{feff}{text}")] {
            for bytes in [
                utf16(&marked, u16::to_be_bytes),
                utf16(&marked, u16::to_le_bytes),
                utf32(&marked, u32::to_be_bytes),
                utf32(&marked, u32::to_le_bytes),
            ] {
                assert_eq!(decode(&bytes, Some("text/xml; charset=iso-8859-1")), text);
            }
        }
        assert_eq!(decode(b"\xef\xbb\xbf{}", None), "{}");
        assert_eq!(decode(b"\xfe\xff\0a\0", None), "a\u{fffd}");
        assert_eq!(decode(b"\0\0\0<\0\x11\0\0\0", None), "<\u{fffd}\u{fffd}");
    }

    #[test]
    fn charset_of_header_goes_before_declaration() {
        let cyrillic = b"<?xml version='1.0' encoding='koi8-r'?><a>\xcf\xf0\xe8\xe2\xe5\xf2</a>";
        let with = |content_type| decode(cyrillic, content_type).into_owned();
        for header in [
            "text/xml;charset=WINDOWS-1251",
            "text/xml; Charset=\"windows-1251\"; q=1",
            "text/xml; charset='windows-1251'",
        ] {
            assert!(with(Some(header)).contains("Привет"), "{header}");
        }
        for header in [None, Some("text/xml"), Some("text/xml; charset=utf-16"), Some("; charset=")]
        {
            assert!(with(header).contains("оПХБЕР"), "{header:?}");
        }
    }

    #[test]
    fn declaration_is_found_wherever_it_ends() {
        for padding in [0, 19, 20, 21, 64, 5_000] {
            let padding = " ".repeat(padding);
            let text = format!(" \n<?xml version='1.0' encoding = \"windows-1251\"{padding}?>");
            let body = [text.as_bytes(), b"<a>\xcf\xf0\xe8\xe2\xe5\xf2</a>"].concat();
            assert!(decode(&body, None).contains("Привет"), "{}", padding.len());
        }
        let broken: [&[u8]; 5] = [b"<?xml", b"<?xml encoding", b"<?xml encoding=>", b"", b"\0"];
        for body in broken {
            assert_eq!(decode(body, None).as_bytes(), body);
        }
    }

    #[test]
    fn valid_utf8_is_utf8_whatever_is_declared_wide() {
        for encoding in ["utf-16", "UTF-16LE", "utf-32", "hz-gb-2312", "nonsense"] {
            let text = format!("<?xml version=\"1.0\" encoding=\"{encoding}\"?><a>Grüße</a>");
            assert_eq!(decode(text.as_bytes(), None), text);
        }
        // Web servers name a charset of their own.
        let text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><a>Grüße</a>";
        assert_eq!(decode(text.as_bytes(), Some("text/xml; charset=ISO-8859-1")), text);
        assert_eq!(decode("{\"ü\":1}".as_bytes(), Some("text/json; charset=latin1")), "{\"ü\":1}");
    }

    #[test]
    fn bad_byte_becomes_replacement_character() {
        let body = b"<?xml version='1.0' encoding='UTF-8'?><a>caf\xe9, Gr\xc3\xbc\xc3\x9fe</a>";
        for header in [None, Some("text/xml; charset=utf-8")] {
            assert!(decode(body, header).ends_with("<a>caf\u{fffd}, Grüße</a>"));
        }
        // What the header says does not fit, and what the document says does.
        let latin = b"<?xml version='1.0' encoding='latin1'?><a>caf\xe9</a>";
        assert!(decode(latin, Some("text/xml; charset=utf-8")).ends_with("<a>café</a>"));
    }
}
