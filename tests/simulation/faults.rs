//! Where the simulation lets others go first, and where it strikes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use roost::{
    domain::{Event, Message, MessageId, Post, PostId, UserId},
    store::{
        Accounts, ClaimedPost, Cursor, FollowCounts, FollowSide, Hides, HomeEnd, HomeRead, Homes,
        Inboxes, Ledger, Lookups, MessageSide, Moment, NewestPosts, PushOutcome, Pushes,
        RebuildTicket, ReferrerKind, Referrers, Resume, Resumed, StoreError, StoreSize,
        embedded::EmbeddedStore,
    },
};
use tokio::sync::Notify;

use crate::{mutation::Mutation, run::PARTITIONS};

/// How many turns of the others one may miss.
const STALL_MAX: u64 = 60;

/// Clones are handles of the same.
#[derive(Clone)]
pub struct Faults {
    inner: Arc<Inner>,
}

struct Inner {
    mutation: Mutation,
    rng: Mutex<StdRng>,
    /// Calls until the next crash; `None` while none is due.
    countdown: Mutex<Option<u64>>,
    crashed: Notify,
    /// How many calls in a thousand fail, and are worth trying again.
    failures_permille: AtomicU64,
    /// One past the last event that survives a loss of power, by partition.
    synced: Mutex<BTreeMap<u32, u64>>,
    /// One past the last event that any worker has begun to apply, by partition.
    attempted: Mutex<BTreeMap<u32, u64>>,
    /// What was pushed to whom.
    pushed: Mutex<BTreeSet<(u32, PostId)>>,
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
    pub fn new(seed: u64, mutation: Mutation) -> Self {
        let rng = Mutex::new(StdRng::seed_from_u64(seed));
        let inner = Inner {
            mutation,
            rng,
            countdown: Mutex::new(None),
            crashed: Notify::new(),
            failures_permille: AtomicU64::new(0),
            synced: Mutex::default(),
            attempted: Mutex::default(),
            pushed: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    fn has(&self, mutation: Mutation) -> bool {
        self.inner.mutation == mutation
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

    /// A process begins: nothing is known to survive, and no timeline is there.
    pub fn forget_process(&self) {
        self.inner.synced.lock().unwrap().clear();
        self.inner.pushed.lock().unwrap().clear();
    }

    pub fn is_synced(&self, partition: u32, offset: u64) -> bool {
        self.inner.synced.lock().unwrap().get(&partition).is_some_and(|synced| offset <= *synced)
    }

    /// Events below `offset` may be applied from now on.
    fn attempt(&self, partition: u32, offset: u64) {
        let mut attempted = self.inner.attempted.lock().unwrap();
        let known = attempted.entry(partition).or_default();
        *known = offset.max(*known);
    }

    fn attempted(&self, partition: u32) -> u64 {
        self.inner.attempted.lock().unwrap().get(&partition).copied().unwrap_or(0)
    }

    /// Takes note of a push; one that says it is the first must be.
    fn pushed(&self, reader: u32, ids: &[PostId], again: bool) {
        let mut pushed = self.inner.pushed.lock().unwrap();
        for id in ids {
            let first = pushed.insert((reader, *id));
            assert!(
                first || again,
                "post {id} is pushed to {reader} a second time as if the first"
            );
        }
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
        self.faults.point().await?;
        self.faults.attempt(partition, first_offset + events.len() as u64);
        let result = self.store.apply(partition, first_offset, events).await;
        self.faults.point().await?;
        result
    }

    /// The embedded store needs no attempted mark and tells what is applied instead, since
    /// its timelines are sets. Those of a store that processes share are lists: it keeps
    /// the mark, ahead of what is applied and longer than any process. This is that mark,
    /// so that rules 1 and 2 of ARCHITECTURE.md are tried. The store's own never says more,
    /// or else something would be applied that was not attempted.
    async fn resume(&self, partition: u32, end: u64) -> Result<Resumed<u32>, StoreError> {
        self.faults.point().await?;
        let mut resumed = self.store.resume(partition, end).await?;
        let marks = &mut resumed.marks;
        let attempted = self.faults.attempted(partition);
        assert!(marks.attempted <= attempted, "{marks:?} of {partition}, attempted {attempted}");
        marks.attempted = attempted;
        if self.faults.has(Mutation::DropsTheAttemptedMark) {
            marks.attempted = 0;
        }
        if self.faults.has(Mutation::CommitsBeforeWriting) {
            marks.delivered = Some(marks.applied);
        }
        Ok(resumed)
    }

    async fn shown(&self, partition: u32, offset: u64) -> Result<(), StoreError> {
        between_points!(self, self.store.shown(partition, offset))
    }

    async fn delivered(
        &self,
        partition: u32,
        offset: u64,
        cursors: &[Cursor<u32>],
    ) -> Result<(), StoreError> {
        between_points!(self, self.store.delivered(partition, offset, cursors))
    }

    async fn release(&self, partition: u32) -> Result<(), StoreError> {
        between_points!(self, self.store.release(partition))
    }

    fn check(&self, partition: u32) -> Result<(), StoreError> {
        self.store.check(partition)
    }

    fn abandon(&self, partition: u32) {
        self.store.abandon(partition);
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

    async fn count_followers(&self, author: u32) -> Result<u64, StoreError> {
        between_points!(self, self.store.count_followers(author))
    }

    async fn deleted_of(&self, author: u32) -> Result<Vec<PostId>, StoreError> {
        between_points!(self, self.store.deleted_of(author))
    }

    async fn forget_deleted(&self, post: PostId) -> Result<(), StoreError> {
        between_points!(self, self.store.forget_deleted(post))
    }

    async fn forget_pulled(&self, author: UserId) -> Result<(), StoreError> {
        between_points!(self, self.store.forget_pulled(author))
    }
}

impl Homes for FaultyStore {
    /// A store that cannot tell whether a timeline holds an id would now hold it
    /// twice if it was pushed before.
    async fn push(&self, pushes: &Pushes<u32>) -> Result<PushOutcome, StoreError> {
        self.faults.point().await?;
        for (reader, ids) in pushes.iter() {
            self.faults.pushed(reader, ids, false);
        }
        let result = self.store.push(pushes).await;
        self.faults.point().await?;
        result
    }

    async fn push_again(&self, pushes: &Pushes<u32>) -> Result<PushOutcome, StoreError> {
        self.faults.point().await?;
        for (reader, ids) in pushes.iter() {
            self.faults.pushed(reader, ids, true);
        }
        let result = self.store.push_again(pushes).await;
        self.faults.point().await?;
        result
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
        self.faults.point().await?;
        let ticket = if self.faults.has(Mutation::AnnouncesARebuildTooLate) {
            self.store.begin_rebuild(reader).await?
        } else {
            ticket
        };
        let result = self.store.finish_rebuild(reader, ticket, posts).await;
        self.faults.point().await?;
        result
    }

    async fn ends(&self, readers: &[u32]) -> Result<Vec<HomeEnd>, StoreError> {
        between_points!(self, self.store.ends(readers))
    }

    async fn some_live(&self) -> Result<Option<u32>, StoreError> {
        between_points!(self, self.store.some_live())
    }

    fn entries_max(&self) -> usize {
        self.store.entries_max()
    }
}

impl Referrers for FaultyStore {
    async fn referrers(
        &self,
        post: PostId,
        kind: ReferrerKind,
        after: Option<PostId>,
        count_max: usize,
    ) -> Result<Vec<PostId>, StoreError> {
        between_points!(self, self.store.referrers(post, kind, after, count_max))
    }

    async fn count_referrers(
        &self,
        posts: &[PostId],
        kind: ReferrerKind,
    ) -> Result<Vec<u64>, StoreError> {
        between_points!(self, self.store.count_referrers(posts, kind))
    }
}

impl Lookups for FaultyStore {
    async fn exists(&self, account: UserId) -> Result<bool, StoreError> {
        between_points!(self, self.store.exists(account))
    }

    async fn posts(&self, ids: &[PostId]) -> Result<Vec<Option<Arc<Post>>>, StoreError> {
        between_points!(self, self.store.posts(ids))
    }

    fn moment(&self) -> Moment {
        self.store.moment()
    }

    fn remember(&self, post: Post, before: Moment) {
        self.store.remember(post, before);
    }

    async fn claim_requests(
        &self,
        requests: &[(UserId, String, PostId)],
    ) -> Result<Vec<ClaimedPost>, StoreError> {
        between_points!(self, self.store.claim_requests(requests))
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

    async fn newest_of(
        &self,
        authors: &[u32],
        count_max: usize,
    ) -> Result<Vec<NewestPosts>, StoreError> {
        between_points!(self, self.store.newest_of(authors, count_max))
    }

    async fn older_of(
        &self,
        authors: &[u32],
        before: PostId,
        count_max: usize,
    ) -> Result<Vec<Vec<PostId>>, StoreError> {
        between_points!(self, self.store.older_of(authors, before, count_max))
    }

    async fn follows(&self, follower: u32, followee: u32) -> Result<bool, StoreError> {
        between_points!(self, self.store.follows(follower, followee))
    }

    fn pulled_authors(&self) -> Arc<[u32]> {
        self.store.pulled_authors()
    }

    fn pulled_users(&self) -> Vec<UserId> {
        self.store.pulled_users()
    }

    async fn followed_among(&self, reader: u32, accounts: &[u32]) -> Result<Vec<u32>, StoreError> {
        between_points!(self, self.store.followed_among(reader, accounts))
    }

    async fn hides(&self, reader: u32) -> Result<Arc<Hides>, StoreError> {
        between_points!(self, self.store.hides(reader))
    }

    async fn read_marker(&self, reader: u32) -> Result<PostId, StoreError> {
        between_points!(self, self.store.read_marker(reader))
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

    async fn marks(&self) -> Result<Vec<Resume>, StoreError> {
        between_points!(self, self.store.marks())
    }

    async fn greatest_post(&self) -> Result<Option<PostId>, StoreError> {
        between_points!(self, self.store.greatest_post())
    }

    async fn size(&self) -> Result<StoreSize, StoreError> {
        between_points!(self, self.store.size())
    }
}

impl Inboxes for FaultyStore {
    async fn notifications(&self, account: UserId) -> Result<Vec<PostId>, StoreError> {
        between_points!(self, self.store.notifications(account))
    }

    async fn message_ids(
        &self,
        account: UserId,
        side: MessageSide,
    ) -> Result<Vec<MessageId>, StoreError> {
        between_points!(self, self.store.message_ids(account, side))
    }

    async fn messages(&self, ids: &[MessageId]) -> Result<Vec<Option<Message>>, StoreError> {
        between_points!(self, self.store.messages(ids))
    }

    async fn message_of_request(
        &self,
        sender: UserId,
        request_id: &str,
    ) -> Result<Option<MessageId>, StoreError> {
        between_points!(self, self.store.message_of_request(sender, request_id))
    }
}

/// The newest id of a post or a message that stands in a log.
pub fn greatest_in(log: &[Vec<Bytes>]) -> Option<PostId> {
    let payloads = log.iter().flatten();
    payloads
        .filter_map(|payload| match roost::event_log::codec::decode(payload) {
            Ok(Event::PostPublished { post, .. }) => Some(post.id),
            Ok(Event::MessageSent { message, .. }) => Some(PostId(message.id.0)),
            _ => None,
        })
        .max()
}
