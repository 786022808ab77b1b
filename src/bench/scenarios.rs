//! What can be measured, and the order in which it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use serde::Serialize;

use super::{
    BenchError, Machine, Report, Section, mixed, publish, read, redis::BenchRedis, roost,
    throughput, town::Town,
};
use crate::{
    client::progress::Reporter,
    load::{self, Workload},
    writes::TEXT_CHARS_MAX_DEFAULT,
};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// A backlog in the log becomes timelines, as fast as the workers go
    Drain,
    /// The same deliveries in the ways in which others write them
    Naive,
    /// The same commands, packed beforehand, with nothing else
    Ceiling,
    /// Home timeline pages over gRPC, beside a bare call that returns the same bytes
    Read,
    /// Reads of home timelines and of authors, and posts, as DeathStarBench mixes them
    Mixed,
    /// Posts by streams into Kafka, beside a bare producer; needs --kafka
    Publish,
}

impl Scenario {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Self; 6] =
        [Self::Drain, Self::Naive, Self::Ceiling, Self::Read, Self::Mixed, Self::Publish];
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
    /// *read* and *mixed*: for how long one of those who are measured in turns is called.
    pub turn: Duration,
    /// *publish*: some of the brokers, as `host:port,host:port`. `None`: it is left out.
    pub kafka: Option<String>,
    /// *publish*: posts that are published at a stretch.
    pub publish_posts: usize,
}

/// Measures one scenario after the other; `on_section` is told each as it comes.
///
/// # Errors
/// If something could not be measured.
pub async fn run(
    settings: Settings,
    reporter: &mut impl Reporter,
    mut on_section: impl FnMut(&Section),
) -> Result<Report, BenchError> {
    settings.load.check()?;
    let (begun, began_at) = (Instant::now(), SystemTime::now());
    let redis = match &settings.redis {
        Some(urls) => BenchRedis::given(urls).await?,
        None => BenchRedis::start().await?,
    };
    let load = settings.load.clone();
    let planning = tokio::task::spawn_blocking(move || {
        Workload::plan(&load, TEXT_CHARS_MAX_DEFAULT, |_| Ok(())).map(|load| Town::of(&load))
    });
    reporter.begin("planning the posts", None);
    let town = planning.await.map_err(|_| BenchError::Panicked)??;
    reporter.end();
    let machine = Machine { redis: redis.version().await?, ..Machine::this() };

    let mut sections = Vec::new();
    let mut add = |section: Section| {
        on_section(&section);
        sections.push(section);
    };
    if settings.scenarios.contains(&Scenario::Drain) {
        reporter.begin("draining, embedded", None);
        add(throughput::embedded(&town).await?);
        reporter.begin("draining, Redis", None);
        add(throughput::redis(&town, &redis, &settings.scenarios).await?);
        reporter.end();
    }
    if settings.scenarios.contains(&Scenario::Read) {
        reporter.begin("reading, embedded", None);
        let roost = roost::embedded()?;
        add(read::of_store("embedded", roost, None, &town, settings.turn).await?);
        reporter.begin("reading, Redis", None);
        let roost = roost::redis(&redis).await?;
        add(read::of_store("Redis", roost, Some(&redis), &town, settings.turn).await?);
    }
    if settings.scenarios.contains(&Scenario::Mixed) {
        reporter.begin("reading and posting, embedded", None);
        add(mixed::of_store("embedded", roost::embedded()?, &town, settings.turn).await?);
        reporter.begin("reading and posting, Redis", None);
        let roost = roost::redis(&redis).await?;
        add(mixed::of_store("Redis", roost, &town, settings.turn).await?);
    }
    if settings.scenarios.contains(&Scenario::Publish)
        && let Some(kafka) = &settings.kafka
    {
        reporter.begin("publishing, Kafka", None);
        add(publish::on_kafka(kafka, &redis, &town, settings.publish_posts).await?);
    }
    reporter.end();
    redis.empty().await?;
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        command: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        began_at: began_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        seconds: begun.elapsed().as_secs_f64(),
        machine,
        sections,
    })
}
