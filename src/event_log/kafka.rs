//! The event log in a topic of Apache Kafka, which many processes share.
//!
//! ```text
//!  append ──► appender ──► the partition's leader and replicas ──► acknowledged
//!  read ◄── window ◄── fetcher ◄── leader           end ◄── ends ◄── leaders
//!  join, commit ◄──► group ◄──► the group's coordinator
//! ```
//!
//! Partitions and offsets are Kafka's own, and events are the messages' values.
//! Nobody else may write to the topic; it is not compacted, keeps everything for
//! ever, and is not written to in transactions, so offsets are consecutive.
//!
//! There are three clients of librdkafka, each with threads of its own: one
//! appends (`appender`), one reads (`fetcher`), one is the `member` of the group
//! (`group`) and asks where partitions end (`ends`). Each is replaced by another one
//! should it come to nothing for good. The topic is made and checked when the log is
//! opened (`topic`); what goes wrong is said in `trouble`.
//!
//! Left out: Kafka's transactions, since what is derived from the log stands
//! outside of Kafka.

mod addresses;
mod appender;
mod client;
mod ends;
mod fetcher;
mod group;
#[cfg(test)]
mod lone_broker;
mod member;
mod observer;
mod presence;
mod regression;
mod replication;
mod topic;
mod trouble;
mod window;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use self::{
    appender::Appender,
    ends::Ends,
    fetcher::Fetcher,
    group::{Group, Seat},
    trouble::Trouble,
};
use super::{Assignments, EventLog, LogError, Record};
use crate::telemetry::KafkaMetrics;

/// How many partitions a new topic has if nothing else is asked for: as many
/// workers can share it, at most.
pub const PARTITIONS_DEFAULT: u32 = 16;
/// The most partitions a topic may have.
pub const PARTITIONS_MAX: u32 = 1024;

/// The choices of whoever runs the log.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Some of the brokers, as `host:port,host:port`; the others are learnt from them.
    pub brokers: String,
    /// The topic that holds the log, and nothing else.
    pub topic: String,
    /// The group of the workers that share the partitions, in which they remember
    /// how far they are. An idle group is forgotten after a while (Kafka's
    /// `offsets.retention.minutes`), and its workers then begin at 0, unless the store
    /// remembers more.
    pub group: String,
    /// How many partitions there are, from 1 to [`PARTITIONS_MAX`]. A topic keeps the
    /// count that it was made with, and asking for another one is an error; `None`
    /// takes what is there, or [`PARTITIONS_DEFAULT`] for a new topic.
    pub partitions: Option<u32>,
    /// Whether the topic is made where there is none.
    pub create: bool,
    /// On how many brokers each partition is. `None` takes what is there. A new topic then
    /// gets 3, or as many as the cluster has brokers; a cluster whose configuration tells
    /// of more brokers than are there is waited for.
    pub replication: Option<u16>,
    /// How many of them must have an event before it is acknowledged. `None` asks for
    /// 2, or for 1 of 1.
    pub min_insync_replicas: Option<u16>,
    /// Properties of librdkafka, among them those of TLS and SASL
    /// (`security.protocol`, `ssl.*`, `sasl.*`) and `session.timeout.ms`, after which a
    /// worker that has died is replaced (10 s). Those that the log's promises rest on
    /// are refused.
    pub properties: BTreeMap<String, String>,
    /// How long opening the log may take.
    pub open_timeout: Duration,
    /// For how long brokers must say, without one that says otherwise, that the log has
    /// lost its end, before that is an error. A leader that was replaced may say so for a while.
    pub confirm_loss_after: Duration,
    /// The same of a topic that is not to be created and that brokers say is missing, as one
    /// that has just started may.
    pub confirm_no_topic_after: Duration,
    /// After this an append that is not acknowledged has failed. It is again so
    /// long that an append waits for room in the queue.
    pub delivery_timeout: Duration,
    /// How long a read, a commit or a question about offsets may take.
    pub request_timeout: Duration,
    /// How long a worker has to finish what is in hand when its partition goes to
    /// another one; then the partition goes anyway.
    pub release_timeout: Duration,
    /// How many bytes may be on their way to the brokers, from 1 MiB to 2 GiB.
    /// Appends beyond wait until there is room.
    pub queue_bytes_max: usize,
    /// How many bytes of each partition are fetched ahead of its reader, from 64 KiB
    /// to 1 GiB, and as much again for all of them together.
    pub buffer_bytes_max: usize,
    /// Where what goes to and fro is counted.
    pub metrics: Arc<KafkaMetrics>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            topic: "roost-events".into(),
            group: "roost-workers".into(),
            partitions: None,
            create: true,
            replication: None,
            min_insync_replicas: None,
            properties: BTreeMap::new(),
            open_timeout: Duration::from_secs(15),
            confirm_loss_after: Duration::from_secs(15),
            confirm_no_topic_after: Duration::from_secs(15),
            delivery_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            release_timeout: Duration::from_secs(30),
            queue_bytes_max: 64 << 20,
            buffer_bytes_max: 8 << 20,
            metrics: Arc::default(),
        }
    }
}

