//! Reposts: a post that many repeat appears once, and the next takes over.

use roost::proto::v1::{
    GetPostRequest, ListHomeTimelineRequest, Post, PublishPostRequest, StreamHomeTimelineRequest,
};

use crate::server::{Roost, assert_bad_field, assert_not_found, home_of, post};

const NEAR_MAX: usize = 40;

/// Account 1 follows 7, 8 and 9.
async fn start() -> Roost {
    let roost = Roost::start().await;
    for followee in [7, 8, 9] {
        roost.follow(1, followee).await;
    }
    roost
}

fn repost(author_id: u64, repost_of_id: u64) -> PublishPostRequest {
    PublishPostRequest { repost_of_id, ..post(author_id, "") }
}

async fn home_with_all(roost: &Roost, user_id: u64) -> Vec<u64> {
    let request = ListHomeTimelineRequest { all_reposts: true, page_size: 800, ..home_of(user_id) };
    roost.timelines().list_home_timeline(request).await.expect("a page").into_inner().post_ids
}

#[tokio::test(flavor = "multi_thread")]
async fn of_reposts_near_each_other_the_first_is_seen_and_the_next_takes_over() {
    let roost = start().await;
    // By somebody whom account 1 does not follow.
    let original = roost.publish(post(5, "look")).await;
    let first = roost.publish(repost(7, original)).await;
    let second = roost.publish(repost(8, original)).await;
    let quote = roost.publish(PublishPostRequest { text: "see".into(), ..repost(9, second) }).await;
    roost.delivered().await;
    assert_eq!(roost.home(1).await.post_ids, [quote, first]);
    assert_eq!(home_with_all(&roost, 1).await, [quote, second, first]);

    roost.delete(first).await;
    assert_eq!(roost.home(1).await.post_ids, [quote, second]);
    let roost = roost.restart().await;
    assert_eq!(roost.home(1).await.post_ids, [quote, second]);

    // Who follows its author sees the original itself.
    roost.follow(1, 5).await;
    assert_eq!(roost.home(1).await.post_ids, [quote, original]);
    roost.unfollow(1, 5).await;
    assert_eq!(roost.home(1).await.post_ids, [quote, second]);

    // Whoever deletes it deletes what only repeats it; the quote has something of its own.
    roost.delete(original).await;
    assert_eq!(roost.home(1).await.post_ids, [quote]);
    assert_eq!(roost.author(8).await.post_ids, [second]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repost_far_above_is_seen_again_wherever_pages_end() {
    let roost = start().await;
    let original = roost.publish(post(7, "look")).await;
    let others = roost.publish_many(8, NEAR_MAX - 1).await;
    let near = roost.publish(repost(8, original)).await;
    let others = [roost.publish_many(8, NEAR_MAX).await, others].concat();
    let far = roost.publish(repost(9, original)).await;
    roost.delivered().await;
    let expected: Vec<u64> = [&[far], &others[..], &[original]].concat();
    for page_size in [1, 7, 800] {
        let request = ListHomeTimelineRequest { page_size, ids_only: true, ..home_of(1) };
        let pages = roost.home_pages(request).await;
        let ids: Vec<u64> = pages.into_iter().flat_map(|page| page.post_ids).collect();
        assert_eq!(ids, expected, "in pages of {page_size}");
    }
    assert!(home_with_all(&roost, 1).await.contains(&near));
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repost_of_a_repost_is_one_of_the_original_and_shows_it() {
    let roost = start().await;
    let original = roost.publish(post(7, "look")).await;
    let first = roost.publish(repost(8, original)).await;
    let second = roost.publish(repost(9, first)).await;
    let answer = PublishPostRequest { reply_to_id: first, ..post(9, "I do") };
    let answer = roost.publish(answer).await;
    roost.delivered().await;
    let get = async |post_id| {
        roost.posts().get_post(GetPostRequest { post_id }).await.expect("a post").into_inner()
    };
    assert_eq!(get(second).await.repost_of_id, original);
    assert_eq!(get(answer).await.reply_to_id, original);

    let request = ListHomeTimelineRequest { all_reposts: true, ..home_of(1) };
    let page = roost.timelines().list_home_timeline(request).await.expect("a page").into_inner();
    let text = |post: &Post| post.original.as_ref().map(|original| original.text.clone());
    let shown: Vec<_> = page.posts.iter().map(|post| (post.id, text(post))).collect();
    let look = Some("look".to_owned());
    let expected = [(answer, None), (second, look.clone()), (first, look), (original, None)];
    assert_eq!(shown, expected);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repost_of_what_is_gone_is_refused() {
    let roost = start().await;
    let original = roost.publish(post(7, "look")).await;
    let first = roost.publish(repost(8, original)).await;
    roost.delete(original).await;
    let refused = roost.posts().publish_post(repost(9, first)).await;
    assert_not_found(refused, "post", first);
    let refused = roost.posts().publish_post(repost(9, original)).await;
    assert_not_found(refused, "post", original);
    assert_bad_field(roost.try_publish(post(9, "")).await, "text");
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_sends_an_original_once() {
    let roost = start().await;
    let original = roost.publish(post(7, "look")).await;
    roost.delivered().await;
    let request = StreamHomeTimelineRequest { user_id: 1, ..Default::default() };
    let stream = roost.timelines().stream_home_timeline(request).await.expect("a stream");
    let mut stream = stream.into_inner();
    stream.message().await.expect("a first message");
    roost.publish(repost(8, original)).await;
    let last = roost.publish(post(9, "later")).await;
    let message = stream.message().await.expect("a message").expect("the stream goes on");
    assert_eq!(message.post_ids, [last]);
    roost.stop().await;
}
