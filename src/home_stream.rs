//! Following home timelines as they grow.
//!
//! ```text
//!  watch: every 250 ms the ends of all timelines that anybody follows ──► changed?
//!                                                                            ▼
//!  stream ──► read what is newer than what is settled ──► not sent yet? ──► sent
//!                                  │
//!             more than 800? ──► every 10 s the rest too, from the author timelines
//! ```
//!
//! Nothing is kept for a stream but its [`Position`]: it reads its timeline when that has
//! changed and its client takes more. So a slow client costs no memory, and finds all that
//! has come meanwhile, or is told from where on something is missing.

mod position;
mod watch;

use std::{ops::Range, sync::Arc, time::Duration};

use tokio::{
    sync::watch::Receiver,
    time::{Instant, timeout},
};

use self::position::{Reach, SENT_MAX};
pub use self::{position::Position, watch::Watch};
use crate::{
    domain::{PostId, UserId},
    home_timeline::{Filter, HomeTimelines, Newer, ReadError},
    store::{Homes, Lookups},
};

/// A timeline is read so often though nothing seems to have changed: whom its reader hides
/// may have. Now sooner, now later, so that those who have connected together do not read
/// together for ever.
const READ_EVERY: Duration = Duration::from_secs(10);
const READ_EVERY_FACTORS: Range<f64> = 0.5..1.5;
/// How soon an account is looked for again that no event has named.
const NAMED_AFTER: Duration = Duration::from_secs(1);
/// Posts that are read of a timeline, at the most, to find those that are new.
const READ_MAX: usize = 800;
/// Where more than that is not settled, the rest is searched so often for what has come late:
/// it is no longer held ready, and all followees are asked for it.
const SEARCH_EVERY: Duration = Duration::from_secs(10);
/// Of those that are there when a stream begins so many are named as sent; what is older counts
/// as settled.
const SENT_AT_FIRST_MAX: usize = 400;
/// Who has read its timeline so lately has found all that is settled now.
const LATELY: Duration = Duration::from_secs(30);

/// A home timeline that somebody follows.
pub struct HomeStream<S: Homes> {
    homes: Arc<HomeTimelines<S>>,
    watch: Arc<Watch<S>>,
    user: UserId,
    filter: Filter,
    position: Position,
    together_max: usize,
    /// `None` until the account has a name.
    changed: Option<Receiver<()>>,
    /// Whether there is more to send already.
    has_more: bool,
    /// When a read began that has found all that there was.
    read_at: Option<Instant>,
    /// When all that is not settled was searched last.
    searched_at: Option<Instant>,
}

/// What is new in a timeline.
#[derive(Debug)]
pub struct New {
    /// Ascending, as many as may be sent together.
    pub ids: Vec<PostId>,
    has_more: bool,
    /// What is older than this was passed over, since there is too much of it.
    missed_before: Option<PostId>,
    /// Whether all that is newer than what is settled was looked at.
    is_complete: bool,
    /// What was settled when the read began.
    settled: PostId,
    begun: Instant,
}

/// What a stream sends at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Ascending.
    pub ids: Vec<PostId>,
    /// So much has come that what is older than this is not sent.
    pub missed_before: Option<PostId>,
}

impl<S: Homes + Lookups> HomeStream<S> {
    /// Goes on where another stream was, or begins with what is new from now on. It sends so
    /// many posts together at the most.
    ///
    /// # Errors
    /// If the timeline cannot be read.
    pub async fn open(
        homes: Arc<HomeTimelines<S>>,
        watch: Arc<Watch<S>>,
        user: UserId,
        filter: Filter,
        position: Option<Position>,
        together_max: usize,
    ) -> Result<Self, ReadError> {
        let changed = watch.subscribe(user).await?;
        let settled = watch.settled();
        let is_new = position.is_none();
        let position = position.unwrap_or_else(|| Position::after(settled));
        let mut this = Self {
            homes,
            watch,
            user,
            filter,
            position,
            together_max,
            changed,
            has_more: false,
            read_at: None,
            searched_at: None,
        };
        if is_new {
            // All that is there counts as sent.
            let there = this.read(SENT_AT_FIRST_MAX).await?;
            this.position.sent(&there.ids);
            this.position.settle_below(there.complete_down_to);
        }
        Ok(this)
    }

    /// What a stream that goes on here has sent.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Waits until there may be something to send.
    ///
    /// # Errors
    /// If the account cannot be looked for.
    pub async fn changed(&mut self) -> Result<(), ReadError> {
        if self.has_more {
            return Ok(());
        }
        match &mut self.changed {
            // The sender lives as long as the watch.
            Some(changed) => {
                let factor = rand::random_range(READ_EVERY_FACTORS);
                drop(timeout(READ_EVERY.mul_f64(factor), changed.changed()).await);
            }
            None => {
                tokio::time::sleep(NAMED_AFTER).await;
                self.changed = self.watch.subscribe(self.user).await?;
            }
        }
        Ok(())
    }