/// The properties of librdkafka with which events are appended: for whoever measures what
/// a log adds to them.
pub fn producer_properties(settings: &Settings) -> BTreeMap<String, String> {
    let config = client::producer(settings);
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    config.config_map().into_iter().map(owned).collect()
}

impl Settings {
    /// Every field that is out of its range and every property that librdkafka does not
    /// take, and why.
    pub fn problems(&self) -> Vec<String> {
        let texts = [("topic", &self.topic), ("group", &self.group)];
        let texts = texts.into_iter().filter(|(_, value)| value.trim().is_empty());
        let texts = texts.map(|(name, _)| format!("{name} is empty"));
        let numbers = [
            ("partitions", self.partitions.map(u64::from), 1, u64::from(PARTITIONS_MAX)),
            ("replication", self.replication.map(u64::from), 1, 100),
            ("min_insync_replicas", self.min_insync_replicas.map(u64::from), 1, 100),
            ("queue_bytes_max", Some(self.queue_bytes_max as u64), 1 << 20, 2 << 30),
            ("buffer_bytes_max", Some(self.buffer_bytes_max as u64), 64 << 10, 1 << 30),
        ];
        let numbers = numbers.into_iter().filter_map(|(name, value, least, most)| {
            let value = value.filter(|value| !(least..=most).contains(value))?;
            Some(format!("{name} is {value}, but must be from {least} to {most}"))
        });
        let times = [
            ("open_timeout", self.open_timeout),
            ("delivery_timeout", self.delivery_timeout),
            ("request_timeout", self.request_timeout),
        ];
        let allowed = Duration::from_secs(1)..=Duration::from_secs(300);
        let times = times.into_iter().filter(|(_, value)| !allowed.contains(value));
        let times = times
            .map(|(name, value)| format!("{name} is {value:?}, but must be from 1 s to 300 s"));
        let reserved =
            self.properties.keys().filter(|name| client::RESERVED.contains(&name.as_str()));
        let reserved = reserved.map(|name| {
            format!("the property {name} is the log's own: it cannot be set to another value")
        });
        let brokers = addresses::problem(&self.brokers);
        let mut problems: Vec<String> =
            brokers.into_iter().chain(texts).chain(numbers).chain(times).chain(reserved).collect();
        let refused = self.properties.iter().filter_map(|(name, value)| {
            Some(format!("the property {name}: {}", client::refusal(name, value)?))
        });
        if cfg!(feature = "kafka-tls") || !self.needs_tls() {
            problems.extend(refused);
        } else {
            // Those of TLS are not known to such a librdkafka.
            problems.extend(refused.filter(|text| !text.contains(client::NO_OPENSSL)));
            problems.push(
                "this roost was built without TLS and SCRAM for Kafka; build it with \
                 `cargo build --release --features kafka-tls`"
                    .to_owned(),
            );
        }
        problems
    }

    /// Whether the properties ask for what only OpenSSL can do.
    fn needs_tls(&self) -> bool {
        let is = |name: &str, part: &str| {
            self.properties.get(name).is_some_and(|value| value.to_lowercase().contains(part))
        };
        is("security.protocol", "ssl")
            || is("sasl.mechanism", "scram")
            || is("sasl.mechanisms", "scram")
    }
}

/// A log in a topic of Kafka.
///
/// Dropping it waits for nobody: what is on its way may or may not be appended, and
/// the group notices only after its session time-out where the process ends at
/// once. [`close`](EventLog::close) ends it in order.
pub struct KafkaLog {
    partitions: u32,
    appender: Arc<Appender>,
    fetcher: Arc<Fetcher>,
    group: Arc<Group>,
    closed: AtomicBool,
}

impl KafkaLog {
    /// Opens the log, and makes its topic where there is none, unless the settings say not
    /// to.
    ///
    /// # Errors
    ///
    /// [`LogError::Settings`] if it cannot be opened like this, [`LogError::NoTopic`] if
    /// there is none and none is made, [`LogError::Topic`] if
    /// the topic is not as a log must be, [`LogError::Refused`] if the brokers do not
    /// let this process in, and [`LogError::Unavailable`] if they do not answer within
    /// [`Settings::open_timeout`].
    pub async fn open(settings: Settings) -> Result<Self, LogError> {
        let problems = settings.problems();
        if !problems.is_empty() {
            return Err(LogError::Settings { reason: problems.join("; ") });
        }
        let open = tokio::task::spawn_blocking(move || Self::open_blocking(&settings));
        open.await.map_err(|_| LogError::Closed)?
    }

