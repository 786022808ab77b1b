//! Reading: one consumer on a thread of its own, which follows the partitions that
//! are read, each from where its reader is.
//!
//! ```text
//!  read ──► window of the partition? ──► records
//!             │ no: follow from there       ▲
//!             ▼                             │ push
//!          commands ──► thread: assign, resume, poll ──► pause where a window is full
//! ```
//!
//! It is no member of the group: partitions are assigned by name, so a worker, a
//! rebuild and an API node that looks at the log's end all read in the same way. A
//! partition that nobody has read or waited for in a while is followed no more.
//!
//! While the brokers come and go, a consumer may end up fetching nothing for ever. So
//! where a read comes to nothing although the brokers say that there is something,
//! another consumer takes over, on another thread; what the one before it still brings
//! is not looked at.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};
use tokio::{
    sync::{Mutex as AsyncMutex, Notify},
    time::timeout_at,
};

use super::{
    Settings, client,
    ends::Ends,
    trouble::{Observer, Trouble},
    window::{Pushed, Window},
};
use crate::event_log::{LogError, Record};

/// How long the thread waits for messages before it looks for commands.
const POLL_TIMEOUT: Duration = Duration::from_millis(5);
/// Messages that the thread takes before it hands them out.
const BATCH_RECORDS_MAX: usize = 4096;
/// Payloads share pieces of memory of this size, so a record that is kept keeps one.
const PIECE_BYTES: usize = 64 << 10;
/// A read that has some of the records it could have waits no longer for the rest.
const PATIENCE: Duration = Duration::from_millis(500);
/// A partition that nobody has read for so long is followed no more.
const IDLE: Duration = Duration::from_secs(30);
/// How often that is looked for.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait before the end is asked for again.
const RETRY_DELAY: Duration = Duration::from_millis(500);

type Reader = BaseConsumer<Observer>;

/// Reads the partitions of a topic.
pub struct Fetcher {
    shared: Arc<Shared>,
    ends: Ends,
    trouble: Arc<Trouble>,
    config: ClientConfig,
    /// The thread that reads now. Locked after a partition, if both are.
    reading: Mutex<Reading>,
}

/// A thread and its consumer.
struct Reading {
    commands: mpsc::Sender<Command>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    topic: String,
    request_timeout: Duration,
    partitions: Box<[Partition]>,
    closed: AtomicBool,
    /// Which thread reads: 0 for the first.
    generation: AtomicU64,
    /// How often that thread has got something.
    batches: AtomicU64,
}

struct Partition {
    followed: Mutex<Followed>,
    /// Woken whenever there is more to read, or to know.
    changed: Notify,
    /// Reads take turns, so that each gets what it has asked for.
    turn: AsyncMutex<()>,
    /// Those who wait for its end to move on.
    waiting: AtomicUsize,
}

struct Followed {
    window: Window,
    is_followed: bool,
    /// Where it is to be followed from, until the thread does: what comes before
    /// that was fetched elsewhere.
    moving_to: Option<u64>,
    is_paused: bool,
    /// One past the last record known to be acknowledged.
    end: Option<u64>,
    /// Why it cannot be read on, for the next who reads.
    failure: Option<LogError>,
    used_at: Instant,
}

/// What the thread is to do; at most two wait for each partition and its reader.
enum Command {
    Follow { partition: u32, from: u64 },
    Resume { partition: u32 },
}

impl Fetcher {
    /// Runs a consumer on a thread of its own.
    pub fn start(
        settings: &Settings,
        partitions: u32,
        ends: Ends,
        trouble: &Arc<Trouble>,
    ) -> Result<Self, LogError> {
        let config = client::reader(settings);
        let reader = consumer(&config, trouble)?;
        let partition = |_| Partition {
            followed: Mutex::new(Followed {
                window: Window::new(settings.buffer_bytes_max),
                is_followed: false,
                moving_to: None,
                is_paused: false,
                end: None,
                failure: None,
                used_at: Instant::now(),
            }),
            changed: Notify::new(),
            turn: AsyncMutex::default(),
            waiting: AtomicUsize::new(0),
        };
        let shared = Arc::new(Shared {
            topic: settings.topic.clone(),
            request_timeout: settings.request_timeout,
            partitions: (0..partitions).map(partition).collect(),
            closed: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            batches: AtomicU64::new(0),
        });
        let reading = Reading::start(&shared, 0, move || Ok(reader))?;
        Ok(Self {
            shared,
            ends,
            trouble: Arc::clone(trouble),
            config,
            reading: Mutex::new(reading),
        })
    }