    /// What is new. Nothing of it counts as sent before [`take`](Self::take).
    ///
    /// # Errors
    /// If the timeline cannot be read.
    pub async fn find_new(&self) -> Result<New, ReadError> {
        // Before it is read: what is settled by then is found.
        let (settled, begun) = (self.watch.settled(), Instant::now());
        let mut read = self.read(READ_MAX).await?;
        let mut is_complete = true;
        let mut missed_before = None;
        match self.position.reach(&read) {
            Reach::All => {}
            Reach::Sent if self.searched_at.is_none_or(|last| begun - last >= SEARCH_EVERY) => {
                is_complete = self.search_below(&mut read, SENT_MAX).await?;
            }
            Reach::Sent => is_complete = false,
            Reach::Gap => {
                let (len, down_to) = (read.ids.len(), read.complete_down_to);
                // Just as many may have come as a look shows.
                is_complete = self.search_below(&mut read, 1).await?;
                if self.position.reach(&read) == Reach::Gap {
                    read.ids.truncate(len);
                    missed_before = down_to;
                    is_complete = true;
                }
            }
        }
        let mut ids = self.position.unsent(&read.ids);
        let has_more = ids.len() > self.together_max;
        ids.truncate(self.together_max);
        Ok(New { ids, has_more, missed_before, is_complete, settled, begun })
    }

    /// The first `count` of what is new, which count as sent from now on.
    pub async fn take(&mut self, new: New, count: usize) -> Batch {
        let New { mut ids, has_more, missed_before, is_complete, settled, begun } = new;
        self.has_more = has_more || count < ids.len();
        ids.truncate(count);
        let mut batch = Batch { ids, missed_before };
        self.position.settle_below(missed_before);
        if let Some(forgotten) = self.position.sent(&batch.ids).filter(|id| *id > settled) {
            // What comes late below it cannot be told from what was sent.
            batch.missed_before = batch.missed_before.max(Some(forgotten));
        }
        if !self.has_more && is_complete && self.has_found_all(begun).await {
            self.position.settle(settled);
            self.searched_at = Some(begun);
        }
        batch
    }

    /// Reads up to `count_max` more that are older than what was read. Says whether these are
    /// all that is newer than what is settled.
    async fn search_below(&self, read: &mut Newer, count_max: usize) -> Result<bool, ReadError> {
        let (settled, sent) = (self.position.settled(), self.position.sent_count());
        let before = read.complete_down_to;
        let older =
            self.homes.newer_than(self.user, &self.filter, settled, before, sent, count_max);
        let older = older.await?;
        read.ids.extend(older.ids);
        read.complete_down_to = older.complete_down_to;
        Ok(older.complete_down_to.is_none())
    }

    /// What is newer than what the stream has settled.
    async fn read(&self, count_max: usize) -> Result<Newer, ReadError> {
        let settled = self.position.settled();
        // What was sent is there still.
        let sent = self.position.sent_count();
        self.homes.newer_than(self.user, &self.filter, settled, None, sent, count_max).await
    }

    /// Whether a read that began then, together with those before it, has found all that is
    /// settled. Where the store has just lost something and nobody knows it yet, one who comes
    /// back after a while would miss what it does not hold for a moment.
    async fn has_found_all(&mut self, begun: Instant) -> bool {
        let lately = self.read_at.is_some_and(|last| begun - last < LATELY);
        let has = lately || self.watch.holds_since(begun).await;
        if has {
            self.read_at = Some(begun);
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::Event,
        event_log::{EventLog, embedded::EmbeddedLog},
        fanout::{Progress, Settled},
        store::{Ledger, embedded::EmbeddedStore},
        writes::Memory,
    };

    const READER: UserId = UserId(1);

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_right_after_a_loss_settles_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(&dir.path().join("log"), Default::default()).unwrap();
        let store = EmbeddedStore::open(&dir.path().join("store"), Default::default()).unwrap();
        let event = Event::Followed { followee: UserId(2), followers: vec![READER] };
        store.resume(0, 0).await.unwrap();
        store.apply(0, 0, [event].into()).await.unwrap();
        let (store, settled) = (Arc::new(store), Arc::new(Settled::new(Duration::ZERO)));
        let up_to = PostId(1_000);
        settled.settle_up_to(&log, &Progress::new(log.partitions()), up_to).await.unwrap();
        let memory = Memory::of_shared_store();
        let looking = memory.find_whole_again_and_again();
        let watch = Arc::new(Watch::new(Arc::clone(&store), settled, memory.clone()));
        let homes = Arc::new(HomeTimelines::new(store));
        let position = Some(Position::after(PostId(5)));
        let open = HomeStream::open(homes, watch, READER, Filter::default(), position, 10);
        let mut stream = open.await.unwrap();
        memory.found_loss();
        let new = stream.find_new().await.unwrap();
        stream.take(new, 10).await;
        assert_eq!(stream.position().settled(), PostId(5), "some of it may not be there now");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let new = stream.find_new().await.unwrap();
        stream.take(new, 10).await;
        assert_eq!(stream.position().settled(), up_to);
        looking.abort();
    }
}
