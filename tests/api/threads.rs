//! Threads, and how many posts answer and repeat a post.

use roost::proto::v1::{
    BatchGetCountsRequest, BlockRequest, GetThreadRequest, MuteRequest, PublishPostRequest, Thread,
    UnmuteRequest,
};

use crate::server::{Roost, assert_bad_field, assert_not_found, post};

fn answer(author_id: u64, reply_to_id: u64) -> PublishPostRequest {
    PublishPostRequest { reply_to_id, ..post(author_id, "an answer") }
}

async fn thread(roost: &Roost, request: GetThreadRequest) -> Thread {
    roost.posts().get_thread(request).await.expect("a thread").into_inner()
}

fn of(post_id: u64) -> GetThreadRequest {
    GetThreadRequest { post_id, ..GetThreadRequest::default() }
}

/// The ids of the ancestors, of the post, and of the answers.
fn ids(thread: &Thread) -> (Vec<u64>, u64, Vec<u64>) {
    let ids = |posts: &[roost::proto::v1::Post]| posts.iter().map(|post| post.id).collect();
    let id = thread.post.as_ref().map_or(0, |post| post.id);
    (ids(&thread.ancestors), id, ids(&thread.replies))
}

async fn counts(roost: &Roost, post_ids: &[u64]) -> Vec<(u32, u32)> {
    let request = BatchGetCountsRequest { post_ids: post_ids.to_vec() };
    let counts = roost.posts().batch_get_counts(request).await.expect("counts").into_inner();
    assert!(counts.counts.iter().map(|counts| counts.post_id).eq(post_ids.iter().copied()));
    counts.counts.iter().map(|counts| (counts.replies, counts.reposts)).collect()
}

async fn timelines(roost: &Roost, post_ids: &[u64]) -> Vec<u64> {
    let request = BatchGetCountsRequest { post_ids: post_ids.to_vec() };
    let counts = roost.posts().batch_get_counts(request).await.expect("counts").into_inner();
    counts.counts.iter().map(|counts| counts.home_timelines).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_leads_to_its_beginning_and_to_the_answers_which_are_counted() {
    let roost = Roost::start().await;
    let root = roost.publish(post(1, "why?")).await;
    let first = roost.publish(answer(2, root)).await;
    let second = roost.publish(answer(3, root)).await;
    let deep = roost.publish(answer(1, first)).await;
    let deeper = roost.publish(answer(2, deep)).await;
    let repost = PublishPostRequest { repost_of_id: root, ..post(4, "") };
    let repost = roost.publish(repost).await;
    let quote = PublishPostRequest { repost_of_id: root, ..post(4, "why indeed") };
    roost.publish(quote).await;
    roost.delivered().await;
    assert_eq!(ids(&thread(&roost, of(root)).await), (vec![], root, vec![first, second]));
    assert_eq!(ids(&thread(&roost, of(deep)).await), (vec![root, first], deep, vec![deeper]));
    let all = [root, first, second, deep, deeper];
    assert_eq!(counts(&roost, &all).await, [(2, 1), (1, 0), (0, 0), (1, 0), (0, 0)]);

    // What is deleted does not count, and a thread begins below it.
    roost.delete(first).await;
    roost.delete(repost).await;
    let roost = roost.restart().await;
    assert_eq!(ids(&thread(&roost, of(root)).await), (vec![], root, vec![second]));
    assert_eq!(ids(&thread(&roost, of(deep)).await), (vec![], deep, vec![deeper]));
    assert_eq!(counts(&roost, &all).await, [(1, 0), (1, 0), (0, 0), (1, 0), (0, 0)]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_counted_where_it_stands_as_follows_begin_and_end() {
    let roost = Roost::start().await;
    let first = roost.publish(post(1, "hello")).await;
    let second = roost.publish(post(2, "hello")).await;
    roost.follow(5, 1).await;
    roost.follow(6, 1).await;
    roost.follow(6, 2).await;
    assert_eq!(timelines(&roost, &[first, second, 77]).await, [3, 2, 0]);
    // As many as have it, which a pulled author changes nothing about.
    let delivery = roost::proto::v1::Delivery::Pull.into();
    let request = roost::proto::v1::SetDeliveryRequest { author_id: 1, delivery };
    roost.graph().set_delivery(request).await.expect("pulled");
    roost.unfollow(5, 1).await;
    let mut standing = 0;
    for reader in [1, 2, 5, 6] {
        standing += u64::from(roost.home(reader).await.post_ids.contains(&first));
    }
    assert_eq!(timelines(&roost, &[first]).await, [standing]);
    assert_eq!(standing, 2);
    roost.delete(first).await;
    assert_eq!(timelines(&roost, &[first, second]).await, [0, 2]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_in_pages_the_oldest_first() {
    let roost = Roost::start().await;
    let root = roost.publish(post(1, "why?")).await;
    let mut answers = Vec::new();
    for author in 2..9 {
        answers.push(roost.publish(answer(author, root)).await);
    }
    roost.delivered().await;
    for page_size in [1, 3, 7, 800] {
        let (mut read, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = GetThreadRequest { page_size, page_token, ..of(root) };
            let page = thread(&roost, request).await;
            read.extend(page.replies.iter().map(|post| post.id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
            assert_eq!(page.replies.len(), page_size as usize);
        }
        assert_eq!(read, answers, "in pages of {page_size}");
    }
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_no_answers_of_whom_it_hides() {
    let roost = Roost::start().await;
    let root = roost.publish(post(1, "why?")).await;
    let muted = roost.publish(answer(2, root)).await;
    let blocking = roost.publish(answer(3, root)).await;
    let other = roost.publish(answer(4, muted)).await;
    roost.delivered().await;
    let mute = MuteRequest { muter_id: 9, muted_id: 2 };
    roost.graph().mute(mute).await.expect("muted");
    let block = BlockRequest { blocker_id: 3, blocked_id: 9 };
    roost.graph().block(block).await.expect("blocked");
    let seen = |post_id| GetThreadRequest { reader_id: 9, ..of(post_id) };
    assert_eq!(ids(&thread(&roost, seen(root)).await), (vec![], root, vec![]));
    assert_eq!(ids(&thread(&roost, seen(other)).await), (vec![root], other, vec![]));
    let unmute = UnmuteRequest { muter_id: 9, muted_id: 2 };
    roost.graph().unmute(unmute).await.expect("unmuted");
    assert_eq!(ids(&thread(&roost, seen(root)).await), (vec![], root, vec![muted]));
    assert_eq!(ids(&thread(&roost, of(root)).await).2, [muted, blocking]);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_thread_is_refused() {
    let roost = Roost::start().await;
    let root = roost.publish(post(1, "why?")).await;
    roost.publish(answer(2, root)).await;
    let last = roost.publish(answer(3, root)).await;
    roost.delivered().await;
    let refused = async |request| roost.posts().get_thread(request).await;
    assert_bad_field(refused(of(0)).await, "post_id");
    assert_bad_field(refused(GetThreadRequest { page_size: -1, ..of(root) }).await, "page_size");
    let page = thread(&roost, GetThreadRequest { page_size: 1, ..of(root) }).await;
    let elsewhere = GetThreadRequest { page_token: page.next_page_token, ..of(last) };
    assert_bad_field(refused(elsewhere).await, "page_token");
    assert_not_found(refused(of(last + 2)).await, "post", last + 2);
    let none = BatchGetCountsRequest { post_ids: vec![] };
    assert_bad_field(roost.posts().batch_get_counts(none).await, "post_ids");
    roost.stop().await;
}
