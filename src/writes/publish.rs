//! How drafts become posts: checks, requests made before, ids, and the log.

use std::sync::Arc;

use futures::future;
use tokio::{sync::watch, time::Instant};

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
    Repeated { first: watch::Receiver<Outcome>, is_retry: bool },
    /// It makes a post, unless the store knows an earlier request of its name.
    New(Option<Request>),
    /// What has become of its post, new with this id or known, stands at this place among
    /// the posts of all drafts.
    Logged { request: Option<Request>, new: Option<PostId>, place: usize },
}

/// The first request of its name, which must be told what becomes of it.
struct Request {
    key: RequestKey,
    /// Whether it may have been made before, by way of another process.
    is_retry: bool,
    outcome: watch::Sender<Outcome>,
}

/// A request whose post is in the log.
struct Named<'a> {
    request: &'a Request,
    /// The place of its post among all of them.
    place: usize,
    /// Whether its event is appended now, so that a worker is yet to come to it.
    is_new: bool,
}

impl Named<'_> {
    /// Whether the ledger alone knows of it: what a retry that is new to the store has made
    /// before is at best in the log.
    fn asks_ledger(&self) -> bool {
        self.is_new && self.request.is_retry
    }

    /// Those that wait for no worker come first, and of them those that fail otherwise.
    fn turn(&self) -> (bool, bool) {
        (self.is_new, !self.request.is_retry)
    }
}

/// A post that is durable in the log.
struct Logged {
    post: PostId,
    /// The partition and the offset of its event, where that was appended now.
    place: Option<(u32, u64)>,
    /// Whether its request, if it has one, has certainly made no other.
    is_sure: bool,
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
        let mut logged = Vec::new();
        let told = self.find_earlier(&mut drafts, &mut fates, &mut logged).await;
        let new: Vec<Option<&Draft>> = drafts
            .iter()
            .zip(&fates)
            .map(|((_, draft), fate)| matches!(fate, Fate::New(_)).then_some(draft))
            .collect();
        let references = self.find_references(&new).await;

