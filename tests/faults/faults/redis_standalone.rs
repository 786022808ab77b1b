//! Faults of one standalone Redis, and of the ways there.

use std::time::Duration;

use serde_json::json;
use tokio::time;

use super::{FROZEN_MS, World};
use crate::{
    failure::{Failure, Result},
    fleet::Node,
    plan::Draws,
    record::{Details, details},
    redis_node::{RedisNode, until},
    services::REDIS,
};

/// Writes that are lost are those of at least so long, and at least so many.
const LOST_AT_LEAST: Duration = Duration::from_secs(1);
const LOST_WRITES_MIN: u64 = 100;
/// The longest wait for them, and for one that was frozen.
const DEADLINE: Duration = Duration::from_secs(120);

impl World {
    pub(super) async fn empty_redis(&self, draws: &mut Draws) -> Result<Details> {
        let (away, killed) = (draws.ms(0..2_000), draws.yes());
        let keys: u64 = RedisNode::connect(self.services.redis()).await?.call("DBSIZE").await?;
        if killed {
            self.services.kill(REDIS).await?;
        } else {
            self.services.stop(REDIS).await?;
        }
        time::sleep(away).await;
        self.services.start(REDIS).await?;
        Ok(details(json!({
            "what": REDIS,
            "killed": killed,
            "away_seconds": away.as_secs_f64(),
            "keys_lost": keys,
        })))
    }

    pub(super) async fn restart_from_dump(&self) -> Result<Details> {
        let address = self.services.redis();
        let mut redis = RedisNode::connect(address).await?;
        // One that was emptied a moment ago would dump nothing.
        until("Redis stays empty", DEADLINE, || async {
            Ok(RedisNode::connect(address).await?.call::<u64>("DBSIZE").await? > 0)
        })
        .await?;
        let () = redis.call("SAVE").await?;
        time::sleep(LOST_AT_LEAST).await;
        until("nothing is written to Redis", DEADLINE, || async {
            let mut redis = RedisNode::connect(address).await?;
            Ok(redis.number("rdb_changes_since_last_save").await? >= LOST_WRITES_MIN)
        })
        .await?;
        let lost = redis.number("rdb_changes_since_last_save").await?;
        self.services.kill(REDIS).await?;
        self.services.start(REDIS).await?;
        let keys: u64 = RedisNode::connect(address).await?.call("DBSIZE").await?;
        // Who is killed next comes back empty.
        self.services.drop_dump()?;
        if keys == 0 {
            return Err(Failure::new("Redis has not read its dump"));
        }
        Ok(details(json!({ "what": REDIS, "writes_lost": lost, "keys_kept": keys })))
    }

    pub(super) async fn cut_redis(&self, draws: &mut Draws) -> Result<Details> {
        let refused = draws.ms(0..1_500);
        let nodes = self.some_nodes(draws);
        let cuts = nodes.iter().filter_map(|node| node.redis.as_ref());
        futures::future::join_all(cuts.map(|proxy| proxy.cut(refused))).await;
        Ok(details(json!({
            "what": format!("connections to redis of {}", names(&nodes)),
            "refused_seconds": refused.as_secs_f64(),
        })))
    }

    pub(super) async fn delay_redis(&self, draws: &mut Draws) -> Result<Details> {
        let (delay, lasts) = (draws.ms(20..500), draws.ms(2_000..6_000));
        let nodes = self.some_nodes(draws);
        let delays = nodes.iter().filter_map(|node| node.redis.as_ref());
        futures::future::join_all(delays.map(|proxy| proxy.delay(delay, lasts))).await;
        Ok(details(json!({
            "what": format!("connections to redis of {}", names(&nodes)),
            "delay_seconds": delay.as_secs_f64(),
        })))
    }

    pub(super) async fn freeze_redis(&self, draws: &mut Draws) -> Result<Details> {
        let lasts = draws.ms(FROZEN_MS);
        let address = self.services.redis();
        let frozen = RedisNode::connect(address).await?.freeze().await?;
        time::sleep(lasts).await;
        drop(frozen);
        until("Redis does not go on", DEADLINE, || async {
            Ok(RedisNode::connect(address).await?.call::<String>("PING").await? == "PONG")
        })
        .await?;
        Ok(details(json!({ "what": REDIS, "frozen_seconds": lasts.as_secs_f64() })))
    }

    /// One process, or all of them.
    fn some_nodes(&self, draws: &mut Draws) -> Vec<std::sync::Arc<Node>> {
        let nodes = self.fleet.nodes();
        if draws.number(0..3) == 0 {
            return nodes;
        }
        draws.one_of(&nodes).cloned().into_iter().collect()
    }
}

fn names(nodes: &[std::sync::Arc<Node>]) -> String {
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    names.join(", ")
}
