//! Which calls of a class are let in, wait, or are shed. Pure: the time is given.
//!
//! So many calls are at work at once; the others wait in order. Once the oldest has waited
//! too long for some time, there is more to do than can be done: then the newest goes first,
//! whose client still waits, and what has waited too long is shed (CoDel with adaptive LIFO).
//! That ends when nothing waits any more.
//!
//! How many are at work follows from what they wait for. While calls wait here, and those at
//! work take as long as they do when none waits, more are let in: they wait for another
//! process, not for each other. Where they take longer, or the threads are late to begin new
//! calls, fewer are.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The longest that a call should wait.
pub(super) const WAIT_TARGET: Duration = Duration::from_millis(200);
/// So long calls wait longer than that until some are shed: a burst passes.
const INTERVAL: Duration = Duration::from_millis(100);
/// How often the limit changes.
const ADAPT_EVERY: Duration = Duration::from_millis(50);
/// New calls that are begun so soon leave time for more.
const LAG_LOW: Duration = Duration::from_millis(1);
/// New calls that are begun so late show that there are too many.
const LAG_HIGH: Duration = Duration::from_millis(10);

/// Work that takes so many times as long, in percent, as when nothing waits.
const TOOK_FINE_PERCENT: u32 = 150;
const TOOK_LONG_PERCENT: u32 = 200;
/// How much of the usual time of work a new interval makes.
const USUAL_SHARE: u32 = 8;

/// Of one class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Calls at work at once: to begin with, and between which bounds it adapts.
    pub(super) limit: usize,
    pub(super) limit_min: usize,
    pub(super) limit_max: usize,
    /// Calls that wait; one more is shed.
    pub(super) waiting_max: usize,
}

/// The calls of one class.
#[derive(Debug)]
pub(super) struct Queue {
    bounds: Bounds,
    limit: usize,
    working: usize,
    next_ticket: u64,
    /// When each call that waits arrived, by its ticket: the lowest is the oldest.
    waiting: BTreeMap<u64, Instant>,
    /// Since when the oldest has waited for too long.
    late_since: Option<Instant>,
    is_overloaded: bool,
    seen: Seen,
    /// How long the work of a call takes when nothing waits, once that is known.
    usual: Option<Duration>,
}

/// What was seen since the limit was last adapted.
#[derive(Debug, Default)]
struct Seen {
    since: Option<Instant>,
    /// How late new calls were begun, all together.
    lag: Duration,
    begun: u32,
    /// How long the work of calls took, all together.
    took: Duration,
    ended: u32,
    /// Whether calls waited at any time.
    had_waiting: bool,
}

/// What becomes of a call that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    LetIn,
    /// With this ticket.
    Waits(u64),
    Shed,
}

