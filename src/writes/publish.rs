//! How drafts become posts: checks, requests made before, ids, and the log.

use std::sync::Arc;

use futures::future;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    Inner, WriteError,
    draft::{Draft, FieldError, References, Referring},
    patience::{self, Answer},
    requests::{Claim, Outcome, RequestKey},
};
use crate::{
    domain::{Event, Post, PostId, UserId},
    event_log::EventLog,
    store::{ClaimedPost, Lookups, StoreError},
};

/// What becomes of one draft.
enum Fate {
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

/// A request among posts that are appended.
struct Named {
    /// The place of its post.
    place: usize,
    key: RequestKey,
    /// Whether it may have been made before, by way of another process.
    is_retry: bool,
}

/// A post that is durable in the log.
struct Appended {
    post: PostId,
    partition: u32,
    offset: u64,
}

impl Fate {
    fn request_key(&self) -> Option<&RequestKey> {
        match self {
            Self::New(Some(request)) => Some(&request.key),
            _ => None,
        }
    }
}

impl<L: EventLog, S: Lookups> Inner<L, S> {
    /// Publishes drafts with the ids they have been given.
    pub(super) async fn publish(
        &self,
        mut drafts: Vec<(PostId, Draft)>,
    ) -> Vec<Result<PostId, WriteError>> {
        self.requests.forget_applied(|partition| self.progress.position(partition).applied);
        let text_chars_max = self.settings.text_chars_max;
        let mut fates: Vec<Fate> = drafts
            .iter()
            .map(|(_, draft)| match draft.check(text_chars_max) {
                Ok(()) => self.claim(draft),
                Err(error) => Fate::Done(Err(error.into())),
            })
            .collect();
        // Before the references: those of a post that was made may be gone by now.
        let told = self.find_earlier(&mut drafts, &mut fates).await;
        let new: Vec<Option<&Draft>> = drafts
            .iter()
            .zip(&fates)
            .map(|((_, draft), fate)| matches!(fate, Fate::New(_)).then_some(draft))
            .collect();
        let references = self.find_references(&new).await;

        let count_max = drafts.len();
        let (mut posts, mut ids) = (Vec::with_capacity(count_max), Vec::with_capacity(count_max));
        let mut named = Vec::new();
        for (((id, draft), fate), references) in drafts.into_iter().zip(&mut fates).zip(references)
        {
            let Fate::New(request) = fate else { continue };
            match references {
                Ok(references) => {
                    if let Some(Request { key, .. }) = request {
                        let (place, key, is_retry) = (posts.len(), key.clone(), draft.is_retry);
                        named.push(Named { place, key, is_retry });
                    }
                    posts.push(draft.into_post(id, references));
                    ids.push(id);
                }
                Err(error) => {
                    self.give_up(request.take());
                    *fate = Fate::Done(Err(error));
                }
            }
        }
        let mut appended = self.append_posts(posts).await;
        self.confirm(told, named, &mut appended).await;
        let mut appended = ids.into_iter().zip(appended);
        // All of these before any wait: two batches may repeat each other.
        for fate in &mut fates {
            if let Fate::New(request) = fate {
                let Some((post, result)) = appended.next() else { continue };
                self.settle(request.take(), post, &result);
                *fate = Fate::Done(result.map(|appended| appended.post));
            }
        }
        let mut results = Vec::with_capacity(fates.len());
        for fate in fates {
            results.push(match fate {
                Fate::Done(result) => result,
                Fate::Repeated(first) => outcome_of(first).await,
                Fate::New(_) => Err(WriteError::Closing),
            });
        }
        results
    }

    /// What is wrong with the first draft that could not be published.
    pub(super) async fn check(&self, drafts: &[Draft]) -> Result<(), (usize, WriteError)> {
        for (place, draft) in drafts.iter().enumerate() {
            draft.check(self.settings.text_chars_max).map_err(|error| (place, error.into()))?;
        }
        let repeated = self.repeated(drafts).await.map_err(|error| (0, error.into()))?;
        let new: Vec<Option<&Draft>> = drafts
            .iter()
            .zip(repeated)
            .map(|(draft, repeated)| (!repeated).then_some(draft))
            .collect();
        let mut references = self.find_references(&new).await.into_iter().enumerate();
        references.try_for_each(|(place, found)| found.map(drop).map_err(|error| (place, error)))
    }

    /// Whether each draft repeats a request that is under way or done.
    async fn repeated(&self, drafts: &[Draft]) -> Result<Vec<bool>, StoreError> {
        let mut repeated = vec![false; drafts.len()];
        let mut places = Vec::new();
        let mut keys = Vec::new();
        for (place, draft) in drafts.iter().enumerate() {
            if let Some(key) = draft.request_key() {
                repeated[place] = self.requests.contains(&key);
                places.push(place);
                keys.push(key);
            }
        }
        if !keys.is_empty() {
            let made = patience::ask(&self.memory, || self.store.requests(&keys)).await?;
            let made = made.map_or_else(|| vec![None; keys.len()], |answer| answer.said);
            for (place, made) in places.into_iter().zip(made) {
                repeated[place] |= made.is_some();
            }
        }
        Ok(repeated)
    }

