//! The store: everything that is derived from the event log.
//!
//! All of it can be dropped and rebuilt from the log. It has these faces, one for
//! each of its users, and a backend shows all of them:
//!
//! | face | who uses it | what for |
//! |---|---|---|
//! | [`Ledger`] | the fan-out worker | makes events hold: posts, author timelines, the graph |
//! | [`Homes`] | the worker and the home timeline read | the materialised home timelines |
//! | [`Lookups`] | the API, and whoever pulls | posts, author timelines, the graph, as they stand |
//! | [`Inboxes`] | the API | what accounts are told of, direct messages |
//!
//! Two rules keep timelines exact while everything runs at once. A worker makes
//! an event hold in the ledger *before* it writes home timelines. A rebuild
//! announces itself ([`Homes::begin_rebuild`]) *before* it reads the ledger. So
//! whatever a rebuild misses in the ledger reaches the announced list by a push,
//! and what is taken away meanwhile, [`Homes::finish_rebuild`] leaves out.

mod ascending_ids;
mod cursor;
pub mod embedded;
mod error;
mod hides;
mod home;
mod inboxes;
mod post_memory;
mod pulled;
mod pushes;
pub mod redis;
mod referrers;

use std::{
    collections::{BTreeSet, HashSet},
    fmt::Debug,
    future::{self, Future},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

pub use self::{
    cursor::{Cursor, Work},
    error::StoreError,
    hides::{HideReason, Hides},
    home::{Floor, HomeEnd, HomePage, HomeRead, NewestPosts},
    inboxes::{Inboxes, MessageSide, NotifyReason, notified},
    pushes::{PushOutcome, Pushes},
    referrers::{REFERRERS_COUNTED_MAX, ReferrerKind, Referrers},
};
use crate::domain::{Event, Post, PostId, UserId};

/// CAP unless something else is set: how many posts a home timeline shows.
pub const HOME_TIMELINE_CAP_DEFAULT: usize = 800;

/// After so long a home timeline that nobody reads leaves memory, unless something else is set.
pub const IDLE_MAX_DEFAULT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Authors who are pulled, at the most: every read looks for those whom its reader follows.
pub const PULLED_MAX: usize = 256;

/// A backend that shows all faces.
pub trait Store: Ledger + Homes + Lookups + Inboxes + Referrers {}

impl<S: Ledger + Homes + Lookups + Inboxes + Referrers> Store for S {}

/// How a store refers to the accounts that it knows.
pub trait Accounts: Send + Sync + 'static {
    /// The store's own handle of an account: cheap to copy, and in an order, that of
    /// its number, in which timelines are cheap to write one after the other.
    type Account: Copy + Ord + Hash + Debug + Into<u64> + Send + Sync + 'static;

    /// The handles of accounts, in the same places. `None` where a store numbers
    /// its accounts and no event has named this one.
    fn accounts(
        &self,
        users: &[UserId],
    ) -> impl Future<Output = Result<Vec<Option<Self::Account>>, StoreError>> + Send;

    /// The handle of one account.
    fn account(
        &self,
        user: UserId,
    ) -> impl Future<Output = Result<Option<Self::Account>, StoreError>> + Send {
        async move { Ok(self.accounts(&[user]).await?.pop().flatten()) }
    }
}

/// Makes events hold.
pub trait Ledger: Accounts {
    /// Makes `events`, whose first one stands at `first_offset` of `partition`,
    /// hold in posts, author timelines and the graph, in their order.
    ///
    /// Returns, ascending, the posts among them that are not there: an earlier one
    /// of the same author has the same request id, or a later event, which was
    /// applied before, has deleted it. Events that this store has applied since
    /// it was opened are not applied again, so that nothing that was taken away
    /// comes back for a moment; after it is opened they are, since the end of
    /// what it held may be lost.
    ///
    /// Before anything of it holds, the store remembers how far the events go
    /// ([`Resume::attempted`]). A worker that resumes must apply the events up to
    /// there in one call. Whoever has not resumed the partition is refused where
    /// several processes share a store.
    fn apply(
        &self,
        partition: u32,
        first_offset: u64,
        events: Arc<[Event]>,
    ) -> impl Future<Output = Result<Vec<PostId>, StoreError>> + Send;

