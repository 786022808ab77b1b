//! The frame that ends a full segment, so that opening the log need not read it.

use bytes::Buf;

use super::{
    frame::{self, Flaw, Header, Kind},
    segments::Mark,
};

const MARK_BYTES: usize = 16;
/// The last bytes of a sealed segment: where its seal begins.
pub const TRAILER_BYTES: usize = 8;

/// What the seal of a segment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Where the records end and the seal begins.
    pub position: u64,
    /// The offset that the next segment begins with.
    pub end_offset: u64,
    /// The segment's sparse index.
    pub marks: Vec<Mark>,
}

/// Writes a seal as a frame.
pub fn encode(seal: &Seal) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(Kind::Seal, seal.end_offset, &mut out, |body| {
        for mark in &seal.marks {
            body.extend_from_slice(&mark.offset.to_le_bytes());
            body.extend_from_slice(&mark.position.to_le_bytes());
        }
        body.extend_from_slice(&seal.position.to_le_bytes());
        seal.marks.len() as u32
    });
    out
}

/// Where the seal of a file of `file_bytes` bytes begins, if it has one: only
/// where a seal can be, since the trailer may be anything.
pub fn position(trailer: [u8; TRAILER_BYTES], file_bytes: u64) -> Option<u64> {
    let position = u64::from_le_bytes(trailer);
    let bytes = file_bytes.checked_sub(position)?;
    let bytes_min = (frame::HEADER_BYTES + TRAILER_BYTES) as u64;
    let bytes_max = (frame::HEADER_BYTES + frame::BODY_BYTES_MAX) as u64;
    (bytes_min..=bytes_max).contains(&bytes).then_some(position)
}

/// Reads the seal that `bytes`, from `position` in the file of the segment that
/// begins with `base_offset`, consist of.
pub fn decode(bytes: &[u8], position: u64, base_offset: u64) -> Result<Seal, Flaw> {
    let header = frame::check(bytes)?;
    let Header { kind: Kind::Seal, count, base_offset: end_offset, .. } = header else {
        return Err(Flaw::Bad("a seal is expected here"));
    };
    let mut body = &bytes[frame::HEADER_BYTES..];
    if header.frame_bytes() != bytes.len() || body.len() != count as usize * MARK_BYTES + 8 {
        return Err(Flaw::Bad("the seal's length does not match"));
    }
    let marks: Vec<Mark> = (0..count)
        .map(|_| Mark { offset: body.get_u64_le(), position: body.get_u64_le() })
        .collect();
    let starts = marks.first() == Some(&Mark { offset: base_offset, position: 0 });
    let rises = marks.is_sorted_by(|a, b| a.offset < b.offset && a.position < b.position);
    let ends =
        marks.last().is_some_and(|last| last.offset < end_offset && last.position < position);
    if !(starts && rises && ends && body.get_u64_le() == position) {
        return Err(Flaw::Bad("the seal belongs to another segment"));
    }
    Ok(Seal { position, end_offset, marks })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_seal_is_read_back_and_belongs_to_its_segment_alone() {
        let marks = vec![Mark { offset: 5, position: 0 }, Mark { offset: 9, position: 70 }];
        let seal = Seal { position: 100, end_offset: 12, marks };
        let bytes = encode(&seal);
        let trailer = *bytes.last_chunk().unwrap();
        assert_eq!(position(trailer, 100 + bytes.len() as u64), Some(100));
        assert_eq!(decode(&bytes, 100, 5), Ok(seal));
        assert!(decode(&bytes, 100, 4).is_err());
        assert!(decode(&bytes, 101, 5).is_err());
        assert!(decode(&bytes[..bytes.len() - 1], 100, 5).is_err());
    }

    proptest! {
        #[test]
        fn any_body_is_a_seal_or_a_flaw(count: u32, body: Vec<u8>, place: u64) {
            let mut bytes = Vec::new();
            frame::encode(Kind::Seal, 9, &mut bytes, |out| {
                out.extend(body);
                count
            });
            prop_assert!(decode(&bytes, place, 0).is_err());
            let _ = position(place.to_le_bytes(), 1 << 30);
        }
    }
}
