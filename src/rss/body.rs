//! The body of an answer, plain or gzip, with a limit on both sides of the unpacking. Pure.
//!
//! What a body begins with says what it is, whatever its header says: servers name charsets
//! there, or what a file was before they unpacked it.

use std::io::{self, Write};

use flate2::write::GzDecoder;

/// The longest feed, packed and unpacked.
pub(super) const BODY_BYTES_MAX: usize = 8 << 20;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// The encodings of HTTP beside gzip.
const OTHER_ENCODINGS: [&str; 6] = ["br", "compress", "dcb", "dcz", "deflate", "zstd"];

/// Why a body cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(
        "is longer than {} MiB; list a feed with fewer entries", BODY_BYTES_MAX >> 20
    )]
    TooLong,
    #[error("comes as {0:?}, though gzip at most was asked for; report it to whoever runs it")]
    Encoding(&'static str),
    #[error("is damaged on its way ({0}); it is tried again")]
    Damaged(io::Error),
}

/// A body that comes piece by piece.
pub(super) struct Body {
    received_bytes: usize,
    /// What its header says that it is.
    encoding: String,
    content: Content,
}

enum Content {
    /// Too few bytes to say what it is.
    Unknown(Vec<u8>),
    Plain(Bounded),
    Member(Box<GzDecoder<Bounded>>),
    /// A member of gzip data has ended; whether the first byte of another one has come.
    BehindMember(Bounded, bool),
    /// What goes on comes behind the gzip data, and is no part of the body.
    Ended(Bounded),
}

impl Body {
    /// One whose header names this encoding.
    pub(super) fn new(encoding: Option<&str>) -> Self {
        let encoding = encoding.unwrap_or_default().trim().to_ascii_lowercase();
        Self { received_bytes: 0, encoding, content: Content::Unknown(Vec::new()) }
    }

    /// # Errors
    /// If there is too much, it is damaged, or it is neither plain nor gzip.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), BodyError> {
        self.received_bytes = self.received_bytes.saturating_add(data.len());
        if self.received_bytes > BODY_BYTES_MAX {
            return Err(BodyError::TooLong);
        }
        let mut rest = data;
        while !rest.is_empty() {
            let content = std::mem::replace(&mut self.content, Content::Unknown(Vec::new()));
            (self.content, rest) = self.take(content, rest)?;
        }
        Ok(())
    }

    /// All of it.
    ///
    /// # Errors
    /// If the end is missing.
    pub(super) fn finish(self) -> Result<Vec<u8>, BodyError> {
        let content = match self.content {
            Content::Unknown(begin) if GZIP_MAGIC.starts_with(&begin) && !begin.is_empty() => {
                return Err(BodyError::Damaged(io::ErrorKind::UnexpectedEof.into()));
            }
            Content::Unknown(begin) => return Ok(begin),
            Content::Member(member) => finished(member)?,
            Content::Plain(content)
            | Content::BehindMember(content, _)
            | Content::Ended(content) => content,
        };
        Ok(content.bytes)
    }

    /// Takes some of `data`, which is not empty; what the content is then, and the rest.
    fn take<'a>(&self, content: Content, data: &'a [u8]) -> Result<(Content, &'a [u8]), BodyError> {
        let (first, others) = data.split_at(1);
        Ok(match content {
            Content::Unknown(begin) => {
                let begin = [&begin, first].concat();
                match begin.len() < GZIP_MAGIC.len() {
                    true => (Content::Unknown(begin), others),
                    false => (begun(&begin, &self.encoding)?, others),
                }
            }
            Content::Plain(mut content) => {
                content.write_all(data).map_err(|_| BodyError::TooLong)?;
                (Content::Plain(content), &[])
            }
            Content::Member(mut member) => {
                match member.write(data).map_err(|error| problem(error, member.get_ref()))? {
                    0 => (Content::BehindMember(finished(member)?, false), data),
                    taken => (Content::Member(member), &data[taken..]),
                }
            }
            Content::BehindMember(content, true) => match first == &GZIP_MAGIC[1..] {
                true => (member(content)?, others),
                false => (Content::Ended(content), &[]),
            },
            Content::BehindMember(content, false) => {
                // Padding, which gzip(1) ignores too.
                let zeros = data.iter().take_while(|byte| **byte == 0).count();
                match &data[zeros..] {
                    [] => (Content::BehindMember(content, false), &[]),
                    [byte, rest @ ..] if *byte == GZIP_MAGIC[0] => {
                        (Content::BehindMember(content, true), rest)
                    }
                    _ => (Content::Ended(content), &[]),
                }
            }
            Content::Ended(content) => (Content::Ended(content), &[]),
        })
    }
}

