//! What can be measured, and the order in which it is.
//!
//! A scenario is a variant here, the line that carries it out, and a file of its own
//! with a function from the [`Ground`] to the report's sections.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::ValueEnum;
use serde::Serialize;

use super::{
    BenchError, Machine, Report, Section, ceiling, celebrity, drain, ground::Ground,
    machine::memory_access_ns, mixed, naive, overload, publish, read, scale, sleepers, streams,
    sustain,
};
use crate::{client::progress::Reporter, load};

/// What can be measured, in the order in which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// A backlog in the log becomes timelines, as fast as the workers go
    Drain,
    /// The same commands, packed beforehand, with nothing else
    Ceiling,
    /// The same deliveries in the ways in which others write them
    Naive,
    /// Posts at rising rates: the highest at which they show in time
    Sustain,
    /// A small author's posts, alone and beside those of one with very many followers
    Celebrity,
    /// The same posts with all readers awake, and with a tenth of them
    Sleepers,
    /// What a delivery costs in populations and of authors of several sizes
    Scale,
    /// Home timeline pages over gRPC, beside a bare call that returns the same bytes
    Read,
    /// Reads of home timelines and of authors, and posts, as DeathStarBench mixes them
    Mixed,
    /// Reads at 1, 2 and 5 times the rate that Roost sustains, whether it keeps up or not
    Overload,
    /// Very many readers who follow their home timelines over streams, leave, and go on
    Streams,
    /// Posts by streams into Kafka, beside a bare producer
    Publish,
}

impl Scenario {
    /// Every one.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied()
    }

    async fn measure(self, ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
        match self {
            Self::Drain => drain::measure(ground).await,
            Self::Ceiling => ceiling::measure(ground).await,
            Self::Naive => naive::measure(ground).await,
            Self::Sustain => sustain::measure(ground).await,
            Self::Celebrity => celebrity::measure(ground).await,
            Self::Sleepers => sleepers::measure(ground).await,
            Self::Scale => scale::measure(ground).await,
            Self::Read => read::measure(ground).await,
            Self::Mixed => mixed::measure(ground).await,
            Self::Overload => overload::measure(ground).await,
            Self::Streams => streams::measure(ground).await,
            Self::Publish => publish::measure(ground).await,
        }
    }
}

/// What to measure, and on what.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is measured, each once.
    pub scenarios: Vec<Scenario>,
    /// Who is there and what is posted; where the load would be sent does not matter.
    pub load: load::Settings,
    /// An empty Redis. `None`: one is started.
    pub redis: Option<String>,
    /// Where the event log is kept.
    pub log: LogPlace,
    /// Partitions of the event log; `None` is as many as it has by default.
    pub partitions: Option<u32>,
    /// *sustain* and *celebrity*: for how long a rate is held.
    pub window: Duration,
    /// *sustain*: the longest that 99 of 100 posts may take until they show.
    pub visible_max: Duration,
    /// *sustain*: posts a second to begin with; `None` is what the drain suggests.
    pub rate_first: Option<f64>,
    /// *sustain*: how many rates are tried at most, at least 1.
    pub rates_max: usize,
    /// *sustain*: whether timelines are filled to the cap before a rate is tried.
    pub full_timelines: bool,
    /// *celebrity*: followers of the one who has very many.
    pub celebrity_followers: u32,
    /// *sleepers*, *celebrity*: the share of the readers who are awake, beside all of them.
    pub awake_percent: u8,
    /// *scale*: the populations, ascending.
    pub scale_users: Vec<u32>,
    /// *read* and *mixed*: for how long those who are called in turns are called at a
    /// stretch.
    pub turn: Duration,
    /// *streams*: how many readers follow, at least 10.
    pub streams: u32,
    /// *publish*: posts that are published at a stretch.
    pub turn_posts: usize,
    /// Where the bench keeps its own data.
    pub workspace: PathBuf,
    /// Whether figures are held against their goals, and not only what must never be.
    pub judges: bool,
}

/// Where the event log of a bench is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPlace {
    /// In topics of its own on these brokers, made and dropped by the bench.
    Kafka {
        /// Some of the brokers, as `host:port,host:port`.
        brokers: String,
    },
    /// The same, on a broker that is started for it.
    OwnKafka {
        /// The folder of Kafka's jars.
        jars: std::path::PathBuf,
    },
    /// On the local disk, embedded.
    Embedded,
}

/// Measures one scenario after the other; after each `on_report` is given what there is,
/// with the place of the first section that is new.
///
/// # Errors
/// If something could not be measured, or `on_report` fails.
pub async fn run(
    settings: Settings,
    reporter: &mut dyn Reporter,
    mut on_report: impl FnMut(&Report, usize) -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    settings.load.check()?;
    let began_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let begun = Instant::now();
    let mut ground = Ground::prepare(&settings, reporter).await?;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        command: without_addresses(std::env::args().skip(1)),
        began_at: began_at.as_secs(),
        seconds: 0.0,
        machine: Machine {
            redis: ground.redis.version().await?,
            log: ground.logs.name(),
            ..Machine::this()
        },
        sections: Vec::new(),
        missing: settings.scenarios.clone(),
    };
    let mut measured = Ok(());
    for scenario in &settings.scenarios {
        let first = report.sections.len();
        let memory = tokio::task::spawn_blocking(memory_access_ns).await;
        let sections = match memory {
            Ok(access_ns) => scenario.measure(&mut ground).await.map(|mut sections| {
                sections.iter_mut().for_each(|section| section.memory_access_ns = access_ns);
                sections
            }),
            Err(_) => Err(BenchError::Panicked),
        };
        ground.rest();
        measured = sections.and_then(|mut sections| {
            if !settings.judges {
                sections.iter_mut().for_each(Section::forget_goals);
            }
            report.sections.extend(sections);
            report.missing.retain(|missing| missing != scenario);
            report.seconds = begun.elapsed().as_secs_f64();
            on_report(&report, first)
        });
        if measured.is_err() {
            break;
        }
    }
    // What was made is dropped even where something went wrong, which says more than
    // what goes wrong here.
    let cleared = ground.clear().await;
    measured.and(cleared)
}

/// A command line without the values of the options that may hold passwords.
fn without_addresses(args: impl Iterator<Item = String>) -> String {
    const HIDDEN: [&str; 2] = ["--redis", "--kafka"];
    let mut shown = Vec::new();
    let mut is_value = false;
    for arg in args {
        shown.push(match arg.split_once('=') {
            Some((option, _)) if HIDDEN.contains(&option) => format!("{option}=…"),
            _ if is_value => "…".to_owned(),
            _ => arg.clone(),
        });
        is_value = HIDDEN.contains(&arg.as_str());
    }
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_does_not_tell_passwords() {
        let args = ["bench", "--redis", "redis://:secret@h", "--kafka=secret", "--users", "9"];
        let shown = without_addresses(args.into_iter().map(str::to_owned));
        assert_eq!(shown, "bench --redis … --kafka=… --users 9");
    }
}
