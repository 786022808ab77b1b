//! What is remembered of a feed, and what follows from it. Pure.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{
    entry::{Entry, EntryId},
    list::Feed,
    schedule::{self, BACK_OFF_MAX_SECONDS},
};

/// The version that this program reads and writes.
pub(super) const VERSION: u32 = 1;
/// Entries that wait until Roost takes them; once it is full, the feed is not polled.
pub(super) const OUTBOX_ENTRIES_MAX: usize = 1_000;
/// Entries that are remembered though they have left the feed, should they come again.
/// Beyond that Roost remembers them.
const GONE_ENTRIES_MAX: usize = 1_000;

/// What is remembered of a feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FeedState {
    pub(super) version: u32,
    /// Whose it is, for people who look into the file; its name says it too.
    pub(super) author: u64,
    pub(super) url: String,
    /// Which answer is known; `None` if not all of it was taken.
    pub(super) validators: Option<Validators>,
    /// Where the feed has moved to for good, as far as it was told.
    pub(super) moved_to: Option<String>,
    /// Whether it was ever read: of what is in it the first time, little is posted.
    pub(super) is_known: bool,
    /// Entries that need no second look, those seen last at the end. They are posted, in
    /// the outbox, or older than the first read.
    pub(super) seen: Vec<EntryId>,
    /// What is to be posted, oldest first.
    pub(super) outbox: Vec<Entry>,
    /// Polls that failed since the last one that did not.
    pub(super) errors: u32,
    /// When to poll it again, in seconds since 1970.
    pub(super) next_poll: u64,
    /// The feed has said that it is gone for good, and is left alone.
    pub(super) is_gone: bool,
}

/// What an answer is known by, and the address that gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Validators {
    pub(super) url: String,
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
}

/// What came of a look at a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) new: usize,
    /// New ones that found no room, and are left for the next poll.
    pub(super) left: usize,
}

impl FeedState {
    /// Of a feed that was never read.
    pub(super) fn new(feed: &Feed) -> Self {
        Self {
            version: VERSION,
            author: feed.author.0,
            url: feed.url.to_string(),
            validators: None,
            moved_to: None,
            is_known: false,
            seen: Vec::new(),
            outbox: Vec::new(),
            errors: 0,
            next_poll: 0,
            is_gone: false,
        }
    }

    /// Takes what is new of what is in the feed, oldest first, into the outbox: all of it,
    /// since it may have left the feed by the next poll; of a feed that was never read the
    /// newest `first_entries`. What finds no room is not seen, and the answer does not
    /// count as known.
    pub(super) fn take(
        &mut self,
        window: Vec<Entry>,
        validators: Option<Validators>,
        first_entries: usize,
    ) -> Taken {
        let seen: HashSet<EntryId> = self.seen.iter().copied().collect();
        let window_ids: Vec<EntryId> = window.iter().map(|entry| entry.id).collect();
        let mut new: Vec<Entry> =
            window.into_iter().filter(|entry| !seen.contains(&entry.id)).collect();
        if !self.is_known {
            new.drain(..new.len().saturating_sub(first_entries));
        }
        let room = OUTBOX_ENTRIES_MAX.saturating_sub(self.outbox.len());
        let left = new.split_off(new.len().min(room));
        let taken = Taken { new: new.len() + left.len(), left: left.len() };
        self.outbox.extend(new);
        self.see(&window_ids, left.iter().map(|entry| entry.id).collect());
        self.validators = validators.filter(|_| left.is_empty());
        self.is_known = true;
        taken
    }

    /// All that is in the feed but `left` was seen just now.
    fn see(&mut self, window: &[EntryId], left: HashSet<EntryId>) {
        let places: HashMap<EntryId, usize> = window.iter().copied().zip(0..).collect();
        self.seen.retain(|id| !places.contains_key(id));
        self.seen.drain(..self.seen.len().saturating_sub(GONE_ENTRIES_MAX));
        self.seen.extend(window.iter().filter(|id| !left.contains(id)));
    }

    /// Roost has it.
    pub(super) fn posted(&mut self, id: EntryId) {
        self.outbox.retain(|entry| entry.id != id);
    }

    /// A poll has succeeded.
    pub(super) fn succeeded(&mut self, now: u64, interval_seconds: u64) {
        self.errors = 0;
        self.next_poll = now.saturating_add(interval_seconds);
    }

    /// A poll has failed, and perhaps the feed has said when to come again. `unit` is
    /// drawn from [0, 1).
    pub(super) fn failed(
        &mut self,
        now: u64,
        interval_seconds: u64,
        retry_after_seconds: Option<u64>,
        unit: f64,
    ) {
        self.errors = self.errors.saturating_add(1);
        let back_off = schedule::back_off_seconds(self.errors, interval_seconds, unit);
        let wait = schedule::after_error_seconds(back_off, retry_after_seconds);
        self.next_poll = now.saturating_add(wait);
    }

    /// How long not to poll it. An interval that was made shorter, or a clock that was put
    /// back, does not keep it waiting for longer than one that begins now.
    pub(super) fn wait_seconds(&mut self, now: u64, interval_seconds: u64) -> u64 {
        let longest = match self.errors {
            0 => interval_seconds,
            _ => interval_seconds.max(BACK_OFF_MAX_SECONDS),
        };
        self.next_poll = self.next_poll.min(now.saturating_add(longest));
        self.next_poll.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use url::Url;

    use super::*;
    use crate::domain::UserId;

    fn state() -> FeedState {
        let url = Url::parse("https://example.org/").expect("a URL");
        FeedState::new(&Feed { line: 1, author: UserId(1), url })
    }

    fn entry(number: u64) -> Entry {
        let title = number.to_string();
        Entry { id: EntryId::of(&[&title]), title, link: None }
    }

    fn window(numbers: std::ops::Range<u64>) -> Vec<Entry> {
        numbers.map(entry).collect()
    }

    fn titles(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.title.as_str()).collect()
    }

