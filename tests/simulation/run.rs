//! One run: an engine, its clients, and what strikes them.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use roost::{
    domain::{MessageId, PostId, UserId},
    event_log::EventLog,
    fanout::{self, Progress, PullRule, WorkerPool},
    home_timeline::{Filter, HomeTimelines},
    inbox,
    post_id::PostIds,
    store::{
        Accounts, Floor, Lookups, MessageSide, ReferrerKind, Referrers,
        embedded::{Blocking, EmbeddedStore, Settings},
    },
    telemetry::{FanoutMetrics, WriteMetrics},
    writes::{self, Memory, Writes},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Acknowledged, CLIENTS, Client},
    faults::{Faults, FaultyStore, greatest_in},
    log::SimLog,
    model::Model,
    mutation::Mutation,
};

/// The least time that passes.
const TICK: Duration = Duration::from_nanos(1);
pub const CAP: usize = 6;
/// The first two are popular; all are where the widths of numbers end.
pub const USERS: [UserId; 8] = [
    UserId(1 << 63),
    UserId((1 << 53) + 1),
    UserId(u64::MAX),
    UserId(1),
    UserId(1 << 31),
    UserId(1 << 32),
    UserId(u64::MAX >> 1),
    UserId(2),
];
pub const PARTITIONS: u32 = 3;

/// More turns than a publish takes to its end.
const PUBLISH_TURNS_MAX: u64 = 1_000;

/// What happened, so that a run that meets no trouble can be noticed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub posts: u64,
    pub deleted: u64,
    pub reads: u64,
    pub process_crashes: u64,
    pub worker_crashes: u64,
    pub store_losses: u64,
    pub capped_timelines: u64,
    pub repeated_requests: u64,
    pub resumed_fanouts: u64,
    /// Posts that are not shown, since their authors are hidden or what they repeat is shown.
    pub hidden: u64,
    /// Authors who are pulled in the end.
    pub pulled: u64,
    /// Authors whom workers have switched.
    pub switched: u64,
    /// Posts that accounts are told of.
    pub notified: u64,
    /// Messages that are in an inbox in the end.
    pub messages: u64,
    /// Messages whose deletion was acknowledged.
    pub deleted_messages: u64,
    /// The next number of the random generator: the same in the end of the same run.
    pub fingerprint: u64,
}

impl Totals {
    pub fn add(&mut self, other: Self) {
        self.posts += other.posts;
        self.deleted += other.deleted;
        self.reads += other.reads;
        self.process_crashes += other.process_crashes;
        self.worker_crashes += other.worker_crashes;
        self.store_losses += other.store_losses;
        self.capped_timelines += other.capped_timelines;
        self.repeated_requests += other.repeated_requests;
        self.resumed_fanouts += other.resumed_fanouts;
        self.hidden += other.hidden;
        self.pulled += other.pulled;
        self.switched += other.switched;
        self.notified += other.notified;
        self.messages += other.messages;
        self.deleted_messages += other.deleted_messages;
        self.fingerprint ^= other.fingerprint;
    }
}

pub fn run(seed: u64, mutation: Mutation) -> Totals {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let shared_memory = PathBuf::from("/dev/shm");
    let base = if shared_memory.is_dir() { shared_memory } else { std::env::temp_dir() };
    let dir = tempfile::tempdir_in(base).expect("a directory");
    runtime.block_on(Simulation::new(seed, mutation, dir.path().join("store")).run())
}

struct Simulation {
    faults: Faults,
    /// In half of the runs, so that in the others floors are exact.
    pulls: bool,
    log: Arc<SimLog>,
    acknowledged: Arc<Acknowledged>,
    store_dir: PathBuf,
    clock: Arc<AtomicU64>,
    metrics: Arc<FanoutMetrics>,
    totals: Totals,
}

/// What a crash of the process takes along.
struct Engine {
    store: Arc<FaultyStore>,
    homes: Arc<HomeTimelines<FaultyStore>>,
    progress: Arc<Progress>,
    writes: Writes<SimLog, FaultyStore>,
    write_metrics: Arc<WriteMetrics>,
    other_node: Arc<PostIds>,
}

/// What ends a span of time.
enum Strike {
    Process,
    Workers,
    Finished,
}

/// Awaits `work` while workers, which never end, go on.
async fn beside<T>(workers: &mut JoinSet<()>, work: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        Some(ended) = workers.join_next() => panic!("a worker has ended: {ended:?}"),
        result = work => result,
    }
}

