//! Following one feed: a turn polls it, writes down what is new, and posts what waits.
//!
//! Turns of different feeds run at once, and none waits for another one but for a slot to
//! fetch in. A turn may be dropped anywhere: what it has done and not written down is done
//! again, to no effect.

use std::{sync::Arc, time::Duration};

use rand::{Rng, rngs::StdRng};
use tokio::{task, time::sleep};

use super::{
    RssError,
    exchange::{FetchError, quote},
    fetch::{Answer, Fetcher},
    list::Feed,
    parse::{Parsed, parse},
    publish::{PublishError, Roost},
    settings::{Settings, UnixSeconds},
    shown_url::shown_text,
    slots::{ParseError, Slots},
    state::{FeedState, OUTBOX_ENTRIES_MAX},
    state_dir::StateDir,
};
use crate::client::ClientError;

/// How long a feed may take to be read once it is here.
const PARSE_TIMEOUT: Duration = Duration::from_secs(30);
/// While Roost is away, what waits is tried again after a second, then less and less often.
const PUBLISH_AGAIN_MAX_SECONDS: u64 = 60;

/// What all feeds share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) fetcher: Fetcher,
    pub(super) roost: Roost,
    pub(super) state_dir: Arc<StateDir>,
    pub(super) unix_seconds: UnixSeconds,
    pub(super) slots: Slots,
}

/// A feed, and how far it has come.
pub(super) struct FeedTask<'a> {
    shared: &'a Shared,
    feed: Feed,
    state: FeedState,
    random: StdRng,
    /// When to try again what Roost has not taken, and how often it has not in a row.
    publish_at: u64,
    publish_errors: u32,
    pub(super) counts: Counts,
}

/// What has been done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) polls: u64,
    pub(super) failed_polls: u64,
    pub(super) posted: u64,
}

/// Why a poll has failed.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Parse(#[from] ParseError),
    #[error("what is new cannot be written down: {0}")]
    State(#[from] RssError),
}

impl<'a> FeedTask<'a> {
    pub(super) fn new(shared: &'a Shared, feed: Feed, state: FeedState, random: StdRng) -> Self {
        let counts = Counts::default();
        Self { shared, feed, state, random, publish_at: 0, publish_errors: 0, counts }
    }

    /// Entries that Roost has not taken yet.
    pub(super) fn waiting(&self) -> usize {
        self.state.outbox.len()
    }

    fn has_room(&self) -> bool {
        self.waiting() < OUTBOX_ENTRIES_MAX
    }

    /// Follows the feed until it is gone for good, and all of it is posted.
    pub(super) async fn follow(&mut self) {
        if self.state.is_gone {
            self.tell_gone();
        }
        loop {
            let now = self.now();
            let is_polled = !self.state.is_gone && self.has_room();
            let poll_wait = is_polled.then(|| self.state.wait_seconds(now, self.interval()));
            let publish_wait = (self.waiting() > 0).then(|| self.publish_at.saturating_sub(now));
            match poll_wait.into_iter().chain(publish_wait).min() {
                None => return,
                Some(0) => {
                    self.turn(poll_wait == Some(0)).await;
                }
                Some(wait) => sleep(Duration::from_secs(wait)).await,
            }
        }
    }

    /// Polls the feed once, unless it has failed lately. Whether it was read, and Roost took
    /// all that it was given.
    pub(super) async fn once(&mut self) -> bool {
        let failed_before = self.counts.failed_polls;
        let wait = self.state.wait_seconds(self.now(), self.interval());
        let is_backing_off = self.state.errors > 0 && wait > 0;
        if self.state.is_gone {
            self.tell_gone();
        } else if is_backing_off {
            let errors = self.state.errors;
            tracing::warn!(
                "{}: has failed {errors} times in a row, and is not polled for {wait} s; what was \
                 wrong was told then. To poll it now, remove its file {}, if nothing of it waits",
                self.feed,
                self.shared.state_dir.file(&self.feed).display()
            );
        }
        let is_polled = !self.state.is_gone && !is_backing_off && self.has_room();
        let are_taken = self.turn(is_polled).await;
        is_polled && self.counts.failed_polls == failed_before && are_taken
    }