    /// Acknowledged records from `from` on, as far as their end is known here; at
    /// least one where one is.
    pub async fn read(
        &self,
        number: u32,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<Record>, LogError> {
        let partition = self.partition(number);
        let _turn = partition.turn.lock().await;
        let end = self.known_end(number, from).await?;
        if from >= end {
            return Ok(Vec::new());
        }
        let started = tokio::time::Instant::now();
        let generation = self.shared.generation.load(Ordering::Relaxed);
        let batches = self.shared.batches.load(Ordering::Relaxed);
        loop {
            let mut changed = std::pin::pin!(partition.changed.notified());
            changed.as_mut().enable();
            let has_some = match self.look(number, from, bytes_max, end)? {
                Look::Enough(records) => return Ok(records),
                Look::Some(records) if started.elapsed() >= PATIENCE => return Ok(records),
                Look::Some(_) => true,
                Look::Nothing => false,
            };
            let patience = if has_some { PATIENCE } else { self.shared.request_timeout };
            let woken = timeout_at(started + patience, changed).await;
            if woken.is_err() && !has_some {
                // The next read asks for it anew.
                partition.followed().is_followed = false;
                let is_still = self.shared.batches.load(Ordering::Relaxed) == batches;
                if is_still && self.ends.query().await.is_ok() {
                    self.replace(generation)?;
                }
                let what = format!("offset {from} of partition {number} cannot be read");
                return Err(self.trouble.unavailable(&what));
            }
        }
    }

    /// Waits until the end of a partition is greater than `offset`.
    pub async fn wait_past(&self, number: u32, offset: u64) -> Result<(), LogError> {
        let partition = self.partition(number);
        let _waiting = Waiting::new(partition);
        loop {
            let mut changed = std::pin::pin!(partition.changed.notified());
            changed.as_mut().enable();
            self.check_open()?;
            let is_followed = {
                let followed = partition.followed();
                if followed.end > Some(offset) {
                    return Ok(());
                }
                followed.is_followed
            };
            if is_followed {
                changed.await;
                continue;
            }
            match self.ends.query().await {
                Ok(ends) => {
                    self.note_ends(&ends);
                    // What is beyond the end comes without being asked for.
                    self.follow(number, offset.min(ends[number as usize]));
                }
                Err(LogError::Closed) => return Err(LogError::Closed),
                // It passes: the brokers are away, or this process is not let in.
                Err(_) => tokio::time::sleep(RETRY_DELAY).await,
            }
        }
    }

    /// One past the last acknowledged record, at some moment after the call.
    pub async fn end(&self, number: u32) -> Result<u64, LogError> {
        Ok(self.ends().await?[number as usize])
    }

    /// The same of all partitions.
    pub async fn ends(&self) -> Result<Arc<[u64]>, LogError> {
        self.check_open()?;
        let ends = self.ends.query().await?;
        self.note_ends(&ends);
        Ok(ends)
    }

    /// Notes that all records below `end` are acknowledged.
    pub fn note_end(&self, number: u32, end: u64) {
        let partition = self.partition(number);
        let mut followed = partition.followed();
        if followed.end < Some(end) {
            followed.end = Some(end);
            partition.changed.notify_waiters();
        }
    }

    /// Whether it is known that records below `end` are acknowledged.
    pub fn is_known(&self, number: u32, end: u64) -> bool {
        self.partition(number).followed().end >= Some(end)
    }

    /// Stops the thread, and waits for it if `wait` says so. Blocks.
    pub fn close(&self, wait: bool) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.shared.partitions.iter().for_each(|partition| partition.changed.notify_waiters());
        let thread = self.reading().thread.take();
        if let Some(thread) = thread.filter(|_| wait)
            && thread.join().is_err()
        {
            tracing::error!("reading the log was not ended in order");
        }
    }

