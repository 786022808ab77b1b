//! The embedded store: in this process, durable on local disk.
//!
//! ```text
//!  events ──► disk (fjall) ──► memory: accounts, graph, author timelines
//!  pushes ───────────────────► memory: home timelines
//!  start  ──► disk ──► accounts, graph        (author timelines when first needed,
//!                                              home timelines when first read)
//! ```
//!
//! Posts, author timelines, requests, the graph and whom readers hide are on disk. The
//! accounts, the graph and whom readers hide are also in memory, whole; author
//! timelines come into memory when a rebuild needs them; home timelines are in
//! memory only. Nothing here is fsynced event by event: the log is the truth, and
//! the store resumes where its disk remembers.

mod accounts;
mod apply;
mod authors;
mod disk;
mod disk_slot;
mod edges;
mod graph;
mod hides;
mod homes;
mod id_set;
mod inboxes;
mod lookups;
mod newest_ids;
mod posts;
mod pulled;
mod referrers;
mod slots;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use tokio::sync::Semaphore;

use self::{
    accounts::AccountTable,
    authors::AuthorTimelines,
    disk::Mark,
    disk_slot::DiskSlot,
    graph::Graph,
    hides::HideTable,
    homes::{HomeLimits, HomeTable},
    posts::PostTable,
    pulled::PulledTable,
};
use crate::{
    domain::{Event, PostId, UserId},
    durable_file,
    store::{
        Accounts, Cursor, FollowSide, HOME_TIMELINE_CAP_DEFAULT, HomeEnd, HomeRead, Homes, Ledger,
        Lookups, NewestPosts, PushOutcome, Pushes, RebuildTicket, Resume, Resumed, StoreError,
    },
};

/// Accounts that are looked at to come across a live timeline.
const LOOKS_FOR_LIVE: usize = 64;

/// How the embedded store works.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// CAP: how many posts a home timeline shows. At least 1.
    pub home_timeline_cap: usize,
    /// Bytes of memory for posts ready to be shown.
    pub post_cache_bytes: u64,
    /// Bytes of memory for blocks of the disk files.
    pub block_cache_bytes: u64,
    /// Where calls that may wait for the disk run.
    pub blocking: Blocking,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            home_timeline_cap: HOME_TIMELINE_CAP_DEFAULT,
            post_cache_bytes: 128 << 20,
            block_cache_bytes: 128 << 20,
            blocking: Blocking::Pool,
        }
    }
}

/// Where calls that may wait for the disk run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// On the runtime's threads for blocking calls.
    Pool,
    /// In place: for a simulation, whose steps must come in one order.
    InPlace,
}

/// The embedded store. Clones are handles of the same store.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
    blocking: Blocking,
    /// One for each piece of counting under way.
    counting: Arc<Semaphore>,
}

struct Inner {
    disk: DiskSlot,
    accounts: AccountTable,
    graph: Graph,
    hides: HideTable,
    authors: AuthorTimelines,
    homes: HomeTable,
    posts: PostTable,
    pulled: PulledTable,
    greatest_post: AtomicU64,
    /// The marks found when the store was opened.
    marks: BTreeMap<u32, Mark>,
    /// One past the last event applied since the store was opened, by partition.
    applied: Mutex<HashMap<u32, u64>>,
    /// One past the last event that is on disk, of partitions of which less is than in memory:
    /// the files were opened again.
    behind: Mutex<HashMap<u32, u64>>,
    /// Partitions whose last write failed: accounts that they have named may be in memory alone.
    unsure: Mutex<HashSet<u32>>,
    /// How far the fan-outs of each partition have come that are half done. In memory
    /// only, as the timelines are that they tell of.
    cursors: Mutex<HashMap<u32, Vec<Cursor<u32>>>>,
    /// Changes on disk since the last snapshot, by followee.
    follow_changes: slots::Slots<u32>,
    /// Writes to the lists of each account since they were trimmed; 0 before the first.
    inbox_writes: slots::Slots<u32>,
    limits: HomeLimits,
}

impl EmbeddedStore {
    /// Opens the store in `dir`, or makes one, and reads the accounts and the
    /// graph into memory. Waits for the disk: call it before there is anyone to
    /// keep waiting.
    pub fn open(dir: &Path, settings: Settings) -> Result<Self, StoreError> {
        durable_file::create_dir_all(dir).map_err(|error| StoreError::Disk {
            dir: dir.display().to_string(),
            reason: error.to_string(),
        })?;
        let disk = DiskSlot::open(dir, settings.block_cache_bytes)?;
        let cap = settings.home_timeline_cap.max(1);
        let limits = HomeLimits { cap, entries_max: cap + (cap / 10).max(1) };
        let marks = disk.get()?.marks()?;
        let greatest_post = marks.values().map(|mark| mark.greatest_post).max().unwrap_or(0);
        let inner = Inner {
            disk,
            accounts: AccountTable::default(),
            graph: Graph::default(),
            hides: HideTable::default(),
            authors: AuthorTimelines::new(limits.entries_max),
            homes: HomeTable::new(limits),
            posts: PostTable::new(settings.post_cache_bytes),
            pulled: PulledTable::default(),
            greatest_post: AtomicU64::new(greatest_post),
            marks,
            applied: Mutex::default(),
            behind: Mutex::default(),
            unsure: Mutex::default(),
            cursors: Mutex::default(),
            follow_changes: slots::Slots::default(),
            inbox_writes: slots::Slots::default(),
            limits,
        };
        inner.load()?;
        let counting = Arc::new(Semaphore::new(referrers::COUNTS_AT_ONCE));
        Ok(Self { inner: Arc::new(inner), blocking: settings.blocking, counting })
    }

