//! The group of workers: who works on which partition, and how far they are.
//!
//! ```text
//!  join ──► subscribe ──► assigned ──► Given
//!                     ──► revoked ──► Withdrawn ──► released, or too late ──► let go
//!                     ──► lost ──► Lost
//!                     ──► no member any more ──► Over
//! ```
//!
//! The member (`member`) is served by a thread of its own, which also lets another take
//! its place once it can find no broker any more: what it had is lost then, as if the
//! process had been started anew.
//!
//! The protocol is the classic one with cooperative rebalancing, which every Kafka
//! since 2.4 speaks: partitions that stay where they are go on through a
//! rebalance. The protocol of Kafka 4 does the same on the broker's side, but an
//! older one would refuse it.

use std::{
    mem,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};
use tokio::{sync::mpsc, time::timeout};

use super::{
    Settings, drop_aside, lock,
    member::{self, Member, Membership},
    trouble::Trouble,
};
use crate::{
    event_log::{Assignment, Assignments, LogError},
    vital_thread,
};

/// How long to wait before a commit that met a rebalance is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// The same before another member is made where that failed.
const SUCCESSOR_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Who is the member now, for those who ask something of it; nobody once the log is closed.
#[derive(Clone, Debug)]
pub struct Seat(Arc<Mutex<Weak<Member>>>);

impl Seat {
    /// That of `member`.
    pub fn new(member: &Arc<Member>) -> Self {
        Self(Arc::new(Mutex::new(Arc::downgrade(member))))
    }

    /// The member of now.
    pub fn member(&self) -> Option<Arc<Member>> {
        lock(&self.0).upgrade()
    }
}

/// This process in the group.
pub struct Group {
    topic: String,
    group: String,
    request_timeout: Duration,
    seat: Seat,
    trouble: Arc<Trouble>,
    /// Commits take turns, so that none goes back behind another.
    turn: Arc<tokio::sync::Mutex<()>>,
    closing: Arc<AtomicBool>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Group {
    /// Runs `member`, which takes `seat` and ends once `closing` is set, on a thread of
    /// its own.
    pub fn start(
        settings: &Settings,
        member: Arc<Member>,
        seat: &Seat,
        closing: &Arc<AtomicBool>,
        trouble: &Arc<Trouble>,
    ) -> Result<Self, LogError> {
        let server = Server {
            settings: settings.clone(),
            seat: seat.clone(),
            closing: Arc::clone(closing),
            trouble: Arc::clone(trouble),
        };
        let thread = vital_thread::spawn("kafka-group", move || server.run(member));
        let thread = thread.map_err(|source| LogError::Io {
            action: "starting",
            file: "the thread kafka-group".into(),
            source,
        })?;
        Ok(Self {
            topic: settings.topic.clone(),
            group: settings.group.clone(),
            request_timeout: settings.request_timeout,
            seat: seat.clone(),
            trouble: Arc::clone(trouble),
            turn: Arc::default(),
            closing: Arc::clone(closing),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Joins, for a topic of so many partitions.
    pub fn join(&self, partitions: u32) -> Assignments {
        // Given, withdrawn and lost again, before anybody looks; and the last word.
        let (sender, changes) = mpsc::channel(3 * partitions.max(1) as usize + 1);
        // Locked, so that no other member takes the seat meanwhile.
        let seat = lock(&self.seat.0);
        if let Some(member) = seat.upgrade() {
            join(&member, &self.topic, sender);
        }
        Assignments::new(changes)
    }

    /// The offset last committed of a partition, or 0.
    pub async fn committed(&self, partition: u32) -> Result<u64, LogError> {
        let (topic, limit) = (self.topic.clone(), self.request_timeout);
        let answer = self.blocking(move |member| committed(member, &topic, partition, limit)).await;
        let what = format!("the offset committed of partition {partition} is not known");
        answer?.map_err(|error| self.trouble.explain(&what, &error))
    }

    /// Commits, unless as much is committed already.
    pub async fn commit(&self, partition: u32, offset: u64) -> Result<(), LogError> {
        let turn = Arc::clone(&self.turn).lock_owned();
        let too_late = || self.trouble.unavailable("earlier commits are not through yet");
        let turn = timeout(self.request_timeout, turn).await.map_err(|_| too_late())?;
        let (topic, limit) = (self.topic.clone(), self.request_timeout);
        let committed = self.blocking(move |member| {
            let _turn = turn;
            commit(member, &topic, partition, offset, limit)
        });
        let error = match committed.await? {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::FencedInstanceId,
            ) => Err(LogError::Fenced { partition, offset, group: self.group.clone() }),
            _ => {
                let what = format!("offset {offset} of partition {partition} is not committed");
                Err(self.trouble.explain(&what, &error))
            }
        }
    }

    /// Leaves the group. Blocks until the brokers know, if `wait` says so.
    pub fn close(&self, wait: bool) {
        self.closing.store(true, Ordering::Relaxed);
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread.filter(|_| wait)
            && thread.join().is_err()
        {
            tracing::error!("the group was not left in order");
        }
    }

    /// Does something with the member that blocks.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Member) -> T + Send + 'static,
    ) -> Result<T, LogError> {
        let member = self.seat.member().ok_or(LogError::Closed)?;
        let work = tokio::task::spawn_blocking(move || work(&member));
        // Twice: a commit first asks what is committed.
        match timeout(2 * self.request_timeout, work).await {
            Ok(done) => done.map_err(|_| LogError::Closed),
            Err(_) => Err(self.trouble.unavailable("the group's coordinator does not answer")),
        }
    }
}

fn committed(member: &Member, topic: &str, partition: u32, limit: Duration) -> KafkaResult<u64> {
    let mut asked = TopicPartitionList::with_capacity(1);
    asked.add_partition(topic, partition as i32);
    let answer = member.committed_offsets(asked, limit)?;
    for element in answer.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            return Ok(offset.max(0) as u64);
        }
    }
    Ok(0)
}

