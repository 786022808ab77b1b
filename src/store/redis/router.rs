//! Commands to the nodes that serve their keys, over connections that whoever takes
//! over can close.
//!
//! ```text
//!  commands ──► by node ──► one pipeline a node, all nodes at once ──► replies
//!                 ▲                                │
//!                 └── the map made new ◄── MOVED, ASK, TRYAGAIN, …: these alone,
//!                                          a bounded number of times
//! ```
//!
//! Everything that a worker writes goes this way, since its connections have its
//! name, and a new one is used only once it is admitted (`pool`).

mod batch;

use std::{
    collections::HashMap,
    mem,
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
    pool::NodePool,
    push::PushSettings,
    resp::{Reply, Value},
    slots::{NodeAddress, Redirect, SlotMap},
    topology::{self, Snapshot, Topology},
};
use crate::telemetry::RedisMetrics;

/// How often the commands that were not carried out are tried within one call.
const ROUNDS_MAX: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Commands, by their places. The keys of each are in one slot.
pub trait Work: Sync {
    /// What their replies come to.
    type Done: Default + Send;

    /// How many there are.
    fn count(&self) -> usize;

    /// The slot of the keys of one.
    fn slot(&self, place: u32) -> u16;

    /// Appends one to what is sent.
    fn pack(&self, place: u32, out: &mut Vec<u8>);

