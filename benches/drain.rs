//! How fast a backlog in the log becomes timelines: the embedded log and store,
//! the workers on two threads, every reader awake. Beside it, in the same run, the
//! ceiling: the same deliveries written into plain arrays in memory.
//!
//! ```text
//! cargo bench --bench drain
//! ```
//!
//! The throughput is deliveries a second. Every iteration drains new posts into
//! timelines that the ones before have filled to their cap.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use roost::{
    domain::{Event, Origin, Post, PostId, UserId},
    event_log::{
        EventLog, codec,
        embedded::{self, EmbeddedLog},
        partition_of,
    },
    fanout::{self, Progress, WorkerPool},
    home_timeline::{Filter, HomeTimelines},
    load::Population,
    post_id::PostIds,
    store::{
        Lookups,
        embedded::{EmbeddedStore, Settings},
    },
    telemetry::FanoutMetrics,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// The one that Roost runs with.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PARTITIONS: u32 = 4;
const THREADS: usize = 2;
const CAP: usize = 800;

/// What one case drains.
struct Case {
    /// Says which authors post; how many followers they have on average is printed.
    name: &'static str,
    users: u32,
    /// Authors have at least so many followers.
    followers_min: usize,
    posts: usize,
}

struct Bench {
    runtime: Runtime,
    log: Arc<EmbeddedLog>,
    store: Arc<EmbeddedStore>,
    progress: Arc<Progress>,
    metrics: Arc<FanoutMetrics>,
    ids: PostIds,
    rng: StdRng,
    /// Who posts, and the places of the author and its followers.
    authors: Vec<(UserId, Vec<u32>)>,
    users: u32,
    _dir: TempDir,
}

impl Bench {
    fn new(case: &Case) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .enable_time()
            .build()
            .expect("a runtime");
        let dir = tempfile::tempdir().expect("a directory");
        let log_settings =
            embedded::Settings { partitions: Some(PARTITIONS), ..embedded::Settings::default() };
        let log = EmbeddedLog::open(&dir.path().join("log"), log_settings).expect("a log");
        let settings = Settings { home_timeline_cap: CAP, ..Settings::default() };
        let store = EmbeddedStore::open(&dir.path().join("store"), settings).expect("a store");
        let mut bench = Self {
            runtime,
            log: Arc::new(log),
            store: Arc::new(store),
            progress: Arc::new(Progress::new(PARTITIONS)),
            metrics: Arc::default(),
            ids: PostIds::new(0, None),
            rng: StdRng::seed_from_u64(1),
            authors: Vec::new(),
            users: case.users,
            _dir: dir,
        };
        bench.follow(case);
        bench.wake();
        bench
    }

    fn follow(&mut self, case: &Case) {
        let population = Population::new(1, case.users);
        let mut events = Vec::new();
        for followee in (1..=u64::from(case.users)).map(UserId) {
            let followers = population.followers_of(followee);
            if followers.len() >= case.followers_min {
                let places =
                    followers.iter().chain([&followee]).map(|user| user.0 as u32).collect();
                self.authors.push((followee, places));
            }
            events.push(Event::Followed { followee, followers });
        }
        self.append(&events);
        self.drain();
    }

    fn wake(&self) {
        let homes = HomeTimelines::new(Arc::clone(&self.store));
        let everything = Filter::default();
        self.runtime.block_on(async {
            for user in 1..=u64::from(self.users) {
                homes.read(UserId(user), &everything, None, 1).await.expect("a page");
            }
        });
    }

    /// Appends posts and returns their authors, by place in `authors`.
    fn publish(&mut self, count: usize) -> Vec<usize> {
        let authors: Vec<usize> =
            (0..count).map(|_| self.rng.random_range(0..self.authors.len())).collect();
        let events: Vec<Event> = authors
            .iter()
            .map(|author| Event::PostPublished {
                post: Post {
                    id: self.ids.next(PostId::EPOCH_UNIX_MS + 1, false).expect("an id"),
                    author: self.authors[*author].0,
                    text: "x".repeat(140),
                    origin: Origin::Shared,
                    link: None,
                    reply_to: None,
                    repost_of: None,
                    mentions: Vec::new(),
                },
                request_id: None,
            })
            .collect();
        self.append(&events);
        authors
    }

    fn append(&self, events: &[Event]) {
        let mut by_partition = vec![Vec::new(); PARTITIONS as usize];
        for event in events {
            let partition = partition_of(event.key(), PARTITIONS);
            by_partition[partition as usize].push(codec::encode(event));
        }
        self.runtime.block_on(async {
            for (partition, payloads) in (0..).zip(by_partition) {
                for payloads in payloads.chunks(500) {
                    self.log.append(partition, payloads.to_vec()).await.expect("an append");
                }
            }
        });
    }

    /// Lets the workers deliver everything that is in the log.
    fn drain(&self) -> Duration {
        let stop = CancellationToken::new();
        let start = Instant::now();
        self.runtime.block_on(async {
            let pool = WorkerPool::new(
                Arc::clone(&self.log),
                Arc::clone(&self.store),
                Arc::clone(&self.progress),
                Arc::clone(&self.metrics),
                fanout::Settings::default(),
            );
            let workers = tokio::spawn(pool.run(stop.clone()));
            let ends = self.log.ends().await.expect("the ends");
            self.progress.wait_all_delivered(&ends).await;
            let elapsed = start.elapsed();
            stop.cancel();
            workers.await.expect("no panic").expect("no error");
            elapsed
        })
    }
}

