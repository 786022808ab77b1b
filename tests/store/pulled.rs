//! Authors who are pulled.

use roost::{
    domain::{Event, UserId},
    store::{Ledger, Lookups},
};

use crate::{
    Backend,
    fixture::{ANN, BOB, CEM, DEE, PARTITION, World, followed, unfollowed},
    on_every_backend,
};

on_every_backend! {
    an_author_is_pulled_until_its_posts_are_in_all_timelines_again
    followees_are_found_among_others
}

fn pull_changed(author: UserId, pulled: bool) -> Event {
    Event::PullChanged { author, pulled }
}

/// As whoever reads hears of it.
async fn pulled<B: Backend>(world: &World<B>) -> Vec<UserId> {
    world.store.marks().await.unwrap();
    let mut users = world.store.pulled_users();
    users.sort_unstable();
    let authors = world.store.pulled_authors().len();
    assert_eq!(authors, users.len());
    users
}

async fn an_author_is_pulled_until_its_posts_are_in_all_timelines_again(backend: impl Backend) {
    let mut world = World::peopled(backend).await;
    assert_eq!(pulled(&world).await, []);
    for _ in 0..2 {
        world.apply(&[pull_changed(ANN, true), pull_changed(BOB, true)]).await;
        assert_eq!(pulled(&world).await, [BOB, ANN]);
    }
    world.apply(&[pull_changed(ANN, false)]).await;
    assert_eq!(pulled(&world).await, [BOB, ANN], "nobody has pushed what it has posted");
    let mut resumed = world.store.resume(PARTITION, 9).await.unwrap().pulled;
    resumed.sort_unstable();
    assert_eq!(resumed, [BOB, ANN], "so that whoever takes over does");
    world.store.forget_pulled(ANN).await.unwrap();
    assert_eq!(pulled(&world).await, [BOB]);
    let world = world.reopen().await;
    assert_eq!(pulled(&world).await, [BOB]);
}

async fn followees_are_found_among_others(backend: impl Backend) {
    let mut world = World::peopled(backend).await;
    world.apply(&[followed(BOB, &[CEM]), followed(DEE, &[CEM]), unfollowed(DEE, CEM)]).await;
    let [ann, bob, cem, dee] = world.accounts([ANN, BOB, CEM, DEE]).await;
    let all = [dee, cem, bob, ann];
    let mut followed = world.store.followed_among(cem, &all).await.unwrap();
    followed.sort_unstable();
    let mut expected = [ann, bob];
    expected.sort_unstable();
    assert_eq!(followed, expected);
    assert!(world.store.followed_among(ann, &all).await.unwrap().is_empty());
    let mut read = world.store.read_among(ann, &all).await.unwrap();
    assert_eq!(read.pop(), Some(ann), "its own");
    assert!(read.is_empty());
    assert!(world.store.read_among(ann, &[]).await.unwrap().is_empty());
}