    /// Lets timelines sleep that their readers have not read for `idle_max`, or an eighth of
    /// it longer, until it is dropped.
    pub async fn let_idle_sleep(self, idle_max: Duration) {
        let mut turns = tokio::time::interval(idle_max / u32::from(homes::IDLE_TURNS));
        loop {
            turns.tick().await;
            match self.run_blocking(|inner| Ok(inner.homes.pass_turn())).await {
                Ok(slept) => tracing::debug!(slept, "timelines that nobody reads sleep"),
                Err(error) => {
                    tracing::warn!(%error, "timelines that nobody reads stay in memory");
                }
            }
        }
    }

    /// One past the last event of `partition` that the store holds.
    pub fn applied(&self, partition: u32) -> u64 {
        let since_open = self.inner.lock_applied().get(&partition).copied();
        since_open
            .or_else(|| self.inner.marks.get(&partition).map(|mark| mark.next_offset))
            .unwrap_or(0)
    }

    fn marks_of(&self, partition: u32) -> Resume {
        let attempted = self.applied(partition);
        let applied = self.inner.behind(partition).unwrap_or(attempted);
        Resume { applied, shown: applied, attempted, delivered: None, history: 0 }
    }

    async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        match self.blocking {
            Blocking::InPlace => work(&inner),
            Blocking::Pool => {
                let task = tokio::task::spawn_blocking(move || work(&inner));
                match task.await {
                    Ok(result) => result,
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => Err(StoreError::Closed),
                }
            }
        }
    }
}

impl Inner {
    /// Opens the files again if a write to them has failed.
    fn reopen(&self) -> Result<(), StoreError> {
        let Some(marks) = self.disk.reopen()? else { return Ok(()) };
        let applied = self.lock_applied();
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, applied) in applied.iter() {
            let on_disk = marks.get(partition).map_or(0, |mark| mark.next_offset);
            if on_disk < *applied {
                behind.insert(*partition, on_disk);
            }
        }
        Ok(())
    }

    /// One past the last event of a partition that is on disk, if less is than in memory.
    fn behind(&self, partition: u32) -> Option<u64> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }

    /// The map is whole even after a panic: it is changed by single calls only.
    fn lock_cursors(&self) -> MutexGuard<'_, HashMap<u32, Vec<Cursor<u32>>>> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The set is walked in pieces, so that its lock is never held for long, and
    /// only the smallest ids are kept.
    fn list_follows(
        &self,
        account: u32,
        side: FollowSide,
        after: Option<UserId>,
        count_max: usize,
    ) -> Vec<UserId> {
        const PIECE_LEN: usize = 65_536;
        let mut smallest = Vec::new();
        let mut last = None;
        loop {
            let piece = self.graph.after(account, side, last, PIECE_LEN);
            smallest.extend(self.accounts.users(&piece));
            smallest.retain(|user| after.is_none_or(|after| *user > after));
            if smallest.len() > count_max {
                smallest.select_nth_unstable(count_max);
                smallest.truncate(count_max);
            }
            last = piece.last().copied();
            if piece.len() < PIECE_LEN {
                break;
            }
        }
        smallest.sort_unstable();
        smallest
    }
}

impl Accounts for EmbeddedStore {
    /// Numbers: dense, and those of accounts named together lie side by side.
    type Account = u32;

    async fn accounts(&self, users: &[UserId]) -> Result<Vec<Option<u32>>, StoreError> {
        Ok(self.inner.accounts.find(users))
    }
}

impl Ledger for EmbeddedStore {
    async fn apply(
        &self,
        partition: u32,
        first_offset: u64,
        events: Arc<[Event]>,
    ) -> Result<Vec<PostId>, StoreError> {
        self.run_blocking(move |inner| inner.apply(partition, first_offset, &events)).await
    }

    /// Applying and pushing again change nothing here, so no attempt and no delivery
    /// need be remembered.
    async fn resume(&self, partition: u32, _: u64) -> Result<Resumed<u32>, StoreError> {
        self.run_blocking(Inner::reopen).await?;
        let cursors = self.inner.lock_cursors().get(&partition).cloned().unwrap_or_default();
        let pulled = self.pulled_users();
        Ok(Resumed { marks: self.marks_of(partition), cursors, pulled })
    }

