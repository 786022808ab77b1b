//! What accounts are told of, and messages: lists that many partitions write.

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use roost::{
    domain::{Event, MessageId, Post, PostId, Reference, UserId},
    store::{Inboxes, Ledger, Lookups, MessageSide},
};

use crate::{
    Backend, CAP,
    fixture::{ANN, BOB, CEM, DEE, NONE, World, deleted, numbers, post_of, sent, unsent},
    on_every_backend,
    seed::seed,
};

on_every_backend! {
    a_post_is_told_to_those_whom_it_concerns
    the_newest_are_kept_in_whatever_order_they_come_and_however_often
    the_newest_are_kept_over_many_starts
    a_message_is_in_the_lists_of_its_sender_and_its_recipients
    who_floods_an_account_drives_out_nobody_else
    a_message_and_a_post_of_one_request_id_are_both_made
    a_message_is_as_new_as_a_post_to_who_gives_out_ids
}

async fn a_post_is_told_to_those_whom_it_concerns(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let reference = |author| Some(Reference { post: PostId(10), author });
    world
        .apply(&[
            mentioning(10, ANN, &[BOB, CEM]),
            told(Post { reply_to: reference(BOB), ..post_of(11, ANN) }),
            told(Post { repost_of: reference(CEM), ..post_of(12, ANN) }),
            told(Post { reply_to: reference(ANN), ..post_of(13, ANN) }),
            named(14, "a"),
            named(15, "a"),
            mentioning(16, ANN, &[BOB]),
        ])
        .await;
    world.apply(&[deleted(16, ANN)]).await;
    world.apply(&[named(17, "a")]).await;
    for _ in 0..2 {
        assert_eq!(existing_of(&world, BOB).await, [14, 11, 10]);
        assert_eq!(existing_of(&world, CEM).await, [12, 10]);
        assert_eq!(existing_of(&world, ANN).await, NONE);
        assert!(world.store.exists(CEM).await.unwrap(), "whom it names is known");
        world = world.reopen().await;
    }
}

/// Three partitions at once, each in its own order, with events that are read again.
async fn the_newest_are_kept_in_whatever_order_they_come_and_however_often(backend: impl Backend) {
    let mut rng = StdRng::seed_from_u64(seed());
    let world = World::new(backend).await;
    let mut logs: [Vec<Event>; 3] = Default::default();
    let mut all = BTreeSet::new();
    for partition in 1..3 {
        world.store.resume(partition, 0).await.unwrap();
    }
    for step in 0..6 * CAP as u64 {
        let partition = rng.random_range(0..3);
        let author = UserId(partition as u64 + 100);
        let log = &mut logs[partition];
        let mut next = log.len();
        for _ in 0..rng.random_range(1..4) {
            // A partition that is late, and one whose posts overtook each other.
            let lag = if rng.random_bool(0.2) { 3_000 } else { 5 };
            let id = 50_000 + 100 * step - rng.random_range(0..lag) * 10 + partition as u64;
            log.push(mentioning(id, author, &[BOB]));
            all.insert(id);
        }
        if rng.random_bool(0.2) {
            // Another worker takes it over, and reads some again.
            world.store.resume(partition as u32, log.len() as u64).await.unwrap();
            next = rng.random_range(0..=next);
        }
        let events = log[next..].into();
        world.store.apply(partition as u32, next as u64, events).await.unwrap();
        assert_eq!(told_to(&world, BOB).await, kept(&all), "step {step}");
    }
}

/// As long as there are more than CAP of these ids, the oldest of the author who has the most
/// goes; the last digit is the author.
fn kept(all: &BTreeSet<u64>) -> Vec<u64> {
    let mut kept: Vec<u64> = all.iter().rev().copied().collect();
    while kept.len() > CAP {
        let count = |of| kept.iter().filter(|id| *id % 10 == of).count();
        let most = (0..10).map(count).max();
        let goes = kept.iter().rposition(|id| Some(count(id % 10)) == most);
        kept.remove(goes.expect("one has the most"));
    }
    kept
}

