//! Accounts, posts, follows, requests and author timelines.

use std::collections::BTreeSet;

use roost::{
    domain::{Event, Origin, Post, PostId, Reference, UserId},
    store::{Cursor, FollowCounts, FollowSide, Homes, Ledger, Lookups, NewestPosts, Work},
};

use crate::{
    Backend, CAP,
    fixture::{
        ANN, BOB, CEM, DEE, NONE, PARTITION, World, applied, deleted, followed, named, numbers,
        post, post_of, unfollowed,
    },
    on_every_backend,
};

on_every_backend! {
    an_account_is_known_once_an_event_names_it
    posts_are_kept_as_they_were_written
    a_deleted_post_is_nowhere
    a_post_that_was_read_is_gone_once_it_is_deleted
    a_request_makes_one_post
    a_request_that_comes_again_with_other_words_changes_nothing
    a_request_that_made_a_deleted_post_makes_no_other
    a_partitions_events_are_counted
    events_applied_again_change_nothing
    events_applied_again_after_reopening_change_nothing
    a_batch_that_is_half_known_is_half_applied
    a_replay_brings_nothing_back_for_a_moment
    followers_are_paged_by_handle
    follows_are_listed_by_user_id
    many_followers_are_paged
    follows_are_counted_once
    the_greatest_post_is_remembered
    a_remembered_post_is_known_until_it_is_gone
    a_post_deleted_before_it_is_remembered_stays_gone
    requests_are_each_authors_own
    an_author_timeline_is_paged
    the_newest_posts_say_what_is_missing
    cursors_are_given_to_who_resumes_until_there_are_others
}

async fn an_account_is_known_once_an_event_names_it(backend: impl Backend) {
    let mut world = World::new(backend).await;
    assert!(!world.store.exists(ANN).await.unwrap());
    world.apply(&[post(10, ANN)]).await;
    world.apply(&[followed(BOB, &[CEM])]).await;
    let users = [ANN, BOB, CEM];
    let accounts = world.accounts(users).await;
    assert_eq!(accounts.iter().collect::<BTreeSet<_>>().len(), 3);
    world.apply(&[unfollowed(DEE, UserId(41)), deleted(99, UserId(42))]).await;
    assert_eq!(world.accounts(users).await, accounts);
    let world = world.reopen().await;
    world.accounts([ANN, BOB, CEM, DEE, UserId(41), UserId(42)]).await;
    assert!(!world.store.exists(UserId(43)).await.unwrap());
}

async fn posts_are_kept_as_they_were_written(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let plain = post_of(10, ANN);
    let rich = Post {
        text: "жук 🐞".to_owned(),
        origin: Origin::Rss,
        link: Some("https://example.org/?q=1".to_owned()),
        reply_to: Some(Reference { post: PostId(10), author: BOB }),
        ..post_of(11, BOB)
    };
    let repost = Post {
        text: String::new(),
        repost_of: Some(Reference { post: PostId(11), author: BOB }),
        ..post_of(u64::MAX >> 1, ANN)
    };
    let posts = [plain, rich, repost];
    let events = posts.clone().map(|post| Event::PostPublished { post, request_id: None });
    assert_eq!(world.apply(&events).await, NONE);
    let asked = [11, 12, 10, u64::MAX >> 1].map(PostId);
    let expected = [Some(posts[1].clone()), None, Some(posts[0].clone()), Some(posts[2].clone())];
    for _ in 0..2 {
        let found = world.store.posts(&asked).await.unwrap();
        assert!(found.iter().map(Option::as_deref).eq(expected.iter().map(Option::as_ref)));
        world = world.reopen().await;
    }
}

async fn a_deleted_post_is_nowhere(backend: impl Backend) {
    let mut world = World::new(backend).await;
    world.apply(&[post(10, ANN), post(11, ANN), post(12, ANN)]).await;
    let ann = world.account(ANN).await;
    assert_eq!(world.newest(ann).await.0, [10, 11, 12]);
    assert_eq!(world.existing(&[10, 11, 12]).await, [10, 11, 12]);
    assert_eq!(world.apply(&[deleted(11, ANN), deleted(13, ANN)]).await, NONE);
    for _ in 0..2 {
        let ann = world.account(ANN).await;
        assert_eq!(world.existing(&[10, 11, 12]).await, [10, 12]);
        assert_eq!(world.author_page(ANN, None, 10).await, [12, 10]);
        assert_eq!(world.newest(ann).await.0, [10, 12]);
        world = world.reopen().await;
    }
}