    fn validators() -> Option<Validators> {
        Some(Validators {
            url: "u".to_owned(),
            etag: Some("\"1\"".to_owned()),
            last_modified: None,
        })
    }

    #[test]
    fn of_a_new_feed_the_newest_are_taken_then_what_is_new() {
        let mut state = state();
        assert_eq!(state.take(window(0..5), validators(), 1), Taken { new: 1, left: 0 });
        assert_eq!(titles(&state.outbox), ["4"]);
        state.posted(entry(4).id);
        assert_eq!(state.take(window(2..7), validators(), 1), Taken { new: 2, left: 0 });
        assert_eq!(titles(&state.outbox), ["5", "6"]);
        assert_eq!(state.take(window(2..7), validators(), 1), Taken { new: 0, left: 0 });
        assert_eq!(state.validators, validators());

        let mut none = self::state();
        none.take(window(0..5), None, 0);
        none.take(window(0..6), None, 0);
        assert_eq!(titles(&none.outbox), ["5"]);
    }

    #[test]
    fn a_full_outbox_takes_no_more_and_leaves_the_newest_for_the_next_poll() {
        let mut state = state();
        let taken = state.take(window(0..1_500), validators(), 2_000);
        assert_eq!((taken, state.outbox.len()), (Taken { new: 1_500, left: 500 }, 1_000));
        assert_eq!((titles(&state.outbox)[999], &state.validators), ("999", &None));
        let taken = state.take(window(0..1_500), validators(), 2_000);
        assert_eq!((taken, &state.validators), (Taken { new: 500, left: 500 }, &None));
        state.outbox.clear();
        state.take(window(0..1_500), validators(), 2_000);
        assert_eq!((titles(&state.outbox)[0], &state.validators), ("1000", &validators()));
    }

    #[test]
    fn no_more_is_remembered_than_the_feed_holds_and_some() {
        let mut state = state();
        for begin in (0..20_000).step_by(100) {
            state.take(window(begin..begin + 200), None, 1);
            state.outbox.clear();
        }
        assert!(state.seen.len() <= GONE_ENTRIES_MAX + 200, "{}", state.seen.len());
        // Not so long ago that it is forgotten.
        assert_eq!(state.take(window(19_200..19_300), None, 1).new, 0);
    }

    #[test]
    fn errors_in_a_row_make_it_wait_until_one_succeeds() {
        let mut state = state();
        let waits: Vec<u64> = (0..3)
            .map(|_| {
                state.failed(1_000, 10, None, 0.0);
                state.wait_seconds(1_000, 10)
            })
            .collect();
        assert_eq!(waits, [10, 20, 40]);
        state.failed(1_000, 10, Some(500), 0.0);
        assert_eq!(state.wait_seconds(1_200, 10), 300);
        state.succeeded(2_000, 10);
        assert_eq!((state.wait_seconds(2_000, 10), state.wait_seconds(2_011, 10)), (10, 0));
        // The interval was an hour, or the clock was a year ahead.
        state.succeeded(2_000, 3_600);
        assert_eq!((state.wait_seconds(2_000, 10), state.wait_seconds(2_008, 10)), (10, 2));
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// So many more entries are in the feed, and as many of the oldest leave it.
        Grow(u64),
        Poll,
        /// Roost takes so many of the outbox.
        Publish(usize),
        /// The process dies; what was written `usize` writes ago is found again.
        Restore(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..6_u64).prop_map(Step::Grow),
            Just(Step::Poll),
            (0..10_usize).prop_map(Step::Publish),
            (0..4_usize).prop_map(Step::Restore),
        ]
    }

    proptest! {
        /// Roost is a list of those posts whose request it has not seen. Due is what a poll
        /// has come across, unless what it wrote was lost: that may have left the feed.
        #[test]
        fn whatever_is_lost_everything_is_posted_once(
            steps in proptest::collection::vec(step(), 1..40), window_len in 2..10_u64,
        ) {
            let mut feed_end = 5_u64;
            let mut written = vec![(state(), BTreeSet::new())];
            let mut roost: Vec<String> = Vec::new();
            let publish = |roost: &mut Vec<String>, state: &mut FeedState, count: usize| {
                for entry in state.outbox.clone().into_iter().take(count) {
                    if !roost.contains(&entry.title) {
                        roost.push(entry.title);
                    }
                    state.posted(entry.id);
                }
            };
            let settle = [Step::Poll, Step::Publish(usize::MAX)];
            for step in [Step::Poll, Step::Publish(2)].into_iter().chain(steps).chain(settle) {
                let (mut state, mut due) = written.last().expect("written").clone();
                match step {
                    Step::Grow(count) => feed_end += count,
                    Step::Poll => {
                        let in_feed = feed_end.saturating_sub(window_len)..feed_end;
                        // Before that it was read for the first time.
                        due.extend(in_feed.clone().filter(|number| *number >= 3));
                        state.take(window(in_feed), None, 2);
                    }
                    Step::Publish(count) => publish(&mut roost, &mut state, count),
                    Step::Restore(writes) => {
                        // That it was read at all is written before anything is posted.
                        let back = writes.min(written.len() - 2);
                        written.truncate(written.len() - back);
                        continue;
                    }
                }
                written.push((state, due));
            }
            let posted: Vec<u64> = roost.iter().map(|title| title.parse().expect("a number")).collect();
            prop_assert!(posted.is_sorted_by(|one, next| one < next), "{posted:?}");
            let (_, due) = written.last().expect("written");
            prop_assert!(due.iter().all(|number| posted.contains(number)), "{due:?}, {posted:?}");
        }
    }
}
