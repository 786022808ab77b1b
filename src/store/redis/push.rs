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

mod batch;

use std::{
    collections::HashMap,
    fmt, mem,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant as StdInstant},
};

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use self::batch::{Batch, Outcome, Retry};
use super::{
    config::RedisConfig,
    error::NodeError,
    node::{ConnectionName, Dial},
    pool::{Admission, NodePool},
    slots::NodeAddress,
    topology::{Snapshot, Topology},
};
use crate::{
    domain::UserId,
    store::{PushOutcome, Pushes},
    telemetry::RedisMetrics,
};

/// How often the pushes that were not carried out are tried within one call.
const ROUNDS_MAX: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(5);

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
    /// Asked on every new connection, after Redis knows its name and before
    /// anything is pushed on it.
    pub admission: Option<Admission>,
    /// Where round trips are counted.
    pub metrics: Arc<RedisMetrics>,
}

impl PushSettings {
    /// What suits most.
    pub fn new(name: ConnectionName, entries_max: usize) -> Self {
        Self {
            name,
            entries_max,
            connections_per_node_max: 4,
            connect_timeout: Duration::from_secs(2),
            progress_timeout: Duration::from_secs(5),
            retry_for: Duration::from_secs(2),
            admission: None,
            metrics: Arc::default(),
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
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: PushSettings,
    dial: RwLock<Arc<Dial>>,
    topology: Topology,
    pools: Mutex<HashMap<NodeAddress, Arc<NodePool>>>,
}

impl Pusher {
    /// Makes ready to push; nothing is connected yet.
    pub fn new(config: Arc<RedisConfig>, settings: PushSettings) -> Self {
        let topology = Topology::new(&config);
        let dial = Dial {
            config,
            name: settings.name.clone(),
            connect_timeout: settings.connect_timeout,
            progress_timeout: settings.progress_timeout,
        };
        let dial = RwLock::new(Arc::new(dial));
        Self { shared: Arc::new(Shared { settings, dial, topology, pools: Mutex::default() }) }
    }

    /// Calls new connections `name`; those of another name are not used again.
    pub fn rename(&self, name: ConnectionName) {
        let mut dial = self.shared.dial.write().unwrap_or_else(PoisonError::into_inner);
        *dial = Arc::new(Dial { name, ..Dial::clone(&dial) });
    }

    /// Connects to every node, to learn whether pushes could be made.
    ///
    /// # Errors
    /// Why they could not.
    pub async fn check(&self) -> Result<(), NodeError> {
        let dial = self.shared.dial();
        let topology = self.shared.topology.snapshot(&dial).await?;
        for node in topology.map.nodes() {
            let pool = self.shared.pool(node);
            pool.lease(&dial, self.shared.settings.admission.as_ref()).await?.give_back();
        }
        Ok(())
    }

    /// Appends to each reader's home list its ids, if it has a list, and waits for
    /// all answers. If the call is given up half-way, the outcome of all its
    /// pushes is unknown.
    ///
    /// # Errors
    /// [`PushError`], if some are known not to be carried out: it says which, and
    /// what became of the others. They may be pushed again ([`Pushes::only`]).
    pub async fn push(&self, pushes: &Pushes<UserId>) -> Result<PushReport, Box<PushError>> {
        let dial = self.shared.dial();
        let mut total = Outcome::default();
        let mut retry = Retry::all(pushes.len());
        let retry_until = Instant::now() + self.shared.settings.retry_for;
        for round in 0..ROUNDS_MAX {
            if retry.is_empty() || (round > 0 && Instant::now() >= retry_until) {
                break;
            }
            // The first redirections need no patience.
            if round > 1 || retry.must_wait {
                sleep(FIRST_PAUSE * (1 << round)).await;
            }
            match self.shared.route(&retry, &dial).await {
                Ok(topology) => {
                    let (batches, homeless) = retry.batches(&topology.map, pushes);
                    total.retry = homeless;
                    let run =
                        batches.into_iter().map(|batch| self.shared.run(batch, pushes, &dial));
                    join_all(run).await.into_iter().for_each(|outcome| total.absorb(outcome));
                    retry = mem::take(&mut total.retry);
                }
                Err(error) => retry.reason = Some(error),
            }
        }
        total.retry = retry;
        total.finish()
    }
}

impl Shared {
    fn dial(&self) -> Arc<Dial> {
        self.dial.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn pool(&self, node: &NodeAddress) -> Arc<NodePool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(node) {
            return pool.clone();
        }
        let made = self.settings.metrics.push_connections.clone();
        let pool = NodePool::new(node.clone(), self.settings.connections_per_node_max, made);
        pools.entry(node.clone()).or_insert(Arc::new(pool)).clone()
    }

    /// The map by which to try: a new one if the last try says that it is needed.
    async fn route(&self, retry: &Retry, dial: &Dial) -> Result<Arc<Snapshot>, NodeError> {
        let known = self.topology.snapshot(dial).await?;
        if retry.moved.is_empty() && retry.away.is_empty() {
            return Ok(known);
        }
        let refreshed = self.topology.refresh(&known, &retry.moved, &retry.away, dial).await;
        // Without an answer the old map must do; the next try will tell.
        Ok(refreshed.unwrap_or_else(|error| {
            tracing::warn!(%error, "the slots of the Redis Cluster could not be asked for");
            known
        }))
    }

    async fn run(&self, batch: Batch, pushes: &Pushes<UserId>, dial: &Dial) -> Outcome {
        let pool = self.pool(&batch.node);
        let admission = self.settings.admission.as_ref();
        let outcome = match pool.lease(dial, admission).await {
            Ok(lease) => {
                let begun = StdInstant::now();
                let outcome = batch.run(lease, pushes, self.settings.entries_max as u64).await;
                self.settings.metrics.push_seconds.observe_since(begun);
                outcome
            }
            Err(error) => batch.not_begun(error),
        };
        outcome.count(&self.settings.metrics);
        outcome
    }
}

impl Outcome {
    /// Counts what went wrong with one pipeline.
    fn count(&self, metrics: &RedisMetrics) {
        if self.refusal.is_some() || self.retry.reason.is_some() {
            metrics.push_failures.inc();
        }
        metrics.push_unknowns.inc_by(self.report.unknown.len() as u64);
        metrics.push_redirects.inc_by(self.report.redirected);
    }

    /// What the caller is told, after the last try.
    fn finish(mut self) -> Result<PushReport, Box<PushError>> {
        self.report.unknown.sort_unstable();
        let error = self.refusal.or(self.retry.reason.take());
        let retry = self.retry.into_places();
        let unwritten = self.refused.into_iter().chain(retry).map(|place| place as usize);
        let mut unwritten: Vec<usize> = unwritten.collect();
        unwritten.sort_unstable();
        if unwritten.is_empty() {
            return Ok(self.report);
        }
        let error = error.expect("whoever leaves a push unwritten says why");
        Err(Box::new(PushError { error, unwritten, report: self.report }))
    }
}