    /// Lets another consumer read, on another thread, instead of the one of
    /// `generation`. That one ends by itself, if it ever does.
    fn replace(&self, generation: u64) -> Result<(), LogError> {
        {
            let mut reading = self.reading();
            let is_current = self.shared.generation.load(Ordering::Relaxed) == generation;
            if !is_current || self.shared.closed.load(Ordering::Relaxed) {
                return Ok(());
            }
            tracing::warn!(
                "nothing comes from Kafka although there is something; another consumer reads"
            );
            let (config, trouble) = (self.config.clone(), Arc::clone(&self.trouble));
            let make = move || consumer(&config, &trouble);
            self.shared.generation.store(generation + 1, Ordering::Relaxed);
            *reading = Reading::start(&self.shared, generation + 1, make)?;
        }
        for partition in &self.shared.partitions {
            // Whoever reads it or waits for it asks for it anew.
            partition.followed().is_followed = false;
            partition.changed.notify_waiters();
        }
        Ok(())
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partition(&self, number: u32) -> &Partition {
        &self.shared.partitions[number as usize]
    }

    fn check_open(&self) -> Result<(), LogError> {
        if self.shared.closed.load(Ordering::Relaxed) { Err(LogError::Closed) } else { Ok(()) }
    }

    fn note_ends(&self, ends: &[u64]) {
        for (number, end) in ends.iter().enumerate() {
            self.note_end(number as u32, *end);
        }
    }

    /// The end as far as it is known, which follows the log where it is followed.
    async fn known_end(&self, number: u32, from: u64) -> Result<u64, LogError> {
        let known = {
            let followed = self.partition(number).followed();
            followed.end.filter(|end| from < *end || followed.is_followed)
        };
        match known {
            Some(end) => Ok(end),
            None => self.end(number).await,
        }
    }

    /// What there is to read now, up to `end`; goes to `from` if the window is elsewhere.
    fn look(&self, number: u32, from: u64, bytes_max: usize, end: u64) -> Result<Look, LogError> {
        self.check_open()?;
        let mut followed = self.partition(number).followed();
        if let Some(failure) = followed.failure.take() {
            return Err(failure);
        }
        followed.used_at = Instant::now();
        if !followed.is_followed || !followed.window.covers(from) {
            drop(followed);
            self.follow(number, from);
            return Ok(Look::Nothing);
        }
        followed.window.pass(from);
        if followed.is_paused && followed.window.has_room() {
            followed.is_paused = false;
            self.command(Command::Resume { partition: number });
        }
        let count = followed.window.count(from, bytes_max);
        if count == 0 {
            return Ok(Look::Nothing);
        }
        let reached = from + count as u64;
        let is_cut = reached < followed.window.next();
        let records = followed.window.read(from, count);
        if is_cut || reached >= end || followed.is_paused {
            Ok(Look::Enough(records))
        } else {
            Ok(Look::Some(records))
        }
    }

    /// Follows a partition from `from` on, wherever it was.
    fn follow(&self, number: u32, from: u64) {
        let mut followed = self.partition(number).followed();
        if followed.is_followed && followed.window.covers(from) {
            return;
        }
        followed.window.restart(from);
        followed.is_followed = true;
        followed.moving_to = Some(from);
        followed.is_paused = false;
        followed.failure = None;
        followed.used_at = Instant::now();
        self.command(Command::Follow { partition: number, from });
    }

    fn command(&self, command: Command) {
        // Without its thread the log is closed, which the caller sees next.
        let _ = self.reading().commands.send(command);
    }
}

/// What a read finds.
enum Look {
    Nothing,
    /// Some records, and more are known to come.
    Some(Vec<Record>),
    /// All that it can get.
    Enough(Vec<Record>),
}

impl Partition {
    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits, for as long as it lives.
struct Waiting<'a>(&'a Partition);

impl<'a> Waiting<'a> {
    fn new(partition: &'a Partition) -> Self {
        partition.waiting.fetch_add(1, Ordering::Relaxed);
        Self(partition)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.followed().used_at = Instant::now();
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

fn consumer(config: &ClientConfig, trouble: &Arc<Trouble>) -> Result<Reader, LogError> {
    Reader::from_config_and_context(config, Observer::new("reader", trouble))
        .map_err(|error| trouble.explain("no reader", &error))
}

impl Reading {
    /// Runs the consumer that `make` makes on a thread of its own.
    fn start(
        shared: &Arc<Shared>,
        generation: u64,
        make: impl FnOnce() -> Result<Reader, LogError> + Send + 'static,
    ) -> Result<Self, LogError> {
        let (commands, received) = mpsc::channel();
        let shared = Arc::clone(shared);
        let work = move || match make() {
            Ok(reader) => {
                Thread { reader, shared, generation, piece: BytesMut::new() }.run(&received);
            }
            // Reads come to nothing, until there is another one.
            Err(error) => tracing::error!(%error, "the log is not read"),
        };
        let thread = thread::Builder::new().name("kafka-fetch".into());
        let thread = thread.spawn(work).map_err(|source| LogError::Io {
            action: "starting",
            file: "the thread kafka-fetch".into(),
            source,
        })?;
        Ok(Self { commands, thread: Some(thread) })
    }
}

/// The thread, with all that only it touches.
struct Thread {
    reader: Reader,
    shared: Arc<Shared>,
    generation: u64,
    /// Where the next payloads are copied to.
    piece: BytesMut,
}

impl Thread {
    fn run(mut self, commands: &mpsc::Receiver<Command>) {
        let mut idle_at = Instant::now();
        while !self.shared.closed.load(Ordering::Relaxed) && self.is_current() {
            for command in commands.try_iter() {
                self.obey(command);
            }
            let (batch, is_missing) = self.poll();
            self.hand_out(batch);
            if is_missing {
                self.find_missing();
            }
            if idle_at.elapsed() >= IDLE_INTERVAL {
                self.leave_idle();
                idle_at = Instant::now();
            }
        }
    }

    /// Whether it is the one that reads. While a partition is locked, it remains so for
    /// that partition: whoever replaces it looks at every partition afterwards.
    fn is_current(&self) -> bool {
        self.shared.generation.load(Ordering::Relaxed) == self.generation
    }

    fn obey(&self, command: Command) {
        if let Err(error) = self.try_to_obey(command) {
            tracing::error!(%error, "a partition is not followed as it should be");
        }
    }

    fn try_to_obey(&self, command: Command) -> KafkaResult<()> {
        match command {
            Command::Resume { partition } => self.reader.resume(&self.one(partition, None)?),
            Command::Follow { partition, from } => {
                self.leave(partition)?;
                self.reader.incremental_assign(&self.one(partition, Some(from))?)?;
                let mut followed = self.shared.partitions[partition as usize].followed();
                followed.moving_to = followed.moving_to.filter(|latest| *latest != from);
                Ok(())
            }
        }
    }

    /// What has come, once something has, in the order of each partition; and whether
    /// something that was to come is missing.
    fn poll(&mut self) -> (Vec<(u32, Record)>, bool) {
        let (mut batch, mut is_missing) = (Vec::new(), false);
        let mut wait = POLL_TIMEOUT;
        while batch.len() < BATCH_RECORDS_MAX {
            match self.reader.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let payload = message.payload().unwrap_or_default();
                    if let (Ok(partition), Ok(offset)) =
                        (u32::try_from(message.partition()), u64::try_from(message.offset()))
                    {
                        let payload = keep(&mut self.piece, payload);
                        batch.push((partition, Record { offset, payload }));
                    }
                }
                Some(Err(error)) => {
                    let code = error.rdkafka_error_code();
                    is_missing |= code == Some(RDKafkaErrorCode::AutoOffsetReset);
                }
            }
            wait = Duration::ZERO;
        }
        (batch, is_missing)
    }

