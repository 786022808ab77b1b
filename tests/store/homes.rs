//! Home timelines: pushed to, read, rebuilt.

use roost::{
    domain::PostId,
    store::{Floor, HideReason, Homes, Ledger, PushOutcome},
};

use crate::{
    Backend, CAP,
    fixture::{ANN, BOB, CEM, DEE, NONE, World, blocked, deleted, muted, newest, numbers, post},
    on_every_backend,
};

on_every_backend! {
    pushes_reach_live_timelines
    a_timeline_shows_an_id_once_and_in_order
    those_who_are_awake_are_told_apart
    merged_posts_stand_where_they_belong
    a_sleeping_timeline_takes_nothing
    purged_posts_are_gone
    a_purge_takes_what_it_cannot_tell_apart
    a_removed_post_is_gone_from_those_named
    a_timeline_is_paged
    a_timeline_of_cap_posts_is_complete
    a_longer_timeline_stops_at_cap
    a_late_post_below_the_floor_is_not_shown
    a_few_posts_taken_away_are_replaced_by_older_ones
    a_deleted_post_is_hidden_before_it_is_removed
    a_deleted_post_is_remembered_until_it_is_forgotten
    a_rebuild_joins_what_is_pushed_meanwhile
    a_rebuild_leaves_out_what_was_taken_away_meanwhile
    a_rebuild_leaves_out_what_a_purge_cannot_tell_apart
    of_two_rebuilds_at_once_the_last_one_begun_ends_well
    whom_a_reader_hides_comes_with_its_page
}

async fn pushes_reach_live_timelines(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob, cem] = world.accounts([ANN, BOB, CEM]).await;
    world.wake(ann, [], None).await;
    world.wake(cem, [5], None).await;
    let outcome = world.push(&[(ann, 10), (bob, 10), (cem, 10), (ann, 11), (bob, 12)]).await;
    assert_eq!(outcome, PushOutcome { deliveries: 3, skipped: 2, pushes: 2 });
    assert_eq!(world.shown(ann).await, Some(vec![11, 10]));
    assert_eq!(world.shown(bob).await, None);
    assert_eq!(world.shown(cem).await, Some(vec![10, 5]));
}

async fn a_timeline_shows_an_id_once_and_in_order(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let ann = world.account(ANN).await;
    world.wake(ann, [3, 5], None).await;
    for ids in [&[10, 11][..], &[10], &[5, 7, 11], &[7], &[1]] {
        let deliveries: Vec<_> = ids.iter().map(|id| (ann, *id)).collect();
        world.push(&deliveries).await;
    }
    assert_eq!(world.shown(ann).await, Some(vec![11, 10, 7, 5, 3, 1]));
}

async fn those_who_are_awake_are_told_apart(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob, cem, dee] = world.accounts([ANN, BOB, CEM, DEE]).await;
    let mut all = vec![ann, bob, cem, dee];
    all.sort_unstable();
    assert_eq!(world.store.awake(&all).await.unwrap(), []);
    world.wake(bob, [1], None).await;
    world.wake(dee, [], None).await;
    world.store.begin_rebuild(ann).await.unwrap();
    let mut expected = vec![ann, bob, dee];
    expected.sort_unstable();
    assert_eq!(world.store.awake(&all).await.unwrap(), expected);
    assert_eq!(world.store.awake(&[cem]).await.unwrap(), []);
    assert_eq!(world.store.awake(&[]).await.unwrap(), []);
}

async fn merged_posts_stand_where_they_belong(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let ann = world.account(ANN).await;
    world.wake(ann, [10, 20, 30], None).await;
    world.store.merge(ann, &newest([5, 15, 20, 35], None)).await.unwrap();
    assert_eq!(world.shown(ann).await, Some(vec![35, 30, 20, 15, 10, 5]));
    world.store.merge(ann, &newest([], None)).await.unwrap();
    assert_eq!(world.shown(ann).await, Some(vec![35, 30, 20, 15, 10, 5]));
    let entries_max = world.store.entries_max() as u64;
    let older = 100 - entries_max;
    world.store.merge(ann, &newest(older..100, Some(older - 1))).await.unwrap();
    assert_eq!(world.shown(ann).await, Some((100 - CAP as u64..100).rev().collect()));
}

async fn a_sleeping_timeline_takes_nothing(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let ann = world.account(ANN).await;
    world.push(&[(ann, 10)]).await;
    world.store.merge(ann, &newest([11, 12], None)).await.unwrap();
    world.store.purge(ann, &newest([12], None)).await.unwrap();
    world.store.remove(&[ann], PostId(11)).await.unwrap();
    assert_eq!(world.shown(ann).await, None);
    world.wake(ann, [20], None).await;
    assert_eq!(world.shown(ann).await, Some(vec![20]));
}

