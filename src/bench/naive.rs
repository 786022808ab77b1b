//! *naive*: the same deliveries in the ways in which others write them, and what an
//! entry takes in each.

use std::sync::Arc;

use super::{
    BenchError, Goal, Ratio, Row, Section, drain,
    drain::{RATE, REDIS_CPU, VALUES},
    ground::Ground,
    rivals::Strategy,
    roost::micros_each,
    town::is_of_a_million,
};
use crate::{
    domain::{PostId, UserId},
    fanout::combine,
    load::Source,
    store::{HOME_TIMELINE_CAP_DEFAULT, Homes},
};

/// Readers whose full timelines say what an entry takes.
const FULL_TIMELINES: u64 = 5_000;
const CAP: u64 = HOME_TIMELINE_CAP_DEFAULT as u64;

const BYTES: &str = "an entry at the cap";

pub(super) async fn measure(ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
    let town = ground.town().await?;
    let drained = drain::drained(ground).await?;
    ground.say("filling timelines");
    let roost_bytes = roost_bytes_an_entry(ground).await?;
    let roost = drained.row("roost").with(BYTES, roost_bytes, "bytes");

    let readers: Vec<UserId> = (1..=FULL_TIMELINES).map(UserId).collect();
    // A tenth more than the cap, so that those who trim have trimmed.
    let ids = ids(CAP * 11 / 10);
    let mut rows = Vec::new();
    for strategy in Strategy::ALL {
        ground.say(strategy.name());
        let written = strategy.write(&ground.redis, &town).await?;
        let bytes = strategy.bytes_an_entry(&ground.redis, &readers, &ids).await?;
        let rate = written.deliveries as f64 / written.elapsed.as_secs_f64();
        let row = Row::new(strategy.name())
            .with(RATE, rate, "/s")
            .with(VALUES, 1.0, "")
            .with(REDIS_CPU, micros_each(written.redis_cpu, written.deliveries), "µs")
            .with(BYTES, bytes, "bytes");
        rows.push(row);
    }

    let best = rows.iter().filter_map(|row| row.figure(REDIS_CPU)).fold(f64::MAX, f64::min);
    let mastodon = rows.iter().find(|row| row.name == Strategy::Mastodon.name());
    let mastodon_bytes = mastodon.and_then(|row| row.figure(BYTES)).unwrap_or_default();
    let readers_count = town.readers().len();
    let ratios = vec![
        Ratio {
            name: "Redis CPU a delivery, best of the others ÷ Roost".to_owned(),
            value: best / drained.redis_micros(),
            goal: match ground.settings.load.source {
                // The goal is for the higgs trace.
                Source::Trace { .. } => Some(Goal::AtLeast(4.0)),
                _ => Goal::AtLeast(3.0)
                    .only_if(is_of_a_million(readers_count) && ground.has_usual_followers()),
            },
        },
        Ratio {
            name: "bytes an entry, Mastodon's way ÷ Roost".to_owned(),
            value: mastodon_bytes / roost_bytes,
            goal: Some(Goal::AtLeast(12.0)),
        },
    ];
    Ok(vec![Section {
        name: "naive".to_owned(),
        about: format!(
            "The deliveries of the drain into Redis in the ways in which others write them, by \
             the same client, as many commands in flight. The bytes are those of {FULL_TIMELINES} \
             timelines with {CAP} entries each, keys included; between two trims Roost lets a \
             timeline grow by three tenths beyond the cap. Before each, as many other posts are \
             delivered in the same way. \
             The others store no posts, and no author timelines."
        ),
        rows: std::iter::once(roost).chain(rows).collect(),
        ratios,
        ..Section::default()
    }])
}

/// What an entry takes in timelines that Roost has filled to the cap.
async fn roost_bytes_an_entry(ground: &mut Ground<'_>) -> Result<f64, BenchError> {
    let roost = ground.roost().await?;
    let readers: Vec<UserId> = (1..=FULL_TIMELINES).map(UserId).collect();
    let before = ground.redis.usage().await?;
    roost.wake(&readers).await?;
    let store = Arc::clone(&roost.store);
    for id in ids(CAP) {
        store.push(&combine(readers.iter().map(|reader| (*reader, id)).collect())).await?;
    }
    let bytes = ground.redis.usage().await?.memory_bytes.saturating_sub(before.memory_bytes);
    roost.stop().await?;
    Ok(bytes as f64 / (FULL_TIMELINES * CAP) as f64)
}

/// So many, ascending, as long as those of today.
fn ids(count: u64) -> Vec<PostId> {
    (0..count)
        .map(|number| PostId((1 << 58) + (number << PostId::NODE_AND_SEQUENCE_BITS)))
        .collect()
}
