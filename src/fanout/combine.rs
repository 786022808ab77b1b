//! Write combining: the deliveries of a round, gathered by reader. Pure.

use crate::{domain::PostId, store::Pushes};

/// Gathers deliveries so that each reader is written once, in the order of the
/// store's handles, with ascending ids and none twice.
pub fn combine<A: Copy + Ord>(mut deliveries: Vec<(A, PostId)>) -> Pushes<A> {
    deliveries.sort_unstable();
    deliveries.dedup();
    let mut pushes = Pushes { readers: Vec::new(), ids: Vec::with_capacity(deliveries.len()) };
    for (reader, id) in deliveries {
        pushes.ids.push(id);
        let end = pushes.ids.len();
        match pushes.readers.last_mut() {
            Some((last, last_end)) if *last == reader => *last_end = end,
            _ => pushes.readers.push((reader, end)),
        }
    }
    pushes
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_reader_is_written_once_with_all_its_ids(
            deliveries in proptest::collection::vec((0..20_u32, 1..50_u64), 0..200),
        ) {
            let mut expected = BTreeMap::<u32, BTreeSet<PostId>>::new();
            for (reader, id) in &deliveries {
                expected.entry(*reader).or_default().insert(PostId(*id));
            }
            let deliveries =
                deliveries.into_iter().map(|(reader, id)| (reader, PostId(id))).collect();
            let pushes = combine(deliveries);
            let written: Vec<(u32, Vec<PostId>)> =
                pushes.iter().map(|(reader, ids)| (reader, ids.to_vec())).collect();
            let expected: Vec<(u32, Vec<PostId>)> = expected
                .into_iter()
                .map(|(reader, ids)| (reader, ids.into_iter().collect()))
                .collect();
            prop_assert_eq!(written, expected);
        }
    }
}
