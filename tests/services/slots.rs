//! The slots of a Redis Cluster, and how they move from node to node.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection};

/// How long nodes may take to agree on who serves a slot.
const AGREEMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// The primaries of a Cluster, and what each serves.
pub struct Slots {
    nodes: Vec<Node>,
    /// Each slot's place among the nodes.
    owners: BTreeMap<u16, usize>,
}

struct Node {
    id: String,
    host: String,
    port: u16,
    redis: MultiplexedConnection,
}

impl Slots {
    /// Reads `CLUSTER NODES`: `id host:port@… flags … … … … … slots…` a line.
    pub async fn of(urls: &str) -> Self {
        let mut first = connect(urls.split(',').next().unwrap()).await;
        let text: String =
            redis::cmd("CLUSTER").arg("NODES").query_async(&mut first).await.unwrap();
        let mut all = Self { nodes: Vec::new(), owners: BTreeMap::new() };
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            if words.len() <= 8 {
                continue;
            }
            let (host, port) = words[1].split('@').next().unwrap().rsplit_once(':').unwrap();
            // One on its way is the old owner's as long as it is in its ranges.
            for range in words[8..].iter().filter(|range| !range.starts_with('[')) {
                let (start, end) = range.split_once('-').unwrap_or((range, range));
                for slot in start.parse().unwrap()..=end.parse().unwrap() {
                    all.owners.insert(slot, all.nodes.len());
                }
            }
            all.nodes.push(Node {
                id: words[0].to_owned(),
                host: host.to_owned(),
                port: port.parse().unwrap(),
                redis: connect(&format!("redis://{host}:{port}")).await,
            });
        }
        all
    }

    /// Moves a slot to the next node, a few keys at a time, as `redis-cli` does.
    pub async fn migrate(&mut self, slot: u16) {
        self.open(slot).await;
        loop {
            let keys = self.keys_left(slot, 2).await;
            if keys.is_empty() {
                break;
            }
            self.move_keys(slot, &keys).await;
        }
        // Time for some commands to be asked elsewhere.
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.close(slot).await;
    }

    /// Sends a slot on its way to the next node, without a key yet.
    pub async fn open(&mut self, slot: u16) {
        let (from, to) = self.way(slot);
        self.set_slot(to, slot, "IMPORTING", from).await;
        self.set_slot(from, slot, "MIGRATING", to).await;
    }

    /// Takes some keys along, those of them that are still there.
    pub async fn move_keys(&mut self, slot: u16, keys: &[String]) {
        let (from, to) = self.way(slot);
        let (host, port) = (self.nodes[to].host.clone(), self.nodes[to].port);
        let mut migrate = redis::cmd("MIGRATE");
        migrate.arg(host).arg(port).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
        migrate.exec_async(&mut self.nodes[from].redis).await.unwrap();
    }

    /// Keys of a slot on its way that have not been taken along.
    pub async fn keys_left(&mut self, slot: u16, count_max: usize) -> Vec<String> {
        let (from, _) = self.way(slot);
        let mut keys = redis::cmd("CLUSTER");
        keys.arg("GETKEYSINSLOT").arg(slot).arg(count_max);
        keys.query_async(&mut self.nodes[from].redis).await.unwrap()
    }

    /// Gives a slot, whose keys have all been taken along, to the node that has them, and
    /// waits until all of them know. A node that claims a slot gives itself the highest epoch
    /// that it has heard of: with one that is not heard of yet, the old owner's older claim
    /// would win, and the new one drop the slot's keys.
    pub async fn close(&mut self, slot: u16) {
        let (from, to) = self.way(slot);
        // The new owner first, so that there always is one.
        for at in [to, from].into_iter().chain(0..self.nodes.len()) {
            self.set_slot(at, slot, "NODE", to).await;
        }
        self.owners.insert(slot, to);
        let deadline = Instant::now() + AGREEMENT_TIMEOUT;
        loop {
            let mut views = BTreeSet::new();
            for node in &mut self.nodes {
                let text: String =
                    redis::cmd("CLUSTER").arg("NODES").query_async(&mut node.redis).await.unwrap();
                views.insert(primaries(&text));
            }
            if views.len() == 1 {
                return;
            }
            assert!(Instant::now() < deadline, "the nodes do not come to agree: {views:#?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// From which node to which a slot goes next.
    fn way(&self, slot: u16) -> (usize, usize) {
        let from = self.owners[&slot];
        (from, (from + 1) % self.nodes.len())
    }

    async fn set_slot(&mut self, at: usize, slot: u16, state: &str, node: usize) {
        let id = self.nodes[node].id.clone();
        let mut set = redis::cmd("CLUSTER");
        set.arg("SETSLOT").arg(slot).arg(state).arg(id);
        set.exec_async(&mut self.nodes[at].redis).await.unwrap();
    }
}

/// Each primary with its epoch and its slots, as a node sees it: of `id address flags primary
/// ping pong epoch link slots…`.
fn primaries(nodes: &str) -> BTreeSet<Vec<String>> {
    let primaries = nodes.lines().map(|line| line.split(' ').map(str::to_owned).collect());
    let primaries = primaries.filter(|words: &Vec<String>| words.len() > 8);
    primaries.map(|words| [&words[..1], &words[6..7], &words[8..]].concat()).collect()
}

async fn connect(url: &str) -> MultiplexedConnection {
    let settings = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    let client = Client::open(url).unwrap();
    client.get_multiplexed_async_connection_with_config(&settings).await.unwrap()
}
