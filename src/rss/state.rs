//! What is remembered of a feed, and what follows from it. Pure.
//!
//! **Which entry is new.** An entry has three names, from its guid (or its link) to all that it
//! says (`entry::Found`). It is known by the first of them that no other entry of the feed has:
//! a guid that repeats within one answer names nothing. Such a name is remembered as shared, so
//! that it is not believed either once the others have left the feed. Of an entry that is in
//! the feed all names are remembered as seen, so that it stays known by whichever of them holds
//! later.
//!
//! The first version of this program remembered the first name only, and read the newest of the
//! entries that share it. At the first look at its state the newest one counts as posted.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{
    entry::{Entry, EntryId, Found},
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
/// Their names, of which each has three.
const GONE_NAMES_MAX: usize = 3 * GONE_ENTRIES_MAX;

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
    /// Names of entries that need no second look, those seen last at the end. They are posted,
    /// in the outbox, or older than the first read.
    pub(super) seen: Vec<EntryId>,
    /// Names that several entries of one answer had, those seen last at the end.
    #[serde(default)]
    pub(super) shared: Vec<EntryId>,
    /// Whether all names of what was seen are remembered: the first version did not.
    #[serde(default)]
    pub(super) has_all_names: bool,
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
    /// For the first time several entries of the feed share a name.
    pub(super) has_begun_to_share: bool,
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
            shared: Vec::new(),
            has_all_names: false,
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
        window: Vec<Found>,
        validators: Option<Validators>,
        first_entries: usize,
    ) -> Taken {
        let could_share = !self.shared.is_empty();
        let ids = self.ids(&window);
        let seen: HashSet<EntryId> = self.seen.iter().copied().collect();
        let is_new = |(_, id): &(Found, EntryId)| !seen.contains(id);
        let entries = window.iter().cloned().zip(ids);
        let mut new: Vec<(Found, EntryId)> = entries.filter(is_new).collect();
        if !self.is_known {
            new.drain(..new.len().saturating_sub(first_entries));
        }
        let room = OUTBOX_ENTRIES_MAX.saturating_sub(self.outbox.len());
        let left = new.split_off(new.len().min(room));
        let taken = Taken {
            new: new.len() + left.len(),
            left: left.len(),
            has_begun_to_share: !could_share && !self.shared.is_empty(),
        };
        self.outbox.extend(new.iter().map(|(found, id)| found.entry(*id)));
        let left: HashSet<EntryId> = left.iter().flat_map(|(found, _)| found.names).collect();
        let names = window.iter().flat_map(|found| found.names);
        remember(&mut self.seen, names.filter(|name| !left.contains(name)));
        self.validators = validators.filter(|_| left.is_empty());
        self.is_known = true;
        self.has_all_names = true;
        taken
    }

    /// What each entry is known by, once it is known which names are shared.
    fn ids(&mut self, window: &[Found]) -> Vec<EntryId> {
        let mut counts: HashMap<EntryId, usize> = HashMap::new();
        for name in window.iter().flat_map(|found| found.names) {
            *counts.entry(name).or_default() += 1;
        }
        let names = window.iter().flat_map(|found| found.names);
        remember(&mut self.shared, names.filter(|name| counts.get(name) > Some(&1)));
        let shared: HashSet<EntryId> = self.shared.iter().copied().collect();
        let known_by = |found: &Found| {
            let mut names = found.names.into_iter();
            names.find(|name| !shared.contains(name)).unwrap_or(found.names[2])
        };
        if !self.has_all_names {
            let mut posted_as: HashSet<EntryId> = self.seen.iter().copied().collect();
            // The newest are at the end.
            for found in window.iter().rev() {
                if shared.contains(&found.names[0]) && posted_as.remove(&found.names[0]) {
                    self.seen.push(known_by(found));
                }
            }
        }
        window.iter().map(known_by).collect()
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

/// Puts names at the end of those that are remembered, and forgets what was seen least lately
/// of the others.
fn remember(remembered: &mut Vec<EntryId>, names: impl Iterator<Item = EntryId>) {
    let mut now: Vec<EntryId> = Vec::new();
    let mut is_there = HashSet::new();
    now.extend(names.filter(|name| is_there.insert(*name)));
    remembered.retain(|name| !is_there.contains(name));
    remembered.drain(..remembered.len().saturating_sub(GONE_NAMES_MAX));
    remembered.extend(now);
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

    fn entry(number: u64) -> Found {
        named(&number.to_string(), &number.to_string())
    }

    /// An entry of this guid and title.
    fn named(guid: &str, title: &str) -> Found {
        let names = [&[guid][..], &[guid, title], &[guid, title, ""]];
        let title = title.to_owned();
        Found { names: names.map(EntryId::of), title, link: None, unix_ms: None }
    }

    fn window(numbers: std::ops::Range<u64>) -> Vec<Found> {
        numbers.map(entry).collect()
    }

    fn taken(new: usize, left: usize) -> Taken {
        Taken { new, left, has_begun_to_share: false }
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
        assert_eq!(state.take(window(0..5), validators(), 1), taken(1, 0));
        assert_eq!(titles(&state.outbox), ["4"]);
        state.posted(entry(4).names[0]);
        assert_eq!(state.take(window(2..7), validators(), 1), taken(2, 0));
        assert_eq!(titles(&state.outbox), ["5", "6"]);
        assert_eq!(state.take(window(2..7), validators(), 1), taken(0, 0));
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
        assert_eq!((taken, state.outbox.len()), (self::taken(1_500, 500), 1_000));
        assert_eq!((titles(&state.outbox)[999], &state.validators), ("999", &None));
        let taken = state.take(window(0..1_500), validators(), 2_000);
        assert_eq!((taken, &state.validators), (self::taken(500, 500), &None));
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
        assert!(state.seen.len() <= GONE_NAMES_MAX + 3 * 200, "{}", state.seen.len());
        // Not so long ago that it is forgotten.
        assert_eq!(state.take(window(19_200..19_300), None, 1).new, 0);
    }

    /// Takes entries, newest first, each a guid and a title, and tells what is posted of them.
    fn posted(state: &mut FeedState, entries: &[(&str, &str)]) -> Vec<String> {
        let window = entries.iter().rev().map(|(guid, title)| named(guid, title)).collect();
        state.take(window, None, 100);
        state.outbox.drain(..).map(|entry| entry.title).collect()
    }

    #[test]
    fn shared_guid_posts_each_entry_once_and_ever() {
        let mut state = state();
        let all = [("x", "3"), ("x", "2"), ("y", "y"), ("x", "1")];
        assert_eq!(posted(&mut state, &all), ["1", "y", "2", "3"]);
        assert_eq!(posted(&mut state, &all), [""; 0]);
        // The others leave, so that the guid repeats no more.
        assert_eq!(posted(&mut state, &[("x", "2")]), [""; 0]);
        assert_eq!(posted(&mut state, &[("x", "4")]), ["4"]);
        assert_eq!(posted(&mut state, &[("x", "4"), ("x", "2"), ("x", "1")]), [""; 0]);
        // A guid that is its own names an entry though its title is corrected.
        assert_eq!(posted(&mut state, &[("y", "y, corrected")]), [""; 0]);
    }

    #[test]
    fn guid_shared_later_reposts_nothing() {
        let mut state = state();
        assert_eq!(posted(&mut state, &[("x", "1")]), ["1"]);
        assert_eq!(posted(&mut state, &[("x", "2"), ("x", "1")]), ["2"]);
        assert_eq!(posted(&mut state, &[("x", "3"), ("x", "2"), ("x", "1")]), ["3"]);
        // None of them is the one that was posted.
        assert_eq!(posted(&mut state, &[("y", "1")]), ["1"]);
        assert_eq!(posted(&mut state, &[("y", "3"), ("y", "2")]), ["2", "3"]);
    }

    #[test]
    fn guid_shared_before_update_reposts_nothing() {
        // The first version knew an entry by its guid alone, and posted the newest of several.
        let mut state = FeedState { is_known: true, ..state() };
        state.seen = vec![named("x", "3").names[0], named("y", "y").names[0]];
        let all = [("x", "3"), ("y", "y"), ("x", "2"), ("x", "1")];
        assert_eq!(posted(&mut state, &all), ["1", "2"]);
        assert_eq!(posted(&mut state, &all), [""; 0]);
        assert_eq!(posted(&mut state, &[("x", "3")]), [""; 0]);
    }

    #[test]
    fn same_guid_and_title_are_told_apart_by_the_rest() {
        let entry = |text: &str| {
            let mut entry = named("x", "same");
            entry.names[2] = EntryId::of(&["x", "same", text]);
            entry
        };
        let mut state = state();
        let first = state.take(vec![entry("1"), entry("2")], None, 100);
        assert_eq!((first.new, first.has_begun_to_share), (2, true));
        let second = state.take(vec![entry("2")], None, 100);
        assert_eq!((second.new, second.has_begun_to_share), (0, false));
    }

    #[test]
    fn state_of_first_version_is_read() {
        let text = serde_json::to_string(&state()).expect("JSON");
        let before = text.replace("\"shared\":[],\"has_all_names\":false,", "");
        assert_ne!(before, text);
        assert_eq!(serde_json::from_str::<FeedState>(&before).expect("a state"), state());
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
