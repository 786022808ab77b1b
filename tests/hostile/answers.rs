//! Answers that are asked for and never taken.

use bytes::Bytes;
use roost::proto::v1::{
    BatchPublishPostsRequest, ListAuthorTimelineRequest, PublishPostRequest,
    post_service_client::PostServiceClient,
};

use crate::victim::{Victim, framed, post};

const AUTHOR: u64 = 5;

/// Posts that fill pages of two megabytes.
async fn publish_large_posts(victim: &Victim) {
    let request = PublishPostRequest {
        link: format!("https://example.org/{}", "x".repeat(2_000)),
        ..post(AUTHOR, "\u{1f426}".repeat(140))
    };
    let requests = vec![request; 800];
    let mut posts = PostServiceClient::new(victim.channel().await);
    posts.batch_publish_posts(BatchPublishPostsRequest { requests }).await.expect("published");
}

async fn attack(victim: &Victim, connections: usize, streams: usize, window_bytes: u32) {
    publish_large_posts(victim).await;
    let mut neighbour = victim.neighbour().await;
    let request = ListAuthorTimelineRequest {
        author_id: AUTHOR,
        page_size: 800,
        ..ListAuthorTimelineRequest::default()
    };
    let request = framed(&request);
    let mut held = Vec::new();
    for _ in 0..connections {
        let client = victim.h2(window_bytes).await;
        for _ in 0..streams {
            let mut client = client.clone().ready().await.expect("ready");
            let head = victim.request("TimelineService/ListAuthorTimeline");
            let (answer, mut body) = client.send_request(head, false).expect("sent");
            body.send_data(Bytes::clone(&request), true).expect("sent");
            held.push(answer);
        }
    }
    victim.until("roost_grpc_untaken_answer_bytes", |bytes| bytes >= (12 << 20) as f64).await;
    neighbour.call(100).await;
    victim.until("roost_grpc_stalled_answers_total", |count| count > 0.0).await;
    victim.assert_memory();
    neighbour.assert_served();
    drop(held);
    victim.until("roost_grpc_untaken_answer_bytes", |bytes| bytes == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_closed_windows_are_bounded() {
    attack(&Victim::start(), 1, 800, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_narrow_windows_are_bounded() {
    attack(&Victim::start(), 1, 800, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_on_many_connections_are_bounded() {
    attack(&Victim::start(), 20, 40, 0).await;
}
