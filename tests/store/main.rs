//! What every store does, written once and run on each backend.

#[path = "../common/behaviours.rs"]
mod behaviours;
mod fixture;
mod homes;
mod inboxes;
mod ledger;
mod model;
mod pulled;
mod redis;
#[path = "../common/seed.rs"]
mod seed;
#[path = "../services/mod.rs"]
mod services;
mod slots;

use std::{future::Future, sync::Arc};

use ::redis::{cluster::ClusterClient, cluster_async::ClusterConnection};
use roost::store::{
    Store,
    embedded::{EmbeddedStore, Settings},
    redis::{self as redis_store, RedisStore, config::RedisConfig},
};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

const CAP: usize = 20;

/// Where a store with timelines of [`CAP`] is, empty at first.
trait Backend {
    type Store: Store;

    /// Opens the store, each time the same one.
    fn open(&self) -> impl Future<Output = Self::Store>;
}

/// The backends that all behaviours run on, a line each.
macro_rules! on_every_backend {
    ($($behaviours:tt)*) => {
        crate::behaviours::behaviours!(embedded: $($behaviours)*);
        crate::behaviours::behaviours!(redis: $($behaviours)*);
        crate::behaviours::behaviours!(redis_cluster: $($behaviours)*);
    };
}
use on_every_backend;

struct Embedded {
    dir: TempDir,
}

impl Backend for Embedded {
    type Store = EmbeddedStore;

    async fn open(&self) -> EmbeddedStore {
        let settings = Settings { home_timeline_cap: CAP, ..Settings::default() };
        EmbeddedStore::open(self.dir.path(), settings).unwrap()
    }
}

fn embedded() -> Option<Embedded> {
    Some(Embedded { dir: tempfile::tempdir().unwrap() })
}

/// A Redis that the tests take turns with; empty at first. Stores use it as a user that may do
/// what README.md lists, and nothing else.
struct Redis {
    /// To look with.
    config: Arc<RedisConfig>,
    turn: &'static Mutex<()>,
    taken: OnceCell<MutexGuard<'static, ()>>,
}

impl Redis {
    fn at(urls: &str, turn: &'static Mutex<()>) -> Self {
        let config = Arc::new(RedisConfig::from_urls(urls, None).unwrap());
        Self { config, turn, taken: OnceCell::new() }
    }

    async fn take(&self) -> MutexGuard<'static, ()> {
        let turn = self.turn.lock().await;
        services::empty_redis(&self.config).await;
        turn
    }

    /// A connection to look with, to a Cluster.
    async fn connect(&self) -> ClusterConnection {
        let nodes = self.config.connection_infos().to_vec();
        ClusterClient::new(nodes).unwrap().get_async_connection().await.unwrap()
    }
}

impl Backend for Redis {
    type Store = RedisStore;

    async fn open(&self) -> RedisStore {
        self.taken.get_or_init(|| self.take()).await;
        let config = Arc::new(services::as_restricted_user(&self.config).await);
        let mut settings = redis_store::Settings::new(config, "test".to_owned(), 3);
        settings.home_timeline_cap = CAP;
        RedisStore::open(settings).await.unwrap()
    }
}

fn redis() -> Option<Redis> {
    static TURN: Mutex<()> = Mutex::const_new(());
    Some(Redis::at(&services::address("ROOST_TEST_REDIS", "redis")?, &TURN))
}

fn redis_cluster() -> Option<Redis> {
    static TURN: Mutex<()> = Mutex::const_new(());
    Some(Redis::at(&services::address("ROOST_TEST_REDIS_CLUSTER", "cluster")?, &TURN))
}
