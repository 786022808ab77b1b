//! A Redis Cluster as its nodes see it, and what can be done to it.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use redis::{Cmd, cmd};

use crate::{
    failure::{Doing, Failure, Result},
    redis_node::{RedisNode, until},
};

/// The longest wait until the Cluster is whole.
const DEADLINE: Duration = Duration::from_secs(60);

/// A primary and its replica.
pub struct Shard {
    pub primary: SocketAddr,
    pub replica: SocketAddr,
    primary_id: String,
    slots: Vec<u16>,
}

/// The shards, in the order of their primaries.
pub async fn shards(nodes: &[SocketAddr]) -> Result<Vec<Shard>> {
    let mut any = RedisNode::connect(nodes[0]).await?;
    let text: String = any.call("CLUSTER NODES").await?;
    let lines: Vec<Line> = text.lines().map(Line::parse).collect::<Result<_>>()?;
    let mut shards = Vec::new();
    for primary in lines.iter().filter(|line| !line.slots.is_empty()) {
        let replica = lines.iter().find(|line| line.primary_id == primary.id);
        let replica = replica
            .ok_or_else(|| Failure::new(format!("{} has no replica:\n{text}", primary.address)))?;
        shards.push(Shard {
            primary: primary.address,
            replica: replica.address,
            primary_id: primary.id.clone(),
            slots: primary.slots.clone(),
        });
    }
    shards.sort_unstable_by_key(|shard| shard.primary);
    Ok(shards)
}

/// A line of `CLUSTER NODES`: `id host:port@… flags primary … … … … slots…`.
struct Line {
    id: String,
    address: SocketAddr,
    primary_id: String,
    flags: String,
    slots: Vec<u16>,
}

impl Line {
    fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [id, address, flags, primary_id, _, _, _, _, slots @ ..] = &words[..] else {
            return Err(Failure::new(format!("no line of CLUSTER NODES: {line}")));
        };
        let address = address.split('@').next().unwrap_or_default().parse().doing(line)?;
        let mut owned = Vec::new();
        for range in slots.iter().filter(|range| !range.starts_with('[')) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u16, u16) = (first.parse().doing(line)?, last.parse().doing(line)?);
            owned.extend(first..=last);
        }
        Ok(Self {
            id: (*id).to_owned(),
            address,
            primary_id: (*primary_id).to_owned(),
            flags: (*flags).to_owned(),
            slots: owned,
        })
    }
}

/// Waits until every node sees every other, all slots are served, and every replica
/// is in sync.
pub async fn is_whole(nodes: &[SocketAddr]) -> Result<()> {
    until("the Cluster is not whole", DEADLINE, || async {
        let mut views = BTreeSet::new();
        for node in nodes {
            let mut redis = RedisNode::connect(*node).await?;
            let state: String = redis.call("CLUSTER INFO").await?;
            let info = redis.info().await?;
            let is_behind = info.get("role").is_some_and(|role| role == "slave")
                && info.get("master_link_status").is_none_or(|link| link != "up");
            if !state.contains("cluster_state:ok") || is_behind {
                return Ok(false);
            }
            let text: String = redis.call("CLUSTER NODES").await?;
            let mut view = Vec::new();
            for line in text.lines() {
                let line = Line::parse(line)?;
                if line.flags.contains("fail") || line.flags.contains("handshake") {
                    return Ok(false);
                }
                view.push((line.address, line.primary_id, line.slots));
            }
            view.sort_unstable();
            views.insert(view);
        }
        Ok(views.len() == 1 && views.iter().all(|view| view.len() == nodes.len()))
    })
    .await
}

/// Waits until a replica has become a primary.
pub async fn is_promoted(replica: SocketAddr) -> Result<()> {
    until(&format!("{replica} is not promoted"), DEADLINE, || async {
        Ok(RedisNode::connect(replica).await?.info().await?["role"] == "master")
    })
    .await
}

/// Moves slots from one shard to another, key by key, as `redis-cli` does: how many
/// keys came along.
pub async fn move_slots(
    nodes: &[SocketAddr],
    from: &Shard,
    to: &Shard,
    slots: &[u16],
) -> Result<u64> {
    let mut source = RedisNode::connect(from.primary).await?;
    let mut destination = RedisNode::connect(to.primary).await?;
    let mut primaries = Vec::new();
    for shard in shards(nodes).await? {
        primaries.push(RedisNode::connect(shard.primary).await?);
    }
    let mut moved = 0;
    for slot in slots {
        let state = |state: &str, node: &str| format!("CLUSTER SETSLOT {slot} {state} {node}");
        let () = destination.call(&state("IMPORTING", &from.primary_id)).await?;
        let () = source.call(&state("MIGRATING", &to.primary_id)).await?;
        loop {
            let keys: Vec<Vec<u8>> =
                source.call(&format!("CLUSTER GETKEYSINSLOT {slot} 2")).await?;
            if keys.is_empty() {
                break;
            }
            moved += keys.len() as u64;
            let () = source.send(&migrate(to.primary, keys)).await?;
        }
        let owner = state("NODE", &to.primary_id);
        // The new owner first, so that there always is one.
        let () = destination.call(&owner).await?;
        for primary in &mut primaries {
            let () = primary.call(&owner).await?;
        }
    }
    Ok(moved)
}

impl Shard {
    /// So many of its slots, from a place among them on.
    pub fn slots(&self, first: usize, count: usize) -> Vec<u16> {
        self.slots.iter().cycle().skip(first).take(count.min(self.slots.len())).copied().collect()
    }

    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }
}

fn migrate(to: SocketAddr, keys: Vec<Vec<u8>>) -> Cmd {
    let mut migrate = cmd("MIGRATE");
    migrate.arg(to.ip().to_string()).arg(to.port()).arg("").arg(0).arg(5_000);
    migrate.arg("KEYS").arg(keys);
    migrate
}
