//! One store's run: a window's posts with nobody connected, then everybody connects, and the
//! same posts again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    check::{Outcome, Received},
    crowd::{self, Crowd, Plan},
    posts::Posts,
    reader::Reader,
};
use crate::{
    bench::{
        BenchError, cost::Cost, ground::Ground, log::BenchLog, open_loop::Seen, roost::Roost,
        serving::Serving,
    },
    domain::PostId,
    fanout::Settled,
    grpc::Api,
    store::Store,
    telemetry::resident_bytes,
    writes::{Writes, system_clock},
};

/// Readers who take nothing for most of the window, and their share at the most.
const SLOW_READERS: u32 = 8;
const SLOW_ONE_OF: u32 = 5;
const STALL_SHARE: f64 = 0.75;
/// For which share of the window a reader is away who leaves.
const AWAY_SHARE: f64 = 0.025;
/// For which share of the window all are connected and nothing is posted.
const IDLE_SHARE: f64 = 0.25;
/// How long it is waited for what should not come, after all has come.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// One store that is measured.
pub(super) struct Run<'r, 'g, S: Store> {
    pub(super) ground: &'r mut Ground<'g>,
    name: &'static str,
    roost: Roost<S>,
    writes: Writes<BenchLog, S>,
    seen: &'r Seen,
    is_on_redis: bool,
    pub(super) plan: Plan,
    pub(super) posts: Posts,
}

/// Readers who are all connected, and what that has taken.
pub(super) struct Connected {
    pub(super) crowd: Crowd,
    pub(super) serving: Serving,
    pub(super) watching: Watching,
    pub(super) within: Duration,
    pub(super) memory_before: Option<u64>,
    pub(super) memory: Option<u64>,
    /// While nothing was posted.
    pub(super) idle_cost: Cost,
}

/// A window's posts, and what they have taken until all was received.
pub(super) struct Posted {
    begun: Instant,
    /// To each reader.
    due: Vec<Vec<PostId>>,
    pub(super) elapsed: Duration,
    pub(super) cost: Cost,
    pub(super) memory: Option<u64>,
}

impl<'r, 'g, S: Store> Run<'r, 'g, S> {
    /// Wakes those who will read.
    pub(super) async fn prepare(
        ground: &'r mut Ground<'g>,
        name: &'static str,
        mut roost: Roost<S>,
        seen: &'r Seen,
        is_on_redis: bool,
    ) -> Result<Self, BenchError> {
        let (readers, window) = (ground.settings.streams, ground.settings.window);
        let plan = Plan {
            readers,
            slow: SLOW_READERS.min(readers / SLOW_ONE_OF),
            window,
            stall: window.mul_f64(STALL_SHARE),
            away: window.mul_f64(AWAY_SHARE),
            idle: window.mul_f64(IDLE_SHARE),
        };
        ground.say(&format!("waking the readers of streams, {name}"));
        let posts = Posts::new(readers, plan.slow, window, plan.stall);
        for town in posts.towns() {
            roost.prepare(town).await?;
        }
        let writes = roost.writes();
        Ok(Self { ground, name, roost, writes, seen, is_on_redis, plan, posts })
    }

    /// What a window's posts cost while nobody is connected.
    pub(super) async fn posts_alone(&mut self) -> Result<Cost, BenchError> {
        self.say("posts without streams");
        let before = self.used().await?;
        self.posts.publish(&self.writes, Instant::now()).await?;
        self.roost.settle().await?;
        let cost = self.used().await?.since(&before);
        // Those were of nobody's stream.
        self.seen.take();
        Ok(cost)
    }

    pub(super) async fn connect(&mut self) -> Result<Connected, BenchError> {
        self.say(&format!("connecting {} streams", self.plan.readers));
        let api = self.roost.api().await;
        let watching = Watching::start(&api, &self.roost.settled).await?;
        let serving = Serving::roost(api).await?;
        let due_counts = self.posts.due_counts(self.plan.readers);
        let memory_before = resident_bytes();
        let asked_at = Instant::now();
        let crowd = Crowd::connect(serving.address(), self.plan, &due_counts).await?;
        let within = asked_at.elapsed();
        let before = self.used().await?;
        sleep(self.plan.idle).await;
        let idle_cost = self.used().await?.since(&before);
        let memory = resident_bytes();
        Ok(Connected { crowd, serving, watching, within, memory_before, memory, idle_cost })
    }

