//! Messages that are sent all but their last byte.

use bytes::Bytes;
use h2::SendStream;

use crate::victim::{Neighbour, Victim};

const MESSAGE_BYTES: usize = 4 << 20;

/// Begins messages on a connection of its own, and holds them.
async fn begin_messages(victim: &Victim, count: usize, held: &mut Vec<SendStream<Bytes>>) {
    let client = victim.h2(1 << 20).await;
    let message = Bytes::from(vec![0; MESSAGE_BYTES - 1]);
    let prefix: Vec<u8> = [0].into_iter().chain((MESSAGE_BYTES as u32).to_be_bytes()).collect();
    let prefix = Bytes::from(prefix);
    for _ in 0..count {
        let mut client = client.clone().ready().await.expect("ready");
        let request = victim.request("PostService/BatchPublishPosts");
        let (_answer, mut body) = client.send_request(request, false).expect("sent");
        body.send_data(prefix.clone(), false).expect("sent");
        body.send_data(message.clone(), false).expect("sent");
        held.push(body);
    }
}

async fn attack(victim: &Victim, connections: usize, messages: usize) {
    let mut neighbour: Neighbour = victim.neighbour().await;
    let mut held = Vec::new();
    for _ in 0..connections {
        begin_messages(victim, messages, &mut held).await;
    }
    victim.until("roost_grpc_receiving_bytes", |bytes| bytes >= (12 << 20) as f64).await;
    neighbour.call(100).await;
    // They are given up without their client's doing.
    victim.until("roost_grpc_refused_messages_total", |count| count > 0.0).await;
    victim.until("roost_grpc_receiving_bytes", |bytes| bytes == 0.0).await;
    victim.assert_memory();
    neighbour.publish_large().await;
    neighbour.assert_served();
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_messages_are_bounded_on_one_connection() {
    attack(&Victim::start(), 1, 400).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_messages_are_bounded_on_many_connections() {
    attack(&Victim::start(), 100, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_pause_between_messages_live_on() {
    use roost::proto::v1::{PublishPostRequest, post_service_client::PostServiceClient};
    use tokio_stream::StreamExt;

    let victim = Victim::start();
    let mut posts = PostServiceClient::new(victim.channel().await);
    let (sender, receiver) = tokio::sync::mpsc::channel::<PublishPostRequest>(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = posts.stream_publish_posts(requests).await.expect("a stream").into_inner();
    // Longer than a message may take.
    tokio::time::sleep(std::time::Duration::from_secs(22)).await;
    for _ in 0..2 {
        sender.send(crate::victim::post(1, "hello".to_owned())).await.expect("taken");
        answers.next().await.expect("an answer").expect("published");
    }
}
