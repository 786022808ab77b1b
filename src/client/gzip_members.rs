//! Gzip data, one member after another, as gzip(1) unpacks it.
//!
//! Zero bytes behind a member are padding, and other bytes there that are no member are no
//! part of the data.

use std::io::{self, BufRead, Chain, Cursor, Read};

use flate2::bufread::GzDecoder;

pub(super) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

type Member<R> = GzDecoder<Chain<Cursor<[u8; 2]>, R>>;

/// What gzip data holds.
pub(super) struct GzipMembers<R> {
    /// The one that is read; `None` at the end.
    member: Option<Member<R>>,
}

impl<R: BufRead> GzipMembers<R> {
    /// The members of data of which the first magic number has been read.
    pub(super) fn new(behind_magic: R) -> Self {
        Self { member: Some(member(behind_magic)) }
    }
}

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let length = member.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            if let Some(ended) = self.member.take() {
                let (_, rest) = ended.into_inner().into_inner();
                self.member = next(rest)?;
            }
        }
        Ok(0)
    }
}

fn member<R: BufRead>(behind_magic: R) -> Member<R> {
    GzDecoder::new(Cursor::new(GZIP_MAGIC).chain(behind_magic))
}

/// The next member, if there is one.
fn next<R: BufRead>(mut rest: R) -> io::Result<Option<Member<R>>> {
    loop {
        let buffered = rest.fill_buf()?;
        let zeros = buffered.iter().take_while(|byte| **byte == 0).count();
        if buffered.is_empty() {
            return Ok(None);
        }
        rest.consume(zeros);
        if zeros == 0 {
            break;
        }
    }
    let mut magic = Vec::new();
    rest.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic)?;
    if magic == GZIP_MAGIC {
        return Ok(Some(member(rest)));
    }
    tracing::warn!("what stands behind the end of the gzip data is ignored");
    Ok(None)
}
