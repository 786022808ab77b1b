//! One round of deliveries: slices of fan-outs, written together.
//!
//! ```text
//!  queue ──► slices: followers, asked for now ──► sweep ──► push again, remove ──► queue, or done
//!                           ▲                       │
//!                           └──── the next round ◄──┘ well under way
//! ```
//!
//! What a round fails to write stays in the queue, and is written with a look from
//! then on.

use std::{collections::VecDeque, future, time::Instant};

use super::Worker;
use crate::{
    domain::PostId,
    event_log::EventLog,
    fanout::{FanoutError, combine::combine, queue::Job, sweep::Part},
    store::{Store, Work},
};

/// A part of a fan-out that a round does.
pub(in crate::fanout) struct Slice<A> {
    pub(in crate::fanout) job: Job<A>,
    /// The last follower that it reaches, if there may be more of them.
    pub(in crate::fanout) reached: Option<A>,
    /// How many timelines it writes to, each post counted.
    size: usize,
}

/// What a round writes.
struct Round<A> {
    deliveries: Vec<(A, PostId)>,
    rest: Rest<A>,
    /// How many timelines all of it writes to, each post counted.
    size: usize,
    /// How many of them are of new fan-outs.
    fresh: usize,
}

impl<A> Default for Round<A> {
    fn default() -> Self {
        Self {
            deliveries: Vec::new(),
            rest: Rest { deliveries_again: Vec::new(), removals: Vec::new() },
            size: 0,
            fresh: 0,
        }
    }
}

/// A round that is being written.
pub(super) struct Writing<A> {
    taken: Vec<Slice<A>>,
    rest: Rest<A>,
    part: Option<Part<A>>,
    size: usize,
    fresh: usize,
    begun: Instant,
}

/// What of a round is written with a look, and taken away.
struct Rest<A> {
    deliveries_again: Vec<(A, PostId)>,
    removals: Vec<(PostId, Vec<A>)>,
}

impl<A> Writing<A> {
    /// Its fan-outs, as they were before.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job<A>> {
        self.taken.iter().map(|slice| &slice.job)
    }

    /// Waits for what is written together with others.
    async fn done(&mut self) -> Result<(), FanoutError> {
        match &mut self.part {
            Some(part) => part.done().await,
            None => Ok(()),
        }
    }
}

impl<A> Rest<A> {
    fn is_empty(&self) -> bool {
        self.deliveries_again.is_empty() && self.removals.is_empty()
    }
}

impl<L: EventLog, S: Store> Worker<L, S> {
    /// Has slices of fan-outs written, and does not wait for it. False: there were none.
    pub(super) async fn deliver_round(&mut self) -> Result<bool, FanoutError> {
        let begun = Instant::now();
        let mut round = Round::default();
        let mut taken = Vec::new();
        if let Err(error) = self.gather(&mut round, &mut taken).await {
            self.put_back(taken);
            return Err(error);
        }
        if taken.is_empty() {
            return Ok(false);
        }
        let Round { deliveries, rest, size, fresh } = round;
        let mut part = None;
        // What looks or takes away is not left to run beside what comes next.
        let is_alone = deliveries.is_empty() || !rest.is_empty();
        if !deliveries.is_empty() {
            let (added, under_way) = self.sweep.add(self.partition, deliveries).await;
            (part, self.under_way) = (Some(added), Some(under_way));
        }
        self.writing.push_back(Writing { taken, rest, part, size, fresh, begun });
        if is_alone {
            self.end_rounds().await?;
        }
        Ok(true)
    }

    /// Ends rounds as they are written, until the last one is well under way.
    pub(super) async fn end_rounds_until_under_way(&mut self) -> Result<(), FanoutError> {
        while let Some(under_way) = &mut self.under_way {
            tokio::select! {
                biased;
                done = first_done(&mut self.writing) => self.end_first_round(done).await?,
                () = under_way.wait() => self.under_way = None,
            }
        }
        Ok(())
    }

    /// Waits until all that is being written is, and ends those rounds. Where one fails the
    /// others are ended all the same.
    pub(super) async fn end_rounds(&mut self) -> Result<(), FanoutError> {
        let mut result = Ok(());
        while let Some(mut writing) = self.writing.pop_front() {
            let done = writing.done().await;
            result = result.and(self.end_round(writing, done).await);
        }
        result
    }

    /// Ends the first of the rounds that are being written, and where it has failed, all.
    pub(super) async fn end_first_round(
        &mut self,
        done: Result<(), FanoutError>,
    ) -> Result<(), FanoutError> {
        let Some(writing) = self.writing.pop_front() else { return Ok(()) };
        let result = self.end_round(writing, done).await;
        if result.is_err() { result.and(self.end_rounds().await) } else { result }
    }