    /// Where a worker that takes over `partition` goes on, as far as the store
    /// knows. Right after it was opened, that is what outlived the process or the
    /// power before. `end` is where the log ends now: nothing from there on can have
    /// been attempted, whatever the store has lost.
    ///
    /// With it come the cursors that [`delivered`](Self::delivered) was given last, or
    /// none: where the store may have lost anything, and where the live timelines are
    /// gone, as those of a store in memory are with its process.
    fn resume(
        &self,
        partition: u32,
        end: u64,
    ) -> impl Future<Output = Result<Resumed<Self::Account>, StoreError>> + Send;

    /// Remembers for other processes that every event below `offset` holds in every
    /// read: it is applied, and what it changes at once in timelines is changed.
    fn shown(
        &self,
        partition: u32,
        offset: u64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Remembers, as cheaply as it can, that every event below `offset` has reached
    /// every timeline it must reach. A store that does not remember it lets a worker
    /// that resumes write more of it again.
    ///
    /// Beside it come the `cursors` of the fan-outs that are half done, in place of those
    /// from before. What they cover must have been written: they may hold at once.
    ///
    /// To be called now and then though nothing has changed: [`StoreError::Lost`] says
    /// that the store has lost some of what it was given, and the partition must be
    /// resumed.
    fn delivered(
        &self,
        partition: u32,
        offset: u64,
        cursors: &[Cursor<Self::Account>],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Says that whoever takes `partition` over next need not fear that this process
    /// still writes: nothing of it is under way.
    fn release(&self, partition: u32) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Whether this process may still write what `partition` asks for, as far as it
    /// knows without asking: to be called before anything is written of what was taken
    /// in hand before.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] or [`StoreError::Lost`]: the partition must be resumed.
    fn check(&self, partition: u32) -> Result<(), StoreError>;

    /// Forgets a partition that is another process's by now, and of which this one has
    /// stopped to write.
    fn abandon(&self, partition: u32);

    /// Makes everything applied so far survive a loss of power.
    fn sync(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Up to `count_max` followers of an account, ascending by handle, from the
    /// first one greater than `after` on. Fewer than asked for are the last ones.
    fn followers_after(
        &self,
        author: Self::Account,
        after: Option<Self::Account>,
        count_max: usize,
    ) -> impl Future<Output = Result<Vec<Self::Account>, StoreError>> + Send;

    /// How many followers an account has.
    fn count_followers(
        &self,
        author: Self::Account,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// An author's posts that are deleted and not yet forgotten.
    fn deleted_of(
        &self,
        author: Self::Account,
    ) -> impl Future<Output = Result<Vec<PostId>, StoreError>> + Send;

    /// Says that a deleted post has left every home timeline, so that reads need
    /// no longer look out for it. Until then, from the moment its deletion is
    /// applied, no read shows it.
    fn forget_deleted(&self, post: PostId) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Says that all posts of an author who was pulled are in the timelines of its followers,
    /// so that reads need no longer pull them.
    fn forget_pulled(&self, author: UserId) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The materialised home timelines. A reader either has a live one, which every
/// push reaches, or sleeps and has none.
pub trait Homes: Accounts {
    /// Writes ids that were never pushed to these readers into the live timelines
    /// among them. On an error any of them may have been written, or will be.
    fn push(
        &self,
        pushes: &Pushes<Self::Account>,
    ) -> impl Future<Output = Result<PushOutcome, StoreError>> + Send;

    /// As [`push`](Self::push), for ids that may have been pushed before: a timeline
    /// that holds one keeps one of it.
    fn push_again(
        &self,
        pushes: &Pushes<Self::Account>,
    ) -> impl Future<Output = Result<PushOutcome, StoreError>> + Send;

    /// Those of `readers`, which are ascending, who have a live timeline.
    fn awake(
        &self,
        readers: &[Self::Account],
    ) -> impl Future<Output = Result<Vec<Self::Account>, StoreError>> + Send;

    /// Puts an author's posts where they belong in the reader's live timeline.
    fn merge(
        &self,
        reader: Self::Account,
        posts: &NewestPosts,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Takes an author's posts out of the reader's live timeline.
    fn purge(
        &self,
        reader: Self::Account,
        posts: &NewestPosts,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Takes one post out of the live timelines among `readers`.
    fn remove(
        &self,
        readers: &[Self::Account],
        post: PostId,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Reads up to `count_max` ids older than `before` (or the newest), newest
    /// first, of the newest CAP.
    fn page(
        &self,
        reader: Self::Account,
        before: Option<PostId>,
        count_max: usize,
    ) -> impl Future<Output = Result<HomeRead, StoreError>> + Send;

    /// The same by somebody who is not the reader: it keeps no timeline alive that nobody
    /// reads.
    fn look_at_page(
        &self,
        reader: Self::Account,
        before: Option<PostId>,
        count_max: usize,
    ) -> impl Future<Output = Result<HomeRead, StoreError>> + Send {
        self.page(reader, before, count_max)
    }

    /// Where the timelines of `readers`, which are ascending, end, in the same places.
    fn ends(
        &self,
        readers: &[Self::Account],
    ) -> impl Future<Output = Result<Vec<HomeEnd>, StoreError>> + Send;

    /// Any reader who has a live timeline; none if none was come across.
    fn some_live(&self) -> impl Future<Output = Result<Option<Self::Account>, StoreError>> + Send;

    /// Announces a rebuild: from now on pushes are gathered for the reader.
    fn begin_rebuild(
        &self,
        reader: Self::Account,
    ) -> impl Future<Output = Result<RebuildTicket, StoreError>> + Send;

    /// Joins what was read from the ledger since [`Homes::begin_rebuild`] with
    /// what was pushed meanwhile, leaves out what was taken away meanwhile, and
    /// makes the timeline live. False: another rebuild has begun that is not a part
    /// of this one, or more was taken away than the store remembers; begin again.
    fn finish_rebuild(
        &self,
        reader: Self::Account,
        ticket: RebuildTicket,
        posts: NewestPosts,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// How many ids a rebuild should gather: CAP and some slack, so that a few
    /// deletions do not ask for another rebuild.
    fn entries_max(&self) -> usize;
}

/// Reads of what events have made so far.
pub trait Lookups: Accounts {
    /// Whether an event has named the account.
    fn exists(&self, account: UserId) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The posts that exist among `ids`, in the same places.
    fn posts(
        &self,
        ids: &[PostId],
    ) -> impl Future<Output = Result<Vec<Option<Arc<Post>>>, StoreError>> + Send;

    /// The moment before something is written, for [`Lookups::remember`].
    fn moment(&self) -> Moment;

    /// A hint: this post is durable in the log and perhaps not applied yet. A store
    /// may make it known already, unless it may have been deleted since `before` it
    /// was written.
    fn remember(&self, post: Post, before: Moment);

    /// The posts that the author's earlier requests made, in the same places.
    fn requests(
        &self,
        requests: &[(UserId, String)],
    ) -> impl Future<Output = Result<Vec<Option<PostId>>, StoreError>> + Send;

    /// The post that each of these requests makes, in the same places: the one that
    /// an earlier request of its name has made; or the id that the first to ask was
    /// given, which is the one offered here unless another process has asked before.
    ///
    /// So whoever repeats a request whose outcome nobody knows writes the same post.
    fn claim_requests(
        &self,
        requests: &[(UserId, String, PostId)],
    ) -> impl Future<Output = Result<Vec<ClaimedPost>, StoreError>> + Send;

    /// Up to `count_max` posts of an author older than `before` (or the newest),
    /// newest first.
    fn author_page(
        &self,
        author: UserId,
        before: Option<PostId>,
        count_max: usize,
    ) -> impl Future<Output = Result<Vec<PostId>, StoreError>> + Send;

    /// The newest posts of each author, `count_max` of them at most, which may be
    /// [`Homes::entries_max`] and no more.
    fn newest_of(
        &self,
        authors: &[Self::Account],
        count_max: usize,
    ) -> impl Future<Output = Result<Vec<NewestPosts>, StoreError>> + Send;

    /// Up to `count_max` posts of each author older than `before`, newest first, in the
    /// same places.
    fn older_of(
        &self,
        authors: &[Self::Account],
        before: PostId,
        count_max: usize,
    ) -> impl Future<Output = Result<Vec<Vec<PostId>>, StoreError>> + Send;

    /// Whether some of these posts, of which [`older_of`](Self::older_of) authors who are
    /// [pulled](Self::pulled_authors) has said some, are deleted: then the store has forgotten
    /// what it knew of such authors, and is to be asked again.
    fn are_outdated(
        &self,
        _posts: &[PostId],
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        future::ready(Ok(false))
    }

    /// Whether one account follows another.
    fn follows(
        &self,
        follower: Self::Account,
        followee: Self::Account,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The authors whose posts are to be pulled by every read: from the moment that their
    /// posts are no longer pushed until those are in all timelines again. As it was heard
    /// last, but not before the [marks](Lookups::marks) that were; to be asked before a
    /// timeline is read.
    fn pulled_authors(&self) -> Arc<[Self::Account]>;

    /// The same by their numbers.
    fn pulled_users(&self) -> Vec<UserId>;

    /// Those of `accounts` whom a reader follows.
    fn followed_among(
        &self,
        reader: Self::Account,
        accounts: &[Self::Account],
    ) -> impl Future<Output = Result<Vec<Self::Account>, StoreError>> + Send;

    /// Those of `accounts` whose posts a reader reads: whom it follows, and itself.
    fn read_among(
        &self,
        reader: Self::Account,
        accounts: &[Self::Account],
    ) -> impl Future<Output = Result<Vec<Self::Account>, StoreError>> + Send {
        async move {
            if accounts.is_empty() {
                return Ok(Vec::new());
            }
            let mut read = self.followed_among(reader, accounts).await?;
            if accounts.contains(&reader) && !read.contains(&reader) {
                read.push(reader);
            }
            Ok(read)
        }
    }

    /// Which of the posts that these repeat are there.
    fn originals_there(
        &self,
        posts: &[Option<Arc<Post>>],
    ) -> impl Future<Output = Result<HashSet<PostId>, StoreError>> + Send {
        let repeated = posts.iter().flatten().filter_map(|post| post.repeats());
        // In an order of their own: a simulation must be able to run twice in the same way.
        let originals: BTreeSet<PostId> = repeated.map(|original| original.post).collect();
        let originals: Vec<PostId> = originals.into_iter().collect();
        async move {
            if originals.is_empty() {
                return Ok(HashSet::new());
            }
            Ok(self.posts(&originals).await?.iter().flatten().map(|post| post.id).collect())
        }
    }

    /// Whom a reader hides.
    fn hides(
        &self,
        reader: Self::Account,
    ) -> impl Future<Output = Result<Arc<Hides>, StoreError>> + Send;

    /// Whom an account hides; nobody, if no event has named it.
    fn hides_of(
        &self,
        user: UserId,
    ) -> impl Future<Output = Result<Arc<Hides>, StoreError>> + Send {
        async move {
            match self.account(user).await? {
                Some(reader) => self.hides(reader).await,
                None => Ok(Arc::default()),
            }
        }
    }

    /// Up to which post a reader has read its home timeline; post 0 if it has not said.
    fn read_marker(
        &self,
        reader: Self::Account,
    ) -> impl Future<Output = Result<PostId, StoreError>> + Send;

    /// The accounts that a reader follows, ascending by handle.
    fn following(
        &self,
        reader: Self::Account,
    ) -> impl Future<Output = Result<Vec<Self::Account>, StoreError>> + Send;

    /// Up to `count_max` accounts on one side of an account's follows, ascending
    /// by id, from the first greater than `after` on.
    fn list_follows(
        &self,
        account: Self::Account,
        side: FollowSide,
        after: Option<UserId>,
        count_max: usize,
    ) -> impl Future<Output = Result<Vec<UserId>, StoreError>> + Send;

    /// How many accounts are on each side of an account's follows.
    fn count_follows(
        &self,
        account: Self::Account,
    ) -> impl Future<Output = Result<FollowCounts, StoreError>> + Send;

    /// A number that is another one whenever a part of the store was started anew, or
    /// replaced by another that may not have all that it had.
    fn incarnation(&self) -> impl Future<Output = Result<u64, StoreError>> + Send {
        async { Ok(0) }
    }

    /// The partitions of which a part of the store that was started anew or replaced may
    /// have lost something, and no worker has made it good or is about to: what their
    /// marks say may be more than what is there.
    fn unnoticed(&self) -> impl Future<Output = Result<Vec<u32>, StoreError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// How far the workers of every partition have come, without taking it over.
    fn marks(&self) -> impl Future<Output = Result<Vec<Resume>, StoreError>> + Send;

    /// The greatest id of a post or a message ever applied, or `None`.
    fn greatest_post(&self) -> impl Future<Output = Result<Option<PostId>, StoreError>> + Send;

    /// How much the store holds.
    fn size(&self) -> impl Future<Output = Result<StoreSize, StoreError>> + Send;
}

/// What a worker that takes a partition over is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resumed<A> {
    /// Where it goes on.
    pub marks: Resume,
    /// How far fan-outs have come that were half done.
    pub cursors: Vec<Cursor<A>>,
    /// Authors, of any partition, who are [pulled](Lookups::pulled_authors).
    pub pulled: Vec<UserId>,
}

/// Where a worker goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// One past the last event that holds: applying goes on here, or before.
    pub applied: u64,
    /// One past the last event that holds in every read, as a store that processes
    /// share has been told.
    pub shown: u64,
    /// One past the last event of which anything may hold or have been pushed.
    pub attempted: u64,
    /// Below it, every event has reached every timeline it must reach. `None` where
    /// only the log remembers that: such a store never goes back.
    pub delivered: Option<u64>,
    /// Another number after each loss of which the marks went back: they may be where they
    /// were before anybody looks. 0 where nothing was lost yet.
    pub history: u64,
}

impl Resume {
    /// The end of the log that the store has seen, at least.
    pub fn seen(&self) -> u64 {
        self.attempted.max(self.applied).max(self.delivered.unwrap_or_default())
    }
}

/// A moment in the life of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub(crate) u64);

/// Which rebuild of a timeline this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RebuildTicket(pub u64);

/// One side of an account's follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowSide {
    /// Those who follow it.
    Followers,
    /// Those whom it follows.
    Following,
}

/// How many follow an account, and how many it follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FollowCounts {
    /// Those who follow it.
    pub followers: u64,
    /// Those whom it follows.
    pub following: u64,
}

/// Which post a request makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimedPost {
    /// It has made this one.
    Made(PostId),
    /// It is to make this one.
    ToMake(PostId),
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Accounts that an event has named.
    pub accounts: u64,
    /// Follow edges.
    pub follows: u64,
    /// Home timelines that pushes reach.
    pub live_timelines: u64,
    /// Ids in them.
    pub timeline_entries: u64,
    /// Bytes of memory allocated for them.
    pub timeline_bytes: u64,
}
