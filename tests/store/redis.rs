//! What only a store has that processes share: who may write, what was lost, who was
//! first to ask.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use redis::AsyncCommands;
use roost::{
    domain::{Event, MessageId, PostId, UserId},
    store::{
        ClaimedPost, Cursor, Homes, Inboxes, Ledger, Lookups, MessageSide, StoreError, Work,
        redis::{self as redis_store, RedisStore, slots::key_slot},
    },
};
use tokio::time::{Instant, sleep};

use crate::{
    CAP, Redis, behaviours,
    fixture::{
        ANN, BOB, CEM, DEE, NONE, PARTITION, World, deleted, followed, named, newest, post, sent,
    },
    inboxes::{existing_messages, mentioning},
    services,
    slots::cluster,
};

behaviours::behaviours!(redis_cluster:
    a_worker_that_was_replaced_writes_nothing_more
    a_claimed_request_keeps_its_post
    a_request_that_was_lost_and_taken_for_new_makes_its_first_post_in_the_end
    a_request_that_was_lost_and_taken_for_new_sends_its_first_message_in_the_end
    the_same_post_written_twice_is_made_once
    a_node_that_lost_writes_sends_its_partitions_back
    cursors_go_to_another_process_and_not_beyond_a_loss
    a_node_that_was_emptied_sends_its_partitions_back_to_the_beginning
    a_watermark_that_has_gone_before_its_slot_stops_nobody
    nothing_is_pushed_to_those_who_are_known_to_sleep_until_they_wake
    a_list_that_grows_for_ever_is_trimmed_and_its_floor_is_the_newest_that_it_lost
    what_an_account_is_told_of_is_trimmed
    a_store_is_of_one_log_and_one_group
    who_takes_a_partition_over_while_its_redis_is_emptied_may_try_again
    a_node_that_is_emptied_after_a_look_sends_its_partitions_back
);

/// Until a loss is noticed.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longer than it is from one look to the next, and shorter than a node is waited for.
const PAUSE_MS: u64 = 1_500;

async fn a_worker_that_was_replaced_writes_nothing_more(backend: Redis) {
    let mut world = World::new(backend).await;
    world.apply(&[followed(ANN, &[BOB, CEM]), post(10, ANN)]).await;
    world.wake(BOB, [10], None).await;
    let other = world.open_another().await;
    other.resume(PARTITION, 2).await.unwrap();

    let events: std::sync::Arc<[Event]> = [post(11, ANN)].into();
    let old = &world.store;
    assert!(old.merge(BOB, &newest([11], None)).await.is_err());
    assert!(old.purge(BOB, &newest([10], None)).await.is_err());
    assert!(old.remove(&[BOB], PostId(10)).await.is_err());
    assert!(old.forget_deleted(PostId(10)).await.is_err());
    let refused = old.apply(PARTITION, 2, events.clone()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { .. }), "{refused}");
    assert_eq!(world.shown(BOB).await.unwrap(), [10]);
    assert!(world.existing(&[11]).await.is_empty());

    // Whoever has replaced it goes on.
    other.apply(PARTITION, 2, events).await.unwrap();
    other.merge(BOB, &newest([11], None)).await.unwrap();
    assert_eq!(world.shown(BOB).await.unwrap(), [11, 10]);
}

async fn a_claimed_request_keeps_its_post(backend: Redis) {
    let mut world = World::new(backend).await;
    let other = world.open_another().await;
    let claim = async |store: &RedisStore, post| {
        let requests = [(ANN, "a".to_owned(), PostId(post))];
        store.claim_requests(&requests).await.unwrap()[0]
    };
    assert_eq!(claim(&world.store, 10).await, ClaimedPost::ToMake(PostId(10)));
    assert_eq!(claim(&other, 11).await, ClaimedPost::ToMake(PostId(10)));
    world.apply(&[named(10, ANN, "a")]).await;
    assert_eq!(claim(&other, 12).await, ClaimedPost::Made(PostId(10)));
}

