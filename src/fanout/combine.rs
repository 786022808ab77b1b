//! Write combining: deliveries, gathered by reader. Pure.

use crate::{domain::PostId, store::Pushes};

/// With fewer deliveries, comparing them is quicker than counting digits.
const RADIX_MIN: usize = 1_024;

/// Gathers deliveries so that each reader is written once, in the order of the
/// store's handles, with ascending ids and none twice.
pub fn combine<A: Copy + Ord + Into<u64>>(deliveries: Vec<(A, PostId)>) -> Pushes<A> {
    let deliveries = sorted_by_reader(deliveries);
    let mut pushes = Pushes { readers: Vec::new(), ids: Vec::with_capacity(deliveries.len()) };
    for group in deliveries.chunk_by(|(one, _), (other, _)| one == other) {
        let start = pushes.ids.len();
        pushes.ids.extend(group.iter().map(|(_, id)| *id));
        sort_and_dedup_from(&mut pushes.ids, start);
        pushes.readers.push((group[0].0, pushes.ids.len()));
    }
    pushes
}

/// Sorts by reader: byte by byte from the least one on, those bytes alone in which
/// readers differ. Most deliveries are of many fan-outs, each ascending, to readers
/// whose numbers are dense; comparing them takes several times as long.
fn sorted_by_reader<A: Copy + Ord + Into<u64>>(
    mut deliveries: Vec<(A, PostId)>,
) -> Vec<(A, PostId)> {
    if deliveries.len() < RADIX_MIN {
        deliveries.sort_unstable_by_key(|(reader, _)| *reader);
        return deliveries;
    }
    let first: u64 = deliveries[0].0.into();
    let differing =
        deliveries.iter().fold(0, |bits, (reader, _)| bits | (first ^ (*reader).into()));
    let mut sorted = deliveries.clone();
    for byte in (0..u64::BITS).step_by(8).filter(|byte| (differing >> byte) & 0xff != 0) {
        let digit = |reader: A| (reader.into() >> byte) as usize & 0xff;
        let mut places = [0; 256];
        for (reader, _) in &deliveries {
            places[digit(*reader)] += 1;
        }
        let mut end = 0;
        for place in &mut places {
            let count = *place;
            *place = end;
            end += count;
        }
        for delivery in &deliveries {
            let place = &mut places[digit(delivery.0)];
            sorted[*place] = *delivery;
            *place += 1;
        }
        std::mem::swap(&mut deliveries, &mut sorted);
    }
    deliveries
}

/// Sorts what begins at `start`, a few ids mostly, and drops repetitions in it.
fn sort_and_dedup_from(ids: &mut Vec<PostId>, start: usize) {
    let tail = &mut ids[start..];
    if tail.is_sorted_by(|a, b| a < b) {
        return;
    }
    tail.sort_unstable();
    let mut kept = 1;
    for at in 1..tail.len() {
        if tail[at] != tail[kept - 1] {
            tail[kept] = tail[at];
            kept += 1;
        }
    }
    ids.truncate(start + kept);
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn expected(deliveries: &[(u64, PostId)]) -> Vec<(u64, Vec<PostId>)> {
        let mut by_reader = BTreeMap::<u64, BTreeSet<PostId>>::new();
        for (reader, id) in deliveries {
            by_reader.entry(*reader).or_default().insert(*id);
        }
        by_reader.into_iter().map(|(reader, ids)| (reader, ids.into_iter().collect())).collect()
    }

    fn written(pushes: &Pushes<u64>) -> Vec<(u64, Vec<PostId>)> {
        pushes.iter().map(|(reader, ids)| (reader, ids.to_vec())).collect()
    }

    proptest! {
        #[test]
        fn each_reader_is_written_once_with_all_its_ids(
            deliveries in proptest::collection::vec((0..20_u64, 1..50_u64), 0..200),
        ) {
            let deliveries: Vec<_> =
                deliveries.into_iter().map(|(reader, id)| (reader, PostId(id))).collect();
            let expected = expected(&deliveries);
            prop_assert_eq!(written(&combine(deliveries)), expected);
        }

        #[test]
        fn many_are_gathered_as_few_are(
            seed in any::<u64>(),
            readers in prop_oneof![Just(300), Just(70_000), Just(u64::MAX)],
            count in RADIX_MIN..4 * RADIX_MIN,
        ) {
            let mut state = seed;
            let mut next = move || {
                // The constants are Knuth's (MMIX).
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                state.rotate_left(29)
            };
            let deliveries: Vec<_> =
                (0..count).map(|_| (next() % readers, PostId(1 + next() % 99))).collect();
            let expected = expected(&deliveries);
            prop_assert_eq!(written(&combine(deliveries)), expected);
        }
    }
}
