//! A store in a Redis Cluster whose slots move from node to node.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use roost::{
    domain::{PostId, UserId},
    fanout::combine,
    store::{
        HomeRead, Homes, Ledger, Pushes, RebuildTicket,
        redis::{self as redis_store, RedisStore, slots::key_slot},
    },
};

use crate::{
    Backend, Redis, behaviours,
    fixture::{PARTITION, newest, numbers},
    services::{self, slots::Slots},
};

behaviours::behaviours!(redis_cluster:
    a_slot_that_is_on_its_way_takes_every_change
    slots_that_move_during_pushes_and_checked_pushes_lose_and_double_nothing
);

/// What happens to a timeline, one after the other.
const STEPS: usize = 8;
/// How often slots move while pushes go on.
const MIGRATIONS: usize = 100;

/// A slot may stay on its way for long: its node may have died, or whoever moves it. One
/// reader's list comes along before the first change, another's after it, and so on;
/// and the slot sets out before the first change, or after it, and so on.
async fn a_slot_that_is_on_its_way_takes_every_change(backend: Redis) {
    let store = backend.open().await;
    store.resume(PARTITION, 0).await.unwrap();
    let mut slots = cluster().await;
    for open_at in 0..STEPS {
        let (slot, readers) = readers_of_one_slot(STEPS + 1);
        let mut tickets = vec![RebuildTicket(0); readers.len()];
        for step in 0..STEPS {
            if step == open_at {
                slots.open(slot).await;
            }
            if step >= open_at {
                slots.move_keys(slot, &[home(readers[step])]).await;
            }
            for (reader, ticket) in readers.iter().zip(&mut tickets) {
                change(&store, step, *reader, ticket).await;
            }
        }
        let expected = vec![50, 40, 30, 20];
        for reader in &readers {
            assert_eq!(shown(&store, *reader).await, expected, "open at {open_at}, on its way");
        }
        let left = slots.keys_left(slot, 1_000).await;
        if !left.is_empty() {
            slots.move_keys(slot, &left).await;
        }
        slots.close(slot).await;
        for reader in &readers {
            assert_eq!(shown(&store, *reader).await, expected, "open at {open_at}, arrived");
        }
    }
}

/// All of them leave a timeline of 50, 40, 30, 20.
async fn change(store: &RedisStore, step: usize, reader: UserId, ticket: &mut RebuildTicket) {
    let push = |ids: &[u64]| combine(ids.iter().map(|id| (reader, PostId(*id))).collect());
    match step {
        0 => *ticket = store.begin_rebuild(reader).await.unwrap(),
        1 => drop(store.push(&push(&[40])).await.unwrap()),
        2 => store.remove(&[reader], PostId(10)).await.unwrap(),
        3 => store.purge(reader, &newest([15, 35], None)).await.unwrap(),
        4 => store.merge(reader, &newest([30], None)).await.unwrap(),
        5 => {
            let read = newest([10, 15, 20, 25], None);
            assert!(store.finish_rebuild(reader, *ticket, read).await.unwrap());
        }
        6 => store.remove(&[reader], PostId(25)).await.unwrap(),
        _ => drop(store.push_again(&push(&[40, 50])).await.unwrap()),
    }
}

async fn slots_that_move_during_pushes_and_checked_pushes_lose_and_double_nothing(backend: Redis) {
    // Which empties it.
    backend.open().await;
    let mut settings = redis_store::Settings::new(backend.config.clone(), "test".to_owned(), 3);
    settings.home_timeline_cap = 1_000_000;
    let store = RedisStore::open(settings).await.unwrap();
    let readers: Vec<UserId> = (1..=12).map(UserId).collect();
    for reader in &readers {
        let ticket = store.begin_rebuild(*reader).await.unwrap();
        assert!(store.finish_rebuild(*reader, ticket, newest([], None)).await.unwrap());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let tasks = [false, true].map(|checked| {
        let (store, readers, stop) = (store.clone(), readers.clone(), Arc::clone(&stop));
        tokio::spawn(async move { push_until(&stop, &store, &readers, checked).await })
    });
    let mut slots = cluster().await;
    for reader in readers.iter().cycle().take(MIGRATIONS) {
        slots.migrate(slot_of(*reader)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut expected = Vec::new();
    for task in tasks {
        expected.extend(task.await.unwrap());
    }
    println!("{} posts to each of {} readers", expected.len(), readers.len());
    expected.sort_unstable_by(|a, b| b.cmp(a));
    let mut redis = backend.connect().await;
    for reader in &readers {
        assert_eq!(shown(&store, *reader).await, expected, "{reader}");
        // Reads drop repetitions; there are none to drop.
        let entries: usize =
            redis::cmd("LLEN").arg(home(*reader)).query_async(&mut redis).await.unwrap();
        assert_eq!(entries, 1 + expected.len(), "{reader}");
    }
}

/// Pushes to all readers, plainly or with a look; then each id comes twice, and some are
/// taken out again. Returns the ids that are to be there.
async fn push_until(
    stop: &AtomicBool,
    store: &RedisStore,
    readers: &[UserId],
    checked: bool,
) -> Vec<u64> {
    let mut ids = Vec::new();
    for number in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = 2 * number + u64::from(checked);
        let pushes: Pushes<UserId> =
            combine(readers.iter().map(|reader| (*reader, PostId(id))).collect());
        if !checked {
            store.push(&pushes).await.unwrap();
            ids.push(id);
            continue;
        }
        store.push_again(&pushes).await.unwrap();
        store.push_again(&pushes).await.unwrap();
        if number % 5 == 0 {
            store.remove(readers, PostId(id)).await.unwrap();
        } else {
            ids.push(id);
        }
    }
    ids
}

pub async fn cluster() -> Slots {
    let urls = services::address("ROOST_TEST_REDIS_CLUSTER", "cluster");
    Slots::of(&urls.expect("the backend is there")).await
}

/// Readers whose lists are in the same slot, which is drawn.
fn readers_of_one_slot(count: usize) -> (u16, Vec<UserId>) {
    let first = rand::random_range(1..1_u64 << 60);
    let slot = slot_of(UserId(first));
    let readers = (first..).map(UserId).filter(|reader| slot_of(*reader) == slot);
    (slot, readers.take(count).collect())
}

fn slot_of(reader: UserId) -> u16 {
    key_slot(home(reader).as_bytes())
}

fn home(reader: UserId) -> String {
    format!("h:{reader}")
}

async fn shown(store: &RedisStore, reader: UserId) -> Vec<u64> {
    match store.page(reader, None, usize::MAX).await.unwrap() {
        HomeRead::Page(page) => numbers(&page.ids),
        HomeRead::Asleep => panic!("{reader} sleeps"),
    }
}
