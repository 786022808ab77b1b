//! Who reads: some of a town's readers, all of them with full timelines, a few of whom
//! read much and most of whom read little.

use rand::{Rng, SeedableRng, rngs::Xoshiro256PlusPlus};

use super::{
    BenchError,
    closed_loop::Turn,
    roost::Roost,
    town::{FILLED, Town},
};
use crate::{domain::UserId, store::Store};

/// So many have a live timeline; the others sleep.
const READERS_MAX: usize = 10_000;
/// Those whom all of them follow, and who fill the timelines.
pub(super) const FILLERS: usize = 16;
/// The exponent of Zipf's law, as YCSB has it.
const ZIPF_EXPONENT: f64 = 0.99;
/// How many draws there are before they come again.
const DRAWS: usize = 1 << 16;
/// Callers begin so far apart in the draws.
pub(super) const CALLER_STRIDE: usize = 4_099;
const SEED: u64 = 1;

/// Readers, and the order in which they read.
pub(super) struct Audience {
    readers: Vec<UserId>,
    /// By their places among the readers.
    draws: Vec<usize>,
}

impl Audience {
    /// Readers from everywhere in the town.
    pub(super) fn of(town: &Town) -> Self {
        let all = town.readers();
        let step = all.len().div_ceil(READERS_MAX).max(1);
        let mut readers: Vec<UserId> = all.into_iter().step_by(step).collect();
        let mut random = Xoshiro256PlusPlus::seed_from_u64(SEED);
        // Those who read much are not neighbours.
        for place in (1..readers.len()).rev() {
            readers.swap(place, (random.next_u64() % (place as u64 + 1)) as usize);
        }
        let draws = zipf(readers.len(), &mut random);
        Self { readers, draws }
    }

    /// Lets them follow whom the town's readers follow, fills their timelines to the cap
    /// and wakes them.
    ///
    /// The posts that fill them are there before anybody follows their authors, so that
    /// none need be delivered.
    pub(super) async fn seat<S: Store>(
        &self,
        roost: &mut Roost<S>,
        town: &Town,
    ) -> Result<(), BenchError> {
        let mut readers = self.readers.clone();
        readers.sort_unstable();
        let filler = Town::filler(&readers, FILLERS, FILLED);
        roost.append(filler.events()).await?;
        roost.append(filler.follows()).await?;
        roost.append(town.follows()).await?;
        roost.settle().await?;
        roost.wake(&readers).await
    }

    /// Those whom all of them follow, once they are seated.
    pub(super) fn fillers(&self) -> impl Iterator<Item = UserId> {
        let last = self.readers.iter().max().map_or(0, |last| last.0);
        (last + 1..).take(FILLERS).map(UserId)
    }

    /// Who reads next.
    pub(super) fn reader(&self, turn: Turn) -> UserId {
        let draw = turn.caller * CALLER_STRIDE + turn.number;
        self.readers[self.draws[draw % self.draws.len()]]
    }

    pub(super) fn len(&self) -> usize {
        self.readers.len()
    }
}

/// Draws the first of `count` most often, the second half as often, and so on.
fn zipf(count: usize, random: &mut Xoshiro256PlusPlus) -> Vec<usize> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=count)
        .map(|rank| {
            sum += (rank as f64).powf(-ZIPF_EXPONENT);
            sum
        })
        .collect();
    let draw = |_| {
        let unit = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        sums.partition_point(|upto| *upto <= unit * sum).min(count.saturating_sub(1))
    };
    (0..DRAWS).map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_read_much_and_all_are_in_their_places() {
        let draws = zipf(1_000, &mut Xoshiro256PlusPlus::seed_from_u64(SEED));
        let count = |place| draws.iter().filter(|draw| **draw == place).count();
        // Of 1,000 the first has about a seventh of all, twice as many as the second.
        let (first, second) = (count(0), count(1));
        assert!((DRAWS / 9..DRAWS / 6).contains(&first), "{first}");
        assert!((second * 17 / 10..second * 23 / 10).contains(&first), "{first} {second}");
        assert!(draws.iter().all(|draw| *draw < 1_000));
    }
}