async fn a_post_that_was_read_is_gone_once_it_is_deleted(backend: impl Backend) {
    let mut world = World::new(backend).await;
    world.apply(&[post(10, ANN), post(11, ANN), post(12, BOB)]).await;
    for _ in 0..2 {
        assert_eq!(world.existing(&[12, 9, 11, 10]).await, [12, 11, 10]);
    }
    world.apply(&[deleted(11, ANN)]).await;
    assert_eq!(world.existing(&[12, 9, 11, 10]).await, [12, 10]);
    world.store.forget_deleted(PostId(11)).await.unwrap();
    assert_eq!(world.existing(&[12, 9, 11, 10]).await, [12, 10]);
    world.apply(&[post(9, BOB)]).await;
    assert_eq!(world.existing(&[12, 9, 11, 10]).await, [12, 9, 10]);
}

async fn a_request_makes_one_post(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let batch = [
        named(10, ANN, "a"),
        named(13, ANN, "b"),
        named(12, ANN, "a"),
        named(11, ANN, "a"),
        named(14, BOB, "a"),
        named(15, BOB, "b"),
    ];
    assert_eq!(world.apply(&batch).await, [11, 12]);
    assert_eq!(world.apply(&[named(20, ANN, "b"), named(21, ANN, "c")]).await, [20]);
    world = world.reopen().await;
    assert_eq!(world.apply(&[named(30, ANN, "c"), named(31, ANN, "d")]).await, [30]);
    world = world.reopen().await;
    assert_eq!(world.author_page(ANN, None, 10).await, [31, 21, 13, 10]);
    assert_eq!(world.author_page(BOB, None, 10).await, [15, 14]);
    assert_eq!(world.existing(&[11, 12, 20, 30]).await, NONE);
    let made = world.requests(&[(ANN, "a"), (ANN, "b"), (ANN, "c"), (ANN, "d")]).await;
    assert_eq!(made, [Some(10), Some(13), Some(21), Some(31)]);
}

/// A server that does not know what became of a request gives the same id to the next try.
async fn a_request_that_comes_again_with_other_words_changes_nothing(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let said = |id, words: &str| {
        let mut post = post_of(id, ANN);
        post.text = words.to_owned();
        Event::PostPublished { post, request_id: Some(id.to_string()) }
    };
    assert_eq!(world.apply(&[said(10, "first"), said(10, "second")]).await, NONE);
    world.apply(&[said(10, "third"), said(12, "other")]).await;
    world.apply(&[deleted(12, ANN)]).await;
    world.apply(&[said(12, "again")]).await;
    for _ in 0..2 {
        let posts = world.store.posts(&[PostId(10), PostId(12)]).await.unwrap();
        assert_eq!(posts[0].as_ref().map(|post| post.text.as_str()), Some("first"));
        assert_eq!(posts[1], None);
        assert_eq!(world.author_page(ANN, None, 10).await, [10]);
        world = world.reopen().await;
    }
}

async fn a_request_that_made_a_deleted_post_makes_no_other(backend: impl Backend) {
    let mut world = World::new(backend).await;
    world.apply(&[named(10, ANN, "a")]).await;
    world.apply(&[deleted(10, ANN)]).await;
    assert_eq!(world.apply(&[named(11, ANN, "a")]).await, [11]);
    assert_eq!(world.author_page(ANN, None, 10).await, NONE);
}

