//! Slots that move between nodes while pushes go on.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use roost::store::redis::{push::Pusher, slots::key_slot};

use super::services::{self, Readers};
use crate::external::slots::Slots;

const READERS: u64 = 400;
const TASKS: u64 = 3;
const MIGRATIONS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_during_pushes_duplicate_and_lose_nothing() {
    let Some(urls) = services::cluster() else { return };
    let mut redis = services::look_at_cluster(&urls).await;
    let readers = Arc::new(Readers::new(READERS));
    readers.wake(&mut redis).await;
    let pusher = services::pusher(&urls);
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (pusher, readers, stop) = (pusher.clone(), readers.clone(), stop.clone());
            tokio::spawn(async move { push_until(&stop, &pusher, &readers, task << 32).await })
        })
        .collect();

    let mut cluster = Slots::of(&urls).await;
    let slots: Vec<u16> =
        readers.all().map(|reader| key_slot(format!("h:{reader}").as_bytes())).collect();
    for slot in slots.iter().cycle().take(MIGRATIONS) {
        cluster.migrate(*slot).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut expected, mut redirected) = (Vec::new(), 0);
    for task in tasks {
        let (ids, redirects) = task.await.unwrap();
        expected.extend(ids);
        redirected += redirects;
    }
    println!("{} rounds of pushes, {redirected} redirected", expected.len());
    assert!(redirected > 0, "no push ever met a slot that moves");

    let lists = readers.lists(&mut redis).await;
    for reader in readers.all() {
        match lists.get(&reader) {
            Some(list) => {
                let mut list = list.clone();
                list.sort_unstable();
                assert_eq!(list, expected, "{reader}");
            }
            None => assert!(!readers.is_awake(reader), "the list of {reader} is gone"),
        }
    }
    readers.clear(&mut redis).await;
}

/// The ids that it pushed to every reader, and how many pushes were redirected.
async fn push_until(
    stop: &AtomicBool,
    pusher: &Pusher,
    readers: &Readers,
    first: u64,
) -> (Vec<u64>, u64) {
    let (mut ids, mut redirected) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let id = first + ids.len() as u64 + 1;
        ids.push(id);
        let mut pushes = readers.one_each(id);
        loop {
            match pusher.push(&pushes).await {
                Ok(report) => {
                    assert!(report.unknown.is_empty());
                    redirected += report.redirected;
                    break;
                }
                Err(error) => {
                    assert!(!error.error.is_final(), "{error}");
                    assert!(error.report.unknown.is_empty());
                    redirected += error.report.redirected;
                    pushes = pushes.only(&error.unwritten);
                }
            }
        }
    }
    (ids, redirected)
}