    /// The posts that each of these drafts refers to, or what is wrong with that.
    async fn find_references(
        &self,
        drafts: &[Option<&Draft>],
    ) -> Vec<Result<References, WriteError>> {
        let mut results: Vec<Result<References, WriteError>> =
            drafts.iter().map(|_| Ok(References::default())).collect();
        let references: Vec<(usize, Referring, PostId)> = drafts
            .iter()
            .enumerate()
            .filter_map(|(place, draft)| Some((place, (*draft)?.references())))
            .flat_map(|(place, of_draft)| of_draft.map(move |(how, id)| (place, how, id)))
            .collect();
        if references.is_empty() {
            return results;
        }
        let ids: Vec<PostId> = references.iter().map(|(_, _, id)| *id).collect();
        let found = self.find_meant(&ids).await.map_err(Arc::new);
        for (index, (place, how, id)) in references.into_iter().enumerate() {
            let error = match &found {
                Ok(found) => match &found.posts[index] {
                    Some(post) => {
                        if let Ok(references) = &mut results[place] {
                            references.set(how, post);
                        }
                        continue;
                    }
                    None => found.missing(how.field(), id),
                },
                Err(error) => WriteError::Store(Arc::clone(error)),
            };
            results[place] = Err(error);
        }
        results
    }

    fn claim(&self, draft: &Draft) -> Fate {
        let Some(key) = draft.request_key() else { return Fate::New(None) };
        if self.requests.len() >= self.settings.requests_max {
            return Fate::Done(Err(WriteError::Behind));
        }
        match self.requests.claim(&key) {
            Claim::First(outcome) => Fate::New(Some(Request { key, outcome })),
            Claim::Repeated(outcome) => Fate::Repeated(outcome),
        }
    }

    /// Settles the fates of requests that made their posts earlier, and gives those that
    /// may have done so the ids that they had then. Returns when the store had told.
    ///
    /// Where it stays away, all have the ids that they are given now: the ledger still
    /// sees to it that a request makes one post.
    async fn find_earlier(
        &self,
        drafts: &mut [(PostId, Draft)],
        fates: &mut [Fate],
    ) -> Option<Instant> {
        let requests: Vec<(UserId, String, PostId)> = drafts
            .iter()
            .zip(&*fates)
            .filter_map(|((id, _), fate)| Some((id, fate.request_key()?)))
            .map(|(id, key)| (key.0, key.1.clone(), self.requests.post_of(key, *id)))
            .collect();
        if requests.is_empty() {
            return None;
        }
        let answer = patience::ask(&self.memory, || self.store.claim_requests(&requests)).await;
        let (mut claimed, told) = match answer {
            Ok(Some(Answer { said, at })) => (Ok(said), Some(at)),
            Ok(None) => {
                let offered = requests.iter().map(|(.., offered)| ClaimedPost::ToMake(*offered));
                (Ok(offered.collect()), None)
            }
            Err(error) => (Err(Arc::new(error)), None),
        };
        let is_sure = match (&mut claimed, told) {
            (Ok(claimed), Some(told)) => self.make_sure(&requests, claimed, told).await,
            _ => true,
        };
        let requested =
            drafts.iter_mut().zip(fates).filter(|(_, fate)| fate.request_key().is_some());
        for (place, ((id, draft), fate)) in requested.enumerate() {
            let result = match &claimed {
                Ok(claimed) => match claimed[place] {
                    ClaimedPost::Made(_) if draft.is_retry && !is_sure => {
                        Err(WriteError::Unconfirmed)
                    }
                    ClaimedPost::Made(post) => Ok(post),
                    ClaimedPost::ToMake(post) if draft.may_have(post) => {
                        *id = post;
                        continue;
                    }
                    ClaimedPost::ToMake(_) => {
                        let reason = "is that of a post of another kind; use another one";
                        Err(FieldError::new("request_id", reason).into())
                    }
                },
                Err(error) => Err(WriteError::Store(Arc::clone(error))),
            };
            if let Fate::New(Some(request)) = fate {
                let outcome = result.as_ref().map_or(Outcome::Nothing, |post| Outcome::Made(*post));
                self.requests.forget(&request.key);
                request.outcome.send_replace(outcome);
            }
            *fate = Fate::Done(result);
        }
        told
    }

