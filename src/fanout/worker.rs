//! The worker of one partition: reads a batch, applies it, delivers a round, commits.

mod follows;
mod jobs;
pub(super) mod round;
mod switch;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{
    round::{Writing, first_done},
    switch::Switch,
};
use super::{
    FanoutError, Position, Progress, Settings, check_end,
    half_done::HalfDone,
    plan::{self, Effects},
    queue::FanoutQueue,
    sweep::{Sweep, UnderWay},
};
use crate::{
    domain::{Event, PostId, UserId},
    event_log::{EventLog, LogError, Record, codec},
    store::{NewestPosts, Resumed, Store},
    telemetry::FanoutMetrics,
};

/// The worker of one partition.
pub(super) struct Worker<L, S: Store> {
    log: Arc<L>,
    store: Arc<S>,
    progress: Arc<Progress>,
    metrics: Arc<FanoutMetrics>,
    sweep: Arc<Sweep<S::Account>>,
    partition: u32,
    settings: Settings,
    /// The next event to read. All before it are applied.
    pub(super) next_offset: u64,
    /// What comes before it may have been applied and pushed, by whoever had the
    /// partition before.
    attempted: u64,
    /// What comes before it this worker has given the store to apply, perhaps in a batch
    /// that failed.
    given: u64,
    queue: FanoutQueue<S::Account>,
    /// The rounds that are being written while the next one is prepared.
    writing: VecDeque<Writing<S::Account>>,
    /// Of the last one, until it is.
    under_way: Option<UnderWay>,
    /// How many fan-outs began in the last round that began some, and how many
    /// deliveries that came to.
    last_round: (usize, usize),
    /// Whose posts are not pushed, as of the next event.
    pulled: HashSet<UserId>,
    /// Authors who were pulled and no longer are, with the offset of the event that said so,
    /// until all that they have posted has reached everybody.
    returning: Vec<(UserId, u64)>,
    /// Authors whom it has had pulled or pushed, until it reads so in the log.
    switching: HashSet<UserId>,
    /// Those for whom the log did not take it.
    unswitched: Vec<Switch>,
    /// Those who go on being pushed since enough others are pulled: it was said.
    unpulled: HashSet<UserId>,
    /// Until all that may have been attempted is applied.
    half_done: HalfDone<S::Account>,
    /// What the store was told last of what holds in reads.
    shown: u64,
    /// What it was told last of what is delivered.
    delivered: u64,
    told_at: Instant,
    /// Deliveries since then of fan-outs that are not done by them.
    untold_deliveries: usize,
    /// What the log was told last.
    committed: u64,
    committed_at: Instant,
}

impl<L: EventLog, S: Store> Worker<L, S> {
    /// A worker that goes on where the log and the store remember.
    pub(super) async fn resume(
        log: Arc<L>,
        store: Arc<S>,
        progress: Arc<Progress>,
        metrics: Arc<FanoutMetrics>,
        sweep: Arc<Sweep<S::Account>>,
        partition: u32,
        settings: Settings,
    ) -> Result<Self, FanoutError> {
        let end = log.end(partition).await?;
        let Resumed { marks: resume, cursors, pulled } = store.resume(partition, end).await?;
        if resume.seen() > end {
            // Whoever had the partition may have gone on since.
            check_end(partition, &resume, log.end_reaching(partition, resume.seen()).await?)?;
        }
        // The store may have gone back since the log was told.
        let delivered = match resume.delivered {
            Some(delivered) => delivered,
            None => log.committed(partition).await?,
        };
        let committed = delivered.min(resume.applied);
        progress.publish(partition, Position { applied: committed, delivered: committed });
        Ok(Self {
            log,
            store,
            progress,
            metrics,
            sweep,
            partition,
            settings,
            next_offset: committed,
            attempted: resume.attempted,
            given: committed,
            queue: FanoutQueue::default(),
            writing: VecDeque::new(),
            under_way: None,
            last_round: (1, settings.slice_deliveries_max),
            // Some may have been pulled by an event that is yet to be read again. That is no
            // harm: until they return, reads pull all that is not pushed.
            pulled: pulled.into_iter().collect(),
            returning: Vec::new(),
            switching: HashSet::new(),
            unswitched: Vec::new(),
            unpulled: HashSet::new(),
            half_done: HalfDone::new(cursors),
            shown: resume.shown,
            delivered: committed,
            told_at: Instant::now(),
            untold_deliveries: 0,
            committed,
            committed_at: Instant::now(),
        })
    }

