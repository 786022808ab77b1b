//! Ascending ids as bytes: how many they are, and each as what it is more than the one
//! before it, the first more than a base; all in protobuf varints. Pure.

use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

/// Appends ids to `bytes`, of which each is at least as great as the one before, and the
/// first as `base`.
pub(super) fn encode(
    base: u64,
    ids: impl ExactSizeIterator<Item = u64> + Clone,
    bytes: &mut Vec<u8>,
) {
    let count = ids.len() as u64;
    let differences = || {
        let before = std::iter::once(base).chain(ids.clone());
        ids.clone().zip(before).map(|(id, before)| id - before)
    };
    bytes.reserve(differences().chain([count]).map(encoded_len_varint).sum());
    encode_varint(count, bytes);
    differences().for_each(|difference| encode_varint(difference, bytes));
}

/// Reads the ids back; `None` if these bytes are none. One may be there twice.
pub(super) fn decode(base: u64, mut bytes: &[u8]) -> Option<Vec<u64>> {
    let count = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
    // Every id takes a byte at least, so a false count cannot ask for much.
    if count > bytes.len() {
        return None;
    }
    let (mut ids, mut before) = (Vec::with_capacity(count), base);
    for _ in 0..count {
        before = before.checked_add(decode_varint(&mut bytes).ok()?)?;
        ids.push(before);
    }
    bytes.is_empty().then_some(ids)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            base: u64,
            mut ids in proptest::collection::vec(any::<u64>(), 0..50),
        ) {
            ids.retain(|id| *id >= base);
            ids.sort_unstable();
            let mut bytes = Vec::new();
            encode(base, ids.iter().copied(), &mut bytes);
            prop_assert_eq!(decode(base, &bytes), Some(ids));
        }

        #[test]
        fn any_bytes_are_ascending_ids_or_nothing(base: u64, bytes: Vec<u8>) {
            let ids = decode(base, &bytes);
            prop_assert!(ids.is_none_or(|ids| ids.is_sorted() && ids.iter().all(|id| *id >= base)));
        }
    }

    #[test]
    fn they_are_a_count_and_differences() {
        let mut bytes = Vec::new();
        encode(7, [7, 8, 208].into_iter(), &mut bytes);
        assert_eq!(bytes, [3, 0, 1, 200, 1]);
        // One that does not end, one too few, one too many, no count, one past the greatest.
        for bytes in [&[2, 1, 0x80][..], &[3, 0, 1], &[2, 0, 1, 1], &[]] {
            assert_eq!(decode(7, bytes), None, "{bytes:?}");
        }
        assert_eq!(decode(u64::MAX, &[1, 1]), None);
    }
}
