//! One round of deliveries: slices of fan-outs, written together.
//!
//! ```text
//!  queue ──► slices: followers, asked for now ──► flush, remove ──► queue, or done
//! ```
//!
//! What a round fails to write stays in the queue, and is written with a look from
//! then on.

use std::time::{Duration, Instant, SystemTime};

use super::Worker;
use crate::{
    domain::PostId,
    event_log::EventLog,
    fanout::{FanoutError, combine::combine, flush::Preparing, queue::Job},
    store::{Store, Work},
};

/// Posts that have waited for so long are late.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// A part of a fan-out that a round does.
pub(in crate::fanout) struct Slice<A> {
    pub(in crate::fanout) job: Job<A>,
    /// The last follower that it reaches, if there may be more of them.
    pub(in crate::fanout) reached: Option<A>,
}

/// What a round writes.
struct Round<A> {
    deliveries: Vec<(A, PostId)>,
    /// Those that may have been written before.
    deliveries_again: Vec<(A, PostId)>,
    removals: Vec<(PostId, Vec<A>)>,
    /// How many timelines all of it writes to, each post counted.
    size: usize,
    /// Whether all that begins in it is late.
    is_late: bool,
}

impl<A> Default for Round<A> {
    fn default() -> Self {
        Self {
            deliveries: Vec::new(),
            deliveries_again: Vec::new(),
            removals: Vec::new(),
            size: 0,
            is_late: false,
        }
    }
}

impl<L: EventLog, S: Store> Worker<L, S> {
    /// Writes the first slices of new fan-outs, and then some slices of long ones; as many
    /// as there is room for, if all that is new is late anyway.
    pub(super) async fn deliver_round(
        &mut self,
        preparing: Preparing<'_, S::Account>,
    ) -> Result<bool, FanoutError> {
        let begun = Instant::now();
        let mut round = Round::default();
        let mut taken = Vec::new();
        let mut result = self.gather(&mut round, &mut taken).await;
        let size = round.size;
        if result.is_ok() {
            result = self.write(preparing, round, &taken).await;
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
                (Ok(()), reached) => {
                    self.untold_deliveries += self.settings.slice_deliveries_max;
                    self.queue.put_back(Job { after: reached, ..job });
                }
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
        if !taken.is_empty() {
            self.last_round = (taken.len(), round.size);
        }
        round.is_late = are_late(taken, SystemTime::now());
        let mut long_slices = 0;
        while long_slices < self.settings.round_long_slices_max
            || (round.is_late && round.size < self.settings.round_deliveries_max)
        {
            long_slices += 1;
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
        let posts = job.work.posts();
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
        preparing: Preparing<'_, S::Account>,
        round: Round<S::Account>,
        taken: &[Slice<S::Account>],
    ) -> Result<(), FanoutError> {
        if round.deliveries.is_empty() {
            drop(preparing);
        } else {
            preparing.flush(round.deliveries, round.is_late).await?;
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

/// Whether all fan-outs that begin here are of posts that have waited for long. Those under
/// way, whose posts are old, are not waited for more.
fn are_late<A>(slices: &[Slice<A>], now: SystemTime) -> bool {
    let begin = slices.iter().filter(|slice| slice.job.after.is_none());
    let newest = begin.filter_map(|slice| slice.job.work.to_deliver().iter().max()).max();
    let age = newest.and_then(|post| now.duration_since(post.created_at()).ok());
    age.is_some_and(|age| age > LATE_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::UserId;

    #[test]
    fn a_round_is_late_if_all_that_begins_in_it_is() {
        let at = |seconds: u64| PostId((seconds * 1_000) << PostId::NODE_AND_SEQUENCE_BITS);
        let slice = |seconds: u64, after: Option<u64>| Slice {
            job: Job {
                author: UserId(1),
                work: Work::Deliver(vec![at(1), at(seconds)]),
                after: after.map(UserId),
                offset: 0,
                again: false,
            },
            reached: None,
        };
        let now = at(100).created_at();
        assert!(are_late(&[slice(98, None), slice(50, None)], now));
        assert!(!are_late(&[slice(98, None), slice(100, None)], now));
        // Of a clock that is ahead of this one.
        assert!(!are_late(&[slice(101, None)], now));
        assert!(!are_late(&[slice(50, Some(7))], now));
        assert!(are_late(&[slice(50, None), slice(100, Some(7))], now));
        assert!(!are_late::<UserId>(&[], now));
    }
}
