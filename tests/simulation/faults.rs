//! Where the simulation lets others go first, and where it strikes.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use roost::{
    domain::{Event, Post, PostId, UserId},
    store::{
        Accounts, FollowCounts, FollowSide, HomeRead, Homes, Ledger, Lookups, Moment, NewestPosts,
        PushOutcome, Pushes, RebuildTicket, StoreError, StoreSize, embedded::EmbeddedStore,
    },
};
use tokio::sync::Notify;

use crate::run::PARTITIONS;

/// How many turns of the others one may miss.
const STALL_MAX: u64 = 60;

/// Clones are handles of the same.
#[derive(Clone)]
pub struct Faults {
    inner: Arc<Inner>,
}

struct Inner {
    rng: Mutex<StdRng>,
    /// Calls until the next crash; `None` while none is due.
    countdown: Mutex<Option<u64>>,
    crashed: Notify,
    /// How many calls in a thousand fail, and are worth trying again.
    failures_permille: AtomicU64,
    /// One past the last event that survives a loss of power, by partition.
    synced: Mutex<BTreeMap<u32, u64>>,
}

/// A call failed: the process was struck and nothing that it does counts any
/// more, or, after a failure that passes, it may try again.
#[derive(Debug)]
pub struct Struck;

impl From<Struck> for StoreError {
    fn from(_: Struck) -> Self {
        Self::Closed
    }
}

