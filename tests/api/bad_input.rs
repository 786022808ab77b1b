//! What is refused: with which code, for which field, and without any effect.

use roost::proto::v1::{
    BatchGetPostsRequest, BatchPublishPostsRequest, DeletePostRequest, FollowRequest, FollowerList,
    GetAccountRequest, GetPostRequest, ImportFollowsRequest, ListFollowersRequest,
    ListFollowingRequest, Origin, PublishError, PublishPostRequest,
    StreamBatchPublishPostsResponse, StreamPublishPostsResponse, UnfollowRequest,
    stream_publish_posts_response::Result as Answer,
};
use tonic::Code;

use crate::server::{Roost, assert_bad_field, assert_not_found, author_of, post, request};

const NO_POST: u64 = 1 << 40;

#[tokio::test(flavor = "multi_thread")]
async fn a_post_with_a_bad_field_is_refused_and_leaves_no_trace() {
    let roost = Roost::start().await;
    let with_link = |link: &str| PublishPostRequest { link: link.to_owned(), ..post(7, "hello") };
    for (field, refused) in [
        ("text", post(7, "")),
        ("text", post(7, &"a".repeat(141))),
        ("text", post(7, &"🐦".repeat(141))),
        ("author_id", post(0, "hello")),
        ("origin", PublishPostRequest { origin: 99, ..post(7, "hello") }),
        ("link", with_link("example.org")),
        ("link", with_link("javascript:alert(1)")),
        ("link", with_link(&format!("https://{}", "a".repeat(2_048)))),
        ("request_id", request(7, "hello", &"r".repeat(65))),
    ] {
        assert_bad_field(roost.posts().publish_post(refused).await, field);
    }
    for refused in [
        PublishPostRequest { reply_to_id: NO_POST, ..post(7, "hello") },
        PublishPostRequest { repost_of_id: NO_POST, ..post(7, "") },
    ] {
        assert_not_found(roost.posts().publish_post(refused).await, "post", NO_POST);
    }
    assert_eq!(roost.event_count().await, 0);
    let timeline = roost.timelines().list_author_timeline(author_of(7)).await;
    assert_not_found(timeline, "account", 7);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_of_everything_is_accepted_and_read_back() {
    let roost = Roost::start().await;
    let longest = PublishPostRequest {
        link: format!("https://{}", "a".repeat(2_040)),
        origin: Origin::Exclusive.into(),
        ..request(u64::MAX, &"🐦".repeat(140), &"r".repeat(64))
    };
    let post_id = roost.publish(longest.clone()).await;
    let got = roost.posts().get_post(GetPostRequest { post_id }).await.expect("a post");
    let got = got.into_inner();
    assert_eq!((got.id, got.author_id), (post_id, u64::MAX));
    assert_eq!((&got.text, &got.link), (&longest.text, &longest.link));
    assert_eq!(got.origin(), Origin::Exclusive);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_post_spoils_its_whole_batch() {
    let roost = Roost::start().await;
    let publish = |requests: Vec<PublishPostRequest>| {
        let mut posts = roost.posts();
        async move { posts.batch_publish_posts(BatchPublishPostsRequest { requests }).await }
    };
    let spoiled = |bad: PublishPostRequest| vec![post(7, "good"), post(8, "good"), bad];
    assert_bad_field(publish(spoiled(post(7, ""))).await, "requests[2].text");
    let bad_origin = PublishPostRequest { origin: 99, ..post(7, "hello") };
    assert_bad_field(publish(spoiled(bad_origin)).await, "requests[2].origin");
    let lost_reply = PublishPostRequest { reply_to_id: NO_POST, ..post(7, "hello") };
    let refused = publish(spoiled(lost_reply)).await;
    let message = refused.as_ref().expect_err("refused").message().to_owned();
    assert!(message.contains("requests[2].reply_to_id"), "{message}");
    assert_not_found(refused, "post", NO_POST);

    assert_bad_field(publish(Vec::new()).await, "requests");
    assert_bad_field(publish(vec![post(7, "hello"); 1_001]).await, "requests");
    assert_eq!(roost.event_count().await, 0);

    let ids = publish(vec![post(7, "hello"); 1_000]).await.expect("published").into_inner();
    assert_eq!(ids.post_ids.len(), 1_000);
    assert_eq!(roost.event_count().await, 1_000);
    roost.stop().await;
}

/// Of six posts three are refused, each for something else.
fn half_of_them_bad() -> Vec<PublishPostRequest> {
    vec![
        post(7, "first"),
        post(7, ""),
        post(8, "second"),
        PublishPostRequest { reply_to_id: NO_POST, ..post(7, "hello") },
        PublishPostRequest { origin: 99, ..post(7, "hello") },
        post(7, "third"),
    ]
}

/// Checks what was answered to them, and that the good ones are there.
async fn assert_half_of_them_published(roost: &Roost, answers: &[Result<u64, (Code, String)>]) {
    let [Ok(first), Err(empty), Ok(second), Err(lost), Err(origin), Ok(third)] = answers else {
        panic!("{answers:?}");
    };
    assert_eq!(empty, &(Code::InvalidArgument, "text".to_owned()));
    assert_eq!(lost.0, Code::NotFound);
    assert_eq!(origin, &(Code::InvalidArgument, "origin".to_owned()));

    roost.delivered().await;
    assert_eq!(roost.author(7).await.post_ids, [*third, *first]);
    assert_eq!(roost.author(8).await.post_ids, [*second]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_answers_in_order_and_goes_on_after_a_bad_post() {
    let roost = Roost::start().await;
    let requests = tokio_stream::iter(half_of_them_bad());
    let mut responses = roost.posts().stream_publish_posts(requests).await.unwrap().into_inner();
    let mut answers = Vec::new();
    while let Some(response) = responses.message().await.expect("not broken") {
        answers.push(said(response));
    }
    assert_half_of_them_published(&roost, &answers).await;
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_batches_answers_each_post_in_its_place() {
    let roost = Roost::start().await;
    let batches = [vec![post(9, "one too many"); 1_001], Vec::new(), half_of_them_bad()];
    let batches = batches.map(|requests| BatchPublishPostsRequest { requests });
    let responses = roost.posts().stream_batch_publish_posts(tokio_stream::iter(batches)).await;
    let mut responses = responses.expect("a stream").into_inner();

    let too_many = answers(responses.message().await.expect("not broken").expect("an answer"));
    let refused = Err((Code::InvalidArgument, "requests".to_owned()));
    assert_eq!(too_many, vec![refused; 1_001]);
    let nothing = answers(responses.message().await.expect("not broken").expect("an answer"));
    assert_eq!(nothing, []);
    let half = answers(responses.message().await.expect("not broken").expect("an answer"));
    assert_half_of_them_published(&roost, &half).await;
    assert_eq!(responses.message().await.expect("not broken"), None);
    assert_eq!(roost.event_count().await, 3);
    roost.stop().await;
}

/// The answers to the posts of one message.
fn answers(response: StreamBatchPublishPostsResponse) -> Vec<Result<u64, (Code, String)>> {
    let mut answers: Vec<_> = response.post_ids.into_iter().map(Ok).collect();
    for refused in response.refused_posts {
        let answer = &mut answers[refused.index as usize];
        assert_eq!(answer, &Ok(0));
        *answer = Err(refusal(refused.error.expect("why")));
    }
    answers
}

/// The id of a post, or the code and the field for which it was refused.
fn said(response: StreamPublishPostsResponse) -> Result<u64, (Code, String)> {
    match response.result.expect("an answer") {
        Answer::PostId(id) => Ok(id),
        Answer::Error(error) => Err(refusal(error)),
    }
}

fn refusal(error: PublishError) -> (Code, String) {
    assert!(!error.message.is_empty());
    (error.code.into(), error.field)
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_that_do_not_exist_are_not_found() {
    let roost = Roost::start().await;
    let (kept, gone) = (roost.publish(post(7, "kept")).await, roost.publish(post(7, "gone")).await);
    roost.delete(gone).await;
    let events = roost.event_count().await;
    for post_id in [NO_POST, gone] {
        let deleted = roost.posts().delete_post(DeletePostRequest { post_id }).await;
        assert_not_found(deleted, "post", post_id);
        let got = roost.posts().get_post(GetPostRequest { post_id }).await;
        assert_not_found(got, "post", post_id);
        let reply = PublishPostRequest { reply_to_id: post_id, ..post(8, "where?") };
        assert_not_found(roost.posts().publish_post(reply).await, "post", post_id);
    }
    assert_bad_field(roost.posts().delete_post(DeletePostRequest { post_id: 0 }).await, "post_id");
    assert_bad_field(roost.posts().get_post(GetPostRequest { post_id: 0 }).await, "post_id");
    assert_eq!(roost.event_count().await, events);

    let newer = roost.publish(post(8, "newer")).await;
    let post_ids = vec![newer, NO_POST, kept, gone];
    let got = roost.posts().batch_get_posts(BatchGetPostsRequest { post_ids }).await;
    let got = got.expect("posts").into_inner();
    assert_eq!(got.posts.iter().map(|post| post.id).collect::<Vec<_>>(), [newer, kept]);
    assert_eq!(got.missing_ids, [NO_POST, gone]);
    for count in [0, 1_001] {
        let post_ids = vec![kept; count];
        let got = roost.posts().batch_get_posts(BatchGetPostsRequest { post_ids }).await;
        assert_bad_field(got, "post_ids");
    }
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_follows_itself_or_account_0() {
    let roost = Roost::start().await;
    for (field, follower_id, followee_id) in
        [("followee_id", 7, 7), ("follower_id", 0, 7), ("followee_id", 7, 0)]
    {
        let follow = FollowRequest { follower_id, followee_id };
        assert_bad_field(roost.graph().follow(follow).await, field);
    }
    for (field, follower_id, followee_id) in [("follower_id", 0, 7), ("followee_id", 7, 0)] {
        let unfollow = UnfollowRequest { follower_id, followee_id };
        assert_bad_field(roost.graph().unfollow(unfollow).await, field);
    }
    assert_eq!(roost.event_count().await, 0);
    let account = roost.graph().get_account(GetAccountRequest { user_id: 7 }).await;
    assert_not_found(account, "account", 7);
    let account = roost.graph().get_account(GetAccountRequest { user_id: 0 }).await;
    assert_bad_field(account, "user_id");
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_takes_nothing_of_a_message_with_a_bad_edge() {
    let roost = Roost::start().await;
    for bad in [
        edges(&[(3, &[4]), (5, &[4, 5])]),
        edges(&[(3, &[4, 0])]),
        edges(&[(3, &[4]), (0, &[4])]),
        edges(&[(3, &(4..=100_004).collect::<Vec<u64>>())]),
    ] {
        let imported = roost.import(vec![edges(&[(1, &[2, 4])]), bad]).await;
        assert_eq!(imported.expect_err("refused").code(), Code::InvalidArgument);
    }
    roost.delivered().await;
    let before = roost.graph().list_followers(followers_of(1)).await.expect("a list");
    assert_eq!(before.into_inner().user_ids, [2, 4]);
    for untouched in [3, 5] {
        let followers = roost.graph().list_followers(followers_of(untouched)).await;
        assert_not_found(followers, "account", untouched);
    }
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_takes_nothing_after_a_message_with_a_bad_edge() {
    let roost = Roost::start().await;
    let bad = edges(&[(3, &[3])]);
    for later in 10..20 {
        let imported =
            roost.import(vec![edges(&[(1, &[2])]), bad.clone(), edges(&[(later, &[2])])]).await;
        assert_eq!(imported.expect_err("refused").code(), Code::InvalidArgument);
    }
    roost.delivered().await;
    let request = ListFollowingRequest { user_id: 2, ..ListFollowingRequest::default() };
    let following = roost.graph().list_following(request).await.expect("a list");
    assert_eq!(following.into_inner().user_ids, [1]);
    roost.stop().await;
}

fn edges(lists: &[(u64, &[u64])]) -> ImportFollowsRequest {
    let list = |&(followee_id, follower_ids): &(u64, &[u64])| FollowerList {
        followee_id,
        follower_ids: follower_ids.to_vec(),
    };
    ImportFollowsRequest { lists: lists.iter().map(list).collect() }
}

fn followers_of(user_id: u64) -> ListFollowersRequest {
    ListFollowersRequest { user_id, ..ListFollowersRequest::default() }
}