async fn a_request_that_was_lost_and_taken_for_new_makes_its_first_post_in_the_end(backend: Redis) {
    let mut world = World::new(backend).await;
    world.apply(&[followed(ANN, &[BOB]), named(10, ANN, "a")]).await;
    let mut redis = world.backend.connect().await;
    let _: () = redis.del(format!("q:{ANN}:a")).await.unwrap();
    assert!(world.apply(&[named(11, ANN, "a"), post(12, ANN)]).await.is_empty());
    assert_eq!(world.existing(&[10, 11, 12]).await, [10, 11, 12]);
    world.wake(BOB, [10, 11, 12], None).await;

    // The loss is noticed, and everything is read again.
    let one = watermarks(&world).await.swap_remove(0);
    let _: () = redis.del(one).await.unwrap();
    let resume = world.store.resume(PARTITION, 4).await.unwrap().marks;
    assert_eq!((resume.applied, resume.attempted), (0, 4));
    assert_eq!(world.replay(0..4).await, [11]);
    assert_eq!(world.existing(&[10, 11, 12]).await, [10, 12]);
    assert_eq!(world.author_page(ANN, None, 10).await, [12, 10]);
    assert_eq!(world.requests(&[(ANN, "a")]).await, [Some(10)]);
    assert_eq!(world.shown(BOB).await.unwrap(), [12, 10]);
    // It is to be taken out of the timelines where it is.
    assert_eq!(world.store.deleted_of(ANN).await.unwrap(), [PostId(11)]);
}

async fn a_request_that_was_lost_and_taken_for_new_sends_its_first_message_in_the_end(
    backend: Redis,
) {
    let mut world = World::new(backend).await;
    world.apply(&[sent(10, ANN, "a")]).await;
    let mut redis = world.backend.connect().await;
    let _: () = redis.del(format!("mq:{ANN}:a")).await.unwrap();
    world.apply(&[sent(11, ANN, "a"), sent(12, ANN, "b")]).await;
    let existing = async |world: &World<Redis>| {
        let sent = existing_messages(world, ANN, MessageSide::Sent).await;
        let made = world.store.message_of_request(ANN, "a").await.unwrap();
        (sent, made)
    };
    // Until then nobody may believe it.
    assert_eq!(existing(&world).await, (vec![12, 11, 10], Some(MessageId(11))));

    // The loss is noticed, and everything is read again.
    let one = watermarks(&world).await.swap_remove(0);
    let _: () = redis.del(one).await.unwrap();
    world.store.resume(PARTITION, 3).await.unwrap();
    world.replay(0..3).await;
    assert_eq!(existing(&world).await, (vec![12, 10], Some(MessageId(10))));
    for user in [CEM, DEE] {
        assert_eq!(existing_messages(&world, user, MessageSide::Received).await, [12, 10]);
    }
}

async fn the_same_post_written_twice_is_made_once(backend: Redis) {
    let mut world = World::new(backend).await;
    world.apply(&[named(10, ANN, "a")]).await;
    assert_eq!(world.apply(&[named(10, ANN, "a")]).await, [10]);
    world.apply(&[deleted(10, ANN)]).await;
    assert_eq!(world.apply(&[named(10, ANN, "a")]).await, [10]);
    assert!(world.existing(&[10]).await.is_empty());
    assert!(world.author_page(ANN, None, 10).await.is_empty());
    // One that is read again is no repetition, wherever its twin is.
    assert!(world.apply(&[named(20, ANN, "b"), named(20, ANN, "b")]).await.is_empty());
    let reopened = world.reopen().await;
    assert!(reopened.replay(4..6).await.is_empty());
    assert_eq!(reopened.author_page(ANN, None, 10).await, [20]);
    // Nor is one whose batch was applied and comes again together with its twin, which is new:
    // it is yet to be delivered.
    let batch = [named(30, ANN, "c"), named(30, ANN, "c")];
    let apply = async |events: &[Event]| {
        reopened.store.apply(PARTITION, 6, events.into()).await.expect("applied")
    };
    assert!(apply(&batch[..1]).await.is_empty());
    assert!(apply(&batch).await.is_empty());
    assert_eq!(reopened.author_page(ANN, None, 10).await, [30, 20]);
}