/// What begins with these two bytes.
fn begun(begin: &[u8], encoding: &str) -> Result<Content, BodyError> {
    if begin == GZIP_MAGIC {
        return member(Bounded::default());
    }
    // White space, XML and JSON, in UTF-16 too, and byte order marks.
    let is_text = matches!(
        begin,
        [b'<' | b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n', _]
            | [0, b'<' | b'{' | b'[']
            | [0xef, 0xbb]
            | [0xfe, 0xff]
            | [0xff, 0xfe]
    );
    // What is neither is the parser's to judge, unless it is packed in another way.
    let last = encoding.rsplit(',').next().unwrap_or_default().trim();
    let other = OTHER_ENCODINGS.into_iter().find(|other| *other == last && !is_text);
    match other {
        Some(other) => Err(BodyError::Encoding(other)),
        None => Ok(Content::Plain(Bounded { bytes: begin.to_vec(), is_full: false })),
    }
}

/// A member of gzip data of which the magic number has come, behind what others hold.
fn member(content: Bounded) -> Result<Content, BodyError> {
    let mut member = Box::new(GzDecoder::new(content));
    member.write_all(&GZIP_MAGIC).map_err(BodyError::Damaged)?;
    Ok(Content::Member(member))
}

/// What a member, and those before it, hold.
fn finished(mut member: Box<GzDecoder<Bounded>>) -> Result<Bounded, BodyError> {
    member.try_finish().map_err(|error| problem(error, member.get_ref()))?;
    member.finish().map_err(BodyError::Damaged)
}

fn problem(error: io::Error, content: &Bounded) -> BodyError {
    if content.is_full { BodyError::TooLong } else { BodyError::Damaged(error) }
}

/// Takes no more than the longest feed.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + data.len() > BODY_BYTES_MAX {
            self.is_full = true;
            return Err(io::Error::other("too long"));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::text_file::tests::gzip;

    /// In pieces of so many bytes.
    fn in_pieces(bytes: usize, encoding: Option<&str>, data: &[u8]) -> Result<Vec<u8>, BodyError> {
        let mut body = Body::new(encoding);
        data.chunks(bytes).try_for_each(|piece| body.push(piece))?;
        body.finish()
    }

    fn received(encoding: Option<&str>, data: &[u8]) -> Result<Vec<u8>, BodyError> {
        in_pieces(1_000, encoding, data)
    }

    const ENCODINGS: [Option<&str>; 11] = [
        None,
        Some(""),
        Some("identity"),
        Some("gzip"),
        Some("X-GZIP"),
        Some("utf-8"),
        Some("none"),
        Some("deflate"),
        Some("br"),
        Some("zstd"),
        Some("gzip, br"),
    ];

    #[test]
    fn body_is_what_it_begins_with() {
        let texts: [&[u8]; 8] = [
            b"<rss/>",
            b"{\"a\":1}",
            b"[]",
            b" \n<rss/>",
            b"\r\n<rss/>",
            b"\xef\xbb\xbf<rss/>",
            b"\xff\xfe<\0r\0",
            b"\0<\0r",
        ];
        for text in texts {
            for encoding in ENCODINGS {
                let plain = received(encoding, text);
                assert_eq!(plain.expect("plain"), text, "{encoding:?}");
                assert_eq!(received(encoding, &gzip(text)).expect("gzip"), text, "{encoding:?}");
            }
        }
    }

    #[test]
    fn body_without_magic_follows_its_header() {
        for encoding in ["br", "zstd", "deflate", "gzip, br", " BR "] {
            let packed = received(Some(encoding), b"\x78\x9c\x01\x02");
            assert!(matches!(packed, Err(BodyError::Encoding(_))), "{encoding}");
        }
        for encoding in [None, Some("gzip"), Some("utf-8"), Some("8bit")] {
            assert_eq!(received(encoding, b"hello").expect("the parser judges"), b"hello");
        }
        for short in [&b""[..], b"a", b"<"] {
            assert_eq!(received(Some("gzip"), short).expect("plain"), short);
        }
    }

    #[test]
    fn gzip_members_are_joined_and_padding_ignored() {
        let text: Vec<u8> = (0..5_000_u32).flat_map(u32::to_be_bytes).collect();
        let (packed, none) = (gzip(&text), gzip(b""));
        let joined = [&text[..], &text].concat();
        for (data, expected) in [
            (packed.clone(), &text),
            ([&packed[..], &packed].concat(), &joined),
            ([&packed[..], &[0; 700], &packed, &[0]].concat(), &joined),
            ([&none[..], &packed, &none].concat(), &text),
            ([&packed[..], b"garbage", &packed].concat(), &text),
            ([&packed[..], &[0, 0x1f]].concat(), &text),
            ([&packed[..], &[0x1f, 0, 0x1f, 0x8b]].concat(), &text),
        ] {
            for bytes in [1, 7, 1_000, data.len()] {
                let content = in_pieces(bytes, None, &data).expect("gzip");
                assert!(content == *expected, "{bytes}: {}", content.len());
            }
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_all_there() {
        let most = vec![b'a'; BODY_BYTES_MAX];
        assert_eq!(received(None, &most).expect("just fits").len(), BODY_BYTES_MAX);
        assert!(matches!(received(None, &[&most[..], b"a"].concat()), Err(BodyError::TooLong)));
        let bomb = gzip(&vec![0; BODY_BYTES_MAX + 1]);
        assert!(bomb.len() < 100_000);
        assert!(matches!(received(None, &bomb), Err(BodyError::TooLong)));
        // Together they are too long.
        let half = gzip(&vec![0; BODY_BYTES_MAX / 2 + 1]);
        let halves = [&half[..], &[0; 10], &half].concat();
        assert!(matches!(received(Some("gzip"), &halves), Err(BodyError::TooLong)));
        // Members that hold nothing, and padding, without end.
        let nothing = gzip(b"").repeat(BODY_BYTES_MAX / 20 + 1);
        assert!(matches!(received(Some("gzip"), &nothing), Err(BodyError::TooLong)));
        let padded = [gzip(b"a"), vec![0; BODY_BYTES_MAX]].concat();
        assert!(matches!(received(Some("gzip"), &padded), Err(BodyError::TooLong)));
    }

    #[test]
    fn what_is_cut_short_is_damaged() {
        let text: Vec<u8> = (0..5_000_u32).flat_map(u32::to_be_bytes).collect();
        let mut packed = gzip(&text);
        for length in [1, 2, 5, 100, packed.len() - 8, packed.len() - 1] {
            let cut = received(None, &packed[..length]);
            assert!(matches!(cut, Err(BodyError::Damaged(_))), "{length}");
            let cut = received(None, &[&packed, &packed[..length.max(2)]].concat());
            assert!(matches!(cut, Err(BodyError::Damaged(_))), "{length} of the second");
        }
        let middle = packed.len() / 2;
        packed[middle] ^= 0xff;
        assert!(matches!(received(Some("gzip"), &packed), Err(BodyError::Damaged(_))));
    }
}
