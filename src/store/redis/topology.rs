//! The slot map that all pushes share, and how it is kept up.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use super::{
    config::RedisConfig,
    error::NodeError,
    node::{Dial, NodeConnection},
    resp::Value,
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
    learnt_at: Instant,
}

impl Snapshot {
    fn new(map: SlotMap, version: u64) -> Self {
        Self { map, version, learnt_at: Instant::now() }
    }

    /// Whether it may be out of date though no command has been sent astray: a node that has
    /// joined may have nothing yet that this process asks for. One server has no map.
    pub(super) fn is_older_than(&self, age_max: Duration) -> bool {
        !self.map.is_standalone() && self.learnt_at.elapsed() >= age_max
    }

    /// Whom to ask for a newer one: another node each time, since one may lag behind.
    pub(super) fn next_asked(&self) -> Option<&NodeAddress> {
        let nodes = self.map.nodes();
        nodes.get(self.version as usize % nodes.len().max(1))
    }
}

impl Topology {
    pub(super) fn new(config: &RedisConfig) -> Self {
        let standalone = config
            .seeds
            .first()
            .filter(|_| !config.cluster)
            .map(|node| Arc::new(Snapshot::new(SlotMap::standalone(node.clone()), 0)));
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

    /// Takes a map that a node has answered, unless there is a newer one than `seen`.
    pub(super) async fn learn(&self, seen: &Snapshot, map: SlotMap) -> Arc<Snapshot> {
        let _refreshing = self.refreshing.lock().await;
        if let Some(known) = self.known().filter(|known| known.version > seen.version) {
            return known;
        }
        let snapshot = Arc::new(Snapshot::new(map, seen.version + 1));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(snapshot.clone());
        snapshot
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
        let snapshot = Arc::new(Snapshot::new(map, version));
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
    read_map(&connection.call(ASK).await?, node)
}

/// Asks a node for the map.
pub(super) const ASK: &[&[u8]] = &[b"CLUSTER", b"SLOTS"];

/// The map in a node's answer to it.
pub(super) fn read_map(reply: &Value, node: &NodeAddress) -> Result<SlotMap, NodeError> {
    match SlotMap::from_cluster_slots(reply, node) {
        Ok(map) if !map.nodes().is_empty() => Ok(map),
        Ok(_) => Err(NodeError::NoNode { slot: 0 }),
        Err(reason) => Err(NodeError::BadMap { node: node.clone(), reason }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as StdMutex;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::store::redis::{node::ConnectionName, push::PushSettings, resp, router::Router};

    /// Ports of nodes, with the first and the last slot of each.
    type Slots = Arc<StdMutex<Vec<(u16, u16, u16)>>>;

    /// A node that says who has which slots, and OK to all else.
    async fn node(slots: Slots) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(answer(client, Arc::clone(&slots)));
            }
        });
        port
    }

    async fn answer(mut client: TcpStream, slots: Slots) {
        let mut unread = Vec::new();
        while client.read_buf(&mut unread).await.is_ok_and(|len| len > 0) {
            while let Ok(Some((command, len))) = resp::read_value(&unread) {
                unread.drain(..len);
                let is = |name: &str| {
                    let Value::Array(words) = &command else { return false };
                    words.contains(&Value::Text(name.into()))
                };
                let reply = match (is("SLOTS"), is("ID")) {
                    (true, _) => slots_reply(&slots.lock().expect("whole")),
                    (_, true) => ":1\r\n".to_owned(),
                    _ => "+OK\r\n".to_owned(),
                };
                if client.write_all(reply.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }

    fn slots_reply(slots: &[(u16, u16, u16)]) -> String {
        let ranges = slots.iter().map(|(port, first, last)| {
            format!("*3\r\n:{first}\r\n:{last}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n")
        });
        format!("*{}\r\n{}", slots.len(), ranges.collect::<String>())
    }

    fn router(port: u16, map_age_max: Duration) -> Router {
        let url = format!("redis://127.0.0.1:{port}?cluster");
        let config = Arc::new(RedisConfig::from_urls(&url, None).expect("good"));
        let name = ConnectionName::new("test", 0);
        Router::new(config, PushSettings { map_age_max, ..PushSettings::new(name, 1) })
    }

    async fn ports(router: &Router) -> Vec<u16> {
        let map = router.fresh_map().await.expect("a map");
        map.nodes().iter().map(|node| node.port).collect()
    }

    #[tokio::test]
    async fn joined_node_is_known_without_a_failed_question() {
        let slots = Slots::default();
        let [first, second] = [node(Arc::clone(&slots)).await, node(Arc::clone(&slots)).await];
        *slots.lock().expect("whole") = vec![(first, 0, 16_383)];
        let (eager, patient) =
            (router(first, Duration::ZERO), router(first, Duration::from_secs(3_600)));
        assert_eq!((ports(&eager).await, ports(&patient).await), (vec![first], vec![first]));
        *slots.lock().expect("whole") = vec![(first, 0, 8_191), (second, 8_192, 16_383)];
        assert_eq!(ports(&eager).await, [first, second]);
        assert_eq!(ports(&patient).await, [first], "it asks no more often than it should");
        // And one that has left is asked for nothing any more.
        *slots.lock().expect("whole") = vec![(second, 0, 16_383)];
        assert_eq!(ports(&eager).await, [second]);
    }

    #[tokio::test]
    async fn map_that_cannot_be_asked_for_stays_as_it_was() {
        let slots = Slots::default();
        let port = node(Arc::clone(&slots)).await;
        *slots.lock().expect("whole") = vec![(port, 0, 16_383)];
        let router = router(port, Duration::ZERO);
        assert_eq!(ports(&router).await, [port]);
        slots.lock().expect("whole").clear();
        assert_eq!(ports(&router).await, [port], "an answer without nodes is none");
    }
}