impl Faults {
    pub fn new(seed: u64) -> Self {
        let rng = Mutex::new(StdRng::seed_from_u64(seed));
        let inner = Inner {
            rng,
            countdown: Mutex::new(None),
            crashed: Notify::new(),
            failures_permille: AtomicU64::new(0),
            synced: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub fn pick(&self, range: Range<u64>) -> u64 {
        self.inner.rng.lock().unwrap().random_range(range)
    }

    pub fn chance(&self, percent: u64) -> bool {
        self.pick(0..100) < percent
    }

    /// Lets a crash come after so many more calls.
    pub fn crash_after(&self, calls: u64) {
        *self.inner.countdown.lock().unwrap() = Some(calls);
    }

    /// Lets so many calls in a thousand fail.
    pub fn fail(&self, permille: u64) {
        self.inner.failures_permille.store(permille, Ordering::Relaxed);
    }

    /// No crash is due any more, and no call fails.
    pub fn rest(&self) {
        *self.inner.countdown.lock().unwrap() = None;
        self.fail(0);
    }

    /// Events below these offsets survive a loss of power.
    pub fn synced(&self, offsets: impl IntoIterator<Item = (u32, u64)>) {
        let mut synced = self.inner.synced.lock().unwrap();
        for (partition, offset) in offsets {
            let known = synced.entry(partition).or_default();
            *known = offset.max(*known);
        }
    }

    /// Nothing is known to survive.
    pub fn forget_synced(&self) {
        self.inner.synced.lock().unwrap().clear();
    }

    pub fn is_synced(&self, partition: u32, offset: u64) -> bool {
        self.inner.synced.lock().unwrap().get(&partition).is_some_and(|synced| offset <= *synced)
    }

    pub async fn crashed(&self) {
        // One left over from an earlier crash may wake this too soon.
        while *self.inner.countdown.lock().unwrap() != Some(0) {
            self.inner.crashed.notified().await;
        }
    }

    /// Stands before and after every call: others may go first, some of them by
    /// far, the call may fail, and a crash may come. After a crash every call
    /// fails until the simulation starts anew.
    pub async fn point(&self) -> Result<(), Struck> {
        self.point_without_failure().await?;
        if self.pick(0..1_000) < self.inner.failures_permille.load(Ordering::Relaxed) {
            return Err(Struck);
        }
        Ok(())
    }

    /// A point where only a crash may end the call.
    pub async fn point_without_failure(&self) -> Result<(), Struck> {
        if self.chance(2) {
            for _ in 0..self.pick(0..STALL_MAX) {
                tokio::task::yield_now().await;
            }
        }
        while self.chance(40) {
            tokio::task::yield_now().await;
        }
        let mut countdown = self.inner.countdown.lock().unwrap();
        match &mut *countdown {
            None => Ok(()),
            Some(0) => {
                self.inner.crashed.notify_one();
                Err(Struck)
            }
            Some(calls) => {
                *calls -= 1;
                Ok(())
            }
        }
    }
}

/// The embedded store with a point before and after every call.
pub struct FaultyStore {
    store: EmbeddedStore,
    faults: Faults,
}

impl FaultyStore {
    pub fn new(store: EmbeddedStore, faults: Faults) -> Self {
        Self { store, faults }
    }
}

/// Awaits a call of the store between two points.
macro_rules! between_points {
    ($self:ident, $call:expr) => {{
        $self.faults.point().await?;
        let result = $call.await;
        $self.faults.point().await?;
        result
    }};
}

impl Accounts for FaultyStore {
    type Account = u32;

    async fn accounts(&self, users: &[UserId]) -> Result<Vec<Option<u32>>, StoreError> {
        between_points!(self, self.store.accounts(users))
    }
}

impl Ledger for FaultyStore {
    async fn apply(
        &self,
        partition: u32,
        first_offset: u64,
        events: Arc<[Event]>,
    ) -> Result<Vec<PostId>, StoreError> {
        between_points!(self, self.store.apply(partition, first_offset, events))
    }

    fn applied(&self, partition: u32) -> u64 {
        self.store.applied(partition)
    }

    async fn sync(&self) -> Result<(), StoreError> {
        let applied = (0..PARTITIONS).map(|partition| (partition, self.store.applied(partition)));
        let applied: Vec<_> = applied.collect();
        between_points!(self, self.store.sync())?;
        self.faults.synced(applied);
        Ok(())
    }

    async fn followers_after(
        &self,
        author: u32,
        after: Option<u32>,
        count_max: usize,
    ) -> Result<Vec<u32>, StoreError> {
        between_points!(self, self.store.followers_after(author, after, count_max))
    }

    async fn deleted_of(&self, author: u32) -> Result<Vec<PostId>, StoreError> {
        between_points!(self, self.store.deleted_of(author))
    }

    async fn forget_deleted(&self, post: PostId) -> Result<(), StoreError> {
        between_points!(self, self.store.forget_deleted(post))
    }
}

impl Homes for FaultyStore {
    async fn push(&self, pushes: &Pushes<u32>) -> Result<PushOutcome, StoreError> {
        between_points!(self, self.store.push(pushes))
    }

    async fn awake(&self, readers: &[u32]) -> Result<Vec<u32>, StoreError> {
        between_points!(self, self.store.awake(readers))
    }

    async fn merge(&self, reader: u32, posts: &NewestPosts) -> Result<(), StoreError> {
        between_points!(self, self.store.merge(reader, posts))
    }

    async fn purge(&self, reader: u32, posts: &NewestPosts) -> Result<(), StoreError> {
        between_points!(self, self.store.purge(reader, posts))
    }

    async fn remove(&self, readers: &[u32], post: PostId) -> Result<(), StoreError> {
        between_points!(self, self.store.remove(readers, post))
    }

    async fn page(
        &self,
        reader: u32,
        before: Option<PostId>,
        count_max: usize,
    ) -> Result<HomeRead, StoreError> {
        between_points!(self, self.store.page(reader, before, count_max))
    }

    async fn begin_rebuild(&self, reader: u32) -> Result<RebuildTicket, StoreError> {
        between_points!(self, self.store.begin_rebuild(reader))
    }

    async fn finish_rebuild(
        &self,
        reader: u32,
        ticket: RebuildTicket,
        posts: NewestPosts,
    ) -> Result<bool, StoreError> {
        between_points!(self, self.store.finish_rebuild(reader, ticket, posts))
    }

    fn entries_max(&self) -> usize {
        self.store.entries_max()
    }
}

impl Lookups for FaultyStore {
    async fn posts(&self, ids: &[PostId]) -> Result<Vec<Option<Arc<Post>>>, StoreError> {
        between_points!(self, self.store.posts(ids))
    }

    fn moment(&self) -> Moment {
        self.store.moment()
    }

    fn remember(&self, post: Arc<Post>, before: Moment) {
        self.store.remember(post, before);
    }

    async fn requests(
        &self,
        requests: &[(UserId, String)],
    ) -> Result<Vec<Option<PostId>>, StoreError> {
        between_points!(self, self.store.requests(requests))
    }

    async fn author_page(
        &self,
        author: UserId,
        before: Option<PostId>,
        count_max: usize,
    ) -> Result<Vec<PostId>, StoreError> {
        between_points!(self, self.store.author_page(author, before, count_max))
    }

    async fn newest_of(&self, authors: &[u32]) -> Result<Vec<NewestPosts>, StoreError> {
        between_points!(self, self.store.newest_of(authors))
    }

    async fn follows(&self, follower: u32, followee: u32) -> Result<bool, StoreError> {
        between_points!(self, self.store.follows(follower, followee))
    }

    async fn following(&self, reader: u32) -> Result<Vec<u32>, StoreError> {
        between_points!(self, self.store.following(reader))
    }

    async fn list_follows(
        &self,
        account: u32,
        side: FollowSide,
        after: Option<UserId>,
        count_max: usize,
    ) -> Result<Vec<UserId>, StoreError> {
        between_points!(self, self.store.list_follows(account, side, after, count_max))
    }

    async fn count_follows(&self, account: u32) -> Result<FollowCounts, StoreError> {
        between_points!(self, self.store.count_follows(account))
    }

    fn greatest_post(&self) -> Option<PostId> {
        self.store.greatest_post()
    }

    fn size(&self) -> StoreSize {
        self.store.size()
    }
}

/// The newest post id that stands in a log.
pub fn greatest_in(log: &[Vec<Bytes>]) -> Option<PostId> {
    let payloads = log.iter().flatten();
    payloads
        .filter_map(|payload| match roost::event_log::codec::decode(payload) {
            Ok(Event::PostPublished { post, .. }) => Some(post.id),
            _ => None,
        })
        .max()
}
