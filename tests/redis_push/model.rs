//! Random pushes from several tasks at once, beside a model.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use redis::aio::ConnectionLike;
use roost::{
    domain::{PostId, UserId},
    fanout::combine,
    store::{PushOutcome, redis::push::Pusher},
};

use super::services::{self, ENTRIES_MAX, Readers};

const READERS: u64 = 300;
const TASKS: u64 = 4;
const ROUNDS: u64 = 15;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_are_what_the_model_says_standalone() {
    let Some(url) = services::standalone() else { return };
    let mut redis = services::look(&url).await;
    push_at_random(&services::pusher(&url), &mut redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_are_what_the_model_says_in_a_cluster() {
    let Some(urls) = services::cluster() else { return };
    let mut redis = services::look_at_cluster(&urls).await;
    push_at_random(&services::pusher(&urls), &mut redis).await;
}

/// What a task pushed, and what it was told.
struct Pushed {
    model: BTreeMap<UserId, Vec<u64>>,
    told: PushOutcome,
    over_full: usize,
}

async fn push_at_random(pusher: &Pusher, redis: &mut impl ConnectionLike) {
    let seed = rand::random();
    println!("seed {seed}");
    let readers = Readers::new(READERS);
    readers.wake(redis).await;

    let tasks = (0..TASKS).map(|task| {
        let (pusher, first) = (pusher.clone(), readers.first);
        tokio::spawn(async move { push_from_a_task(&pusher, first, task, seed).await })
    });
    let mut expected = BTreeMap::<UserId, Vec<Vec<u64>>>::new();
    let (mut told, mut over_full) = (PushOutcome::default(), 0);
    for task in tasks.collect::<Vec<_>>() {
        let pushed = task.await.unwrap();
        for (reader, ids) in pushed.model {
            expected.entry(reader).or_default().push(ids);
        }
        told.deliveries += pushed.told.deliveries;
        told.skipped += pushed.told.skipped;
        over_full += pushed.over_full;
    }

    let lists = readers.lists(redis).await;
    let (mut deliveries, mut skipped) = (0, 0);
    for (reader, by_task) in &expected {
        let pushed: usize = by_task.iter().map(Vec::len).sum();
        if !readers.is_awake(*reader) {
            assert!(!lists.contains_key(reader), "{reader} was woken by a push");
            skipped += pushed as u64;
            continue;
        }
        deliveries += pushed as u64;
        let list = &lists[reader];
        assert_eq!(list.len(), pushed, "{reader}");
        for ids in by_task {
            // Tasks interleave, but each one's ids keep their order.
            let task = ids[0] >> 32;
            let of_task: Vec<u64> = list.iter().copied().filter(|id| id >> 32 == task).collect();
            assert_eq!(of_task, *ids, "{reader}");
        }
    }
    assert_eq!((told.deliveries, told.skipped), (deliveries, skipped));
    assert!(over_full > 0 && lists.values().any(|list| list.len() > ENTRIES_MAX));
    readers.clear(redis).await;
}

async fn push_from_a_task(pusher: &Pusher, first: u64, task: u64, seed: u64) -> Pushed {
    let mut random = StdRng::seed_from_u64(seed ^ task);
    let mut pushed = Pushed { model: BTreeMap::new(), told: PushOutcome::default(), over_full: 0 };
    let mut post = task << 32;
    for _ in 0..ROUNDS {
        let mut deliveries = Vec::new();
        for _ in 0..random.random_range(0..600) {
            post += 1;
            let reader = UserId(first + random.random_range(0..READERS));
            pushed.model.entry(reader).or_default().push(post);
            deliveries.push((reader, PostId(post)));
        }
        let report = pusher.push(&combine(deliveries)).await.unwrap();
        assert!(report.unknown.is_empty());
        assert!(report.over_full.iter().all(|full| full.length > ENTRIES_MAX as u64));
        pushed.told.deliveries += report.outcome.deliveries;
        pushed.told.skipped += report.outcome.skipped;
        pushed.over_full += report.over_full.len();
    }
    pushed
}
