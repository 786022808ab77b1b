//! One home timeline, to its very end.

use hashbrown::HashSet;

use crate::domain::PostId;

/// How many posts that the reader sees below a repost are near it, each counted once.
const NEAR_MAX: usize = 40;
/// How many entries below a repost may be in between, the hidden ones among them.
const ENTRIES_MAX: usize = 1_000;

/// A home timeline as it should be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Home {
    /// With what its reader does not see, newest first.
    pub(crate) delivered: Vec<PostId>,
    /// What of it the reader does not see.
    pub(crate) hidden: HashSet<PostId, foldhash::fast::RandomState>,
}

impl Home {
    /// What the reader sees, with every repost.
    pub(crate) fn shown(&self) -> Vec<PostId> {
        self.delivered.iter().copied().filter(|id| !self.hidden.contains(id)).collect()
    }

    /// What the reader sees, where `repeats` says what plain reposts repeat: without those
    /// of which another, or what they repeat, is among the 40 posts below that the reader sees,
    /// where a post that is there several times, or repeated, is one.
    pub(crate) fn seen(&self, repeats: impl Fn(PostId) -> Option<PostId>) -> Vec<PostId> {
        let post = |id: PostId| repeats(id).unwrap_or(id);
        let is_shown = |id: &PostId| !self.hidden.contains(id);
        let is_repeated = |place: usize| {
            let Some(said) = repeats(self.delivered[place]) else { return false };
            let below = self.delivered[place + 1..].iter().take(ENTRIES_MAX);
            let mut near = HashSet::new();
            for id in below.copied().filter(|id| is_shown(id)) {
                if near.len() == NEAR_MAX {
                    return false;
                }
                near.insert(post(id));
                if near.contains(&said) {
                    return true;
                }
            }
            false
        };
        (0..self.delivered.len())
            .filter(|place| is_shown(&self.delivered[*place]) && !is_repeated(*place))
            .map(|place| self.delivered[place])
            .collect()
    }

    /// The same without what is older than a post.
    pub(crate) fn cut_below(&self, oldest: PostId) -> Self {
        let mut cut = self.clone();
        cut.delivered.truncate(self.delivered.partition_point(|id| *id >= oldest));
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(reposts: &[u64], said: u64, hidden: &[u64]) -> Vec<u64> {
        let home = Home {
            delivered: (1..=60).rev().map(PostId).collect(),
            hidden: hidden.iter().copied().map(PostId).collect(),
        };
        let seen = home.seen(|id| reposts.contains(&id.0).then_some(PostId(said)));
        let all = home.delivered.iter();
        all.filter(|id| !seen.contains(id)).map(|id| id.0).collect()
    }

    #[test]
    fn what_is_repeated_near_by_is_seen_once() {
        assert_eq!(left_out(&[6, 45], 5, &[]), [45, 6]);
        assert_eq!(left_out(&[46], 5, &[]), [0; 0]);
        assert_eq!(left_out(&[10, 20], 1_000, &[]), [20]);
    }

    #[test]
    fn what_is_hidden_is_no_repetition() {
        assert_eq!(left_out(&[10], 5, &[5]), [5]);
        assert_eq!(left_out(&[10, 20], 1_000, &[10]), [10]);
        // Nor does it count.
        assert_eq!(left_out(&[46], 5, &[20]), [46, 20]);
        assert_eq!(left_out(&[47], 5, &[20]), [20]);
    }

    #[test]
    fn near_posts_are_counted_once_and_not_sought_for_ever() {
        // Of the reposts of 1,000 all but the oldest one are left out, and count as one post.
        let repeats = |id: PostId| match id.0 {
            60 => Some(PostId(5)),
            10..50 => Some(PostId(1_000)),
            _ => None,
        };
        let home = Home { delivered: (1..=60).rev().map(PostId).collect(), ..Home::default() };
        let seen = home.seen(repeats);
        assert!(!seen.contains(&PostId(60)) && seen.contains(&PostId(10)) && seen.len() == 20);
        for (between, is_seen) in [(ENTRIES_MAX - 1, false), (ENTRIES_MAX, true)] {
            let repost = between as u64 + 2;
            let home = Home {
                delivered: (1..=repost).rev().map(PostId).collect(),
                hidden: (2..repost).map(PostId).collect(),
            };
            let seen = home.seen(|id| (id.0 == repost).then_some(PostId(1)));
            assert_eq!(seen.contains(&PostId(repost)), is_seen, "{between} between");
        }
    }

    #[test]
    fn what_is_older_is_cut() {
        let home = Home { delivered: [9, 7, 5].map(PostId).into(), ..Home::default() };
        assert_eq!(home.cut_below(PostId(6)).shown(), [9, 7].map(PostId));
    }
}