/// What becomes of calls that wait.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decided {
    pub(super) let_in: Vec<u64>,
    pub(super) shed: Vec<u64>,
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            limit: bounds.limit,
            working: 0,
            next_ticket: 0,
            waiting: BTreeMap::new(),
            late_since: None,
            is_overloaded: false,
            seen: Seen::default(),
            usual: None,
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A call that was begun `lag` after its headers had come.
    pub(super) fn arrive(&mut self, now: Instant, lag: Duration) -> Arrival {
        self.adapt(now, lag);
        if self.working < self.limit && self.waiting.is_empty() {
            self.working += 1;
            return Arrival::LetIn;
        }
        if self.waiting.len() >= self.bounds.waiting_max {
            return Arrival::Shed;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.insert(ticket, now);
        Arrival::Waits(ticket)
    }

    /// A call that was let in has ended, so long after that.
    pub(super) fn leave(&mut self, took: Duration) {
        self.release();
        self.seen.took += took;
        self.seen.ended += 1;
    }

    /// A call that was let in has been given up before it began.
    pub(super) fn release(&mut self) {
        self.working = self.working.saturating_sub(1);
    }

    /// A call that waits has been given up by its client.
    pub(super) fn give_up(&mut self, ticket: u64) {
        self.waiting.remove(&ticket);
    }

    /// Decides on those that wait; to be called after each change.
    pub(super) fn decide(&mut self, now: Instant) -> Decided {
        let mut decided = Decided::default();
        self.judge(now);
        if self.is_overloaded {
            while let Some(oldest) = self.waiting.first_entry()
                && now.saturating_duration_since(*oldest.get()) >= WAIT_TARGET
            {
                decided.shed.push(*oldest.key());
                oldest.remove();
            }
        }
        while self.working < self.limit {
            let next =
                if self.is_overloaded { self.waiting.pop_last() } else { self.waiting.pop_first() };
            let Some((ticket, _)) = next else { break };
            self.working += 1;
            decided.let_in.push(ticket);
        }
        decided
    }

    fn judge(&mut self, now: Instant) {
        let Some((_, oldest)) = self.waiting.first_key_value() else {
            self.is_overloaded = false;
            self.late_since = None;
            return;
        };
        self.seen.had_waiting = true;
        if now.saturating_duration_since(*oldest) < WAIT_TARGET {
            self.late_since = None;
            return;
        }
        let since = *self.late_since.get_or_insert(now);
        self.is_overloaded |= now.saturating_duration_since(since) >= INTERVAL;
    }

    fn adapt(&mut self, now: Instant, lag: Duration) {
        self.seen.lag += lag;
        self.seen.begun += 1;
        let since = *self.seen.since.get_or_insert(now);
        if now.saturating_duration_since(since) < ADAPT_EVERY {
            return;
        }
        let lag = self.seen.lag / self.seen.begun.max(1);
        if let Some(took) = self.seen.took.checked_div(self.seen.ended) {
            let usual = *self.usual.get_or_insert(took);
            if self.seen.had_waiting {
                self.limit = adapted(self.limit, lag, took, usual, &self.bounds);
            } else {
                self.usual = Some((usual * (USUAL_SHARE - 1) + took) / USUAL_SHARE);
            }
        }
        let had_waiting = !self.waiting.is_empty();
        self.seen = Seen { since: Some(now), had_waiting, ..Seen::default() };
    }
}