fn commit(
    member: &Member,
    topic: &str,
    partition: u32,
    offset: u64,
    limit: Duration,
) -> KafkaResult<()> {
    let deadline = Instant::now() + limit;
    if committed(member, topic, partition, limit)? >= offset {
        return Ok(());
    }
    let mut offsets = TopicPartitionList::with_capacity(1);
    let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
    offsets.add_partition_offset(topic, partition as i32, offset)?;
    loop {
        let result = member.commit(&offsets, CommitMode::Sync);
        let passes = matches!(
            result.as_ref().err().and_then(KafkaError::rdkafka_error_code),
            Some(
                RDKafkaErrorCode::RebalanceInProgress
                    | RDKafkaErrorCode::CoordinatorLoadInProgress
                    | RDKafkaErrorCode::NotCoordinator
                    | RDKafkaErrorCode::CoordinatorNotAvailable
                    | RDKafkaErrorCode::WaitingForCoordinator
            )
        );
        if !passes || Instant::now() >= deadline {
            return result;
        }
        thread::sleep(RETRY_DELAY);
    }
}

/// Lets the member tell changes of the partitions of `topic` to `changes`.
fn join(member: &Member, topic: &str, changes: mpsc::Sender<Assignment>) {
    member.context().tell_to(changes);
    if let Err(error) = member.subscribe(&[topic]) {
        member.context().refuse(&error);
    }
}

/// What the thread of the member does.
struct Server {
    settings: Settings,
    seat: Seat,
    closing: Arc<AtomicBool>,
    trouble: Arc<Trouble>,
}

impl Server {
    /// Serves the member, or who comes after it, until the log is closed.
    fn run(&self, mut member: Arc<Member>) {
        let mut try_at = Instant::now();
        while !self.closing.load(Ordering::Relaxed) {
            Membership::serve(&member);
            if member.context().has_lost_all_brokers() && Instant::now() >= try_at {
                match self.successor(&member) {
                    Ok(next) => drop_aside(mem::replace(&mut member, next)),
                    Err(error) => {
                        tracing::error!(%error, "there is no new member yet");
                        try_at = Instant::now() + SUCCESSOR_RETRY_DELAY;
                    }
                }
            }
        }
        member.context().let_go_all(&member);
    }

    /// The member that takes the place of `old`, and has joined if that one had.
    fn successor(&self, old: &Arc<Member>) -> Result<Arc<Member>, LogError> {
        let next = Arc::new(member::new(&self.settings, &self.trouble, &self.closing)?);
        tracing::warn!(
            group = self.settings.group,
            "the member of the group finds no broker any more, and another takes its place"
        );
        old.context().take_for_lost(old);
        let mut seat = lock(&self.seat.0);
        *seat = Arc::downgrade(&next);
        if let Some(changes) = old.context().fall_silent() {
            join(&next, &self.settings.topic, changes);
        }
        drop(seat);
        Ok(next)
    }
}
