//! One appearance of a post that many repeat. Pure.
//!
//! ```text
//!  newest   Cem repeats o     not shown: Bob's is near
//!             ⋮ 25 other posts that show
//!           Bob repeats o     not shown: o is near; shown once o is not
//!             ⋮ 30 other posts that show
//!           o                 shown
//! ```
//!
//! What is near a repost are the [`NEAR_MAX`] posts below it that nothing else hides: what the
//! reader does not see does not count, and a post that is there several times, or repeated, counts
//! once, so that reposts that are left out do not count either. They are looked for among the
//! [`BELOW_MAX`] entries below, and what stands further down is not near.
//!
//! So nothing that comes later changes what was shown, wherever pages begin and end; the next
//! repost takes over once what stood for it is undone; and the look down has an end. Mastodon keeps
//! a repost out of a feed by the distance in entries (2024), but when it is delivered, and for good.

use std::collections::HashMap;

use crate::domain::PostId;

/// How many posts are near a repost.
pub(super) const NEAR_MAX: usize = 40;
/// How many entries below a repost are looked at, the hidden ones among them.
pub(super) const BELOW_MAX: usize = 1_000;

/// An entry of a home timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The post that one sees in it: itself, or what it repeats.
    pub(super) post: PostId,
    pub(super) is_repost: bool,
    /// Whether nothing else hides it.
    pub(super) is_seen: bool,
}

/// What the entries below a repost say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Near {
    /// Its post is near.
    Repeated,
    /// Its post is not near.
    Alone,
    /// More entries may say; if there are none, its post is not near.
    Unknown,
}

/// Leaves out of the first `page_len` entries those whose post is near below. `entries` are newest
/// first and go on below the page, as far as they were read.
pub(super) fn leave_out_repeated(entries: &mut [Entry], page_len: usize) {
    let above = above_of_same_post(entries);
    // Those below decide as they are, left out or not.
    let repeated: Vec<usize> = reposts(entries, page_len)
        .filter(|index| near(entries, &above, *index) == Near::Repeated)
        .collect();
    for index in repeated {
        entries[index].is_seen = false;
    }
}

/// Whether more entries below these would change nothing on a page of the first `page_len`.
pub(super) fn is_decided(entries: &[Entry], page_len: usize) -> bool {
    let above = above_of_same_post(entries);
    reposts(entries, page_len).all(|index| near(entries, &above, index) != Near::Unknown)
}

/// The reposts of the page that may be left out.
fn reposts(entries: &[Entry], page_len: usize) -> impl Iterator<Item = usize> {
    let page = entries.iter().take(page_len).enumerate();
    page.filter(|(_, entry)| entry.is_repost && entry.is_seen).map(|(index, _)| index)
}

/// For each entry the nearest one above it that shows the same post.
fn above_of_same_post(entries: &[Entry]) -> Vec<Option<usize>> {
    let mut last = HashMap::new();
    let above = |(index, entry): (usize, &Entry)| {
        if entry.is_seen { last.insert(entry.post, index) } else { None }
    };
    entries.iter().enumerate().map(above).collect()
}

fn near(entries: &[Entry], above: &[Option<usize>], repost: usize) -> Near {
    let mut posts = 0;
    for index in (repost + 1..entries.len()).take(BELOW_MAX) {
        if !entries[index].is_seen {
            continue;
        }
        match above[index] {
            Some(above) if above == repost => return Near::Repeated,
            // Counted already.
            Some(above) if above > repost => {}
            _ => posts += 1,
        }
        if posts == NEAR_MAX {
            return Near::Alone;
        }
    }
    let below = entries.len() - repost - 1;
    if below < BELOW_MAX { Near::Unknown } else { Near::Alone }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry((post, is_repost, is_seen): (u64, bool, bool)) -> Entry {
        Entry { post: PostId(post), is_repost, is_seen }
    }

    fn seen(entries: &[Entry]) -> Vec<bool> {
        seen_on_page(entries, entries.len())
    }

    fn seen_on_page(entries: &[Entry], page_len: usize) -> Vec<bool> {
        let mut entries = entries.to_vec();
        leave_out_repeated(&mut entries, page_len);
        entries[..page_len].iter().map(|entry| entry.is_seen).collect()
    }

    /// A repost, others, another repost, others, and what both repeat.
    fn chain(between: usize, original_is_seen: bool) -> Vec<Entry> {
        let others = |first| (first..).take(between).map(|post| entry((post, false, true)));
        let repost = entry((1, true, true));
        let entries = [repost].into_iter().chain(others(100)).chain([repost]).chain(others(500));
        entries.chain([entry((1, false, original_is_seen))]).collect()
    }

    /// A repost above its original, with these between.
    fn repost_above(between: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
        let repost = entry((1, true, true));
        [repost].into_iter().chain(between).chain([entry((1, false, true))]).collect()
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

    #[test]
    fn hidden_and_left_out_entries_do_not_count() {
        let hidden = |len: u64| (10_000..10_000 + len).map(|post| entry((post, false, false)));
        let shown = |len| (100..100 + len as u64).map(|post| entry((post, false, true)));
        let of_another = (0..100).map(|_| entry((9, true, true)));
        assert!(!seen(&repost_above(hidden(60)))[0]);
        assert!(!seen(&repost_above(of_another.clone()))[0]);
        let near = hidden(60).chain(shown(NEAR_MAX - 2)).chain(of_another.clone());
        assert!(!seen(&repost_above(near))[0]);
        let far = hidden(60).chain(shown(NEAR_MAX - 1)).chain(of_another);
        assert!(seen(&repost_above(far))[0]);
        assert!(!seen(&repost_above(hidden(BELOW_MAX as u64 - 1)))[0]);
        assert!(seen(&repost_above(hidden(BELOW_MAX as u64)))[0]);
    }

    proptest! {
        #[test]
        fn posts_near_are_the_distinct_ones_that_show(
            drawn in proptest::collection::vec((0..90_u64, any::<bool>(), 0..4_u8), 1..250),
            page_end in 0..250_usize,
            page_start in 0..250_usize,
            read_end in 0..250_usize,
        ) {
            let entries: Vec<Entry> =
                drawn.into_iter().map(|(post, repost, seen)| entry((post, repost, seen > 0))).collect();
            let shown = seen(&entries);
            for (index, repost) in entries.iter().enumerate() {
                let mut near = Vec::new();
                for below in entries[index + 1..].iter().filter(|below| below.is_seen) {
                    if near.len() < NEAR_MAX && !near.contains(&below.post) {
                        near.push(below.post);
                    }
                }
                let is_near = repost.is_repost && near.contains(&repost.post);
                prop_assert_eq!(shown[index], repost.is_seen && !is_near);
            }
            for post in 0..90 {
                let of = |entry: &Entry| entry.post == PostId(post) && entry.is_seen;
                let is_seen = |index: usize| of(&entries[index]) && shown[index];
                prop_assert!(!entries.iter().any(of) || (0..entries.len()).any(is_seen));
            }
            // Pages begin and end anywhere, and read on as far as they must.
            let start = page_start.min(entries.len());
            let end = page_end.clamp(start, entries.len());
            let read = read_end.clamp(end, entries.len());
            let page_len = end - start;
            prop_assert!(is_decided(&entries[start..], page_len)
                || entries.len() - start < BELOW_MAX + page_len);
            if is_decided(&entries[start..read], page_len) {
                prop_assert_eq!(&seen_on_page(&entries[start..read], page_len), &shown[start..end]);
            }
            prop_assert_eq!(&seen_on_page(&entries[start..], page_len), &shown[start..end]);
        }
    }
}