    /// Takes the reply to one, which is no error. False: it says nothing.
    fn take(&self, place: u32, reply: Reply<'_>, done: &mut Self::Done) -> bool;

    /// Takes an element of an array that one was answered by, right behind it.
    fn take_element(&self, _place: u32, _element: Reply<'_>, _done: &mut Self::Done) {}

    /// Adds what replies to others come to.
    fn join(done: &mut Self::Done, other: Self::Done);
}

/// What became of commands.
#[derive(Debug)]
pub struct Run<D> {
    /// What the replies come to.
    pub done: D,
    /// The places, ascending, of those that may have been carried out or not.
    pub unknown: Vec<usize>,
    /// How many times one was sent elsewhere since a slot has moved or is on its way.
    pub redirected: u64,
    /// The places, ascending, of those that are known not to be carried out, if there
    /// are any, and the first reason, one that is final if any is.
    pub undone: Option<(NodeError, Vec<usize>)>,
}

/// Sends commands to where they belong. Clones share the connections.
#[derive(Clone, Debug)]
pub struct Router {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: PushSettings,
    dial: RwLock<Arc<Dial>>,
    topology: Topology,
    pools: Mutex<HashMap<NodeAddress, Arc<NodePool>>>,
}

impl Router {
    /// Nothing is connected yet.
    pub fn new(config: Arc<RedisConfig>, settings: PushSettings) -> Self {
        let topology = Topology::new(&config);
        let dial = Dial {
            config,
            name: settings.name.clone(),
            connect_timeout: settings.connect_timeout,
            progress_timeout: settings.progress_timeout,
            scripts: settings.scripts.clone(),
        };
        let dial = RwLock::new(Arc::new(dial));
        Self { shared: Arc::new(Shared { settings, dial, topology, pools: Mutex::default() }) }
    }

    pub(super) fn rename(&self, name: ConnectionName) {
        let mut dial = self.shared.dial.write().unwrap_or_else(PoisonError::into_inner);
        *dial = Arc::new(Dial { name, ..Dial::clone(&dial) });
    }

    /// Connects to every node.
    ///
    /// # Errors
    /// If one cannot be used.
    pub async fn check(&self) -> Result<(), NodeError> {
        let map = self.map().await?;
        for node in map.nodes() {
            self.on_node(node, &[]).await?;
        }
        Ok(())
    }

    /// Which node serves which slot, as far as is known.
    ///
    /// # Errors
    /// If nothing is known and no node answers.
    pub async fn map(&self) -> Result<SlotMap, NodeError> {
        Ok(self.shared.topology.snapshot(&self.shared.dial()).await?.map.clone())
    }

    /// The same, no older than `map_age_max`: one question, over a connection that is there.
    /// Where nobody answers it, what was known.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub(super) async fn fresh_map(&self) -> Result<SlotMap, NodeError> {
        let dial = self.shared.dial();
        let known = self.shared.topology.snapshot(&dial).await?;
        let asked = known.next_asked();
        let Some(node) = asked.filter(|_| known.is_older_than(self.shared.settings.map_age_max))
        else {
            return Ok(known.map.clone());
        };
        let reply = self.on_node(node, &[topology::ASK]).await;
        let map =
            reply.and_then(|reply| topology::read_map(reply.first().unwrap_or(&Value::Nil), node));
        let fresh = match map {
            Ok(map) => self.shared.topology.learn(&known, map).await,
            Err(_) => {
                let avoided = [node.clone()];
                let topology = &self.shared.topology;
                let asked = topology.refresh(&known, &Default::default(), &avoided, &dial).await;
                asked.unwrap_or_else(|error| {
                    tracing::warn!(%error, "the slots of the Redis Cluster could not be asked for");
                    Arc::clone(&known)
                })
            }
        };
        Ok(fresh.map.clone())
    }

    /// Asks anew which node serves which slot.
    pub(super) async fn refresh(&self) -> Result<(), NodeError> {
        let dial = self.shared.dial();
        let known = self.shared.topology.snapshot(&dial).await?;
        self.shared.topology.refresh(&known, &Default::default(), &[], &dial).await.map(drop)
    }

    /// Carries out commands on one node, wherever their keys belong.
    ///
    /// # Errors
    /// The first that fails; those after it are not sent.
    pub async fn on_node(
        &self,
        node: &NodeAddress,
        commands: &[&[&[u8]]],
    ) -> Result<Vec<Value>, NodeError> {
        self.call(node, commands).await.map_err(|error| self.elsewhere(node, error))
    }

    /// Carries out a command on the node that serves the slot of its key; or, where the
    /// slot is on its way and the key is not there any more, on the one that it goes to,
    /// and says that it was so.
    ///
    /// # Errors
    /// If it was not, or perhaps not, carried out.
    pub(super) async fn on_node_or_next(
        &self,
        node: &NodeAddress,
        command: &[&[u8]],
    ) -> Result<(Option<Value>, bool), NodeError> {
        let error = match self.call(node, &[command]).await {
            Ok(mut replies) => return Ok((replies.pop(), false)),
            Err(error) => error,
        };
        match self.redirect(node, &error) {
            Some(Redirect::Ask { node: next, .. }) => {
                Ok((self.on_node(&next, &[&[b"ASKING"], command]).await?.pop(), true))
            }
            _ => Err(self.elsewhere(node, error)),
        }
    }

    async fn call(
        &self,
        node: &NodeAddress,
        commands: &[&[&[u8]]],
    ) -> Result<Vec<Value>, NodeError> {
        let (pool, dial) = (self.shared.pool(node), self.shared.dial());
        let mut lease = pool.lease(&dial, self.shared.settings.admission.as_ref()).await?;
        let mut replies = Vec::with_capacity(commands.len());
        for command in commands {
            replies.push(lease.connection.call(command).await?);
        }
        lease.give_back();
        Ok(replies)
    }

    /// Where a refusal sends a command.
    fn redirect(&self, node: &NodeAddress, error: &NodeError) -> Option<Redirect> {
        match error {
            NodeError::Refused { reason, .. } if self.shared.dial().config.is_cluster() => {
                Redirect::parse(reason.as_bytes(), node)
            }
            _ => None,
        }
    }

    /// That a key is elsewhere by now passes, in a Cluster.
    fn elsewhere(&self, node: &NodeAddress, error: NodeError) -> NodeError {
        match self.redirect(node, &error) {
            Some(Redirect::Moved { slot, .. } | Redirect::Ask { slot, .. }) => {
                NodeError::Unsettled { node: node.clone(), slot }
            }
            None => error,
        }
    }

    /// Carries out commands, and waits for all replies. If the call is given up
    /// half-way, the outcome of all of them is unknown.
    pub async fn run<W: Work>(&self, work: &W) -> Run<W::Done> {
        let dial = self.shared.dial();
        let mut total = Outcome::<W>::default();
        let mut retry = Retry::all(work.count());
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
                    let (batches, homeless) = retry.batches(&topology.map, work);
                    total.retry = homeless;
                    let run = batches.into_iter().map(|batch| self.shared.run(batch, work, &dial));
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
        let metrics = Arc::clone(&self.settings.metrics);
        let pool = NodePool::new(node.clone(), self.settings.connections_per_node_max, metrics);
        pools.entry(node.clone()).or_insert(Arc::new(pool)).clone()
    }

    /// The map by which to try: a new one if the last try says that it is needed.
    async fn route(&self, retry: &Retry, dial: &Dial) -> Result<Arc<Snapshot>, NodeError> {
        let known = self.topology.snapshot(dial).await?;
        if retry.moved.is_empty() && retry.away.is_empty() && !retry.map_doubtful {
            return Ok(known);
        }
        let refreshed = self.topology.refresh(&known, &retry.moved, &retry.away, dial).await;
        // Without an answer the old map must do; the next try will tell.
        Ok(refreshed.unwrap_or_else(|error| {
            tracing::warn!(%error, "the slots of the Redis Cluster could not be asked for");
            known
        }))
    }

    async fn run<W: Work>(&self, batch: Batch, work: &W, dial: &Dial) -> Outcome<W> {
        let pool = self.pool(&batch.node);
        let outcome = match pool.lease(dial, self.settings.admission.as_ref()).await {
            Ok(lease) => {
                let begun = StdInstant::now();
                let outcome = batch.run(lease, work).await;
                self.settings.metrics.write_seconds.observe_since(begun);
                outcome
            }
            Err(error) => batch.not_begun(error),
        };
        outcome.count(&self.settings.metrics);
        outcome
    }
}

impl<W: Work> Outcome<W> {
    /// Counts what went wrong with one pipeline.
    fn count(&self, metrics: &RedisMetrics) {
        if self.refusal.is_some() || self.retry.reason.is_some() {
            metrics.write_failures.inc();
        }
        metrics.write_unknowns.inc_by(self.unknown.len() as u64);
        metrics.write_redirects.inc_by(self.redirected);
    }

    /// What the caller is told, after the last try.
    fn finish(mut self) -> Run<W::Done> {
        let error = self.refusal.or(self.retry.reason.take());
        let undone = self.refused.into_iter().chain(self.retry.into_places());
        let undone = in_order(undone);
        Run {
            done: self.done,
            unknown: in_order(self.unknown.into_iter()),
            redirected: self.redirected,
            undone: (!undone.is_empty())
                .then(|| (error.expect("whoever leaves a command undone says why"), undone)),
        }
    }
}

fn in_order(places: impl Iterator<Item = u32>) -> Vec<usize> {
    let mut places: Vec<usize> = places.map(|place| place as usize).collect();
    places.sort_unstable();
    places
}
