//! The engine: the log, the store, and the workers between them.

mod rebuild;

use std::{path::Path, sync::Arc, time::Duration};

use tokio::runtime::{Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::{
    AppError, Backend, Settings, clock_watch, disk_watch,
    follow::Follower,
    lag,
    supervisor::Supervisor,
    waits::{Waits, both},
};
use crate::{
    audit::Auditor,
    data_dir::DataDir,
    domain::{Event, PostId},
    event_log::{
        EventLog, LogError, codec,
        embedded::{self as embedded_log, EmbeddedLog},
        kafka::{self, KafkaLog},
    },
    fanout::{self, Progress, Settled, WorkerPool},
    free_space::DiskReserve,
    grpc::{self, Api, Gate, Limits, StreamSlots},
    home_stream::Watch,
    home_timeline::HomeTimelines,
    post_id::PostIds,
    store::{
        Store,
        embedded::{self as embedded_store, EmbeddedStore},
        redis::{self as redis_store, RedisStore, config::RedisConfig},
    },
    telemetry::Metrics,
    writes::{self, Memory, Writes},
};

/// How often a start says how far it has come.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// How long one try to open the log in Kafka may take, after which it is said what is
/// waited for.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// The log, the store, and the workers between them.
pub(super) enum Engine {
    Embedded(Parts<EmbeddedLog, EmbeddedStore>),
    Shared(Parts<KafkaLog, RedisStore>),
}

/// What an engine is made of.
pub(super) struct Parts<L, S: Store> {
    log: Arc<L>,
    store: Arc<S>,
    ids: Arc<PostIds>,
    progress: Arc<Progress>,
    memory: Memory,
    metrics: Metrics,
    homes: Arc<HomeTimelines<S>>,
    watch: Arc<Watch<S>>,
    disk_reserve: DiskReserve,
    /// The workers, and everything else that runs in the background.
    tasks: Supervisor,
    _worker_threads: WorkerThreads,
    // Last, so that the lock is given back when all else is gone.
    _data_dir: Option<DataDir>,
}

impl Engine {
    /// Opens everything, and waits until what is in the log is applied.
    pub(super) async fn start(
        settings: &Settings,
        gate: &Gate,
        metrics: &Metrics,
        stop: &CancellationToken,
    ) -> Result<Self, AppError> {
        match &settings.backend {
            Backend::Embedded { data_dir, partitions } => {
                let opened = tokio::task::spawn_blocking({
                    let (data_dir, partitions) = (data_dir.clone(), *partitions);
                    let home_timeline_cap = settings.home_timeline_cap;
                    move || open(&data_dir, partitions, home_timeline_cap)
                });
                let opened = unless(stop, async { opened.await.map_err(|_| AppError::Panicked) });
                let (lock, log, store) = opened.await??;
                check_ends(&*log, &*store).await?;
                let ids = PostIds::new(0, greatest_post(&*log, &*store).await?);
                let memory = Memory::perfect();
                let mut parts = Parts::new(log, store, ids, memory, settings, metrics)?;
                parts._data_dir = Some(lock);
                let reserve = DiskReserve::new(data_dir.clone(), settings.disk_reserve_bytes);
                parts.disk_reserve = reserve.clone();
                let stop_watching = parts.tasks.stop_token();
                let watch = disk_watch::watch(reserve, gate.readiness(), stop_watching);
                parts.tasks.spawn("disk watch", watch);
                let sleeping = EmbeddedStore::clone(&parts.store).let_idle_sleep(settings.idle_max);
                let stop_sleeping = parts.tasks.stop_token();
                parts.tasks.spawn("eviction of idle timelines", async move {
                    stop_sleeping.run_until_cancelled_owned(sleeping).await;
                });
                Ok(Self::Embedded(parts.caught_up(settings, gate, stop).await?))
            }
            Backend::Shared { kafka, redis } => {
                let opened = wait_for_shared(kafka, redis, settings, gate, metrics);
                let (log, store, ids) = unless(stop, opened).await?;
                // Those who publish ask it, and nobody else.
                let memory = match settings.roles.api {
                    true => Memory::of_shared_store(),
                    false => Memory::perfect(),
                };
                let mut parts = Parts::new(log, store, ids, memory, settings, metrics)?;
                let follower = Follower {
                    log: Arc::clone(&parts.log),
                    store: Arc::clone(&parts.store),
                    progress: Arc::clone(&parts.progress),
                    memory: parts.memory.clone(),
                    gate: gate.clone(),
                };
                let waits = Waits::new(gate);
                let first = waits.until("Redis", || async { Ok(follower.first_look().await?) });
                let first = unless(stop, first).await?;
                let stop_following = parts.tasks.stop_token();
                parts.tasks.spawn("store monitor", follower.run(first, stop_following));
                if settings.roles.api {
                    let store = RedisStore::clone(&parts.store);
                    let stop_keeping = parts.tasks.stop_token();
                    let ids = Arc::clone(&parts.ids);
                    let keep = store.keep_node(ids, unix_ms_of(settings), stop_keeping);
                    parts.tasks.spawn("id lease", keep);
                }
                Ok(Self::Shared(parts.caught_up(settings, gate, stop).await?))
            }
        }
    }

    /// What answers from it; `None` where that is not this process's role.
    pub(super) fn routes(
        &self,
        settings: &Settings,
        gate: &Gate,
    ) -> Result<Option<Routes>, AppError> {
        match self {
            Self::Embedded(parts) => parts.routes(settings, gate),
            Self::Shared(parts) => parts.routes(settings, gate),
        }
    }

    /// Waits until a part of it has failed.
    pub(super) async fn failed(&mut self) -> AppError {
        match self {
            Self::Embedded(parts) => parts.failed().await,
            Self::Shared(parts) => parts.failed().await,
        }
    }

    /// Commits what the workers have done, and closes the log.
    pub(super) async fn stop(self) -> Result<(), AppError> {
        match self {
            Self::Embedded(parts) => parts.stop().await,
            Self::Shared(parts) => parts.stop().await,
        }
    }
}

impl<L: EventLog, S: Store> Parts<L, S> {
    /// Starts the workers, if this process has that role.
    fn new(
        log: Arc<L>,
        store: Arc<S>,
        ids: PostIds,
        memory: Memory,
        settings: &Settings,
        metrics: &Metrics,
    ) -> Result<Self, AppError> {
        let ids = Arc::new(ids.with_clock_jump_max(settings.clock_jump_max));
        let progress = Arc::new(Progress::new(log.partitions()));
        let worker_threads = WorkerThreads::start(settings.worker_threads)?;
        let mut tasks = Supervisor::new();
        let stop = tasks.stop_token();
        if settings.roles.worker {
            let pool = WorkerPool::new(
                Arc::clone(&log),
                Arc::clone(&store),
                Arc::clone(&progress),
                Arc::clone(&metrics.fanout),
                fanout::Settings { pull_rule: settings.pull_rule, ..Default::default() },
            );
            tasks.spawn_fallible_on("workers", &worker_threads.handle, pool.run(stop.clone()));
        }
        let homes = Arc::new(HomeTimelines::new(Arc::clone(&store)));
        let settled = Arc::new(Settled::new(settings.settled_after));
        tasks.spawn("low watermark", {
            let (log, progress) = (Arc::clone(&log), Arc::clone(&progress));
            let (ids, clock) = (Arc::clone(&ids), settings.clock.clone());
            let gives_out_all = matches!(settings.backend, Backend::Embedded { .. });
            let new_above = move || match gives_out_all {
                true => ids.newest(),
                false => ids.others_above(clock.unix_ms()),
            };
            let at_start = match gives_out_all {
                // What was on its way has ended with the process before.
                true => new_above(),
                false => settled.less_the_wait(new_above()),
            };
            Arc::clone(&settled).run(log, progress, at_start, new_above, stop.clone())
        });
        let watch = Arc::new(Watch::new(Arc::clone(&store), Arc::clone(&settled), memory.clone()));
        tasks.spawn("stream watch", Arc::clone(&watch).run(stop.clone()));
        if let Some(every) = settings.audit_every.filter(|_| settings.roles.worker) {
            let auditor = Auditor {
                log: Arc::clone(&log),
                store: Arc::clone(&store),
                homes: Arc::clone(&homes),
                progress: Arc::clone(&progress),
                settled,
                metrics: Arc::clone(&metrics.audit),
            };
            tasks.spawn("auditor", auditor.run(every, stop.clone()));
        }
        if settings.metrics_listen.is_some() {
            let (log, progress) = (Arc::clone(&log), Arc::clone(&progress));
            tasks.spawn("lag", lag::watch(log, progress, metrics.lag.clone(), stop));
        }
        Ok(Self {
            log,
            store,
            ids,
            progress,
            memory,
            metrics: metrics.clone(),
            disk_reserve: DiskReserve::default(),
            tasks,
            _worker_threads: worker_threads,
            homes,
            watch,
            _data_dir: None,
        })
    }

    /// A request id is looked up in the store, and a read must not show what was
    /// taken away before: so nobody is served before all that was acknowledged holds.
    async fn caught_up(
        mut self,
        settings: &Settings,
        gate: &Gate,
        stop: &CancellationToken,
    ) -> Result<Self, AppError> {
        if settings.roles.api {
            let (ids, clock) = (Arc::clone(&self.ids), settings.clock.clone());
            let metrics = Arc::clone(&self.metrics.writes);
            let stop_watching = self.tasks.stop_token();
            let watch = clock_watch::watch(ids, clock, metrics, gate.readiness(), stop_watching);
            self.tasks.spawn("clock watch", watch);
        }
        if settings.roles.api
            && let Err(error) = unless(stop, self.catch_up(gate)).await
        {
            // What failed first says more than what fails on the way out.
            let _ = self.stop().await;
            return Err(error);
        }
        Ok(self)
    }

    fn routes(&self, settings: &Settings, gate: &Gate) -> Result<Option<Routes>, AppError> {
        if !settings.roles.api {
            return Ok(None);
        }
        let text_chars_max = settings.text_chars_max;
        let writes = Writes::new(
            Arc::clone(&self.log),
            Arc::clone(&self.store),
            Arc::clone(&self.progress),
            self.memory.clone(),
            Arc::clone(&self.ids),
            settings.clock.clone(),
            writes::Settings {
                text_chars_max,
                followees_max: settings.followees_max,
                pull_rule: settings.pull_rule,
                disk_reserve: self.disk_reserve.clone(),
                metrics: Arc::clone(&self.metrics.writes),
                ..Default::default()
            },
        );
        let api = Api {
            writes,
            watch: Arc::clone(&self.watch),
            door: gate.door(),
            stream_slots: StreamSlots::new(
                settings.home_streams_max,
                Arc::clone(&self.metrics.calls),
            ),
            homes: Arc::clone(&self.homes),
            store: Arc::clone(&self.store),
            log: Arc::clone(&self.log),
            progress: Arc::clone(&self.progress),
            fanout: Arc::clone(&self.metrics.fanout),
            limits: Limits { home_timeline_cap: settings.home_timeline_cap, text_chars_max },
        };
        Ok(Some(grpc::routes(api)?))
    }

    async fn failed(&mut self) -> AppError {
        self.tasks.failed().await
    }

    async fn stop(self) -> Result<(), AppError> {
        let stopped = self.tasks.stop().await;
        self.log.close().await;
        stopped
    }

    async fn catch_up(&mut self, gate: &Gate) -> Result<(), AppError> {
        let log = &self.log;
        let waits = Waits::new(gate);
        let ends = waits.until("the event log", || async { Ok(log.ends().await?) }).await?;
        let progress = Arc::clone(&self.progress);
        let left = || -> u64 {
            let partitions = (0..).zip(&ends);
            partitions.map(|(at, end)| end.saturating_sub(progress.position(at).applied)).sum()
        };
        let applied = progress.wait_all_applied(&ends);
        tokio::pin!(applied);
        let mut tell = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                biased;
                () = &mut applied => return Ok(()),
                error = self.failed() => return Err(error),
                _ = tell.tick() => {
                    let how_far =
                        format!("{} events of the log are to be applied to the store", left());
                    if gate.tell(&how_far) {
                        tracing::info!("starting: {how_far}");
                    }
                }
            }
        }
    }
}

