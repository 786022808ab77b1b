//! One run: an engine, its clients, and what strikes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use roost::{
    domain::{Event, Origin, Post, PostId, UserId},
    event_log::{EventLog, codec, partition_of},
    fanout::{self, Progress, WorkerPool},
    home_timeline::{Filter, HomeTimelines},
    post_id::PostIds,
    store::{
        Accounts, Floor, Lookups,
        embedded::{Blocking, EmbeddedStore, Settings},
    },
    telemetry::FanoutMetrics,
    writes::{self, Draft, Memory, Writes},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    faults::{Faults, FaultyStore, greatest_in},
    log::SimLog,
    model::Model,
    mutation::Mutation,
};

/// The least time that passes.
const TICK: Duration = Duration::from_nanos(1);
const CAP: usize = 6;
const USERS: u64 = 8;
const CLIENTS: u64 = 3;
pub const PARTITIONS: u32 = 3;
/// Authors who write as much as all others together, and have most followers.
const POPULAR: u64 = 2;

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
    /// Posts that are not shown, since their authors are hidden.
    pub hidden: u64,
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
        self.fingerprint ^= other.fingerprint;
    }
}

/// What clients were told, as far as it binds the engine.
#[derive(Default)]
struct Told {
    /// Acknowledged posts.
    published: Mutex<BTreeMap<PostId, UserId>>,
    /// Acknowledged posts by their request.
    requests: Mutex<BTreeMap<(UserId, String), PostId>>,
    /// Posts whose deletion holds in every read.
    deleted: Mutex<BTreeSet<PostId>>,
    /// Follower and followee: whether the follow holds in every read, while no
    /// change of it is under way.
    follows: Mutex<BTreeMap<(UserId, UserId), bool>>,
    /// Muter and muted, likewise.
    mutes: Mutex<BTreeMap<(UserId, UserId), bool>>,
    /// Blocker and blocked, likewise.
    blocks: Mutex<BTreeMap<(UserId, UserId), bool>>,
    /// How far readers have read, at least.
    read_markers: Mutex<BTreeMap<UserId, PostId>>,
    next_request: AtomicU64,
    reads: AtomicU64,
    repeated_requests: AtomicU64,
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
    log: Arc<SimLog>,
    told: Arc<Told>,
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
            faults,
            told: Arc::default(),
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
        self.totals.posts = self.told.published.lock().unwrap().len() as u64;
        self.totals.deleted = self.told.deleted.lock().unwrap().len() as u64;
        self.totals.reads = self.told.reads.load(Ordering::Relaxed);
        self.totals.repeated_requests = self.told.repeated_requests.load(Ordering::Relaxed);
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
        let writes = Writes::new(
            Arc::clone(&self.log),
            Arc::clone(&store),
            Arc::clone(&progress),
            Memory::perfect(),
            Arc::new(PostIds::new(0, greatest)),
            // Runs backwards now and then.
            Arc::new(move || clock.fetch_add(1, Ordering::Relaxed) ^ 3),
            writes::Settings::default(),
        );
        let homes = Arc::new(HomeTimelines::new(Arc::clone(&store)));
        let other_node = Arc::new(PostIds::new(1, greatest));
        self.faults.forget_process();
        Engine { store, homes, progress, writes, other_node }
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
                for partition in 0..PARTITIONS {
                    let end = self.log.end(partition).await.unwrap();
                    engine.progress.wait_applied(partition, end).await;
                }
            };
            beside(&mut tasks, all_applied).await;
        }
        if self.faults.chance(40) {
            // What was lost is seen before newer posts bury it.
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
                faults: self.faults.clone(),
                told: Arc::clone(&self.told),
                log: Arc::clone(&self.log),
                writes: engine.writes.clone(),
                homes: Arc::clone(&engine.homes),
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

    async fn all_delivered(&self, engine: &Engine) {
        for partition in 0..PARTITIONS {
            let end = self.log.end(partition).await.unwrap();
            engine.progress.wait_delivered(partition, end).await;
        }
    }

    async fn check_all(&mut self, engine: &Engine) {
        self.faults.rest();
        let model = Model::of(&self.log.all());
        for (post, author) in &*self.told.published.lock().unwrap() {
            assert_eq!(model.authors.get(post), Some(author), "acknowledged post {post} is lost");
        }
        for (request, post) in &*self.told.requests.lock().unwrap() {
            assert_eq!(model.requests.get(request), Some(post), "request {request:?}");
        }
        for post in &*self.told.deleted.lock().unwrap() {
            assert!(!model.posts.contains_key(post), "acknowledged deletion of {post} is lost");
        }
        for (what, told, holds) in [
            ("follow", &self.told.follows, &model.follows),
            ("mute", &self.told.mutes, &model.mutes),
            ("block", &self.told.blocks, &model.blocks),
        ] {
            for (pair, told) in &*told.lock().unwrap() {
                assert_eq!(holds.contains(pair), *told, "{what} {pair:?}");
            }
        }
        for user in (1..=USERS).map(UserId) {
            let Some(reader) = engine.store.account(user).await.unwrap() else { continue };
            let marker = engine.store.read_marker(reader).await.unwrap();
            let expected = model.read_markers.get(&user).copied().unwrap_or(PostId(0));
            assert_eq!(marker, expected, "the read marker of {user}");
            let told = self.told.read_markers.lock().unwrap().get(&user).copied();
            assert!(told.is_none_or(|told| told <= marker), "{told:?} of {user} is lost");
        }
        // Twice: as delivered, and with page sizes of another kind.
        for _ in 0..2 {
            for user in (1..=USERS).map(UserId) {
                let (read, floors) = self.read_all(engine, user).await;
                assert_eq!(read, model.home(user), "the home timeline of {user}");
                let delivered = model.delivered(user);
                self.totals.capped_timelines += u64::from(delivered.len() > CAP);
                self.totals.hidden += (delivered.len() - read.len()) as u64;
                let oldest_ready = delivered.get(CAP - 1).copied();
                let last = floors.len() - 1;
                for (place, (before, floor)) in floors.into_iter().enumerate() {
                    let is_below = before.is_some_and(|before| Some(before) <= oldest_ready);
                    let is_true = match floor {
                        // More than is true may not be claimed, less may.
                        Floor::Cap(oldest) => !is_below && Some(oldest) == oldest_ready,
                        Floor::Beginning => is_below || place == last || delivered.len() <= CAP,
                        Floor::Followees(_) => false,
                    };
                    assert!(is_true, "{floor:?} below {before:?} of {delivered:?} of {user}");
                }
            }
        }
        for user in (1..=USERS).map(UserId) {
            let read = engine.store.author_page(user, None, usize::MAX).await.unwrap();
            let mut expected: Vec<PostId> =
                model.posts.iter().filter(|(_, a)| **a == user).map(|(id, _)| *id).collect();
            expected.reverse();
            assert_eq!(read, expected, "the author timeline of {user}");
        }
    }

    /// All pages of a home timeline, and the floor of each, with what it was to be older than.
    async fn read_all(
        &self,
        engine: &Engine,
        user: UserId,
    ) -> (Vec<PostId>, Vec<(Option<PostId>, Floor)>) {
        let (mut ids, mut floors, mut before) = (Vec::new(), Vec::new(), None);
        loop {
            let count_max = self.faults.pick(1..CAP as u64 + 2) as usize;
            let page = engine.homes.read(user, &Filter::default(), before, count_max).await;
            let page = page.unwrap();
            floors.push((before, page.floor));
            ids.extend(page.ids);
            let Some(next) = page.next else { return (ids, floors) };
            assert!(before.is_none_or(|before| next < before), "pages go on");
            before = Some(next);
        }
    }
}

