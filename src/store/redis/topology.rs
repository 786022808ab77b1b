//! The slot map that all pushes share, and how it is kept up.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use tokio::sync::Mutex;

use super::{
    config::RedisConfig,
    error::NodeError,
    node::{Dial, NodeConnection},
    slots::{NodeAddress, SlotMap},
};

/// Which node serves which slot, as far as is known.
#[derive(Debug)]
pub(super) struct Topology {
    current: RwLock<Option<Arc<Snapshot>>>,
    /// Held while a node is asked, so that a burst of redirections asks once.
    refreshing: Mutex<()>,
}

/// A slot map and the how-manieth it is.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) map: SlotMap,
    version: u64,
}

impl Topology {
    pub(super) fn new(config: &RedisConfig) -> Self {
        let standalone =
            config.seeds.first().filter(|_| !config.cluster).map(|node| {
                Arc::new(Snapshot { map: SlotMap::standalone(node.clone()), version: 0 })
            });
        Self { current: RwLock::new(standalone), refreshing: Mutex::default() }
    }

    /// The map, asked for if there is none yet.
    pub(super) async fn snapshot(&self, dial: &Dial) -> Result<Arc<Snapshot>, NodeError> {
        match self.known() {
            Some(snapshot) => Ok(snapshot),
            None => self.refresh_if(None, &BTreeMap::new(), &[], dial).await,
        }
    }

    /// A newer map than `seen`: asked of a node, `avoided` ones last, unless
    /// somebody did meanwhile; and what `moved` says holds in it.
    pub(super) async fn refresh(
        &self,
        seen: &Snapshot,
        moved: &BTreeMap<u16, NodeAddress>,
        avoided: &[NodeAddress],
        dial: &Dial,
    ) -> Result<Arc<Snapshot>, NodeError> {
        self.refresh_if(Some(seen), moved, avoided, dial).await
    }

    async fn refresh_if(
        &self,
        seen: Option<&Snapshot>,
        moved: &BTreeMap<u16, NodeAddress>,
        avoided: &[NodeAddress],
        dial: &Dial,
    ) -> Result<Arc<Snapshot>, NodeError> {
        let _refreshing = self.refreshing.lock().await;
        let known = self.known();
        let asked = match (&known, seen) {
            (Some(known), _) if known.map.is_standalone() => return Ok(Arc::clone(known)),
            (Some(known), Some(seen)) if known.version > seen.version => Ok(known.map.clone()),
            _ => self.ask(known.as_deref(), moved, avoided, dial).await,
        };
        let mut map = match (asked, &known) {
            (Ok(map), _) => map,
            // Nobody answers, but what the moved slots are known to have become
            // is worth a new map.
            (Err(_), Some(known)) if !moved.is_empty() => known.map.clone(),
            (Err(error), _) => return Err(error),
        };
        // The node that no longer has a slot knows best; others may lag.
        for (slot, node) in moved {
            map.assign(*slot, node.clone());
        }
        let version = known.map_or(0, |known| known.version + 1);
        let snapshot = Arc::new(Snapshot { map, version });
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(snapshot.clone());
        Ok(snapshot)
    }

    fn known(&self) -> Option<Arc<Snapshot>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks one node after the other, each on a connection of its own, until one
    /// answers; the first error otherwise.
    async fn ask(
        &self,
        known: Option<&Snapshot>,
        moved: &BTreeMap<u16, NodeAddress>,
        avoided: &[NodeAddress],
        dial: &Dial,
    ) -> Result<SlotMap, NodeError> {
        let candidates = moved.values();
        let candidates = candidates.chain(known.iter().flat_map(|known| known.map.nodes()));
        let mut nodes: Vec<&NodeAddress> = Vec::new();
        for node in candidates.chain(&dial.config.seeds) {
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        nodes.sort_by_key(|node| avoided.contains(node));
        let mut first_error = None;
        for node in nodes {
            match ask_node(node, dial).await {
                Ok(map) => return Ok(map),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or(NodeError::NoNode { slot: 0 }))
    }
}

async fn ask_node(node: &NodeAddress, dial: &Dial) -> Result<SlotMap, NodeError> {
    let mut connection = NodeConnection::connect(node, dial).await?;
    let reply = connection.call(&[b"CLUSTER", b"SLOTS"]).await?;
    match SlotMap::from_cluster_slots(&reply, node) {
        Ok(map) if !map.nodes().is_empty() => Ok(map),
        Ok(_) => Err(NodeError::NoNode { slot: 0 }),
        Err(reason) => Err(NodeError::BadMap { node: node.clone(), reason }),
    }
}
