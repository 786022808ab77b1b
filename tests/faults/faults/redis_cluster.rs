//! Faults of a Redis Cluster. Each begins and ends with one that is whole.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use tokio::time;

use super::{FROZEN_MS, World};
use crate::{
    cluster::{Shard, is_promoted, is_whole, move_slots, shards},
    failure::{Doing, Failure, Result},
    plan::Draws,
    record::{Details, details},
    redis_node::{RedisNode, until},
};

/// Writes that are lost are those of at least so long, and so many bytes of them.
const LOST_AT_LEAST: Duration = Duration::from_secs(1);
const LOST_BYTES_MIN: u64 = 2_000;
/// The longest wait for them: a replica that has been without its primary for much
/// longer is not promoted.
const LOST_DEADLINE: Duration = Duration::from_secs(15);
/// The longest wait until the shard is written to at all.
const WRITTEN_DEADLINE: Duration = Duration::from_secs(120);
/// A primary that is silent for so long is replaced, while one is frozen.
const NODE_TIMEOUT_MS: std::ops::Range<u64> = 2_000..12_000;

impl World {
    /// A primary crashes and comes back as its replica's replica.
    pub(super) async fn crash_primary(&self, draws: &mut Draws) -> Result<Details> {
        let (nodes, shard) = self.shard(draws).await?;
        self.services.kill(&name(shard.primary)).await?;
        is_promoted(shard.replica).await?;
        self.services.start(&name(shard.primary)).await?;
        is_whole(&nodes).await?;
        Ok(details(json!({ "what": name(shard.primary), "promoted": name(shard.replica) })))
    }

    /// A primary comes back before its replica takes over, with nothing, and the
    /// replica takes that from it.
    pub(super) async fn empty_primary(&self, draws: &mut Draws) -> Result<Details> {
        let (nodes, shard) = self.shard(draws).await?;
        let before: u64 = RedisNode::connect(shard.primary).await?.call("DBSIZE").await?;
        self.services.kill(&name(shard.primary)).await?;
        self.services.start(&name(shard.primary)).await?;
        is_whole(&nodes).await?;
        let promoted = shards(&nodes).await?.iter().any(|it| it.primary == shard.replica);
        Ok(details(json!({
            "what": name(shard.primary),
            "keys_lost": if promoted { 0 } else { before },
            "promoted": promoted,
        })))
    }

    /// A replica that is behind takes over.
    pub(super) async fn fail_over_behind(&self, draws: &mut Draws) -> Result<Details> {
        let (nodes, shard) = self.shard(draws).await?;
        is_written(shard.primary).await?;
        let mut replica = RedisNode::connect(shard.replica).await?;
        // Its primary wants no password, and refuses it.
        let () = replica.call("CONFIG SET masterauth nobody-knows-it").await?;
        let _: u64 = replica.call("CLIENT KILL TYPE master").await?;
        let has = replica.number("slave_repl_offset").await?;
        time::sleep(LOST_AT_LEAST).await;
        until("nothing more is written to the shard", LOST_DEADLINE, || async {
            Ok(offset(shard.primary).await? >= has + LOST_BYTES_MIN)
        })
        .await?;
        let lost = offset(shard.primary).await? - has;
        self.services.kill(&name(shard.primary)).await?;
        is_promoted(shard.replica).await?;
        let mut call = redis::cmd("CONFIG");
        call.arg("SET").arg("masterauth").arg("");
        let () = replica.send(&call).await?;
        self.services.start(&name(shard.primary)).await?;
        is_whole(&nodes).await?;
        Ok(details(json!({
            "what": name(shard.primary),
            "promoted": name(shard.replica),
            "bytes_of_writes_lost": lost,
        })))
    }

    /// A primary is frozen. For how long the others wait for it is drawn too, so that
    /// its replica takes over before it goes on, or about then, or not at all.
    pub(super) async fn freeze_primary(&self, draws: &mut Draws) -> Result<Details> {
        let (nodes, shard) = self.shard(draws).await?;
        let (lasts, node_timeout) = (draws.ms(FROZEN_MS), draws.ms(NODE_TIMEOUT_MS));
        let usual = node_timeout_of(shard.primary).await?;
        set_node_timeout(&nodes, node_timeout).await?;
        let frozen = RedisNode::connect(shard.primary).await?.freeze().await?;
        time::sleep(lasts).await;
        drop(frozen);
        is_whole(&nodes).await?;
        set_node_timeout(&nodes, usual).await?;
        let promoted = shards(&nodes).await?.iter().any(|it| it.primary == shard.replica);
        Ok(details(json!({
            "what": name(shard.primary),
            "frozen_seconds": lasts.as_secs_f64(),
            "node_timeout_seconds": node_timeout.as_secs_f64(),
            "promoted": promoted,
        })))
    }

