//! Requests as bytes: cut in mid-message, undecodable, and compressed.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use http::Request;
use http_body_util::{BodyExt, Full};
use prost::Message;
use roost::proto::{
    self,
    v1::{
        FollowerList, ImportFollowsRequest, ListFollowersRequest, PublishPostRequest,
        StreamPublishPostsResponse, post_service_client::PostServiceClient,
    },
};
use tonic::{Code, body::Body, codec::CompressionEncoding};
use tower::{Service, ServiceExt};

use crate::server::{Roost, author_of, post};

/// What the server said: the bytes of its messages, and how the call ended.
#[derive(Debug)]
struct Answer {
    data: Vec<u8>,
    code: Code,
    message: String,
}

/// The paths of all methods of the API.
fn methods() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).expect("a set");
    let services = set
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(move |service| (file.package(), service)));
    let methods = services.flat_map(|(package, service)| {
        let path = move |name| format!("/{package}.{}/{name}", service.name());
        service.method.iter().map(move |method| path(method.name()))
    });
    let methods: Vec<String> = methods.collect();
    assert!(methods.len() > 30, "{methods:?}");
    methods
}

/// A message with what stands before it on the wire.
fn framed(is_compressed: bool, message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).expect("a small message").to_be_bytes();
    [&[u8::from(is_compressed)][..], &len, message].concat()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("compressed");
    encoder.finish().expect("compressed")
}

async fn call(roost: &Roost, path: &str, is_gzip: bool, body: Vec<u8>) -> Answer {
    let mut channel = roost.channel();
    let mut request =
        Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    if is_gzip {
        request = request.header("grpc-encoding", "gzip");
    }
    let request = request.body(Body::new(Full::from(body))).expect("a request");
    let response = channel.ready().await.expect("connected").call(request).await.expect("answered");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole answer");
    let trailers = body.trailers().cloned().unwrap_or_default();
    let value = |name: &str| {
        let value = trailers.get(name).or_else(|| parts.headers.get(name));
        value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let code = value("grpc-status").and_then(|code| code.parse::<i32>().ok()).expect("a status");
    let message = value("grpc-message").unwrap_or_default().replace("%20", " ");
    Answer { data: body.to_bytes().to_vec(), code: code.into(), message }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_cut_in_mid_message_is_refused_by_every_method() {
    let roost = Roost::start().await;
    let whole = framed(false, &[8, 1, 16, 2]);
    for path in methods() {
        for len in [1, 5, 7] {
            let answer = call(&roost, &path, false, whole[..len].to_vec()).await;
            assert_eq!(answer.code, Code::InvalidArgument, "{path}, {len} bytes: {answer:?}");
            assert!(answer.message.contains("0 whole messages"), "{path}: {answer:?}");
        }
    }
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn undecodable_message_is_invalid_argument_in_every_method() {
    let roost = Roost::start().await;
    for path in methods() {
        // A field whose length goes past the end.
        let answer = call(&roost, &path, false, framed(false, &[10, 200])).await;
        assert_eq!(answer.code, Code::InvalidArgument, "{path}: {answer:?}");
    }
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_stream_says_what_of_it_was_taken() {
    let roost = Roost::start().await;
    let list =
        |follower| FollowerList { followee_id: 7, follower_ids: vec![follower, follower + 1] };
    let import = |follower| ImportFollowsRequest { lists: vec![list(follower)] }.encode_to_vec();
    let mut body = framed(false, &import(10));
    // Right behind what stands before a message, and in it.
    for len in [5, 6] {
        let cut = [&body[..], &framed(false, &import(20))[..len]].concat();
        let answer = call(&roost, "/roost.v1.GraphService/ImportFollows", false, cut).await;
        assert_eq!((answer.code, answer.data.len()), (Code::InvalidArgument, 0), "{answer:?}");
        assert!(answer.message.contains("1 whole messages"), "{answer:?}");
        assert!(
            answer.message.contains("the 2 edges of the messages before are imported"),
            "{answer:?}"
        );
    }
    let request = ListFollowersRequest { user_id: 7, ..ListFollowersRequest::default() };
    roost.delivered().await;
    let followers = roost.graph().list_followers(request).await.expect("a page").into_inner();
    assert_eq!(followers.user_ids, [10, 11]);

    body = framed(false, &post(7, "whole").encode_to_vec());
    body.extend(&framed(false, &post(7, "cut").encode_to_vec())[..6]);
    let answer = call(&roost, "/roost.v1.PostService/StreamPublishPosts", false, body).await;
    assert_eq!(answer.code, Code::InvalidArgument, "{answer:?}");
    assert!(answer.message.contains("what came before on the stream is answered"), "{answer:?}");
    let response = StreamPublishPostsResponse::decode(&answer.data[5..]).expect("one response");
    assert!(response.result.is_some());
    roost.delivered().await;
    assert_eq!(roost.author(7).await.post_ids.len(), 1);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_request_is_taken_by_every_method() {
    let roost = Roost::start().await;
    for path in methods() {
        // A stream without an end is not waited for: nothing is asked of it.
        if path.ends_with("StreamHomeTimeline") {
            continue;
        }
        let answer = call(&roost, &path, true, framed(true, &gzip(&[]))).await;
        assert_ne!(answer.code, Code::Unimplemented, "{path}: {answer:?}");
        assert_ne!(answer.code, Code::Internal, "{path}: {answer:?}");
    }
    let client = PostServiceClient::new(roost.channel()).send_compressed(CompressionEncoding::Gzip);
    let text = "the same ".repeat(15);
    client.clone().publish_post(post(7, &text)).await.expect("published");
    roost.delivered().await;
    let request = author_of(7);
    let page = roost.timelines().list_author_timeline(request).await.expect("a page").into_inner();
    assert_eq!(page.posts[0].text, text);
    roost.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_bomb_is_refused_at_the_limit_of_a_message() {
    let roost = Roost::start().await;
    let bomb = PublishPostRequest { text: " ".repeat(64 << 20), ..post(7, "") }.encode_to_vec();
    let packed = gzip(&bomb);
    assert!(packed.len() < 1 << 20);
    for path in methods() {
        let answer = call(&roost, &path, true, framed(true, &packed)).await;
        assert_eq!(answer.code, Code::ResourceExhausted, "{path}: {answer:?}");
    }
    roost.stop().await;
}
