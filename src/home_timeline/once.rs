//! One appearance of a post that many repeat. Pure.
//!
//! ```text
//!  newest   Cem repeats o     not shown: Bob's is near
//!             ⋮ 25 others
//!           Bob repeats o     not shown: o is near; shown once o is not
//!             ⋮ 30 others
//!           o                 shown
//! ```
//!
//! What is near a repost are the [`NEAR_MAX`] entries below it, whether those are shown or
//! not. So nothing that comes later changes what was shown, the next one takes over once
//! what stood for it is undone, and no more than that has to be looked at. Mastodon keeps a
//! repost out of a feed by the same distance (2024), but when it is delivered, and for good.

use crate::domain::PostId;

/// How many entries are near a repost.
pub(super) const NEAR_MAX: usize = 40;

/// An entry of a home timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The post that one sees in it: itself, or what it repeats.
    pub(super) post: PostId,
    pub(super) is_repost: bool,
    /// Whether nothing else hides it.
    pub(super) is_seen: bool,
}

/// Leaves out what those near it show already; `entries` are newest first, and those near
/// the last one are perhaps not among them.
pub(super) fn leave_out_repeated(entries: &mut [Entry]) {
    let seen: Vec<Option<PostId>> =
        entries.iter().map(|entry| entry.is_seen.then_some(entry.post)).collect();
    for (place, entry) in entries.iter_mut().enumerate().filter(|(_, entry)| entry.is_repost) {
        let near = seen[place + 1..].iter().take(NEAR_MAX);
        entry.is_seen &= near.flatten().all(|post| *post != entry.post);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry((post, is_repost, is_seen): (u64, bool, bool)) -> Entry {
        Entry { post: PostId(post), is_repost, is_seen }
    }

    fn seen(entries: &[Entry]) -> Vec<bool> {
        let mut entries = entries.to_vec();
        leave_out_repeated(&mut entries);
        entries.iter().map(|entry| entry.is_seen).collect()
    }

    /// A repost, others, another repost, others, and what both repeat.
    fn chain(between: usize, original_is_seen: bool) -> Vec<Entry> {
        let others = || (100..).take(between).map(|post| entry((post, false, true)));
        let repost = entry((1, true, true));
        let entries = [repost].into_iter().chain(others()).chain([repost]).chain(others());
        entries.chain([entry((1, false, original_is_seen))]).collect()
    }

    #[test]
    fn the_oldest_is_shown_and_the_next_takes_over() {
        let shown = |between, original| {
            let entries = chain(between, original);
            let seen = seen(&entries);
            [0, between + 1, 2 * between + 2].map(|place| seen[place])
        };
        assert_eq!(shown(NEAR_MAX - 1, true), [false, false, true]);
        assert_eq!(shown(NEAR_MAX - 1, false), [false, true, false]);
        assert_eq!(shown(NEAR_MAX, true), [true, true, true]);
    }

    proptest! {
        #[test]
        fn a_post_that_is_seen_at_all_is_seen_and_what_comes_later_changes_nothing(
            drawn in proptest::collection::vec((0..12_u64, any::<bool>(), any::<bool>()), 1..120),
            later in 0..40_usize,
        ) {
            let entries: Vec<Entry> = drawn.into_iter().map(entry).collect();
            let shown = seen(&entries);
            let later = later.min(entries.len());
            prop_assert_eq!(&seen(&entries[later..]), &shown[later..]);
            for (place, repost) in entries.iter().enumerate() {
                let near = place + 1..entries.len().min(place + 1 + NEAR_MAX);
                let is_near = near.clone().any(|near| entries[near].is_seen
                    && entries[near].post == repost.post);
                prop_assert_eq!(shown[place], repost.is_seen && !(repost.is_repost && is_near));
            }
            for post in 0..12 {
                let of = |(_, entry): &(usize, &Entry)| entry.post == PostId(post) && entry.is_seen;
                let mut of_post = entries.iter().enumerate().filter(of).map(|(place, _)| place);
                prop_assert!(of_post.clone().next().is_none() || of_post.any(|place| shown[place]));
            }
        }
    }
}