async fn purged_posts_are_gone(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    for reader in [ann, bob] {
        world.wake(reader, 10..=15, None).await;
    }
    world.store.purge(ann, &newest([1, 10, 12, 15, 17], None)).await.unwrap();
    assert_eq!(world.shown(ann).await, Some(vec![14, 13, 11]));
    assert_eq!(world.shown(bob).await, Some(vec![15, 14, 13, 12, 11, 10]));
    world.push(&[(ann, 12)]).await;
    assert_eq!(world.shown(ann).await, Some(vec![14, 13, 12, 11]));
}

async fn a_purge_takes_what_it_cannot_tell_apart(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let ann = world.account(ANN).await;
    let newest_id = 10 + CAP as u64;
    world.wake(ann, 10..=newest_id, None).await;
    world.store.purge(ann, &newest([], Some(10))).await.unwrap();
    assert_eq!(world.shown(ann).await, Some((11..=newest_id).rev().collect()));
    let page = world.page(ann, None, 1).await;
    assert_eq!(page.floor, Floor::Cap(PostId(11)));
    world.store.purge(ann, &newest([newest_id], Some(15))).await.unwrap();
    assert_eq!(world.shown(ann).await, None);
}

async fn a_removed_post_is_gone_from_those_named(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob, cem, dee] = world.accounts([ANN, BOB, CEM, DEE]).await;
    for reader in [ann, bob, dee] {
        world.wake(reader, [10, 11, 12], None).await;
    }
    let mut readers = [ann, bob, cem];
    readers.sort_unstable();
    world.store.remove(&readers, PostId(11)).await.unwrap();
    world.store.remove(&readers, PostId(99)).await.unwrap();
    assert_eq!(world.shown(ann).await, Some(vec![12, 10]));
    assert_eq!(world.shown(bob).await, Some(vec![12, 10]));
    assert_eq!(world.shown(cem).await, None);
    assert_eq!(world.shown(dee).await, Some(vec![12, 11, 10]));
}

async fn a_timeline_is_paged(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let ann = world.account(ANN).await;
    world.wake(ann, [10, 20, 30, 40, 50], None).await;
    let read = async |before, count_max| {
        let page = world.page(ann, before, count_max).await;
        assert_eq!(page.floor, Floor::Beginning);
        (numbers(&page.ids), page.more)
    };
    assert_eq!(read(None, 2).await, (vec![50, 40], true));
    assert_eq!(read(Some(40), 2).await, (vec![30, 20], true));
    assert_eq!(read(Some(20), 2).await, (vec![10], false));
    assert_eq!(read(None, 5).await, (vec![50, 40, 30, 20, 10], false));
    assert_eq!(read(Some(35), 1).await, (vec![30], true));
    assert_eq!(read(Some(99), 1).await, (vec![50], true));
    assert_eq!(read(Some(15), 1).await, (vec![10], false));
    assert_eq!(read(Some(10), 3).await, (NONE.into(), false));
    assert_eq!(read(Some(1), 3).await, (NONE.into(), false));
}

async fn a_timeline_of_cap_posts_is_complete(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    world.wake(ann, [], None).await;
    for id in 1..=CAP as u64 {
        assert_eq!(world.page(ann, None, 1).await.floor, Floor::Beginning, "before post {id}");
        world.push(&[(ann, id)]).await;
    }
    let page = world.page(ann, None, 1_000).await;
    let all: Vec<u64> = (1..=CAP as u64).rev().collect();
    assert_eq!((numbers(&page.ids), page.more, page.floor), (all, false, Floor::Beginning));
    world.wake(bob, 11..=10 + CAP as u64, Some(10)).await;
    assert_eq!(world.page(bob, None, 1).await.floor, Floor::Cap(PostId(11)));
}

async fn a_longer_timeline_stops_at_cap(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    let cap = CAP as u64;
    world.wake(ann, 1..=cap, None).await;
    for id in cap + 1..=4 * cap {
        world.push(&[(ann, id)]).await;
        assert_eq!(world.shown(ann).await, Some((id - cap + 1..=id).rev().collect()));
        for before in [None, Some(id - cap + 3)] {
            let page = world.page(ann, before, CAP).await;
            assert_eq!((page.floor, page.more), (Floor::Cap(PostId(id - cap + 1)), false));
        }
        let below = world.page(ann, Some(id - cap + 1), CAP).await;
        assert_eq!((numbers(&below.ids), below.more), (NONE.into(), false));
    }
    world.wake(bob, 1..=cap + 1, None).await;
    assert_eq!(world.page(bob, None, 1).await.floor, Floor::Cap(PostId(2)));
}

