//! The event logs that are worked on: each scenario has an empty one, in Kafka or
//! embedded, and may hold its readers back while a backlog is written.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::watch;

use super::{BenchError, LogPlace, kafka::OwnKafka, workspace::dir_in};
use crate::event_log::{
    Assignments, EventLog, LogError, Record,
    embedded::{self, EmbeddedLog},
    kafka::{self, KafkaLog},
};

/// A new topic of a broker that has just been started may take longer than usual.
const OPEN_MAX: Duration = Duration::from_secs(60);
/// Brokers that were given are running already.
const CHECK_MAX: Duration = Duration::from_secs(8);

/// Makes logs, and drops them.
pub(super) struct Logs {
    /// `None`: they are embedded.
    brokers: Option<String>,
    partitions: Option<u32>,
    /// The settings of every log in Kafka that was made.
    made: Vec<kafka::Settings>,
    own: Option<OwnKafka>,
    workspace: PathBuf,
}

impl Logs {
    /// Starts the broker that is to be started, or asks those that were given for a topic.
    ///
    /// # Errors
    /// If none is started, or those do not make one in time.
    pub(super) async fn open(
        place: &LogPlace,
        partitions: Option<u32>,
        workspace: &Path,
    ) -> Result<Self, BenchError> {
        let (brokers, own) = match place {
            LogPlace::Embedded => (None, None),
            LogPlace::Kafka { brokers } => (Some(brokers.clone()), None),
            LogPlace::OwnKafka { jars } => {
                let own = OwnKafka::start(jars, workspace).await?;
                (Some(own.brokers()), Some(own))
            }
        };
        let workspace = workspace.to_owned();
        let this = Self { brokers, partitions, made: Vec::new(), own, workspace };
        this.check_given().await?;
        Ok(this)
    }

    /// Whether brokers that were given answer and make topics: the first scenario that needs
    /// one may come late.
    async fn check_given(&self) -> Result<(), BenchError> {
        let Some(settings) = self.topic().filter(|_| self.own.is_none()) else { return Ok(()) };
        let settings = kafka::Settings {
            open_timeout: CHECK_MAX,
            request_timeout: CHECK_MAX.min(settings.request_timeout),
            ..settings
        };
        let opened = KafkaLog::open(settings.clone()).await;
        let checked = match opened {
            Ok(log) => {
                log.close().await;
                Ok(())
            }
            Err(error) => Err(error),
        };
        // It may have been made though it could not be opened.
        let removed = KafkaLog::remove(settings).await;
        Ok(checked.and(removed)?)
    }

    /// Whether they are topics of Kafka.
    pub(super) fn are_of_kafka(&self) -> bool {
        self.brokers.is_some()
    }

    /// What the report says of them.
    pub(super) fn name(&self) -> &'static str {
        match (&self.brokers, &self.own) {
            (None, _) => "the embedded log",
            (Some(_), None) => "Kafka, brokers that were given",
            (Some(_), Some(_)) => "Kafka, one broker that the bench has started",
        }
    }

    /// An empty log.
    pub(super) async fn new_log(&mut self) -> Result<BenchLog, BenchError> {
        match self.new_topic() {
            Some(settings) => Ok(BenchLog::new(Kind::Kafka(KafkaLog::open(settings).await?))),
            None => BenchLog::embedded(&self.workspace, self.partitions),
        }
    }

    /// A log in Kafka that is not open yet; `None` where logs are embedded.
    pub(super) fn new_topic(&mut self) -> Option<kafka::Settings> {
        let settings = self.topic()?;
        self.made.push(settings.clone());
        Some(settings)
    }

    /// A topic of another name than any.
    fn topic(&self) -> Option<kafka::Settings> {
        let brokers = self.brokers.as_ref()?;
        let name = format!("roost-bench-{:016x}", rand::random::<u64>());
        Some(kafka::Settings {
            brokers: brokers.clone(),
            topic: name.clone(),
            group: name,
            partitions: self.partitions,
            open_timeout: OPEN_MAX,
            ..kafka::Settings::default()
        })
    }

    /// Drops every log that was made; nobody may work on one any more.
    pub(super) async fn drop_all(self) -> Result<(), BenchError> {
        // What is in a broker of the bench's own goes with it.
        let made = if self.own.is_none() { self.made } else { Vec::new() };
        let mut dropped = Ok(());
        // One that cannot be dropped keeps no other.
        for settings in made {
            dropped = dropped.and(KafkaLog::remove(settings).await);
        }
        Ok(dropped?)
    }
}

/// A log whose readers can be held back.
pub(super) struct BenchLog {
    kind: Kind,
    held: watch::Sender<bool>,
}

enum Kind {
    Kafka(KafkaLog),
    Embedded { log: EmbeddedLog, _dir: TempDir },
}

/// Does the same with the log of either kind.
macro_rules! on {
    ($self:ident, $log:ident => $do:expr) => {
        match &$self.kind {
            Kind::Kafka($log) => $do,
            Kind::Embedded { log: $log, .. } => $do,
        }
    };
}

impl BenchLog {
    fn new(kind: Kind) -> Self {
        Self { kind, held: watch::Sender::new(false) }
    }

    /// An empty one on the local disk, in a directory in `place`.
    pub(super) fn embedded(place: &Path, partitions: Option<u32>) -> Result<Self, BenchError> {
        let dir = dir_in(place)?;
        let settings = embedded::Settings { partitions, ..embedded::Settings::default() };
        let log = EmbeddedLog::open(&dir.path().join("log"), settings)?;
        Ok(Self::new(Kind::Embedded { log, _dir: dir }))
    }

    /// From now on nobody reads anything of it, until it is released.
    pub(super) fn hold(&self) {
        self.held.send_replace(true);
    }

    pub(super) fn release(&self) {
        self.held.send_replace(false);
    }
}

impl EventLog for BenchLog {
    fn partitions(&self) -> u32 {
        on!(self, log => log.partitions())
    }

    async fn append(&self, partition: u32, payloads: Vec<Bytes>) -> Result<Vec<u64>, LogError> {
        on!(self, log => log.append(partition, payloads).await)
    }

    async fn read(
        &self,
        partition: u32,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<Record>, LogError> {
        if *self.held.borrow() {
            return Ok(Vec::new());
        }
        on!(self, log => log.read(partition, from, bytes_max).await)
    }

    async fn end(&self, partition: u32) -> Result<u64, LogError> {
        on!(self, log => log.end(partition).await)
    }

    async fn ends(&self) -> Result<Vec<u64>, LogError> {
        on!(self, log => log.ends().await)
    }

    async fn wait_past(&self, partition: u32, offset: u64) -> Result<(), LogError> {
        // The sender is here.
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        on!(self, log => log.wait_past(partition, offset).await)
    }

    async fn committed(&self, partition: u32) -> Result<u64, LogError> {
        on!(self, log => log.committed(partition).await)
    }

    async fn commit(&self, partition: u32, offset: u64) -> Result<(), LogError> {
        on!(self, log => log.commit(partition, offset).await)
    }

    async fn close(&self) {
        on!(self, log => log.close().await);
    }

    fn join(&self) -> Assignments {
        on!(self, log => log.join())
    }
}
