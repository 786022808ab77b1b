//! What a fault run is told by its environment:
//!
//! - `ROOST_FAULTS`: how many faults (default: enough for every kind, at least 20); more
//!   than 25 are several runs, of this seed and the ones after it, each with a
//!   comparison at its end
//! - `ROOST_TEST_SEED`: which ones, and what is published meanwhile (default: 1, so that
//!   each change is tried by the same plan)
//! - `ROOST_FAULTS_BACKEND`: `redis` or `cluster` alone
//! - `ROOST_FAULTS_KINDS`: these kinds alone, comma-separated
//! - `ROOST_FAULTS_TRACE`: an activity trace that is replayed meanwhile, as `roost load
//!   --trace` reads it, instead of a synthetic load with follows, unfollows and deletions.
//!   It must last longer than the faults, of which each run has at most 25
//! - `ROOST_FAULTS_PORT`: the first of 32 ports (default: 16500)

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::plan::Kind;

const FAULTS_MIN: usize = 20;
/// So few that what a run published is still in the timelines at its end, and that a
/// run which has found something is soon repeated.
const FAULTS_PER_RUN: usize = 25;
const SEED: u64 = 1;
const PORT: u16 = 16_500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Kafka and one standalone Redis.
    Redis,
    /// Kafka of three brokers, and a Cluster of three primaries with a replica each.
    Cluster,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// Which of the tests of this suite it is for.
    pub test: &'static str,
    pub backend: Backend,
    pub seed: u64,
    pub fault_count: usize,
    /// In the order in which they are declared, each once.
    pub kinds: Vec<Kind>,
    /// What is published meanwhile, if it is not made up.
    pub trace: Option<PathBuf>,
    pub first_port: u16,
}

impl Settings {
    /// `None`, and a line that says so, if the environment asks for the other backend.
    ///
    /// # Panics
    ///
    /// If a variable makes no sense.
    pub fn from_environment(backend: Backend) -> Option<Self> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(only) = variable("ROOST_FAULTS_BACKEND") {
            assert!(["redis", "cluster"].contains(&&*only), "ROOST_FAULTS_BACKEND is {only}");
            if only != backend.name() {
                println!("skipped: ROOST_FAULTS_BACKEND is {only}");
                return None;
            }
        }
        let mut kinds: Vec<Kind> = Kind::all_of(backend).collect();
        if let Some(only) = variable("ROOST_FAULTS_KINDS") {
            let only: Vec<&str> = only.split(',').collect();
            for name in &only {
                let known = Kind::ALL.iter().any(|kind| kind.name() == *name);
                assert!(known, "ROOST_FAULTS_KINDS: {name} is none of {:?}", Kind::ALL);
            }
            kinds.retain(|kind| only.contains(&kind.name()));
            assert!(!kinds.is_empty(), "ROOST_FAULTS_KINDS has none of {}", backend.name());
        }
        let number = |name: &str| {
            let parsed = |value: String| {
                value.parse::<u64>().unwrap_or_else(|_| panic!("{name} is no number: {value}"))
            };
            variable(name).map(parsed)
        };
        Some(Self {
            test: "faults",
            backend,
            seed: number("ROOST_TEST_SEED").unwrap_or(SEED),
            fault_count: number("ROOST_FAULTS")
                .map_or(FAULTS_MIN.max(kinds.len()), |count| count as usize),
            kinds,
            trace: variable("ROOST_FAULTS_TRACE").map(PathBuf::from),
            first_port: number("ROOST_FAULTS_PORT").map_or(PORT, |port| port as u16),
        })
    }

    /// The runs that these faults are cut into.
    pub fn runs(&self) -> impl Iterator<Item = Self> {
        let begins = (0..self.fault_count).step_by(FAULTS_PER_RUN);
        begins.zip(0..).map(|(begin, number)| Self {
            seed: self.seed.wrapping_add(number),
            fault_count: FAULTS_PER_RUN.min(self.fault_count - begin),
            ..self.clone()
        })
    }

    fn name(&self) -> String {
        format!("{}-{}", self.backend.name(), self.seed)
    }

    /// The log of the faults, and the verdict.
    pub fn record(&self) -> PathBuf {
        target_dir().join(self.test).join(self.name() + ".json")
    }

    /// What the processes of the run have said and, where it failed, the events of the log.
    pub fn folder(&self) -> PathBuf {
        target_dir().join(self.test).join(self.name())
    }

    /// What repeats the run.
    pub fn command(&self) -> String {
        let all = Kind::all_of(self.backend).count() == self.kinds.len();
        let names: Vec<&str> = self.kinds.iter().map(|kind| kind.name()).collect();
        let kinds =
            if all { String::new() } else { format!("ROOST_FAULTS_KINDS={} ", names.join(",")) };
        let trace = self.trace.as_ref();
        let trace = trace
            .map_or_else(String::new, |file| format!("ROOST_FAULTS_TRACE={} ", file.display()));
        format!(
            "ROOST_FAULTS={} ROOST_TEST_SEED={} ROOST_FAULTS_BACKEND={} {kinds}{trace}cargo test \
             --test faults -- --nocapture",
            self.fault_count,
            self.seed,
            self.backend.name()
        )
    }
}

impl Backend {
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Cluster => "cluster",
        }
    }
}

/// Cargo's, wherever it is.
pub fn target_dir() -> &'static Path {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap_or(tmp)
}
