//! The fan-out worker: one for each partition of the event log.
//!
//! ```text
//!  log ──► read a batch ──► decode ──► apply (ledger) ──► plan ──► queue
//!                                                                   │ rounds
//!  commit ◄── delivered offset ◄── push, remove (homes) ◄── combine ◄┘ of slices
//! ```
//!
//! The worker is the only one that applies the events of its partition, and it
//! never applies while deliveries are in its hands: every slice asks for the
//! followers as they are then. An event is committed only once it, and every one
//! before it, has been written everywhere it must be. Whatever is applied or
//! pushed twice after a crash changes nothing the second time.

mod combine;
mod observed;
mod plan;
mod pool;
mod progress;
mod queue;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant as StdInstant},
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::{
    combine::combine,
    pool::WorkerPool,
    progress::{Position, Progress},
};
use self::{
    plan::Effects,
    queue::{FanoutQueue, Job, Work},
};
use crate::{
    domain::{Event, PostId, UserId},
    event_log::{
        EventLog, LogError, Record,
        codec::{self, CodecError},
    },
    store::{Resume, Store, StoreError},
    telemetry::FanoutMetrics,
};

/// How a worker works. Every count is at least 1.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of events read from the log at once.
    pub batch_bytes_max: usize,
    /// Bytes of events that are applied at once after a crash, however many were
    /// under way then.
    pub replay_bytes_max: usize,
    /// Deliveries of one slice of a fan-out: posts times followers. At least one
    /// follower is reached, so it is passed where a fan-out has more posts.
    pub slice_deliveries_max: usize,
    /// Posts of one author that are fanned out together.
    pub fanout_posts_max: usize,
    /// Deliveries of one round; the first slices of all fan-outs come before the
    /// others. A round may pass it by one slice and those of long fan-outs.
    pub round_deliveries_max: usize,
    /// Slices of long fan-outs in one round.
    pub round_long_slices_max: usize,
    /// Fan-outs under way; with more, no events are read until some are done.
    pub fanouts_max: usize,
    /// The longest time that deliveries stay uncommitted.
    pub commit_interval: Duration,
    /// How long to wait before a step that failed is tried again.
    pub retry_delay: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_bytes_max: 1 << 20,
            replay_bytes_max: 8 << 20,
            slice_deliveries_max: 8_192,
            fanout_posts_max: 256,
            round_deliveries_max: 131_072,
            round_long_slices_max: 4,
            fanouts_max: 65_536,
            commit_interval: Duration::from_secs(1),
            retry_delay: Duration::from_secs(1),
        }
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something; there may be more to do.
    Worked,
    /// Nothing: all events are delivered.
    Idle,
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum FanoutError {
    /// The log failed; a later step may succeed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store failed; a later step may succeed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An entry of the log cannot be read, so nothing after it can be applied.
    #[error(
        "partition {partition}, offset {offset}: {source}; run the version of roost \
         that wrote this log, or a newer one"
    )]
    Event {
        /// Where the entry is.
        partition: u32,
        /// Where the entry is.
        offset: u64,
        /// What is wrong with it.
        source: CodecError,
    },
    /// The store holds what is not in the log. What comes into the log at those offsets
    /// would be taken for it, and never be delivered.
    #[error(
        "partition {partition} of the event log ends at offset {end}, and the store holds events \
         up to {seen}: the log has lost its end, or was replaced by another one. Restore the log \
         from a backup; or, to go on without what is lost, run `roost rebuild`"
    )]
    LogBehindStore {
        /// Which partition.
        partition: u32,
        /// Where the log ends.
        end: u64,
        /// Where the store's events end.
        seen: u64,
    },
}

impl FanoutError {
    /// Whether trying again cannot help.
    fn is_final(&self) -> bool {
        match self {
            Self::Log(error) => error.is_final(),
            Self::Store(error) => error.is_final(),
            Self::Event { .. } | Self::LogBehindStore { .. } => true,
        }
    }

    /// Whether the partition must be resumed before anything else: another process has
    /// it, as far as the store knows, or the store has lost some of it.
    fn must_resume(&self) -> bool {
        matches!(self, Self::Store(StoreError::Fenced { .. } | StoreError::Lost { .. }))
    }
}

/// The worker of one partition.
pub struct Worker<L, S: Store> {
    log: Arc<L>,
    store: Arc<S>,
    progress: Arc<Progress>,
    metrics: Arc<FanoutMetrics>,
    partition: u32,
    settings: Settings,
    /// The next event to read. All before it are applied.
    next_offset: u64,
    /// What comes before it may have been applied and pushed, by whoever had the
    /// partition before.
    attempted: u64,
    queue: FanoutQueue<S::Account>,
    /// What the store was told last of what holds in reads.
    shown: u64,
    /// What it was told last of what is delivered.
    delivered: u64,
    told_at: Instant,
    /// What the log was told last.
    committed: u64,
    committed_at: Instant,
}

