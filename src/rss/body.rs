//! The body of an answer, plain or gzip, with a limit on both sides of the unpacking. Pure.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;

use super::text::plain_line;

/// The longest feed, packed and unpacked.
pub(super) const BODY_BYTES_MAX: usize = 8 << 20;

/// Why a body cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(
        "is longer than {} MiB; list a feed with fewer entries", BODY_BYTES_MAX >> 20
    )]
    TooLong,
    #[error("comes as {0:?}, though gzip at most was asked for; report it to whoever runs it")]
    Encoding(String),
    #[error("is damaged on its way ({0}); it is tried again")]
    Damaged(io::Error),
}

/// A body that comes piece by piece.
pub(super) struct Body {
    received_bytes: usize,
    sink: Sink,
}

enum Sink {
    Plain(Bounded),
    Gzip(Box<MultiGzDecoder<Bounded>>),
}

impl Body {
    /// One that is encoded as its header says.
    ///
    /// # Errors
    /// If nobody asked for that.
    pub(super) fn new(encoding: Option<&str>) -> Result<Self, BodyError> {
        let encoding = encoding.unwrap_or_default().trim().to_ascii_lowercase();
        let sink = match encoding.as_str() {
            "" | "identity" => Sink::Plain(Bounded::default()),
            "gzip" | "x-gzip" => Sink::Gzip(Box::new(MultiGzDecoder::new(Bounded::default()))),
            other => {
                let encoding = plain_line(other).chars().take(40).collect();
                return Err(BodyError::Encoding(encoding));
            }
        };
        Ok(Self { received_bytes: 0, sink })
    }

    /// # Errors
    /// If there is too much, or it is damaged.
    pub(super) fn push(&mut self, data: &[u8]) -> Result<(), BodyError> {
        self.received_bytes = self.received_bytes.saturating_add(data.len());
        if self.received_bytes > BODY_BYTES_MAX {
            return Err(BodyError::TooLong);
        }
        match &mut self.sink {
            Sink::Plain(content) => content.write_all(data).map_err(|_| BodyError::TooLong),
            Sink::Gzip(decoder) => {
                decoder.write_all(data).map_err(|error| problem(error, decoder.get_ref()))
            }
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// If the end is missing.
    pub(super) fn finish(self) -> Result<Vec<u8>, BodyError> {
        match self.sink {
            Sink::Plain(content) => Ok(content.bytes),
            Sink::Gzip(mut decoder) => {
                decoder.try_finish().map_err(|error| problem(error, decoder.get_ref()))?;
                let content = decoder.finish().map_err(BodyError::Damaged)?;
                Ok(content.bytes)
            }
        }
    }
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

    /// In pieces of 1,000 bytes.
    fn received(encoding: Option<&str>, data: &[u8]) -> Result<Vec<u8>, BodyError> {
        let mut body = Body::new(encoding)?;
        data.chunks(1_000).try_for_each(|piece| body.push(piece))?;
        body.finish()
    }

    #[test]
    fn plain_and_gzip_are_read() {
        let text: Vec<u8> = (0..5_000_u32).flat_map(u32::to_be_bytes).collect();
        assert_eq!(received(None, &text).expect("plain"), text);
        assert_eq!(received(Some("GZIP"), &gzip(&text)).expect("gzip"), text);
        let twice = [gzip(&text), gzip(&text)].concat();
        assert_eq!(received(Some("gzip"), &twice).expect("gzip").len(), 2 * text.len());
        assert!(matches!(received(Some("br"), &text), Err(BodyError::Encoding(_))));
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_all_there() {
        let most = vec![b'a'; BODY_BYTES_MAX];
        assert_eq!(received(None, &most).expect("just fits").len(), BODY_BYTES_MAX);
        assert!(matches!(received(None, &[&most[..], b"a"].concat()), Err(BodyError::TooLong)));
        let bomb = gzip(&vec![0; BODY_BYTES_MAX + 1]);
        assert!(bomb.len() < 100_000);
        assert!(matches!(received(Some("gzip"), &bomb), Err(BodyError::TooLong)));
        // Members that hold nothing, without end.
        let nothing = gzip(b"").repeat(BODY_BYTES_MAX / 20 + 1);
        assert!(matches!(received(Some("gzip"), &nothing), Err(BodyError::TooLong)));
    }

    #[test]
    fn what_is_cut_short_is_damaged() {
        let text: Vec<u8> = (0..5_000_u32).flat_map(u32::to_be_bytes).collect();
        let mut packed = gzip(&text);
        assert!(matches!(received(Some("gzip"), b"hello"), Err(BodyError::Damaged(_))));
        for length in [0, 5, 100, packed.len() - 1] {
            let cut = received(Some("gzip"), &packed[..length]);
            assert!(matches!(cut, Err(BodyError::Damaged(_))), "{length}");
        }
        let middle = packed.len() / 2;
        packed[middle] ^= 0xff;
        assert!(matches!(received(Some("gzip"), &packed), Err(BodyError::Damaged(_))));
    }
}
