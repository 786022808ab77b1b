//! *sleepers*: the same posts with all readers awake, and with a share of them: what
//! Redis does, and what it holds.

use super::{
    BenchError, Goal, Ratio, Row, Section,
    drain::{self, DrainedRedis},
    ground::Ground,
    town::{FILLED, Town, all_follows, is_of_a_million, share_of},
};
use crate::{domain::UserId, load::Graph};

/// Those whom everybody follows, and who fill the timelines.
pub(super) const FILLERS: usize = 4;
const MIB: f64 = (1 << 20) as f64;

/// What a share of awake readers came to.
struct Measured {
    name: String,
    awake: usize,
    drained: DrainedRedis,
    /// Of all that Redis holds, and of what came since nobody was awake.
    memory_bytes: u64,
    timeline_bytes: u64,
}

pub(super) async fn measure(ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
    let (town, graph) = (ground.town().await?, ground.graph().await?);
    let readers = town.readers();
    let filler = Town::filler(&readers, FILLERS, FILLED);
    let mut measured = Vec::new();
    for percent in [100, ground.settings.awake_percent] {
        let awake = share_of(&readers, percent);
        let name = format!("{percent} % awake");
        measured.push(with_awake(ground, name, &awake, &town, &filler, &graph).await?);
    }
    Ok(vec![section(ground, &town, readers.len(), &measured)])
}

async fn with_awake(
    ground: &mut Ground<'_>,
    name: String,
    awake: &[UserId],
    town: &Town,
    filler: &Town,
    graph: &Graph,
) -> Result<Measured, BenchError> {
    ground.say(&format!("filling timelines, {name}"));
    let mut roost = ground.roost().await?;
    roost.append(all_follows(graph)).await?;
    roost.append(filler.follows()).await?;
    roost.settle().await?;
    let all_asleep = ground.redis.usage().await?;
    roost.wake(awake).await?;
    roost.append(filler.events()).await?;
    roost.settle().await?;
    ground.say(&format!("draining, {name}"));
    let drained = drain::drain_prepared(ground, &mut roost, town).await?;
    let memory_bytes = ground.redis.usage().await?.memory_bytes;
    roost.stop().await?;
    let timeline_bytes = memory_bytes.saturating_sub(all_asleep.memory_bytes);
    Ok(Measured { name, awake: awake.len(), drained, memory_bytes, timeline_bytes })
}

fn section(ground: &Ground<'_>, town: &Town, readers: usize, measured: &[Measured]) -> Section {
    const MEMORY: &str = "Redis memory";
    const TIMELINES: &str = "of it timelines and posts";
    const REDIS_SECONDS: &str = "Redis CPU";
    const OWN_SECONDS: &str = "own CPU";
    let row = |one: &Measured| {
        let work = &one.drained.drained.work;
        Row::new(one.name.clone())
            .with("readers awake", one.awake as f64, "")
            .with(REDIS_SECONDS, one.drained.redis_cpu.as_secs_f64(), "s")
            .with(OWN_SECONDS, work.own_cpu.as_secs_f64(), "s")
            .with("time", work.elapsed.as_secs_f64(), "s")
            .with("deliveries", work.deliveries as f64, "")
            .with("skipped, asleep", work.skipped as f64, "")
            .with(MEMORY, one.memory_bytes as f64 / MIB, "MiB")
            .with(TIMELINES, one.timeline_bytes as f64 / MIB, "MiB")
    };
    let rows: Vec<Row> = measured.iter().map(row).collect();
    let ratio = |name: &str, goal| {
        let figure = |row: Option<&Row>| row.and_then(|row| row.figure(name)).unwrap_or_default();
        Ratio {
            name: format!("{name}, few awake ÷ all awake"),
            value: figure(rows.last()) / figure(rows.first()),
            goal,
        }
    };
    let is_for_goal = is_of_a_million(readers) && ground.settings.awake_percent == 10;
    let goal = Goal::AtMost(0.2).only_if(is_for_goal);
    let ratios = vec![
        ratio(REDIS_SECONDS, goal),
        ratio(MEMORY, goal),
        ratio(TIMELINES, None),
        ratio(OWN_SECONDS, None),
    ];
    Section {
        name: "sleepers".to_owned(),
        about: format!(
            "{} posts, {:.0} readers each, {readers} readers in all, into {} and Redis: once with \
             all of them awake, once with a few. Redis holds the whole graph, and every timeline \
             that is awake was filled to the cap beforehand, by {FILLED} posts that everybody is \
             to get. The CPU is that of the drain alone; the memory is all that Redis holds after \
             it.",
            town.posts().len(),
            town.delivery_count() as f64 / town.posts().len() as f64,
            ground.logs.name(),
        ),
        rows,
        ratios,
        ..Section::default()
    }
}
