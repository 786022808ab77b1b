//! The group of workers: who works on which partition, and how far they are.
//!
//! ```text
//!  join ──► subscribe ──► assigned ──► Given
//!                     ──► revoked ──► Withdrawn ──► released, or too late ──► let go
//!                     ──► lost ──► Lost
//!                     ──► no member any more ──► Over
//! ```
//!
//! The member fetches nothing: its partitions are paused, and reading is the
//! fetcher's part, so that where one reads has nothing to do with the group. Its
//! thread does not wait for a partition to be released, but looks again and again,
//! so that it stays a member meanwhile.
//!
//! Whoever has not reached the group's coordinator for as long as a session lasts
//! must take its partitions for lost. librdkafka says so itself, but not while it is
//! joining again; so the thread watches too (`presence`). What librdkafka still has
//! when it is back, it never gave back, and it is taken up again. To leave and join
//! instead would not do: while librdkafka joins, it forgets that it was to leave.
//!
//! The protocol is the classic one with cooperative rebalancing, which every Kafka
//! since 2.4 speaks: partitions that stay where they are go on through a
//! rebalance. The protocol of Kafka 4 does the same on the broker's side, but an
//! older one would refuse it.

use std::{
    collections::BTreeSet,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    statistics::Statistics,
    types::RDKafkaRespErr,
};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot::{self, error::TryRecvError},
    },
    time::timeout,
};

use super::{
    Settings, client,
    presence::Presence,
    trouble::{Observer, Trouble},
};
use crate::event_log::{Assignment, Assignments, LogError};

/// How long the thread waits for an event of the group.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// The same while partitions are handed over.
const HANDOVER_POLL_TIMEOUT: Duration = Duration::from_millis(10);
/// How long to wait before a commit that met a rebalance is tried again.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// After which a worker that has died is replaced, unless the operator says otherwise.
pub const SESSION_TIMEOUT_MS: u64 = 10_000;

/// The client that is the member.
pub type Member = BaseConsumer<Membership>;

/// A client for the group of `settings`, which has not joined yet.
pub fn member(settings: &Settings, trouble: &Arc<Trouble>) -> Result<Member, LogError> {
    let config = client::member(settings);
    let session_ms = config.get("session.timeout.ms").and_then(|value| value.parse().ok());
    let membership = Membership {
        presence: Mutex::new(Presence::new(Duration::from_millis(
            session_ms.unwrap_or(SESSION_TIMEOUT_MS),
        ))),
        observer: Observer::new("member", trouble),
        group: settings.group.clone(),
        release_timeout: settings.release_timeout,
        changes: Mutex::default(),
        owned: Mutex::default(),
        handovers: Mutex::default(),
        closing: AtomicBool::new(false),
    };
    Member::from_config_and_context(&config, membership)
        .map_err(|error| trouble.explain("no member of the group", &error))
}