async fn a_partitions_events_are_counted(backend: impl Backend) {
    let store = backend.open().await;
    assert_eq!(
        [applied(&store, 0).await, applied(&store, 1).await, applied(&store, 2).await],
        [0, 0, 0]
    );
    store.apply(1, 0, [post(10, ANN), post(11, ANN)].into()).await.unwrap();
    store.apply(2, 0, [followed(BOB, &[CEM])].into()).await.unwrap();
    store.apply(1, 2, [deleted(10, ANN)].into()).await.unwrap();
    assert_eq!(
        [applied(&store, 0).await, applied(&store, 1).await, applied(&store, 2).await],
        [0, 3, 1]
    );
    store.apply(1, 0, [post(10, ANN)].into()).await.unwrap();
    assert_eq!(applied(&store, 1).await, 3);
    store.sync().await.unwrap();
    drop(store);
    let store = backend.open().await;
    assert_eq!(
        [applied(&store, 0).await, applied(&store, 1).await, applied(&store, 2).await],
        [0, 3, 1]
    );
}

async fn events_applied_again_change_nothing(backend: impl Backend) {
    let mut world = World::eventful(backend).await;
    let before = world.ledger().await;
    for from in 0..world.log.len() {
        let absent = world.replay(from..world.log.len()).await;
        assert!(absent.iter().all(|id| !before.posts.contains_key(id)), "{absent:?}");
        assert_eq!(world.ledger().await, before, "from {from}");
    }
    assert_eq!(world.replay(0..world.log.len()).await, [11, 12]);
    assert_eq!(world.apply(&[post(99, ANN)]).await, NONE);
}

async fn events_applied_again_after_reopening_change_nothing(backend: impl Backend) {
    let mut world = World::eventful(backend).await;
    let before = world.ledger().await;
    for from in (0..world.log.len()).rev() {
        world = world.reopen().await;
        assert_eq!(world.ledger().await, before);
        for offset in from..world.log.len() {
            world.replay(offset..offset + 1).await;
        }
        assert_eq!(world.ledger().await, before, "from {from}");
    }
}

async fn a_batch_that_is_half_known_is_half_applied(backend: impl Backend) {
    let mut world = World::new(backend).await;
    world.apply(&[named(10, ANN, "a"), post(11, ANN), deleted(11, ANN)]).await;
    world.log.extend([named(12, ANN, "a"), post(13, ANN), followed(ANN, &[BOB])]);
    assert_eq!(world.replay(1..6).await, [11, 12]);
    assert_eq!(world.author_page(ANN, None, 10).await, [13, 10]);
    assert_eq!(world.listed(ANN, FollowSide::Followers).await, [BOB]);
    assert_eq!(applied(&world.store, PARTITION).await, 6);
}

async fn a_replay_brings_nothing_back_for_a_moment(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let taken_away_later = [post(10, ANN), followed(ANN, &[BOB, CEM])];
    world.apply(&taken_away_later).await;
    world.apply(&[deleted(10, ANN), unfollowed(ANN, BOB)]).await;
    assert_eq!(world.replay(0..2).await, [10]);
    assert_eq!(world.existing(&[10]).await, NONE);
    assert_eq!(world.author_page(ANN, None, 10).await, NONE);
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    assert!(!world.store.follows(bob, ann).await.unwrap());
    assert_eq!(world.listed(ANN, FollowSide::Followers).await, [CEM]);
}

async fn followers_are_paged_by_handle(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let followers: Vec<UserId> = (1..=27).map(|number| UserId(number * 7_919 % 101)).collect();
    world.apply(&[followed(ANN, &followers[..9]), post(10, followers[20])]).await;
    world.apply(&[followed(ANN, &followers[5..]), unfollowed(ANN, followers[3])]).await;
    world.apply(&[unfollowed(ANN, followers[26])]).await;
    let ann = world.account(ANN).await;
    let mut expected = Vec::new();
    for follower in followers.iter().filter(|user| ![followers[3], followers[26]].contains(user)) {
        expected.push(world.account(*follower).await);
    }
    expected.sort_unstable();
    for count_max in [1, 2, 7, 24, 25, 26, 1_000] {
        let mut paged = Vec::new();
        loop {
            let after = paged.last().copied();
            let page = world.store.followers_after(ann, after, count_max).await.unwrap();
            let is_last = page.len() < count_max;
            paged.extend(page);
            if is_last {
                break;
            }
        }
        assert_eq!(paged, expected, "{count_max} at a time");
    }
    let stranger = world.account(followers[26]).await;
    let after_stranger = world.store.followers_after(ann, Some(stranger), 1_000).await.unwrap();
    expected.retain(|follower| *follower > stranger);
    assert_eq!(after_stranger, expected);
    let lonely = world.account(followers[0]).await;
    assert_eq!(world.store.followers_after(lonely, None, 10).await.unwrap(), []);
}

