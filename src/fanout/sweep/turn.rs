//! What is gathered, by ranges of readers, and where the writer is on its way round them.
//! Pure.
//!
//! A position is how many ranges the writer has come to since the beginning. Who comes in
//! position 10 is written in position 10 + [`RANGES`], whatever was where.

use std::collections::{BTreeSet, VecDeque};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{domain::PostId, fanout::FanoutError};

/// Ranges of readers. Beyond so many, those of equal remainder share a place.
pub(super) const RANGES: u64 = 256;
/// A part is said to be well under way once so much of a turn is done since it came.
const UNDER_WAY: u64 = RANGES / 4;

/// What is gathered, and who waits for it.
#[derive(Debug)]
pub(super) struct Turn<A> {
    /// By range.
    gathered: Vec<Vec<(A, PostId)>>,
    pub(super) gathered_count: usize,
    /// Permits that those who added have left behind.
    permits: usize,
    /// Up to where ranges were taken to be written.
    taken: u64,
    /// In the order in which they came, and so in that in which they will be written.
    waiting: VecDeque<Waiting>,
    last_ticket: u64,
    /// Has all be given up that is not written.
    pub(super) give_up: CancellationToken,
}

/// What one worker delivers in one round.
#[derive(Debug)]
struct Waiting {
    ticket: u64,
    partition: u32,
    /// It is written once the writer has gone round from here.
    from: u64,
    under_way: Option<oneshot::Sender<()>>,
    done: oneshot::Sender<Result<(), FanoutError>>,
}

/// All deliveries of some readers.
#[derive(Debug, PartialEq)]
pub(super) struct Flush<A> {
    pub(super) deliveries: Vec<(A, PostId)>,
    /// The position behind it.
    pub(super) end: u64,
}

/// Deliveries in the order of their ranges, and where each begins.
pub(super) struct ByRange<A> {
    pub(super) deliveries: Vec<(A, PostId)>,
    begins: [usize; RANGES as usize + 1],
}

impl<A: Copy + Into<u64>> ByRange<A> {
    pub(super) fn of(deliveries: Vec<(A, PostId)>, range_bits: u32) -> Self {
        let range = |reader: A| ((reader.into() >> range_bits) % RANGES) as usize;
        let mut begins = [0; RANGES as usize + 1];
        for (reader, _) in &deliveries {
            begins[range(*reader) + 1] += 1;
        }
        for at in 1..begins.len() {
            begins[at] += begins[at - 1];
        }
        let (mut ends, mut sorted) = (begins, deliveries.clone());
        for delivery in deliveries {
            let end = &mut ends[range(delivery.0)];
            sorted[*end] = delivery;
            *end += 1;
        }
        Self { deliveries: sorted, begins }
    }

    fn ranges(&self) -> impl Iterator<Item = &[(A, PostId)]> {
        self.begins.windows(2).map(|range| &self.deliveries[range[0]..range[1]])
    }
}

impl<A> Default for Turn<A> {
    fn default() -> Self {
        Self {
            gathered: (0..RANGES).map(|_| Vec::new()).collect(),
            gathered_count: 0,
            permits: 0,
            taken: 0,
            waiting: VecDeque::new(),
            last_ticket: 0,
            give_up: CancellationToken::new(),
        }
    }
}

impl<A: Copy + Into<u64>> Turn<A> {
    /// Adds a part, for which there are so many permits, and returns its ticket.
    pub(super) fn add(
        &mut self,
        partition: u32,
        permits: usize,
        by_range: &ByRange<A>,
        under_way: oneshot::Sender<()>,
        done: oneshot::Sender<Result<(), FanoutError>>,
    ) -> u64 {
        for (gathered, deliveries) in self.gathered.iter_mut().zip(by_range.ranges()) {
            gathered.extend_from_slice(deliveries);
        }
        self.gathered_count += by_range.deliveries.len();
        self.permits += permits;
        self.last_ticket += 1;
        let (ticket, from, under_way) = (self.last_ticket, self.taken, Some(under_way));
        self.waiting.push_back(Waiting { ticket, partition, from, under_way, done });
        ticket
    }

