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
mod cuttable;
mod lines;
mod posts;
mod reader;
mod run;
mod section;

use self::{
    run::Run,
    section::{Measured, section},
};
use super::{BenchError, Section, ground::Ground, open_loop::Seen, roost::Roost};
use crate::{domain::PostId, store::Store};

pub(super) async fn measure(ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
    let dir = ground.dir()?;
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
    roost: Roost<S>,
    seen: &Seen,
    is_on_redis: bool,
) -> Result<Section, BenchError> {
    let mut run = Run::prepare(ground, name, roost, seen, is_on_redis).await?;
    let alone = run.posts_alone().await?;
    let mut connected = run.connect().await?;
    let posted = run.window(&mut connected.crowd).await?;
    let outcome = run.outcome(connected.crowd, &posted).await?;
    connected.serving.stop().await?;
    connected.watching.stop().await;
    let measured = Measured {
        name,
        log: if is_on_redis { run.ground.logs.name() } else { "the embedded log" },
        plan: run.plan,
        posts_per_second: run.posts.per_second(),
        connected_in: connected.within,
        memory: [connected.memory_before, connected.memory, posted.memory],
        idle_cost: connected.idle_cost,
        elapsed: posted.elapsed,
        cost: posted.cost,
        alone,
        outcome,
    };
    run.stop().await?;
    Ok(section(&measured))
}
