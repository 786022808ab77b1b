//! The workers of this process: one for each partition that is its own now, and the one
//! who writes what they deliver.
//!
//! ```text
//!  given ──► resume a worker ──► it works ──► withdrawn: drain, commit, release
//!                                         └──► lost: end it where it stands
//! ```

use std::{collections::HashMap, sync::Arc};

use tokio::{
    sync::oneshot,
    task::{AbortHandle, Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    FanoutError, Progress, Settings,
    sweep::Sweep,
    worker::{Worker, wait_to_retry},
};
use crate::{
    event_log::{Assignment, EventLog},
    store::Store,
    telemetry::FanoutMetrics,
};

/// What every worker of a process works with.
pub struct WorkerPool<L, S: Store> {
    log: Arc<L>,
    store: Arc<S>,
    progress: Arc<Progress>,
    metrics: Arc<FanoutMetrics>,
    settings: Settings,
    sweep: Arc<Sweep<S::Account>>,
}

/// A worker at work.
struct Running {
    partition: u32,
    stop: CancellationToken,
    abort: AbortHandle,
    /// Whom to tell when it has ended.
    released: Option<oneshot::Sender<()>>,
    /// The partition has come back, and waits for this worker's end.
    given_again: bool,
}

type Ended = Result<(Id, Result<(), FanoutError>), JoinError>;

impl<L: EventLog, S: Store> WorkerPool<L, S> {
    /// Workers that read `log` and write `store`, say in `progress` how far they have
    /// come, and count in `metrics` what they do.
    pub fn new(
        log: Arc<L>,
        store: Arc<S>,
        progress: Arc<Progress>,
        metrics: Arc<FanoutMetrics>,
        settings: Settings,
    ) -> Self {
        metrics.begin();
        let sweep = Arc::new(Sweep::new(settings.sweep));
        Self { log, store, progress, metrics, settings, sweep }
    }

    /// Runs workers until it is told to stop, and commits what they have delivered.
    /// Once one of them cannot go on, or this process can be no worker any more, all are
    /// stopped.
    ///
    /// # Panics
    ///
    /// Where a worker does.
    pub async fn run(self, stop: CancellationToken) -> Result<(), FanoutError> {
        let mut writer = JoinSet::new();
        writer.spawn(self.write());
        let mut assignments = self.log.join();
        let mut joined = true;
        let mut tasks = JoinSet::new();
        let mut running = HashMap::<Id, Running>::new();
        let mut result = Ok(());
        loop {
            self.metrics.workers.set(running.len() as i64);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = writer.join_next() => panic_again(ended),
                Some(ended) = tasks.join_next_with_id() => match self.end(&mut running, ended).await
                {
                    Ok(None) => {}
                    Ok(Some(partition)) => self.give(partition, &mut tasks, &mut running, &stop),
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                },
                change = assignments.next(), if joined => match change {
                    Some(Assignment::Over { error }) => {
                        result = Err(error.into());
                        break;
                    }
                    Some(change) => self.change(change, &mut tasks, &mut running, &stop),
                    None => joined = false,
                },
            }
        }
        running.values().for_each(|worker| worker.stop.cancel());
        while let Some(ended) = tasks.join_next_with_id().await {
            // What failed first says most.
            result = result.and(self.end(&mut running, ended).await.map(drop));
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
                match running.values_mut().find(|worker| worker.partition == partition) {
                    // Two workers would write at once.
                    Some(worker) => worker.given_again = true,
                    None => self.give(partition, tasks, running, stop),
                }
            }
            Assignment::Withdrawn { partition, released } => {
                let mut released = Some(released);
                for worker in running.values_mut().filter(|one| one.partition == partition) {
                    worker.stop.cancel();
                    worker.given_again = false;
                    worker.released = released.take();
                }
            }
            Assignment::Lost { partition } => {
                for worker in running.values_mut().filter(|one| one.partition == partition) {
                    worker.abort.abort();
                    worker.given_again = false;
                }
            }
            // The loop ends with it.
            Assignment::Over { .. } => {}
        }
    }

    /// Starts a worker for a partition that has none.
    fn give(
        &self,
        partition: u32,
        tasks: &mut JoinSet<Result<(), FanoutError>>,
        running: &mut HashMap<Id, Running>,
        stop: &CancellationToken,
    ) {
        let stop = stop.child_token();
        let abort = tasks.spawn(self.work(partition, stop.clone()));
        let worker = Running { partition, stop, abort, released: None, given_again: false };
        running.insert(worker.abort.id(), worker);
    }

    /// Writes what the workers deliver, until it is aborted.
    fn write(&self) -> impl Future<Output = ()> + Send + 'static {
        let (sweep, store) = (Arc::clone(&self.sweep), Arc::clone(&self.store));
        let metrics = Arc::clone(&self.metrics);
        async move { sweep.run(&*store, &metrics).await }
    }

    fn work(
        &self,
        partition: u32,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), FanoutError>> + Send + 'static {
        let (log, store) = (Arc::clone(&self.log), Arc::clone(&self.store));
        let (progress, metrics) = (Arc::clone(&self.progress), Arc::clone(&self.metrics));
        let (sweep, settings) = (Arc::clone(&self.sweep), self.settings);
        async move {
            while !stop.is_cancelled() {
                let (log, store) = (Arc::clone(&log), Arc::clone(&store));
                let (progress, counted) = (Arc::clone(&progress), Arc::clone(&metrics));
                let sweep = Arc::clone(&sweep);
                let worker =
                    Worker::resume(log, store, progress, counted, sweep, partition, settings);
                let ended = match worker.await {
                    Ok(worker) => {
                        metrics.worker_resumes.inc();
                        tracing::debug!(partition, offset = worker.next_offset, "taken up");
                        worker.run(stop.clone()).await
                    }
                    Err(error) => Err(error),
                };
                let Err(error) = ended else { return Ok(()) };
                metrics.failed(&error);
                // The log says that the partition is this process's until it says
                // otherwise: so it is taken over again.
                wait_to_retry(error, (partition, None), settings.retry_delay, &stop).await?;
            }
            Ok(())
        }
    }

    /// Takes note that a worker has ended, and tells who waits for it. Returns its
    /// partition if that needs another one.
    async fn end(
        &self,
        running: &mut HashMap<Id, Running>,
        ended: Ended,
    ) -> Result<Option<u32>, FanoutError> {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) if error.is_cancelled() => (error.id(), Ok(())),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let Some(worker) = running.remove(&id) else { return result.map(|()| None) };
        // Whoever takes the partition over must find that nothing of it is under way.
        self.sweep.left(worker.partition).await;
        self.store.abandon(worker.partition);
        if let Some(released) = worker.released {
            // Whoever waited may have gone.
            let _ = released.send(());
        }
        result.map(|()| worker.given_again.then_some(worker.partition))
    }
}