/// More than what a store may keep in one piece.
async fn many_followers_are_paged(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let all: Vec<UserId> = (1..=5_000).map(|number| UserId(number * 3)).collect();
    world.apply(&[followed(ANN, &all)]).await;
    // Some of the pieces are nearly empty.
    let gone = 1_000..2_400;
    world
        .apply(&all[gone.clone()].iter().map(|user| unfollowed(ANN, *user)).collect::<Vec<_>>())
        .await;
    let ann = world.account(ANN).await;
    let left: Vec<UserId> = [&all[..gone.start], &all[gone.end..]].concat();
    for count_max in [1, 300, 1_700] {
        for after in (0..16_000).step_by(997).map(UserId) {
            let page = world.store.list_follows(ann, FollowSide::Followers, Some(after), count_max);
            let expected = left.iter().copied().filter(|user| *user > after).take(count_max);
            assert_eq!(page.await.unwrap(), expected.collect::<Vec<_>>(), "after {after}");
        }
    }
}

async fn follows_are_listed_by_user_id(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let users = [500, 3, u64::MAX >> 1, 77, 4, 1 << 40, u64::MAX - 1, (1 << 63) + 1].map(UserId);
    world.apply(&[followed(ANN, &users)]).await;
    for user in users {
        world.apply(&[followed(user, &[ANN, BOB])]).await;
    }
    world.apply(&[unfollowed(ANN, UserId(77)), unfollowed(UserId(4), ANN)]).await;
    for _ in 0..2 {
        let [ann, bob, stranger] = world.accounts([ANN, BOB, UserId(77)]).await;
        let greatest = [1 << 40, u64::MAX >> 1, (1 << 63) + 1, u64::MAX - 1];
        let followers = [&[3, 4, 500][..], &greatest].concat().into_iter().map(UserId);
        let followers: Vec<UserId> = followers.collect();
        let following = [&[3, 77, 500][..], &greatest].concat().into_iter().map(UserId);
        let following: Vec<UserId> = following.collect();
        for (side, expected) in
            [(FollowSide::Followers, &followers), (FollowSide::Following, &following)]
        {
            let mid = u64::MAX >> 1;
            let afters =
                [0, 2, 3, 4, 77, 500, 1 << 40, mid - 1, mid, 1 << 63, u64::MAX - 2, u64::MAX];
            for after in afters.map(UserId) {
                for count_max in [1, 2, 7, 100] {
                    let listed = world.store.list_follows(ann, side, Some(after), count_max).await;
                    let rest = expected.iter().filter(|user| **user > after);
                    let page: Vec<UserId> = rest.take(count_max).copied().collect();
                    assert_eq!(listed.unwrap(), page, "{side:?} after {after}");
                }
            }
            assert_eq!(world.listed(ANN, side).await, *expected);
        }
        assert_eq!(world.listed(BOB, FollowSide::Followers).await, []);
        assert!(world.store.follows(bob, stranger).await.unwrap());
        assert!(!world.store.follows(stranger, ann).await.unwrap());
        let handles = world.store.following(ann).await.unwrap();
        let mut expected = Vec::new();
        for user in following {
            expected.push(world.account(user).await);
        }
        expected.sort_unstable();
        assert_eq!(handles, expected);
        world = world.reopen().await;
    }
}

