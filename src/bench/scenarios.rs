//! What can be measured, and the order in which it is.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use serde::Serialize;

use super::{BenchError, Machine, Report, Section, redis::BenchRedis, throughput, town::Town};
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
}

impl Scenario {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Self; 3] = [Self::Drain, Self::Naive, Self::Ceiling];
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
    reporter.begin("draining, embedded", None);
    add(throughput::embedded(&town).await?);
    reporter.begin("draining, Redis", None);
    add(throughput::redis(&town, &redis, &settings.scenarios).await?);
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
