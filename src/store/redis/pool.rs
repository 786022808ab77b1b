//! The connections to one node.
//!
//! A pipeline has a connection to itself while it runs. Connections that came
//! back whole are used again, others are dropped. A node that could not be reached
//! is tried again only after a while, which doubles each time.
//!
//! What was sent on a connection that did not come back may be carried out at any time
//! later, after what is sent to make up for it. So before anything else is sent to its
//! node, the node is made to close it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit},
    time::{Instant, sleep_until},
};

use super::{
    error::NodeError,
    node::{Dial, NodeConnection},
    slots::NodeAddress,
};
use crate::telemetry::RedisMetrics;

const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Asks whether this worker may still write: [`NodeError::Fenced`] if not, another
/// error if nobody can tell now.
pub type Admission =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), NodeError>> + Send>> + Send + Sync>;

#[derive(Debug)]
pub(super) struct NodePool {
    node: NodeAddress,
    idle: Mutex<Vec<NodeConnection>>,
    /// As many as there may be connections in use; past it, pipelines wait.
    permits: Semaphore,
    failures: Mutex<Failures>,
    /// How Redis knows the connections that did not come back: at most as many as may
    /// be in use, for nothing goes to the node before it has closed them.
    doubtful: Mutex<Vec<i64>>,
    /// Held by whoever has them closed.
    closing: AsyncMutex<()>,
    /// Where the connections that are made are counted.
    metrics: Arc<RedisMetrics>,
}

/// Failures to connect, in a row.
#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    next_wait: Duration,
    not_before: Option<Instant>,
}

/// A connection for one pipeline.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    pub(super) connection: NodeConnection,
    doubt: Doubt<'a>,
    _permit: Option<SemaphorePermit<'a>>,
}

/// That a connection may not come back.
#[derive(Debug)]
struct Doubt<'a> {
    pool: &'a NodePool,
    /// Which one; `None` once it is back.
    id: Option<i64>,
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        self.pool.doubtful().extend(self.id);
    }
}

impl NodePool {
    pub(super) fn new(
        node: NodeAddress,
        connections_max: usize,
        metrics: Arc<RedisMetrics>,
    ) -> Self {
        Self {
            node,
            idle: Mutex::default(),
            permits: Semaphore::new(connections_max.max(1)),
            failures: Mutex::default(),
            doubtful: Mutex::default(),
            closing: AsyncMutex::default(),
            metrics,
        }
    }

    /// A connection under the name that `dial` says, an idle one if there is one.
    ///
    /// A new one is known to Redis by its name before `admission` is asked. So
    /// whoever takes over and first makes `admission` say no, then closes the
    /// connections of that name, has closed all there will ever be.
    pub(super) async fn lease(
        &self,
        dial: &Dial,
        admission: Option<&Admission>,
    ) -> Result<Lease<'_>, NodeError> {
        // It fails only once it is closed, which it never is.
        let permit = self.permits.acquire().await.ok();
        while let Some(mut connection) = self.pop_idle() {
            if *connection.name() == dial.name && connection.is_idle() {
                return self.lend(connection, permit).await;
            }
        }
        let not_before = self.failures.lock().unwrap_or_else(PoisonError::into_inner).not_before;
        if let Some(not_before) = not_before {
            sleep_until(not_before).await;
        }
        let connected = NodeConnection::connect(&self.node, dial).await;
        self.note(connected.is_ok());
        let connection = connected?;
        self.metrics.write_connections.inc();
        if let Some(admission) = admission {
            admission().await?;
        }
        self.lend(connection, permit).await
    }

    async fn lend<'a>(
        &'a self,
        mut connection: NodeConnection,
        permit: Option<SemaphorePermit<'a>>,
    ) -> Result<Lease<'a>, NodeError> {
        if !self.doubtful().is_empty() {
            self.close_doubtful(&mut connection).await?;
        }
        let doubt = Doubt { pool: self, id: Some(connection.id()) };
        Ok(Lease { connection, doubt, _permit: permit })
    }

    /// Has the node close the connections that did not come back. They stay noted until
    /// it has: whoever comes meanwhile waits.
    async fn close_doubtful(&self, connection: &mut NodeConnection) -> Result<(), NodeError> {
        let _turn = self.closing.lock().await;
        let doubtful = self.doubtful().clone();
        for id in &doubtful {
            connection.close_other(*id).await?;
        }
        self.doubtful().retain(|id| !doubtful.contains(id));
        Ok(())
    }

    fn doubtful(&self) -> MutexGuard<'_, Vec<i64>> {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop_idle(&self) -> Option<NodeConnection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn note(&self, connected: bool) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures = if connected { Failures::default() } else { failures.after_one_more() };
    }
}

impl Failures {
    fn after_one_more(self) -> Self {
        let wait = self.next_wait.clamp(FIRST_WAIT, LONGEST_WAIT);
        Self { next_wait: wait * 2, not_before: Some(Instant::now() + wait) }
    }
}

impl Lease<'_> {
    /// Gives the connection back, on which nothing is under way.
    pub(super) fn give_back(mut self) {
        self.doubt.id = None;
        let mut idle = self.doubt.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(self.connection);
    }
}
