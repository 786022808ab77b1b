//! A request id never makes two posts.

use roost::proto::v1::{
    BatchPublishPostsRequest, PublishPostRequest, stream_publish_posts_response::Result as Answer,
};
use tokio::task::JoinSet;

use crate::server::{Roost, post, request};

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_is_answered_with_the_first_post_even_after_a_restart() {
    let roost = Roost::start().await;
    let first = roost.publish(request(7, "once", "a")).await;
    assert_eq!(roost.publish(request(7, "once", "a")).await, first);
    assert_eq!(roost.publish(request(7, "whatever else it says", "a")).await, first);
    roost.delivered().await;
    assert_eq!(roost.publish(request(7, "once", "a")).await, first);
    let other_author = roost.publish(request(8, "once", "a")).await;
    let other_id = roost.publish(request(7, "once", "b")).await;

    let roost = roost.restart().await;
    assert_eq!(roost.publish(request(7, "once", "a")).await, first);
    assert_eq!(roost.publish(request(8, "once", "a")).await, other_author);
    roost.delivered().await;
    assert_eq!(roost.author(7).await.post_ids, [other_id, first]);
    assert_eq!(roost.author(7).await.posts[1].text, "once");
    assert_eq!(roost.author(8).await.post_ids, [other_author]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_does_not_bring_a_deleted_post_back() {
    let roost = Roost::start().await;
    let first = roost.publish(request(7, "once", "a")).await;
    roost.delete(first).await;
    assert_eq!(roost.publish(request(7, "once", "a")).await, first);
    let roost = roost.restart().await;
    assert_eq!(roost.publish(request(7, "once", "a")).await, first);
    roost.delivered().await;
    assert!(roost.author(7).await.post_ids.is_empty());
    assert!(roost.home(7).await.post_ids.is_empty());
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_makes_the_post_that_was_not_made_and_no_other() {
    let roost = Roost::start().await;
    let retry = PublishPostRequest { is_retry: true, ..request(7, "once", "a") };
    let first = roost.publish(retry.clone()).await;
    assert_eq!(roost.publish(retry.clone()).await, first);
    let roost = roost.restart().await;
    let both = batch(&roost, vec![retry.clone(), post(7, "other")]).await;
    assert_eq!(both[0], first);
    roost.delivered().await;
    assert_eq!(roost.author(7).await.post_ids, [both[1], first]);
    roost.stop().await;
}

/// The log knows, and the workers read it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_repeated_where_redis_has_lost_everything_is_answered_with_its_post() {
    let roost = Roost::start().await;
    if roost.is_alone() {
        return roost.stop().await;
    }
    let first = roost.publish(request(7, "once", "a")).await;
    roost.delivered().await;
    // Whoever answers now does not know of it by itself.
    let roost = roost.restart().await;
    roost.empty_redis().await;
    assert_eq!(roost.publish(request(7, "once", "a")).await, first);
    let other = roost.publish(request(7, "other", "b")).await;
    let roost = roost.restart().await;
    roost.empty_redis().await;
    let retry = PublishPostRequest { is_retry: true, ..request(7, "once", "a") };
    assert_eq!(roost.publish(retry).await, first);
    roost.delivered().await;
    assert_eq!(roost.author(7).await.post_ids, [other, first]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_reply_is_answered_though_the_post_it_answers_is_gone() {
    let roost = Roost::start().await;
    let reply_to_id = roost.publish(post(8, "soon gone")).await;
    let reply = PublishPostRequest { reply_to_id, ..request(7, "where?", "a") };
    let first = roost.publish(reply.clone()).await;
    roost.delete(reply_to_id).await;
    assert_eq!(roost.publish(reply.clone()).await, first);
    assert_eq!(batch(&roost, vec![reply.clone()]).await, [first]);
    assert_eq!(stream(&roost, vec![reply]).await, [first]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_without_a_request_id_are_all_published() {
    let roost = Roost::start().await;
    let ids = [roost.publish(post(7, "hello")).await, roost.publish(post(7, "hello")).await];
    roost.delivered().await;
    assert_eq!(roost.author(7).await.post_ids, [ids[1], ids[0]]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_repeats_itself_or_another_makes_each_post_once() {
    let roost = Roost::start().await;
    let requests = vec![request(7, "a", "a"), request(7, "b", "b"), request(7, "a", "a")];
    let first = batch(&roost, requests.clone()).await;
    assert_eq!(first[0], first[2]);
    assert_ne!(first[0], first[1]);
    assert_eq!(batch(&roost, requests.clone()).await, first);

    let roost = roost.restart().await;
    assert_eq!(batch(&roost, requests).await, first);
    assert_eq!(roost.author(7).await.post_ids, [first[1], first[0]]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_repeats_itself_or_another_makes_each_post_once() {
    let roost = Roost::start().await;
    // More than are published together, so that chunks repeat one another.
    let requests: Vec<PublishPostRequest> =
        (0..600).map(|number| request(7, "hello", &(number % 300).to_string())).collect();
    let first = stream(&roost, requests.clone()).await;
    assert_eq!(first.len(), 600);
    assert_eq!(first[..300], first[300..]);
    assert_eq!(stream(&roost, requests.clone()).await, first);

    let roost = roost.restart().await;
    assert_eq!(stream(&roost, requests).await, first);
    let mut made = first[..300].to_vec();
    made.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(roost.author(7).await.post_ids, made);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_at_once_make_one_post() {
    let roost = Roost::start().await;
    for round in 0..20 {
        let mut tasks = JoinSet::new();
        for task in 0..16 {
            let mut posts = roost.posts();
            let request = request(7, &format!("task {task}"), &round.to_string());
            tasks.spawn(async move { posts.publish_post(request).await });
        }
        let answers = tasks.join_all().await.into_iter();
        let mut ids: Vec<u64> =
            answers.map(|answer| answer.expect("published").into_inner().post_id).collect();
        ids.dedup();
        assert_eq!(ids.len(), 1, "{ids:?}");
    }
    assert_eq!(roost.event_count().await, 20);
    roost.delivered().await;
    assert_eq!(roost.author(7).await.post_ids.len(), 20);
    roost.stop().await;
}

async fn batch(roost: &Roost, requests: Vec<PublishPostRequest>) -> Vec<u64> {
    let published = roost.posts().batch_publish_posts(BatchPublishPostsRequest { requests }).await;
    published.expect("published").into_inner().post_ids
}

async fn stream(roost: &Roost, requests: Vec<PublishPostRequest>) -> Vec<u64> {
    let responses = roost.posts().stream_publish_posts(tokio_stream::iter(requests)).await;
    let mut responses = responses.expect("a stream").into_inner();
    let mut ids = Vec::new();
    while let Some(response) = responses.message().await.expect("not broken") {
        match response.result.expect("an answer") {
            Answer::PostId(id) => ids.push(id),
            Answer::Error(error) => panic!("{error:?}"),
        }
    }
    ids
}
