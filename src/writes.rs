//! What the API writes: posts, deletions, follows and messages, into the event log.
//!
//! ```text
//!  give out ids ──► check ──► references exist? ──► request id new?
//!                                                          │
//!  answer ◄── remember ◄── acknowledged by the log ◄── append, by partition
//! ```
//!
//! Nothing is written to the store from here: the worker does that when it
//! reaches the event. Once begun, a write goes on to its end even if the client
//! has gone, so that what its request id stands for is always known.

mod clock;
mod draft;
mod error;
mod memory;
mod messages;
mod patience;
mod publish;
mod requests;
mod settings;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use futures::future;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

pub use self::clock::{Clock, system_clock};
pub use self::draft::{
    Draft, FieldError, LINK_BYTES_MAX, MENTIONS_MAX, REQUEST_ID_BYTES_MAX, check_follow,
    check_post, check_user,
};
pub use self::error::WriteError;
pub use self::memory::Memory;
pub use self::messages::{MessageDraft, RECIPIENTS_MAX, Sent};
use self::requests::Requests;
pub use self::settings::{FOLLOWEES_MAX_DEFAULT, Settings, TEXT_CHARS_MAX_DEFAULT};
use crate::{
    domain::{Event, Post, PostId, UserId},
    event_log::{EventLog, LogError, codec, partition_of},
    fanout::Progress,
    post_id::{IdError, PostIds},
    store::{Lookups, PULLED_MAX, StoreError},
    telemetry::Held,
};

/// Followers to one event of an import: small enough to be interleaved with
/// posts, large enough to be cheap.
pub(crate) const EVENT_FOLLOWERS_MAX: usize = 8_192;

/// Bytes of events appended together: well below what a log takes at once.
const APPEND_BYTES_MAX: usize = 1 << 20;

/// How much the clocks of servers differ, in milliseconds: the id of a post that another has
/// just made may be so much ahead, and not known here yet.
const CLOCKS_DIFFER_MS: u64 = 1_000;

/// Room for a write, given back when it is dropped.
#[derive(Debug)]
pub struct Room {
    _permit: Option<OwnedSemaphorePermit>,
    _held: Held,
}

fn size_bytes(drafts: &[Draft]) -> usize {
    drafts.iter().map(Draft::size_bytes).sum()
}

/// Writes into a log. Clones are handles of the same.
pub struct Writes<L, S> {
    inner: Arc<Inner<L, S>>,
}

impl<L, S> Clone for Writes<L, S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<L, S> {
    log: Arc<L>,
    store: Arc<S>,
    progress: Arc<Progress>,
    memory: Memory,
    ids: Arc<PostIds>,
    clock: Clock,
    requests: Requests,
    /// One permit for each byte under way.
    in_flight: Arc<Semaphore>,
    /// That the log is not what it was, once that is known: nothing is written any more.
    log_lost: OnceLock<Arc<LogError>>,
    settings: Settings,
}

