//! A seeded synthetic population, a pure function of its seed and its size.
//!
//! Who follows an account is computed from that account alone, so ten million
//! accounts stream by without the graph being held anywhere.
//!
//! # How many followers an account has
//! A mixture of two laws, cut off at `cap = N / 2` followers:
//!
//! - with probability 0.05 the **tail**, a Pareto law that begins at 250:
//!   `P(X > x) = 0.05 (250 / x)^α`. 0.8 % above 1,000 means
//!   `0.05 (250 / 1000)^α = 0.008`, so `α = ln(6.25) / ln(4) = 1.3219`. Draws
//!   above the cap become the cap.
//! - otherwise the **body**, an exponential law on [0, 250], whose rate is solved
//!   so that the mean of the whole comes to 70 (bisection; where 250 is more than
//!   the cap, the cap takes its place).
//!
//! The mean of the capped tail is
//! `0.05 · 250 (α / (α - 1)) - 0.05 · 250^α cap^(1 - α) / (α - 1)`, about 51 of the
//! 70 for a large population: most follows are of a few.
//!
//! Which accounts follow is uniform, so the number of accounts that one follows
//! scatters around 70. Below some 2,000 accounts the cap makes the quantiles
//! unreachable, and below 280 the mean becomes a quarter of the accounts.
//!
//! # The same population for ever
//! The random numbers never change, and a test pins a small population. (The last
//! bit of `ln` and `powf` may differ between platforms; it very rarely matters.)

use rand::rngs::Xoshiro256PlusPlus;

use super::{
    graph::UserIndex,
    random::{Purpose, below, generator, unit},
};
use crate::domain::UserId;

/// How many accounts one follows, on average, where there are enough of them.
const MEAN_FOLLOWS: f64 = 70.0;
/// Where the tail begins, and which share of the accounts is in it.
const TAIL_START: f64 = 250.0;
const TAIL_SHARE: f64 = 0.05;
/// The share of the accounts with more than four times as many followers.
const FAR_TAIL_SHARE: f64 = 0.008;
const FAR_TAIL_FACTOR: f64 = 4.0;

/// A synthetic population of accounts 1 to N and their follows.
#[derive(Clone, Debug, PartialEq)]
pub struct Population {
    seed: u64,
    user_count: u32,
    /// What is added to every id.
    id_offset: u64,
    law: FollowerLaw,
}

impl Population {
    /// The population of this seed with `user_count` accounts, at least 2.
    pub fn new(seed: u64, user_count: u32) -> Self {
        let user_count = user_count.max(2);
        Self { seed, user_count, id_offset: 0, law: FollowerLaw::new(user_count) }
    }

    /// The same with so much added to every id; `None` where the greatest would pass 2^64 - 1.
    pub(super) fn shifted(self, id_offset: u64) -> Option<Self> {
        id_offset.checked_add(u64::from(self.user_count))?;
        Some(Self { id_offset, ..self })
    }

    /// The id of an account.
    pub(super) fn id(&self, user: UserIndex) -> UserId {
        UserId(self.id_offset + u64::from(user) + 1)
    }

    /// Which account has an id.
    pub(super) fn index_of(&self, id: UserId) -> Option<UserIndex> {
        let index = id.0.checked_sub(self.id_offset)?.checked_sub(1)?;
        UserIndex::try_from(index).ok().filter(|index| *index < self.user_count)
    }

    /// How many accounts there are; without an offset their ids are 1 to this number.
    pub fn user_count(&self) -> u32 {
        self.user_count
    }

    /// About how many follows there are; only counting them all is exact.
    pub fn follow_count_estimate(&self) -> u64 {
        (mean_follows(self.user_count) * f64::from(self.user_count)) as u64
    }

    /// Who follows an account: ascending, none twice, never itself.
    pub fn followers_of(&self, followee: UserId) -> Vec<UserId> {
        let Some(index) = self.index_of(followee) else { return Vec::new() };
        let mut followers = Vec::new();
        self.follower_indices_into(index, &mut followers);
        followers.into_iter().map(|index| self.id(index)).collect()
    }