impl Simulation {
    fn new(seed: u64, mutation: Mutation, store_dir: PathBuf) -> Self {
        let faults = Faults::new(seed, mutation);
        Self {
            log: Arc::new(SimLog::new(PARTITIONS, faults.clone())),
            pulls: faults.chance(50),
            faults,
            acknowledged: Arc::default(),
            store_dir,
            clock: Arc::new(AtomicU64::new(PostId::EPOCH_UNIX_MS + 1_000)),
            metrics: Arc::default(),
            totals: Totals::default(),
        }
    }

    async fn run(mut self) -> Totals {
        let mut spans = self.faults.pick(1..5);
        let mut engine = self.start().await;
        let mut is_new = true;
        loop {
            spans -= 1;
            match self.span(&engine, is_new, spans == 0).await {
                Strike::Finished => break,
                Strike::Workers => {
                    self.totals.worker_crashes += 1;
                    is_new = false;
                }
                Strike::Process => {
                    self.totals.process_crashes += 1;
                    let store = Arc::downgrade(&engine.store);
                    drop(engine);
                    // A publish whose client has gone ends by itself, a retry that nobody can
                    // answer when its time is over.
                    while store.strong_count() > 0 {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    if self.faults.chance(20) {
                        self.totals.store_losses += 1;
                        std::fs::remove_dir_all(&self.store_dir).expect("the store is there");
                    }
                    engine = self.start().await;
                    is_new = true;
                }
            }
        }
        self.check_all(&engine).await;
        self.totals.posts = self.acknowledged.published.lock().unwrap().len() as u64;
        self.totals.deleted = self.acknowledged.deleted.lock().unwrap().len() as u64;
        self.totals.deleted_messages =
            self.acknowledged.deleted_messages.lock().unwrap().len() as u64;
        self.totals.reads = self.acknowledged.reads.load(Ordering::Relaxed);
        self.totals.repeated_requests = self.acknowledged.repeated_requests.load(Ordering::Relaxed);
        self.totals.switched = self.metrics.switched_authors.get();
        self.totals.resumed_fanouts = self.metrics.resumed_fanouts.get();
        self.totals.fingerprint = self.faults.pick(0..u64::MAX);
        self.totals
    }

    async fn start(&self) -> Engine {
        let settings = Settings {
            home_timeline_cap: CAP,
            post_cache_bytes: 4_096,
            blocking: Blocking::InPlace,
            ..Settings::default()
        };
        let store = EmbeddedStore::open(&self.store_dir, settings).expect("the store opens");
        let greatest = greatest_in(&self.log.all()).max(store.greatest_post().await.unwrap());
        let store = Arc::new(FaultyStore::new(store, self.faults.clone()));
        let progress = Arc::new(Progress::new(PARTITIONS));
        let clock = Arc::clone(&self.clock);
        let write_metrics = Arc::new(WriteMetrics::default());
        let settings =
            writes::Settings { metrics: Arc::clone(&write_metrics), ..Default::default() };
        let writes = Writes::new(
            Arc::clone(&self.log),
            Arc::clone(&store),
            Arc::clone(&progress),
            Memory::perfect(),
            Arc::new(PostIds::new(0, greatest)),
            // Runs backwards now and then.
            writes::Clock::new(move || clock.fetch_add(1, Ordering::Relaxed) ^ 3),
            settings,
        );
        let homes = Arc::new(HomeTimelines::new(Arc::clone(&store)));
        let other_node = Arc::new(PostIds::new(1, greatest));
        self.faults.forget_process();
        Engine { store, homes, progress, writes, write_metrics, other_node }
    }

    /// Lets workers and clients work until they are struck or, in the last span,
    /// until all is done and delivered.
    async fn span(&mut self, engine: &Engine, is_new: bool, last: bool) -> Strike {
        self.faults.rest();
        let mut tasks = JoinSet::new();
        let settings = fanout::Settings {
            replay_bytes_max: 8 << 20,
            batch_bytes_max: 1,
            slice_deliveries_max: self.faults.pick(1..6) as usize,
            fanout_posts_max: self.faults.pick(1..4) as usize,
            round_deliveries_max: self.faults.pick(1..12) as usize,
            cursor_posts_max: self.faults.pick(0..9) as usize,
            fanouts_max: self.faults.pick(1..5) as usize,
            // Not nothing: workers that have nothing to do would let no time pass.
            commit_interval: Duration::from_millis(self.faults.pick(0..3)).max(TICK),
            retry_delay: Duration::from_millis(1),
            pull_rule: PullRule { above: self.pulls.then(|| self.faults.pick(0..6)) },
            sweep: fanout::SweepSettings {
                deliveries_max: self.faults.pick(1..20) as u32,
                flush_deliveries_min: self.faults.pick(1..9) as usize,
                range_bits: self.faults.pick(0..3) as u32,
            },
        };
        let pool = WorkerPool::new(
            Arc::clone(&self.log),
            Arc::clone(&engine.store),
            Arc::clone(&engine.progress),
            Arc::clone(&self.metrics),
            settings,
        );
        tasks.spawn(async move {
            // It ends only with the runtime, or when an event is unreadable.
            pool.run(CancellationToken::new()).await.expect("all events are readable");
        });
        // At a start nobody is served before all that is acknowledged holds. New
        // workers of an old store bring nothing back that it has taken away.
        if is_new {
            let all_applied = async {
                engine.progress.wait_all_applied(&self.log.ends().await.unwrap()).await;
            };
            beside(&mut tasks, all_applied).await;
        }
        if self.faults.chance(40) {
            // What was lost is seen before newer posts bury it. Publishes that wait for the
            // workers, whose clients have gone, come to their end first.
            let no_publish = async {
                while engine.write_metrics.writes_in_flight_bytes.get() > 0 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            beside(&mut tasks, no_publish).await;
            beside(&mut tasks, self.all_delivered(engine)).await;
            beside(&mut tasks, self.check_all(engine)).await;
        }
        self.faults.fail([0, 0, 5, 30][self.faults.pick(0..4) as usize]);
        if !last {
            self.faults.crash_after(self.faults.pick(0..1_500));
        }
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let client = Client {
                number: client,
                pulls: self.pulls,
                faults: self.faults.clone(),
                acknowledged: Arc::clone(&self.acknowledged),
                log: Arc::clone(&self.log),
                writes: engine.writes.clone(),
                homes: Arc::clone(&engine.homes),
                store: Arc::clone(&engine.store),
                clock: Arc::clone(&self.clock),
                other_node: Arc::clone(&engine.other_node),
            };
            clients.spawn(async move { client.run().await });
        }
        let all_clients = async {
            while let Some(ended) = clients.join_next().await {
                ended.expect("a client's checks hold");
            }
        };
        let finished = beside(&mut tasks, async {
            tokio::select! {
                biased;
                () = self.faults.crashed() => false,
                () = all_clients => true,
            }
        });
        if finished.await && last {
            beside(&mut tasks, self.all_delivered(engine)).await;
            return Strike::Finished;
        }
        // What is under way ends here, wherever it is.
        clients.shutdown().await;
        tasks.shutdown().await;
        // Publishes go on when their clients have gone; struck, they end too.
        for _ in 0..PUBLISH_TURNS_MAX {
            tokio::task::yield_now().await;
        }
        if self.faults.chance(50) { Strike::Process } else { Strike::Workers }
    }

    /// Waits until all is delivered, with what workers themselves have added meanwhile.
    async fn all_delivered(&self, engine: &Engine) {
        let mut seen = Vec::new();
        loop {
            let ends = self.log.ends().await.unwrap();
            if ends == seen {
                break;
            }
            engine.progress.wait_all_delivered(&ends).await;
            seen = ends;
        }
    }

    async fn check_all(&mut self, engine: &Engine) {
        self.faults.rest();
        let model = Model::of(&self.log.all());
        self.totals.pulled += model.pulled.len() as u64;
        for (post, author) in &*self.acknowledged.published.lock().unwrap() {
            assert_eq!(model.authors.get(post), Some(author), "acknowledged post {post} is lost");
        }
        for (request, post) in &*self.acknowledged.requests.lock().unwrap() {
            assert_eq!(model.requests.get(request), Some(post), "request {request:?}");
        }
        for post in &*self.acknowledged.deleted.lock().unwrap() {
            assert!(!model.posts.contains_key(post), "acknowledged deletion of {post} is lost");
        }
        for (message, sender) in &*self.acknowledged.messages.lock().unwrap() {
            let found = model.messages.get(message).map(|message| message.sender);
            assert_eq!(found, Some(*sender), "acknowledged message {message} is lost");
        }
        for (request, message) in &*self.acknowledged.message_requests.lock().unwrap() {
            assert_eq!(model.message_requests.get(request), Some(message), "request {request:?}");
        }
        for message in &*self.acknowledged.deleted_messages.lock().unwrap() {
            let is_deleted = model.deleted_messages.contains(message);
            assert!(is_deleted, "acknowledged deletion of message {message} is lost");
        }
        for (what, acknowledged, holds) in [
            ("follow", &self.acknowledged.follows, &model.follows),
            ("mute", &self.acknowledged.mutes, &model.mutes),
            ("block", &self.acknowledged.blocks, &model.blocks),
        ] {
            for (pair, is_so) in &*acknowledged.lock().unwrap() {
                assert_eq!(holds.contains(pair), *is_so, "{what} {pair:?}");
            }
        }
        for user in USERS {
            let Some(reader) = engine.store.account(user).await.unwrap() else { continue };
            let marker = engine.store.read_marker(reader).await.unwrap();
            let expected = model.read_markers.get(&user).copied().unwrap_or(PostId(0));
            assert_eq!(marker, expected, "the read marker of {user}");
            let read = self.acknowledged.read_markers.lock().unwrap().get(&user).copied();
            assert!(read.is_none_or(|read| read <= marker), "{read:?} of {user} is lost");
        }
        for user in USERS {
            let told = inbox::notifications(&*engine.store, user, None, CAP).await.unwrap();
            let told: Vec<PostId> = told.entries.iter().map(|post| post.id).collect();
            assert_eq!(told, model.notifications(user, CAP), "what {user} is told of");
            self.totals.notified += told.len() as u64;
            for side in [MessageSide::Received, MessageSide::Sent] {
                let read = inbox::messages(&*engine.store, user, side, None, CAP).await.unwrap();
                let read: Vec<MessageId> = read.entries.iter().map(|message| message.id).collect();
                let expected = model.messages_of(user, side, CAP);
                assert_eq!(read, expected, "the messages of {user}, {side:?}");
                self.totals.messages += read.len() as u64;
            }
            // Twice: as delivered, and with page sizes of another kind.
            for _ in 0..2 {
                self.check_home(engine, &model, user).await;
            }
        }
        for post in model.authors.keys() {
            for kind in [ReferrerKind::Reply, ReferrerKind::Repost] {
                let found = engine.store.referrers(*post, kind, None, usize::MAX).await.unwrap();
                assert_eq!(found, model.referrers(*post, kind), "{kind:?} of {post}");
            }
        }
        for user in USERS {
            let read = engine.store.author_page(user, None, usize::MAX).await.unwrap();
            let mut expected: Vec<PostId> =
                model.posts.iter().filter(|(_, a)| **a == user).map(|(id, _)| *id).collect();
            expected.reverse();
            assert_eq!(read, expected, "the author timeline of {user}");
        }
    }

    /// Holds a home timeline against the model: with all reposts, and as it is shown.
    async fn check_home(&mut self, engine: &Engine, model: &Model, user: UserId) {
        let delivered = model.delivered(user);
        let oldest_ready = delivered.get(CAP - 1).copied();
        self.totals.capped_timelines += u64::from(delivered.len() > CAP);
        for all_reposts in [true, false] {
            let filter = Filter { all_reposts, ..Filter::default() };
            let (read, floors) = self.read_all(engine, user, &filter).await;
            let expected = model.home(user, all_reposts);
            assert_eq!(read, expected, "the home timeline of {user}, {filter:?}");
            self.totals.hidden += (delivered.len() - read.len()) as u64;
            let last = floors.len() - 1;
            for (place, (before, floor)) in floors.into_iter().enumerate() {
                let is_below = before.is_some_and(|before| Some(before) <= oldest_ready);
                let is_true = match floor {
                    // What is pulled makes no room for itself in what is held ready.
                    Floor::Cap(oldest) if model.were_pulled => Some(oldest) <= oldest_ready,
                    Floor::Beginning if model.were_pulled => true,
                    // More than is true may not be claimed, less may.
                    Floor::Cap(oldest) => !is_below && Some(oldest) == oldest_ready,
                    Floor::Beginning => is_below || place == last || delivered.len() <= CAP,
                    Floor::Followees(_) => false,
                };
                assert!(
                    is_true,
                    "{floor:?} below {before:?} of the home timeline of {user}: {delivered:?}"
                );
            }
        }
    }

    /// All pages of a home timeline, and the floor of each, with what it was to be older than.
    async fn read_all(
        &self,
        engine: &Engine,
        user: UserId,
        filter: &Filter,
    ) -> (Vec<PostId>, Vec<(Option<PostId>, Floor)>) {
        let (mut ids, mut floors, mut before) = (Vec::new(), Vec::new(), None);
        loop {
            let count_max = self.faults.pick(1..CAP as u64 + 2) as usize;
            let page = engine.homes.read(user, filter, before, count_max).await;
            let page = page.unwrap();
            floors.push((before, page.floor));
            ids.extend(page.ids);
            let Some(next) = page.next else { return (ids, floors) };
            assert!(before.is_none_or(|before| next < before), "pages go on");
            before = Some(next);
        }
    }
}