/// The next limit while calls wait, after calls were begun so late and took so long on average.
fn adapted(limit: usize, lag: Duration, took: Duration, usual: Duration, bounds: &Bounds) -> usize {
    let next = if lag >= LAG_HIGH || took * 100 >= usual * TOOK_LONG_PERCENT {
        limit - limit.div_ceil(8)
    } else if lag < LAG_LOW && took * 100 <= usual * TOOK_FINE_PERCENT {
        limit + limit / 2
    } else {
        limit
    };
    next.clamp(bounds.limit_min, bounds.limit_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { limit: 2, limit_min: 1, limit_max: 64, waiting_max: 1_000 };
    /// Neither so early nor so late that the limit changes.
    const LAG: Duration = Duration::from_millis(5);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn calls_beyond_the_limit_wait_in_order() {
        let (mut queue, now) = (Queue::new(BOUNDS), Instant::now());
        let arrivals = [(); 4].map(|()| queue.arrive(now, LAG));
        let waits = |ticket| Arrival::Waits(ticket);
        assert_eq!(arrivals, [Arrival::LetIn, Arrival::LetIn, waits(0), waits(1)]);
        assert_eq!(queue.decide(now), Decided::default());
        queue.leave(LAG);
        assert_eq!(queue.decide(now).let_in, [0]);
        queue.give_up(1);
        queue.leave(LAG);
        assert_eq!(queue.decide(now), Decided::default());
        assert_eq!(queue.arrive(now, LAG), Arrival::LetIn);
    }

    #[test]
    fn a_burst_that_is_served_in_time_is_not_shed() {
        let (mut queue, begun) = (Queue::new(BOUNDS), Instant::now());
        for _ in 0..500 {
            queue.arrive(begun, LAG);
        }
        // Two calls each millisecond: the last waits for a quarter of a second.
        let mut shed = 0;
        for passed in 1..=250 {
            queue.leave(LAG);
            queue.leave(LAG);
            shed += queue.decide(begun + ms(passed)).shed.len();
        }
        assert_eq!((shed, queue.waiting.len()), (0, 0));
    }

    #[test]
    fn twice_the_load_keeps_the_rate_and_the_wait_short() {
        let (mut queue, begun) = (Queue::new(BOUNDS), Instant::now());
        let mut arrived = BTreeMap::new();
        let (mut let_in, mut shed, mut waits) = (0, 0, Vec::new());
        // Ten seconds, in each millisecond of which four calls come and two are done.
        for passed in 0..10_000 {
            let now = begun + ms(passed);
            for _ in 0..4 {
                match queue.arrive(now, LAG) {
                    Arrival::LetIn => let_in += 1,
                    Arrival::Waits(ticket) => drop(arrived.insert(ticket, now)),
                    Arrival::Shed => shed += 1,
                }
            }
            queue.leave(LAG);
            queue.leave(LAG);
            let decided = queue.decide(now);
            shed += decided.shed.len();
            for ticket in decided.let_in {
                let_in += 1;
                if passed > 1_000 {
                    waits.push(now - arrived[&ticket]);
                }
            }
            assert!(queue.waiting.len() <= 1_000, "{}", queue.waiting.len());
        }
        waits.sort_unstable();
        assert!(let_in >= 19_990, "the rate is kept: {let_in}");
        assert!(shed >= 18_000, "the rest is shed: {shed}");
        assert!(waits[waits.len() * 99 / 100] <= ms(5), "{:?}", waits.last());
    }

    #[test]
    fn an_overload_that_has_passed_is_forgotten() {
        let (mut queue, begun) = (Queue::new(BOUNDS), Instant::now());
        for _ in 0..4 {
            queue.arrive(begun, LAG);
        }
        assert!(queue.decide(begun + WAIT_TARGET).shed.is_empty());
        let late = begun + WAIT_TARGET + INTERVAL;
        assert_eq!(queue.decide(late).shed, [0, 1]);
        queue.leave(LAG);
        queue.leave(LAG);
        queue.decide(late);
        assert!(!queue.is_overloaded);
        // In order again.
        for _ in 0..4 {
            queue.arrive(late, LAG);
        }
        queue.leave(LAG);
        assert_eq!(queue.decide(late).let_in, [2]);
    }

    #[test]
    fn what_waits_for_others_is_let_in_and_what_waits_for_threads_is_not() {
        let next = |limit, lag, took| adapted(limit, lag, took, ms(10), &BOUNDS);
        assert_eq!(next(16, Duration::ZERO, ms(10)), 24);
        assert_eq!(next(16, LAG, ms(10)), 16);
        assert_eq!(next(16, Duration::ZERO, ms(18)), 16);
        assert_eq!(next(16, Duration::ZERO, ms(20)), 14, "they wait for each other");
        assert_eq!(next(16, LAG_HIGH, ms(10)), 14);
        assert_eq!(next(64, Duration::ZERO, ms(10)), 64);
        assert_eq!(next(1, LAG_HIGH, ms(10)), 1);
    }

    #[test]
    fn the_usual_time_is_learned_while_nothing_waits() {
        let (mut queue, begun) = (Queue::new(BOUNDS), Instant::now());
        for passed in 0..100 {
            assert_eq!(queue.arrive(begun + ms(passed), LAG), Arrival::LetIn);
            queue.leave(ms(3));
        }
        assert_eq!(queue.usual, Some(ms(3)));
        // Once calls wait it stays what it was.
        for passed in 100..200 {
            queue.arrive(begun + ms(passed), LAG);
            queue.leave(ms(300));
            queue.arrive(begun + ms(passed), LAG);
            queue.arrive(begun + ms(passed), LAG);
            queue.decide(begun + ms(passed));
        }
        assert!(queue.usual < Some(ms(150)), "{:?}", queue.usual);
        assert_eq!(queue.limit(), 1);
    }

    #[test]
    fn a_queue_that_is_full_sheds_at_once() {
        let mut queue = Queue::new(Bounds { waiting_max: 1, ..BOUNDS });
        let now = Instant::now();
        let arrivals = [(); 4].map(|()| queue.arrive(now, LAG));
        assert_eq!(arrivals[2..], [Arrival::Waits(0), Arrival::Shed]);
    }
}
