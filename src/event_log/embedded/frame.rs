//! The bytes of a segment: frames, one after the other, nothing between them.
//!
//! ```text
//!  0        4        8             12       16             24
//!  ┌────────┬────────┬─────────────┬────────┬──────────────┬───────────────┐
//!  │ magic  │ crc32c │ body length │ count  │ base offset  │ body          │
//!  └────────┴────────┴─────────────┴────────┴──────────────┴───────────────┘
//!  body of records:  ┌────────┬─────────┐    one group commit, `count` times
//!                    │ length │ payload │
//!                    └────────┴─────────┘
//!  body of a seal:   ┌────────┬──────────┐   ┌────────────────────┐
//!                    │ offset │ position │ … │ the seal's position │
//!                    └────────┴──────────┘   └────────────────────┘
//! ```
//!
//! Numbers are little-endian; lengths and counts have 4 bytes, offsets and
//! positions 8. The checksum covers everything but itself. A seal ends a segment
//! that takes no more records: its base offset is the next segment's, its body
//! is the segment's sparse index, and its last 8 bytes lead from the end of the
//! file to its own beginning.
//!
//! The first byte of a magic is in no UTF-8 text, so that posts cannot
//! easily be mistaken for frames.

use bytes::{Buf, Bytes};

/// The bytes ahead of a body.
pub const HEADER_BYTES: usize = 24;
/// The longest body. A header that says more is damaged, so nothing larger is
/// ever allocated, and no interrupted write leaves more than this behind.
pub const BODY_BYTES_MAX: usize = 64 << 20;
/// What a record takes beside its payload.
pub const RECORD_HEADER_BYTES: usize = 4;

const CHECKSUM: std::ops::Range<usize> = 4..8;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The records of one group commit.
    Records,
    /// The index of the segment that it ends.
    Seal,
}

impl Kind {
    const fn magic(self) -> [u8; 4] {
        match self {
            Self::Records => *b"\xF5rf1",
            Self::Seal => *b"\xF5rs1",
        }
    }
}

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it holds.
    pub kind: Kind,
    /// The length of its body, at most [`BODY_BYTES_MAX`].
    pub body_bytes: usize,
    /// How many records or index entries it holds.
    pub count: u32,
    /// The offset of its first record, or of the first one after a seal.
    pub base_offset: u64,
}

impl Header {
    /// The length of the whole frame.
    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes
    }

    /// The offset that the next frame begins with.
    pub fn next_offset(&self) -> u64 {
        match self.kind {
            Kind::Records => self.base_offset + u64::from(self.count),
            Kind::Seal => self.base_offset,
        }
    }
}

/// Why some bytes do not begin with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// They may, but the frame has `needed` bytes.
    Short {
        /// Up to the end of the header, or of the frame once that is known.
        needed: usize,
    },
    /// They do not, whatever follows.
    Bad(&'static str),
}

/// Writes a frame of records to the end of `out`.
///
/// The caller keeps the body within [`BODY_BYTES_MAX`].
pub fn encode_records<'a>(
    base_offset: u64,
    payloads: impl IntoIterator<Item = &'a Bytes>,
    out: &mut Vec<u8>,
) {
    encode(Kind::Records, base_offset, out, |out| {
        let mut count = 0;
        for payload in payloads {
            out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
            out.extend_from_slice(payload);
            count += 1;
        }
        count
    });
}