    /// How many followers an account has.
    pub(super) fn follower_count(&self, followee: UserIndex) -> u32 {
        let mut random = generator(self.seed, Purpose::Followers, u64::from(followee));
        self.law.draw(&mut random)
    }

    /// Appends the followers of an account to an empty `followers`.
    pub(super) fn follower_indices_into(
        &self,
        followee: UserIndex,
        followers: &mut Vec<UserIndex>,
    ) {
        let mut random = generator(self.seed, Purpose::Followers, u64::from(followee));
        let count = self.law.draw(&mut random) as usize;
        followers.reserve(count);
        // Drawn from all accounts but the followee; what comes twice is drawn
        // again, which leaves every set of this size equally likely.
        while followers.len() < count {
            for _ in followers.len()..count {
                let other = below(&mut random, u64::from(self.user_count) - 1) as UserIndex;
                followers.push(other + UserIndex::from(other >= followee));
            }
            followers.sort_unstable();
            followers.dedup();
        }
    }
}

/// How many followers accounts have.
#[derive(Clone, Copy, Debug, PartialEq)]
struct FollowerLaw {
    alpha: f64,
    cap: f64,
    body_end: f64,
    /// The rate of the body's exponential law; negative where a small population
    /// needs a body that rises.
    body_rate: f64,
}

impl FollowerLaw {
    fn new(user_count: u32) -> Self {
        let alpha = (TAIL_SHARE / FAR_TAIL_SHARE).ln() / FAR_TAIL_FACTOR.ln();
        let cap = f64::from(user_count / 2);
        let mean = mean_follows(user_count);
        let tail_mean = if cap <= TAIL_START {
            TAIL_SHARE * cap
        } else {
            let whole = TAIL_SHARE * TAIL_START * alpha / (alpha - 1.0);
            let beyond =
                TAIL_SHARE * TAIL_START.powf(alpha) * cap.powf(1.0 - alpha) / (alpha - 1.0);
            whole - beyond
        };
        let body_end = cap.min(TAIL_START);
        let body_rate = body_rate((mean - tail_mean) / (1.0 - TAIL_SHARE), body_end);
        Self { alpha, cap, body_end, body_rate }
    }

    fn draw(&self, random: &mut Xoshiro256PlusPlus) -> u32 {
        let u = unit(random);
        let count = if u < TAIL_SHARE {
            // In (0, TAIL_SHARE]: 0 would be infinitely many.
            let u = TAIL_SHARE - u;
            TAIL_START * (TAIL_SHARE / u).powf(1.0 / self.alpha)
        } else {
            let v = unit(random);
            if self.body_rate.abs() * self.body_end < 1e-9 {
                v * self.body_end
            } else {
                let all = -(-self.body_rate * self.body_end).exp_m1();
                -(-v * all).ln_1p() / self.body_rate
            }
        };
        // Rounded up in the tail, so that its share has more than 250.
        let count = if u < TAIL_SHARE { count.floor() + 1.0 } else { count.round() };
        count.min(self.cap) as u32
    }
}

fn mean_follows(user_count: u32) -> f64 {
    MEAN_FOLLOWS.min(f64::from(user_count) / 4.0)
}