    /// Works until it is told to stop, then commits what is delivered. A step
    /// that fails is tried again, unless that cannot help.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), FanoutError> {
        let mut has_failed = false;
        while !stop.is_cancelled() {
            let done = match self.step().await {
                Ok(Step::Worked) => {
                    tokio::task::yield_now().await;
                    Ok(())
                }
                Ok(Step::Idle) => self.wait_for_events(&stop).await,
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => {}
                // What is in hand here is no longer what is to be done.
                Err(error) if error.must_resume() => return Err(error),
                Err(error) => {
                    has_failed = true;
                    self.metrics.failed(&error);
                    let place = (self.partition, Some(self.next_offset));
                    wait_to_retry(error, place, self.settings.retry_delay, &stop).await?;
                }
            }
        }
        match self.end(has_failed).await {
            Err(error) if !error.is_final() => {
                tracing::warn!(
                    partition = self.partition,
                    offset = self.committed,
                    %error,
                    "what was delivered last is not committed, and will be delivered again"
                );
                Ok(())
            }
            result => result,
        }
    }

    /// Waits for what is being written, commits what is delivered, and lets the partition
    /// go. Where something has failed, what was written then may still be under way, so that
    /// whoever takes the partition over must see to it that it comes to an end.
    async fn end(&mut self, has_failed: bool) -> Result<(), FanoutError> {
        let written = self.end_rounds().await;
        self.publish_progress();
        self.commit().await?;
        if has_failed || written.is_err() {
            self.store.abandon(self.partition);
            return written;
        }
        if self.untold_deliveries > 0 {
            self.tell().await?;
        }
        Ok(self.store.release(self.partition).await?)
    }

    /// Reads and applies a batch, if there is one and room for it, and has a round
    /// written. After an error it can be called again; nothing is lost by it.
    async fn step(&mut self) -> Result<Step, FanoutError> {
        self.end_rounds_until_under_way().await?;
        self.store.check(self.partition)?;
        let mut worked = false;
        while self.has_room() {
            let applied = self.apply_batch().await?;
            worked |= applied != Applied::Nothing;
            if self.next_offset > self.shown {
                self.store.shown(self.partition, self.next_offset).await?;
                self.shown = self.next_offset;
            }
            if applied != Applied::ToTheBrim {
                break;
            }
        }
        worked |= self.deliver_round().await?;
        self.publish_progress();
        if self.delivered_offset() > self.delivered
            || self.untold_deliveries >= self.settings.round_deliveries_max
            || self.told_at.elapsed() >= self.settings.commit_interval
        {
            self.tell().await?;
        }
        if self.committed_at.elapsed() >= self.settings.commit_interval {
            self.commit().await?;
        }
        Ok(if worked { Step::Worked } else { Step::Idle })
    }

    /// Makes what is delivered survive, and tells the log.
    async fn commit(&mut self) -> Result<(), FanoutError> {
        let delivered = self.delivered_offset();
        if delivered > self.committed {
            self.forget_returned(delivered).await?;
            self.store.sync().await?;
            self.log.commit(self.partition, delivered).await?;
            self.committed = delivered;
        }
        self.committed_at = Instant::now();
        Ok(())
    }

    /// Tells the store what is delivered, and how far those fan-outs have come that are
    /// half done: only now, when all that they have reached is written.
    async fn tell(&mut self) -> Result<(), FanoutError> {
        let delivered = self.delivered_offset();
        self.forget_returned(delivered).await?;
        let in_queue;
        let cursors = if self.next_offset < self.attempted {
            // Those whose events are yet to be read again must not be forgotten, and those
            // that have come farther since are true as they were.
            self.half_done.cursors()
        } else {
            let in_hand = self.writing.iter().flat_map(Writing::jobs);
            in_queue = self.queue.cursors(in_hand, self.settings.cursor_posts_max);
            &in_queue
        };
        self.store.delivered(self.partition, delivered, cursors).await?;
        (self.delivered, self.told_at) = (delivered, Instant::now());
        self.untold_deliveries = 0;
        Ok(())
    }

    /// Says of authors who are pushed again that reads need not pull them, before anybody is
    /// told that what came below an offset is delivered.
    async fn forget_returned(&mut self, delivered: u64) -> Result<(), FanoutError> {
        while let Some(place) = self.returning.iter().position(|(_, offset)| *offset < delivered) {
            let (author, _) = self.returning[place];
            if !self.pulled.contains(&author) {
                self.store.forget_pulled(author).await?;
            }
            self.returning.swap_remove(place);
        }
        Ok(())
    }

    async fn wait_for_events(&mut self, stop: &CancellationToken) -> Result<(), FanoutError> {
        let look_at = self.committed_at.min(self.told_at) + self.settings.commit_interval;
        // Without room for them nobody looks for any until something is written.
        let has_room = self.has_room();
        // In this order: a simulation must be able to run twice in the same way.
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            done = first_done(&mut self.writing) => self.end_first_round(done).await,
            result = self.log.wait_past(self.partition, self.next_offset), if has_room => {
                Ok(result?)
            }
            () = tokio::time::sleep_until(look_at) => Ok(()),
        }
    }

    /// Below it, everything has been delivered.
    fn delivered_offset(&self) -> u64 {
        self.queue.oldest_offset().unwrap_or(self.next_offset)
    }

    fn publish_progress(&self) {
        let position = Position { applied: self.next_offset, delivered: self.delivered_offset() };
        self.progress.publish(self.partition, position);
        self.metrics.queued(self.partition, self.queue.len());
    }

    /// Whether more events may be taken from the log: what is under way does not fill a
    /// round, if the next fan-outs reach as many as the last ones did.
    fn has_room(&self) -> bool {
        let (begun, reach) = self.last_round;
        let expected = self.queue.fresh_len().saturating_mul(reach / begun.max(1));
        self.queue.len() < self.settings.fanouts_max
            && expected < self.settings.round_deliveries_max
    }

    async fn apply_batch(&mut self) -> Result<Applied, FanoutError> {
        let first_offset = self.next_offset;
        let records = self.read_batch().await?;
        if records.is_empty() {
            return Ok(Applied::Nothing);
        }
        let bytes: usize = records.iter().map(|record| record.payload.len()).sum();
        let events: Arc<[Event]> = records
            .iter()
            .map(|record| {
                codec::decode(&record.payload).map_err(|source| FanoutError::Event {
                    partition: self.partition,
                    offset: record.offset,
                    source,
                })
            })
            .collect::<Result<_, _>>()?;
        if first_offset < self.attempted || !plan::are_only_new(&events) {
            self.end_rounds().await?;
        }
        let look_below = self.look_below();
        self.given = look_below.max(first_offset + events.len() as u64);
        let absent = self.store.apply(self.partition, first_offset, Arc::clone(&events)).await?;
        let mut effects = plan::plan(first_offset, &events, &absent, &self.pulled);
        if first_offset < self.attempted && !absent.is_empty() {
            self.take_back(&mut effects, first_offset, &events, &absent).await?;
        }
        // Only now, and all at once: should one of these fail, the whole batch is
        // applied again.
        let jobs = self.jobs(&effects, look_below).await?;
        let returned = self.jobs_of_returned(&effects, look_below).await?;
        self.change_follows(&effects).await?;
        let switches = self.switches(&effects, &events).await?;
        let deleted: HashSet<PostId> = effects.deleted.iter().map(|(_, post, _)| *post).collect();
        self.queue.cancel(&deleted);
        let resumed = jobs.iter().filter(|job| job.after.is_some()).count();
        self.metrics.resumed_fanouts.inc_by(resumed as u64);
        // What is brought to everybody may be under way with what is new.
        let authors: HashSet<S::Account> = returned.iter().map(|job| job.author).collect();
        authors.into_iter().for_each(|author| self.queue.look(author));
        jobs.into_iter().chain(returned).for_each(|job| self.queue.add(job));
        for (author, is_pulled) in effects.pulls {
            self.switching.remove(&author);
            if is_pulled {
                self.pulled.insert(author);
            } else {
                self.pulled.remove(&author);
            }
        }
        self.returning.extend(effects.returned);
        self.next_offset += events.len() as u64;
        if self.next_offset >= self.attempted {
            self.half_done.forget();
        }
        // Whoever waits for an event to hold does not wait for a round too.
        self.publish_progress();
        self.metrics.events.inc_by(events.len() as u64);
        self.append_switches(switches).await;
        let is_full = bytes >= self.settings.batch_bytes_max / 2;
        Ok(if is_full { Applied::ToTheBrim } else { Applied::All })
    }

    /// Adds the posts that the store has taken back, since an earlier request of their name
    /// turned out to have made another one: they may be in timelines.
    async fn take_back(
        &self,
        effects: &mut Effects,
        first_offset: u64,
        events: &[Event],
        absent: &[PostId],
    ) -> Result<(), FanoutError> {
        let mut known: HashSet<PostId> = effects.deleted.iter().map(|(_, post, _)| *post).collect();
        for (offset, event) in (first_offset..).zip(events) {
            let Event::PostPublished { post, .. } = event else { continue };
            if absent.binary_search(&post.id).is_err() || known.contains(&post.id) {
                continue;
            }
            let Some(author) = self.store.account(post.author).await? else { continue };
            if self.store.deleted_of(author).await?.contains(&post.id) {
                known.insert(post.id);
                effects.deleted.push((post.author, post.id, offset));
            }
        }
        Ok(())
    }

    /// What comes before it may hold already, or be in timelines.
    fn look_below(&self) -> u64 {
        self.attempted.max(self.given)
    }

    /// The next events. Those that may have been applied in part come all at once, so
    /// that nothing of theirs that holds no more shows for a moment. Those are few
    /// unless the store has lost much, and then nobody reads it before all is applied.
    async fn read_batch(&self) -> Result<Vec<Record>, LogError> {
        let bytes_max = self.settings.batch_bytes_max;
        let mut records = self.log.read(self.partition, self.next_offset, bytes_max).await?;
        let mut end = self.next_offset + records.len() as u64;
        let mut bytes: usize = records.iter().map(|record| record.payload.len()).sum();
        while end < self.look_below() && bytes < self.settings.replay_bytes_max {
            self.log.wait_past(self.partition, end).await?;
            let more = self.log.read(self.partition, end, bytes_max).await?;
            bytes += more.iter().map(|record| record.payload.len()).sum::<usize>();
            records.extend(more);
            end = self.next_offset + records.len() as u64;
        }
        Ok(records)
    }

    /// As many of an author's posts as a timeline may have entries.
    async fn newest_of(&self, author: S::Account) -> Result<NewestPosts, FanoutError> {
        let newest = self.store.newest_of(&[author], self.store.entries_max()).await?;
        Ok(newest.into_iter().next().unwrap_or_default())
    }
}

impl<L, S: Store> Drop for Worker<L, S> {
    /// Its queue is gone, however it ends.
    fn drop(&mut self) {
        self.metrics.queued(self.partition, 0);
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Something; there may be more to do.
    Worked,
    /// Nothing: all events are delivered.
    Idle,
}

/// What became of reading a batch of events and applying it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Applied {
    /// There were none.
    Nothing,
    /// There were some.
    All,
    /// There were as many as a batch holds, so that more may be there already.
    ToTheBrim,
}

/// Waits before what failed is tried again, unless that cannot help.
pub(super) async fn wait_to_retry(
    error: FanoutError,
    (partition, offset): (u32, Option<u64>),
    retry_delay: Duration,
    stop: &CancellationToken,
) -> Result<(), FanoutError> {
    if error.is_final() {
        return Err(error);
    }
    tracing::error!(partition, offset, %error, "a step failed and will be tried again");
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = tokio::time::sleep(retry_delay) => {}
    }
    Ok(())
}