/// Writes a frame to the end of `out`; `body` writes the body and says its count.
pub fn encode(
    kind: Kind,
    base_offset: u64,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> u32,
) {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    let count = body(out);
    let frame = &mut out[start..];
    let body_bytes = frame.len() - HEADER_BYTES;
    debug_assert!(body_bytes <= BODY_BYTES_MAX);
    frame[..4].copy_from_slice(&kind.magic());
    frame[8..12].copy_from_slice(&(body_bytes as u32).to_le_bytes());
    frame[12..16].copy_from_slice(&count.to_le_bytes());
    frame[16..24].copy_from_slice(&base_offset.to_le_bytes());
    let checksum = checksum(frame);
    frame[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
}

/// Reads a header, without a look at the body or the checksum.
pub fn parse_header(bytes: &[u8]) -> Result<Header, Flaw> {
    let Some(mut header) = bytes.get(..HEADER_BYTES) else {
        return Err(Flaw::Short { needed: HEADER_BYTES });
    };
    let kind = match &header[..4] {
        magic if magic == Kind::Records.magic() => Kind::Records,
        magic if magic == Kind::Seal.magic() => Kind::Seal,
        _ => return Err(Flaw::Bad("no frame begins here")),
    };
    header.advance(8);
    let body_bytes = header.get_u32_le() as usize;
    let count = header.get_u32_le();
    let base_offset = header.get_u64_le();
    let records_fit = count > 0
        && count as usize * RECORD_HEADER_BYTES <= body_bytes
        && base_offset.checked_add(u64::from(count)).is_some();
    if body_bytes > BODY_BYTES_MAX || (kind == Kind::Records && !records_fit) {
        return Err(Flaw::Bad("the header contradicts itself"));
    }
    Ok(Header { kind, body_bytes, count, base_offset })
}

/// Reads the header of a whole frame at the beginning of `bytes` and checks the
/// frame against its checksum.
pub fn check(bytes: &[u8]) -> Result<Header, Flaw> {
    let header = parse_header(bytes)?;
    let needed = header.frame_bytes();
    let frame = bytes.get(..needed).ok_or(Flaw::Short { needed })?;
    if checksum(frame).to_le_bytes() != frame[CHECKSUM] {
        return Err(Flaw::Bad("the checksum does not match"));
    }
    Ok(header)
}

/// How long the next record of a body says that its payload is; 0 without one.
pub fn payload_bytes(body: &[u8]) -> usize {
    body.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
}

/// Takes the next record's payload off a body, without a copy. `None` where the
/// body does not hold a whole record.
pub fn split_record(body: &mut Bytes) -> Option<Bytes> {
    let length = payload_bytes(body);
    if body.len() < RECORD_HEADER_BYTES || length > body.len() - RECORD_HEADER_BYTES {
        return None;
    }
    body.advance(RECORD_HEADER_BYTES);
    Some(body.split_to(length))
}

fn checksum(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..CHECKSUM.start]), &frame[CHECKSUM.end..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        event_log::embedded::{
            seal::{self, Seal},
            segments::Mark,
        },
        fuzz,
    };

    fn records(base_offset: u64, payloads: &[Bytes]) -> Vec<u8> {
        let mut frame = Vec::new();
        encode_records(base_offset, payloads, &mut frame);
        frame
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            base_offset in 0..u64::MAX / 2,
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..20),
            after: Vec<u8>,
        ) {
            let payloads: Vec<Bytes> = payloads.into_iter().map(Bytes::from).collect();
            let frame = records(base_offset, &payloads);
            let mut bytes = frame.clone();
            bytes.extend(after);
            let header = check(&bytes).unwrap();
            prop_assert_eq!(header.frame_bytes(), frame.len());
            prop_assert_eq!(header.base_offset, base_offset);
            prop_assert_eq!(header.next_offset(), base_offset + payloads.len() as u64);
            let mut body = Bytes::from(frame).slice(HEADER_BYTES..);
            for payload in payloads {
                prop_assert_eq!(split_record(&mut body), Some(payload));
            }
            prop_assert_eq!(split_record(&mut body), None);
        }

        #[test]
        fn any_bytes_are_a_frame_or_a_flaw(bytes: Vec<u8>) {
            prop_assert!(check(&bytes).is_err());
            let mut body = Bytes::from(bytes);
            while split_record(&mut body).is_some() {}
        }

        #[test]
        fn any_header_is_read_without_overflow(seal: bool, rest in proptest::collection::vec(any::<u8>(), 20..60)) {
            let kind = if seal { Kind::Seal } else { Kind::Records };
            let bytes = [kind.magic().as_slice(), &rest].concat();
            if let Ok(header) = parse_header(&bytes) {
                prop_assert!(header.body_bytes <= BODY_BYTES_MAX);
                let _ = header.next_offset();
            }
            let _ = check(&bytes);
        }
    }

    #[test]
    fn fuzzed_frames_are_read_within_their_bounds() {
        let records = |payloads: &[&[u8]]| {
            let payloads: Vec<Bytes> =
                payloads.iter().map(|it| Bytes::copy_from_slice(it)).collect();
            records(7, &payloads)
        };
        let marks = vec![Mark { offset: 7, position: 0 }, Mark { offset: 9, position: 70 }];
        let seal = seal::encode(&Seal { position: 100, end_offset: 12, marks });
        let frames = [records(&[b"one"]), records(&[b"", b"two", &[7; 200]]), seal];
        let corpus: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        fuzz::fuzz(&corpus, 20_000, |input| {
            read_frames(input);
            // A damaged frame is found by its checksum: with the right one, what is behind is
            // read too.
            let mut mended = input.to_vec();
            if let Ok(header) = parse_header(&mended)
                && let Some(frame) = mended.get_mut(..header.frame_bytes())
            {
                let checksum = checksum(frame);
                frame[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
                read_frames(&mended);
            }
        });
    }

    /// Reads frames to the end or the first flaw, as the log does.
    fn read_frames(bytes: &[u8]) {
        let mut rest = bytes;
        loop {
            match check(rest) {
                Ok(header) => {
                    let (frame, others) = rest.split_at(header.frame_bytes());
                    assert!(header.next_offset() >= header.base_offset);
                    let mut body = Bytes::copy_from_slice(&frame[HEADER_BYTES..]);
                    let mut bytes = 0;
                    while let Some(payload) = split_record(&mut body) {
                        bytes += RECORD_HEADER_BYTES + payload.len();
                    }
                    assert!(bytes <= header.body_bytes);
                    if let Ok(seal) = seal::decode(frame, 100, 7) {
                        assert!(seal.marks.len() <= header.body_bytes);
                    }
                    rest = others;
                }
                // Nothing that is longer than a frame can be is ever waited for.
                Err(Flaw::Short { needed }) => {
                    assert!(needed > rest.len() && needed <= HEADER_BYTES + BODY_BYTES_MAX);
                    return;
                }
                Err(Flaw::Bad(_)) => return,
            }
        }
    }

    #[test]
    fn a_changed_bit_is_noticed_wherever_it_is() {
        let frame = records(7, &[Bytes::from_static(b"one"), Bytes::from_static(b"two")]);
        for bit in 0..frame.len() * 8 {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_cut_frame_says_how_much_it_needs() {
        let frame = records(7, &[Bytes::from_static(b"one")]);
        for length in 0..frame.len() {
            let needed = if length < HEADER_BYTES { HEADER_BYTES } else { frame.len() };
            assert_eq!(check(&frame[..length]), Err(Flaw::Short { needed }));
        }
    }
}
