//! A Kafka and a Redis of the run's own, which it may break.

use std::{
    env, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::{
    failure::{Doing, Failure, Result},
    settings::{Backend, Settings, target_dir},
};

pub struct Services {
    backend: Backend,
    first_port: u16,
}

/// The Redis without a Cluster, as `deploy/services` names it.
pub const REDIS: &str = "redis";
pub const KAFKA: &str = "kafka";
/// The brokers of a Kafka of three, by number.
pub const BROKERS: std::ops::RangeInclusive<u16> = 1..=3;

impl Services {
    /// Starts them anew. `None`, and a line that says so, where they cannot be had.
    pub async fn up(settings: &Settings) -> Result<Option<Self>> {
        let services = Self { backend: settings.backend, first_port: settings.first_port };
        // What an earlier run has left behind.
        services.call(&["down"]).await?;
        let kafka = match services.backend {
            Backend::Redis => KAFKA,
            Backend::Cluster => "brokers",
        };
        match services.call(&["up", services.backend.name(), kafka]).await {
            Ok(()) => Ok(Some(services)),
            Err(failure) if are_required() => Err(failure),
            Err(failure) => {
                println!("skipped: {failure}");
                Ok(None)
            }
        }
    }

    /// Ends them, keeping what they hold.
    pub async fn stop(&self, name: &str) -> Result<()> {
        self.call(&["stop", name]).await
    }

    /// The same with `kill -9`.
    pub async fn kill(&self, name: &str) -> Result<()> {
        self.call(&["kill", name]).await
    }

    /// Starts them with what they have kept, and waits until they answer.
    pub async fn start(&self, name: &str) -> Result<()> {
        self.call(&["start", name]).await
    }

    /// Does the same to several at once.
    pub async fn all(&self, verb: &str, names: &[String]) -> Result<()> {
        let names = names.iter().map(String::as_str);
        self.call(&[verb].into_iter().chain(names).collect::<Vec<_>>()).await
    }

    /// Of the standalone Redis.
    pub fn redis(&self) -> SocketAddr {
        self.address(0)
    }

    pub fn cluster_nodes(&self) -> impl Iterator<Item = SocketAddr> {
        (1..=6).map(|node| self.address(node))
    }

    /// Where Kafka's listeners are that say they are at `kafka_proxies`.
    pub fn kafka_behind_proxies(&self) -> Vec<SocketAddr> {
        match self.backend {
            Backend::Redis => vec![self.address(12)],
            Backend::Cluster => BROKERS.map(|broker| self.address(21 + broker)).collect(),
        }
    }

    pub fn kafka_proxies(&self) -> Vec<SocketAddr> {
        match self.backend {
            Backend::Redis => vec![self.address(13)],
            Backend::Cluster => BROKERS.map(|broker| self.address(24 + broker)).collect(),
        }
    }

    /// Of one of three brokers, past any proxy.
    pub fn broker(&self, broker: u16) -> SocketAddr {
        self.address(15 + broker)
    }

    /// A port beside theirs.
    pub fn api_node(&self, number: u16) -> SocketAddr {
        self.address(28 + number)
    }

    /// Whatever a Redis has written of itself is no more.
    pub fn drop_dump(&self) -> Result<()> {
        match fs::remove_file(self.folder().join("run/redis/data/dump.rdb")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).doing("the dump"),
            _ => Ok(()),
        }
    }

    /// Copies what the partitions of the log hold, as Kafka has written it: which event came
    /// first, and when, is what one asks after a difference.
    pub fn keep_events(&self, into: &Path) -> Result<()> {
        let kafka = match self.backend {
            Backend::Redis => KAFKA,
            Backend::Cluster => "broker-1",
        };
        let data = self.folder().join("run").join(kafka).join("data");
        for partition in fs::read_dir(&data).doing(data.display())? {
            let partition = partition.doing(data.display())?;
            if !partition.file_name().to_string_lossy().starts_with("roost-events-") {
                continue;
            }
            let kept = into.join(partition.file_name());
            fs::create_dir_all(&kept).doing(kept.display())?;
            let segments = partition.path();
            for segment in fs::read_dir(&segments).doing(segments.display())? {
                let segment = segment.doing(segments.display())?;
                if segment.path().extension().is_some_and(|extension| extension == "log") {
                    let copied = fs::copy(segment.path(), kept.join(segment.file_name()));
                    copied.doing(segment.path().display())?;
                }
            }
        }
        Ok(())
    }

    fn address(&self, offset: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.first_port + offset))
    }

    async fn call(&self, words: &[&str]) -> Result<()> {
        let what = format!("deploy/services {}", words.join(" "));
        let mut command = self.command(words);
        let ended = tokio::task::spawn_blocking(move || command.output());
        let output: Output = ended.await.doing(&what)?.doing(&what)?;
        if output.status.success() {
            return Ok(());
        }
        Err(Failure::new(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }

    /// Of these alone: another run may be under way.
    fn folder(&self) -> PathBuf {
        target_dir().join(format!("fault-services-{}", self.first_port))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/services"));
        command
            .args(words)
            .stdin(Stdio::null())
            .env("ROOST_SERVICES_DIR", self.folder())
            .env("ROOST_SERVICES_PORT", self.first_port.to_string());
        if env::var_os("ROOST_SERVICES_JARS").is_none() {
            // Those that deploy/test has fetched.
            command.env("ROOST_SERVICES_JARS", target_dir().join("test-services/jars"));
        }
        if !are_required() {
            command.env("ROOST_SERVICES_INSTALL", "no");
        }
        command
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // The next run ends what this does not.
        let _ = self.command(&["down"]).output();
    }
}

fn are_required() -> bool {
    env::var("ROOST_TEST_REQUIRE_SERVICES").is_ok_and(|value| value == "1")
}