async fn follows_are_counted_once(backend: impl Backend) {
    let mut world = World::new(backend).await;
    world.apply(&[followed(ANN, &[BOB, CEM, BOB]), followed(ANN, &[BOB]), post(10, DEE)]).await;
    world.apply(&[followed(DEE, &[ANN]), unfollowed(ANN, DEE), unfollowed(BOB, CEM)]).await;
    world.apply(&[unfollowed(ANN, CEM), unfollowed(ANN, CEM)]).await;
    for _ in 0..2 {
        let mut counts = Vec::new();
        for account in world.accounts([ANN, BOB, CEM, DEE]).await {
            counts.push(world.store.count_follows(account).await.unwrap());
        }
        let expected = [(1, 1), (0, 1), (0, 0), (1, 0)];
        let expected = expected.map(|(followers, following)| FollowCounts { followers, following });
        assert_eq!(counts, expected);
        world = world.reopen().await;
    }
}

async fn the_greatest_post_is_remembered(backend: impl Backend) {
    let mut world = World::new(backend).await;
    assert_eq!(world.store.greatest_post().await.unwrap(), None);
    world.apply(&[followed(ANN, &[BOB])]).await;
    assert_eq!(world.store.greatest_post().await.unwrap(), None);
    world.apply(&[post(10, ANN), post(30, BOB), post(20, ANN)]).await;
    world.apply(&[deleted(30, BOB), post(25, ANN)]).await;
    assert_eq!(world.store.greatest_post().await.unwrap(), Some(PostId(30)));
    let world = world.reopen().await;
    assert_eq!(world.store.greatest_post().await.unwrap(), Some(PostId(30)));
}

async fn a_remembered_post_is_known_until_it_is_gone(backend: impl Backend) {
    let mut world = World::new(backend).await;
    for id in [10, 11] {
        let before = world.store.moment();
        world.store.remember(post_of(id, ANN), before);
    }
    // A store need not heed the hint.
    let known = world.existing(&[10, 11, 12]).await;
    assert!(known == [10, 11] || known == NONE, "{known:?}");
    world.apply(&[named(9, ANN, "a"), post(10, ANN)]).await;
    assert_eq!(world.apply(&[named(11, ANN, "a")]).await, [11]);
    assert_eq!(world.existing(&[9, 10, 11]).await, [9, 10]);
    world.apply(&[deleted(10, ANN)]).await;
    assert_eq!(world.existing(&[9, 10, 11]).await, [9]);
}

async fn a_post_deleted_before_it_is_remembered_stays_gone(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let before = world.store.moment();
    world.apply(&[post(10, ANN)]).await;
    world.apply(&[deleted(10, ANN)]).await;
    world.store.remember(post_of(10, ANN), before);
    assert_eq!(world.existing(&[10]).await, NONE);
}

async fn requests_are_each_authors_own(backend: impl Backend) {
    let mut world = World::new(backend).await;
    assert_eq!(world.requests(&[(ANN, "a")]).await, [None]);
    assert!(world.requests(&[]).await.is_empty());
    world.apply(&[named(10, ANN, "a"), named(11, BOB, "a"), named(12, ANN, "")]).await;
    world.apply(&[post(13, ANN)]).await;
    let asked = [(BOB, "a"), (BOB, "b"), (ANN, "a"), (CEM, "a"), (ANN, "aa"), (ANN, "")];
    for _ in 0..2 {
        let made = world.requests(&asked).await;
        assert_eq!(made, [Some(11), None, Some(10), None, None, Some(12)]);
        world = world.reopen().await;
    }
}

async fn an_author_timeline_is_paged(backend: impl Backend) {
    let mut world = World::new(backend).await;
    assert_eq!(world.author_page(ANN, None, 10).await, NONE);
    let neighbour = UserId(ANN.0 + 1);
    world.apply(&[post(30, ANN), post(10, ANN), post(25, neighbour), post(20, ANN)]).await;
    assert_eq!(world.author_page(ANN, None, 10).await, [30, 20, 10]);
    assert_eq!(world.author_page(ANN, None, 2).await, [30, 20]);
    assert_eq!(world.author_page(ANN, Some(30), 1).await, [20]);
    assert_eq!(world.author_page(ANN, Some(29), 10).await, [20, 10]);
    assert_eq!(world.author_page(ANN, Some(u64::MAX), 10).await, [30, 20, 10]);
    assert_eq!(world.author_page(ANN, Some(10), 10).await, NONE);
    assert_eq!(world.author_page(neighbour, None, 10).await, [25]);
    let many: Vec<Event> = (100..100 + 5 * CAP as u64).map(|id| post(id, BOB)).collect();
    world.apply(&many).await;
    let all: Vec<u64> = (100..100 + 5 * CAP as u64).rev().collect();
    assert_eq!(world.author_page(BOB, None, 1_000).await, all);
}