struct Client {
    number: u64,
    faults: Faults,
    told: Arc<Told>,
    log: Arc<SimLog>,
    writes: Writes<SimLog, FaultyStore>,
    homes: Arc<HomeTimelines<FaultyStore>>,
    clock: Arc<AtomicU64>,
    other_node: Arc<PostIds>,
}

impl Client {
    async fn run(self) {
        for _ in 0..self.faults.pick(5..30) {
            match self.faults.pick(0..100) {
                0..25 => self.publish(self.author()).await,
                25..32 => self.delete().await,
                32..45 => self.change_follow(self.author(), true).await,
                45..52 => self.change_follow(self.author(), false).await,
                52..55 => self.import().await,
                55..64 => self.change_all_at_once().await,
                64..67 => self.repeat_a_request_elsewhere().await,
                67..72 => self.change_hide().await,
                72..75 => self.move_read_marker().await,
                _ => self.read().await,
            }
        }
    }

    fn user(&self) -> UserId {
        UserId(self.faults.pick(1..USERS + 1))
    }

    fn author(&self) -> UserId {
        let users = if self.faults.chance(50) { POPULAR } else { USERS };
        UserId(self.faults.pick(1..users + 1))
    }

    /// What one author's followers see changes in every way, in any order.
    async fn change_all_at_once(&self) {
        let author = self.author();
        let follow = self.faults.chance(30);
        tokio::join!(
            self.publish(author),
            self.delete(),
            self.change_follow(author, follow),
            self.delete(),
        );
    }

