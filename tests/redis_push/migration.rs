//! Slots that move between nodes while pushes go on.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::aio::MultiplexedConnection;
use roost::store::redis::{push::Pusher, slots::key_slot};

use super::services::{self, Readers};

const READERS: u64 = 400;
const TASKS: u64 = 3;
const MIGRATIONS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_during_pushes_duplicate_and_lose_nothing() {
    let Some(urls) = services::cluster() else { return };
    let mut redis = services::look_at_cluster(&urls).await;
    let readers = Arc::new(Readers::new(READERS));
    readers.wake(&mut redis).await;
    let pusher = services::pusher(&urls);
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (pusher, readers, stop) = (pusher.clone(), readers.clone(), stop.clone());
            tokio::spawn(async move { push_until(&stop, &pusher, &readers, task << 32).await })
        })
        .collect();

    let mut nodes = Nodes::of(&urls).await;
    let slots: Vec<u16> =
        readers.all().map(|reader| key_slot(format!("h:{reader}").as_bytes())).collect();
    for slot in slots.iter().cycle().take(MIGRATIONS) {
        nodes.migrate(*slot).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut expected, mut redirected) = (Vec::new(), 0);
    for task in tasks {
        let (ids, redirects) = task.await.unwrap();
        expected.extend(ids);
        redirected += redirects;
    }
    println!("{} rounds of pushes, {redirected} redirected", expected.len());
    assert!(redirected > 0, "no push ever met a slot that moves");

    let lists = readers.lists(&mut redis).await;
    for reader in readers.all() {
        match lists.get(&reader) {
            Some(list) => {
                let mut list = list.clone();
                list.sort_unstable();
                assert_eq!(list, expected, "{reader}");
            }
            None => assert!(!readers.is_awake(reader), "the list of {reader} is gone"),
        }
    }
    readers.clear(&mut redis).await;
}

/// The ids that it pushed to every reader, and how many pushes were redirected.
async fn push_until(
    stop: &AtomicBool,
    pusher: &Pusher,
    readers: &Readers,
    first: u64,
) -> (Vec<u64>, u64) {
    let (mut ids, mut redirected) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let id = first + ids.len() as u64 + 1;
        ids.push(id);
        let mut pushes = readers.one_each(id);
        loop {
            match pusher.push(&pushes).await {
                Ok(report) => {
                    assert!(report.unknown.is_empty());
                    redirected += report.redirected;
                    break;
                }
                Err(error) => {
                    assert!(!error.error.is_final(), "{error}");
                    assert!(error.report.unknown.is_empty());
                    redirected += error.report.redirected;
                    pushes = pushes.only(&error.unwritten);
                }
            }
        }
    }
    (ids, redirected)
}

/// The primaries of the Cluster.
struct Nodes {
    nodes: Vec<Node>,
    /// Each slot's place among them.
    owners: BTreeMap<u16, usize>,
}

struct Node {
    id: String,
    host: String,
    port: u16,
    redis: MultiplexedConnection,
}

impl Nodes {
    /// Reads `CLUSTER NODES`: `id host:port@… flags … … … … … slots…` a line.
    async fn of(urls: &str) -> Self {
        let mut first = services::look(urls.split(',').next().unwrap()).await;
        let text: String =
            redis::cmd("CLUSTER").arg("NODES").query_async(&mut first).await.unwrap();
        let mut all = Self { nodes: Vec::new(), owners: BTreeMap::new() };
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            if words.len() <= 8 {
                continue;
            }
            let (host, port) = words[1].split('@').next().unwrap().rsplit_once(':').unwrap();
            for range in &words[8..] {
                let (start, end) = range.split_once('-').unwrap_or((range, range));
                for slot in start.parse().unwrap()..=end.parse().unwrap() {
                    all.owners.insert(slot, all.nodes.len());
                }
            }
            all.nodes.push(Node {
                id: words[0].to_owned(),
                host: host.to_owned(),
                port: port.parse().unwrap(),
                redis: services::look(&format!("redis://{host}:{port}")).await,
            });
        }
        all
    }

    /// Moves a slot to the next node, a few keys at a time, as `redis-cli` does.
    async fn migrate(&mut self, slot: u16) {
        let from = self.owners[&slot];
        let to = (from + 1) % self.nodes.len();
        self.set_slot(to, slot, "IMPORTING", from).await;
        self.set_slot(from, slot, "MIGRATING", to).await;
        loop {
            let keys: Vec<String> = redis::cmd("CLUSTER")
                .arg("GETKEYSINSLOT")
                .arg(slot)
                .arg(2)
                .query_async(&mut self.nodes[from].redis)
                .await
                .unwrap();
            if keys.is_empty() {
                break;
            }
            let (host, port) = (self.nodes[to].host.clone(), self.nodes[to].port);
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg(host).arg(port).arg("").arg(0).arg(5000).arg("KEYS").arg(keys);
            migrate.exec_async(&mut self.nodes[from].redis).await.unwrap();
        }
        // Time for some pushes to be asked elsewhere.
        tokio::time::sleep(Duration::from_millis(5)).await;
        for at in [to, from].into_iter().chain(0..self.nodes.len()) {
            self.set_slot(at, slot, "NODE", to).await;
        }
        self.owners.insert(slot, to);
    }

    async fn set_slot(&mut self, at: usize, slot: u16, state: &str, node: usize) {
        let id = self.nodes[node].id.clone();
        let mut set = redis::cmd("CLUSTER");
        set.arg("SETSLOT").arg(slot).arg(state).arg(id);
        set.exec_async(&mut self.nodes[at].redis).await.unwrap();
    }
}
