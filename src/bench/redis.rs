//! The Redis that is measured: one of the bench's own, or one that was given and holds
//! nothing.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::{BenchError, child, workspace::dir_in};
use crate::store::redis::{
    config::RedisConfig, node::ConnectionName, push::PushSettings, resp::Value, router::Router,
};

const START_MAX: Duration = Duration::from_secs(20);
const START_LOOK_EVERY: Duration = Duration::from_millis(50);
/// Some 100 million keys.
const EMPTY_MAX: Duration = Duration::from_secs(600);
const EMPTY_LOOK_EVERY: Duration = Duration::from_millis(5);

/// A Redis to measure. It is emptied between measurements.
pub(super) struct BenchRedis {
    config: Arc<RedisConfig>,
    /// For questions, and for what rivals write.
    router: Router,
    _own: Option<Own>,
}

/// A server that ends with the bench.
struct Own {
    _server: Child,
    _dir: TempDir,
}

/// What all nodes together have used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// User and system, of the whole process.
    pub(super) cpu: Duration,
    /// What the data takes, with the allocator's overhead.
    pub(super) memory_bytes: u64,
}

impl BenchRedis {
    /// Starts a server on loopback that keeps nothing on disk.
    pub(super) async fn start(workspace: &Path) -> Result<Self, BenchError> {
        let dir = dir_in(workspace)?;
        let port = free_port().map_err(BenchError::Dir)?;
        let log = dir.path().join("log");
        let mut server = Command::new("redis-server");
        server.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        server.args(["--save", "", "--appendonly", "no", "--dir"]).arg(dir.path());
        let mut server = child::start(&mut server, &log).map_err(BenchError::NoRedis)?;
        let mut redis = Self::connect(&format!("redis://127.0.0.1:{port}"))?;
        let deadline = Instant::now() + START_MAX;
        while let Err(error) = redis.router.check().await {
            if let Some(why) = child::ended(&mut server, &log) {
                return Err(BenchError::NoRedis(why));
            }
            if Instant::now() >= deadline {
                return Err(error.into());
            }
            sleep(START_LOOK_EVERY).await;
        }
        redis._own = Some(Own { _server: server, _dir: dir });
        Ok(redis)
    }

    /// Takes one that runs.
    ///
    /// # Errors
    /// If it holds something: a bench empties what it measures.
    pub(super) async fn given(urls: &str) -> Result<Self, BenchError> {
        let redis = Self::connect(urls)?;
        // All its databases: all of them are emptied.
        let is_in_use = |info: &String| info.lines().any(|line| line.contains("keys="));
        if redis.info("keyspace").await?.iter().any(is_in_use) {
            return Err(BenchError::RedisInUse);
        }
        Ok(redis)
    }

    fn connect(urls: &str) -> Result<Self, BenchError> {
        let config = Arc::new(RedisConfig::from_urls(urls, None)?);
        let settings = PushSettings::new(ConnectionName::new("bench", 0), usize::MAX);
        let router = Router::new(Arc::clone(&config), settings);
        Ok(Self { config, router, _own: None })
    }

    pub(super) fn config(&self) -> Arc<RedisConfig> {
        Arc::clone(&self.config)
    }

    pub(super) fn router(&self) -> &Router {
        &self.router
    }

    /// Drops everything in it, and waits until the memory is free: what is measured next
    /// must not pay for it.
    pub(super) async fn empty(&self) -> Result<(), BenchError> {
        // With millions of keys it would not answer for seconds otherwise.
        self.ask(&[b"FLUSHALL", b"ASYNC"]).await?;
        let deadline = Instant::now() + EMPTY_MAX;
        while Instant::now() < deadline {
            let memory = self.info("memory").await?;
            if memory.iter().all(|info| number(info, "lazyfree_pending_objects") == 0.0) {
                return Ok(());
            }
            sleep(EMPTY_LOOK_EVERY).await;
        }
        Err(BenchError::NotEmptied)
    }

    pub(super) async fn usage(&self) -> Result<Usage, BenchError> {
        let mut usage = Usage::default();
        for (cpu, memory) in self.info("cpu").await?.into_iter().zip(self.info("memory").await?) {
            let seconds = number(&cpu, "used_cpu_user") + number(&cpu, "used_cpu_sys");
            usage.cpu += Duration::from_secs_f64(seconds);
            usage.memory_bytes += number(&memory, "used_memory") as u64;
        }
        Ok(usage)
    }

    /// Its version.
    pub(super) async fn version(&self) -> Result<String, BenchError> {
        let info = self.info("server").await?;
        Ok(info.first().map(|info| field(info, "redis_version").to_owned()).unwrap_or_default())
    }

    async fn info(&self, section: &str) -> Result<Vec<String>, BenchError> {
        let replies = self.ask(&[b"INFO", section.as_bytes()]).await?;
        let texts = replies.into_iter().map(|reply| match reply {
            Value::Text(text) => String::from_utf8_lossy(&text).into_owned(),
            _ => String::new(),
        });
        Ok(texts.collect())
    }

    /// Asks every node that serves something.
    async fn ask(&self, command: &[&[u8]]) -> Result<Vec<Value>, BenchError> {
        let mut replies = Vec::new();
        for node in self.router.map().await?.nodes() {
            replies.extend(self.router.on_node(node, &[command]).await?);
        }
        Ok(replies)
    }
}

impl Usage {
    /// What was used since an earlier look.
    pub(super) fn cpu_since(&self, before: &Self) -> Duration {
        self.cpu.saturating_sub(before.cpu)
    }
}

/// One that was free a moment ago.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn field<'a>(info: &'a str, name: &str) -> &'a str {
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_default().trim()
}

fn number(info: &str, name: &str) -> f64 {
    field(info, name).parse().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let info = "# CPU\r\nused_cpu_sys:1.5\r\nused_cpu_sys_children:9\r\n";
        assert_eq!(number(info, "used_cpu_sys"), 1.5);
        assert_eq!(field(info, "used_cpu"), "");
    }
}