async fn a_node_that_lost_writes_sends_its_partitions_back(backend: Redis) {
    let world = three_events(backend).await;
    let history = async || world.store.marks().await.unwrap()[0].history;
    let before = history().await;
    for watermark in watermarks(&world).await {
        // As a replica that took over, and has what was written a while ago.
        set(&world, &watermark, "1 somebody else").await;
    }
    assert_lost(&world.store).await;
    // Until a worker goes back, marks say what may not be there.
    assert_eq!(world.store.marks().await.unwrap()[0].shown, 3);
    assert_eq!(world.store.unnoticed().await.unwrap(), [PARTITION]);
    let resume = world.store.resume(PARTITION, 9).await.unwrap().marks;
    assert_eq!((resume.applied, resume.delivered, resume.attempted), (1, Some(1), 9));
    assert!(world.store.unnoticed().await.unwrap().is_empty());
    assert_eq!(world.store.marks().await.unwrap()[0].shown, 1);
    let since_loss = history().await;
    assert_ne!(since_loss, before);
    // It is remembered until the partition has come that far again.
    let other = world.open_another().await;
    let resume = other.resume(PARTITION, 12).await.unwrap().marks;
    assert_eq!((resume.applied, resume.delivered, resume.attempted), (1, Some(1), 9));
    // What is applied again is there already, and stays.
    let events = world.log[1..].to_vec().into();
    assert!(other.apply(PARTITION, 1, events).await.unwrap().is_empty());
    assert_eq!(world.author_page(ANN, None, 10).await, [11, 10]);
    other.delivered(PARTITION, 3, &[]).await.unwrap();
    assert_eq!(other.resume(PARTITION, 12).await.unwrap().marks.delivered, Some(3));
    assert_eq!(history().await, since_loss);
}

async fn what_an_account_is_told_of_is_trimmed(backend: Redis) {
    let mut world = World::new(backend).await;
    let mut redis = world.backend.connect().await;
    let len_max = world.store.entries_max();
    for id in 1..=3 * CAP as u64 {
        world.apply(&[mentioning(id, ANN, &[BOB])]).await;
        let len: usize = redis.llen(format!("n:{BOB}")).await.unwrap();
        assert!(len <= len_max && len >= CAP.min(id as usize), "{len} after {id}");
    }
}

async fn a_store_is_of_one_log_and_one_group(backend: Redis) {
    let world = World::new(backend).await;
    let own = redis_store::Settings::new(world.backend.config.clone(), "test".to_owned(), 3);
    let other = |change: fn(&mut redis_store::Settings)| {
        let mut other = own.clone();
        change(&mut other);
        other
    };
    for (settings, name) in [
        (other(|it| it.log.push('2')), "kafka_topic"),
        (other(|it| it.partitions = 4), "kafka_topic"),
        (other(|it| it.group.push('2')), "kafka_group"),
    ] {
        let error = RedisStore::open(settings).await.err().expect("refused");
        assert!(error.is_final() && error.to_string().contains(name), "{error}");
    }
    RedisStore::open(own).await.unwrap();
}