/// The same deliveries, each an id written into the reader's array.
fn write_arrays(timelines: &mut [[u64; CAP]], ends: &mut [u32], bench: &Bench, posts: &[usize]) {
    for (id, author) in (1..).zip(posts) {
        for place in &bench.authors[*author].1 {
            let place = *place as usize;
            timelines[place][ends[place] as usize % CAP] = id;
            ends[place] = ends[place].wrapping_add(1);
        }
    }
}

fn drain(criterion: &mut Criterion) {
    // A smoke run shows that it works, with a population to match.
    let arguments: Vec<String> = std::env::args().collect();
    let smoke = !arguments.iter().any(|argument| argument == "--bench")
        || arguments.iter().any(|argument| argument == "--test");
    let size = |full: u32| if smoke { full.min(1_000) } else { full };
    let cases = [
        Case {
            name: "every author",
            users: size(100_000),
            followers_min: 0,
            posts: size(20_000) as usize,
        },
        Case {
            name: "authors of 115 followers or more",
            users: size(100_000),
            followers_min: 115,
            posts: size(10_000) as usize,
        },
    ];
    for case in cases {
        let mut bench = Bench::new(&case);
        let probe = bench.publish(case.posts);
        let deliveries: usize = probe.iter().map(|author| bench.authors[*author].1.len()).sum();
        bench.drain();
        let mut group = criterion.benchmark_group("drain");
        group.sample_size(10).throughput(Throughput::Elements(deliveries as u64));
        group.bench_function(BenchmarkId::new("roost", case.name), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut elapsed = Duration::ZERO;
                for _ in 0..iterations {
                    let authors = bench.publish(case.posts);
                    let drained: usize =
                        authors.iter().map(|author| bench.authors[*author].1.len()).sum();
                    // Authors are drawn anew, so deliveries vary a little.
                    elapsed += bench.drain().mul_f64(deliveries as f64 / drained as f64);
                }
                elapsed
            });
        });
        let mut timelines = vec![[0; CAP]; case.users as usize + 1];
        let mut ends = vec![0; timelines.len()];
        group.bench_function(BenchmarkId::new("ceiling", case.name), |bencher| {
            bencher.iter(|| write_arrays(&mut timelines, &mut ends, &bench, &probe));
        });
        group.finish();
        let size = bench.runtime.block_on(bench.store.size()).expect("the size");
        println!(
            "{}: {} follows, {} deliveries an iteration, {:.0} followers a post",
            case.name,
            size.follows,
            deliveries,
            deliveries as f64 / case.posts as f64,
        );
        println!(
            "{}: {} live timelines, {} entries, {:.2} bytes an entry with all overheads",
            case.name,
            size.live_timelines,
            size.timeline_entries,
            size.timeline_bytes as f64 / size.timeline_entries as f64,
        );
    }
}

criterion_group!(benches, drain);
criterion_main!(benches);
