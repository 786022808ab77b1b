//! The member of the group: what it knows of itself, and its callbacks.
//!
//! It fetches nothing: its partitions are paused, and reading is the fetcher's part, so
//! that where one reads has nothing to do with the group. A partition that the group asks
//! back is not waited for here; whoever serves the member looks again and again
//! ([`Membership::hand_over`]), so that it stays a member meanwhile.
//!
//! Whoever has not reached the group's coordinator for as long as a session lasts
//! must take its partitions for lost. librdkafka says so itself, but not while it is
//! joining again; so the member watches too (`presence`). What librdkafka still has
//! when it is back, it never gave back, and it is taken up again. To leave and join
//! instead would not do: while librdkafka joins, it forgets that it was to leave.

use std::{
    collections::BTreeSet,
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    statistics::Statistics,
    types::RDKafkaRespErr,
};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot::{self, error::TryRecvError},
};

use super::{Settings, client, lock, observer::Observer, presence::Presence, trouble::Trouble};
use crate::event_log::{Assignment, LogError};

/// How long the thread of the member waits for an event of the group.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// The same while partitions are handed over.
const HANDOVER_POLL_TIMEOUT: Duration = Duration::from_millis(10);

/// After which a worker that has died is replaced, unless the operator says otherwise.
pub const SESSION_TIMEOUT_MS: u64 = 10_000;

/// The client that is the member.
pub type Member = BaseConsumer<Membership>;

/// A client for the group of `settings`, which has not joined yet. Once `closing` is set,
/// it waits for nobody any more.
pub fn new(
    settings: &Settings,
    trouble: &Arc<Trouble>,
    closing: &Arc<AtomicBool>,
) -> Result<Member, LogError> {
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
        closing: Arc::clone(closing),
    };
    Member::from_config_and_context(&config, membership)
        .map_err(|error| trouble.explain("no member of the group", &error))
}

/// What the member knows of itself.
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
    closing: Arc<AtomicBool>,
}

/// Partitions that the group has asked back.
struct Handover {
    partitions: TopicPartitionList,
    /// Those that are not released yet.
    waiting: Vec<(u32, oneshot::Receiver<()>)>,
    deadline: Instant,
}

impl Membership {
    /// Lets whoever works be told of changes from now on.
    pub fn tell_to(&self, changes: mpsc::Sender<Assignment>) {
        *lock(&self.changes) = Some(changes);
    }

    /// Whom changes were told to, who is told nothing more of this member.
    pub fn fall_silent(&self) -> Option<mpsc::Sender<Assignment>> {
        lock(&self.changes).take()
    }

    /// Whether its client can find no broker any more, by itself.
    pub fn has_lost_all_brokers(&self) -> bool {
        self.observer.has_lost_all_brokers()
    }

    /// Tells that the topic cannot be subscribed to, and why.
    pub fn refuse(&self, error: &KafkaError) {
        self.end(no_worker(error.rdkafka_error_code(), &error.to_string()));
    }

    /// Waits a moment for what the group says, and does it.
    pub fn serve(member: &Member) {
        let membership = member.context();
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

    /// Lets go all that the group has asked back, released or not.
    pub fn let_go_all(&self, member: &Member) {
        for handover in mem::take(&mut *lock(&self.handovers)) {
            self.let_go(member, &handover.partitions);
        }
    }

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
    pub fn take_for_lost(&self, member: &Member) {
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
        self.observer.note_brokers(&statistics);
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
