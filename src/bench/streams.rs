//! *streams*: very many readers follow their home timelines over streams, leave, are cut
//! off, and go on; and each of them checks that all that is due to it comes, and comes once.
//!
//! ```text
//!  posts at a rate ─► writes ─► log ─► workers ─► store ─► streams ─► readers
//!                                        └─ visible        resume ◄─────┘
//! ```
//!
//! Each reader follows a few authors, and the bench knows whom. A window of posts goes out
//! twice: at first nobody is connected, so that what the posts themselves cost is known.

mod check;
mod crowd;
mod lines;
mod posts;
mod reader;
mod section;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{
    check::Tally,
    crowd::{Crowd, Plan},
    posts::Posts,
    reader::Reader,
    section::{Measured, section},
};
use super::{
    BenchError, Section,
    cost::Cost,
    ground::Ground,
    log::BenchLog,
    open_loop::{Latencies, Seen},
    redis::BenchRedis,
    roost::Roost,
    serving::Serving,
};
use crate::{
    domain::PostId, fanout::Settled, grpc::Api, store::Store, telemetry::resident_bytes,
    writes::system_clock,
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

pub(super) async fn measure(ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
    let dir = TempDir::with_prefix("roost-bench-").map_err(BenchError::Dir)?;
    let seen = Seen::default();
    let noting = seen.clone();
    let on_delivered = move |posts: &[PostId]| noting.note(posts);
    let roost = Roost::embedded_watched(&dir, ground.settings.partitions, on_delivered)?;
    let embedded = of_store(ground, "embedded", roost, &seen, false).await?;
    let (roost, seen) = ground.watched_roost().await?;
    let redis = of_store(ground, "Redis", roost, &seen, true).await?;
    Ok(vec![embedded, redis])
}

/// Measures a Roost with an empty log and store.
async fn of_store<S: Store>(
    ground: &mut Ground<'_>,
    name: &'static str,
    mut roost: Roost<S>,
    seen: &Seen,
    is_on_redis: bool,
) -> Result<Section, BenchError> {
    let (readers, window) = (ground.settings.streams, ground.settings.window);
    let plan = Plan {
        readers,
        slow: SLOW_READERS.min(readers / SLOW_ONE_OF),
        window,
        stall: window.mul_f64(STALL_SHARE),
        away: window.mul_f64(AWAY_SHARE),
    };
    ground.say(&format!("waking the readers of streams, {name}"));
    let posts = Posts::new(readers, plan.slow, window, plan.stall);
    for town in posts.towns() {
        roost.prepare(town).await?;
    }
    let writes = roost.writes();

    ground.say(&format!("posts without streams, {name}"));
    let before = Cost::until_now(redis(ground, is_on_redis)).await?;
    posts.publish(&writes, Instant::now()).await?;
    roost.settle().await?;
    let alone = Cost::until_now(redis(ground, is_on_redis)).await?.since(&before);
    // Those were of nobody's stream.
    seen.take();

    ground.say(&format!("connecting {readers} streams, {name}"));
    let api = roost.api().await;
    let watching = Watching::start(&api, &roost.settled).await?;
    let serving = Serving::roost(api).await?;
    let due_counts = posts.due_counts(readers);
    let memory_before = resident_bytes();
    let asked_at = Instant::now();
    let mut crowd = Crowd::connect(serving.address(), plan, &due_counts).await?;
    let connected_in = asked_at.elapsed();
    let idle = window.mul_f64(IDLE_SHARE);
    let before = Cost::until_now(redis(ground, is_on_redis)).await?;
    sleep(idle).await;
    let idle_cost = Cost::until_now(redis(ground, is_on_redis)).await?.since(&before);
    let memory_connected = resident_bytes();

    ground.say(&format!("posts to {readers} streams, {name}"));
    let before = Cost::until_now(redis(ground, is_on_redis)).await?;
    let begun = Instant::now();
    crowd.begin(begun);
    let (published, ()) =
        tokio::join!(posts.publish(&writes, begun), crowd.cut_now_and_then(begun));
    let published = published?;
    // Readers leave until then, though all may have been received.
    sleep_until(begun + window).await;
    roost.settle().await?;
    let due = posts.due(readers, &published);
    crowd.all_received(&due).await?;
    let elapsed = begun.elapsed();
    let cost = Cost::until_now(redis(ground, is_on_redis)).await?.since(&before);
    let memory_after = resident_bytes();
    sleep(AFTERWARDS).await;
    let listing = crowd.client();
    let readers_done = crowd.stop().await?;

    let visible = visible(seen.take(), begun);
    let (mut quick, mut slow) = (Vec::new(), Vec::new());
    let (mut latencies, mut told) = (Vec::new(), 0);
    for (place, reader) in readers_done.iter().enumerate() {
        if place < plan.slow as usize {
            told += u64::from(reader.told_before.is_some());
            slow.push(tally_of_slow(reader, &due[place], &listing).await?);
        } else {
            quick.push(reader.received.tally(&due[place], &[]));
            latencies.extend(
                reader
                    .received
                    .arrivals()
                    .iter()
                    .filter_map(|arrival| Some(arrival.latency(*visible.get(&arrival.post)?))),
            );
        }
    }
    let resumes = readers_done.iter().map(|reader| reader.resumes).sum();
    drop((listing, readers_done));
    serving.stop().await?;
    watching.stop().await;
    drop(writes);
    roost.stop().await?;
    Ok(section(&Measured {
        name,
        log: if is_on_redis { ground.logs.name() } else { "the embedded log" },
        plan,
        posts_per_second: posts.per_second(),
        connected_in,
        memory: [memory_before, memory_connected, memory_after],
        idle,
        idle_cost,
        elapsed,
        cost,
        alone,
        quick: quick.into_iter().sum(),
        slow: slow.into_iter().sum(),
        latencies: Latencies::of(latencies),
        resumes,
        told,
    }))
}

/// A slow reader reads what it was told that it may miss, as any other client would.
async fn tally_of_slow(
    reader: &Reader,
    due: &[PostId],
    listing: &crowd::Client,
) -> Result<Tally, BenchError> {
    let listed = match (reader.told_before, due.first()) {
        (Some(told_before), Some(oldest)) => {
            let mut listed = crowd::list_down_to(listing, reader.user, *oldest).await?;
            listed.retain(|id| *id <= told_before);
            listed
        }
        _ => Vec::new(),
    };
    Ok(reader.received.tally(due, &listed))
}

/// When each post was visible, since `begun`.
fn visible(seen: Vec<(PostId, Instant)>, begun: Instant) -> HashMap<PostId, Duration> {
    seen.into_iter().map(|(post, at)| (post, at.saturating_duration_since(begun))).collect()
}

fn redis<'g>(ground: &'g Ground<'_>, is_on_redis: bool) -> Option<&'g BenchRedis> {
    is_on_redis.then_some(&ground.redis)
}

/// What tells streams of what is new, as in `roost serve`.
struct Watching {
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
        settled.settle(&*api.log, &api.progress, clock()).await?;
        let watch = Arc::clone(&api.watch).run(stop.clone());
        let (log, progress) = (Arc::clone(&api.log), Arc::clone(&api.progress));
        let settle = Arc::clone(settled).run(log, progress, move || clock(), stop.clone());
        let task = tokio::spawn(async move {
            tokio::join!(watch, settle);
        });
        Ok(Self { stop, task })
    }

    async fn stop(self) {
        self.stop.cancel();
        // It looked at things, and that is over.
        let _ = self.task.await;
    }
}
