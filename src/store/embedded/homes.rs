//! The live home timelines, in memory.
//!
//! They hold nothing that the ledger could not give back, so they are not kept on
//! disk: after a restart everybody sleeps, and the first read rebuilds.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use super::{newest_ids::NewestIds, slots::Slots};
use crate::{
    domain::PostId,
    store::{
        Floor, Hides, HomeEnd, HomePage, HomeRead, NewestPosts, PushOutcome, Pushes, RebuildTicket,
    },
};

/// A timeline that was not read for so many turns of time, or one more, sleeps.
pub(super) const IDLE_TURNS: u8 = 8;

/// Ids taken away that one rebuild remembers, at the most.
const TAKEN_MAX: usize = 65_536;

/// What the timelines may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct HomeLimits {
    /// How many ids a reader is shown.
    pub(super) cap: usize,
    /// How many ids are kept: `cap` and some slack.
    pub(super) entries_max: usize,
}

#[derive(Debug)]
pub(super) struct HomeTable {
    limits: HomeLimits,
    homes: Slots<Home>,
    totals: Totals,
}

/// What the table holds, kept up with every change so that asking is cheap.
#[derive(Debug, Default)]
pub(super) struct Totals {
    live: AtomicI64,
    entries: AtomicI64,
    heap_bytes: AtomicI64,
}

#[derive(Debug, Default)]
struct Home {
    list: NewestIds,
    state: State,
    /// Turns of time since its reader has read it.
    idle_turns: u8,
    /// Counts the rebuilds begun: one whose ticket is no longer this is not the
    /// last one.
    version: u32,
    /// What was taken away while a rebuild is under way, which may have read it
    /// before; in no order. What has come back since is in `list`.
    taken: Vec<PostId>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Has no list; pushes pass by.
    #[default]
    Asleep,
    /// Gathers pushes while a rebuild reads the ledger.
    Rebuilding,
    /// Complete above its floor.
    Live,
}

impl HomeTable {
    pub(super) fn new(limits: HomeLimits) -> Self {
        Self { limits, homes: Slots::default(), totals: Totals::default() }
    }

    pub(super) fn push(&self, pushes: &Pushes<u32>) -> PushOutcome {
        let mut outcome = PushOutcome::default();
        let mut change = Change::default();
        self.homes.with_each(pushes.iter(), |home, ids| {
            if home.state == State::Asleep {
                outcome.skipped += ids.len() as u64;
                return;
            }
            change.of(home, |home| {
                for id in ids {
                    home.list.insert(id.0, self.limits.entries_max);
                }
            });
            outcome.deliveries += ids.len() as u64;
            outcome.pushes += 1;
        });
        self.totals.add(change);
        outcome
    }

    pub(super) fn awake(&self, readers: &[u32]) -> Vec<u32> {
        let mut awake = Vec::new();
        self.homes.with_each(readers.iter().map(|reader| (*reader, *reader)), |home, reader| {
            if home.state != State::Asleep {
                awake.push(reader);
            }
        });
        awake
    }

    pub(super) fn merge(&self, reader: u32, posts: &NewestPosts) {
        self.change(reader, |home| {
            if home.state != State::Asleep {
                home.list.merge(posts, self.limits.entries_max);
            }
        });
    }

    pub(super) fn purge(&self, reader: u32, posts: &NewestPosts) {
        self.change(reader, |home| {
            home.list.purge(posts);
            home.note_taken(&posts.ids);
        });
    }

    pub(super) fn remove(&self, readers: &[u32], post: PostId) {
        let mut change = Change::default();
        self.homes.with_each(readers.iter().map(|reader| (*reader, ())), |home, ()| {
            change.of(home, |home| {
                home.list.remove(post.0);
                home.note_taken(&[post]);
            });
        });
        self.totals.add(change);
    }

    /// A turn of time has passed. Returns how many timelines sleep since.
    pub(super) fn pass_turn(&self) -> u64 {
        let mut change = Change::default();
        self.homes.each_used(|home| {
            home.idle_turns = home.idle_turns.saturating_add(1);
            if home.state == State::Live && home.idle_turns > IDLE_TURNS {
                change.of(home, |home| {
                    home.list.clear();
                    home.state = State::Asleep;
                });
            }
        });
        let slept = -change.live;
        self.totals.add(change);
        slept.unsigned_abs()
    }

    /// Its reader has read it.
    pub(super) fn keep_awake(&self, reader: u32) {
        self.homes.with(reader, |home| home.idle_turns = 0);
    }

