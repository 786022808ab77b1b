//! The workers of this process: one for each partition that is its own now.
//!
//! ```text
//!  given ──► resume a worker ──► it works ──► withdrawn: drain, commit, release
//!                                         └──► lost: end it where it stands
//! ```

use std::{collections::HashMap, hash::Hash, sync::Arc};

use tokio::{
    sync::oneshot,
    task::{AbortHandle, Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{Counters, FanoutError, Progress, Settings, Worker, wait_to_retry};
use crate::{
    event_log::{Assignment, EventLog},
    store::Store,
};

/// What every worker of a process works with.
pub struct WorkerPool<L, S> {
    /// What they read.
    pub log: Arc<L>,
    /// What they write.
    pub store: Arc<S>,
    /// Where they say how far they have come.
    pub progress: Arc<Progress>,
    /// Where they count what they do.
    pub counters: Arc<Counters>,
    /// How they work.
    pub settings: Settings,
}

/// A worker at work.
struct Running {
    partition: u32,
    stop: CancellationToken,
    abort: AbortHandle,
    /// Whom to tell when it has ended.
    released: Option<oneshot::Sender<()>>,
}

type Ended = Result<(Id, Result<(), FanoutError>), JoinError>;

impl<L: EventLog, S: Store> WorkerPool<L, S>
where
    S::Account: Hash,
{
    /// Runs workers until it is told to stop, and commits what they have delivered.
    /// Once one of them cannot go on, the others are stopped too.
    ///
    /// # Panics
    ///
    /// Where a worker does.
    pub async fn run(self, stop: CancellationToken) -> Result<(), FanoutError> {
        let mut assignments = self.log.join();
        let mut joined = true;
        let mut tasks = JoinSet::new();
        let mut running = HashMap::<Id, Running>::new();
        let mut result = Ok(());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = tasks.join_next_with_id() => {
                    result = end(&mut running, ended);
                    if result.is_err() {
                        break;
                    }
                }
                change = assignments.next(), if joined => match change {
                    Some(change) => self.change(change, &mut tasks, &mut running, &stop),
                    None => joined = false,
                },
            }
        }
        running.values().for_each(|worker| worker.stop.cancel());
        while let Some(ended) = tasks.join_next_with_id().await {
            // What failed first says most.
            result = result.and(end(&mut running, ended));
        }
        result
    }

    fn change(
        &self,
        change: Assignment,
        tasks: &mut JoinSet<Result<(), FanoutError>>,
        running: &mut HashMap<Id, Running>,
        stop: &CancellationToken,
    ) {
        match change {
            Assignment::Given { partition } => {
                let stop = stop.child_token();
                let abort = tasks.spawn(self.work(partition, stop.clone()));
                running.insert(abort.id(), Running { partition, stop, abort, released: None });
            }
            Assignment::Withdrawn { partition, released } => {
                let mut released = Some(released);
                for worker in running.values_mut().filter(|one| one.partition == partition) {
                    worker.stop.cancel();
                    worker.released = released.take();
                }
            }
            Assignment::Lost { partition } => {
                for worker in running.values().filter(|worker| worker.partition == partition) {
                    worker.abort.abort();
                }
            }
        }
    }

    fn work(
        &self,
        partition: u32,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), FanoutError>> + Send + 'static {
        let (log, store) = (Arc::clone(&self.log), Arc::clone(&self.store));
        let (progress, counters) = (Arc::clone(&self.progress), Arc::clone(&self.counters));
        let settings = self.settings;
        async move {
            while !stop.is_cancelled() {
                let (log, store) = (Arc::clone(&log), Arc::clone(&store));
                let (progress, counters) = (Arc::clone(&progress), Arc::clone(&counters));
                match Worker::resume(log, store, progress, counters, partition, settings).await {
                    Ok(worker) => return worker.run(stop).await,
                    Err(error) => {
                        wait_to_retry(error, (partition, None), settings.retry_delay, &stop)
                            .await?;
                    }
                }
            }
            Ok(())
        }
    }
}

/// Takes note that a worker has ended, and tells who waits for it.
fn end(running: &mut HashMap<Id, Running>, ended: Ended) -> Result<(), FanoutError> {
    let (id, result) = match ended {
        Ok((id, result)) => (id, result),
        Err(error) if error.is_cancelled() => (error.id(), Ok(())),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    if let Some(released) = running.remove(&id).and_then(|worker| worker.released) {
        // Whoever waited may have gone.
        let _ = released.send(());
    }
    result
}
