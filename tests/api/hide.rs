//! What a reader does not see: muted and blocked accounts, and what a read filters out.

use roost::proto::v1::{
    BatchPublishPostsRequest, BlockRequest, FloorReason, ListBlockedRequest,
    ListHomeTimelineRequest, ListMutedRequest, MuteRequest, Origin, PublishPostRequest,
    UnblockRequest, UnmuteRequest,
};

use crate::server::{Roost, assert_bad_field, assert_not_found, home_of, post};

#[tokio::test(flavor = "multi_thread")]
async fn a_mute_hides_past_and_future_posts_and_reposts_of_them_until_it_ends() {
    let roost = Roost::start().await;
    for followee in [7, 8] {
        roost.follow(1, followee).await;
        roost.follow(2, followee).await;
    }
    let of_seven = roost.publish(post(7, "muted")).await;
    let of_eight = roost.publish(post(8, "not muted")).await;
    let repost = PublishPostRequest { repost_of_id: of_seven, ..post(8, "see") };
    let repost = roost.publish(repost).await;
    roost.delivered().await;
    let all = vec![repost, of_eight, of_seven];
    assert_eq!(roost.home(1).await.post_ids, all);

    mute(&roost, 1, 7).await;
    assert_eq!(roost.home(1).await.post_ids, [of_eight]);
    assert_eq!(roost.home(2).await.post_ids, all);
    let later = roost.publish(post(7, "later")).await;
    let answer = PublishPostRequest { reply_to_id: of_seven, ..post(8, "an answer") };
    let answer = roost.publish(answer).await;
    roost.delivered().await;
    let roost = roost.restart().await;
    assert_eq!(roost.home(1).await.post_ids, [of_eight]);

    let unmuted = roost.graph().unmute(UnmuteRequest { muter_id: 1, muted_id: 7 }).await;
    assert!(unmuted.expect("unmuted").into_inner().applied);
    let home = roost.home(1).await;
    assert_eq!(home.post_ids, [answer, later, repost, of_eight, of_seven]);
    assert!(home.posts.iter().map(|post| post.id).eq(home.post_ids));
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_hides_each_from_the_other_and_ends_without_a_trace() {
    let roost = Roost::start().await;
    roost.follow(7, 8).await;
    roost.follow(8, 7).await;
    let (of_seven, of_eight) =
        (roost.publish(post(7, "seven")).await, roost.publish(post(8, "eight")).await);
    roost.delivered().await;
    let both = [of_eight, of_seven];
    // The second time by the other.
    for (blocker_id, blocked_id) in [(7, 8), (8, 7)] {
        for user in [7, 8] {
            assert_eq!(roost.home(user).await.post_ids, both);
        }
        let blocked = roost.graph().block(BlockRequest { blocker_id, blocked_id }).await;
        assert!(blocked.expect("blocked").into_inner().applied);
        assert_eq!(roost.home(7).await.post_ids, [of_seven]);
        assert_eq!(roost.home(8).await.post_ids, [of_eight]);
        let unblocked = roost.graph().unblock(UnblockRequest { blocker_id, blocked_id }).await;
        assert!(unblocked.expect("unblocked").into_inner().applied);
    }
    for user in [7, 8] {
        assert_eq!(roost.home(user).await.post_ids, both);
    }
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_without_the_muted_are_full_and_go_on_below_the_cap() {
    let roost = Roost::start_with_cap(5).await;
    let mut shown = Vec::new();
    for author in [7, 8] {
        roost.follow(1, author).await;
    }
    for _ in 0..20 {
        shown.insert(0, roost.publish(post(7, "shown")).await);
        roost.publish_many(8, 3).await;
    }
    roost.delivered().await;
    mute(&roost, 1, 8).await;
    let mut read = Vec::new();
    for page in roost.home_pages(ListHomeTimelineRequest { page_size: 3, ..home_of(1) }).await {
        let is_last = page.next_page_token.is_empty();
        assert!(page.post_ids.len() == 3 || is_last, "{:?}", page.post_ids);
        let reason = page.floor.expect("a floor").reason();
        let expected = if read.is_empty() { FloorReason::Cap } else { FloorReason::Beginning };
        assert_eq!(reason, expected, "below {read:?}");
        read.extend(page.post_ids);
    }
    assert_eq!(read, shown);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_hidden_posts_in_a_row_do_not_end_a_timeline() {
    let roost = Roost::start().await;
    for author in [7, 8] {
        roost.follow(1, author).await;
    }
    let oldest = roost.publish(post(7, "oldest")).await;
    for _ in 0..25 {
        let requests = vec![post(8, "muted"); 100];
        let batch = BatchPublishPostsRequest { requests };
        roost.posts().batch_publish_posts(batch).await.expect("published");
    }
    roost.delivered().await;
    mute(&roost, 1, 8).await;
    let pages = roost.home_pages(home_of(1)).await;
    assert!(pages.len() <= 3, "{} pages", pages.len());
    let read: Vec<u64> = pages.into_iter().flat_map(|page| page.post_ids).collect();
    assert_eq!(read, [oldest]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_shows_the_origins_that_it_asks_for() {
    let roost = Roost::start().await;
    roost.follow(1, 7).await;
    let mut of_origin = Vec::new();
    for origin in [Origin::Rss, Origin::Shared, Origin::Exclusive, Origin::Rss] {
        let request = PublishPostRequest { origin: origin.into(), ..post(7, "hello") };
        of_origin.push(roost.publish(request).await);
    }
    roost.delivered().await;
    let home = async |origins: &[Origin]| {
        let origins = origins.iter().map(|origin| (*origin).into()).collect();
        let request = ListHomeTimelineRequest { origins, ids_only: true, ..home_of(1) };
        roost.timelines().list_home_timeline(request).await.expect("a page").into_inner().post_ids
    };
    assert_eq!(home(&[Origin::Rss]).await, [of_origin[3], of_origin[0]]);
    assert_eq!(home(&[Origin::Exclusive, Origin::Shared]).await, [of_origin[2], of_origin[1]]);
    assert_eq!(home(&[]).await.len(), 4);
    for origin in [0, 99] {
        let request = ListHomeTimelineRequest { origins: vec![origin], ..home_of(1) };
        assert_bad_field(roost.timelines().list_home_timeline(request).await, "origins");
    }
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_shown_to_those_who_follow_both_sides_where_a_read_asks_for_it() {
    let roost = Roost::start().await;
    roost.follow(1, 7).await;
    roost.follow(2, 7).await;
    roost.follow(2, 8).await;
    let question = roost.publish(post(8, "where?")).await;
    let answer = |to, text| PublishPostRequest { reply_to_id: to, ..post(7, text) };
    let answered = roost.publish(answer(question, "here")).await;
    let to_itself = roost.publish(answer(answered, "and there")).await;
    let of_one = roost.publish(post(1, "really?")).await;
    let to_one = roost.publish(answer(of_one, "yes")).await;
    roost.delivered().await;
    let home = async |user, followed_replies_only| {
        let request = ListHomeTimelineRequest { followed_replies_only, ..home_of(user) };
        roost.timelines().list_home_timeline(request).await.expect("a page").into_inner().post_ids
    };
    assert_eq!(home(1, false).await, [to_one, of_one, to_itself, answered]);
    assert_eq!(home(1, true).await, [to_one, of_one, to_itself]);
    assert_eq!(home(2, true).await, [to_itself, answered, question]);
    roost.follow(1, 8).await;
    assert_eq!(home(1, true).await, [to_one, of_one, to_itself, answered, question]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_an_account_mutes_and_blocks_is_listed() {
    let roost = Roost::start().await;
    for other in [9, 7, 8] {
        mute(&roost, 1, other).await;
    }
    let blocked = roost.graph().block(BlockRequest { blocker_id: 1, blocked_id: 5 }).await;
    blocked.expect("blocked");
    let page = async |page_token| {
        let request = ListMutedRequest { user_id: 1, page_size: 2, page_token };
        roost.graph().list_muted(request).await.expect("a page").into_inner()
    };
    let first = page(String::new()).await;
    assert_eq!(first.user_ids, [7, 8]);
    let last = page(first.next_page_token).await;
    assert_eq!((last.user_ids, last.next_page_token), (vec![9], String::new()));
    for (user_id, blocks) in [(1, vec![5]), (5, vec![])] {
        let request = ListBlockedRequest { user_id, ..ListBlockedRequest::default() };
        let page = roost.graph().list_blocked(request).await.expect("a page").into_inner();
        assert_eq!(page.user_ids, blocks);
    }
    let unknown = ListMutedRequest { user_id: 77, ..ListMutedRequest::default() };
    assert_not_found(roost.graph().list_muted(unknown).await, "account", 77);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mute_or_block_of_nobody_or_oneself_is_refused() {
    let roost = Roost::start().await;
    for (muter_id, muted_id, field) in [(0, 7, "muter_id"), (7, 0, "muted_id"), (7, 7, "muted_id")]
    {
        assert_bad_field(roost.graph().mute(MuteRequest { muter_id, muted_id }).await, field);
        assert_bad_field(roost.graph().unmute(UnmuteRequest { muter_id, muted_id }).await, field);
    }
    for (blocker_id, blocked_id, field) in
        [(0, 7, "blocker_id"), (7, 0, "blocked_id"), (7, 7, "blocked_id")]
    {
        let block = BlockRequest { blocker_id, blocked_id };
        assert_bad_field(roost.graph().block(block).await, field);
        let unblock = UnblockRequest { blocker_id, blocked_id };
        assert_bad_field(roost.graph().unblock(unblock).await, field);
    }
    assert_eq!(roost.event_count().await, 0);
    roost.stop().await;
}

async fn mute(roost: &Roost, muter_id: u64, muted_id: u64) {
    let muted = roost.graph().mute(MuteRequest { muter_id, muted_id }).await;
    assert!(muted.expect("muted").into_inner().applied);
}
