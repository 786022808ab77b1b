//! A seeded simulation of the whole engine above the log's disk: clients, workers,
//! rebuilds and reads interleave at every call of the log and the store, and
//! crashes strike between any two of them. In the end, and at every read on the
//! way, what readers see is held against a brute-force model.
//!
//! Slices are so small that most fan-outs are long ones, so that crashes fall into them,
//! and workers that follow in the same process go on at their cursors.
//!
//! One thread, a paused clock and one random generator: a seed is a run. A run
//! that fails prints its seed; `ROOST_SIM_SEED=N` replays it, `ROOST_SIM_SEEDS=N`
//! changes how many are run.

#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/inbox.rs"]
mod inbox;
#[path = "simulation/log.rs"]
mod log;
#[path = "simulation/model.rs"]
mod model;
#[path = "simulation/mutation.rs"]
mod mutation;
#[path = "simulation/run.rs"]
mod run;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use mutation::{Mutation, caught};

const SEEDS: u64 = 1_000;
/// How many of them are run twice, to see that they can be replayed.
const SEEDS_TWICE: u64 = 50;

fn number_from_env(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn every_timeline_equals_the_model_whatever_fails() {
    let seeds = match number_from_env("ROOST_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from_env("ROOST_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let mut totals = run::Totals::default();
    for seed in seeds.clone() {
        match catch_unwind(AssertUnwindSafe(|| run::run(seed, Mutation::None))) {
            Ok(run) => totals.add(run),
            Err(panic) => {
                eprintln!("seed {seed} failed; replay it with ROOST_SIM_SEED={seed}");
                resume_unwind(panic);
            }
        }
    }
    println!("{} seeds: {totals:?}", seeds.clone().count());
    if seeds.count() >= 100 {
        // A simulation that meets no trouble proves nothing.
        assert!(totals.posts > 0 && totals.deleted > 0 && totals.reads > 0, "{totals:?}");
        assert!(totals.process_crashes > 0 && totals.worker_crashes > 0, "{totals:?}");
        assert!(totals.repeated_requests > 0 && totals.resumed_fanouts > 0, "{totals:?}");
        assert!(totals.store_losses > 0 && totals.capped_timelines > 0, "{totals:?}");
        assert!(totals.pulled > 0 && totals.switched > 0, "{totals:?}");
        assert!(totals.hidden > 0 && totals.notified > 0, "{totals:?}");
        assert!(totals.messages > 0 && totals.deleted_messages > 0, "{totals:?}");
    }
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..SEEDS_TWICE {
        assert_eq!(
            run::run(seed, Mutation::None),
            run::run(seed, Mutation::None),
            "seed {seed} ran in two ways"
        );
    }
}

#[test]
fn an_attempted_mark_that_is_dropped_is_noticed() {
    caught(Mutation::DropsTheAttemptedMark, 0..SEEDS);
}

#[test]
fn a_commit_before_the_write_is_noticed() {
    caught(Mutation::CommitsBeforeWriting, 0..SEEDS);
}

#[test]
fn a_rebuild_that_is_announced_too_late_is_noticed() {
    caught(Mutation::AnnouncesARebuildTooLate, 0..SEEDS);
}
