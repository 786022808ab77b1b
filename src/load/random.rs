//! What a load draws, from its seed alone: the same on every machine, for ever.
//!
//! The generator is Xoshiro256++, which `rand` promises to keep; everything drawn
//! from it is computed here.

use rand::{Rng, SeedableRng, rngs::Xoshiro256PlusPlus};

/// What randomness is drawn for: each purpose has generators of its own, so that
/// a change of one leaves the others alone.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Followers = 1,
    Posts = 2,
    Churn = 3,
    Probes = 4,
    Sample = 5,
    Pulls = 6,
    Hides = 7,
    Mentions = 8,
    Messages = 9,
}

/// The generator of one thing of one purpose.
pub(super) fn generator(seed: u64, purpose: Purpose, thing: u64) -> Xoshiro256PlusPlus {
    // Odd constants keep the three apart; the generator's own seeding mixes.
    let mixed = seed
        .wrapping_mul(0xd134_2543_de82_ef95)
        .wrapping_add(purpose as u64)
        .wrapping_mul(0xaf25_1af3_b0f0_25b5)
        .rotate_left(32)
        .wrapping_add(thing)
        .wrapping_mul(0x9e6c_63d0_876a_46ad);
    Xoshiro256PlusPlus::seed_from_u64(mixed)
}

/// Uniform in [0, 1).
pub(super) fn unit(random: &mut Xoshiro256PlusPlus) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Uniform below `bound`, which is at least 1. (The bias, below 2^-32 for any
/// bound that occurs here, is left alone.)
pub(super) fn below(random: &mut Xoshiro256PlusPlus, bound: u64) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(bound)) >> 64) as u64
}
