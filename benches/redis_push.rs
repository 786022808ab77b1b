//! The CPU that a push costs its client, beside the redis crate's pipelines.
//!
//! ```text
//! ROOST_TEST_REDIS=redis://127.0.0.1:6379 cargo bench --bench redis_push
//! ROOST_TEST_REDIS_CLUSTER=redis://…,redis://…                    a Cluster too
//! … -- --test                                                     everything once
//! ```
//!
//! What is measured is the CPU time of this process, not the time that passes: user
//! and system, with the network stack's part in it. Without a server only packing
//! and scanning are measured.

use std::{env, hint::black_box, time::Duration};

use cpu_time::ProcessTime;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use redis::aio::MultiplexedConnection;
use roost::{
    domain::{PostId, UserId},
    fanout::combine,
    store::{
        Pushes,
        redis::{
            config::RedisConfig,
            node::ConnectionName,
            push::{PushSettings, Pusher},
            resp::{HomeKey, Reply, pack_push, scan},
            slots::home_slot,
        },
    },
};
use tokio::runtime::Builder;

/// How many readers a call pushes to.
const READERS: u64 = 50_000;
const FIRST_READER: u64 = 3_000_000_000;
/// How many commands the rival's pipelines have: the best of 100 to 50,000.
const RIVAL_PIPELINE: usize = 1_000;

/// Nobody is awake, so that the lists do not grow: the commands and the size of
/// the replies are the same.
fn pushes(ids_each: u64) -> Pushes<UserId> {
    let readers = FIRST_READER..FIRST_READER + READERS;
    let deliveries = readers
        .flat_map(|reader| (0..ids_each).map(move |id| (UserId(reader), PostId(1_u64 << 60 | id))));
    combine(deliveries.collect())
}

fn bytes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("without a server");
    group.throughput(Throughput::Elements(READERS));
    let pushes = pushes(1);
    let mut out = Vec::new();
    group.bench_function("pack a push", |bencher| {
        bencher.iter_custom(|calls| {
            cpu_of(calls, || {
                out.clear();
                for (reader, ids) in pushes.iter() {
                    pack_push(&mut out, &HomeKey::of(reader), ids);
                }
                black_box(&out);
            })
        });
    });
    group.bench_function("find its slot", |bencher| {
        bencher.iter_custom(|calls| {
            cpu_of(calls, || {
                let slots = pushes.iter().map(|(reader, _)| home_slot(&HomeKey::of(reader)));
                black_box(slots.max());
            })
        });
    });
    let replies: Vec<u8> =
        (0..READERS).flat_map(|n| format!(":{}\r\n", n % 880).into_bytes()).collect();
    group.bench_function("scan its reply", |bencher| {
        bencher.iter_custom(|calls| {
            cpu_of(calls, || {
                let (mut at, mut sum) = (0, 0);
                while let Ok(Some((Reply::Integer(length), len))) = scan(&replies[at..]) {
                    sum += length;
                    at += len;
                }
                black_box(sum);
            })
        });
    });
    group.finish();
}

/// What calls cost this process.
fn cpu_of(calls: u64, mut call: impl FnMut()) -> Duration {
    let begin = ProcessTime::now();
    (0..calls).for_each(|_| call());
    begin.elapsed()
}

fn against_a_server(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    for (name, variable) in
        [("standalone", "ROOST_TEST_REDIS"), ("Cluster", "ROOST_TEST_REDIS_CLUSTER")]
    {
        let Ok(urls) = env::var(variable) else {
            println!("skipped: {variable} is not set");
            continue;
        };
        let config = RedisConfig::from_urls(&urls, None).unwrap().into();
        let pusher = Pusher::new(config, PushSettings::new(ConnectionName::new("bench", 1), 880));
        for ids_each in [1, 4] {
            let mut group =
                criterion.benchmark_group(format!("CPU, {name}, {ids_each} ids a push"));
            group.throughput(Throughput::Elements(READERS)).sample_size(20);
            let pushes = pushes(ids_each);
            group.bench_function("roost", |bencher| {
                bencher.iter_custom(|calls| {
                    cpu_of(calls, || {
                        let report = runtime.block_on(pusher.push(&pushes)).unwrap();
                        assert_eq!(report.outcome.skipped, READERS * ids_each);
                    })
                });
            });
            if name == "standalone" {
                let client = redis::Client::open(urls.as_str()).unwrap();
                let connection =
                    runtime.block_on(client.get_multiplexed_async_connection()).unwrap();
                group.bench_function("redis crate", |bencher| {
                    bencher.iter_custom(|calls| {
                        cpu_of(calls, || runtime.block_on(push_by_rival(&connection, &pushes)))
                    });
                });
            }
            group.finish();
        }
    }
}

async fn push_by_rival(connection: &MultiplexedConnection, pushes: &Pushes<UserId>) {
    let mut connection = connection.clone();
    let mut pipeline = redis::Pipeline::with_capacity(RIVAL_PIPELINE);
    let mut left = pushes.len();
    for (reader, ids) in pushes.iter() {
        let command = pipeline.cmd("RPUSHX").arg(HomeKey::of(reader).as_bytes());
        for id in ids {
            command.arg(&id.0.to_be_bytes()[..]);
        }
        left -= 1;
        if pipeline.len() == RIVAL_PIPELINE || left == 0 {
            let lengths: Vec<i64> = pipeline.query_async(&mut connection).await.unwrap();
            assert!(black_box(lengths).iter().all(|length| *length == 0));
            pipeline.clear();
        }
    }
}

criterion_group!(benches, bytes, against_a_server);
criterion_main!(benches);