    fn open_blocking(settings: &Settings) -> Result<Self, LogError> {
        let deadline = Instant::now() + settings.open_timeout;
        let trouble = Arc::new(Trouble::new(Arc::clone(&settings.metrics)));
        let closing = Arc::default();
        let member = Arc::new(member::new(settings, &trouble, &closing)?);
        let partitions = topic::open(settings, &member, &trouble, deadline)?;
        let seat = Seat::new(&member);
        let ends = Ends::new(
            settings.topic.clone(),
            partitions,
            settings.request_timeout,
            seat.clone(),
            Arc::clone(&trouble),
        );
        let log = Self {
            partitions,
            appender: Arc::new(Appender::new(settings, &trouble)?),
            fetcher: Arc::new(Fetcher::start(settings, partitions, ends, &trouble)?),
            group: Arc::new(Group::start(settings, member, &seat, &closing, &trouble)?),
            closed: AtomicBool::new(false),
        };
        trouble.opened();
        Ok(log)
    }

    /// Drops the topic and the group of a log that nobody has open, with all that is in
    /// it. Where there is none, that is as good.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open).
    pub async fn remove(settings: Settings) -> Result<(), LogError> {
        let remove = tokio::task::spawn_blocking(move || {
            let trouble = Arc::new(Trouble::new(Arc::clone(&settings.metrics)));
            topic::remove(&settings, &trouble, Instant::now() + settings.request_timeout)
        });
        remove.await.map_err(|_| LogError::Closed)?
    }

    fn check_open(&self) -> Result<(), LogError> {
        if self.closed.load(Ordering::Relaxed) { Err(LogError::Closed) } else { Ok(()) }
    }

    /// Offsets beyond the end are those of another log.
    async fn check_offset(&self, partition: u32, offset: u64) -> Result<(), LogError> {
        if self.fetcher.is_known(partition, offset) {
            return Ok(());
        }
        let end = self.fetcher.end_reaching(partition, offset).await?;
        if offset > end { Err(LogError::BeyondEnd { partition, offset, end }) } else { Ok(()) }
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.fetcher.close(false);
        self.group.close(false);
    }
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

impl EventLog for KafkaLog {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    async fn append(&self, partition: u32, payloads: Vec<Bytes>) -> Result<Vec<u64>, LogError> {
        self.check_open()?;
        let offsets = self.appender.append(partition, payloads).await?;
        if let Some(last) = offsets.last() {
            self.fetcher.note_end(partition, last + 1);
        }
        Ok(offsets)
    }

    async fn read(
        &self,
        partition: u32,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<Record>, LogError> {
        self.check_open()?;
        self.fetcher.read(partition, from, bytes_max).await
    }

    async fn end(&self, partition: u32) -> Result<u64, LogError> {
        self.check_open()?;
        self.fetcher.end(partition).await
    }

    async fn end_reaching(&self, partition: u32, offset: u64) -> Result<u64, LogError> {
        self.check_open()?;
        self.fetcher.end_reaching(partition, offset).await
    }

    async fn ends(&self) -> Result<Vec<u64>, LogError> {
        self.check_open()?;
        Ok(self.fetcher.ends().await?.to_vec())
    }

    async fn wait_past(&self, partition: u32, offset: u64) -> Result<(), LogError> {
        self.check_open()?;
        self.fetcher.wait_past(partition, offset).await
    }

    async fn committed(&self, partition: u32) -> Result<u64, LogError> {
        self.check_open()?;
        let offset = self.group.committed(partition).await?;
        self.check_offset(partition, offset).await?;
        Ok(offset)
    }

    async fn commit(&self, partition: u32, offset: u64) -> Result<(), LogError> {
        self.check_open()?;
        self.check_offset(partition, offset).await?;
        self.group.commit(partition, offset).await
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let (appender, fetcher) = (Arc::clone(&self.appender), Arc::clone(&self.fetcher));
        let group = Arc::clone(&self.group);
        let close = move || {
            appender.flush();
            fetcher.close(true);
            group.close(true);
        };
        if tokio::task::spawn_blocking(close).await.is_err() {
            tracing::error!("the event log was not closed in order");
        }
    }

    fn join(&self) -> Assignments {
        self.group.join(self.partitions)
    }
}

/// Drops a client on a thread of its own, since that may wait for brokers.
fn drop_aside<T: Send + 'static>(client: T) {
    // Where there can be no thread, it is dropped here.
    let _ = thread::Builder::new().name("kafka-drop".into()).spawn(move || drop(client));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