/// This process in the group.
pub struct Group {
    topic: String,
    group: String,
    request_timeout: Duration,
    member: Weak<Member>,
    trouble: Arc<Trouble>,
    /// Commits take turns, so that none goes back behind another.
    turn: Arc<tokio::sync::Mutex<()>>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Group {
    /// Runs the member on a thread of its own.
    pub fn start(
        settings: &Settings,
        member: Arc<Member>,
        trouble: &Arc<Trouble>,
    ) -> Result<Self, LogError> {
        let weak = Arc::downgrade(&member);
        let thread = thread::Builder::new().name("kafka-group".into());
        let thread = thread.spawn(move || run(&member)).map_err(|source| LogError::Io {
            action: "starting",
            file: "the thread kafka-group".into(),
            source,
        })?;
        Ok(Self {
            topic: settings.topic.clone(),
            group: settings.group.clone(),
            request_timeout: settings.request_timeout,
            member: weak,
            trouble: Arc::clone(trouble),
            turn: Arc::default(),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Joins, for a topic of so many partitions.
    pub fn join(&self, partitions: u32) -> Assignments {
        // Given, withdrawn and lost again, before anybody looks; and the last word.
        let (sender, changes) = mpsc::channel(3 * partitions.max(1) as usize + 1);
        if let Some(member) = self.member.upgrade() {
            *lock(&member.context().changes) = Some(sender);
            if let Err(error) = member.subscribe(&[&self.topic]) {
                member.context().end(no_worker(error.rdkafka_error_code(), &error.to_string()));
            }
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
        if let Some(member) = self.member.upgrade() {
            member.context().closing.store(true, Ordering::Relaxed);
        }
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
        let member = self.member.upgrade().ok_or(LogError::Closed)?;
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

/// What the member knows of itself, and its callbacks.
pub struct Membership {
    observer: Observer,
    group: String,
    presence: Mutex<Presence>,
    release_timeout: Duration,
    /// Where changes are told; `None` before it has joined and once it has left.
    changes: Mutex<Option<mpsc::Sender<Assignment>>>,
    owned: Mutex<BTreeSet<u32>>,
    /// Those under way; the group waits until each is let go.
    handovers: Mutex<Vec<Handover>>,
    closing: AtomicBool,
}

/// Partitions that the group has asked back.
struct Handover {
    partitions: TopicPartitionList,
    /// Those that are not released yet.
    waiting: Vec<(u32, oneshot::Receiver<()>)>,
    deadline: Instant,
}

/// Serves the member until the log is closed.
fn run(member: &Member) {
    let membership = member.context();
    while !membership.is_closing() {
        let is_handing_over = !lock(&membership.handovers).is_empty();
        let wait = if is_handing_over { HANDOVER_POLL_TIMEOUT } else { POLL_TIMEOUT };
        // Its partitions are paused, so there are no messages, and most errors pass.
        drop(member.poll(wait));
        if let Some((code, reason)) = member.client().fatal_error()
            && membership.is_joined()
        {
            membership.take_for_lost(member);
            membership.end(no_worker(Some(code), &reason));
            member.unsubscribe();
        }
        membership.hand_over(member);
        let now = Instant::now();
        if lock(&membership.presence).gets_cut_off(now) {
            membership.take_for_lost(member);
        }
        if lock(&membership.presence).gets_back(now) {
            membership.take_up_again(member);
        }
        if membership.is_unheard() {
            *lock(&membership.changes) = None;
            member.unsubscribe();
        }
    }
    for handover in mem::take(&mut *lock(&membership.handovers)) {
        membership.let_go(member, &handover.partitions);
    }
}

impl Membership {
    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    fn is_joined(&self) -> bool {
        lock(&self.changes).is_some()
    }

    /// Tells that there will be no more changes, and why.
    fn end(&self, reason: String) {
        let error = LogError::NoWorker { group: self.group.clone(), reason };
        self.tell(Assignment::Over { error });
        *lock(&self.changes) = None;
    }

    /// Whether nobody listens to changes any more.
    fn is_unheard(&self) -> bool {
        lock(&self.changes).as_ref().is_some_and(mpsc::Sender::is_closed)
    }

    fn assigned(&self, member: &Member, partitions: &mut TopicPartitionList) {
        // Nothing is to be fetched: from the end on, and paused.
        let assigned = partitions
            .set_all_offsets(Offset::End)
            .and_then(|()| member.incremental_assign(partitions))
            .and_then(|()| member.pause(partitions));
        if let Err(error) = assigned {
            tracing::error!(%error, "partitions were given and could not be taken");
        }
        self.give(partitions);
    }

    fn revoked(&self, member: &Member, partitions: &TopicPartitionList) {
        let owned: Vec<u32> = {
            let owned = lock(&self.owned);
            numbers(partitions).filter(|partition| owned.contains(partition)).collect()
        };
        if member.assignment_lost() {
            self.tell_lost(owned.iter().copied());
        }
        let nobody_listens = self.is_closing() || lock(&self.changes).is_none();
        if member.assignment_lost() || nobody_listens || owned.is_empty() {
            return self.let_go(member, partitions);
        }
        let withdraw = |partition| {
            let (released, waiting) = oneshot::channel();
            self.tell(Assignment::Withdrawn { partition, released });
            (partition, waiting)
        };
        let waiting = owned.into_iter().map(withdraw).collect();
        let deadline = Instant::now() + self.release_timeout;
        let handover = Handover { partitions: partitions.clone(), waiting, deadline };
        lock(&self.handovers).push(handover);
    }

    /// Lets go what has been released, or should have been.
    fn hand_over(&self, member: &Member) {
        let is_lost = member.assignment_lost();
        let handovers = mem::take(&mut *lock(&self.handovers));
        for mut handover in handovers {
            let is_waiting = |released: &mut oneshot::Receiver<()>| {
                matches!(released.try_recv(), Err(TryRecvError::Empty))
            };
            handover.waiting.retain_mut(|(_, released)| is_waiting(released));
            let is_late = Instant::now() >= handover.deadline;
            if handover.waiting.is_empty() || is_lost || is_late {
                self.let_go_unreleased(member, handover);
            } else {
                lock(&self.handovers).push(handover);
            }
        }
    }

    /// Takes all partitions for lost.
    fn take_for_lost(&self, member: &Member) {
        for handover in mem::take(&mut *lock(&self.handovers)) {
            self.let_go_unreleased(member, handover);
        }
        let owned = mem::take(&mut *lock(&self.owned));
        self.tell_lost(owned.into_iter());
    }

    /// Takes up what was taken for lost and has stayed this member's.
    fn take_up_again(&self, member: &Member) {
        match member.assignment() {
            Ok(partitions) => self.give(&partitions),
            Err(error) => tracing::error!(%error, "what this member has is not known"),
        }
    }

    /// Tells of those that nobody works on here.
    fn give(&self, partitions: &TopicPartitionList) {
        for partition in numbers(partitions) {
            if lock(&self.owned).insert(partition) {
                self.tell(Assignment::Given { partition });
            }
        }
    }

    fn let_go_unreleased(&self, member: &Member, handover: Handover) {
        self.tell_lost(handover.waiting.iter().map(|(partition, _)| *partition));
        self.let_go(member, &handover.partitions);
    }

    /// Gives partitions back to the group.
    fn let_go(&self, member: &Member, partitions: &TopicPartitionList) {
        for partition in numbers(partitions) {
            lock(&self.owned).remove(&partition);
        }
        if let Err(error) = member.incremental_unassign(partitions) {
            tracing::error!(%error, "partitions could not be given back");
        }
    }

    fn tell_lost(&self, partitions: impl Iterator<Item = u32>) {
        for partition in partitions {
            tracing::warn!(
                partition,
                "the group does not count this process among its workers; the partition may go to another"
            );
            self.tell(Assignment::Lost { partition });
        }
    }

    /// Tells a change; waits where there is no room, unless the log is closed.
    fn tell(&self, change: Assignment) {
        let Some(changes) = lock(&self.changes).clone() else { return };
        let mut change = change;
        while !self.is_closing() {
            match changes.try_send(change) {
                Err(TrySendError::Full(again)) => change = again,
                Ok(()) | Err(TrySendError::Closed(_)) => return,
            }
            thread::sleep(HANDOVER_POLL_TIMEOUT);
        }
    }
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.observer.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.observer.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let Some(group) = statistics.cgrp else { return };
        let (is_there, is_steady) = (group.state == "up", group.join_state == "steady");
        lock(&self.presence).saw(Instant::now(), is_there, is_steady);
    }
}

impl ConsumerContext for Membership {
    fn rebalance(
        &self,
        member: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.assigned(member, partitions);
            }
            _ => self.revoked(member, partitions),
        }
    }
}

/// Why this process can be no worker, and what to do.
fn no_worker(code: Option<RDKafkaErrorCode>, reason: &str) -> String {
    let advice = match code {
        Some(RDKafkaErrorCode::FencedInstanceId) => {
            "give each worker a group.instance.id of its own, or none"
        }
        _ => "correct the settings of the event log, and start it again",
    };
    format!("{reason}; {advice}")
}

fn numbers(partitions: &TopicPartitionList) -> impl Iterator<Item = u32> {
    let numbers: Vec<i32> = partitions.elements().iter().map(|one| one.partition()).collect();
    numbers.into_iter().filter_map(|number| u32::try_from(number).ok())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
