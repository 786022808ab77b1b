//! A Kafka of the bench's own: one broker, from jars that are there.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::Stdio,
    thread,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use super::{BenchError, child, workspace::dir_in};

const START_MAX: Duration = Duration::from_secs(60);
const START_LOOK_EVERY: Duration = Duration::from_millis(100);
/// Of the cluster that this broker is all of; any will do.
const CLUSTER_ID: &str = "cm9vc3QtYmVuY2gtYnJva2U";

/// A broker that ends with the bench, and what it kept with it.
pub(super) struct OwnKafka {
    port: u16,
    _broker: Child,
    _dir: TempDir,
}

impl OwnKafka {
    /// Starts a broker on loopback, and waits until it answers.
    ///
    /// # Errors
    /// If Java or the jars are missing, or it does not answer in time.
    pub(super) async fn start(jars: &Path, workspace: &Path) -> Result<Self, BenchError> {
        let dir = dir_in(workspace)?;
        check(jars).map_err(BenchError::NoKafka)?;
        let (port, controller) = free_ports().map_err(BenchError::Dir)?;
        let properties = dir.path().join("server.properties");
        fs::write(&properties, self::properties(port, controller, &dir.path().join("data")))
            .map_err(BenchError::Dir)?;
        let log = dir.path().join("log");
        let java = |heap: &str, main: &str| {
            let mut java = Command::new("java");
            let jars = jars.join("*");
            java.arg(heap).arg("-cp").arg(jars).arg(main);
            java
        };
        let formatted = java("-Xmx128m", "kafka.tools.StorageTool")
            .args(["format", "--cluster-id", CLUSTER_ID, "--ignore-formatted", "--config"])
            .arg(&properties)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await
            .map_err(BenchError::NoKafka)?;
        if !formatted.success() {
            return Err(BenchError::NoKafka(std::io::Error::other(format!(
                "its directory could not be made with the jars in {}",
                jars.display()
            ))));
        }
        let mut broker = java("-Xmx1g", "kafka.Kafka");
        let mut broker =
            child::start(broker.arg(&properties), &log).map_err(BenchError::NoKafka)?;
        let deadline = Instant::now() + START_MAX;
        // Whoever makes a topic waits until there are leaders, so that this is enough.
        while let Err(error) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            if let Some(why) = child::ended(&mut broker, &log) {
                return Err(BenchError::NoKafka(why));
            }
            if Instant::now() >= deadline {
                return Err(BenchError::NoKafka(error));
            }
            sleep(START_LOOK_EVERY).await;
        }
        Ok(Self { port, _broker: broker, _dir: dir })
    }

    pub(super) fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// That there are jars in a folder.
fn check(jars: &Path) -> std::io::Result<()> {
    let is_jar = |name: &Path| name.extension().is_some_and(|extension| extension == "jar");
    let unreadable = |error| std::io::Error::other(format!("{}: {error}", jars.display()));
    if fs::read_dir(jars).map_err(unreadable)?.flatten().any(|entry| is_jar(&entry.path())) {
        return Ok(());
    }
    Err(std::io::Error::other(format!("there are no jars in {}", jars.display())))
}

/// Broker and controller in one, of which there is one, with as many threads as suit the
/// machine: what a request waits for is the next thread that takes it on.
fn properties(port: u16, controller: u16, data: &Path) -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (network, io) = ((cores / 2).clamp(1, 3), cores.clamp(1, 8));
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         num.network.threads={network}\n\
         num.io.threads={io}\n\
         log.dirs={}\n\
         auto.create.topics.enable=false\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n",
        data.display()
    )
}

/// Two that were free a moment ago.
fn free_ports() -> std::io::Result<(u16, u16)> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (one, other) = (listen()?, listen()?);
    Ok((one.local_addr()?.port(), other.local_addr()?.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_jars_is_named() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let said = |path: &Path| check(path).map_err(|error| error.to_string());
        assert!(said(&dir.path().join("nowhere")).is_err_and(|why| why.contains("nowhere")));
        assert!(said(dir.path()).is_err_and(|why| why.starts_with("there are no jars in")));
        fs::write(dir.path().join("kafka.jar"), "").expect("a file");
        assert_eq!(said(dir.path()), Ok(()));
    }
}