    /// Corrects what requests have made before, as the store said at `told`: where it has lost
    /// what the first event of one made, it names what a later one did until the first is
    /// applied again. False: nobody can tell in time.
    async fn make_sure(
        &self,
        requests: &[(UserId, String, PostId)],
        claimed: &mut [ClaimedPost],
        told: Instant,
    ) -> bool {
        let is_made = |claimed: &ClaimedPost| matches!(claimed, ClaimedPost::Made(_));
        if !claimed.iter().any(is_made) || self.memory.holds_since(told).await {
            return true;
        }
        let keys: Vec<RequestKey> =
            requests.iter().map(|(author, name, _)| (*author, name.clone())).collect();
        let said = patience::ask_until_sure(&self.memory, || async {
            self.store.requests(&keys).await.map(Some)
        });
        let Ok(made) = timeout_at(self.memory.patience_until(), said).await else { return false };
        for (claimed, made) in claimed.iter_mut().zip(made) {
            let (ClaimedPost::Made(post) | ClaimedPost::ToMake(post)) = *claimed;
            *claimed = made.map_or(ClaimedPost::ToMake(post), ClaimedPost::Made);
        }
        true
    }

    /// Corrects what requests have made, as the ledger says once it has come to them:
    /// those that may have made another post before, which the store did not know when
    /// it was asked.
    ///
    /// Where nobody can tell in time, a retry fails. The others stay as they are, so that
    /// publishing goes on without a store: they were most likely made once.
    async fn confirm(
        &self,
        told: Option<Instant>,
        named: Vec<Named>,
        appended: &mut [Result<Appended, WriteError>],
    ) {
        let (retries, others): (Vec<Named>, Vec<Named>) =
            named.into_iter().partition(|request| request.is_retry);
        if !retries.is_empty() {
            let until = Instant::now() + self.settings.confirm_wait_max;
            if !self.correct(&retries, appended, until).await {
                retries.iter().for_each(|Named { place, .. }| {
                    if appended[*place].is_ok() {
                        appended[*place] = Err(WriteError::Unconfirmed);
                    }
                });
            }
        }
        if others.is_empty() {
            return;
        }
        let is_known = match told {
            Some(told) => self.memory.holds_since(told).await,
            None => false,
        };
        if !is_known {
            self.correct(&others, appended, self.memory.patience_until()).await;
        }
    }

    /// Whether it is known in time what these requests have made, and noted.
    async fn correct(
        &self,
        named: &[Named],
        appended: &mut [Result<Appended, WriteError>],
        until: Instant,
    ) -> bool {
        let places = || named.iter().filter_map(|one| appended[one.place].as_ref().ok());
        let keys: Vec<RequestKey> = named.iter().map(|request| request.key.clone()).collect();
        let said = patience::ask_until_sure(&self.memory, || async {
            let applied =
                places().map(|one| self.progress.wait_applied(one.partition, one.offset + 1));
            future::join_all(applied).await;
            let made = self.store.requests(&keys).await?;
            // What it has come to it must know, unless it has lost it since.
            let is_lost = |(one, made): (&Named, &Option<PostId>)| {
                made.is_none() && appended[one.place].is_ok()
            };
            Ok((!named.iter().zip(&made).any(is_lost)).then_some(made))
        });
        let Ok(made) = timeout_at(until, said).await else { return false };
        for (Named { place, .. }, made) in named.iter().zip(made) {
            if let (Ok(appended), Some(made)) = (&mut appended[*place], made) {
                appended.post = made;
            }
        }
        true
    }

    async fn append_posts(
        &self,
        posts: Vec<(Post, Option<String>)>,
    ) -> Vec<Result<Appended, WriteError>> {
        let events: Vec<Event> = posts
            .into_iter()
            .map(|(post, request_id)| Event::PostPublished { post, request_id })
            .collect();
        // From before the append on: its worker may be faster than this task.
        let moment = self.store.moment();
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
                self.store.remember(post, moment);
                Ok(Appended { post: id, partition, offset })
            })
            .collect()
    }

    /// Nothing was written of a request.
    fn give_up(&self, request: Option<Request>) {
        let Some(Request { key, outcome }) = request else { return };
        self.requests.forget(&key);
        outcome.send_replace(Outcome::Nothing);
    }

    /// A request was to make this post, with this result.
    fn settle(
        &self,
        request: Option<Request>,
        post: PostId,
        result: &Result<Appended, WriteError>,
    ) {
        let Some(Request { key, outcome }) = request else { return };
        match result {
            Ok(appended) => {
                outcome.send_replace(Outcome::Made(appended.post));
                self.requests.made(key, appended.partition, appended.offset);
            }
            Err(_) => {
                self.requests.failed(key, post);
                outcome.send_replace(Outcome::Nothing);
            }
        }
    }
}

async fn outcome_of(mut first: watch::Receiver<Outcome>) -> Result<PostId, WriteError> {
    match first.wait_for(|outcome| *outcome != Outcome::UnderWay).await.as_deref() {
        Ok(Outcome::Made(post)) => Ok(*post),
        _ => Err(WriteError::Repeated),
    }
}
