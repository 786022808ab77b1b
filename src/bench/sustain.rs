//! *sustain*: the highest rate of posts at which 99 of 100 show to all their readers in
//! time, and how long they take at half of it.

mod search;

use std::{collections::BTreeMap, time::Duration};

use self::search::Search;
use super::{
    Axis, BenchError, Goal, Plot, Ratio, Row, Scale, Section, Series,
    drain::{OWN_CPU, RATE, REDIS_CPU, VALUES},
    ground::Ground,
    log::BenchLog,
    open_loop::{Held, Sample, Seen, Stream, hold},
    roost::{Roost, micros_each, rates},
    sleepers::FILLERS,
    town::{FILLED, Town, is_of_a_million},
};
use crate::{store::redis::RedisStore, writes::Writes};

/// Posts a second to begin with where nothing is known.
const RATE_FIRST: f64 = 500.0;
/// Which share of what a drain takes is tried first.
const FIRST_SHARE: f64 = 0.5;
/// A rate that was found is held for so many windows.
const CONFIRM_WINDOWS: u32 = 3;
/// Which shares of a rate that was found are held, until one is good.
const CONFIRM_SHARES: [f64; 6] = [1.0, 0.93, 0.86, 0.75, 0.6, 0.4];

/// The goal is for Kafka, within so long.
const GOAL_VISIBLE: Duration = Duration::from_secs(5);

/// A rate that was tried for a while.
struct Tried {
    posts_per_second: f64,
    /// Ids that a timeline had been given on average when it began.
    entries: f64,
    held: Held,
    /// Whether 99 of 100 posts showed in time.
    is_in_time: bool,
}

pub(super) async fn measure(ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
    let town = ground.town().await?;
    let readers = town.delivery_count() as f64 / town.posts().len() as f64;
    let drained = ground.drained.as_ref().map(|drained| drained.drained.work.rate());
    let first = ground.settings.rate_first;
    let first = first.or(drained.map(|rate| rate / readers * FIRST_SHARE)).unwrap_or(RATE_FIRST);
    let window = ground.settings.window;
    let (mut search, mut others) = (Search::new(first, ground.settings.rates_max), Vec::new());
    ground.say("waking the readers");
    let (mut roost, seen) = ground.watched_roost().await?;
    roost.prepare(&town).await?;
    if ground.settings.full_timelines {
        ground.say("filling timelines");
        let filler = Town::filler(&town.readers(), FILLERS, FILLED);
        roost.append(filler.follows()).await?;
        roost.settle().await?;
        roost.append(filler.events()).await?;
        roost.settle().await?;
    }
    let writes = roost.writes();
    let readers_count = town.readers().len();
    let mut road = Road {
        ground,
        town: &town,
        readers: readers_count.max(1),
        roost: &mut roost,
        writes: &writes,
        seen: &seen,
    };

    // Followers are read for the first time, and the broker's code is compiled.
    road.hold("warming up at", first, window / 2).await?;
    while let Some(rate) = search.next() {
        let tried = road.hold("trying", rate, window).await?;
        search.note(rate, tried.is_in_time);
        others.push(tried);
    }
    let mut found = None;
    for rate in search.best().iter().flat_map(|best| CONFIRM_SHARES.map(|share| best * share)) {
        let tried = road.hold("holding", rate, window * CONFIRM_WINDOWS).await?;
        if tried.is_in_time {
            found = Some(tried);
            break;
        }
        others.push(tried);
    }
    let half = match &found {
        Some(found) => Some(road.hold("holding", found.posts_per_second / 2.0, window).await?),
        None => None,
    };
    drop(writes);
    roost.stop().await?;
    let about = about(ground, readers, readers_count);
    let is_for_goal = is_of_a_million(readers_count)
        && ground.has_usual_followers()
        && ground.settings.visible_max <= GOAL_VISIBLE
        && ground.logs.are_of_kafka();
    Ok(vec![section(about, is_for_goal, found, half, &others)])
}

/// Where rates are held, one after the other.
struct Road<'a, 'g> {
    ground: &'a mut Ground<'g>,
    town: &'a Town,
    readers: usize,
    roost: &'a mut Roost<RedisStore>,
    writes: &'a Writes<BenchLog, RedisStore>,
    seen: &'a Seen,
}

impl Road<'_, '_> {
    async fn hold(
        &mut self,
        phase: &str,
        posts_per_second: f64,
        window: Duration,
    ) -> Result<Tried, BenchError> {
        self.ground.say(&format!("{phase} {posts_per_second:.0} posts a second"));
        let visible_max = self.ground.settings.visible_max;
        let delivered = self.roost.moment().deliveries();
        let entries = delivered as f64 / self.readers as f64;
        let streams = [Stream { town: self.town, posts_per_second, is_counted: true }];
        let patience = visible_max * 2;
        let (ground, roost) = (&*self.ground, &*self.roost);
        let mut held =
            hold(ground, roost, self.writes, self.seen, &streams, window, patience).await?;
        // What was left of the window's first half is not of its rate.
        let due = posts_per_second * self.town.delivery_count() as f64;
        held.rate = held.rate.min(due / self.town.posts().len() as f64);
        // The next one does not begin with what this one leaves.
        self.roost.settle().await?;
        let is_in_time = held.unseen == 0 && held.latencies.quantile(0.99) <= visible_max;
        Ok(Tried { posts_per_second, entries, held, is_in_time })
    }
}