impl<L: EventLog, S: Store> Worker<L, S> {
    /// A worker that goes on where the log and the store remember.
    pub async fn resume(
        log: Arc<L>,
        store: Arc<S>,
        progress: Arc<Progress>,
        metrics: Arc<FanoutMetrics>,
        partition: u32,
        settings: Settings,
    ) -> Result<Self, FanoutError> {
        let end = log.end(partition).await?;
        let resume = store.resume(partition, end).await?;
        if resume.seen() > end {
            // Whoever had the partition may have gone on since.
            check_end(partition, &resume, log.end(partition).await?)?;
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
            partition,
            settings,
            next_offset: committed,
            attempted: resume.attempted,
            queue: FanoutQueue::default(),
            shown: resume.shown,
            delivered: committed,
            told_at: Instant::now(),
            committed,
            committed_at: Instant::now(),
        })
    }

    /// Works until it is told to stop, then commits what is delivered. A step
    /// that fails is tried again, unless that cannot help.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), FanoutError> {
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

    /// Commits what is delivered, and lets the partition go. Where something has failed,
    /// what was written then may still be under way, so that whoever takes the partition
    /// over must see to it that it comes to an end.
    async fn end(&mut self, has_failed: bool) -> Result<(), FanoutError> {
        self.commit().await?;
        if has_failed {
            self.store.abandon(self.partition);
            return Ok(());
        }
        Ok(self.store.release(self.partition).await?)
    }

    /// Reads and applies a batch, if there is one and room for it, and delivers a
    /// round. After an error it can be called again; nothing is lost by it.
    pub async fn step(&mut self) -> Result<Step, FanoutError> {
        self.store.check(self.partition)?;
        let mut worked = false;
        if self.queue.len() < self.settings.fanouts_max {
            worked |= self.apply_batch().await?;
        }
        if self.next_offset > self.shown {
            self.store.shown(self.partition, self.next_offset).await?;
            self.shown = self.next_offset;
        }
        worked |= self.deliver_round().await?;
        self.publish_progress();
        let delivered = self.delivered_offset();
        if delivered > self.delivered || self.told_at.elapsed() >= self.settings.commit_interval {
            self.store.delivered(self.partition, delivered).await?;
            (self.delivered, self.told_at) = (delivered, Instant::now());
        }
        if self.committed_at.elapsed() >= self.settings.commit_interval {
            self.commit().await?;
        }
        Ok(if worked { Step::Worked } else { Step::Idle })
    }

    /// Makes what is delivered survive, and tells the log.
    pub async fn commit(&mut self) -> Result<(), FanoutError> {
        let delivered = self.delivered_offset();
        if delivered > self.committed {
            self.store.sync().await?;
            self.log.commit(self.partition, delivered).await?;
            self.committed = delivered;
        }
        self.committed_at = Instant::now();
        Ok(())
    }

    async fn wait_for_events(&mut self, stop: &CancellationToken) -> Result<(), FanoutError> {
        let look_at = self.committed_at.min(self.told_at) + self.settings.commit_interval;
        // In this order: a simulation must be able to run twice in the same way.
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            result = self.log.wait_past(self.partition, self.next_offset) => Ok(result?),
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

    async fn apply_batch(&mut self) -> Result<bool, FanoutError> {
        let first_offset = self.next_offset;
        let records = self.read_batch().await?;
        if records.is_empty() {
            return Ok(false);
        }
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
        let absent = self.store.apply(self.partition, first_offset, Arc::clone(&events)).await?;
        let effects = plan::plan(first_offset, &events, &absent);
        // Only now, and all at once: should one of these fail, the whole batch is
        // applied again.
        let jobs = self.jobs(&effects).await?;
        self.change_follows(&effects).await?;
        let deleted: HashSet<PostId> = effects.deleted.iter().map(|(_, post, _)| *post).collect();
        self.queue.cancel(&deleted);
        jobs.into_iter().for_each(|job| self.queue.add(job));
        self.next_offset += events.len() as u64;
        // Whoever waits for an event to hold does not wait for a round too.
        self.publish_progress();
        self.metrics.events.inc_by(events.len() as u64);
        Ok(true)
    }

    /// The next events. Those that may have been applied in part come all at once, so
    /// that nothing of theirs that holds no more shows for a moment. Those are few
    /// unless the store has lost much, and then nobody reads it before all is applied.
    async fn read_batch(&self) -> Result<Vec<Record>, LogError> {
        let bytes_max = self.settings.batch_bytes_max;
        let mut records = self.log.read(self.partition, self.next_offset, bytes_max).await?;
        let mut end = self.next_offset + records.len() as u64;
        let mut bytes: usize = records.iter().map(|record| record.payload.len()).sum();
        while end < self.attempted && bytes < self.settings.replay_bytes_max {
            self.log.wait_past(self.partition, end).await?;
            let more = self.log.read(self.partition, end, bytes_max).await?;
            bytes += more.iter().map(|record| record.payload.len()).sum::<usize>();
            records.extend(more);
            end = self.next_offset + records.len() as u64;
        }
        Ok(records)
    }

    /// The fan-outs that a batch asks for, in the order of the log.
    async fn jobs(&self, effects: &Effects) -> Result<Vec<Job<S::Account>>, FanoutError> {
        let posted: Vec<UserId> = effects.posted.keys().copied().collect();
        let deleted: Vec<UserId> = effects.deleted.iter().map(|(author, ..)| *author).collect();
        let mut jobs = Vec::with_capacity(posted.len() + deleted.len());
        let authors = self.store.accounts(&posted).await?;
        for (author, posted) in authors.into_iter().zip(effects.posted.values()) {
            let Some(author) = author else { continue };
            for ids in posted.ids.chunks(self.settings.fanout_posts_max.max(1)) {
                let work = Work::Deliver(ids.to_vec());
                jobs.push(self.job(author, work, posted.offset));
            }
        }
        let authors = self.store.accounts(&deleted).await?;
        for (author, (_, post, offset)) in authors.into_iter().zip(&effects.deleted) {
            let Some(author) = author else { continue };
            jobs.push(self.job(author, Work::Remove(*post), *offset));
        }
        jobs.sort_by_key(|job| job.offset);
        Ok(jobs)
    }

    fn job(&self, author: S::Account, work: Work, offset: u64) -> Job<S::Account> {
        Job { author, work, after: None, offset, again: offset < self.attempted }
    }

    /// Where a follow was changed: puts the followee's past posts into the
    /// reader's live timeline, or takes them out, as the ledger now says.
    async fn change_follows(&self, effects: &Effects) -> Result<(), FanoutError> {
        for (followee, followers) in &effects.follows {
            let Some(followee) = self.store.account(*followee).await? else { continue };
            let followers: Vec<UserId> = followers.iter().copied().collect();
            let followers = self.store.accounts(&followers).await?;
            let mut readers: Vec<S::Account> = followers.into_iter().flatten().collect();
            readers.sort_unstable();
            let awake = self.store.awake(&readers).await?;
            if awake.is_empty() {
                continue;
            }
            let posts = self.store.newest_of(&[followee]).await?.pop().unwrap_or_default();
            // Posts on their way out of the followers' timelines would stay with a
            // reader who has just ceased to be a follower.
            let mut gone = posts.clone();
            gone.ids.extend(self.store.deleted_of(followee).await?);
            gone.ids.sort_unstable();
            for reader in awake {
                if self.store.follows(reader, followee).await? {
                    self.store.merge(reader, &posts).await?;
                } else {
                    self.store.purge(reader, &gone).await?;
                }
                // A store in memory would let nobody else go on before the last one.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Writes the first slices of new fan-outs, and then some slices of long ones.
    async fn deliver_round(&mut self) -> Result<bool, FanoutError> {
        let begun = StdInstant::now();
        let mut round = Round::default();
        let mut taken = Vec::new();
        let mut result = self.gather(&mut round, &mut taken).await;
        let size = round.size;
        if result.is_ok() {
            result = self.write(round, &taken).await;
        }
        let worked = !taken.is_empty();
        if worked {
            self.metrics.round_deliveries.observe(size as f64);
            self.metrics.round_seconds.observe_since(begun);
        }
        // Backwards, so that those put back stand in their old order.
        for Slice { job, reached } in taken.into_iter().rev() {
            match (&result, reached) {
                // Nobody knows what of it was written, nor, once followers have come or
                // gone, how far it went.
                (Err(_), _) => self.queue.put_back(Job { again: true, ..job }),
                (Ok(()), None) => self.queue.finish(&job),
                (Ok(()), reached) => self.queue.put_back(Job { after: reached, ..job }),
            }
        }
        result.map(|()| worked)
    }

    async fn gather(
        &mut self,
        round: &mut Round<S::Account>,
        taken: &mut Vec<Slice<S::Account>>,
    ) -> Result<(), FanoutError> {
        while round.size < self.settings.round_deliveries_max {
            let Some(job) = self.queue.next_fresh() else { break };
            taken.push(Slice { job, reached: None });
            self.gather_slice(round, taken).await?;
        }
        for _ in 0..self.settings.round_long_slices_max {
            let Some(job) = self.queue.next_long() else { break };
            taken.push(Slice { job, reached: None });
            self.gather_slice(round, taken).await?;
        }
        Ok(())
    }

    /// Asks for the followers of the last slice taken.
    async fn gather_slice(
        &self,
        round: &mut Round<S::Account>,
        taken: &mut [Slice<S::Account>],
    ) -> Result<(), FanoutError> {
        let Some(slice) = taken.last_mut() else { return Ok(()) };
        let job = &slice.job;
        let posts = match &job.work {
            Work::Deliver(ids) => ids.len(),
            Work::Remove(_) => 1,
        };
        let count_max = (self.settings.slice_deliveries_max / posts.max(1)).max(1);
        let mut readers = self.store.followers_after(job.author, job.after, count_max).await?;
        if readers.len() == count_max {
            slice.reached = readers.last().copied();
        }
        if job.after.is_none() {
            // The author reads its own posts too.
            let place = readers.partition_point(|reader| *reader < job.author);
            readers.insert(place, job.author);
        }
        round.size += posts * readers.len();
        match &job.work {
            Work::Deliver(ids) => {
                let deliveries =
                    if job.again { &mut round.deliveries_again } else { &mut round.deliveries };
                for id in ids {
                    deliveries.extend(readers.iter().map(|reader| (*reader, *id)));
                }
            }
            Work::Remove(post) => round.removals.push((*post, readers)),
        }
        Ok(())
    }

    async fn write(
        &self,
        round: Round<S::Account>,
        taken: &[Slice<S::Account>],
    ) -> Result<(), FanoutError> {
        let pushes = combine(round.deliveries);
        if !pushes.is_empty() {
            self.metrics.pushed(&pushes, self.store.push(&pushes).await?);
        }
        let pushes = combine(round.deliveries_again);
        if !pushes.is_empty() {
            self.metrics.checked_pushes.inc_by(pushes.len() as u64);
            self.metrics.pushed(&pushes, self.store.push_again(&pushes).await?);
        }
        for (post, readers) in round.removals {
            self.store.remove(&readers, post).await?;
        }
        self.metrics.delivered(taken);
        for slice in taken.iter().filter(|slice| slice.reached.is_none()) {
            match &slice.job.work {
                Work::Deliver(posts) => self.progress.reached_all(posts),
                Work::Remove(post) => self.store.forget_deleted(*post).await?,
            }
        }
        Ok(())
    }
}

impl<L, S: Store> Drop for Worker<L, S> {
    /// Its queue is gone, however it ends.
    fn drop(&mut self) {
        self.metrics.queued(self.partition, 0);
    }
}

/// Whether the log has all that the store has seen of a partition.
///
/// # Errors
/// [`FanoutError::LogBehindStore`] if not.
pub fn check_end(partition: u32, marks: &Resume, end: u64) -> Result<(), FanoutError> {
    let seen = marks.seen();
    if seen > end { Err(FanoutError::LogBehindStore { partition, end, seen }) } else { Ok(()) }
}

/// Waits before what failed is tried again, unless that cannot help.
async fn wait_to_retry(
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

/// What a round writes.
struct Round<A> {
    deliveries: Vec<(A, PostId)>,
    /// Those that may have been written before.
    deliveries_again: Vec<(A, PostId)>,
    removals: Vec<(PostId, Vec<A>)>,
    /// How many timelines all of it writes to, each post counted.
    size: usize,
}

impl<A> Default for Round<A> {
    fn default() -> Self {
        Self { deliveries: Vec::new(), deliveries_again: Vec::new(), removals: Vec::new(), size: 0 }
    }
}

/// A part of a fan-out that a round does.
struct Slice<A> {
    job: Job<A>,
    /// The last follower that it reaches, if there may be more of them.
    reached: Option<A>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_has_seen_more_than_there_is_belongs_to_another_log() {
        let marks = Resume { applied: 70, shown: 60, attempted: 90, delivered: Some(50) };
        assert!(check_end(3, &marks, 90).is_ok());
        let error = check_end(3, &marks, 89).unwrap_err();
        assert!(error.is_final());
        assert!(error.to_string().contains("ends at offset 89"), "{error}");
        let ahead = Resume { delivered: Some(91), ..marks };
        assert!(check_end(3, &ahead, 90).is_err());
    }
}