async fn the_newest_posts_say_what_is_missing(backend: impl Backend) {
    let mut world = World::new(backend).await;
    let entries_max = world.store.entries_max() as u64;
    assert!(entries_max > CAP as u64);
    world.apply(&[followed(ANN, &[BOB])]).await;
    let mut all = BTreeSet::new();
    let grow_to = |count: u64| (1..=count).map(|number| number * 10);
    for count in [0, 1, entries_max, entries_max + 1, 3 * entries_max] {
        let new: Vec<u64> = grow_to(count).filter(|id| !all.contains(id)).collect();
        let events: Vec<Event> = new.iter().map(|id| post(*id, ANN)).collect();
        world.apply(&events).await;
        all.extend(new);
        world.assert_newest(ANN, &all).await;
        let nothing_is_missing = world.newest(world.account(ANN).await).await.1.is_none();
        assert_eq!(nothing_is_missing, count <= entries_max, "{count} posts");
    }
    for id in [3 * entries_max * 10, (3 * entries_max - 5) * 10, 10] {
        world.apply(&[deleted(id, ANN)]).await;
        all.remove(&id);
        world.assert_newest(ANN, &all).await;
    }
    let late = 15;
    world.apply(&[post(late, ANN)]).await;
    all.insert(late);
    world.assert_newest(ANN, &all).await;
    let world = world.reopen().await;
    world.assert_newest(ANN, &all).await;
    let [ann, bob] = world.accounts([ANN, BOB]).await;
    for count_max in [1, 3, entries_max as usize] {
        let newest = world.store.newest_of(&[bob, ann], count_max).await.unwrap();
        assert_eq!(newest[0], NewestPosts::default());
        let NewestPosts { ids, floor } = &newest[1];
        let above = all.iter().copied().filter(|id| floor.is_none_or(|floor| *id > floor.0));
        assert_eq!(numbers(ids), above.collect::<Vec<_>>());
        assert!(ids.len() <= count_max && !ids.is_empty());
    }
    let newest = world.store.newest_of(&[ann], 1).await.unwrap();
    assert_eq!(newest[0].ids.last(), all.last().map(|id| PostId(*id)).as_ref());
}

async fn cursors_are_given_to_who_resumes_until_there_are_others(backend: impl Backend) {
    let world = World::peopled(backend).await;
    let mut accounts = world.accounts([ANN, BOB, CEM]).await;
    accounts.sort_unstable();
    let [ann, bob, cem] = accounts;
    let resumed = async || world.store.resume(PARTITION, 9).await.unwrap().cursors;
    assert_eq!(resumed().await, []);
    let deliver = Work::Deliver(vec![PostId(10), PostId(u64::MAX >> 1)]);
    let deliver = Cursor { author: ann, work: deliver, reached: cem };
    let remove = Cursor { author: bob, work: Work::Remove(PostId(12)), reached: ann };
    let both = [deliver.clone(), remove];
    world.store.delivered(PARTITION, 0, &both).await.unwrap();
    // As often as it is resumed, and also where it was let go in order: a fan-out to
    // millions outlives its worker.
    for _ in 0..2 {
        assert_eq!(resumed().await, both);
    }
    world.store.release(PARTITION).await.unwrap();
    assert_eq!(resumed().await, both);
    assert_eq!(world.store.resume(PARTITION + 1, 9).await.unwrap().cursors, []);
    // Those that are done by now are not there any more.
    world.store.delivered(PARTITION, 0, &both[..1]).await.unwrap();
    world.store.delivered(PARTITION, 1, &both[..1]).await.unwrap();
    assert_eq!(resumed().await, [deliver]);
    world.store.delivered(PARTITION, 1, &[]).await.unwrap();
    assert_eq!(resumed().await, []);
}
