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

use crate::{
    domain::PostId,
    store::{Cursor, Work},
};

/// One fan-out: something that has to reach the author and all its followers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job<A> {
    pub(super) author: A,
    pub(super) work: Work,
    /// The last follower reached: all up to it have been written to. `None` before the
    /// first slice.
    pub(super) after: Option<A>,
    /// The offset of the event that asked for it.
    pub(super) offset: u64,
    /// Whether some of it may have been written already.
    pub(super) again: bool,
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

impl<A: Copy + Ord + Hash> FanoutQueue<A> {
    /// Adds a fan-out; one that was begun before is a long one.
    pub(super) fn add(&mut self, job: Job<A>) {
        *self.offsets.entry(job.offset).or_default() += 1;
        self.len += 1;
        if job.after.is_none() {
            self.fresh.push_back(job);
        } else {
            self.line(job.author).push_back(job);
        }
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
        // The author's older post is finished before the newer one.
        let line = self.line(job.author);
        let place = line.partition_point(|other| other.offset < job.offset);
        line.insert(place, job);
    }

    /// How far the fan-outs have come that are half done, here and in hand, as many as work
    /// on `posts_max` posts together.
    ///
    /// Of too many the oldest: an author's older fan-out is ahead of its newer ones, and
    /// authors take turns, so that those have come farthest; and one that is among them
    /// stays so until it is done.
    pub(super) fn cursors<'a>(
        &'a self,
        in_hand: impl Iterator<Item = &'a Job<A>>,
        posts_max: usize,
    ) -> Vec<Cursor<A>> {
        let lines = self.long.values().flatten().chain(in_hand);
        let mut begun: Vec<(&Job<A>, A)> =
            lines.filter_map(|job| Some((job, job.after?))).collect();
        begun.sort_unstable_by_key(|(job, _)| (job.offset, job.author, &job.work));
        let mut posts = 0;
        let kept = begun.into_iter().take_while(|(job, _)| {
            posts += job.work.posts();
            posts <= posts_max
        });
        kept.map(|(job, reached)| Cursor { author: job.author, work: job.work.clone(), reached })
            .collect()
    }

    /// Says that a fan-out taken from the queue has reached everybody.
    pub(super) fn finish(&mut self, job: &Job<A>) {
        self.forget_offset(job.offset);
    }

    /// Has what is under way of an author written with a look from now on.
    pub(super) fn look(&mut self, author: A) {
        let long = self.long.get_mut(&author).into_iter().flatten();
        let fresh = self.fresh.iter_mut().filter(|job| job.author == author);
        fresh.chain(long).for_each(|job| job.again = true);
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

    /// How many authors have long fan-outs that are not in hand.
    pub(super) fn long_len(&self) -> usize {
        self.turns.len()
    }

    /// How many fan-outs are under way.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The least offset that has a fan-out under way.
    pub(super) fn oldest_offset(&self) -> Option<u64> {
        self.offsets.first_key_value().map(|(offset, _)| *offset)
    }

    /// The long fan-outs of an author, to which one is added.
    fn line(&mut self, author: A) -> &mut VecDeque<Job<A>> {
        let line = self.long.entry(author).or_default();
        if line.is_empty() {
            self.turns.push_back(author);
        }
        line
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
    fn a_new_post_of_many_followers_does_not_overtake_an_older_one() {
        let mut queue = FanoutQueue::default();
        let older = Job { after: Some(500), ..deliver(1, 10) };
        queue.put_back(older);
        queue.add(deliver(1, 11));
        // Both are in one round, or the older one waits for its turn.
        for takes_both in [true, false] {
            let newer = queue.next_fresh().or_else(|| Some(deliver(1, 12))).unwrap();
            let long = if takes_both { queue.next_long() } else { None };
            for job in [Some(newer), long].into_iter().flatten().rev() {
                queue.put_back(job);
            }
        }
        let mut order = Vec::new();
        while let Some(job) = queue.next_long() {
            order.extend(posts(Some(job)));
        }
        assert_eq!(order, [10, 11, 12]);
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
    fn one_that_was_begun_before_is_long_at_once() {
        let mut queue = FanoutQueue::default();
        queue.add(Job { after: Some(500), ..deliver(1, 10) });
        queue.add(deliver(1, 11));
        assert_eq!(posts(queue.next_fresh()), [11]);
        assert_eq!(queue.next_fresh(), None);
        assert_eq!(posts(queue.next_long()), [10]);
    }

    #[test]
    fn the_cursors_are_those_of_the_oldest_that_are_half_done() {
        let mut queue = FanoutQueue::default();
        queue.add(deliver(5, 1));
        for (author, post) in [(1, 40), (2, 30), (3, 20)] {
            queue.add(Job { after: Some(post as u32 + 500), ..deliver(author, post) });
        }
        let work = Work::Deliver(vec![PostId(25), PostId(26)]);
        queue.add(Job { author: 4, work, after: Some(7), offset: 25, again: true });
        // One that failed at its first slice has reached nobody.
        queue.put_back(deliver(6, 2));
        let in_hand = Job { after: Some(535), ..deliver(8, 35) };
        let kept = |posts_max| {
            let cursors = queue.cursors([&in_hand].into_iter(), posts_max).into_iter();
            cursors.map(|cursor| (cursor.author, cursor.reached)).collect::<Vec<_>>()
        };
        assert_eq!(kept(9), [(3, 520), (4, 7), (2, 530), (8, 535), (1, 540)]);
        assert_eq!(kept(3), [(3, 520), (4, 7)]);
        assert_eq!(kept(2), [(3, 520)]);
        assert_eq!(kept(0), []);
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