    /// Polls, or not, and posts what waits. Whether Roost took all that it was given.
    async fn turn(&mut self, poll: bool) -> bool {
        if !self.has_room() {
            tracing::warn!("{}: not polled while {} entries wait", self.feed, self.waiting());
        }
        let said = if poll { self.poll().await } else { None };
        let (posted, are_taken) = self.publish().await;
        let waiting = self.waiting();
        match said {
            Some(said) => tracing::info!("{}: {said}; {posted} posted, {waiting} wait", self.feed),
            None if posted > 0 => {
                tracing::info!("{}: {posted} posted, {waiting} wait", self.feed);
            }
            None => {}
        }
        are_taken
    }

    /// Takes what is new into the outbox, and says what there was.
    async fn poll(&mut self) -> Option<String> {
        self.counts.polls += 1;
        let found = self.find().await;
        let mut next = self.state.clone();
        let said = found.map(|found| self.settle(&mut next, found));
        let kept = match said {
            Ok(said) => {
                next.succeeded(self.now(), self.interval());
                self.keep(&next).await.map(|()| said).map_err(PollError::from)
            }
            Err(error) => Err(error),
        };
        match kept {
            Ok(said) => {
                self.state = next;
                Some(said)
            }
            Err(error) => {
                self.poll_failed(&error).await;
                None
            }
        }
    }

    /// What is in the feed; `None` if that has not changed.
    async fn find(&self) -> Result<Option<(Parsed, Answer)>, PollError> {
        let _slot = self.shared.slots.to_fetch(self.state.errors > 0).await;
        let known = self.state.validators.as_ref();
        match self.shared.fetcher.fetch(&self.feed.url, known, self.now()).await? {
            None => Ok(None),
            Some(answer) => self.read(answer).await.map(Some),
        }
    }

    async fn read(&self, mut answer: Answer) -> Result<(Parsed, Answer), PollError> {
        let (feed, base) = (self.feed.url.clone(), answer.url.clone());
        let body = std::mem::take(&mut answer.body);
        let content_type = answer.content_type.take();
        let parse = move || parse(&feed, &base, content_type.as_deref(), &body);
        match self.shared.slots.parse(PARSE_TIMEOUT, parse).await {
            Ok(Ok(parsed)) => Ok((parsed, answer)),
            Ok(Err(problem)) => Err(PollError::Unreadable(quote(&problem))),
            Err(error) => Err(error.into()),
        }
    }

    /// What follows from what was found, in words too.
    fn settle(&self, next: &mut FeedState, found: Option<(Parsed, Answer)>) -> String {
        let Some((parsed, answer)) = found else { return "not changed".to_owned() };
        if let Some(to) = answer.moved_to.as_ref().filter(|to| Some(*to) != next.moved_to.as_ref())
        {
            tracing::warn!(
                "{}: has moved for good to {}; list it there, with --first 0 at its first poll; {} \
                 has the whole address",
                self.feed,
                shown_text(to),
                self.shared.state_dir.file(&self.feed).display()
            );
        }
        next.moved_to = answer.moved_to;
        let count = parsed.entries.len();
        // What is missing comes only if the feed is asked for as a whole.
        let validators = answer.validators.filter(|_| !parsed.is_cut);
        let taken = next.take(parsed.entries, validators, self.shared.settings.first_entries);
        if taken.has_begun_to_share {
            tracing::warn!(
                "{}: several entries have the same guid or link, so that each is known by what it \
                 says, and is posted again if that changes; have its author give each its own",
                self.feed
            );
        }
        if taken.left > 0 {
            tracing::warn!(
                "{}: {} new entries find no room beside {OUTBOX_ENTRIES_MAX} that wait, and are lost \
                 if they leave the feed before the next poll; see that Roost takes posts, or raise \
                 --entries-max",
                self.feed,
                taken.left
            );
        }
        let cut = if parsed.is_cut { ", and it ends too early" } else { "" };
        format!("{count} entries, {} new{cut}", taken.new)
    }

