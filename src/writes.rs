//! What the API writes: posts, deletions and follows, into the event log.
//!
//! ```text
//!  check ──► references exist? ──► request id new? ──► give out an id
//!                                                          │
//!  answer ◄── remember ◄── acknowledged by the log ◄── append, by partition
//! ```
//!
//! Nothing is written to the store from here: the worker does that when it
//! reaches the event. Once begun, a write goes on to its end even if the client
//! has gone, so that what its request id stands for is always known.

mod draft;
mod requests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future;
use tokio::{sync::watch, time::timeout};

pub use self::draft::{
    Draft, FieldError, LINK_BYTES_MAX, REQUEST_ID_BYTES_MAX, check_follow, check_post, check_user,
};
use self::requests::{Claim, Outcome, RequestKey, Requests};
use crate::{
    domain::{Event, Post, PostId, UserId},
    event_log::{EventLog, LogError, codec, partition_of},
    fanout::Progress,
    post_id::PostIds,
    store::{Lookups, StoreError},
};

/// Followers to one event of an import: small enough to be interleaved with
/// posts, large enough to be cheap.
const EVENT_FOLLOWERS_MAX: usize = 8_192;

/// How writes are done.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The longest text, in Unicode scalar values.
    pub text_chars_max: usize,
    /// How long an answer waits for the worker to apply what was written.
    pub apply_wait_max: Duration,
    /// Requests with an id that are remembered until they are applied; with more,
    /// new ones are refused.
    pub requests_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            text_chars_max: 140,
            apply_wait_max: Duration::from_secs(5),
            requests_max: 1_000_000,
        }
    }
}

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

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
    ids: PostIds,
    clock: Clock,
    requests: Requests,
    settings: Settings,
}