async fn a_late_post_below_the_floor_is_not_shown(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let ann = world.account(ANN).await;
    let entries_max = world.store.entries_max() as u64;
    let newest_id = 100 + 10 * entries_max;
    world.wake(ann, (1..=entries_max).map(|number| 100 + 10 * number), Some(100)).await;
    world.push(&[(ann, 50), (ann, 100)]).await;
    world.store.merge(ann, &newest([60], None)).await.unwrap();
    let shown: Vec<u64> = (0..CAP as u64).map(|number| newest_id - 10 * number).collect();
    assert_eq!(world.shown(ann).await, Some(shown.clone()));
    world.push(&[(ann, newest_id - 5)]).await;
    let mut with_late = shown;
    with_late.insert(1, newest_id - 5);
    with_late.truncate(CAP);
    assert_eq!(world.shown(ann).await, Some(with_late));
}

async fn a_few_posts_taken_away_are_replaced_by_older_ones(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    let entries_max = world.store.entries_max() as u64;
    world.wake(ann, 101..=100 + entries_max, Some(100)).await;
    world.wake(bob, 101..=100 + entries_max, None).await;
    let slack = entries_max - CAP as u64;
    for removed in 0..slack {
        for reader in [ann, bob] {
            world.store.remove(&[reader], PostId(100 + entries_max - removed)).await.unwrap();
            let newest_id = 100 + entries_max - removed - 1;
            let expected = (newest_id - CAP as u64 + 1..=newest_id).rev().collect();
            assert_eq!(world.shown(reader).await, Some(expected));
        }
    }
    assert_eq!(world.page(ann, None, 1).await.floor, Floor::Cap(PostId(101)));
    assert_eq!(world.page(bob, None, 1).await.floor, Floor::Beginning);
    for reader in [ann, bob] {
        world.store.remove(&[reader], PostId(105)).await.unwrap();
    }
    assert_eq!(world.shown(ann).await, None);
    assert_eq!(world.shown(bob).await.map(|ids| ids.len()), Some(CAP - 1));
    assert_eq!(world.page(bob, None, 1).await.floor, Floor::Beginning);
}

async fn a_deleted_post_is_hidden_before_it_is_removed(backend: impl Backend) {
    let mut world = World::peopled(backend).await;
    world.apply(&[post(10, ANN), post(11, ANN), post(12, BOB)]).await;
    let dee = world.account(DEE).await;
    world.wake(dee, [10, 11, 12], None).await;
    world.apply(&[deleted(10, ANN)]).await;
    let page = world.page(dee, None, 2).await;
    assert_eq!((numbers(&page.ids), page.more), (vec![12, 11], false));
    world.apply(&[deleted(12, BOB)]).await;
    let page = world.page(dee, None, 1).await;
    assert_eq!((numbers(&page.ids), page.more), (vec![11], false));
    world.push(&[(dee, 10), (dee, 12), (dee, 13)]).await;
    assert_eq!(world.shown(dee).await, Some(vec![13, 11]));
}

async fn a_deleted_post_is_remembered_until_it_is_forgotten(backend: impl Backend) {
    let mut world = World::peopled(backend).await;
    world.apply(&[post(10, ANN), post(11, ANN), post(12, BOB), post(13, ANN)]).await;
    let [ann, bob, dee] = world.accounts([ANN, BOB, DEE]).await;
    world.wake(dee, [10, 11, 12, 13], None).await;
    world.apply(&[deleted(13, ANN), deleted(12, BOB), deleted(10, ANN)]).await;
    assert_eq!(world.deleted_of(ann).await, [10, 13]);
    assert_eq!(world.deleted_of(bob).await, [12]);
    assert_eq!(world.deleted_of(dee).await, NONE);
    world.store.remove(&[dee], PostId(13)).await.unwrap();
    world.store.forget_deleted(PostId(13)).await.unwrap();
    world.store.forget_deleted(PostId(99)).await.unwrap();
    assert_eq!(world.deleted_of(ann).await, [10]);
    assert_eq!(world.deleted_of(bob).await, [12]);
    assert_eq!(world.shown(dee).await, Some(vec![11]));
}