    async fn poll_failed(&mut self, error: &PollError) {
        self.counts.failed_polls += 1;
        let (retry_after_seconds, is_gone) = match error {
            PollError::Fetch(error) => {
                (error.retry_after_seconds(), matches!(error, FetchError::Gone))
            }
            _ => (None, false),
        };
        let unit = self.random.next_u32() as f64 / (u64::from(u32::MAX) + 1) as f64;
        let now = self.now();
        self.state.failed(now, self.interval(), retry_after_seconds, unit);
        self.state.is_gone |= is_gone;
        if self.state.is_gone {
            tracing::warn!("{}: {error}", self.feed);
        } else {
            let wait = self.state.wait_seconds(now, self.interval());
            tracing::warn!("{}: {error}; polled again in {wait} s", self.feed);
        }
        if let Err(error) = self.keep(&self.state).await {
            tracing::warn!("{}: {error}", self.feed);
        }
    }

    fn tell_gone(&self) {
        tracing::warn!(
            "{}: {}; or remove {} to begin anew",
            self.feed,
            FetchError::Gone,
            self.shared.state_dir.file(&self.feed).display()
        );
    }

    /// Posts what waits. How many Roost has taken, and whether it was all that it was given.
    async fn publish(&mut self) -> (usize, bool) {
        if self.waiting() == 0 {
            return (0, true);
        }
        let mut next = self.state.clone();
        let published = self.publish_until(&mut next).await;
        let posted = self.waiting() - next.outbox.len();
        self.publish_errors = if posted > 0 { 0 } else { self.publish_errors };
        let are_taken = matches!(published, Ok(0));
        let wait = match published {
            // What was refused, or too much for this turn.
            Ok(_) => self.interval(),
            Err(error) => {
                tracing::warn!("{}: {error}", self.feed);
                let doubled = 1_u64.checked_shl(self.publish_errors).unwrap_or(u64::MAX);
                self.publish_errors += 1;
                doubled.min(PUBLISH_AGAIN_MAX_SECONDS)
            }
        };
        self.publish_at = self.now().saturating_add(wait);
        if posted > 0 {
            self.counts.posted += posted as u64;
            // Whoever does not know it sends them again, to no effect.
            if let Err(error) = self.keep(&next).await {
                tracing::warn!("{}: {error}", self.feed);
            }
            self.state = next;
        }
        (posted, are_taken)
    }

    /// Posts what waits, oldest first, until Roost takes no more or has taken enough for a
    /// turn. How many it has refused.
    async fn publish_until(&self, next: &mut FeedState) -> Result<usize, PublishError> {
        let mut roost = self.shared.roost.clone();
        let text_chars_max = roost.text_chars_max().await?;
        let left = self.waiting().saturating_sub(self.shared.settings.turn_entries_max);
        let mut refused = 0;
        for entry in &self.state.outbox {
            if next.outbox.len() <= left {
                break;
            }
            match roost.publish(self.feed.author, entry, text_chars_max).await {
                Ok(()) => next.posted(entry.id),
                Err(error @ PublishError::Refused(_)) => {
                    tracing::warn!("{}: {error}", self.feed);
                    refused += 1;
                }
                Err(error @ PublishError::Away(_)) => return Err(error),
            }
        }
        Ok(refused)
    }

    async fn keep(&self, state: &FeedState) -> Result<(), RssError> {
        let (dir, feed, state) =
            (Arc::clone(&self.shared.state_dir), self.feed.clone(), state.clone());
        task::spawn_blocking(move || dir.write(&feed, &state)).await.map_err(ClientError::from)?
    }

    fn now(&self) -> u64 {
        (self.shared.unix_seconds)()
    }

    fn interval(&self) -> u64 {
        self.shared.settings.interval_seconds
    }
}
