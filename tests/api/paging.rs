//! Pages: their sizes, their tokens, and that they stay right while posts arrive.

use roost::proto::v1::{
    BatchPublishPostsRequest, FloorReason, FollowerList, ImportFollowsRequest,
    ListAuthorTimelineRequest, ListFollowersRequest, ListFollowersResponse, ListFollowingRequest,
    ListHomeTimelineRequest, ListHomeTimelineResponse,
};
use tonic::Status;

use crate::server::{Roost, assert_bad_field, assert_not_found, author_of, home_of, post};

#[tokio::test(flavor = "multi_thread")]
async fn a_page_size_is_cut_to_the_greatest_and_never_negative() {
    let roost = Roost::start().await;
    for _ in 0..9 {
        let requests = vec![post(7, "hello"); 100];
        let batch = BatchPublishPostsRequest { requests };
        roost.posts().batch_publish_posts(batch).await.expect("published");
    }
    roost.delivered().await;
    for (page_size, count) in [(0, 20), (1, 1), (i32::MAX, 800)] {
        let home = home_page(&roost, 7, page_size, "").await.expect("a page");
        assert_eq!(home.post_ids.len(), count);
        let request = ListAuthorTimelineRequest { page_size, ..author_of(7) };
        let author = roost.timelines().list_author_timeline(request).await.expect("a page");
        assert_eq!(author.into_inner().post_ids.len(), count);
    }
    assert_bad_field(home_page(&roost, 7, -1, "").await, "page_size");
    let request = ListAuthorTimelineRequest { page_size: -1, ..author_of(7) };
    assert_bad_field(roost.timelines().list_author_timeline(request).await, "page_size");
    assert_bad_field(followers_page(&roost, 7, -1, "").await, "page_size");
    let request = ListFollowingRequest { user_id: 7, page_size: -1, ..Default::default() };
    assert_bad_field(roost.graph().list_following(request).await, "page_size");
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_come_in_pages_by_ascending_id() {
    let roost = Roost::start().await;
    let everybody: Vec<u64> = (1_001..=11_200).collect();
    let shuffled = everybody.iter().rev().copied().collect();
    let list = FollowerList { followee_id: 7, follower_ids: shuffled };
    let imported = roost.import(vec![ImportFollowsRequest { lists: vec![list] }]).await;
    assert_eq!(imported.expect("imported"), 10_200);
    roost.delivered().await;

    let default = followers_page(&roost, 7, 0, "").await.expect("a page");
    assert_eq!(default.user_ids, everybody[..100]);
    let first = followers_page(&roost, 7, i32::MAX, "").await.expect("a page");
    assert_eq!(first.user_ids, everybody[..10_000]);
    let last = followers_page(&roost, 7, i32::MAX, &first.next_page_token).await.expect("a page");
    assert_eq!(last.user_ids, everybody[10_000..]);
    assert_eq!(last.next_page_token, "");

    assert_not_found(roost.graph().list_followers(followers_of(9)).await, "account", 9);
    assert_bad_field(roost.graph().list_followers(followers_of(0)).await, "user_id");
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_very_many_reads_the_newest_of_all_and_is_told_why_they_end() {
    const CAP: usize = 10;
    let roost = Roost::start_with_cap(CAP).await;
    // One more than those whose older posts are asked for.
    let followees = 1_000..6_001;
    let lists = followees.map(|followee_id| FollowerList { followee_id, follower_ids: vec![7] });
    let imported = roost.import(vec![ImportFollowsRequest { lists: lists.collect() }]).await;
    assert_eq!(imported.expect("imported"), 5_001);
    let mut posts = Vec::new();
    for number in 0..3 * CAP as u64 {
        // Many of one, and of some others one each.
        let author = if number % 3 == 0 { 2_000 + number } else { 6_000 };
        posts.insert(0, roost.publish(post(author, "hello")).await);
    }
    roost.delivered().await;
    let request = ListHomeTimelineRequest { page_size: 4, ..home_of(7) };
    let pages = roost.home_pages(request.clone()).await;
    let ids: Vec<u64> = pages.iter().flat_map(|page| page.post_ids.clone()).collect();
    assert_eq!(ids, posts[..CAP]);
    let floor = pages.last().and_then(|page| page.floor).expect("a floor");
    assert_eq!(floor.reason(), FloorReason::Followees);
    assert_eq!(floor.complete_down_to_id, posts[CAP - 1]);

    // With one less they go on to the beginning.
    roost.unfollow(7, 1_000).await;
    let pages = roost.home_pages(request).await;
    let ids: Vec<u64> = pages.iter().flat_map(|page| page.post_ids.clone()).collect();
    assert_eq!(ids, posts);
    let floor = pages.last().and_then(|page| page.floor).expect("a floor");
    assert_eq!(floor.reason(), FloorReason::Beginning);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_only_for_the_list_that_gave_it() {
    let roost = Roost::start().await;
    for (follower, followee) in [(7, 8), (7, 9), (8, 7), (9, 7)] {
        roost.follow(follower, followee).await;
    }
    roost.publish_many(7, 3).await;
    roost.delivered().await;
    let home = home_page(&roost, 7, 1, "").await.expect("a page").next_page_token;
    let followers = followers_page(&roost, 7, 1, "").await.expect("a page").next_page_token;
    assert!(!home.is_empty() && !followers.is_empty());

    let (cut, made_up) = (&home[..home.len() - 1], "next please");
    for token in [cut, made_up, &home.to_uppercase(), &followers] {
        assert_bad_field(home_page(&roost, 7, 1, token).await, "page_token");
    }
    for (user_id, token) in [(8, &followers), (7, &home)] {
        assert_bad_field(followers_page(&roost, user_id, 1, token).await, "page_token");
    }
    assert_bad_field(home_page(&roost, 8, 1, &home).await, "page_token");
    let request = ListAuthorTimelineRequest { page_token: home, ..author_of(7) };
    assert_bad_field(roost.timelines().list_author_timeline(request).await, "page_token");
    let request = ListFollowingRequest { user_id: 7, page_token: followers, ..Default::default() };
    assert_bad_field(roost.graph().list_following(request).await, "page_token");
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_stay_right_while_posts_arrive_and_over_a_restart() {
    let mut roost = Roost::start().await;
    roost.follow(1, 7).await;
    let there = roost.publish_many(7, 30).await;
    roost.delivered().await;

    let mut home = home_page(&roost, 1, 7, "").await.expect("a page");
    let mut author = roost.author(7).await.post_ids;
    let mut read = home.post_ids.clone();
    for arriving in 0.. {
        if home.next_page_token.is_empty() {
            break;
        }
        assert!(arriving < 30, "no end of pages");
        let newer = roost.publish(post(7, "newer")).await;
        author.insert(0, newer);
        if arriving == 1 {
            roost = roost.restart().await;
        }
        home = home_page(&roost, 1, 7, &home.next_page_token).await.expect("a page");
        read.extend(&home.post_ids);
    }
    assert_eq!(read, there);
    roost.delivered().await;
    assert_eq!(roost.home(1).await.post_ids, author);
    assert_eq!(roost.author(7).await.post_ids, author);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn author_pages_stay_right_while_posts_arrive_and_go() {
    let roost = Roost::start().await;
    let mut there = roost.publish_many(7, 10).await;
    roost.delivered().await;
    let mut read = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListAuthorTimelineRequest { page_size: 4, page_token, ..author_of(7) };
        let page = roost.timelines().list_author_timeline(request).await.expect("a page");
        let page = page.into_inner();
        read.extend(page.post_ids);
        if page.next_page_token.is_empty() {
            break;
        }
        // One that was read already, on which the token stands, and a new one.
        if let [.., last] = read[..] {
            roost.delete(last).await;
        }
        roost.publish(post(7, "newer")).await;
        page_token = page.next_page_token;
    }
    assert_eq!(read, there);
    there.retain(|id| *id != read[3] && *id != read[7]);
    roost.delivered().await;
    assert_eq!(roost.author(7).await.post_ids[2..], there);
    roost.stop().await;
}

async fn home_page(
    roost: &Roost,
    user_id: u64,
    page_size: i32,
    token: &str,
) -> Result<ListHomeTimelineResponse, Status> {
    let page_token = token.to_owned();
    let request = ListHomeTimelineRequest { page_size, page_token, ..home_of(user_id) };
    Ok(roost.timelines().list_home_timeline(request).await?.into_inner())
}

async fn followers_page(
    roost: &Roost,
    user_id: u64,
    page_size: i32,
    token: &str,
) -> Result<ListFollowersResponse, Status> {
    let page_token = token.to_owned();
    let request = ListFollowersRequest { page_size, page_token, ..followers_of(user_id) };
    Ok(roost.graph().list_followers(request).await?.into_inner())
}

fn followers_of(user_id: u64) -> ListFollowersRequest {
    ListFollowersRequest { user_id, ..ListFollowersRequest::default() }
}