impl Tried {
    fn row(&self, name: String) -> Row {
        let Held { latencies, work, redis_cpu, samples, .. } = &self.held;
        let waiting = samples.iter().map(|sample| sample.waiting).max().unwrap_or_default();
        let row = Row::new(name)
            .with("posts", self.posts_per_second, "/s")
            .with(RATE, self.held.rate, "/s")
            .with(VALUES, work.values_a_push(), "")
            .with(REDIS_CPU, micros_each(*redis_cpu, work.deliveries), "µs")
            .with(OWN_CPU, micros_each(work.own_cpu, work.deliveries), "µs");
        latencies.figures(row).with("posts waiting, at most", waiting as f64, "").with(
            "ids a timeline before",
            self.entries,
            "",
        )
    }
}

fn about(ground: &Ground<'_>, readers: f64, awake: usize) -> String {
    let settings = ground.settings;
    let full = if settings.full_timelines { " with full timelines" } else { "" };
    format!(
        "Posts at even distances, {readers:.0} readers each, {awake} readers awake{full}, through the \
         write path of the API (in this process, without request ids) into {}, and on into Redis. \
         A post's latency runs from the moment it is due to the moment the worker knows that it \
         has reached every reader. A rate is good if 99 % of {} s of posts take at most {} s, \
         each post counted once, however many followers it has; the highest one is then held \
         {CONFIRM_WINDOWS} times as long, and lowered until it is good. \
         Own CPU is that of the whole process: driver, write path, client of the log, workers.",
        ground.logs.name(),
        settings.window.as_secs_f64(),
        settings.visible_max.as_secs_f64(),
    )
}

fn section(
    about: String,
    is_for_goal: bool,
    found: Option<Tried>,
    half: Option<Tried>,
    others: &[Tried],
) -> Section {
    let named = [("the highest", &found), ("half of it", &half)];
    let named: Vec<(&str, &Tried)> =
        named.into_iter().filter_map(|(name, tried)| Some((name, tried.as_ref()?))).collect();
    let main = named.iter().map(|(name, tried)| tried.row((*name).to_owned()));
    let others_rows = others.iter().map(|tried| {
        let verdict = if tried.is_in_time { "in time" } else { "too late" };
        tried.row(format!("tried: {verdict}"))
    });
    let all = others.iter().chain(found.iter()).chain(half.iter());
    let curves = named.iter().map(|(name, tried)| tried.held.latencies.series(*name));
    let over_time =
        named.iter().map(|(name, tried)| Series::new(*name, delivered(&tried.held.samples)));
    Section {
        name: "sustain".to_owned(),
        about,
        rows: main.chain(others_rows).collect(),
        ratios: vec![Ratio {
            name: "deliveries/s at the highest rate".to_owned(),
            value: found.as_ref().map_or(0.0, |tried| tried.held.rate),
            goal: Goal::AtLeast(1.41e6).only_if(is_for_goal),
        }],
        plots: vec![
            Plot::of_latencies("Publish to visible", "share of the posts", curves.collect()),
            Plot {
                title: "Throughput over time".to_owned(),
                x: Axis { name: "time", unit: "s", scale: Scale::Linear },
                y: Axis { name: RATE, unit: "/s", scale: Scale::Linear },
                series: over_time.collect(),
            },
            Plot {
                title: "Coalescing by backlog, all rates".to_owned(),
                x: Axis { name: "posts due and not yet seen by all", unit: "", scale: Scale::Log },
                y: Axis { name: VALUES, unit: "", scale: Scale::Linear },
                series: vec![Series::new("roost", coalescing(all.map(|it| &*it.held.samples)))],
            },
        ],
    }
}

fn delivered(samples: &[Sample]) -> Vec<(f64, f64)> {
    let counts: Vec<(f64, u64)> =
        samples.iter().map(|sample| (sample.at.as_secs_f64(), sample.deliveries)).collect();
    rates(&counts)
}

/// How many values a push carried, by how many posts were waiting: by powers of two.
fn coalescing<'a>(windows: impl Iterator<Item = &'a [Sample]>) -> Vec<(f64, f64)> {
    let mut by_backlog = BTreeMap::<u32, (u64, u64)>::new();
    for pair in windows.flat_map(|samples| samples.windows(2)) {
        let waiting = (pair[0].waiting + pair[1].waiting) / 2;
        if let Some(power) = waiting.checked_ilog2() {
            let (deliveries, pushes) = by_backlog.entry(power).or_default();
            *deliveries += pair[1].deliveries - pair[0].deliveries;
            *pushes += pair[1].pushes - pair[0].pushes;
        }
    }
    by_backlog
        .into_iter()
        .filter(|(_, (_, pushes))| *pushes > 0)
        // The middle between a power and the next.
        .map(|(power, (deliveries, pushes))| {
            (2_f64.powf(f64::from(power) + 0.5), deliveries as f64 / pushes as f64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coalescing_is_averaged_over_like_backlogs() {
        let sample = |deliveries, pushes, waiting| Sample {
            at: Duration::ZERO,
            deliveries,
            pushes,
            waiting,
        };
        let calm = [sample(0, 0, 0), sample(10, 10, 0), sample(20, 20, 8), sample(50, 30, 8)];
        let busy = [sample(0, 0, 9), sample(70, 10, 10)];
        let points = coalescing([&calm[..], &busy[..]].into_iter());
        let values: Vec<f64> = points.iter().map(|point| point.1).collect();
        // Between 4 and 8 posts 10 in 10 pushes; between 8 and 16, 30 in 10 and 70 in 10.
        assert_eq!(values, [1.0, 5.0]);
        assert!(points[0].0 < 8.0 && points[1].0 > 8.0);
    }
}