    async fn shown(&self, _: u32, _: u64) -> Result<(), StoreError> {
        Ok(())
    }

    async fn delivered(
        &self,
        partition: u32,
        _: u64,
        cursors: &[Cursor<u32>],
    ) -> Result<(), StoreError> {
        self.inner.lock_cursors().insert(partition, cursors.to_vec());
        Ok(())
    }

    async fn release(&self, _: u32) -> Result<(), StoreError> {
        Ok(())
    }

    /// The worker resumes once the files must be opened again, and once they were.
    fn check(&self, partition: u32) -> Result<(), StoreError> {
        let inner = &self.inner;
        let is_behind = inner.disk.has_failed() || inner.behind(partition).is_some();
        if is_behind { Err(StoreError::Lost { partition }) } else { Ok(()) }
    }

    fn abandon(&self, _: u32) {}

    async fn sync(&self) -> Result<(), StoreError> {
        self.run_blocking(|inner| inner.disk.get()?.sync()).await
    }

    async fn followers_after(
        &self,
        author: u32,
        after: Option<u32>,
        count_max: usize,
    ) -> Result<Vec<u32>, StoreError> {
        Ok(self.inner.graph.after(author, FollowSide::Followers, after, count_max))
    }

    async fn count_followers(&self, author: u32) -> Result<u64, StoreError> {
        Ok(self.inner.graph.counts(author).followers)
    }

    async fn deleted_of(&self, author: u32) -> Result<Vec<PostId>, StoreError> {
        Ok(self.inner.posts.hidden().of(author))
    }

    async fn forget_deleted(&self, post: PostId) -> Result<(), StoreError> {
        self.inner.posts.unhide(post);
        Ok(())
    }

    async fn forget_pulled(&self, author: UserId) -> Result<(), StoreError> {
        if let Some(author) = self.account(author).await? {
            self.inner.pulled.set(author, false);
        }
        Ok(())
    }
}

impl Homes for EmbeddedStore {
    async fn push(&self, pushes: &Pushes<u32>) -> Result<PushOutcome, StoreError> {
        Ok(self.inner.homes.push(pushes))
    }

    /// Timelines are sets here.
    async fn push_again(&self, pushes: &Pushes<u32>) -> Result<PushOutcome, StoreError> {
        self.push(pushes).await
    }

    async fn awake(&self, readers: &[u32]) -> Result<Vec<u32>, StoreError> {
        Ok(self.inner.homes.awake(readers))
    }

    async fn merge(&self, reader: u32, posts: &NewestPosts) -> Result<(), StoreError> {
        self.inner.homes.merge(reader, posts);
        Ok(())
    }

    async fn purge(&self, reader: u32, posts: &NewestPosts) -> Result<(), StoreError> {
        self.inner.homes.purge(reader, posts);
        Ok(())
    }

    async fn remove(&self, readers: &[u32], post: PostId) -> Result<(), StoreError> {
        self.inner.homes.remove(readers, post);
        Ok(())
    }

    async fn page(
        &self,
        reader: u32,
        before: Option<PostId>,
        count_max: usize,
    ) -> Result<HomeRead, StoreError> {
        self.inner.homes.keep_awake(reader);
        self.look_at_page(reader, before, count_max).await
    }

    async fn look_at_page(
        &self,
        reader: u32,
        before: Option<PostId>,
        count_max: usize,
    ) -> Result<HomeRead, StoreError> {
        let hides = self.inner.hides.of(reader);
        let hidden = self.inner.posts.hidden();
        let is_hidden = |post| hidden.contains(post);
        Ok(self.inner.homes.page(reader, before, count_max, is_hidden, hides))
    }

    async fn ends(&self, readers: &[u32]) -> Result<Vec<HomeEnd>, StoreError> {
        Ok(self.inner.homes.ends(readers))
    }

    async fn some_live(&self) -> Result<Option<u32>, StoreError> {
        let accounts = self.inner.accounts.len() as u32;
        let some = (0..LOOKS_FOR_LIVE).map(|_| rand::random_range(0..accounts.max(1)));
        let mut some = some.filter(|reader| *reader < accounts);
        Ok(some.find(|reader| self.inner.homes.is_live(*reader)))
    }

    async fn begin_rebuild(&self, reader: u32) -> Result<RebuildTicket, StoreError> {
        Ok(self.inner.homes.begin_rebuild(reader))
    }

    async fn finish_rebuild(
        &self,
        reader: u32,
        ticket: RebuildTicket,
        posts: NewestPosts,
    ) -> Result<bool, StoreError> {
        Ok(self.inner.homes.finish_rebuild(reader, ticket, posts))
    }

    fn entries_max(&self) -> usize {
        self.inner.homes.entries_max()
    }
}
