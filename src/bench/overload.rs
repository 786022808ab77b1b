//! *overload*: reads of home timelines at 1, 2 and 5 times the rate that Roost sustains,
//! whether it keeps up or not (an open loop).
//!
//! ```text
//!  due? ─► call ─► gRPC ─► admission ─► page in time
//!                              └─► RESOURCE_EXHAUSTED
//! ```
//!
//! A latency begins when the call is due. Clients and server share this process and its
//! cores, so each call that is shed takes time from those that are answered.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tonic::{Code, Status, transport::Channel};

use super::{
    BenchError, Goal, Plot, Ratio, Row, Section,
    audience::Audience,
    closed_loop::{self, Answered, Turn},
    ground::Ground,
    latencies::Latencies,
    roost::Roost,
    serving::Serving,
};
use crate::{
    client::ClientError,
    domain::UserId,
    proto::v1::{
        ListHomeTimelineRequest, ListHomeTimelineResponse,
        timeline_service_client::TimelineServiceClient,
    },
    telemetry::resident_bytes,
};

/// Calls under way while the rate to begin with is looked for.
const CALLERS: usize = 64;
/// Posts on a page.
const PAGE_SIZE: i32 = 100;
/// A rate is sustained if 99 of 100 calls take no longer, and so many are answered.
const LATENCY_MAX: Duration = Duration::from_millis(100);
const ANSWERED_MIN: f64 = 0.98;
/// The first rate is so much of what the closed loop gets, and the next so much of that.
const FIRST_SHARE: f64 = 0.8;
const NEXT_SHARE: f64 = 0.85;
const RATES_MAX: usize = 6;
/// How many times the rate that is sustained.
const LOADS: [u32; 3] = [1, 2, 5];
/// Calls that wait for their answers; beyond that the driver itself gives up.
const OUTSTANDING_MAX: usize = 200_000;
/// How long answers are waited for after the last call.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first so many parts of ten of a window are not counted: an overload has to be noticed.
const WARMUP_TENTHS: u32 = 2;

pub(super) async fn measure(ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
    let (town, window) = (ground.town().await?, ground.settings.window);
    ground.say("waking readers, overload");
    let dir = ground.dir()?;
    let mut roost = Roost::embedded(&dir, ground.settings.partitions)?;
    let audience = Arc::new(Audience::of(&town));
    audience.seat(&mut roost, &town).await?;
    let serving = Serving::roost(roost.api().await).await?;
    let driver = Driver { audience, channels: serving.connect().await?.into() };

    let first = driver.closed_loop(window / 4).await? * FIRST_SHARE;
    let mut rate = first;
    let mut sustained = driver.offer(rate, window).await?;
    for _ in 1..RATES_MAX {
        if sustained.is_sustained() {
            break;
        }
        rate *= NEXT_SHARE;
        sustained = driver.offer(rate, window).await?;
    }
    let mut offered = vec![sustained];
    for load in LOADS.into_iter().skip(1) {
        ground.say(&format!("{load} times the load"));
        offered.push(driver.offer(rate * f64::from(load), window).await?);
    }
    drop(driver);
    serving.stop().await?;
    roost.stop().await?;
    Ok(vec![section(&offered)])
}

fn section(offered: &[Offered]) -> Section {
    let named: Vec<(String, &Offered)> =
        LOADS.iter().map(|load| format!("{load} times")).zip(offered).collect();
    let mut ratios = Vec::new();
    if let [one, two, ..] = offered {
        let p99 = |offered: &Offered| offered.latencies.quantile(0.99).as_secs_f64();
        ratios.push(Ratio {
            name: "answered, twice the load ÷ once".to_owned(),
            value: two.answered_rate() / one.answered_rate(),
            goal: Some(Goal::AtLeast(0.9)),
        });
        ratios.push(Ratio {
            name: "p99 of the answered, twice the load ÷ once".to_owned(),
            value: p99(two) / p99(one),
            goal: Some(Goal::AtMost(2.0)),
        });
    }
    Section {
        name: "overload".to_owned(),
        about: format!(
            "Pages of {PAGE_SIZE} posts of home timelines on the embedded store, over gRPC on \
             loopback, each at its time whether earlier ones are answered or not. Once the load is \
             the highest of the rates tried at which 99 % take at most {} ms. The first {} % of a \
             window are not counted.",
            LATENCY_MAX.as_millis(),
            WARMUP_TENTHS * 10
        ),
        rows: named.iter().map(|(name, offered)| offered.row(name.clone())).collect(),
        ratios,
        plots: vec![Plot::of_latencies(
            "Due to answer",
            "share of the answered calls",
            named.iter().map(|(name, offered)| offered.latencies.series(name.clone())).collect(),
        )],
        ..Section::default()
    }
}

/// What became of the calls of a window.
struct Offered {
    /// Calls that were due, in the counted part of the window.
    due: u64,
    counted: Duration,
    /// Of the answered ones.
    latencies: Latencies,
    shed: u64,
    outstanding_max: usize,
    resident_bytes_max: u64,
}