/// Threads for the workers alone, whose rounds are long: calls do not wait for
/// them. Dropping it ends them without waiting.
pub(crate) struct WorkerThreads {
    pub(crate) handle: Handle,
    /// Taken by `drop` only.
    runtime: Option<Runtime>,
}

impl WorkerThreads {
    pub(crate) fn start(count: usize) -> Result<Self, AppError> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(count)
            .thread_name("roost-fanout")
            .enable_all()
            .build()
            .map(|runtime| Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
            .map_err(AppError::Threads)
    }
}

impl Drop for WorkerThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn open(
    data_dir: &Path,
    partitions: Option<u32>,
    home_timeline_cap: usize,
) -> Result<(DataDir, Arc<EmbeddedLog>, Arc<EmbeddedStore>), AppError> {
    let data_dir = DataDir::open(data_dir)?;
    let log_settings = embedded_log::Settings { partitions, ..Default::default() };
    let log = EmbeddedLog::open(&data_dir.log_dir(), log_settings)?;
    let store_settings = embedded_store::Settings { home_timeline_cap, ..Default::default() };
    let store = EmbeddedStore::open(&data_dir.store_dir(), store_settings)?;
    Ok((data_dir, Arc::new(log), Arc::new(store)))
}

/// Opens what processes share, as soon as it is there, with a node number if this one
/// answers calls.
async fn wait_for_shared(
    kafka: &kafka::Settings,
    redis: &Arc<RedisConfig>,
    settings: &Settings,
    gate: &Gate,
    metrics: &Metrics,
) -> Result<(Arc<KafkaLog>, Arc<RedisStore>, PostIds), AppError> {
    let waits = Waits::new(gate);
    let kafka = &kafka::Settings { open_timeout: OPEN_TIMEOUT, ..kafka.clone() };
    let (log, known) = both(
        waits.until("Kafka", || open_existing_log(kafka, metrics, Duration::ZERO)),
        waits.until("Redis", || async {
            redis_store::check(redis).await?;
            Ok(redis_store::log_of(redis).await?)
        }),
    )
    .await?;
    let log = match log {
        Some(log) => log,
        // A new topic would be another log of the same name.
        None if known.as_ref() == Some(&kafka.topic) => {
            // A broker that has just started may not know of it yet.
            tracing::warn!(
                topic = kafka.topic,
                "starting: a broker knows no such topic, though Redis holds what came from it; \
                 the brokers are asked again for {:?} before that is believed",
                kafka.confirm_no_topic_after
            );
            let confirm = || open_existing_log(kafka, metrics, kafka.confirm_no_topic_after);
            let log = waits.until("Kafka", confirm).await?;
            log.ok_or_else(|| AppError::LogGone { topic: kafka.topic.clone() })?
        }
        None => waits.until("Kafka", || open_log(kafka, metrics)).await?,
    };
    let store = store_settings(&log, kafka, redis, settings, metrics);
    let store = waits.until("Redis", || async { Ok(RedisStore::open(store.clone()).await?) });
    let store = Arc::new(store.await?);
    let (log_ref, store_ref) = (&*log, &*store);
    let ids = waits.until("Kafka and Redis", || async move {
        check_ends(log_ref, store_ref).await?;
        if !settings.roles.api {
            // Nothing is published from here.
            return Ok(PostIds::new(0, None));
        }
        let greatest = greatest_post(log_ref, store_ref).await?;
        Ok(store_ref.lease_node(greatest, unix_ms_of(settings)).await?)
    });
    let ids = ids.await?;
    Ok((log, store, ids))
}