/// The rate at which an exponential law on [0, `end`] has this mean.
fn body_rate(mean: f64, end: f64) -> f64 {
    let mean_at = |rate: f64| {
        if rate.abs() * end < 1e-9 { end / 2.0 } else { 1.0 / rate - end / (rate * end).exp_m1() }
    };
    // The mean falls as the rate rises.
    let (mut low, mut high) = (-50.0 / end, 1_000.0 / end);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if mean_at(middle) > mean { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_accounts_have_the_quantiles_and_the_mean() {
        let population = Population::new(7, 100_000);
        let (mut total, mut over_250, mut over_1_000, mut largest) = (0u64, 0u32, 0u32, 0usize);
        let mut followers = Vec::new();
        for user in 0..100_000 {
            followers.clear();
            population.follower_indices_into(user, &mut followers);
            assert!(followers.is_sorted_by(|a, b| a < b), "a follower twice: {user}");
            assert!(!followers.contains(&user), "a self-follow: {user}");
            assert_eq!(followers.len(), population.follower_count(user) as usize);
            total += followers.len() as u64;
            over_250 += u32::from(followers.len() > 250);
            over_1_000 += u32::from(followers.len() > 1_000);
            largest = largest.max(followers.len());
        }
        let mean = total as f64 / 100_000.0;
        assert!((64.0..76.0).contains(&mean), "mean {mean}");
        assert!((4_700..5_300).contains(&over_250), "above 250: {over_250}");
        assert!((700..900).contains(&over_1_000), "above 1,000: {over_1_000}");
        assert!((10_000..=50_000).contains(&largest), "largest {largest}");
    }

    #[test]
    fn the_expected_mean_is_70_at_every_size() {
        for user_count in [1_000, 10_000, 100_000, 1_000_000, 10_000_000] {
            let law = FollowerLaw::new(user_count);
            let mut random = generator(1, Purpose::Sample, u64::from(user_count));
            let draws = 400_000;
            let total: f64 = (0..draws).map(|_| f64::from(law.draw(&mut random))).sum();
            let mean = total / f64::from(draws);
            // The tail is heavy: even this many draws scatter by a few percent.
            assert!((64.0..80.0).contains(&mean), "{user_count} accounts: mean {mean}");
        }
    }

    #[test]
    fn the_same_seed_is_the_same_population() {
        let first = Population::new(42, 5_000);
        assert_eq!(first, Population::new(42, 5_000));
        let lists = |population: &Population| {
            (1..=200).map(|user| population.followers_of(UserId(user))).collect::<Vec<_>>()
        };
        assert_eq!(lists(&first), lists(&Population::new(42, 5_000)));
        assert_ne!(lists(&first), lists(&Population::new(43, 5_000)));
    }

    #[test]
    fn the_population_of_a_seed_is_pinned() {
        let population = Population::new(1, 1_000);
        let counts: Vec<usize> =
            (1..=8).map(|user| population.followers_of(UserId(user)).len()).collect();
        let first: Vec<u64> =
            population.followers_of(UserId(1)).into_iter().take(5).map(|user| user.0).collect();
        assert_eq!((counts, first), (PINNED_COUNTS.to_vec(), PINNED_FIRST.to_vec()));
    }

    // A change here means that every published figure of a seed has changed.
    const PINNED_COUNTS: [usize; 8] = [5, 11, 15, 214, 152, 11, 48, 140];
    const PINNED_FIRST: [u64; 5] = [137, 309, 505, 667, 894];

    #[test]
    fn shifted_population_is_the_same_with_other_ids() {
        let population = Population::new(1, 1_000);
        for id_offset in [1, u64::from(u32::MAX), (1 << 63) - 500, u64::MAX - 1_000] {
            let shifted = population.clone().shifted(id_offset).expect("within bounds");
            for user in [1, 500, 1_000] {
                let of = |followers: Vec<UserId>| followers.into_iter().map(|user| user.0);
                let followers = of(population.followers_of(UserId(user)));
                let expected = followers.map(|user| user + id_offset);
                assert!(of(shifted.followers_of(UserId(user + id_offset))).eq(expected));
                let index = shifted.index_of(UserId(user + id_offset)).expect("it is there");
                assert_eq!(shifted.id(index), UserId(user + id_offset));
            }
            assert_eq!(shifted.index_of(UserId(id_offset)), None);
        }
        assert_eq!(population.shifted(u64::MAX - 999), None);
    }

    #[test]
    fn small_populations_hold_together() {
        for user_count in [0, 2, 3, 5, 50, 300] {
            let population = Population::new(3, user_count);
            for user in 1..=u64::from(population.user_count()) {
                let followers = population.followers_of(UserId(user));
                assert!(followers.len() <= population.user_count() as usize / 2);
                assert!(followers.iter().all(|f| f.0 != user && f.0 >= 1));
            }
        }
        let outside = Population::new(3, 50);
        assert!(outside.followers_of(UserId(0)).is_empty());
        assert!(outside.followers_of(UserId(51)).is_empty());
    }
}