impl Offered {
    fn answered_rate(&self) -> f64 {
        self.latencies.count() as f64 / self.counted.as_secs_f64()
    }

    fn is_sustained(&self) -> bool {
        self.latencies.quantile(0.99) <= LATENCY_MAX
            && self.latencies.count() as f64 >= ANSWERED_MIN * self.due as f64
    }

    fn row(&self, name: String) -> Row {
        let seconds = self.counted.as_secs_f64();
        let row = Row::new(name)
            .with("due", self.due as f64 / seconds, "/s")
            .with("answered", self.answered_rate(), "/s")
            .with("shed", self.shed as f64 / seconds, "/s")
            .with("outstanding, at most", self.outstanding_max as f64, "")
            .with("memory, at most", self.resident_bytes_max as f64 / f64::from(1 << 20), "MiB");
        self.latencies.figures(row)
    }
}

struct Driver {
    audience: Arc<Audience>,
    channels: Arc<[Channel]>,
}

/// How a call ended, if it is counted.
enum Ended {
    Answered(Duration),
    Shed,
}

impl Driver {
    /// Calls a second of callers who wait for their answers.
    async fn closed_loop(&self, time: Duration) -> Result<f64, BenchError> {
        let (audience, channels) = (Arc::clone(&self.audience), Arc::clone(&self.channels));
        let [calls] = closed_loop::run(CALLERS, time, move |turn: Turn| {
            let channel = channels[turn.caller % channels.len()].clone();
            let reader = audience.reader(turn);
            async move {
                read(channel, reader).await.map_err(ClientError::from)?;
                Ok(Answered { kind: 0, bytes: 0 })
            }
        })
        .await?;
        Ok(calls.rate())
    }

    async fn offer(&self, rate: f64, window: Duration) -> Result<Offered, BenchError> {
        let warmup = window * WARMUP_TENTHS / 10;
        let begun = Instant::now();
        let mut ticks = interval(Duration::from_millis(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut calls = JoinSet::new();
        let mut made = 0_u64;
        let (mut due, mut shed, mut latencies) = (0, 0, Vec::new());
        let (mut outstanding_max, mut resident_bytes_max) = (0, 0);
        let mut note = |ended: Result<Option<Result<Ended, Status>>, _>| match ended {
            Ok(Some(Ok(Ended::Answered(latency)))) => {
                latencies.push(latency);
                Ok(())
            }
            Ok(Some(Ok(Ended::Shed))) => {
                shed += 1;
                Ok(())
            }
            Ok(Some(Err(status))) => Err(BenchError::from(ClientError::from(status))),
            Ok(None) => Ok(()),
            Err(_) => Err(BenchError::Panicked),
        };
        let mut looked_at = begun;
        while begun.elapsed() < window {
            ticks.tick().await;
            while let Some(ended) = calls.try_join_next() {
                note(ended)?;
            }
            let upto = (begun.elapsed().min(window).as_secs_f64() * rate) as u64;
            while made < upto {
                let at = Duration::from_secs_f64(made as f64 / rate);
                let turn = Turn { caller: 0, number: made as usize };
                let channel = self.channels[turn.number % self.channels.len()].clone();
                made += 1;
                let is_counted = at >= warmup;
                due += u64::from(is_counted);
                if calls.len() >= OUTSTANDING_MAX {
                    continue;
                }
                calls.spawn(one_call(channel, self.audience.reader(turn), begun + at, is_counted));
            }
            outstanding_max = outstanding_max.max(calls.len());
            if looked_at.elapsed() >= Duration::from_millis(100) {
                looked_at = Instant::now();
                resident_bytes_max = resident_bytes_max.max(resident_bytes().unwrap_or_default());
            }
        }
        let rest = async {
            while let Some(ended) = calls.join_next().await {
                note(ended)?;
            }
            Ok::<_, BenchError>(())
        };
        // What is not answered by then counts as neither.
        if let Ok(ended) = tokio::time::timeout(PATIENCE, rest).await {
            ended?;
        }
        Ok(Offered {
            due,
            counted: window - warmup,
            latencies: Latencies::of(latencies),
            shed,
            outstanding_max,
            resident_bytes_max: resident_bytes_max.max(resident_bytes().unwrap_or_default()),
        })
    }
}

async fn one_call(
    channel: Channel,
    reader: UserId,
    due: Instant,
    is_counted: bool,
) -> Option<Result<Ended, Status>> {
    let ended = match read(channel, reader).await {
        Ok(_) => Ok(Ended::Answered(due.elapsed())),
        Err(status) if status.code() == Code::ResourceExhausted => Ok(Ended::Shed),
        Err(status) => Err(status),
    };
    (is_counted || ended.is_err()).then_some(ended)
}

async fn read(channel: Channel, reader: UserId) -> Result<ListHomeTimelineResponse, Status> {
    let request = ListHomeTimelineRequest {
        user_id: reader.0,
        page_size: PAGE_SIZE,
        ..ListHomeTimelineRequest::default()
    };
    Ok(TimelineServiceClient::new(channel).list_home_timeline(request).await?.into_inner())
}