        let mut posts = Vec::with_capacity(drafts.len());
        for (((id, draft), fate), references) in drafts.into_iter().zip(&mut fates).zip(references)
        {
            let Fate::New(request) = fate else { continue };
            let request = request.take();
            *fate = match references {
                Ok(references) => {
                    let place = logged.len() + posts.len();
                    posts.push(draft.into_post(id, references));
                    Fate::Logged { request, new: Some(id), place }
                }
                Err(error) => {
                    self.give_up(request);
                    Fate::Done(Err(error))
                }
            };
        }
        logged.append(&mut self.append_posts(posts).await);
        self.confirm(told, &fates, &mut logged).await;
        // All of these before any wait: two batches may repeat each other.
        for fate in &fates {
            if let Fate::Logged { request: Some(request), new, place } = fate {
                self.settle(request, *new, &logged[*place]);
            }
        }
        let mut results = Vec::with_capacity(fates.len());
        for fate in fates {
            results.push(match fate {
                Fate::Done(result) => result,
                Fate::Repeated { first, is_retry } => outcome_of(first, is_retry).await,
                Fate::Logged { place, .. } => {
                    let result = std::mem::replace(&mut logged[place], Err(WriteError::Closing));
                    result.map(|logged| logged.post)
                }
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
            Claim::First(outcome) => {
                Fate::New(Some(Request { key, is_retry: draft.is_retry, outcome }))
            }
            Claim::Repeated(first) => Fate::Repeated { first, is_retry: draft.is_retry },
        }
    }

    /// Finds requests that made their posts earlier, which `logged` is given, and gives those
    /// that may have done so the ids that they had then. Returns when the store had told.
    ///
    /// Where it stays away, all have the ids that they are given now: the ledger still
    /// sees to it that a request makes one post.
    async fn find_earlier(
        &self,
        drafts: &mut [(PostId, Draft)],
        fates: &mut [Fate],
        logged: &mut Vec<Result<Logged, WriteError>>,
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
        let (claimed, told) = match answer {
            Ok(Some(Answer { said, at })) => (Ok(said), Some(at)),
            Ok(None) => {
                let offered = requests.iter().map(|(.., offered)| ClaimedPost::ToMake(*offered));
                (Ok(offered.collect()), None)
            }
            Err(error) => (Err(Arc::new(error)), None),
        };
        let requested =
            drafts.iter_mut().zip(fates).filter(|(_, fate)| fate.request_key().is_some());
        for (place, ((id, draft), fate)) in requested.enumerate() {
            let Fate::New(request) = fate else { continue };
            let error = match &claimed {
                Ok(claimed) => match claimed[place] {
                    ClaimedPost::Made(post) => {
                        let (request, place) = (request.take(), logged.len());
                        *fate = Fate::Logged { request, new: None, place };
                        logged.push(Ok(Logged { post, place: None, is_sure: false }));
                        continue;
                    }
                    ClaimedPost::ToMake(post) if draft.may_have(post) => {
                        *id = post;
                        continue;
                    }
                    ClaimedPost::ToMake(_) => {
                        let reason = "is that of a post of another kind; use another one";
                        FieldError::new("request_id", reason).into()
                    }
                },
                Err(error) => WriteError::Store(Arc::clone(error)),
            };
            self.give_up(request.take());
            *fate = Fate::Done(Err(error));
        }
        told
    }

    /// Corrects what requests have made, as the ledger says once it has come to them: those
    /// that may have made another post before, which the store did not know when it was
    /// asked, or had lost, so that it named what a later event has made.
    ///
    /// Where nobody can tell in time, a retry fails. The others stay as they are, so that
    /// publishing goes on without a store: they were most likely made once.
    async fn confirm(
        &self,
        told: Option<Instant>,
        fates: &[Fate],
        logged: &mut [Result<Logged, WriteError>],
    ) {
        let named = fates.iter().filter_map(|fate| match fate {
            Fate::Logged { request: Some(request), new, place } if logged[*place].is_ok() => {
                Some(Named { request, place: *place, is_new: new.is_some() })
            }
            _ => None,
        });
        let mut named: Vec<Named<'_>> = named.collect();
        let holds = match told {
            Some(told) if named.iter().any(|one| !one.asks_ledger()) => {
                self.memory.holds_since(told).await
            }
            _ => false,
        };
        if holds {
            for one in named.iter().filter(|one| !one.asks_ledger()) {
                if let Ok(logged) = &mut logged[one.place] {
                    logged.is_sure = true;
                }
            }
            named.retain(Named::asks_ledger);
        }
        let retries_until = Instant::now() + self.settings.confirm_wait_max;
        // A store that has not told was waited for.
        let others_until = told.map_or_else(Instant::now, |_| self.memory.patience_until());
        named.sort_by_key(Named::turn);
        for alike in named.chunk_by(|one, next| one.turn() == next.turn()) {
            let is_retry = alike.iter().any(|one| one.request.is_retry);
            let until = if is_retry { retries_until } else { others_until };
            self.correct(alike, logged, until).await;
        }
        for one in named.iter().filter(|one| one.request.is_retry) {
            let logged = &mut logged[one.place];
            if logged.as_ref().is_ok_and(|logged| !logged.is_sure) {
                *logged = Err(WriteError::Unconfirmed);
            }
        }
    }

    /// Notes what these requests have made, if it is known in time.
    async fn correct(
        &self,
        named: &[Named<'_>],
        logged: &mut [Result<Logged, WriteError>],
        until: Instant,
    ) {
        let keys: Vec<RequestKey> = named.iter().map(|one| one.request.key.clone()).collect();
        let made = patience::ask_until_sure(&self.memory, until, || async {
            let places = named.iter().filter_map(|one| logged[one.place].as_ref().ok()?.place);
            let applied =
                places.map(|(partition, offset)| self.progress.wait_applied(partition, offset + 1));
            future::join_all(applied).await;
            let made = self.store.requests(&keys).await?;
            // What it has come to it must know, unless it has lost it since.
            Ok(made.into_iter().collect::<Option<Vec<PostId>>>())
        });
        for (one, made) in named.iter().zip(made.await.unwrap_or_default()) {
            if let Ok(logged) = &mut logged[one.place] {
                (logged.post, logged.is_sure) = (made, true);
            }
        }
    }

    async fn append_posts(
        &self,
        posts: Vec<(Post, Option<String>)>,
    ) -> Vec<Result<Logged, WriteError>> {
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
                let place = place?;
                let Event::PostPublished { post, .. } = event else {
                    return Err(WriteError::Closing);
                };
                let id = post.id;
                self.store.remember(post, moment);
                Ok(Logged { post: id, place: Some(place), is_sure: false })
            })
            .collect()
    }