async fn a_rebuild_joins_what_is_pushed_meanwhile(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    let entries_max = world.store.entries_max() as u64;
    let ticket = world.store.begin_rebuild(ann).await.unwrap();
    assert_eq!(world.shown(ann).await, None);
    world.push(&[(ann, 50), (ann, 90), (bob, 91)]).await;
    world.store.merge(ann, &newest([40, 60], None)).await.unwrap();
    world.store.remove(&[bob], PostId(50)).await.unwrap();
    assert_eq!(world.shown(ann).await, None);
    assert!(world.store.finish_rebuild(ann, ticket, newest([30, 50, 70], None)).await.unwrap());
    assert_eq!(world.shown(ann).await, Some(vec![90, 70, 60, 50, 40, 30]));
    assert_eq!(world.page(ann, None, 1).await.floor, Floor::Beginning);

    let ticket = world.store.begin_rebuild(ann).await.unwrap();
    let last = 100 + entries_max;
    world.push(&[(ann, 99), (ann, 100), (ann, last + 1)]).await;
    let read = newest(101..=last, Some(100));
    assert!(world.store.finish_rebuild(ann, ticket, read).await.unwrap());
    let expected = (last + 2 - CAP as u64..=last + 1).rev().collect();
    assert_eq!(world.shown(ann).await, Some(expected));
}

async fn a_rebuild_leaves_out_what_was_taken_away_meanwhile(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    for purged in [true, false] {
        let ticket = world.store.begin_rebuild(ann).await.unwrap();
        if purged {
            world.store.purge(ann, &newest([10], None)).await.unwrap();
        } else {
            let mut readers = [ann, bob];
            readers.sort_unstable();
            world.store.remove(&readers, PostId(10)).await.unwrap();
        }
        assert!(world.finish(ann, ticket, [10, 11]).await);
        assert_eq!(world.shown(ann).await, Some(vec![11]));
    }
    let ticket = world.store.begin_rebuild(ann).await.unwrap();
    world.store.purge(ann, &newest([10, 11], None)).await.unwrap();
    world.store.merge(ann, &newest([11], None)).await.unwrap();
    assert!(world.finish(ann, ticket, [10, 11]).await);
    assert_eq!(world.shown(ann).await, Some(vec![11]));
}

async fn a_rebuild_leaves_out_what_a_purge_cannot_tell_apart(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let ann = world.account(ANN).await;
    let newest_id = 12 + CAP as u64;
    let ticket = world.store.begin_rebuild(ann).await.unwrap();
    world.store.purge(ann, &newest([], Some(12))).await.unwrap();
    assert!(world.finish(ann, ticket, 11..=newest_id).await);
    assert_eq!(world.shown(ann).await, Some((13..=newest_id).rev().collect()));
}

async fn of_two_rebuilds_at_once_the_last_one_begun_ends_well(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    let first = world.store.begin_rebuild(ann).await.unwrap();
    world.push(&[(ann, 20)]).await;
    let of_bob = world.store.begin_rebuild(bob).await.unwrap();
    let second = world.store.begin_rebuild(ann).await.unwrap();
    world.push(&[(ann, 21)]).await;
    // A store may take the second as a part of the first.
    let first_ended = world.finish(ann, first, [11, 20]).await;
    assert_eq!(world.shown(ann).await, first_ended.then(|| vec![21, 20, 11]));
    assert!(world.finish(ann, second, [11, 20]).await);
    assert!(world.finish(bob, of_bob, [12]).await);
    assert_eq!(world.shown(ann).await, Some(vec![21, 20, 11]));
    assert_eq!(world.shown(bob).await, Some(vec![12]));
    let third = world.store.begin_rebuild(ann).await.unwrap();
    assert!(!world.finish(ann, second, [10]).await);
    assert!(world.finish(ann, third, [13]).await);
    assert_eq!(world.shown(ann).await, Some(vec![13]));
}

async fn whom_a_reader_hides_comes_with_its_page(backend: impl Backend) {
    let mut world = World::peopled(backend).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    for reader in [ann, bob] {
        world.wake(reader, [10, 11], None).await;
    }
    world.apply(&[muted(ANN, CEM, true), blocked(ANN, BOB, true)]).await;
    let of_ann = world.page(ann, None, 10).await;
    assert_eq!(numbers(&of_ann.ids), [11, 10]);
    assert!(of_ann.hides.for_reason(HideReason::Muted).iter().eq([&CEM]));
    assert!(of_ann.hides.for_reason(HideReason::Blocked).iter().eq([&BOB]));
    let of_bob = world.page(bob, None, 10).await;
    assert!(of_bob.hides.for_reason(HideReason::BlockedBy).iter().eq([&ANN]));
    world.apply(&[muted(ANN, CEM, false), blocked(ANN, BOB, false)]).await;
    for reader in [ann, bob] {
        assert!(world.page(reader, None, 10).await.hides.is_empty());
    }
}