    /// A window's posts, until all of them are received.
    pub(super) async fn window(&mut self, crowd: &mut Crowd) -> Result<Posted, BenchError> {
        let Plan { readers, window, .. } = self.plan;
        self.say(&format!("posts to {readers} streams"));
        let before = self.used().await?;
        let begun = Instant::now();
        crowd.begin(begun);
        let (published, ()) =
            tokio::join!(self.posts.publish(&self.writes, begun), crowd.cut_now_and_then(begun));
        let published = published?;
        // Readers leave until then, though all may have been received.
        sleep_until(begun + window).await;
        self.roost.settle().await?;
        let due = self.posts.due(readers, &published);
        crowd.all_received(&due).await?;
        let elapsed = begun.elapsed();
        let cost = self.used().await?.since(&before);
        Ok(Posted { begun, due, elapsed, cost, memory: resident_bytes() })
    }

    /// Ends all streams, and holds what has come against what was due.
    pub(super) async fn outcome(
        &self,
        crowd: Crowd,
        posted: &Posted,
    ) -> Result<Outcome, BenchError> {
        sleep(AFTERWARDS).await;
        let client = crowd.client();
        let readers = crowd.stop().await?;
        let visible = visible(self.seen.take(), posted.begun);
        let mut listed = Vec::new();
        for (reader, due) in readers.iter().zip(&posted.due).take(self.plan.slow as usize) {
            listed.push(listed_by(reader, due, &client).await?);
        }
        let received: Vec<Received> = readers.into_iter().map(|reader| reader.received).collect();
        Ok(Outcome::of(&received, &posted.due, &listed, &visible))
    }

    pub(super) async fn stop(self) -> Result<(), BenchError> {
        drop(self.writes);
        self.roost.stop().await
    }

    fn say(&mut self, phase: &str) {
        self.ground.say(&format!("{phase}, {}", self.name));
    }

    async fn used(&self) -> Result<Cost, BenchError> {
        Cost::until_now(self.is_on_redis.then_some(&self.ground.redis)).await
    }
}

/// A slow reader reads what it was told that it may miss, as any other client would.
async fn listed_by(
    reader: &Reader,
    due: &[PostId],
    client: &crowd::Client,
) -> Result<Vec<PostId>, BenchError> {
    let (Some(told_before), Some(oldest)) = (reader.received.told_before(), due.first()) else {
        return Ok(Vec::new());
    };
    let mut listed = crowd::list_down_to(client, reader.user, *oldest).await?;
    listed.retain(|id| *id <= told_before);
    Ok(listed)
}

/// When each post was visible, since `begun`.
fn visible(seen: Vec<(PostId, Instant)>, begun: Instant) -> HashMap<PostId, Duration> {
    seen.into_iter().map(|(post, at)| (post, at.saturating_duration_since(begun))).collect()
}

/// What tells streams of what is new, as in `roost serve`.
pub(super) struct Watching {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Watching {
    /// Streams begin with what is new only once it is known what is settled.
    async fn start<S: Store>(
        api: &Api<BenchLog, S>,
        settled: &Arc<Settled>,
    ) -> Result<Self, BenchError> {
        let (clock, stop) = (system_clock(), CancellationToken::new());
        let at_start = settled.less_the_wait(PostId::first_of(clock.unix_ms()));
        settled.settle_up_to(&*api.log, &api.progress, at_start).await?;
        let watch = Arc::clone(&api.watch).run(stop.clone());
        let (log, progress) = (Arc::clone(&api.log), Arc::clone(&api.progress));
        let new_above = move || PostId::first_of(clock.unix_ms());
        let settle = Arc::clone(settled).run(log, progress, at_start, new_above, stop.clone());
        let task = tokio::spawn(async move {
            tokio::join!(watch, settle);
        });
        Ok(Self { stop, task })
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        // It looked at things, and that is over.
        let _ = self.task.await;
    }
}
