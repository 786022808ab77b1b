//! *drain*: a prepared backlog in the log, and the workers as fast as they go.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Axis, BenchError, Goal, Plot, Ratio, Row, Scale, Section, Series,
    ground::Ground,
    roost::{Drained, Roost, WorkDone, micros_each},
    town::Town,
};
use crate::{
    domain::{PostId, UserId},
    store::redis::RedisStore,
};

/// Goals are for no fewer deliveries: what begins a drain decides in fewer.
pub(super) const GOAL_DELIVERIES: u64 = 1_000_000;
/// Ids to an array of the ceiling.
const ARRAY_LEN: usize = 32;

pub(super) const RATE: &str = "deliveries";
pub(super) const VALUES: &str = "values a push";
pub(super) const OWN_CPU: &str = "own CPU a delivery";
pub(super) const REDIS_CPU: &str = "Redis CPU a delivery";

/// What a drain into Redis took, for those who stand beside it.
#[derive(Clone, Debug)]
pub(super) struct DrainedRedis {
    pub(super) drained: Drained,
    pub(super) redis_cpu: Duration,
}

impl DrainedRedis {
    /// What Redis used for a delivery, in microseconds.
    pub(super) fn redis_micros(&self) -> f64 {
        micros_each(self.redis_cpu, self.drained.work.deliveries)
    }

    /// What this process used for a delivery, in microseconds.
    pub(super) fn own_micros(&self) -> f64 {
        micros_each(self.drained.work.own_cpu, self.drained.work.deliveries)
    }

    /// Both together.
    pub(super) fn micros(&self) -> f64 {
        self.own_micros() + self.redis_micros()
    }

    pub(super) fn row(&self, name: &str) -> Row {
        row_of(name, &self.drained.work).with(REDIS_CPU, self.redis_micros(), "µs")
    }
}

/// The embedded store, then Redis.
pub(super) async fn measure(ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
    Ok(vec![embedded(ground).await?, redis(ground).await?])
}

/// Drains the load's posts into Redis, unless that was done before.
pub(super) async fn drained(ground: &mut Ground<'_>) -> Result<DrainedRedis, BenchError> {
    if let Some(drained) = &ground.drained {
        return Ok(drained.clone());
    }
    let town = ground.town().await?;
    ground.say("draining, Redis");
    let drained = drain(ground, &town).await?;
    Ok(ground.drained.insert(drained).clone())
}

/// Drains a town's posts into a Redis that holds nothing else, all its readers awake.
///
/// As many other posts are drained before: a Redis that has just begun asks the system for
/// every page of its memory.
pub(super) async fn drain(
    ground: &mut Ground<'_>,
    town: &Town,
) -> Result<DrainedRedis, BenchError> {
    let mut roost = ground.roost().await?;
    roost.prepare(town).await?;
    roost.drain(&town.warm_up()).await?;
    let drained = drain_prepared(ground, &mut roost, town).await?;
    roost.stop().await?;
    Ok(drained)
}

/// Drains a town's posts into the Redis of a Roost that knows its readers.
pub(super) async fn drain_prepared(
    ground: &Ground<'_>,
    roost: &mut Roost<RedisStore>,
    town: &Town,
) -> Result<DrainedRedis, BenchError> {
    let before = ground.redis.usage().await?;
    let drained = roost.drain(town).await?;
    let redis_cpu = ground.redis.usage().await?.cpu_since(&before);
    Ok(DrainedRedis { drained, redis_cpu })
}

async fn embedded(ground: &mut Ground<'_>) -> Result<Section, BenchError> {
    let town = ground.town().await?;
    ground.say("draining, embedded");
    let dir = ground.dir()?;
    let mut roost = Roost::embedded(&dir, ground.settings.partitions)?;
    roost.prepare(&town).await?;
    roost.drain(&town.warm_up()).await?;
    let drained = roost.drain(&town).await?;
    roost.stop().await?;
    let rate = drained.work.rate();
    let arrays = tokio::task::spawn_blocking({
        let town = Arc::clone(&town);
        move || arrays_rate(&town)
    });
    let arrays = arrays.await.map_err(|_| BenchError::Panicked)?;
    Ok(Section {
        name: "drain, embedded".to_owned(),
        about: about(&town, "the embedded log", "the embedded store"),
        rows: vec![
            row_of("roost", &drained.work),
            Row::new("ceiling: arrays in memory").with(RATE, arrays, "/s"),
        ],
        ratios: vec![
            Ratio {
                name: "deliveries/s".to_owned(),
                value: rate,
                goal: Goal::AtLeast(5e6).only_if(town.delivery_count() >= GOAL_DELIVERIES),
            },
            Ratio {
                name: "deliveries/s, Roost ÷ arrays in memory".to_owned(),
                value: rate / arrays,
                goal: None,
            },
        ],
        plots: vec![over_time(drained.rates)],
        ..Section::default()
    })
}

async fn redis(ground: &mut Ground<'_>) -> Result<Section, BenchError> {
    let town = ground.town().await?;
    let drained = drained(ground).await?;
    Ok(Section {
        name: "drain, Redis".to_owned(),
        about: about(&town, ground.logs.name(), "Redis"),
        rows: vec![drained.row("roost")],
        plots: vec![over_time(drained.drained.rates)],
        ..Section::default()
    })
}

/// What is said of every drain.
pub(super) fn row_of(name: &str, work: &WorkDone) -> Row {
    Row::new(name)
        .with(RATE, work.rate(), "/s")
        .with(VALUES, work.values_a_push(), "")
        .with("deliveries a flush", work.deliveries as f64 / work.flushes.max(1) as f64, "")
        .with(OWN_CPU, micros_each(work.own_cpu, work.deliveries), "µs")
}

/// Deliveries a second of one thread that writes each id to the next place of its reader's
/// array, post by post, and does nothing else.
fn arrays_rate(town: &Town) -> f64 {
    let readers = town.readers();
    let place_of = |reader: &UserId| readers.binary_search(reader).unwrap_or_default() as u32;
    let posts: Vec<(PostId, Vec<u32>)> = town
        .posts()
        .iter()
        .map(|post| {
            let deliveries = town.deliveries(&[*post]);
            (post.id(), deliveries.iter().map(|(reader, _)| place_of(reader)).collect())
        })
        .collect();
    let mut arrays = vec![0_u64; readers.len() * ARRAY_LEN];
    let mut ends = vec![0_u32; readers.len()];
    let begun = Instant::now();
    for (id, readers) in &posts {
        for reader in readers {
            let reader = *reader as usize;
            arrays[reader * ARRAY_LEN + ends[reader] as usize % ARRAY_LEN] = id.0;
            ends[reader] += 1;
        }
    }
    std::hint::black_box(&arrays);
    town.delivery_count() as f64 / begun.elapsed().as_secs_f64()
}

fn over_time(rates: Vec<(f64, f64)>) -> Plot {
    Plot {
        title: "Throughput over time".to_owned(),
        x: Axis { name: "time", unit: "s", scale: Scale::Linear },
        y: Axis { name: RATE, unit: "/s", scale: Scale::Linear },
        series: vec![Series::new("roost", rates)],
    }
}

fn about(town: &Town, log: &str, store: &str) -> String {
    let (posts, deliveries) = (town.posts().len(), town.delivery_count());
    format!(
        "{posts} posts wait in {log}, {:.0} readers each, all of them awake; then the workers \
         begin, and write into {store}. As many were drained before, unmeasured. Own CPU is that \
         of the whole process.",
        deliveries as f64 / posts as f64
    )
}