    /// Takes the next ranges with so many deliveries, or all that there is.
    pub(super) fn take(&mut self, count_min: usize) -> Flush<A> {
        let round = self.taken + RANGES;
        let mut deliveries = Vec::new();
        while self.taken < round && deliveries.len() < count_min && self.gathered_count > 0 {
            let mut range = std::mem::take(&mut self.gathered[(self.taken % RANGES) as usize]);
            self.gathered_count -= range.len();
            self.taken += 1;
            if deliveries.is_empty() {
                deliveries = range;
            } else {
                deliveries.append(&mut range);
            }
        }
        if self.gathered_count == 0 {
            // There is nothing in the others.
            self.taken = round;
        }
        Flush { deliveries, end: self.taken }
    }

    /// Takes note that a flush is written; returns how many permits are free by it.
    pub(super) fn wrote(&mut self, count: usize, end: u64) -> usize {
        while self.waiting.front().is_some_and(|part| part.from + RANGES <= end) {
            let Some(part) = self.waiting.pop_front() else { break };
            // Who has gone meanwhile does not want to know.
            let _ = part.done.send(Ok(()));
        }
        for part in self.waiting.iter_mut().filter(|part| part.from + UNDER_WAY <= end) {
            if let Some(under_way) = part.under_way.take() {
                let _ = under_way.send(());
            }
        }
        // A part that is larger than all the room has fewer permits than deliveries.
        let free = if self.waiting.is_empty() { self.permits } else { count.min(self.permits) };
        self.permits -= free;
        free
    }
}

impl<A> Turn<A> {
    /// Gives up all that is not written, and tells each partition why; returns how many
    /// permits are free by it.
    pub(super) fn give_up(&mut self, why: impl Fn(u32) -> FanoutError) -> usize {
        let Self { last_ticket, permits, waiting, .. } = std::mem::take(self);
        self.last_ticket = last_ticket;
        for part in waiting {
            let _ = part.done.send(Err(why(part.partition)));
        }
        permits
    }

    /// The partitions of what waits to be written.
    pub(super) fn partitions(&self) -> BTreeSet<u32> {
        self.waiting.iter().map(|part| part.partition).collect()
    }

    /// Whether a part waits to be written.
    pub(super) fn has(&self, ticket: u64) -> bool {
        self.waiting.iter().any(|part| part.ticket == ticket)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FLUSH: usize = 10;

    #[derive(Clone, Debug)]
    enum Step {
        Add(Vec<u32>),
        Take,
        Write,
    }

    fn step() -> impl Strategy<Value = Step> {
        let readers = proptest::collection::vec(0..600_u32, 1..30);
        prop_oneof![readers.prop_map(Step::Add), Just(Step::Take), Just(Step::Write)]
    }

    proptest! {
        #[test]
        fn a_part_is_done_once_all_of_it_is_written_and_no_later_than_after_one_turn(
            steps in proptest::collection::vec(step(), 1..60),
        ) {
            let mut turn = Turn::<u32>::default();
            let mut waiting = VecDeque::new();
            let mut flushes = VecDeque::<Flush<u32>>::new();
            let mut written = Vec::new();
            let (mut post, mut written_to) = (0, 0);
            for step in steps {
                match step {
                    Step::Add(readers) => {
                        post += 1;
                        let deliveries: Vec<(u32, PostId)> =
                            readers.into_iter().map(|reader| (reader, PostId(post))).collect();
                        let by_range = ByRange::of(deliveries.clone(), 0);
                        let (under_way, is_under_way) = oneshot::channel();
                        let (done, is_done) = oneshot::channel();
                        turn.add(1, deliveries.len(), &by_range, under_way, done);
                        waiting.push_back((deliveries, turn.taken, is_under_way, is_done));
                    }
                    Step::Take if turn.gathered_count > 0 => {
                        flushes.push_back(turn.take(FLUSH));
                    }
                    Step::Write => {
                        let Some(flush) = flushes.pop_front() else { continue };
                        written.extend(flush.deliveries.iter().copied());
                        written_to = flush.end;
                        turn.wrote(flush.deliveries.len(), flush.end);
                    }
                    Step::Take => {}
                }
                while let Some((deliveries, from, ..)) = waiting.front() {
                    let is_whole = deliveries.iter().all(|one| written.contains(one));
                    let after_a_turn = written_to >= from + RANGES;
                    prop_assert!(is_whole || !after_a_turn);
                    let (.., is_done) = waiting.front_mut().expect("it is there");
                    let told = is_done.try_recv().is_ok();
                    prop_assert_eq!(told, after_a_turn);
                    if !told {
                        break;
                    }
                    waiting.pop_front();
                }
            }
            prop_assert!(turn.permits >= turn.gathered_count);
        }
    }
}
