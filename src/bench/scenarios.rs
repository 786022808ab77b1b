//! What can be measured, and the order in which it is.
//!
//! A scenario is a variant here, the line that carries it out, and a file of its own
//! with a function from the [`Ground`] to the report's sections.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use serde::Serialize;

use super::{
    BenchError, Machine, Report, Section, ceiling, celebrity, drain, ground::Ground, mixed, naive,
    publish, read, scale, sleepers, sustain,
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
    /// *celebrity*: followers of the one who has very many.
    pub celebrity_followers: u32,
    /// *sleepers*, *celebrity*: the share of the readers who are awake, beside all of them.
    pub awake_percent: u8,
    /// *scale*: the populations, ascending.
    pub scale_users: Vec<u32>,
    /// *read* and *mixed*: for how long those who are called in turns are called at a
    /// stretch.
    pub turn: Duration,
    /// *publish*: posts that are published at a stretch.
    pub turn_posts: usize,
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

/// Measures one scenario after the other; `on_section` is told each section as it comes.
///
/// # Errors
/// If something could not be measured.
pub async fn run(
    settings: Settings,
    reporter: &mut dyn Reporter,
    mut on_section: impl FnMut(&Section),
) -> Result<Report, BenchError> {
    settings.load.check()?;
    let (begun, began_at) = (Instant::now(), SystemTime::now());
    let mut ground = Ground::prepare(&settings, reporter).await?;
    let machine = Machine {
        redis: ground.redis.version().await?,
        log: ground.logs.name(),
        ..Machine::this()
    };
    let mut sections = Vec::new();
    let mut result = Ok(());
    for scenario in &settings.scenarios {
        match scenario.measure(&mut ground).await {
            Ok(measured) => {
                measured.iter().for_each(&mut on_section);
                sections.extend(measured);
            }
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    // What was made is dropped even where something went wrong, which says more than
    // what goes wrong here.
    let cleared = ground.clear().await;
    result.and(cleared)?;
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        began_at: began_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        seconds: begun.elapsed().as_secs_f64(),
        machine,
        sections,
    })
}
