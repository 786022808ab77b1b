//! How fast a backlog becomes timelines: Roost, its rivals and the machine's limit.

use std::{sync::Arc, time::Duration};

use tempfile::TempDir;

use super::{
    BenchError, Goal, Ratio, Row, Scenario, Section,
    ceiling::Packed,
    drain::{Drain, Drained},
    redis::BenchRedis,
    rivals::Strategy,
    town::Town,
};
use crate::{
    domain::{PostId, UserId},
    event_log::{
        EventLog,
        embedded::{self as embedded_log, EmbeddedLog},
    },
    store::{
        HOME_TIMELINE_CAP_DEFAULT,
        embedded::{self as embedded_store, EmbeddedStore},
        redis::{self as redis_store, RedisStore},
    },
};

/// Readers whose full timelines say what an entry takes.
const FULL_TIMELINES: u64 = 1_000;

const RATE: &str = "deliveries";
const VALUES: &str = "values a push";
const REDIS_CPU: &str = "Redis CPU a delivery";
const BYTES: &str = "an entry at the cap";

/// The embedded log and the embedded store.
pub(super) async fn embedded(town: &Town) -> Result<Section, BenchError> {
    let (log, dir) = open_log()?;
    let settings = embedded_store::Settings::default();
    let store = EmbeddedStore::open(&dir.path().join("store"), settings)?;
    let mut drain = Drain::new(Arc::new(log), Arc::new(store));
    drain.prepare(town).await?;
    let drained = drain.measure(town).await?;
    let rate = rate(drained.deliveries, drained.elapsed);
    Ok(Section {
        name: "drain, embedded".to_owned(),
        about: about(town, "the embedded log and store"),
        rows: vec![row_of(&drained)],
        ratios: vec![Ratio {
            name: "deliveries/s".to_owned(),
            value: rate,
            goal: Some(Goal::AtLeast(5e6)),
        }],
    })
}

/// The Redis store, and whatever of the others is asked for.
pub(super) async fn redis(
    town: &Town,
    redis: &BenchRedis,
    scenarios: &[Scenario],
) -> Result<Section, BenchError> {
    let (log, _dir) = open_log()?;
    let partitions = log.partitions();
    redis.empty().await?;
    let settings = redis_store::Settings::new(redis.config(), "bench".to_owned(), partitions);
    let store = RedisStore::open(settings).await?;
    let mut drain = Drain::new(Arc::new(log), Arc::new(store));
    drain.prepare(town).await?;
    let before = redis.usage().await?;
    let drained = drain.measure(town).await?;
    let cpu = redis.usage().await?.cpu_since(&before);
    let roost_cpu = micros_each(cpu, drained.deliveries);
    let mut section = Section {
        name: "drain, Redis".to_owned(),
        about: about(town, "Redis"),
        rows: vec![row_of(&drained).with(REDIS_CPU, roost_cpu, "µs")],
        ..Section::default()
    };

    if scenarios.contains(&Scenario::Ceiling)
        && let Some((row, ceiling)) = ceiling(town, redis, partitions, &drained).await?
    {
        section.rows.push(row);
        section.ratios.push(Ratio {
            name: "deliveries/s, Roost ÷ ceiling".to_owned(),
            value: rate(drained.deliveries, drained.elapsed) / ceiling,
            goal: Some(Goal::AtLeast(0.8)),
        });
    }
    drop(drain);
    if scenarios.contains(&Scenario::Naive) {
        let rows = rivals(town, redis).await?;
        let best = rows.iter().filter_map(|row| row.figure(REDIS_CPU)).fold(f64::MAX, f64::min);
        section.ratios.push(Ratio {
            name: "Redis CPU a delivery, best of the others ÷ Roost".to_owned(),
            value: best / roost_cpu,
            goal: Some(Goal::AtLeast(3.0)),
        });
        section.rows.extend(rows);
    }
    Ok(section)
}

/// The machine's limit for the same commands, and its deliveries a second. `None` on a
/// Cluster, whose nodes one connection cannot reach.
async fn ceiling(
    town: &Town,
    redis: &BenchRedis,
    partitions: u32,
    drained: &Drained,
) -> Result<Option<(Row, f64)>, BenchError> {
    let map = redis.router().map().await?;
    let [node] = map.nodes() else { return Ok(None) };
    let packed = Packed::of(town, partitions, drained.deliveries / drained.rounds.max(1));
    let (deliveries, pushes) = (packed.deliveries, packed.pushes);
    let sent = packed.send(redis, node.clone()).await?;
    let rate = rate(deliveries, sent.elapsed);
    let row = Row::new("ceiling")
        .with(RATE, rate, "/s")
        .with(VALUES, deliveries as f64 / pushes as f64, "")
        .with(REDIS_CPU, micros_each(sent.redis_cpu, deliveries), "µs");
    Ok(Some((row, rate)))
}

async fn rivals(town: &Town, redis: &BenchRedis) -> Result<Vec<Row>, BenchError> {
    let readers: Vec<UserId> = (1..=FULL_TIMELINES).map(UserId).collect();
    // A tenth more than the cap, so that those who trim have trimmed.
    let ids: Vec<PostId> = (0..HOME_TIMELINE_CAP_DEFAULT as u64 * 11 / 10)
        .map(|number| PostId((1 << 58) + (number << PostId::NODE_AND_SEQUENCE_BITS)))
        .collect();
    let mut rows = Vec::new();
    for strategy in Strategy::ALL {
        let written = strategy.write(redis, town).await?;
        let bytes = strategy.bytes_an_entry(redis, &readers, &ids).await?;
        let row = Row::new(strategy.name())
            .with(RATE, rate(written.deliveries, written.elapsed), "/s")
            .with(VALUES, 1.0, "")
            .with(REDIS_CPU, micros_each(written.redis_cpu, written.deliveries), "µs")
            .with(BYTES, bytes, "bytes");
        rows.push(row);
    }
    Ok(rows)
}

fn open_log() -> Result<(EmbeddedLog, TempDir), BenchError> {
    let dir = TempDir::with_prefix("roost-bench-").map_err(BenchError::Dir)?;
    let log = EmbeddedLog::open(&dir.path().join("log"), embedded_log::Settings::default())?;
    Ok((log, dir))
}

fn about(town: &Town, what: &str) -> String {
    let (posts, deliveries) = (town.posts().len(), town.delivery_count());
    format!(
        "{posts} posts wait in the log, {:.0} readers each, all of them awake; then the workers \
         begin, and write into {what}.",
        deliveries as f64 / posts as f64
    )
}

fn row_of(drained: &Drained) -> Row {
    Row::new("roost")
        .with(RATE, rate(drained.deliveries, drained.elapsed), "/s")
        .with(VALUES, drained.deliveries as f64 / drained.pushes as f64, "")
        .with("deliveries a round", drained.deliveries as f64 / drained.rounds as f64, "")
        .with("own CPU a delivery", micros_each(drained.own_cpu, drained.deliveries), "µs")
}

fn rate(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

fn micros_each(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}