    fn hand_out(&self, batch: Vec<(u32, Record)>) {
        if !batch.is_empty() && self.is_current() {
            self.shared.batches.fetch_add(1, Ordering::Relaxed);
        }
        let mut records = batch.into_iter().peekable();
        while let Some((number, _)) = records.peek() {
            let number = *number;
            let Some(partition) = self.shared.partitions.get(number as usize) else {
                records.next();
                continue;
            };
            let mut followed = partition.followed();
            let is_wanted =
                followed.is_followed && followed.moving_to.is_none() && self.is_current();
            while let Some((_, record)) = records.next_if(|(other, _)| *other == number) {
                let (offset, next) = (record.offset, followed.window.next());
                if !is_wanted || followed.window.push(record) != Pushed::Gap {
                    continue;
                }
                let reason = format!(
                    "Kafka goes on at offset {offset}: the topic was compacted, or written to in \
                     transactions"
                );
                followed.fail(number, next, reason);
            }
            if !is_wanted {
                continue;
            }
            followed.end = followed.end.max(Some(followed.window.next()));
            let is_filled = followed.window.is_full() && followed.is_followed;
            if is_filled && !followed.is_paused {
                let paused = self.one(number, None).and_then(|one| self.reader.pause(&one));
                followed.is_paused = paused.is_ok();
            }
            drop(followed);
            partition.changed.notify_waiters();
        }
    }

