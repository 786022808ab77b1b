//! What is said of the rates that were tried.

use std::collections::BTreeMap;

use super::{CONFIRM_WINDOWS, KEPT_UP, Tried};
use crate::bench::{
    Axis, Goal, Plot, Ratio, Row, Scale, Section, Series,
    drain::{OWN_CPU, RATE, REDIS_CPU, VALUES},
    ground::Ground,
    open_loop::{Held, Sample},
    roost::{micros_each, rates},
};

pub(super) fn about(ground: &Ground<'_>, readers: f64, awake: usize) -> String {
    let settings = ground.settings;
    let full = if settings.full_timelines { " with full timelines" } else { "" };
    format!(
        "Posts at even distances, {readers:.0} readers each, {awake} readers awake{full}, through the \
         write path of the API (in this process, without request ids) into {}, and on into Redis. \
         A post's latency runs from the moment it is due to the moment the worker knows that it \
         has reached every reader. A rate is good if 99 % of {} s of posts take at most {} s, \
         each post counted once, however many followers it has; the highest one is then held \
         {CONFIRM_WINDOWS} times as long, and lowered until it is good and {:.0} % of what is due \
         is delivered. \
         Own CPU is that of the whole process: driver, write path, client of the log, workers.",
        ground.logs.name(),
        settings.window.as_secs_f64(),
        settings.visible_max.as_secs_f64(),
        KEPT_UP * 100.0,
    )
}

pub(super) fn of(
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
        let verdict = match (tried.is_in_time, tried.keeps_up()) {
            (true, true) => "in time",
            (true, false) => "in time, and falls behind",
            (false, _) => "too late",
        };
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
            value: found.as_ref().map_or(0.0, Tried::rate),
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
        ..Section::default()
    }
}

impl Tried {
    fn row(&self, name: String) -> Row {
        let Held { latencies, work, redis_cpu, samples, .. } = &self.held;
        let waiting = samples.iter().map(|sample| sample.waiting).max().unwrap_or_default();
        let mut row =
            Row::new(name).with("posts", self.posts_per_second, "/s").with(RATE, self.rate(), "/s");
        if let Some(steady) = self.held.steady {
            row = row.with("deliveries due", steady.due, "/s");
        }
        let row = row
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
    use std::time::Duration;

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
