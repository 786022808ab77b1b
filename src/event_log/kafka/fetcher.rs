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
//! whoever waits for more asks the brokers now and then whether there is some; and where
//! a read comes to nothing although they say so, another consumer takes over, on another
//! thread; what the one before it still brings is not looked at.

mod thread;

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use rdkafka::{ClientConfig, config::FromClientConfigAndContext, consumer::BaseConsumer};
use tokio::{
    sync::{Mutex as AsyncMutex, Notify},
    time::timeout_at,
};

use self::thread::Thread;
use super::{
    Settings, client, ends::Ends, lock, observer::Observer, regression::Regression,
    trouble::Trouble, window::Window,
};
use crate::{
    event_log::{LogError, Record},
    vital_thread,
};

/// A read that has some of the records it could have waits no longer for the rest.
const PATIENCE: Duration = Duration::from_millis(500);
/// After so long without a record whoever waits for one asks the brokers for the end.
const SILENCE_MAX: Duration = Duration::from_secs(5);
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
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    topic: String,
    request_timeout: Duration,
    confirm_loss_after: Duration,
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
    /// What the brokers say that contradicts what is known.
    regression: Regression,
    /// When a record came last, or the brokers said where it ends.
    heard_at: Instant,
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
                regression: Regression::default(),
                heard_at: Instant::now(),
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
            confirm_loss_after: settings.confirm_loss_after,
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

    /// Waits until the end of a partition is greater than `offset`, which it has been
    /// already, or equal to.
    pub async fn wait_past(&self, number: u32, offset: u64) -> Result<(), LogError> {
        let partition = self.partition(number);
        let _waiting = Waiting::new(partition);
        loop {
            let mut changed = std::pin::pin!(partition.changed.notified());
            changed.as_mut().enable();
            self.check_open()?;
            let (is_followed, is_suspect, ask_at) = {
                let followed = partition.followed();
                if followed.end > Some(offset) {
                    return Ok(());
                }
                let is_suspect = followed.regression.is_suspected();
                (followed.is_followed, is_suspect, followed.heard_at + SILENCE_MAX)
            };
            if is_followed && !is_suspect && timeout_at(ask_at.into(), changed).await.is_ok() {
                continue;
            }
            let answer = match is_suspect {
                true => self.ends.query_current_leaders().await,
                false => self.ends.query().await,
            };
            match answer {
                Ok(ends) => {
                    let end = ends[number as usize];
                    self.note_ends(&ends);
                    if self.has_lost(number, offset, end) {
                        return Err(self.shared.ends_too_early(number, offset, end));
                    }
                    if end < offset {
                        tokio::time::sleep(RETRY_DELAY).await;
                        continue;
                    }
                    // What is beyond the end comes without being asked for.
                    self.follow(number, offset);
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

    /// The same of a partition that is known to reach `offset`. An end before it is
    /// answered once it is certain.
    pub async fn end_reaching(&self, number: u32, offset: u64) -> Result<u64, LogError> {
        let mut end = self.end(number).await?;
        let (mut regression, after) = (Regression::default(), self.shared.confirm_loss_after);
        while !regression.is_certain(Instant::now(), offset, end, after) && end < offset {
            tokio::time::sleep(RETRY_DELAY).await;
            self.check_open()?;
            let ends = self.ends.query_current_leaders().await?;
            self.note_ends(&ends);
            end = ends[number as usize];
        }
        Ok(end)
    }

    /// The same of all partitions, none of them before an end that is known already.
    pub async fn ends(&self) -> Result<Arc<[u64]>, LogError> {
        self.check_open()?;
        let ends = self.ends.query().await?;
        self.note_ends(&ends);
        let known = (0..).zip(&*ends).map(|(number, end)| {
            let partition: &Partition = self.partition(number);
            partition.followed().end.unwrap_or_default().max(*end)
        });
        Ok(known.collect())
    }

    /// Takes in where a partition ends, as the brokers say, that was known to reach `known`:
    /// whether it is certain that it has lost records.
    fn has_lost(&self, number: u32, known: u64, end: u64) -> bool {
        self.shared.has_lost(&mut self.partition(number).followed(), number, known, end)
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
        lock(&self.reading)
    }

    fn partition(&self, number: u32) -> &Partition {
        &self.shared.partitions[number as usize]
    }

    fn check_open(&self) -> Result<(), LogError> {
        if self.shared.closed.load(Ordering::Relaxed) { Err(LogError::Closed) } else { Ok(()) }
    }

    fn note_ends(&self, ends: &[u64]) {
        for (number, end) in ends.iter().enumerate() {
            self.partition(number as u32).followed().heard_at = Instant::now();
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

impl Shared {
    /// [`Fetcher::has_lost`], of a partition that is locked.
    fn has_lost(&self, followed: &mut Followed, partition: u32, known: u64, end: u64) -> bool {
        let was_suspected = followed.regression.is_suspected();
        let now = Instant::now();
        let is_certain = followed.regression.is_certain(now, known, end, self.confirm_loss_after);
        if !was_suspected && followed.regression.is_suspected() {
            tracing::warn!(
                partition,
                end,
                known,
                "a broker says that the partition ends before what was read of it; the brokers are \
                 asked again for {:?} before that is believed",
                self.confirm_loss_after
            );
        }
        is_certain
    }

    /// That what was read, or was to be, before `offset` is not there any more.
    fn ends_too_early(&self, partition: u32, offset: u64, end: u64) -> LogError {
        let reason = format!(
            "the topic {} ends at offset {end}, and has lost what came after it, or was dropped \
             and made anew",
            self.topic
        );
        LogError::Incomplete { partition, offset, reason }
    }
}

impl Partition {
    fn followed(&self) -> MutexGuard<'_, Followed> {
        lock(&self.followed)
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
                Thread::new(reader, shared, generation).run(&received);
            }
            // Reads come to nothing, until there is another one.
            Err(error) => tracing::error!(%error, "the log is not read"),
        };
        let thread = vital_thread::spawn("kafka-fetch", work).map_err(|source| LogError::Io {
            action: "starting",
            file: "the thread kafka-fetch".into(),
            source,
        })?;
        Ok(Self { commands, thread: Some(thread) })
    }
}
