//! Random tests that can be run again as they were.

use std::env;

const VARIABLE: &str = "ROOST_TEST_SEED";

/// The seed of a random test: another one every time, or that of the environment.
/// What a failed test prints says how to replay it.
pub fn seed() -> u64 {
    let seed = match env::var(VARIABLE) {
        Ok(seed) => seed.parse().expect("a seed is a number"),
        Err(_) => rand::random(),
    };
    println!("seed {seed}; replay it with {VARIABLE}={seed}");
    seed
}