    /// Finds the partitions that do not hold what is to be read next, which
    /// librdkafka says without naming them. Those of which nothing is known in time
    /// are asked for again.
    fn find_missing(&self) {
        let deadline = Instant::now() + self.shared.request_timeout / 2;
        for (number, partition) in self.shared.partitions.iter().enumerate() {
            let next = {
                let followed = partition.followed();
                if !followed.is_followed || followed.moving_to.is_some() {
                    continue;
                }
                followed.window.next()
            };
            let topic = &self.shared.topic;
            // 0 would be for ever.
            let limit = deadline.saturating_duration_since(Instant::now()).max(POLL_TIMEOUT);
            let Ok((low, high)) = self.reader.fetch_watermarks(topic, number as i32, limit) else {
                self.follow_anew(number as u32, next);
                continue;
            };
            let (low, high) = (low.max(0) as u64, high.max(0) as u64);
            let reason = if next < low {
                format!(
                    "the topic {topic} begins at offset {low}, since its retention has dropped what \
                     was before: set retention.ms and retention.bytes to -1"
                )
            } else if next > high {
                format!("the topic {topic} ends at offset {high}, and has lost what came after it")
            } else {
                self.follow_anew(number as u32, next);
                continue;
            };
            let mut followed = partition.followed();
            if self.is_current() {
                followed.fail(number as u32, next, reason);
            }
            drop(followed);
            partition.changed.notify_waiters();
        }
    }

    /// Goes on where a partition was: what was missing may come back, as when a broker
    /// has just been started again, and librdkafka fetches no more of it by itself.
    fn follow_anew(&self, partition: u32, from: u64) {
        self.shared.partitions[partition as usize].followed().is_paused = false;
        self.obey(Command::Follow { partition, from });
    }

    fn leave_idle(&self) {
        for (number, partition) in self.shared.partitions.iter().enumerate() {
            let mut followed = partition.followed();
            let is_idle = followed.used_at.elapsed() >= IDLE
                && partition.waiting.load(Ordering::Relaxed) == 0;
            if !followed.is_followed || followed.moving_to.is_some() || !is_idle {
                continue;
            }
            followed.is_followed = false;
            let next = followed.window.next();
            followed.window.restart(next);
            if let Err(error) = self.leave(number as u32) {
                tracing::error!(%error, "a partition is followed for longer than it should be");
            }
        }
    }

    /// Ends the assignment of a partition, if it is assigned.
    fn leave(&self, partition: u32) -> KafkaResult<()> {
        let assigned = self.reader.assignment()?;
        let is_assigned = assigned.find_partition(&self.shared.topic, partition as i32).is_some();
        if is_assigned {
            self.reader.incremental_unassign(&self.one(partition, None)?)
        } else {
            Ok(())
        }
    }

    fn one(&self, partition: u32, from: Option<u64>) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(1);
        let topic = &self.shared.topic;
        match from {
            None => drop(list.add_partition(topic, partition as i32)),
            Some(from) => {
                let from = i64::try_from(from).map_err(|_| {
                    KafkaError::SetPartitionOffset(RDKafkaErrorCode::InvalidArgument)
                })?;
                list.add_partition_offset(topic, partition as i32, Offset::Offset(from))?;
            }
        }
        Ok(list)
    }
}

impl Followed {
    fn fail(&mut self, partition: u32, offset: u64, reason: String) {
        self.is_followed = false;
        self.failure = Some(LogError::Incomplete { partition, offset, reason });
    }
}

/// A copy of `payload` in a piece of memory that many share.
fn keep(piece: &mut BytesMut, payload: &[u8]) -> Bytes {
    if piece.capacity() < payload.len() {
        *piece = BytesMut::with_capacity(PIECE_BYTES.max(payload.len()));
    }
    piece.extend_from_slice(payload);
    piece.split().freeze()
}