    /// `hidden` says which ids are deleted and may still be in lists; `hides`, whom the
    /// reader hides, comes with the page.
    pub(super) fn page(
        &self,
        reader: u32,
        before: Option<PostId>,
        count_max: usize,
        hidden: impl Fn(PostId) -> bool,
        hides: Arc<Hides>,
    ) -> HomeRead {
        let cap = self.limits.cap;
        self.homes.with(reader, |home| {
            let list = &home.list;
            if home.state != State::Live || (list.floor() > 0 && list.len() < cap) {
                return HomeRead::Asleep;
            }
            let skipped = before.map_or(0, |before| list.rank_of(before.0));
            let mut rest =
                list.newest_first().take(cap).skip(skipped).map(PostId).filter(|id| !hidden(*id));
            let ids: Vec<PostId> = rest.by_ref().take(count_max).collect();
            let more = rest.next().is_some();
            let complete = list.floor() == 0 && list.len() <= cap;
            let floor = match list.newest_first().nth(cap.saturating_sub(1)) {
                Some(oldest) if !complete => Floor::Cap(PostId(oldest)),
                _ => Floor::Beginning,
            };
            HomeRead::Page(HomePage { ids, more, floor, hides })
        })
    }

    pub(super) fn ends(&self, readers: &[u32]) -> Vec<HomeEnd> {
        let mut ends = Vec::with_capacity(readers.len());
        self.homes.with_each(readers.iter().map(|reader| (*reader, ())), |home, ()| {
            let list = &home.list;
            let last = list.newest_first().next().unwrap_or(0);
            ends.push(HomeEnd { len: list.len() as u64, last, floor: list.floor() });
        });
        ends
    }

    pub(super) fn is_live(&self, reader: u32) -> bool {
        self.homes.with(reader, |home| home.state == State::Live)
    }

    pub(super) fn begin_rebuild(&self, reader: u32) -> RebuildTicket {
        self.change(reader, |home| {
            home.list.clear();
            home.state = State::Rebuilding;
            home.taken = Vec::new();
            home.version = home.version.wrapping_add(1);
            RebuildTicket(u64::from(home.version))
        })
    }

    pub(super) fn finish_rebuild(
        &self,
        reader: u32,
        ticket: RebuildTicket,
        mut posts: NewestPosts,
    ) -> bool {
        self.change(reader, |home| {
            if home.state != State::Rebuilding || u64::from(home.version) != ticket.0 {
                return false;
            }
            if !home.taken.is_empty() {
                let gone: HashSet<PostId> = std::mem::take(&mut home.taken).into_iter().collect();
                posts.ids.retain(|id| !gone.contains(id));
            }
            home.list.merge(&posts, self.limits.entries_max);
            home.state = State::Live;
            home.idle_turns = 0;
            true
        })
    }

    pub(super) fn entries_max(&self) -> usize {
        self.limits.entries_max
    }

    /// Live timelines, ids in them, bytes allocated for them.
    pub(super) fn totals(&self) -> (u64, u64, u64) {
        let live = self.totals.live.load(Ordering::Relaxed).max(0) as u64;
        let entries = self.totals.entries.load(Ordering::Relaxed).max(0) as u64;
        let heap_bytes = self.totals.heap_bytes.load(Ordering::Relaxed).max(0) as u64;
        (live, entries, heap_bytes + live * size_of::<Home>() as u64)
    }

    fn change<R>(&self, reader: u32, work: impl FnOnce(&mut Home) -> R) -> R {
        let mut change = Change::default();
        let result = self.homes.with(reader, |home| change.of(home, work));
        self.totals.add(change);
        result
    }
}

impl Home {
    fn note_taken(&mut self, ids: &[PostId]) {
        if self.state != State::Rebuilding {
            return;
        }
        self.taken.extend_from_slice(ids);
        if self.taken.len() > TAKEN_MAX {
            // Rather than remember ever more, let the rebuild begin again.
            self.taken = Vec::new();
            self.version = self.version.wrapping_add(1);
        }
    }

    fn measure(&self) -> (i64, i64, i64) {
        let live = i64::from(self.state != State::Asleep);
        (live, self.list.len() as i64, self.list.heap_bytes() as i64)
    }
}

/// How the totals change.
#[derive(Default)]
struct Change {
    live: i64,
    entries: i64,
    heap_bytes: i64,
}

impl Change {
    fn of<R>(&mut self, home: &mut Home, work: impl FnOnce(&mut Home) -> R) -> R {
        let before = home.measure();
        let result = work(home);
        let after = home.measure();
        self.live += after.0 - before.0;
        self.entries += after.1 - before.1;
        self.heap_bytes += after.2 - before.2;
        result
    }
}

impl Totals {
    fn add(&self, change: Change) {
        self.live.fetch_add(change.live, Ordering::Relaxed);
        self.entries.fetch_add(change.entries, Ordering::Relaxed);
        self.heap_bytes.fetch_add(change.heap_bytes, Ordering::Relaxed);
    }
}