    /// Nothing was written of a request.
    fn give_up(&self, request: Option<Request>) {
        let Some(Request { key, outcome, .. }) = request else { return };
        self.requests.forget(&key);
        outcome.send_replace(Outcome::Nothing);
    }

    /// A request was to make this new post, or is known to have made one, with this result.
    fn settle(
        &self,
        request: &Request,
        new_post: Option<PostId>,
        result: &Result<Logged, WriteError>,
    ) {
        let key = &request.key;
        match (result, new_post) {
            (Ok(Logged { place: Some((partition, offset)), .. }), _) => {
                self.requests.made(key.clone(), *partition, *offset);
            }
            (Err(_), Some(post)) => self.requests.failed(key.clone(), post),
            _ => self.requests.forget(key),
        }
        request.outcome.send_replace(match result {
            Ok(Logged { post, is_sure: true, .. }) => Outcome::Made(*post),
            Ok(Logged { post, .. }) => Outcome::Unsure(*post),
            Err(_) => Outcome::Nothing,
        });
    }
}

/// What another request of the same name has come to. A retry is told only what is sure.
async fn outcome_of(
    mut first: watch::Receiver<Outcome>,
    is_retry: bool,
) -> Result<PostId, WriteError> {
    match first.wait_for(|outcome| *outcome != Outcome::UnderWay).await.as_deref() {
        Ok(Outcome::Made(post)) => Ok(*post),
        Ok(Outcome::Unsure(post)) if !is_retry => Ok(*post),
        Ok(Outcome::Unsure(_)) => Err(WriteError::Unconfirmed),
        _ => Err(WriteError::Repeated),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{
            Memory,
            tests::{ANN, NAME, POST, writes_of_a_store_that_knows_requests},
        },
        *,
    };

    #[tokio::test]
    async fn what_was_said_to_be_made_is_corrected_by_what_the_ledger_says_in_the_end() {
        let (dir, memory) = (tempfile::tempdir().unwrap(), Memory::of_shared_store());
        let writes = writes_of_a_store_that_knows_requests(dir.path(), memory.clone()).await;
        tokio::time::pause();
        for is_retry in [true, false] {
            // That of a later event, which the ledger named while it lacked the first.
            let said = Logged { post: PostId(9), place: None, is_sure: false };
            let mut logged = [Ok(said)];
            let outcome = watch::Sender::new(Outcome::UnderWay);
            let request = Request { key: (ANN, NAME.to_owned()), is_retry, outcome };
            let fate = Fate::Logged { request: Some(request), new: None, place: 0 };
            let told = Instant::now();
            memory.found_loss();
            let looking = memory.find_whole_again_and_again();
            writes.inner.confirm(Some(told), &[fate], &mut logged).await;
            looking.abort();
            let [Ok(logged)] = logged else { panic!("nobody could tell") };
            assert_eq!((logged.post, logged.is_sure), (POST, true));
        }
    }

    #[tokio::test]
    async fn a_retry_is_not_told_what_another_request_was_told_without_being_sure() {
        let first = watch::Sender::new(Outcome::UnderWay);
        let outcome = |is_retry| outcome_of(first.subscribe(), is_retry);
        let waiting = tokio::time::timeout(Duration::ZERO, outcome(true)).await;
        assert!(waiting.is_err(), "it is under way");
        first.send_replace(Outcome::Unsure(POST));
        assert_eq!(outcome(false).await.unwrap(), POST);
        assert!(matches!(outcome(true).await, Err(WriteError::Unconfirmed)));
        first.send_replace(Outcome::Made(POST));
        assert_eq!(outcome(true).await.unwrap(), POST);
    }
}
