//! The servers under test, and readers of one's own on them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use redis::{Client, aio::ConnectionLike, cluster::ClusterClient};
use roost::{
    domain::{PostId, UserId},
    fanout::combine,
    store::{
        Pushes,
        redis::{
            config::RedisConfig,
            node::ConnectionName,
            push::{PushSettings, Pusher},
        },
    },
};

use crate::external;

/// The URLs of one standalone server, or `None`, which is said.
pub fn standalone() -> Option<String> {
    external::address("ROOST_TEST_REDIS", "redis")
}

/// The URLs of a Cluster, or `None`, which is said.
pub fn cluster() -> Option<String> {
    external::address("ROOST_TEST_REDIS_CLUSTER", "cluster")
}

/// `host:port` of a plain URL.
pub fn address(url: &str) -> String {
    url.trim_start_matches("redis://").trim_end_matches('/').to_owned()
}

/// A pusher that gives up early enough for a test.
pub fn pusher(urls: &str) -> Pusher {
    Pusher::new(config(urls), settings())
}

pub fn config(urls: &str) -> Arc<RedisConfig> {
    Arc::new(RedisConfig::from_urls(urls, None).unwrap())
}

pub fn settings() -> PushSettings {
    PushSettings {
        progress_timeout: Duration::from_secs(1),
        ..PushSettings::new(ConnectionName::new("test worker", 1), ENTRIES_MAX)
    }
}

/// A list that is longer is reported.
pub const ENTRIES_MAX: usize = 12;

/// The id that a list of a reader who is awake begins with.
const MARKER: PostId = PostId(0);

/// Readers whose ids nobody else has, some of them awake.
pub struct Readers {
    pub first: u64,
    pub count: u64,
}

impl Readers {
    pub fn new(count: u64) -> Self {
        Self { first: rand::random_range(1..1_u64 << 42) << 20, count }
    }

    pub fn all(&self) -> impl Iterator<Item = UserId> {
        (self.first..self.first + self.count).map(UserId)
    }

    /// Every third one sleeps.
    pub fn is_awake(&self, reader: UserId) -> bool {
        (reader.0 - self.first) % 3 != 2
    }

    /// One post to each of them.
    pub fn one_each(&self, post: u64) -> Pushes<UserId> {
        combine(self.all().map(|reader| (reader, PostId(post))).collect())
    }

    pub async fn wake(&self, redis: &mut impl ConnectionLike) {
        for reader in self.all().filter(|reader| self.is_awake(*reader)) {
            let marker = &MARKER.0.to_be_bytes()[..];
            let made: i64 =
                redis::cmd("RPUSH").arg(key(reader)).arg(marker).query_async(redis).await.unwrap();
            assert_eq!(made, 1, "a list of reader {reader} is left from elsewhere");
        }
    }

    /// The list of each, without its marker; nobody is in it who sleeps.
    pub async fn lists(&self, redis: &mut impl ConnectionLike) -> BTreeMap<UserId, Vec<u64>> {
        let mut lists = BTreeMap::new();
        for reader in self.all() {
            let list: Vec<Vec<u8>> = redis::cmd("LRANGE")
                .arg(key(reader))
                .arg(0)
                .arg(-1)
                .query_async(redis)
                .await
                .unwrap();
            let mut ids = list.iter().map(|id| u64::from_be_bytes(id[..].try_into().unwrap()));
            if ids.next().is_some() {
                lists.insert(reader, ids.collect());
            }
        }
        lists
    }

    pub async fn clear(&self, redis: &mut impl ConnectionLike) {
        for reader in self.all() {
            redis::cmd("DEL").arg(key(reader)).exec_async(redis).await.unwrap();
        }
    }
}

fn key(reader: UserId) -> String {
    format!("h:{reader}")
}

/// A connection of the redis crate to look with, patient.
pub async fn look(url: &str) -> redis::aio::MultiplexedConnection {
    let settings =
        redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    let client = Client::open(url).unwrap();
    client.get_multiplexed_async_connection_with_config(&settings).await.unwrap()
}

/// The same for a Cluster.
pub async fn look_at_cluster(urls: &str) -> redis::cluster_async::ClusterConnection {
    let urls: Vec<&str> = urls.split(',').collect();
    let builder = ClusterClient::builder(urls).response_timeout(Duration::from_secs(10));
    builder.build().unwrap().get_async_connection().await.unwrap()
}
