//! Mistakes that an engine may make, to see that the simulation notices them.

use std::{
    any::Any,
    cell::Cell,
    ops::Range,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::Once,
};

use crate::run::run;

/// What the log and the store of a run do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    None,
    /// Whoever resumes a partition is told that nothing was attempted beyond what holds
    /// everywhere: it pushes without a look, and applies again piece by piece.
    DropsTheAttemptedMark,
    /// Whoever resumes a partition is told that all that was applied is delivered, as if
    /// the worker before it had committed first and written then.
    CommitsBeforeWriting,
    /// A rebuild begins in the store only once it has read the ledger.
    AnnouncesARebuildTooLate,
}

impl Mutation {
    /// What the comparisons say that must notice it; any other panic is something else.
    ///
    /// A mark that is dropped doubles what lists hold, and timelines are sets here, so that
    /// their pages tell of it in one seed of a thousand. The pushes tell at once: each is
    /// compared with what the timelines were given before.
    ///
    /// A rebuild that is announced too late misses posts, or brings back what is taken away
    /// meanwhile.
    fn signs(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::DropsTheAttemptedMark => &["a second time as if the first"],
            Self::CommitsBeforeWriting => &["the home timeline of"],
            Self::AnnouncesARebuildTooLate => &["the home timeline of", "is deleted, and"],
        }
    }
}

/// Runs seeds with a mutation until a comparison fails: that seed.
///
/// # Panics
///
/// If none of them fails, or one fails otherwise.
pub fn caught(mutation: Mutation, seeds: Range<u64>) -> u64 {
    for seed in seeds.clone() {
        let Err(said) = quietly(|| run(seed, mutation)) else { continue };
        let by_comparison = mutation.signs().iter().any(|sign| said.contains(sign));
        assert!(by_comparison, "seed {seed} with {mutation:?} fails by something else: {said}");
        println!("{mutation:?}: caught by seed {seed}: {said}");
        return seed;
    }
    panic!("{mutation:?} is not caught by any of the seeds {seeds:?}");
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What `work` panics with, if it does, which is printed nowhere. A run has one thread,
/// so that other tests' panics are printed as ever.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_QUIET.get() {
                loud(panic);
            }
        }));
    });
    IS_QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    IS_QUIET.set(false);
    result.map_err(|panic| text_of(&*panic))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "a panic without words".to_owned())
}
