//! What timelines show, and that it holds.

use std::time::{Duration, Instant};

use roost::proto::v1::{
    Account, FloorReason, FollowRequest, GetAccountRequest, GetPostRequest,
    ListAuthorTimelineRequest, ListAuthorTimelineResponse as AuthorPage, ListHomeTimelineRequest,
    ListHomeTimelineResponse as HomePage, Origin, PublishPostRequest,
};
use tonic::Code;

use crate::server::{
    DEADLINE, Roost, assert_bad_field, assert_not_found, author_of, home_of, post,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_account_has_an_empty_home_and_no_author_timeline() {
    let roost = Roost::start().await;
    let home = roost.home(7).await;
    assert!(home.post_ids.is_empty() && home.posts.is_empty() && home.next_page_token.is_empty());
    assert_eq!(home.floor.expect("a floor").reason(), FloorReason::Beginning);
    let timeline = roost.timelines().list_author_timeline(author_of(7)).await;
    assert_not_found(timeline, "account", 7);

    assert_bad_field(roost.timelines().list_home_timeline(home_of(0)).await, "user_id");
    assert_bad_field(roost.timelines().list_author_timeline(author_of(0)).await, "author_id");
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn following_brings_the_past_and_unfollowing_takes_it_away_at_once() {
    let roost = Roost::start().await;
    let past = roost.publish_many(7, 3).await;
    let own = roost.publish(post(1, "mine")).await;
    roost.delivered().await;
    assert_eq!(roost.home(1).await.post_ids, [own]);

    roost.follow(1, 7).await;
    assert_eq!(roost.home(1).await.post_ids, [own, past[0], past[1], past[2]]);
    let newer = roost.publish(post(7, "newer")).await;
    roost.delivered().await;
    assert_eq!(roost.home(1).await.post_ids, [newer, own, past[0], past[1], past[2]]);

    roost.unfollow(1, 7).await;
    assert_eq!(roost.home(1).await.post_ids, [own]);
    roost.follow(1, 7).await;
    roost.follow(1, 7).await;
    assert_eq!(roost.home(1).await.post_ids, [newer, own, past[0], past[1], past[2]]);
    roost.unfollow(1, 7).await;
    roost.unfollow(1, 7).await;
    assert_eq!(roost.home(1).await.post_ids, [own]);
    let account = roost.graph().get_account(GetAccountRequest { user_id: 7 }).await;
    assert_eq!(account.expect("known").into_inner().follower_count, 0);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_as_many_as_it_may_follows_no_more_until_it_ends_one() {
    let roost = Roost::start_with(|settings| settings.followees_max = 2).await;
    roost.follow(1, 7).await;
    roost.follow(1, 8).await;
    // Again is no more than it was.
    roost.follow(1, 7).await;
    let request = FollowRequest { follower_id: 1, followee_id: 9 };
    let refused = roost.graph().follow(request).await.expect_err("refused");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("following_limit"), "{}", refused.message());
    let followers = roost.graph().get_account(GetAccountRequest { user_id: 9 }).await;
    assert_not_found(followers, "account", 9);
    // Whom others follow is not counted.
    roost.follow(7, 1).await;
    roost.unfollow(1, 8).await;
    roost.follow(1, 9).await;
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_post_is_gone_from_every_read_when_the_call_returns() {
    let roost = Roost::start().await;
    for reader in 1..=3 {
        roost.follow(reader, 7).await;
    }
    let [kept, gone] = [roost.publish(post(7, "kept")).await, roost.publish(post(7, "gone")).await];
    roost.delivered().await;
    // Two readers are awake, and one has never read.
    for reader in 1..=2 {
        assert_eq!(roost.home(reader).await.post_ids, [gone, kept]);
    }
    roost.delete(gone).await;
    for reader in [1, 2, 3, 7] {
        assert_eq!(roost.home(reader).await.post_ids, [kept]);
    }
    assert_eq!(roost.author(7).await.post_ids, [kept]);
    let got = roost.posts().get_post(GetPostRequest { post_id: gone }).await;
    assert_not_found(got, "post", gone);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_come_hydrated_or_as_ids_alone_with_their_references() {
    let roost = Roost::start().await;
    roost.follow(1, 8).await;
    let first = roost.publish(post(7, "first snow")).await;
    let reply = PublishPostRequest { reply_to_id: first, ..post(8, "where?") };
    let reply = roost.publish(reply).await;
    let repost = PublishPostRequest { repost_of_id: first, ..post(8, "") };
    let repost = roost.publish(repost).await;
    roost.delivered().await;

    let home = roost.home(1).await;
    assert_eq!(home.post_ids, [repost, reply]);
    let shown: Vec<_> = home
        .posts
        .iter()
        .map(|post| (post.id, post.text.as_str(), post.reply_to_id, post.repost_of_id))
        .collect();
    assert_eq!(shown, [(repost, "", 0, first), (reply, "where?", first, 0)]);
    assert!(home.posts.iter().all(|post| post.origin() == Origin::Shared));
    assert!(home.posts.iter().all(|post| post.create_time.is_some()));

    let ids_only = ListHomeTimelineRequest { ids_only: true, ..home_of(1) };
    let ids = roost.timelines().list_home_timeline(ids_only).await.expect("a page").into_inner();
    assert_eq!((ids.post_ids, ids.posts.len()), (home.post_ids, 0));
    assert_eq!(ids.floor, home.floor);
    let ids_only = ListAuthorTimelineRequest { ids_only: true, ..author_of(8) };
    let ids = roost.timelines().list_author_timeline(ids_only).await.expect("a page").into_inner();
    assert_eq!((ids.post_ids, ids.posts.len()), (vec![repost, reply], 0));
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_timeline_is_the_newest_cap_posts_whatever_is_taken_away() {
    let roost = Roost::start_with_cap(5).await;
    roost.follow(1, 7).await;
    roost.follow(1, 8).await;
    let old = roost.publish_many(7, 4).await;
    roost.delivered().await;
    assert_eq!(roost.home(1).await.floor.expect("a floor").reason(), FloorReason::Beginning);

    let new = roost.publish_many(8, 4).await;
    roost.delivered().await;
    let home = roost.home(1).await;
    assert_eq!(home.post_ids, [&new[..], &old[..1]].concat());
    let floor = home.floor.expect("a floor");
    assert_eq!((floor.reason(), floor.complete_down_to_id), (FloorReason::Cap, old[0]));
    let author = roost.author(7).await;
    assert_eq!(author.post_ids, old);
    assert_eq!(author.floor.expect("a floor").reason(), FloorReason::Beginning);

    roost.delete(new[1]).await;
    assert_eq!(roost.home(1).await.post_ids, [new[0], new[2], new[3], old[0], old[1]]);
    roost.unfollow(1, 8).await;
    let home = roost.home(1).await;
    assert_eq!(home.post_ids, old);
    let floor = home.floor.expect("a floor");
    assert_eq!((floor.reason(), floor.complete_down_to_id), (FloorReason::Beginning, 0));
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paging_goes_on_below_the_cap_to_the_end_of_the_author_timelines() {
    let roost = Roost::start_with_cap(5).await;
    for author in [7, 8, 9] {
        roost.follow(1, author).await;
    }
    let mut posts = Vec::new();
    for round in 0..10 {
        for author in [1, 7, 8, 9] {
            posts.push(roost.publish(post(author, &format!("round {round}"))).await);
        }
    }
    posts.reverse();
    roost.delivered().await;
    roost.delete(posts[20]).await;
    roost.unfollow(1, 9).await;
    let nines = roost.author(9).await.post_ids;
    let gone = posts[20];
    posts.retain(|id| *id != gone && !nines.contains(id));

    for page_size in [1, 3, 5, 7, 100] {
        let (mut read, mut floors) = (Vec::new(), Vec::new());
        for page in roost.home_pages(ListHomeTimelineRequest { page_size, ..home_of(1) }).await {
            assert!(page.posts.iter().map(|post| post.id).eq(page.post_ids.iter().copied()));
            floors.push((read.len(), page.floor.expect("a floor")));
            read.extend(page.post_ids);
        }
        assert_eq!(read, posts, "pages of {page_size}");
        for (above, floor) in floors {
            let (reason, down_to) =
                if above < 5 { (FloorReason::Cap, posts[4]) } else { (FloorReason::Beginning, 0) };
            assert_eq!((floor.reason(), floor.complete_down_to_id), (reason, down_to));
        }
    }
    roost.stop().await;
}

/// How many deliveries of one post find a reader asleep.
async fn asleep_for(roost: &Roost, author: u64, posts: &mut Vec<u64>) -> u64 {
    let skipped = async || roost.status().await.fanout.expect("counters").skipped_deliveries;
    let before = skipped().await;
    posts.insert(0, roost.publish(post(author, "hello")).await);
    roost.delivered().await;
    skipped().await - before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_that_nobody_reads_sleeps_and_the_next_read_makes_it_anew() {
    let roost = Roost::start_sleeping_after(Duration::from_secs(2)).await;
    for reader in [1, 2] {
        roost.follow(reader, 7).await;
        roost.home(reader).await;
    }
    roost.publish(post(8, "of the past")).await;
    roost.delivered().await;
    let mut posts = Vec::new();
    // The author has never read its own.
    assert_eq!(asleep_for(&roost, 7, &mut posts).await, 1);
    let begun = Instant::now();
    while asleep_for(&roost, 7, &mut posts).await < 2 {
        assert!(posts.starts_with(&roost.home(2).await.post_ids));
        // What is written to it is no read: the past comes with a follow, and goes.
        roost.follow(1, 8).await;
        roost.unfollow(1, 8).await;
        assert!(begun.elapsed() < DEADLINE, "nobody sleeps");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(1), "it slept at once");
    assert_eq!(asleep_for(&roost, 7, &mut posts).await, 2, "the one who reads is awake");
    let pages = roost.home_pages(home_of(1)).await;
    assert!(pages.iter().flat_map(|page| &page.post_ids).eq(&posts), "it has everything");
    assert_eq!(asleep_for(&roost, 7, &mut posts).await, 1);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_the_same_after_a_restart() {
    let roost = Roost::start_with_cap(10).await;
    for author in [7, 8, 9] {
        roost.follow(1, author).await;
        roost.publish_many(author, 4).await;
    }
    let reply_to_id = roost.publish(post(9, "to be answered")).await;
    roost.publish(PublishPostRequest { reply_to_id, ..post(1, "where?") }).await;
    let gone = roost.publish(post(7, "gone")).await;
    roost.delete(gone).await;
    roost.unfollow(1, 8).await;
    roost.delivered().await;

    let before = everything(&roost).await;
    assert_eq!(before.0[0].post_ids.len(), 10);
    let roost = roost.restart().await;
    assert_eq!(everything(&roost).await, before);
    let got = roost.posts().get_post(GetPostRequest { post_id: gone }).await;
    assert_not_found(got, "post", gone);
    let newest = roost.publish(post(7, "newest")).await;
    assert!(newest > gone, "ids of before the restart must not come again");
    roost.stop().await;
}

/// The home and author timelines and the counts of all accounts.
async fn everything(roost: &Roost) -> (Vec<HomePage>, Vec<AuthorPage>, Vec<Account>) {
    let mut all = (Vec::new(), Vec::new(), Vec::new());
    for user_id in [1, 7, 8, 9] {
        all.0.push(roost.home(user_id).await);
        all.1.push(roost.author(user_id).await);
        let account = roost.graph().get_account(GetAccountRequest { user_id }).await;
        all.2.push(account.expect("known").into_inner());
    }
    all
}