    pub(super) async fn move_slots(&self, draws: &mut Draws) -> Result<Details> {
        let nodes: Vec<SocketAddr> = self.services.cluster_nodes().collect();
        let mut shards = shards(&nodes).await?;
        draws.shuffle(&mut shards);
        let [from, to, ..] = &shards[..] else {
            return Err(Failure::new("the Cluster has fewer than two shards"));
        };
        let first = draws.number(0..from.slot_count() as u64) as usize;
        let slots = from.slots(first, draws.number(100..200) as usize);
        let keys = move_slots(&nodes, from, to, &slots).await?;
        is_whole(&nodes).await?;
        Ok(details(json!({
            "what": format!("from {} to {}", name(from.primary), name(to.primary)),
            "slots": slots.len(),
            "keys": keys,
        })))
    }

    /// Breaks the connections of all clients to one node.
    pub(super) async fn cut_cluster(&self, draws: &mut Draws) -> Result<Details> {
        let (_, shard) = self.shard(draws).await?;
        let mut redis = RedisNode::connect(shard.primary).await?;
        let cut: u64 = redis.call("CLIENT KILL TYPE normal").await?;
        Ok(details(json!({ "what": name(shard.primary), "connections": cut })))
    }

    /// One node answers nobody for a while, shorter than the others' patience.
    pub(super) async fn delay_cluster(&self, draws: &mut Draws) -> Result<Details> {
        let (_, shard) = self.shard(draws).await?;
        let delay = draws.ms(200..3_000);
        let mut redis = RedisNode::connect(shard.primary).await?;
        let () = redis.call(&format!("CLIENT PAUSE {} ALL", delay.as_millis())).await?;
        time::sleep(delay).await;
        Ok(details(json!({ "what": name(shard.primary), "delay_seconds": delay.as_secs_f64() })))
    }

    /// One shard of a Cluster that is whole.
    async fn shard(&self, draws: &mut Draws) -> Result<(Vec<SocketAddr>, Shard)> {
        let nodes: Vec<SocketAddr> = self.services.cluster_nodes().collect();
        is_whole(&nodes).await?;
        let mut shards = shards(&nodes).await?;
        draws.shuffle(&mut shards);
        match shards.pop() {
            Some(shard) => Ok((nodes, shard)),
            None => Err(Failure::new("the Cluster has no shards")),
        }
    }
}

/// Waits until writes arrive at a primary: more than its pings to the replica.
async fn is_written(primary: SocketAddr) -> Result<()> {
    let begun = offset(primary).await?;
    until("nothing is written to the shard", WRITTEN_DEADLINE, || async {
        Ok(offset(primary).await? >= begun + LOST_BYTES_MIN)
    })
    .await
}

/// How many bytes of writes a primary has had.
async fn offset(primary: SocketAddr) -> Result<u64> {
    RedisNode::connect(primary).await?.number("master_repl_offset").await
}

async fn node_timeout_of(node: SocketAddr) -> Result<Duration> {
    let mut redis = RedisNode::connect(node).await?;
    let found: Vec<String> = redis.call("CONFIG GET cluster-node-timeout").await?;
    let ms = found.last().map(|ms| ms.parse()).unwrap_or(Ok(0)).doing(node)?;
    Ok(Duration::from_millis(ms))
}

async fn set_node_timeout(nodes: &[SocketAddr], timeout: Duration) -> Result<()> {
    let command = format!("CONFIG SET cluster-node-timeout {}", timeout.as_millis());
    for node in nodes {
        let () = RedisNode::connect(*node).await?.call(&command).await?;
    }
    Ok(())
}

/// As `deploy/services` names a node.
fn name(node: SocketAddr) -> String {
    format!("cluster-{}", node.port())
}