/// Why something was not written, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The request is wrong. Nothing was written.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A field names a post that does not exist. Nothing was written.
    #[error("{field}: there is no post {post}")]
    UnknownPost {
        /// The name of the field in the API.
        field: &'static str,
        /// What it names.
        post: PostId,
    },
    /// The workers are so far behind that this cannot be answered. Nothing was
    /// written; try again later.
    #[error("the fan-out workers are behind; try again in a moment")]
    Behind,
    /// The log did not acknowledge; it may have been written. Try again with the
    /// same request id.
    #[error(transparent)]
    Log(#[from] Arc<LogError>),
    /// The store could not be asked. Nothing was written.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    /// The posts that it refers to could not be looked up. Nothing was written.
    #[error(transparent)]
    Check(Arc<WriteError>),
    /// An earlier request with the same id failed, and this one with it. Try
    /// again.
    #[error("the request with the same request id failed; try again")]
    Repeated,
    /// The process is shutting down.
    #[error("the server is shutting down; try again on another or later")]
    Closing,
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<LogError> for WriteError {
    fn from(error: LogError) -> Self {
        Self::Log(Arc::new(error))
    }
}

impl<L: EventLog, S: Lookups> Writes<L, S> {
    /// Writes into `log`; `ids` must give out ids that neither the log nor the
    /// store holds.
    pub fn new(
        log: Arc<L>,
        store: Arc<S>,
        progress: Arc<Progress>,
        ids: PostIds,
        clock: Clock,
        settings: Settings,
    ) -> Self {
        let requests = Requests::default();
        Self { inner: Arc::new(Inner { log, store, progress, ids, clock, requests, settings }) }
    }

    /// Publishes posts, each for itself; the results are in the order of the
    /// drafts. A post is published once its event is durable.
    pub async fn publish(&self, drafts: Vec<Draft>) -> Vec<Result<PostId, WriteError>> {
        let count = drafts.len();
        let inner = Arc::clone(&self.inner);
        match tokio::spawn(async move { inner.publish(drafts).await }).await {
            Ok(results) => results,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => (0..count).map(|_| Err(WriteError::Closing)).collect(),
        }
    }

    /// Checks drafts without publishing any: the first that could not be
    /// published, by its place.
    pub async fn check(&self, drafts: &[Draft]) -> Result<(), (usize, WriteError)> {
        for (place, result) in self.inner.check(drafts).await.into_iter().enumerate() {
            result.map_err(|error| (place, error))?;
        }
        Ok(())
    }

    /// Deletes a post. True: it no longer shows in any read; false: the workers
    /// are behind, and it will when they reach it.
    pub async fn delete(&self, post: PostId) -> Result<bool, WriteError> {
        draft::check_post("post_id", post)?;
        let found = self.inner.find_posts(&[post]).await?;
        let Some(author) = found.into_iter().flatten().next().map(|post| post.author) else {
            return Err(WriteError::UnknownPost { field: "post_id", post });
        };
        self.inner.write_and_wait(Event::PostDeleted { post, author }).await
    }

    /// Makes an account follow another. The result is as that of `delete`.
    pub async fn follow(&self, follower: UserId, followee: UserId) -> Result<bool, WriteError> {
        draft::check_follow(follower, followee)?;
        let followers = vec![follower];
        self.inner.write_and_wait(Event::Followed { followee, followers }).await
    }

    /// Ends a follow. The result is as that of `delete`.
    pub async fn unfollow(&self, follower: UserId, followee: UserId) -> Result<bool, WriteError> {
        draft::check_follow(follower, followee)?;
        self.inner.write_and_wait(Event::Unfollowed { followee, follower }).await
    }

    /// Imports follows, each list being a followee with its followers. All are
    /// checked before the first is written. Returns how many edges they are.
    pub async fn import(&self, lists: Vec<(UserId, Vec<UserId>)>) -> Result<u64, WriteError> {
        let mut events = Vec::with_capacity(lists.len());
        let mut edge_count = 0;
        for (followee, followers) in lists {
            for follower in &followers {
                draft::check_follow(*follower, followee)?;
            }
            draft::check_user("followee_id", followee)?;
            edge_count += followers.len() as u64;
            for followers in followers.chunks(EVENT_FOLLOWERS_MAX) {
                events.push(Event::Followed { followee, followers: followers.to_vec() });
            }
        }
        for result in self.inner.append(&events).await {
            result?;
        }
        Ok(edge_count)
    }
}

impl<L: EventLog, S: Lookups> Inner<L, S> {
    async fn publish(&self, drafts: Vec<Draft>) -> Vec<Result<PostId, WriteError>> {
        self.requests
            .forget_applied(|partition, offset| self.progress.position(partition).applied > offset);
        let checked = self.check(&drafts).await;
        let mut ways: Vec<Way> = drafts
            .iter()
            .zip(checked)
            .map(|(draft, checked)| match checked {
                Ok(()) => self.claim(draft),
                Err(error) => Way::Done(Err(error)),
            })
            .collect();
        self.find_earlier(&mut ways).await;

        let mut posts = Vec::new();
        for (draft, way) in drafts.into_iter().zip(&ways) {
            if matches!(way, Way::New(_)) {
                posts.push(self.post(draft));
            }
        }
        let mut appended = self.append_posts(posts).await.into_iter();
        // All of these before any wait: two batches may repeat each other.
        for way in &mut ways {
            if let Way::New(request) = way {
                let result = appended.next().unwrap_or(Err(WriteError::Closing));
                self.settle(request.take(), &result);
                *way = Way::Done(result.map(|appended| appended.post));
            }
        }
        let mut results = Vec::with_capacity(ways.len());
        for way in ways {
            results.push(match way {
                Way::Done(result) => result,
                Way::Repeated(first) => outcome_of(first).await,
                Way::New(_) => Err(WriteError::Closing),
            });
        }
        results
    }

    /// What is wrong with each draft, its references included.
    async fn check(&self, drafts: &[Draft]) -> Vec<Result<(), WriteError>> {
        let mut results: Vec<Result<(), WriteError>> =
            drafts.iter().map(|draft| Ok(draft.check(self.settings.text_chars_max)?)).collect();
        let references = |draft: &Draft| {
            [("reply_to_id", draft.reply_to), ("repost_of_id", draft.repost_of)]
                .into_iter()
                .filter_map(|(field, post)| Some((field, post?)))
        };
        let posts: Vec<PostId> = drafts.iter().flat_map(references).map(|(_, post)| post).collect();
        if posts.is_empty() {
            return results;
        }
        let mut found = match self.find_posts(&posts).await {
            Ok(found) => found.into_iter(),
            Err(error) => {
                let error = Arc::new(error);
                return drafts.iter().map(|_| Err(WriteError::Check(Arc::clone(&error)))).collect();
            }
        };
        for (draft, result) in drafts.iter().zip(&mut results) {
            for (field, post) in references(draft) {
                if found.next().flatten().is_none() && result.is_ok() {
                    *result = Err(WriteError::UnknownPost { field, post });
                }
            }
        }
        results
    }

    /// The posts that exist among `ids`. One that is not found may be on its way
    /// through the log, so this waits for the worker before it says no.
    async fn find_posts(&self, ids: &[PostId]) -> Result<Vec<Option<Arc<Post>>>, WriteError> {
        let found = self.store.posts(ids).await?;
        if found.iter().all(Option::is_some) {
            return Ok(found);
        }
        let caught_up = future::join_all(
            (0..self.log.partitions())
                .map(|partition| self.progress.wait_applied(partition, self.log.end(partition))),
        );
        timeout(self.settings.apply_wait_max, caught_up).await.map_err(|_| WriteError::Behind)?;
        Ok(self.store.posts(ids).await?)
    }

    fn claim(&self, draft: &Draft) -> Way {
        let Some(request_id) = &draft.request_id else { return Way::New(None) };
        if self.requests.len() >= self.settings.requests_max {
            return Way::Done(Err(WriteError::Behind));
        }
        let key = (draft.author, request_id.clone());
        match self.requests.claim(&key) {
            Claim::First(outcome) => Way::New(Some(Request { key, outcome })),
            Claim::Repeated(outcome) => Way::Repeated(outcome),
        }
    }

    /// Ends the ways of requests that made their posts earlier.
    async fn find_earlier(&self, ways: &mut [Way]) {
        let keys: Vec<RequestKey> = ways.iter().filter_map(Way::request_key).cloned().collect();
        if keys.is_empty() {
            return;
        }
        let earlier = self.store.requests(&keys).await.map_err(Arc::new);
        let requested = ways.iter_mut().filter(|way| way.request_key().is_some());
        for (place, way) in requested.enumerate() {
            let result = match &earlier {
                Ok(made) => match made[place] {
                    Some(post) => Ok(post),
                    None => continue,
                },
                Err(error) => Err(WriteError::Store(Arc::clone(error))),
            };
            if let Way::New(Some(request)) = way {
                let outcome = result.as_ref().map_or(Outcome::Nothing, |post| Outcome::Made(*post));
                self.requests.forget(&request.key);
                request.outcome.send_replace(outcome);
            }
            *way = Way::Done(result);
        }
    }

    fn post(&self, draft: Draft) -> (Post, Option<String>) {
        let post = Post {
            id: self.ids.next((self.clock)()),
            author: draft.author,
            text: draft.text,
            origin: draft.origin,
            link: draft.link,
            reply_to: draft.reply_to,
            repost_of: draft.repost_of,
        };
        (post, draft.request_id)
    }

    async fn append_posts(
        &self,
        posts: Vec<(Post, Option<String>)>,
    ) -> Vec<Result<Appended, WriteError>> {
        let events: Vec<Event> = posts
            .into_iter()
            .map(|(post, request_id)| Event::PostPublished { post, request_id })
            .collect();
        let places = self.append(&events).await;
        events
            .into_iter()
            .zip(places)
            .map(|(event, place)| {
                let (partition, offset) = place?;
                let Event::PostPublished { post, .. } = event else {
                    return Err(WriteError::Closing);
                };
                let id = post.id;
                self.store.remember(Arc::new(post));
                Ok(Appended { post: id, partition, offset })
            })
            .collect()
    }

    fn settle(&self, request: Option<Request>, result: &Result<Appended, WriteError>) {
        let Some(Request { key, outcome }) = request else { return };
        match result {
            Ok(appended) => {
                outcome.send_replace(Outcome::Made(appended.post));
                self.requests.made(key, appended.partition, appended.offset);
            }
            Err(_) => {
                self.requests.forget(&key);
                outcome.send_replace(Outcome::Nothing);
            }
        }
    }

    async fn write_and_wait(&self, event: Event) -> Result<bool, WriteError> {
        let place = self.append(&[event]).await.pop().unwrap_or(Err(WriteError::Closing));
        let (partition, offset) = place?;
        let applied = self.progress.wait_applied(partition, offset + 1);
        Ok(timeout(self.settings.apply_wait_max, applied).await.is_ok())
    }

    /// Appends events, those of one partition together and all partitions at
    /// once. Returns the partition and offset of each.
    async fn append(&self, events: &[Event]) -> Vec<Result<(u32, u64), WriteError>> {
        let mut by_partition = BTreeMap::<u32, (Vec<usize>, Vec<Bytes>)>::new();
        for (place, event) in events.iter().enumerate() {
            let partition = partition_of(event.key(), self.log.partitions());
            let (places, payloads) = by_partition.entry(partition).or_default();
            places.push(place);
            payloads.push(codec::encode(event));
        }
        let appends = by_partition.into_iter().map(|(partition, (places, payloads))| async move {
            (partition, places, self.log.append(partition, payloads).await.map_err(Arc::new))
        });
        let mut results: Vec<Result<(u32, u64), WriteError>> =
            events.iter().map(|_| Err(WriteError::Closing)).collect();
        for (partition, places, appended) in future::join_all(appends).await {
            for (index, place) in (0_u64..).zip(places) {
                results[place] = match &appended {
                    Ok(offsets) => Ok((partition, offsets.start + index)),
                    Err(error) => Err(WriteError::Log(Arc::clone(error))),
                };
            }
        }
        results
    }
}

/// What becomes of one draft.
enum Way {
    /// It is clear already.
    Done(Result<PostId, WriteError>),
    /// It has the name of a request that is under way or done.
    Repeated(watch::Receiver<Outcome>),
    /// It makes a post, unless the store knows an earlier request of its name.
    New(Option<Request>),
}

/// The first request of its name, which must be told what becomes of it.
struct Request {
    key: RequestKey,
    outcome: watch::Sender<Outcome>,
}

/// A post that is durable in the log.
struct Appended {
    post: PostId,
    partition: u32,
    offset: u64,
}

impl Way {
    fn request_key(&self) -> Option<&RequestKey> {
        match self {
            Self::New(Some(request)) => Some(&request.key),
            _ => None,
        }
    }
}

async fn outcome_of(mut first: watch::Receiver<Outcome>) -> Result<PostId, WriteError> {
    match first.wait_for(|outcome| *outcome != Outcome::UnderWay).await.as_deref() {
        Ok(Outcome::Made(post)) => Ok(*post),
        _ => Err(WriteError::Repeated),
    }
}