    /// A request that was acknowledged comes again by way of another node, which
    /// does not know of it yet.
    async fn repeat_a_request_elsewhere(&self) {
        let (author, request_id) = {
            let requests = self.told.requests.lock().unwrap();
            let Some(request) = self.pick_one(requests.keys()) else { return };
            request.clone()
        };
        let post = Post {
            id: self.other_node.next(self.clock.load(Ordering::Relaxed)).unwrap(),
            author,
            text: "tweet".to_owned(),
            origin: Origin::Shared,
            link: None,
            reply_to: None,
            repost_of: None,
        };
        let event = Event::PostPublished { post, request_id: Some(request_id) };
        let partition = partition_of(author, PARTITIONS);
        if self.log.append(partition, vec![codec::encode(&event)]).await.is_ok() {
            self.told.repeated_requests.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Mostly one of the last.
    fn pick_one<T>(&self, mut items: impl ExactSizeIterator<Item = T>) -> Option<T> {
        let len = items.len();
        let candidates = if self.faults.chance(60) { len.min(4) } else { len };
        let place = len.checked_sub(1)? - self.faults.pick(0..candidates as u64) as usize;
        items.nth(place)
    }

    async fn publish(&self, author: UserId) {
        let count = self.faults.pick(1..4);
        let drafts: Vec<Draft> = (0..count).map(|_| self.draft(author)).collect();
        let named: Vec<_> =
            drafts.iter().map(|draft| (draft.author, draft.request_id.clone())).collect();
        let results = self.writes.publish(drafts).await;
        for ((author, request_id), result) in named.into_iter().zip(results) {
            let Ok(post) = result else { continue };
            self.told.published.lock().unwrap().insert(post, author);
            if let Some(request_id) = request_id {
                let mut requests = self.told.requests.lock().unwrap();
                let first = *requests.entry((author, request_id)).or_insert(post);
                assert_eq!(first, post, "one request made two posts");
            }
        }
    }

    fn draft(&self, author: UserId) -> Draft {
        let author = if self.faults.chance(70) { author } else { self.author() };
        let request_id = match self.faults.pick(0..10) {
            0..5 => None,
            5..8 => Some(self.told.next_request.fetch_add(1, Ordering::Relaxed)),
            // A repetition, perhaps of one that is under way.
            _ => Some(self.faults.pick(0..20)),
        };
        Draft {
            author,
            text: "tweet".to_owned(),
            origin: Origin::Shared,
            link: None,
            reply_to: None,
            repost_of: None,
            request_id: request_id.map(|number| number.to_string()),
            is_retry: self.faults.chance(20),
        }
    }

    async fn delete(&self) {
        let post = {
            let published = self.told.published.lock().unwrap();
            let Some(post) = self.pick_one(published.keys()) else { return };
            *post
        };
        if let Ok(true) = self.writes.delete(post).await {
            self.told.deleted.lock().unwrap().insert(post);
        }
    }

    /// Each client changes the follows of its own readers, so that it knows in
    /// which order it asked.
    async fn change_follow(&self, followee: UserId, follow: bool) {
        let follower = self.user();
        if follower == followee || follower.0 % CLIENTS != self.number {
            return;
        }
        let pair = (follower, followee);
        self.told.follows.lock().unwrap().remove(&pair);
        let result = if follow {
            self.writes.follow(follower, followee).await
        } else {
            self.writes.unfollow(follower, followee).await
        };
        if let Ok(true) = result {
            self.told.follows.lock().unwrap().insert(pair, follow);
        }
    }

    /// As with follows, those of its own readers.
    async fn change_hide(&self) {
        let (reader, other, hides) = (self.user(), self.author(), self.faults.chance(60));
        if reader == other || reader.0 % CLIENTS != self.number {
            return;
        }
        let pair = (reader, other);
        let (told, result) = if self.faults.chance(50) {
            self.told.mutes.lock().unwrap().remove(&pair);
            (&self.told.mutes, self.writes.mute(reader, other, hides).await)
        } else {
            self.told.blocks.lock().unwrap().remove(&pair);
            (&self.told.blocks, self.writes.block(reader, other, hides).await)
        };
        if let Ok(true) = result {
            told.lock().unwrap().insert(pair, hides);
        }
    }

    async fn move_read_marker(&self) {
        let reader = self.user();
        let page = self.homes.read(reader, &Filter::default(), None, CAP).await;
        let Some(post) = page.ok().and_then(|page| self.pick_one(page.ids.into_iter())) else {
            return;
        };
        if let Ok(true) = self.writes.move_read_marker(reader, post).await {
            let mut told = self.told.read_markers.lock().unwrap();
            let marker = told.entry(reader).or_insert(post);
            *marker = post.max(*marker);
        }
    }

    async fn import(&self) {
        let followee = self.author();
        let followers: Vec<UserId> = (1..=USERS)
            .map(UserId)
            .filter(|user| *user != followee && user.0 % CLIENTS == self.number)
            .collect();
        for follower in &followers {
            self.told.follows.lock().unwrap().remove(&(*follower, followee));
        }
        // Durable, but not yet applied: it binds nothing but the end.
        let _ = self.writes.import(vec![(followee, followers)]).await;
    }

    async fn read(&self) {
        let reader = self.user();
        let deleted = self.told.deleted.lock().unwrap().clone();
        let all_told = || {
            let Told { follows, mutes, blocks, .. } = &*self.told;
            [follows, mutes, blocks].map(|told| told.lock().unwrap().clone())
        };
        let [follows, mutes, blocks] = all_told();
        let count_max = self.faults.pick(1..CAP as u64 + 2) as usize;
        let page = self.homes.read(reader, &Filter::default(), None, count_max).await;
        let Ok(page) = page else { return };
        self.told.reads.fetch_add(1, Ordering::Relaxed);
        let [follows_then, mutes_then, blocks_then] = all_told();
        let model = Model::of(&self.log.all());
        assert!(page.ids.is_sorted_by(|newer, older| newer > older), "the order of {page:?}");
        for id in page.ids {
            assert!(!deleted.contains(&id), "{id} is deleted, and {reader} sees it");
            let author = model.authors[&id];
            let (pair, turned) = ((reader, author), (author, reader));
            // Told before the read, and after it.
            let is = |told: &BTreeMap<_, bool>, then: &BTreeMap<_, bool>, pair, value| {
                told.get(pair) == Some(&value) && then.get(pair) == Some(&value)
            };
            let unfollowed = is(&follows, &follows_then, &pair, false);
            assert!(!unfollowed, "{reader} does not follow {author}, and sees {id}");
            let hidden = is(&mutes, &mutes_then, &pair, true)
                || is(&blocks, &blocks_then, &pair, true)
                || is(&blocks, &blocks_then, &turned, true);
            assert!(!hidden, "{reader} hides {author}, and sees {id}");
        }
    }
}