/// However often: what trying again cannot help ends a process.
async fn who_takes_a_partition_over_while_its_redis_is_emptied_may_try_again(backend: Redis) {
    let world = World::new(backend).await;
    let stop = AtomicBool::new(false);
    let emptying = async {
        while !stop.load(Ordering::Relaxed) {
            services::empty_redis(&world.backend.config).await;
        }
    };
    let resuming = async {
        let mut failures = 0;
        for _ in 0..200 {
            if let Err(error) = world.store.resume(PARTITION, 0).await {
                assert!(!error.is_final(), "{error}");
                failures += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        failures
    };
    let (failures, ()) = tokio::join!(resuming, emptying);
    assert!(failures > 0, "it was never emptied on the way");
    world.store.resume(PARTITION, 0).await.unwrap();
}

/// A loss that comes between the look at a node and what is written into it then.
async fn a_node_that_is_emptied_after_a_look_sends_its_partitions_back(backend: Redis) {
    let world = three_events(backend).await;
    let marks = format!("roost:partition:{PARTITION}");
    let mut cluster = world.backend.connect().await;
    for info in world.backend.config.connection_infos() {
        let client = redis::Client::open(info.clone()).unwrap();
        let mut node = client.get_multiplexed_async_connection().await.unwrap();
        let role: redis::Value = redis::cmd("ROLE").query_async(&mut node).await.unwrap();
        let is_primary = matches!(role, redis::Value::Array(role) if role.first()
            == Some(&redis::Value::BulkString(b"master".to_vec())));
        let of_node: Vec<String> = node.keys("roost:*").await.unwrap();
        if !is_primary || of_node.contains(&marks) {
            continue;
        }
        let watermark = of_node.iter().find(|key| key.starts_with("roost:watermark:")).unwrap();
        // Looks go on, and what is written waits in turn: the loss, then the next watermark.
        let pause = redis::cmd("CLIENT").arg("PAUSE").arg(PAUSE_MS).arg("WRITE").to_owned();
        let _: () = pause.query_async(&mut node).await.unwrap();
        let (dropped, ()) = tokio::join!(cluster.del(watermark), assert_lost(&world.store));
        assert_eq!(dropped, Ok(1));
        return;
    }
    panic!("every node has the marks");
}

async fn cursors_go_to_another_process_and_not_beyond_a_loss(backend: Redis) {
    let world = three_events(backend).await;
    let work = Work::Deliver(vec![PostId(11)]);
    let cursors = [Cursor { author: ANN, work, reached: BOB }];
    world.store.delivered(PARTITION, 2, &cursors).await.unwrap();
    let other = world.open_another().await;
    assert_eq!(other.resume(PARTITION, 3).await.unwrap().cursors, cursors);
    // Who has been replaced changes them no more.
    let fenced = world.store.delivered(PARTITION, 2, &[]).await.unwrap_err();
    assert!(matches!(fenced, StoreError::Fenced { .. }), "{fenced}");
    for _ in 0..2 {
        assert_eq!(other.resume(PARTITION, 3).await.unwrap().cursors, cursors);
    }
    let one = watermarks(&world).await.swap_remove(0);
    set(&world, &one, "2 somebody else").await;
    assert_eq!(other.resume(PARTITION, 3).await.unwrap().cursors, []);
    // Nor do they come back once the loss is made good.
    assert_eq!(other.resume(PARTITION, 3).await.unwrap().cursors, []);
}

async fn a_node_that_was_emptied_sends_its_partitions_back_to_the_beginning(backend: Redis) {
    let world = three_events(backend).await;
    let one = watermarks(&world).await.swap_remove(0);
    let mut redis = world.backend.connect().await;
    let _: () = redis.del(one).await.unwrap();
    // Whoever works on none knows as well.
    assert_eq!(world.open_another().await.unnoticed().await.unwrap(), [PARTITION]);
    assert_lost(&world.store).await;
    let resume = world.store.resume(PARTITION, 9).await.unwrap().marks;
    assert_eq!((resume.applied, resume.delivered, resume.attempted), (0, Some(0), 9));
}

async fn a_watermark_that_has_gone_before_its_slot_stops_nobody(backend: Redis) {
    let world = three_events(backend).await;
    let resumed = async || {
        let resumed = world.open_another().await.resume(PARTITION, 3).await;
        resumed.unwrap().marks.delivered
    };
    let mut slots = cluster().await;
    for watermark in watermarks(&world).await {
        let slot = key_slot(watermark.as_bytes());
        slots.open(slot).await;
        slots.move_keys(slot, &[watermark]).await;
        // Two times, since the first one puts another in its place.
        for _ in 0..2 {
            assert_eq!(resumed().await, Some(3));
        }
        let left = slots.keys_left(slot, 1_000).await;
        if !left.is_empty() {
            slots.move_keys(slot, &left).await;
        }
        slots.close(slot).await;
        assert_eq!(resumed().await, Some(3));
    }
}

async fn nothing_is_pushed_to_those_who_are_known_to_sleep_until_they_wake(backend: Redis) {
    let world = World::new(backend).await;
    let readers: Vec<UserId> = (100..200).map(UserId).collect();
    let push = async |post| {
        let deliveries: Vec<_> = readers.iter().map(|reader| (*reader, post)).collect();
        let outcome = world.push(&deliveries).await;
        assert_eq!(outcome.deliveries + outcome.skipped, 100);
        outcome.deliveries
    };
    assert_eq!(push(10).await, 0);
    // A list that nobody has announced: whoever pushes to all would find it.
    let secret = UserId(150);
    let mut redis = world.backend.connect().await;
    let marker = [b"L".as_slice(), &[0; 24]].concat();
    let _: () = redis.rpush(format!("h:{secret}"), marker).await.unwrap();
    assert_eq!(push(11).await, 0);
    // One that wakes by the hand of another process.
    let other = world.open_another().await;
    let woken = UserId(120);
    let ticket = other.begin_rebuild(woken).await.unwrap();
    assert_eq!(push(12).await, 1);
    assert!(other.finish_rebuild(woken, ticket, newest([11, 10], None)).await.unwrap());
    assert_eq!(push(13).await, 1);
    assert_eq!(world.shown(woken).await.unwrap(), [13, 12, 11, 10]);
    assert_eq!(world.shown(secret).await.unwrap(), NONE);
    // Whoever takes a partition over does not know whether anything was lost meanwhile.
    world.store.resume(PARTITION, 0).await.unwrap();
    assert_eq!(push(14).await, 2);
    assert_eq!(world.shown(secret).await.unwrap(), [14]);
}

async fn a_list_that_grows_for_ever_is_trimmed_and_its_floor_is_the_newest_that_it_lost(
    backend: Redis,
) {
    let world = World::new(backend).await;
    world.wake(BOB, [], None).await;
    let mut redis = world.backend.connect().await;
    // Pairs are turned round: the last one dropped is not always the newest.
    let ids: Vec<u64> = (1..=10 * CAP as u64).map(|id| id + id % 2 - (id + 1) % 2).collect();
    let mut trims = 0;
    let mut before = 1;
    for (count, id) in (1..).zip(&ids) {
        world.push(&[(BOB, *id)]).await;
        let list: Vec<Vec<u8>> = redis.lrange(format!("h:{BOB}"), 0, -1).await.unwrap();
        let (marker, kept) = list.split_first().unwrap();
        assert!(kept.len() <= CAP + 3 * CAP / 10, "{} after {count} posts", kept.len());
        trims += usize::from(list.len() < before);
        before = list.len();
        let newest_lost = ids[..count - kept.len()].iter().max().copied().unwrap_or_default();
        assert_eq!(marker[1..9], newest_lost.to_be_bytes(), "after {count} posts");
    }
    assert!(trims > 5, "{trims}");
}

/// Two posts of Ann's, whom Bob follows; all of it is delivered.
async fn three_events(backend: Redis) -> World<Redis> {
    let mut world = World::new(backend).await;
    world.apply(&[followed(ANN, &[BOB]), post(10, ANN), post(11, ANN)]).await;
    world.store.shown(PARTITION, 3).await.unwrap();
    world.store.delivered(PARTITION, 3, &[]).await.unwrap();
    assert!(world.store.unnoticed().await.unwrap().is_empty());
    assert_eq!(world.store.resume(PARTITION, 3).await.unwrap().marks.delivered, Some(3));
    world
}

/// A worker that goes on saying what it has delivered is told of the loss.
async fn assert_lost(store: &RedisStore) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match store.delivered(PARTITION, 3, &[]).await {
            Err(StoreError::Lost { partition: PARTITION }) => return,
            Err(error) => panic!("{error}"),
            Ok(()) => assert!(Instant::now() < deadline, "the loss is not noticed"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// The keys in which the nodes are told how far everything has come.
async fn watermarks(world: &World<Redis>) -> Vec<String> {
    let mut keys = Vec::new();
    for info in world.backend.config.connection_infos() {
        let client = redis::Client::open(info.clone()).unwrap();
        let mut node = client.get_multiplexed_async_connection().await.unwrap();
        let on_node: Vec<String> = node.keys("roost:watermark:*").await.unwrap();
        keys.extend(on_node);
    }
    keys.sort();
    keys.dedup();
    assert!(!keys.is_empty());
    keys
}

async fn set(world: &World<Redis>, watermark: &str, value: &str) {
    let mut redis = world.backend.connect().await;
    let _: () = redis.hset(watermark, PARTITION, value).await.unwrap();
}
