//! The fan-outs under way in one partition, and whose turn it is. Pure.
//!
//! ```text
//!  new ──► fresh: first slices, in the order of the log ──► done, most of them
//!                        │ more followers than a slice
//!                        ▼
//!          long: a line for each author, authors take turns ──► done
//! ```
//!
//! A fan-out to few followers is done with its first slice, so it never waits for
//! one to millions: that one comes back slice by slice, and an author with many
//! such posts has no more turns than an author with one.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::Hash,
};

use crate::domain::PostId;

/// One fan-out: something that has to reach the author and all its followers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job<A> {
    pub(super) author: A,
    pub(super) work: Work,
    /// The last follower reached; `None` before the first slice.
    pub(super) after: Option<A>,
    /// The offset of the event that asked for it.
    pub(super) offset: u64,
    /// Whether some of it may have been written already.
    pub(super) again: bool,
}

/// What a fan-out does to the timelines that it reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Puts these posts in.
    Deliver(Vec<PostId>),
    /// Takes this post out.
    Remove(PostId),
}

#[derive(Debug)]
pub(super) struct FanoutQueue<A> {
    fresh: VecDeque<Job<A>>,
    long: HashMap<A, VecDeque<Job<A>>>,
    /// The authors of `long`, the next one first.
    turns: VecDeque<A>,
    /// How many jobs each offset has under way.
    offsets: BTreeMap<u64, usize>,
    /// All of them together.
    len: usize,
}

impl<A> Default for FanoutQueue<A> {
    fn default() -> Self {
        Self {
            fresh: VecDeque::new(),
            long: HashMap::new(),
            turns: VecDeque::new(),
            offsets: BTreeMap::new(),
            len: 0,
        }
    }
}

impl<A: Copy + Eq + Hash> FanoutQueue<A> {
    /// Adds a fan-out that has not begun.
    pub(super) fn add(&mut self, job: Job<A>) {
        *self.offsets.entry(job.offset).or_default() += 1;
        self.len += 1;
        self.fresh.push_back(job);
    }

    /// The next fan-out that has not begun.
    pub(super) fn next_fresh(&mut self) -> Option<Job<A>> {
        self.fresh.pop_front()
    }

    /// The next fan-out whose first slice was not its last.
    pub(super) fn next_long(&mut self) -> Option<Job<A>> {
        let author = self.turns.pop_front()?;
        let line = self.long.get_mut(&author)?;
        let job = line.pop_front();
        if line.is_empty() {
            self.long.remove(&author);
        } else {
            self.turns.push_back(author);
        }
        job
    }

    /// Puts back a fan-out that has more followers to reach than it has reached.
    pub(super) fn put_back(&mut self, job: Job<A>) {
        let line = self.long.entry(job.author).or_default();
        if line.is_empty() {
            self.turns.push_back(job.author);
        }
        // In front: the author's older post is finished before the newer one.
        line.push_front(job);
    }

    /// Says that a fan-out taken from the queue has reached everybody.
    pub(super) fn finish(&mut self, job: &Job<A>) {
        self.forget_offset(job.offset);
    }

    /// Stops delivering posts, in one walk over everything that is under way.
    pub(super) fn cancel(&mut self, posts: &HashSet<PostId>) {
        if posts.is_empty() || self.len == 0 {
            return;
        }
        let mut ended = Vec::new();
        let mut keep = |job: &mut Job<A>| {
            let Work::Deliver(ids) = &mut job.work else { return true };
            ids.retain(|id| !posts.contains(id));
            if ids.is_empty() {
                ended.push(job.offset);
            }
            !ids.is_empty()
        };
        self.fresh.retain_mut(&mut keep);
        self.long.retain(|_, line| {
            line.retain_mut(&mut keep);
            !line.is_empty()
        });
        self.turns.retain(|author| self.long.contains_key(author));
        for offset in ended {
            self.forget_offset(offset);
        }
    }

    /// How many fan-outs have not begun.
    pub(super) fn fresh_len(&self) -> usize {
        self.fresh.len()
    }

    /// How many fan-outs are under way.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The least offset that has a fan-out under way.
    pub(super) fn oldest_offset(&self) -> Option<u64> {
        self.offsets.first_key_value().map(|(offset, _)| *offset)
    }

    fn forget_offset(&mut self, offset: u64) {
        if let Some(count) = self.offsets.get_mut(&offset) {
            self.len -= 1;
            *count -= 1;
            if *count == 0 {
                self.offsets.remove(&offset);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliver(author: u32, post: u64) -> Job<u32> {
        let work = Work::Deliver(vec![PostId(post)]);
        Job { author, work, after: None, offset: post, again: false }
    }

    fn posts(job: Option<Job<u32>>) -> Vec<u64> {
        match job.map(|job| job.work) {
            Some(Work::Deliver(ids)) => ids.into_iter().map(|id| id.0).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn authors_take_turns_and_finish_their_older_posts_first() {
        let mut queue = FanoutQueue::default();
        for job in [deliver(1, 10), deliver(1, 11), deliver(2, 20)] {
            queue.add(job);
        }
        let mut begun = Vec::new();
        while let Some(job) = queue.next_fresh() {
            begun.push(job);
        }
        // The older post of author 1 comes back last and is still the first.
        for job in begun.into_iter().rev() {
            queue.put_back(job);
        }
        let mut order = Vec::new();
        for _ in 0..4 {
            let job = queue.next_long().unwrap();
            order.extend(posts(Some(job.clone())));
            queue.put_back(job);
        }
        assert_eq!(order, [20, 10, 20, 10]);
    }

    #[test]
    fn the_oldest_offset_waits_for_all_its_fan_outs() {
        let mut queue = FanoutQueue::default();
        queue.add(deliver(1, 10));
        queue.add(deliver(2, 20));
        let first = queue.next_fresh().unwrap();
        assert_eq!((queue.len(), queue.oldest_offset()), (2, Some(10)));
        queue.finish(&first);
        assert_eq!((queue.len(), queue.oldest_offset()), (1, Some(20)));
        queue.cancel(&[PostId(20)].into());
        assert_eq!((queue.len(), queue.oldest_offset()), (0, None));
    }

    #[test]
    fn a_cancelled_post_leaves_the_others_of_its_job() {
        let mut queue = FanoutQueue::default();
        let work = Work::Deliver(vec![PostId(1), PostId(2)]);
        queue.add(Job { author: 7, work, after: None, offset: 0, again: false });
        queue.cancel(&[PostId(1)].into());
        assert_eq!(posts(queue.next_fresh()), [2]);
    }

    #[test]
    fn a_cancelled_long_fan_out_gives_up_its_turn() {
        let mut queue = FanoutQueue::default();
        queue.add(deliver(1, 10));
        let job = queue.next_fresh().unwrap();
        queue.put_back(job);
        queue.cancel(&[PostId(10)].into());
        assert_eq!(queue.next_long(), None);
        assert_eq!(queue.oldest_offset(), None);
    }
}
