//! The pure parts of delivering and reading, and the embedded store, each on its own.
//!
//! ```text
//! cargo bench --bench parts              figures
//! cargo bench --bench parts -- --test    runs everything once
//! ```
//!
//! Every input is made from a fixed seed. A figure is the time for one of what is named,
//! as elements a second.

use std::collections::HashSet;
use std::{collections::BTreeMap, hint::black_box};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use roost::{
    domain::{Event, Origin, Post, PostId, UserId},
    fanout::{combine, plan::plan},
    home_timeline::merge::Merge,
    proto::v1::{Floor, FloorReason, ListHomeTimelineResponse},
    store::{
        Accounts, Homes, Ledger, NewestPosts, Pushes,
        embedded::{EmbeddedStore, Settings},
        redis::resp::{HomeKey, Reply, pack_push, scan},
    },
};
use tokio::runtime::Runtime;

/// The one that Roost runs with.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SEED: u64 = 1;
/// The deliveries that are combined at once.
const ROUND: usize = 131_072;
const READERS: u64 = 20_000;
const CAP: usize = 800;

fn random() -> StdRng {
    StdRng::seed_from_u64(SEED)
}

/// The `number`-th id, a millisecond after the one before.
fn id(number: u64) -> PostId {
    PostId((1 << 58) + (number << PostId::NODE_AND_SEQUENCE_BITS))
}

fn post(number: u64, author: u64) -> Event {
    let post = Post {
        id: id(number),
        author: UserId(author),
        text: "x".repeat(140),
        origin: Origin::Shared,
        link: None,
        reply_to: None,
        repost_of: None,
        mentions: Vec::new(),
    };
    Event::PostPublished { post, request_id: None }
}

/// The deliveries of a round: posts in their order, each to readers of its own.
fn deliveries() -> Vec<(UserId, PostId)> {
    let mut random = random();
    let readers_each = 400;
    let posts = 0..(ROUND / readers_each) as u64;
    posts
        .flat_map(|number| {
            let mut readers: Vec<u64> =
                (0..readers_each).map(|_| random.random_range(1..=READERS)).collect();
            readers.sort_unstable();
            readers.dedup();
            readers.into_iter().map(move |reader| (UserId(reader), id(number)))
        })
        .collect()
}

fn delivering(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deliver");
    let mut random = random();
    let events: Vec<Event> =
        (0..5_000).map(|number| post(number, random.random_range(1..=1_000))).collect();
    group.throughput(Throughput::Elements(events.len() as u64));
    group.bench_function("plan an event", |bencher| {
        bencher.iter(|| black_box(plan(0, &events, &[], &HashSet::new())));
    });
    let deliveries = deliveries();
    group.throughput(Throughput::Elements(deliveries.len() as u64));
    group.bench_function("combine a delivery", |bencher| {
        bencher.iter_batched(|| deliveries.clone(), combine, BatchSize::LargeInput);
    });
    let pushes = combine(deliveries.clone());
    group.bench_function("pack a delivery", |bencher| {
        let mut out = Vec::new();
        bencher.iter(|| {
            out.clear();
            for (reader, ids) in pushes.iter() {
                pack_push(&mut out, &HomeKey::of(reader), ids);
            }
            black_box(&out);
        });
    });
    let replies: Vec<u8> = (0..pushes.len())
        .flat_map(|length| format!(":{}\r\n", length % 880).into_bytes())
        .collect();
    group.throughput(Throughput::Elements(pushes.len() as u64));
    group.bench_function("scan a reply", |bencher| {
        bencher.iter(|| {
            let (mut at, mut sum) = (0, 0);
            while let Ok(Some((Reply::Integer(length), len))) = scan(&replies[at..]) {
                sum += length;
                at += len;
            }
            black_box(sum);
        });
    });
    group.finish();
}

fn reading(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    let mut random = random();
    let mut by_author = BTreeMap::<u64, Vec<PostId>>::new();
    for number in 0..10_000 {
        by_author.entry(random.random_range(0..70)).or_default().push(id(number));
    }
    let (authors, timelines): (Vec<u64>, Vec<NewestPosts>) = by_author
        .into_iter()
        .map(|(author, ids)| (author, NewestPosts { ids, floor: None }))
        .unzip();
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("merge an id of 70 authors", |bencher| {
        bencher.iter_batched(
            || timelines.clone(),
            |timelines| {
                let mut merge = Merge::new(CAP + CAP / 10);
                merge.add(&authors, timelines);
                black_box(merge.finish())
            },
            BatchSize::SmallInput,
        );
    });
    for count in [20, 100] {
        let page = ListHomeTimelineResponse {
            post_ids: (0..count).rev().map(|number| id(number).0).collect(),
            posts: Vec::new(),
            next_page_token: "x".repeat(30),
            floor: Some(Floor { complete_down_to_id: id(0).0, reason: FloorReason::Cap.into() }),
        };
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("encode a page of {count} ids"), |bencher| {
            bencher.iter(|| black_box(page.encode_to_vec()));
        });
    }
    group.finish();
}

/// A store in which these readers have full timelines.
fn full_store(runtime: &Runtime, dir: &std::path::Path) -> (EmbeddedStore, Vec<u32>) {
    let store = EmbeddedStore::open(dir, Settings::default()).unwrap();
    let accounts = runtime.block_on(async {
        let followers: Vec<UserId> = (1..=READERS).map(UserId).collect();
        let followed = Event::Followed { followee: UserId(READERS + 1), followers };
        let events = vec![followed];
        store.apply(0, 0, events.into()).await.unwrap();
        let readers: Vec<UserId> = (1..=READERS).map(UserId).collect();
        let accounts = store.accounts(&readers).await.unwrap();
        let accounts: Vec<u32> = accounts.into_iter().flatten().collect();
        for account in &accounts {
            let ticket = store.begin_rebuild(*account).await.unwrap();
            let ids = (0..store.entries_max() as u64).map(id).collect();
            let full = NewestPosts { ids, floor: Some(PostId(1)) };
            assert!(store.finish_rebuild(*account, ticket, full).await.unwrap());
        }
        accounts
    });
    (store, accounts)
}

fn embedded_store(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (store, accounts) = full_store(&runtime, dir.path());
    let mut group = criterion.benchmark_group("embedded store");
    let mut next = 100_000;
    let mut round = || -> Pushes<u32> {
        next += 1_000;
        let deliveries = deliveries().into_iter();
        combine(
            deliveries
                .map(|(reader, post)| {
                    (accounts[reader.0 as usize - 1], PostId(post.0 + (next << 22)))
                })
                .collect(),
        )
    };
    group.throughput(Throughput::Elements(deliveries().len() as u64));
    group.bench_function("push a delivery", |bencher| {
        bencher.iter_batched(
            &mut round,
            |pushes| black_box(runtime.block_on(store.push(&pushes))).unwrap(),
            BatchSize::LargeInput,
        );
    });
    let mut random = random();
    for count in [20, 100] {
        group.throughput(Throughput::Elements(1_000));
        group.bench_function(format!("read a page of {count}"), |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    for _ in 0..1_000 {
                        let account = accounts[random.random_range(0..accounts.len())];
                        black_box(store.page(account, None, count).await.unwrap());
                    }
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, delivering, reading, embedded_store);
criterion_main!(benches);