fn unix_ms_of(settings: &Settings) -> impl Fn() -> u64 + Send + use<> {
    let clock = settings.clock.clone();
    move || clock.unix_ms()
}

/// `None`: there is no topic, as the brokers say for as long as `confirm_no_topic_after`.
async fn open_existing_log(
    kafka: &kafka::Settings,
    metrics: &Metrics,
    confirm_no_topic_after: Duration,
) -> Result<Option<Arc<KafkaLog>>, AppError> {
    let existing = kafka::Settings { create: false, confirm_no_topic_after, ..kafka.clone() };
    match open_log(&existing, metrics).await {
        Ok(log) => Ok(Some(log)),
        Err(AppError::Log(LogError::NoTopic { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn open_log(kafka: &kafka::Settings, metrics: &Metrics) -> Result<Arc<KafkaLog>, AppError> {
    let kafka = kafka::Settings { metrics: Arc::clone(&metrics.kafka), ..kafka.clone() };
    Ok(Arc::new(KafkaLog::open(kafka).await?))
}

/// How to open the store that belongs to a log.
fn store_settings(
    log: &KafkaLog,
    kafka: &kafka::Settings,
    redis: &Arc<RedisConfig>,
    settings: &Settings,
    metrics: &Metrics,
) -> redis_store::Settings {
    let (redis, topic) = (Arc::clone(redis), kafka.topic.clone());
    let mut store = redis_store::Settings::new(redis, topic, log.partitions());
    store.group.clone_from(&kafka.group);
    store.home_timeline_cap = settings.home_timeline_cap;
    store.idle_max = settings.idle_max;
    store.metrics = Arc::clone(&metrics.redis);
    store
}

/// What `doing` comes to, unless `stop` is cancelled first.
async fn unless<T>(
    stop: &CancellationToken,
    doing: impl Future<Output = Result<T, AppError>>,
) -> Result<T, AppError> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(AppError::Stopped),
        done = doing => done,
    }
}

/// No partition may end before what the store has seen of it.
async fn check_ends(log: &impl EventLog, store: &impl Store) -> Result<(), AppError> {
    // In this order, since both only grow.
    let marks = store.marks().await?;
    let ends = log.ends().await?;
    for ((partition, marks), mut end) in (0..).zip(&marks).zip(ends) {
        if end < marks.seen() {
            end = log.end_reaching(partition, marks.seen()).await?;
        }
        fanout::check_end(partition, marks, end)?;
    }
    Ok(())
}

/// The greatest id of a post or a message given out so far, as far as anything durable tells: the
/// store knows it up to where its events end, the log from there on.
async fn greatest_post(
    log: &impl EventLog,
    store: &impl Store,
) -> Result<Option<PostId>, AppError> {
    const BATCH_BYTES_MAX: usize = 1 << 20;
    let mut greatest = store.greatest_post().await?;
    let marks = store.marks().await?;
    for partition in 0..log.partitions() {
        let mut offset = marks.get(partition as usize).map_or(0, |marks| marks.applied);
        let end = log.end(partition).await?;
        while offset < end {
            let records = log.read(partition, offset, BATCH_BYTES_MAX).await?;
            let Some(last) = records.last() else {
                log.wait_past(partition, offset).await?;
                continue;
            };
            offset = last.offset + 1;
            for record in records {
                greatest = greatest.max(match codec::decode(&record.payload)? {
                    Event::PostPublished { post, .. } => Some(post.id),
                    Event::MessageSent { message, .. } => Some(PostId(message.id.0)),
                    _ => None,
                });
            }
        }
    }
    Ok(greatest)
}
