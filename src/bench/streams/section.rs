//! What is said of it.

use std::time::Duration;

use super::{
    check::{Outcome, Tally},
    crowd::Plan,
};
use crate::bench::{Goal, Plot, Ratio, Row, Section, cost::Cost, roost::micros_each};

/// The goals of time and memory are for so many.
const GOAL_STREAMS: u32 = 10_000;
const GOAL_P99_SECONDS: f64 = 1.0;
/// What was posted is cached by the store meanwhile.
const GOAL_GROWTH: f64 = 1.5;

/// What one store has come to.
pub(super) struct Measured {
    pub(super) name: &'static str,
    pub(super) log: &'static str,
    pub(super) plan: Plan,
    pub(super) posts_per_second: f64,
    pub(super) connected_in: Duration,
    /// Before anybody was connected, with all of them, and when all was received.
    pub(super) memory: [Option<u64>; 3],
    pub(super) idle_cost: Cost,
    /// Until everything was received.
    pub(super) elapsed: Duration,
    pub(super) cost: Cost,
    /// What the same posts cost without streams.
    pub(super) alone: Cost,
    pub(super) outcome: Outcome,
}

impl Cost {
    /// For each of so many, in microseconds.
    fn each(&self, row: Row, count: u64) -> Row {
        let row = row.with("own CPU a post", micros_each(self.own, count), "µs");
        match self.redis {
            Some(redis) => row.with("Redis CPU a post", micros_each(redis, count), "µs"),
            None => row,
        }
    }

    /// The same as a share of the time.
    fn share(&self, row: Row, time: Duration) -> Row {
        let percent = |cpu: Duration| cpu.as_secs_f64() / time.as_secs_f64() * 100.0;
        let row = row.with("own CPU, idle", percent(self.own), "% of a core");
        match self.redis {
            Some(redis) => row.with("Redis CPU, idle", percent(redis), "% of a core"),
            None => row,
        }
    }
}

pub(super) fn section(measured: &Measured) -> Section {
    let Measured { plan, memory, outcome, .. } = measured;
    let Outcome { quick, slow, latencies, resumes, told } = outcome;
    let [before, connected, after] = memory.map(|bytes| bytes.map(|bytes| bytes as f64));
    let streams = f64::from(plan.readers);
    let mut connected_row = Row::new("connected").with("streams", streams, "").with(
        "connected in",
        measured.connected_in.as_secs_f64(),
        "s",
    );
    connected_row = measured.idle_cost.share(connected_row, plan.idle);
    for (name, bytes) in [("memory a stream", connected), ("the same after the posts", after)] {
        if let (Some(before), Some(bytes)) = (before, bytes) {
            let each = (bytes - before).max(0.0) / streams / 1_024.0;
            connected_row = connected_row.with(name, each, "KiB");
        }
    }
    let quick_row = Row::new("readers").with(
        "received",
        quick.received as f64 / measured.elapsed.as_secs_f64(),
        "/s",
    );
    let quick_row = tallied(quick_row, quick).with("resumed", *resumes as f64, "");
    let received = quick.received + slow.received;
    let quick_row = measured.cost.since(&measured.alone).each(quick_row, received);
    let slow_row = Row::new("slow readers").with("told", *told as f64, "").with(
        "read after being told",
        slow.listed as f64,
        "",
    );
    let is_for_goal = plan.readers >= GOAL_STREAMS;
    let count = |name: &str, value: u64| Ratio {
        name: name.to_owned(),
        value: value as f64,
        goal: Some(Goal::Zero),
    };
    let mut ratios = vec![
        count("posts missed", quick.missed + slow.missed),
        count("posts that came twice, or to the wrong reader", quick.repeated + slow.repeated),
        Ratio {
            name: "p99 from visible to received, in seconds".to_owned(),
            value: latencies.quantile(0.99).as_secs_f64(),
            goal: Goal::AtMost(GOAL_P99_SECONDS).only_if(is_for_goal),
        },
    ];
    if let (Some(connected), Some(after)) = (connected, after) {
        ratios.push(Ratio {
            name: "memory after the posts ÷ with all connected".to_owned(),
            value: after / connected,
            goal: Goal::AtMost(GOAL_GROWTH).only_if(is_for_goal),
        });
    }
    Section {
        name: format!("streams, {}", measured.name),
        about: about(measured),
        rows: vec![connected_row, latencies.figures(quick_row), tallied(slow_row, slow)],
        ratios,
        plots: vec![Plot::of_latencies(
            "Visible to received",
            "share of the posts",
            vec![latencies.series("readers")],
        )],
        ..Section::default()
    }
}

fn tallied(row: Row, tally: &Tally) -> Row {
    row.with("due", tally.due as f64, "").with("missed", tally.missed as f64, "").with(
        "repeated",
        tally.repeated as f64,
        "",
    )
}

fn about(measured: &Measured) -> String {
    let Plan { readers, slow, window, stall, .. } = measured.plan;
    format!(
        "{readers} readers with a stream each, posts included, on connections of up to 250; {:.0} \
         posts a second for {} s, through the write path of the API (in this process) into {} \
         and the store. Each reader leaves once, and goes on from the last message that it has \
         received; connections are cut, one after the other; {slow} are slow, and take nothing \
         for {} s while more comes than a stream keeps. Each checks that it receives every post \
         of those whom it follows, once. A latency runs from the moment the worker knows that a \
         post has reached every timeline, or its reader has asked for a stream again, to the \
         moment the client has it. CPU and memory are those of the whole process, clients too; \
         CPU a post is what is more than for the same posts with nobody connected.",
        measured.posts_per_second,
        window.as_secs_f64(),
        measured.log,
        stall.as_secs_f64(),
    )
}