async fn who_floods_an_account_drives_out_nobody_else(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let of_cem: Vec<Event> = (1..=5).map(|id| mentioning(id, CEM, &[BOB])).collect();
    world.apply(&of_cem).await;
    for id in 10..10 + 5 * CAP as u64 {
        world.apply(&[mentioning(id, ANN, &[BOB])]).await;
    }
    for _ in 0..2 {
        let told = told_to(&world, BOB).await;
        assert_eq!((told.len(), &told[CAP - 5..]), (CAP, &[5, 4, 3, 2, 1][..]));
        world = world.reopen().await;
    }
}

async fn the_newest_are_kept_over_many_starts(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let mut id = 0;
    for _ in 0..2 * CAP {
        id += 1;
        world.apply(&[mentioning(id, ANN, &[BOB])]).await;
        world = world.reopen().await;
    }
    let newest: Vec<u64> = (1..=id).rev().take(CAP).collect();
    assert_eq!(told_to(&world, BOB).await, newest);
}

async fn a_message_is_in_the_lists_of_its_sender_and_its_recipients(backend: impl Backend) {
    let mut world = World::new(backend).await;
    world.apply(&[sent(10, ANN, "a"), sent(11, ANN, "a"), sent(12, ANN, "b")]).await;
    world.apply(&[sent(13, ANN, "a"), sent(14, ANN, "c"), unsent(14, ANN)]).await;
    world.apply(&[unsent(12, ANN), sent(15, ANN, "d")]).await;
    for _ in 0..2 {
        assert_eq!(existing_messages(&world, ANN, MessageSide::Sent).await, [15, 10]);
        for user in [CEM, DEE] {
            assert_eq!(existing_messages(&world, user, MessageSide::Received).await, [15, 10]);
            assert_eq!(existing_messages(&world, user, MessageSide::Sent).await, NONE);
            assert_eq!(told_to(&world, user).await, NONE);
            assert!(world.store.exists(user).await.unwrap(), "whom it names is known");
        }
        assert_eq!(existing_messages(&world, ANN, MessageSide::Received).await, NONE);
        assert_eq!(world.existing(&[10, 15]).await, NONE);
        assert_eq!(world.author_page(ANN, None, 10).await, NONE);
        world = world.reopen().await;
    }
}

async fn a_message_and_a_post_of_one_request_id_are_both_made(backend: impl Backend) {
    let mut world = World::new(backend).await;
    world.apply(&[sent(10, ANN, "a"), named(11, "a"), sent(12, ANN, "b")]).await;
    world.apply(&[named(13, "b"), sent(14, ANN, "a")]).await;
    assert_eq!(world.requests(&[(ANN, "a"), (ANN, "b")]).await, [Some(11), Some(13)]);
    for (name, message) in [("a", Some(10)), ("b", Some(12)), ("c", None)] {
        let made = world.store.message_of_request(ANN, name).await.unwrap();
        assert_eq!(made, message.map(MessageId), "{name}");
    }
}

async fn a_message_is_as_new_as_a_post_to_who_gives_out_ids(backend: impl Backend) {
    let mut world = World::new(backend).await;
    world.apply(&[named(10, "a"), sent(20, ANN, "a"), named(15, "b")]).await;
    for _ in 0..2 {
        assert_eq!(world.store.greatest_post().await.unwrap(), Some(PostId(20)));
        world = world.reopen().await;
    }
}

pub async fn existing_messages<B: Backend>(
    world: &World<B>,
    user: UserId,
    side: MessageSide,
) -> Vec<u64> {
    let ids = world.store.message_ids(user, side).await.unwrap();
    let messages = world.store.messages(&ids).await.unwrap();
    messages.into_iter().flatten().map(|message| message.id.0).collect()
}

async fn told_to<B: Backend>(world: &World<B>, user: UserId) -> Vec<u64> {
    numbers(&world.store.notifications(user).await.unwrap())
}

/// Those of which the post is there.
async fn existing_of<B: Backend>(world: &World<B>, user: UserId) -> Vec<u64> {
    world.existing(&told_to(world, user).await).await
}

pub fn told(post: Post) -> Event {
    Event::PostPublished { post, request_id: None }
}

pub fn mentioning(id: u64, author: UserId, mentions: &[UserId]) -> Event {
    told(Post { mentions: mentions.to_vec(), ..post_of(id, author) })
}

fn named(id: u64, request_id: &str) -> Event {
    let post = Post { mentions: vec![BOB], ..post_of(id, ANN) };
    Event::PostPublished { post, request_id: Some(request_id.to_owned()) }
}
