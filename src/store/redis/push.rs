//! The push path: ids into the home lists of those who have one.
//!
//! ```text
//!  Pushes ──► by node ──► RPUSHX h:<reader> id… ──► n > 0   written, the list's length
//!               ▲          one pipeline a node      0       the reader sleeps
//!               │          all nodes at once        MOVED, ASK, TRYAGAIN, …  ─┐
//!               └── the map made new ◄── these alone, a bounded number of times ┘
//! ```
//!
//! A push is not idempotent, so a command is sent once more only if the node said
//! that it did not carry it out, or if it never left this process. Where nobody
//! can know, since the connection broke or the node fell silent, the report names
//! the pushes, and the caller writes those in a way that looks first.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    config::RedisConfig,
    error::NodeError,
    node::{CONNECT_TIMEOUT, ConnectionName, PROGRESS_TIMEOUT},
    pool::Admission,
    resp::{self, HomeKey, Reply},
    router::{Router, Work},
    slots::home_slot,
};
use crate::{
    domain::UserId,
    store::{PushOutcome, Pushes},
    telemetry::RedisMetrics,
};

/// A node that joins a Cluster is known that much later, at the most.
const MAP_AGE_MAX: Duration = Duration::from_secs(5);

/// How pushes are made.
#[derive(Clone)]
pub struct PushSettings {
    /// What the connections are called in Redis.
    pub name: ConnectionName,
    /// A list longer than this is reported, to be trimmed.
    pub entries_max: usize,
    /// How many pipelines may run on one node at once; further ones wait.
    pub connections_per_node_max: usize,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a node may give no sign of life.
    pub progress_timeout: Duration,
    /// How long one call goes on trying what was not carried out.
    pub retry_for: Duration,
    /// In a Cluster, how old what is known of its nodes may become, though no command has been
    /// sent astray.
    pub map_age_max: Duration,
    /// Asked on every new connection, after Redis knows its name and before
    /// anything is pushed on it.
    pub admission: Option<Admission>,
    /// Where round trips are counted.
    pub metrics: Arc<RedisMetrics>,
    /// Scripts that every node is to know, whole.
    pub scripts: Arc<[&'static str]>,
}

impl PushSettings {
    /// What suits most.
    pub fn new(name: ConnectionName, entries_max: usize) -> Self {
        Self {
            name,
            entries_max,
            connections_per_node_max: 8,
            connect_timeout: CONNECT_TIMEOUT,
            progress_timeout: PROGRESS_TIMEOUT,
            retry_for: Duration::from_secs(2),
            map_age_max: MAP_AGE_MAX,
            admission: None,
            metrics: Arc::default(),
            scripts: Arc::default(),
        }
    }
}

impl fmt::Debug for PushSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushSettings")
            .field("name", &self.name)
            .field("entries_max", &self.entries_max)
            .field("connections_per_node_max", &self.connections_per_node_max)
            .finish_non_exhaustive()
    }
}

/// What became of pushes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushReport {
    /// What is known to be written, and who is known to sleep.
    pub outcome: PushOutcome,
    /// The lists that have grown too long, in no order.
    pub over_full: Vec<OverFull>,
    /// The readers who have no list, in no order.
    pub asleep: Vec<UserId>,
    /// The places, ascending, of the pushes that may have been carried out or not.
    pub unknown: Vec<usize>,
    /// How many times a push was sent elsewhere since a slot has moved or is on
    /// its way.
    pub redirected: u64,
}

/// A list that is to be trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverFull {
    /// Whose it is.
    pub reader: UserId,
    /// How many entries it has.
    pub length: u64,
}

/// Some pushes were not carried out.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} pushes were not made: {error}", unwritten.len())]
pub struct PushError {
    /// The first reason, one that is final if any is.
    pub error: NodeError,
    /// The places, ascending, of the pushes that are known not to be carried out.
    pub unwritten: Vec<usize>,
    /// What became of the others.
    pub report: PushReport,
}

/// Pushes into the home lists of one Redis, from any number of tasks at once.
///
/// Clones share the connections. It connects when it has something to push, and
/// connects again by itself.
#[derive(Clone, Debug)]
pub struct Pusher {
    pub(super) router: Router,
    entries_max: u64,
}

impl Pusher {
    /// Makes ready to push; nothing is connected yet.
    pub fn new(config: Arc<RedisConfig>, settings: PushSettings) -> Self {
        let entries_max = settings.entries_max as u64;
        Self { router: Router::new(config, settings), entries_max }
    }

    /// Calls new connections `name`; those of another name are not used again.
    pub fn rename(&self, name: ConnectionName) {
        self.router.rename(name);
    }

    /// Connects to every node, to learn whether pushes could be made.
    ///
    /// # Errors
    /// Why they could not.
    pub async fn check(&self) -> Result<(), NodeError> {
        self.router.check().await
    }

    /// Appends to each reader's home list its ids, if it has a list, and waits for
    /// all answers. If the call is given up half-way, the outcome of all its
    /// pushes is unknown.
    ///
    /// # Errors
    /// [`PushError`], if some are known not to be carried out: it says which, and
    /// what became of the others. They may be pushed again ([`Pushes::only`]).
    pub async fn push(&self, pushes: &Pushes<UserId>) -> Result<PushReport, Box<PushError>> {
        let work = PushWork { pushes, entries_max: self.entries_max };
        let run = self.router.run(&work).await;
        let PushSums { outcome, over_full, asleep } = run.done;
        let report = PushReport {
            outcome,
            over_full,
            asleep,
            unknown: run.unknown,
            redirected: run.redirected,
        };
        match run.undone {
            None => Ok(report),
            Some((error, unwritten)) => Err(Box::new(PushError { error, unwritten, report })),
        }
    }
}

/// Pushes as commands.
pub(super) struct PushWork<'a> {
    pub(super) pushes: &'a Pushes<UserId>,
    pub(super) entries_max: u64,
}

/// What the replies to pushes come to.
#[derive(Debug, Default)]
pub(super) struct PushSums {
    pub(super) outcome: PushOutcome,
    pub(super) over_full: Vec<OverFull>,
    pub(super) asleep: Vec<UserId>,
}

impl Work for PushWork<'_> {
    type Done = PushSums;

    fn count(&self) -> usize {
        self.pushes.len()
    }

    #[inline]
    fn slot(&self, place: u32) -> u16 {
        home_slot(&HomeKey::of(self.pushes.reader(place as usize)))
    }

    #[inline]
    fn pack(&self, place: u32, out: &mut Vec<u8>) {
        let (reader, ids) = self.pushes.at(place as usize);
        resp::pack_push(out, &HomeKey::of(reader), ids);
    }

    #[inline]
    fn take(&self, place: u32, reply: Reply<'_>, done: &mut PushSums) -> bool {
        let (reader, ids) = self.pushes.at(place as usize);
        match reply {
            Reply::Integer(0) => {
                done.outcome.skipped += ids.len() as u64;
                done.asleep.push(reader);
            }
            Reply::Integer(length) => {
                done.outcome.deliveries += ids.len() as u64;
                done.outcome.pushes += 1;
                let length = length.unsigned_abs();
                if length > self.entries_max {
                    done.over_full.push(OverFull { reader, length });
                }
            }
            // No Redis answers a push by anything else; nobody can know.
            _ => return false,
        }
        true
    }

    fn join(done: &mut PushSums, mut other: PushSums) {
        done.outcome += other.outcome;
        done.over_full.append(&mut other.over_full);
        done.asleep.append(&mut other.asleep);
    }
}