impl<L: EventLog, S: Lookups> Writes<L, S> {
    /// Writes into `log`; `ids` must give out ids that neither the log nor the
    /// store holds, and `memory` says whether the store has lost anything.
    pub fn new(
        log: Arc<L>,
        store: Arc<S>,
        progress: Arc<Progress>,
        memory: Memory,
        ids: Arc<PostIds>,
        clock: Clock,
        settings: Settings,
    ) -> Self {
        let requests = Requests::default();
        let in_flight = Arc::new(Semaphore::new(settings.in_flight_bytes_max as usize));
        let inner = Inner {
            log,
            store,
            progress,
            memory,
            ids,
            clock,
            requests,
            in_flight,
            log_lost: OnceLock::new(),
            settings,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Publishes posts, each for itself; the results are in the order of the
    /// drafts. A post is published once its event is durable.
    ///
    /// The ids are given out by the call itself, before anything is awaited: posts
    /// of two calls have their ids in the order of the calls.
    pub fn publish(
        &self,
        drafts: Vec<Draft>,
    ) -> impl Future<Output = Vec<Result<PostId, WriteError>>> + Send + use<L, S> {
        let inner = Arc::clone(&self.inner);
        let (bytes, count) = (size_bytes(&drafts), drafts.len());
        let numbered = inner.numbered(drafts);
        async move {
            match inner.start_write(bytes).await {
                Ok(room) => inner.publish_numbered(room, numbered, count).await,
                Err(WriteError::DiskFull { reason }) => {
                    let refused = || Err(WriteError::DiskFull { reason: reason.clone() });
                    (0..count).map(|_| refused()).collect()
                }
                Err(_) => (0..count).map(|_| Err(WriteError::Busy)).collect(),
            }
        }
    }

    /// Waits until there is room for these drafts: for who takes many in a row, and is not to
    /// hold more of them than that.
    ///
    /// # Errors
    /// [`WriteError::Busy`], if there is none in time.
    pub async fn room_for(&self, drafts: &[Draft]) -> Result<Room, WriteError> {
        self.inner.start_write(size_bytes(drafts)).await
    }

    /// As [`publish`](Self::publish), with the room that there is for the drafts.
    pub fn publish_in(
        &self,
        room: Room,
        drafts: Vec<Draft>,
    ) -> impl Future<Output = Vec<Result<PostId, WriteError>>> + Send + use<L, S> {
        let inner = Arc::clone(&self.inner);
        let count = drafts.len();
        let numbered = inner.numbered(drafts);
        async move { inner.publish_numbered(room, numbered, count).await }
    }

    /// Checks drafts without publishing any: the first that could not be
    /// published, by its place. One that repeats a request is good.
    pub async fn check(&self, drafts: &[Draft]) -> Result<(), (usize, WriteError)> {
        self.inner.check(drafts).await
    }

    /// The posts that exist among `ids`, in the same places. One that is not there may
    /// be on its way through the log, so this waits a while for the workers before it
    /// says no.
    pub async fn find(&self, ids: &[PostId]) -> Result<Vec<Option<Arc<Post>>>, StoreError> {
        Ok(self.inner.find_posts(ids).await?.posts)
    }

    /// Deletes a post. True: it no longer shows in any read; false: the workers
    /// are behind, and it will when they reach it.
    pub async fn delete(&self, post: PostId) -> Result<bool, WriteError> {
        draft::check_post("post_id", post)?;
        let found = self.inner.find_posts(&[post]).await?;
        let Some(author) = found.posts.iter().flatten().next().map(|post| post.author) else {
            return Err(found.missing("post_id", post));
        };
        self.inner.write_and_wait(Event::PostDeleted { post, author }).await
    }

    /// Makes an account follow another. The result is as that of `delete`.
    pub async fn follow(&self, follower: UserId, followee: UserId) -> Result<bool, WriteError> {
        draft::check_follow(follower, followee)?;
        self.inner.check_followees(follower, followee).await?;
        let followers = vec![follower];
        self.inner.write_and_wait(Event::Followed { followee, followers }).await
    }

    /// Has an author's posts pulled by reads from now on, or pushed again. The result is as
    /// that of `delete`.
    pub async fn set_delivery(&self, author: UserId, pulled: bool) -> Result<bool, WriteError> {
        draft::check_user("author_id", author)?;
        if let Some(reason) = self.inner.why_not_pull(author, pulled).await? {
            return Err(FieldError::new("delivery", reason).into());
        }
        self.inner.write_and_wait(Event::PullChanged { author, pulled }).await
    }

    /// Ends a follow. The result is as that of `delete`.
    pub async fn unfollow(&self, follower: UserId, followee: UserId) -> Result<bool, WriteError> {
        draft::check_user("follower_id", follower)?;
        draft::check_user("followee_id", followee)?;
        self.inner.write_and_wait(Event::Unfollowed { followee, follower }).await
    }

    /// Makes an account mute another, or no longer. The result is as that of `delete`.
    pub async fn mute(
        &self,
        muter: UserId,
        muted: UserId,
        mutes: bool,
    ) -> Result<bool, WriteError> {
        draft::check_pair(("muter_id", muter), ("muted_id", muted))?;
        self.inner.write_and_wait(Event::MuteChanged { muter, muted, mutes }).await
    }

    /// Makes an account block another, or no longer. The result is as that of `delete`.
    pub async fn block(
        &self,
        blocker: UserId,
        blocked: UserId,
        blocks: bool,
    ) -> Result<bool, WriteError> {
        draft::check_pair(("blocker_id", blocker), ("blocked_id", blocked))?;
        self.inner.write_and_wait(Event::BlockChanged { blocker, blocked, blocks }).await
    }

    /// Notes up to which post a reader has read its home timeline. The result is as that of
    /// `delete`.
    pub async fn move_read_marker(&self, reader: UserId, post: PostId) -> Result<bool, WriteError> {
        draft::check_user("user_id", reader)?;
        draft::check_post("post_id", post)?;
        if self.is_of_the_future(post).await? {
            let reason = "is of the future; mark a post that was read";
            return Err(FieldError::new("post_id", reason).into());
        }
        self.inner.write_and_wait(Event::ReadMarkerMoved { reader, post }).await
    }

    /// Whether nobody can have seen a post with this id yet: it is newer than this moment, and
    /// than every post that there is.
    pub async fn is_of_the_future(&self, post: PostId) -> Result<bool, StoreError> {
        let Inner { clock, store, ids, .. } = &*self.inner;
        // Ids may be ahead of the clock.
        let is_given_out = post <= ids.newest();
        if is_given_out || post < PostId::first_of(clock.unix_ms().saturating_add(CLOCKS_DIFFER_MS))
        {
            return Ok(false);
        }
        Ok(store.greatest_post().await?.is_none_or(|greatest| post > greatest))
    }

    /// Imports follows, each list being a followee with its followers, which
    /// [`check_follow`] must have found good. Returns how many edges they are. How many
    /// accounts one may follow does not count here: the graph is another's.
    pub async fn import(&self, lists: Vec<(UserId, Vec<UserId>)>) -> Result<u64, WriteError> {
        let edge_count: usize = lists.iter().map(|(_, followers)| followers.len()).sum();
        let _permit = self.inner.start_write(edge_count * size_of::<UserId>()).await?;
        let mut events = Vec::with_capacity(lists.len());
        for (followee, followers) in lists {
            for followers in followers.chunks(EVENT_FOLLOWERS_MAX) {
                events.push(Event::Followed { followee, followers: followers.to_vec() });
            }
        }
        for result in self.inner.append(&events).await {
            result?;
        }
        Ok(edge_count as u64)
    }
}

impl<L: EventLog, S: Lookups> Inner<L, S> {
    /// Waits until there is room for a write of about so many bytes.
    ///
    /// # Errors
    /// [`WriteError::Busy`], if there is none in time, and [`WriteError::DiskFull`].
    async fn start_write(&self, bytes: usize) -> Result<Room, WriteError> {
        self.check_disk()?;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permits = bytes.clamp(1, self.settings.in_flight_bytes_max);
        let permit = Arc::clone(&self.in_flight).acquire_many_owned(permits);
        let permit = timeout(self.settings.in_flight_wait_max, permit).await;
        // It is never closed; without a permit the write would only go uncounted.
        let permit = permit.map_err(|_| WriteError::Busy)?.ok();
        let held = Held::new(&self.settings.metrics.writes_in_flight_bytes, permits as usize);
        Ok(Room { _permit: permit, _held: held })
    }

    fn check_disk(&self) -> Result<(), WriteError> {
        let refusal = self.settings.disk_reserve.refusal();
        refusal.map_or(Ok(()), |reason| Err(WriteError::DiskFull { reason }))
    }

    /// Drafts with the ids that they are given now.
    fn numbered(&self, drafts: Vec<Draft>) -> Result<Vec<(PostId, Draft)>, IdError> {
        let ids =
            self.ids.several(self.clock.unix_ms(), drafts.iter().map(Draft::is_plain_repost))?;
        Ok(ids.into_iter().zip(drafts).collect())
    }

    /// Publishes `count` drafts that have their ids, to the end even if the caller has gone.
    async fn publish_numbered(
        self: Arc<Self>,
        room: Room,
        drafts: Result<Vec<(PostId, Draft)>, IdError>,
        count: usize,
    ) -> Vec<Result<PostId, WriteError>> {
        let drafts = match drafts {
            Ok(drafts) => drafts,
            Err(error) => return (0..count).map(|_| Err(error.clone().into())).collect(),
        };
        let task = tokio::spawn(async move {
            let _room = room;
            self.publish(drafts).await
        });
        match task.await {
            Ok(results) => results,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => (0..count).map(|_| Err(WriteError::Closing)).collect(),
        }
    }

    /// The posts that exist among `ids`. One that is not found may be on its way
    /// through the log, so this waits for the worker before it says no.
    async fn find_posts(&self, ids: &[PostId]) -> Result<Found, StoreError> {
        let posts = self.store.posts(ids).await?;
        if posts.iter().all(Option::is_some) {
            return Ok(Found { posts, caught_up: true });
        }
        let (posts, caught_up) = self.look_again(self.store.posts(ids)).await?;
        Ok(Found { posts, caught_up })
    }

    /// As [`find_posts`](Self::find_posts), for posts that are referred to. A plain repost has
    /// nothing of its own to refer to: what it repeats is meant.
    async fn find_meant(&self, ids: &[PostId]) -> Result<Found, StoreError> {
        let mut found = self.find_posts(ids).await?;
        let repeated = |(place, post): (usize, &Option<Arc<Post>>)| {
            Some((place, post.as_ref()?.repeats()?.post))
        };
        let (places, originals): (Vec<usize>, Vec<PostId>) =
            found.posts.iter().enumerate().filter_map(repeated).unzip();
        if !originals.is_empty() {
            let originals = self.find_posts(&originals).await?;
            found.caught_up &= originals.caught_up;
            for (place, original) in places.into_iter().zip(originals.posts) {
                found.posts[place] = original;
            }
        }
        Ok(found)
    }

    /// Looks for what was not found once more, when all that is in the log is applied. Says
    /// whether what is still not found is nowhere: it may be, where the workers are behind, or
    /// where the store has lost something, though nobody knew of that yet.
    async fn look_again<T>(
        &self,
        look: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<(T, bool), StoreError> {
        let wait_max = self.settings.apply_wait_max;
        let whole = timeout(wait_max, self.memory.wait_whole(Instant::now())).await;
        let caught_up = self.catch_up().await;
        let said = look.await?;
        let Ok(lost) = whole else { return Ok((said, false)) };
        let holds = timeout(wait_max, self.memory.is_as_whole(lost, Instant::now())).await;
        Ok((said, caught_up && holds.unwrap_or(false)))
    }

    /// Refuses a follow by who follows as many as it may; those that come at the same moment
    /// may go beyond that.
    async fn check_followees(&self, follower: UserId, followee: UserId) -> Result<(), WriteError> {
        let accounts = self.store.accounts(&[follower, followee]).await?;
        let [Some(reader), author] = accounts[..] else { return Ok(()) };
        let (followees, followees_max) =
            (self.store.count_follows(reader).await?.following, self.settings.followees_max);
        if followees < followees_max {
            return Ok(());
        }
        match author {
            Some(author) if self.store.follows(reader, author).await? => Ok(()),
            _ => Err(WriteError::FollowsTooMany { follower, followees, followees_max }),
        }
    }

    /// Why an author cannot be pulled, or be pushed again.
    async fn why_not_pull(
        &self,
        author: UserId,
        pulled: bool,
    ) -> Result<Option<String>, StoreError> {
        if pulled {
            return Ok((self.store.pulled_authors().len() >= PULLED_MAX).then(|| {
                format!(
                    "{PULLED_MAX} authors are pulled already, for whom every read looks; have \
                     one of them pushed first"
                )
            }));
        }
        let rule = self.settings.pull_rule;
        let (Some(above), Some(account)) = (rule.above, self.store.account(author).await?) else {
            return Ok(None);
        };
        let followers = self.store.count_follows(account).await?.followers;
        Ok(rule.pulls(followers).then(|| {
            format!(
                "account {author} has {followers} followers, and whoever posts to more than \
                 {above} is pulled; to have it pushed, set pull_above of the servers to more"
            )
        }))
    }

    /// Waits until all that is in the log is applied. False: the workers are behind.
    async fn catch_up(&self) -> bool {
        let applied = async {
            self.progress.wait_all_applied(&self.log.ends().await?).await;
            Ok::<_, LogError>(())
        };
        matches!(timeout(self.settings.apply_wait_max, applied).await, Ok(Ok(_)))
    }

    async fn write_and_wait(&self, event: Event) -> Result<bool, WriteError> {
        self.check_disk()?;
        let place = self.append(&[event]).await.pop().unwrap_or(Err(WriteError::Closing));
        let (partition, offset) = place?;
        let applied = self.progress.wait_applied(partition, offset + 1);
        Ok(timeout(self.settings.apply_wait_max, applied).await.is_ok())
    }

    /// Appends events of one partition, behind all that was applied of it before. A log
    /// that says otherwise is not the one that it was: no worker would come to them.
    async fn append_group(
        &self,
        partition: u32,
        payloads: Vec<Bytes>,
    ) -> Result<Vec<u64>, Arc<LogError>> {
        if let Some(error) = self.log_lost.get() {
            return Err(Arc::clone(error));
        }
        let applied = self.progress.position(partition).applied;
        let append = self.log.append(partition, payloads);
        let offsets = self.settings.metrics.append(append).await.map_err(Arc::new)?;
        match offsets.first() {
            Some(offset) if *offset < applied => {
                let reason = format!(
                    "what is written now comes to offset {offset}: the log has lost its end, or \
                     was dropped and made anew, and this process writes no more"
                );
                let error = LogError::Incomplete { partition, offset: applied - 1, reason };
                tracing::error!(%error, "nothing is acknowledged any more");
                Err(Arc::clone(self.log_lost.get_or_init(|| Arc::new(error))))
            }
            _ => Ok(offsets),
        }
    }

    /// Appends events, those of one partition together and all partitions at
    /// once. Returns the partition and offset of each.
    async fn append(&self, events: &[Event]) -> Vec<Result<(u32, u64), WriteError>> {
        let mut by_partition = BTreeMap::<u32, Vec<Group>>::new();
        for (place, event) in events.iter().enumerate() {
            let payload = codec::encode(event);
            let partition = partition_of(event.key(), self.log.partitions());
            let groups = by_partition.entry(partition).or_default();
            match groups.last_mut() {
                Some(group) if group.bytes + payload.len() <= APPEND_BYTES_MAX => {
                    group.push(place, payload);
                }
                _ => {
                    let mut group = Group::default();
                    group.push(place, payload);
                    groups.push(group);
                }
            }
        }
        let groups = by_partition.into_iter().flat_map(|(partition, groups)| {
            groups.into_iter().map(move |group| (partition, group))
        });
        let appends = groups.map(|(partition, Group { places, payloads, .. })| async move {
            (partition, places, self.append_group(partition, payloads).await)
        });
        let mut results: Vec<Result<(u32, u64), WriteError>> =
            events.iter().map(|_| Err(WriteError::Closing)).collect();
        for (partition, places, appended) in future::join_all(appends).await {
            match appended {
                Ok(offsets) => {
                    for (place, offset) in places.into_iter().zip(offsets) {
                        results[place] = Ok((partition, offset));
                    }
                }
                Err(error) => {
                    for place in places {
                        results[place] = Err(WriteError::Log(Arc::clone(&error)));
                    }
                }
            }
        }
        results
    }
}

/// Posts that were looked up.
struct Found {
    /// In the places of the ids.
    posts: Vec<Option<Arc<Post>>>,
    /// Whether everything acknowledged before was applied, so that what is not
    /// here is not anywhere.
    caught_up: bool,
}

impl Found {
    fn missing(&self, field: &'static str, post: PostId) -> WriteError {
        if self.caught_up { WriteError::UnknownPost { field, post } } else { WriteError::Behind }
    }
}

/// Events of one partition that are appended together.
#[derive(Default)]
struct Group {
    /// Their places among all events.
    places: Vec<usize>,
    payloads: Vec<Bytes>,
    bytes: usize,
}

impl Group {
    fn push(&mut self, place: usize, payload: Bytes) {
        self.places.push(place);
        self.bytes += payload.len();
        self.payloads.push(payload);
    }
}