    /// Ends a round, and has what is not done by it go on later.
    async fn end_round(
        &mut self,
        mut writing: Writing<S::Account>,
        done: Result<(), FanoutError>,
    ) -> Result<(), FanoutError> {
        let result = match done {
            Ok(()) => self.write_rest(&mut writing).await,
            Err(error) => Err(error),
        };
        let Writing { taken, size, begun, .. } = writing;
        if let Err(error) = result {
            self.put_back(taken);
            return Err(error);
        }
        self.metrics.round_deliveries.observe(size as f64);
        self.metrics.round_seconds.observe_since(begun);
        // Backwards, so that those put back stand in their old order.
        for Slice { job, reached, size } in taken.into_iter().rev() {
            if reached.is_none() {
                self.queue.finish(&job);
            } else {
                self.untold_deliveries += size;
                self.queue.put_back(Job { after: reached, ..job });
            }
        }
        Ok(())
    }

    /// Of these nobody knows what was written, nor, once followers have come or gone, how
    /// far it went.
    fn put_back(&mut self, taken: Vec<Slice<S::Account>>) {
        for Slice { job, .. } in taken.into_iter().rev() {
            self.queue.put_back(Job { again: true, ..job });
        }
    }

    /// What is new comes first, and then what is long: no more of it is on its way than of
    /// what is new, or a slice. So whoever posts to few waits at most twice as long, and those
    /// who post to many keep pace.
    async fn gather(
        &mut self,
        round: &mut Round<S::Account>,
        taken: &mut Vec<Slice<S::Account>>,
    ) -> Result<(), FanoutError> {
        let slice_max = self.settings.slice_deliveries_max;
        while round.size < self.settings.round_deliveries_max {
            let Some(job) = self.queue.next_fresh() else { break };
            taken.push(Slice { job, reached: None, size: 0 });
            self.gather_slice(round, taken, slice_max).await?;
        }
        if !taken.is_empty() {
            self.last_round = (taken.len(), round.size);
        }
        round.fresh = round.size;
        let fresh = round.fresh + self.writing.iter().map(|writing| writing.fresh).sum::<usize>();
        let long = self.writing.iter().map(|writing| writing.size - writing.fresh).sum::<usize>();
        let end = round.fresh + fresh.max(slice_max).saturating_sub(long);
        while round.size < end {
            let share = fresh / self.queue.long_len().max(1);
            let Some(job) = self.queue.next_long() else { break };
            taken.push(Slice { job, reached: None, size: 0 });
            self.gather_slice(round, taken, slice_max.max(share)).await?;
        }
        Ok(())
    }

    /// Asks for the followers of the last slice taken.
    async fn gather_slice(
        &self,
        round: &mut Round<S::Account>,
        taken: &mut [Slice<S::Account>],
        deliveries_max: usize,
    ) -> Result<(), FanoutError> {
        let Some(slice) = taken.last_mut() else { return Ok(()) };
        let job = &slice.job;
        let posts = job.work.posts();
        let count_max = (deliveries_max / posts.max(1)).max(1);
        let mut readers = self.store.followers_after(job.author, job.after, count_max).await?;
        if readers.len() == count_max {
            slice.reached = readers.last().copied();
        }
        if job.after.is_none() {
            // The author reads its own posts too.
            let place = readers.partition_point(|reader| *reader < job.author);
            readers.insert(place, job.author);
        }
        slice.size = posts * readers.len();
        round.size += slice.size;
        match &job.work {
            Work::Deliver(ids) => {
                let deliveries = if job.again {
                    &mut round.rest.deliveries_again
                } else {
                    &mut round.deliveries
                };
                for id in ids {
                    deliveries.extend(readers.iter().map(|reader| (*reader, *id)));
                }
            }
            Work::Remove(post) => round.rest.removals.push((*post, readers)),
        }
        Ok(())
    }

    /// What comes after the deliveries that all write together.
    async fn write_rest(&self, writing: &mut Writing<S::Account>) -> Result<(), FanoutError> {
        let pushes = combine(std::mem::take(&mut writing.rest.deliveries_again));
        if !pushes.is_empty() {
            self.metrics.checked_pushes.inc_by(pushes.len() as u64);
            self.metrics.pushed(&pushes, self.store.push_again(&pushes).await?);
        }
        for (post, readers) in writing.rest.removals.drain(..) {
            self.store.remove(&readers, post).await?;
        }
        self.metrics.delivered(&writing.taken);
        for slice in writing.taken.iter().filter(|slice| slice.reached.is_none()) {
            match &slice.job.work {
                Work::Deliver(posts) => self.progress.reached_all(posts),
                Work::Remove(post) => self.store.forget_deleted(*post).await?,
            }
        }
        Ok(())
    }
}

/// Waits for the first of the rounds that are being written, for ever if there are none.
pub(super) async fn first_done<A>(writing: &mut VecDeque<Writing<A>>) -> Result<(), FanoutError> {
    match writing.front_mut() {
        Some(first) => first.done().await,
        None => future::pending().await,
    }
}
