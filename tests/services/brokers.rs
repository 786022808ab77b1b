//! The three brokers of `deploy/services up brokers`, and what can be done to them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rdkafka::{ClientConfig, consumer::BaseConsumer, consumer::Consumer};
use roost::event_log::kafka::Settings;
use tokio::sync::{Mutex, MutexGuard};

use super::{address, leaders, settings_on};

const DEADLINE: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// One test at a time has them.
static TURN: Mutex<()> = Mutex::const_new(());

/// The settings of a log on the three brokers, in a topic and a group of its own.
pub fn brokers_settings(partitions: u32) -> Option<Settings> {
    Some(settings_on(address("ROOST_TEST_KAFKA_BROKERS", "brokers")?, partitions))
}

/// Three brokers, all of which run at first.
pub struct Brokers {
    addresses: Vec<SocketAddr>,
    dir: String,
    port: String,
    _turn: MutexGuard<'static, ()>,
}

/// A partition as the brokers see it, by number: leader, replicas, replicas in sync.
pub type Partitions = BTreeMap<i32, (i32, Vec<i32>, Vec<i32>)>;

impl Brokers {
    /// Waits for the turn to have them. `None`, and a line that says so, where there are none.
    pub async fn take() -> Option<Self> {
        let addresses = address("ROOST_TEST_KAFKA_BROKERS", "brokers")?;
        let services = address("ROOST_TEST_KAFKA_BROKERS_SERVICES", "brokers")?;
        let (dir, port) = services.rsplit_once(',').expect("a folder and a port");
        let addresses = addresses.split(',').map(|one| one.parse().expect("an address"));
        let brokers = Self {
            addresses: addresses.collect(),
            dir: dir.to_owned(),
            port: port.to_owned(),
            _turn: TURN.lock().await,
        };
        brokers.start(&[1, 2, 3]).await;
        Some(brokers)
    }

    pub async fn stop(&self, brokers: &[i32]) {
        self.call("stop", brokers).await;
    }

    pub async fn kill(&self, brokers: &[i32]) {
        self.call("kill", brokers).await;
    }

    /// Waits until they answer.
    pub async fn start(&self, brokers: &[i32]) {
        self.call("start", brokers).await;
    }

    pub async fn pause(&self, broker: i32) {
        self.call("pause", &[broker]).await;
    }

    pub async fn go_on(&self, broker: i32) {
        self.call("continue", &[broker]).await;
    }

    /// Has each partition of a topic led by the next of its replicas, and waits until it is.
    pub async fn move_leaders(&self, topic: &str) {
        let moved: Vec<(i32, Vec<i32>)> = self
            .partitions(topic)
            .await
            .into_iter()
            .map(|(partition, (leader, mut replicas, _))| {
                let at = replicas.iter().position(|one| *one == leader).unwrap_or_default();
                let count = replicas.len();
                replicas.rotate_left((at + 1) % count);
                (partition, replicas)
            })
            .collect();
        let expected: Vec<i32> = moved.iter().map(|(_, replicas)| replicas[0]).collect();
        let (broker, name) = (self.addresses[0], topic.to_owned());
        let moving = move || leaders::move_leaders(broker, &name, &moved);
        tokio::task::spawn_blocking(moving).await.unwrap().unwrap();
        self.until("the leaders are not moved", topic, |partitions| {
            partitions.values().map(|(leader, ..)| *leader).eq(expected.iter().copied())
        })
        .await;
    }

    /// Waits until every replica of a topic is in sync.
    pub async fn are_in_sync(&self, topic: &str) {
        self.until("the replicas are not in sync", topic, |partitions| {
            partitions.values().all(|(leader, replicas, isr)| {
                *leader > 0 && replicas.len() == 3 && isr.len() == replicas.len()
            })
        })
        .await;
    }

    pub async fn until(&self, what: &str, topic: &str, is_so: impl Fn(&Partitions) -> bool) {
        let begun = Instant::now();
        loop {
            let partitions = self.partitions(topic).await;
            if !partitions.is_empty() && is_so(&partitions) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "{what}: {partitions:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Empty if no broker answers.
    pub async fn partitions(&self, topic: &str) -> Partitions {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        let (addresses, topic) = (addresses.join(","), topic.to_owned());
        let ask = move || {
            let consumer: BaseConsumer =
                ClientConfig::new().set("bootstrap.servers", addresses).create().unwrap();
            let metadata = consumer.fetch_metadata(Some(&topic), Duration::from_secs(5));
            let Ok(metadata) = metadata else { return Partitions::new() };
            let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            let seen = partitions
                .map(|one| (one.id(), (one.leader(), one.replicas().to_vec(), one.isr().to_vec())));
            seen.collect()
        };
        tokio::task::spawn_blocking(ask).await.unwrap()
    }

    async fn call(&self, verb: &str, brokers: &[i32]) {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/services"));
        command
            .arg(verb)
            .args(brokers.iter().map(|broker| format!("broker-{broker}")))
            .env("ROOST_SERVICES_DIR", &self.dir)
            .env("ROOST_SERVICES_PORT", &self.port)
            .env("ROOST_SERVICES_INSTALL", "no")
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        let output = output.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