/// Passes on the panic of a task that ends in no other way.
fn panic_again(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

#[cfg(test)]
mod tests {
    use std::{ops::Range, time::Duration};

    use bytes::Bytes;
    use tokio::{sync::mpsc, time::timeout};

    use super::*;
    use crate::{
        domain::{Event, Post, PostId, UserId},
        event_log::{Assignments, LogError, Record, codec, embedded::EmbeddedLog},
        store::embedded::{self, EmbeddedStore},
    };

    const DEADLINE: Duration = Duration::from_secs(60);

    /// A log whose partitions come and go as a test says.
    struct Shared {
        log: EmbeddedLog,
        assignments: std::sync::Mutex<Option<Assignments>>,
    }

    impl EventLog for Shared {
        fn partitions(&self) -> u32 {
            self.log.partitions()
        }

        async fn append(&self, partition: u32, all: Vec<Bytes>) -> Result<Vec<u64>, LogError> {
            self.log.append(partition, all).await
        }

        async fn read(
            &self,
            partition: u32,
            from: u64,
            max: usize,
        ) -> Result<Vec<Record>, LogError> {
            self.log.read(partition, from, max).await
        }

        async fn end(&self, partition: u32) -> Result<u64, LogError> {
            self.log.end(partition).await
        }

        async fn wait_past(&self, partition: u32, offset: u64) -> Result<(), LogError> {
            self.log.wait_past(partition, offset).await
        }

        async fn committed(&self, partition: u32) -> Result<u64, LogError> {
            self.log.committed(partition).await
        }

        async fn commit(&self, partition: u32, offset: u64) -> Result<(), LogError> {
            self.log.commit(partition, offset).await
        }

        async fn close(&self) {
            self.log.close().await;
        }

        fn join(&self) -> Assignments {
            self.assignments.lock().unwrap().take().expect("it is joined once")
        }
    }

    struct Town {
        log: Arc<Shared>,
        progress: Arc<Progress>,
        changes: mpsc::Sender<Assignment>,
        stop: CancellationToken,
        pool: tokio::task::JoinHandle<Result<(), FanoutError>>,
        _dir: tempfile::TempDir,
    }

    impl Town {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let log = EmbeddedLog::open(&dir.path().join("log"), Default::default()).unwrap();
            let settings = embedded::Settings::default();
            let store = EmbeddedStore::open(&dir.path().join("store"), settings).unwrap();
            let (changes, assignments) = mpsc::channel(8);
            let assignments = std::sync::Mutex::new(Some(Assignments::new(assignments)));
            let log = Arc::new(Shared { log, assignments });
            let progress = Arc::new(Progress::new(log.partitions()));
            let pool = WorkerPool::new(
                Arc::clone(&log),
                Arc::new(store),
                Arc::clone(&progress),
                Arc::default(),
                Settings::default(),
            );
            let stop = CancellationToken::new();
            let pool = tokio::spawn(pool.run(stop.clone()));
            Self { log, progress, changes, stop, pool, _dir: dir }
        }

        async fn post(&self, ids: Range<u64>) {
            for id in ids {
                let post = Post::plain(PostId(id), UserId(1));
                let event = Event::PostPublished { post, request_id: None };
                self.log.append(0, vec![codec::encode(&event)]).await.unwrap();
            }
        }

        async fn give(&self) {
            self.changes.send(Assignment::Given { partition: 0 }).await.unwrap();
        }

        async fn delivered(&self, offset: u64) {
            timeout(DEADLINE, self.progress.wait_delivered(0, offset)).await.expect("delivered");
        }

        async fn end(self) {
            self.stop.cancel();
            timeout(DEADLINE, self.pool).await.expect("it ends").unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_withdrawn_partition_is_released_once_all_of_it_is_committed() {
        let town = Town::new();
        town.give().await;
        town.post(1..4).await;
        town.delivered(3).await;
        let (released, is_released) = oneshot::channel();
        town.changes.send(Assignment::Withdrawn { partition: 0, released }).await.unwrap();
        timeout(DEADLINE, is_released).await.expect("released").unwrap();
        assert_eq!(town.log.committed(0).await.unwrap(), 3);
        // Nobody works on it until it is given again.
        town.post(4..6).await;
        assert_eq!(town.progress.position(0).delivered, 3);
        town.give().await;
        town.delivered(5).await;
        town.end().await;
    }

    #[tokio::test]
    async fn one_that_is_withdrawn_without_a_worker_is_released_at_once() {
        let town = Town::new();
        let (released, is_released) = oneshot::channel();
        town.changes.send(Assignment::Withdrawn { partition: 0, released }).await.unwrap();
        // Dropping says so too.
        assert!(timeout(DEADLINE, is_released).await.expect("released").is_err());
        town.end().await;
    }

    #[tokio::test]
    async fn whoever_can_be_no_worker_any_more_ends_and_says_why() {
        let town = Town::new();
        town.give().await;
        town.post(1..4).await;
        town.delivered(3).await;
        let (group, reason) = ("ours".to_owned(), "fenced".to_owned());
        let error = LogError::NoWorker { group, reason };
        town.changes.send(Assignment::Over { error }).await.unwrap();
        let ended = timeout(DEADLINE, town.pool).await.expect("it ends").unwrap();
        let said = ended.expect_err("why").to_string();
        assert_eq!(said, "this process can be no worker of the group ours: fenced");
        assert_eq!(town.log.committed(0).await.unwrap(), 3, "what was delivered is committed");
    }

    #[tokio::test]
    async fn a_lost_partition_that_comes_back_has_one_worker_again() {
        let town = Town::new();
        town.post(1..4).await;
        for _ in 0..20 {
            town.give().await;
            town.changes.send(Assignment::Lost { partition: 0 }).await.unwrap();
        }
        town.give().await;
        town.delivered(3).await;
        town.end().await;
    }
}
