//! `roost.v1.PostService`.

use std::pin::Pin;

use futures::{Stream, StreamExt, stream};
use prost_types::Timestamp;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, at_place, not_found};
use crate::{
    domain::{Origin, Post, PostId, UserId},
    event_log::EventLog,
    proto::v1,
    store::Store,
    writes::{Draft, FieldError, WriteError, Writes, check_post},
};

/// Posts of one batch call, published or got.
const BATCH_POSTS_MAX: usize = 1_000;
/// Requests of a stream that are published together, if so many have come.
const STREAM_CHUNK_MAX: usize = 256;
/// Chunks of a stream under way at once; with more, the stream is not read.
const STREAM_CHUNKS_IN_FLIGHT_MAX: usize = 4;

#[tonic::async_trait]
impl<L: EventLog, S: Store> v1::post_service_server::PostService for Api<L, S> {
    async fn publish_post(
        &self,
        request: Request<v1::PublishPostRequest>,
    ) -> Result<Response<v1::PublishPostResponse>, Status> {
        let draft = draft(request.into_inner())?;
        let post = self.publish_one(draft).await?;
        Ok(Response::new(v1::PublishPostResponse { post_id: post.0 }))
    }

    async fn batch_publish_posts(
        &self,
        request: Request<v1::BatchPublishPostsRequest>,
    ) -> Result<Response<v1::BatchPublishPostsResponse>, Status> {
        let requests = request.into_inner().requests;
        check_count("requests", requests.len())?;
        let mut drafts = Vec::with_capacity(requests.len());
        for (place, request) in requests.into_iter().enumerate() {
            drafts.push(draft(request).map_err(|error| at_place(place, error.into()))?);
        }
        self.writes.check(&drafts).await.map_err(|(place, error)| at_place(place, error))?;
        let mut post_ids = Vec::with_capacity(drafts.len());
        for result in self.writes.publish(drafts).await {
            post_ids.push(result?.0);
        }
        Ok(Response::new(v1::BatchPublishPostsResponse { post_ids }))
    }

    type StreamPublishPostsStream =
        Pin<Box<dyn Stream<Item = Result<v1::StreamPublishPostsResponse, Status>> + Send>>;

    async fn stream_publish_posts(
        &self,
        request: Request<Streaming<v1::PublishPostRequest>>,
    ) -> Result<Response<Self::StreamPublishPostsStream>, Status> {
        let api = self.clone();
        let responses = request
            .into_inner()
            .ready_chunks(STREAM_CHUNK_MAX)
            .map(move |requests| publish_chunk(&api.writes, requests))
            .buffered(STREAM_CHUNKS_IN_FLIGHT_MAX)
            .flat_map(stream::iter);
        Ok(Response::new(Box::pin(responses)))
    }

    async fn delete_post(
        &self,
        request: Request<v1::DeletePostRequest>,
    ) -> Result<Response<v1::DeletePostResponse>, Status> {
        let applied = self.writes.delete(PostId(request.into_inner().post_id)).await?;
        Ok(Response::new(v1::DeletePostResponse { applied }))
    }

    async fn get_post(
        &self,
        request: Request<v1::GetPostRequest>,
    ) -> Result<Response<v1::Post>, Status> {
        let id = PostId(request.into_inner().post_id);
        check_post("post_id", id)?;
        match self.writes.find(&[id]).await?.into_iter().flatten().next() {
            Some(post) => Ok(Response::new(post_to_proto(&post))),
            None => Err(not_found("post", id.0, format!("there is no post {id}"))),
        }
    }

    async fn batch_get_posts(
        &self,
        request: Request<v1::BatchGetPostsRequest>,
    ) -> Result<Response<v1::BatchGetPostsResponse>, Status> {
        let ids = request.into_inner().post_ids;
        check_count("post_ids", ids.len())?;
        let ids: Vec<PostId> = ids.into_iter().map(PostId).collect();
        let mut response = v1::BatchGetPostsResponse::default();
        for (id, post) in ids.iter().zip(self.writes.find(&ids).await?) {
            match post {
                Some(post) => response.posts.push(post_to_proto(&post)),
                None => response.missing_ids.push(id.0),
            }
        }
        Ok(Response::new(response))
    }
}

impl<L: EventLog, S: Store> Api<L, S> {
    async fn publish_one(&self, draft: Draft) -> Result<PostId, Status> {
        let result = self.writes.publish(vec![draft]).await.pop();
        Ok(result.ok_or_else(|| Status::internal("a publish had no result"))??)
    }
}

/// Publishes what has come on a stream, and answers each in its place. Where the
/// stream broke, whatever came before is still published.
///
/// The call itself begins to publish, so that the posts of two chunks have their
/// ids in the order in which they came.
fn publish_chunk<L: EventLog, S: Store>(
    writes: &Writes<L, S>,
    requests: Vec<Result<v1::PublishPostRequest, Status>>,
) -> impl Future<Output = Vec<Result<v1::StreamPublishPostsResponse, Status>>> + Send + use<L, S> {
    let mut drafts = Vec::with_capacity(requests.len());
    let parsed: Vec<Result<(), Result<FieldError, Status>>> = requests
        .into_iter()
        .map(|request| {
            drafts.push(draft(request.map_err(Err)?).map_err(Ok)?);
            Ok(())
        })
        .collect();
    let published = writes.publish(drafts);
    async move {
        let mut published = published.await.into_iter();
        parsed
            .into_iter()
            .map(|parsed| match parsed {
                Err(Err(broken)) => Err(broken),
                Err(Ok(error)) => Ok(stream_response(Err(error.into()))),
                Ok(()) => {
                    let result = published.next();
                    Ok(stream_response(result.unwrap_or(Err(WriteError::Closing))))
                }
            })
            .collect()
    }
}

fn stream_response(result: Result<PostId, WriteError>) -> v1::StreamPublishPostsResponse {
    use v1::stream_publish_posts_response::Result as Answer;
    let answer = match result {
        Ok(post) => Answer::PostId(post.0),
        Err(error) => {
            let field = match &error {
                WriteError::Field(FieldError { field, .. })
                | WriteError::UnknownPost { field, .. } => field,
                _ => "",
            };
            let field = field.to_owned();
            let status = Status::from(error);
            let message = status.message().to_owned();
            Answer::Error(v1::PublishError { code: status.code() as i32, message, field })
        }
    };
    v1::StreamPublishPostsResponse { result: Some(answer) }
}

fn check_count(field: &'static str, count: usize) -> Result<(), FieldError> {
    if (1..=BATCH_POSTS_MAX).contains(&count) {
        return Ok(());
    }
    Err(FieldError::new(field, format!("has {count} entries; send 1 to {BATCH_POSTS_MAX}")))
}

fn draft(request: v1::PublishPostRequest) -> Result<Draft, FieldError> {
    let origin = match v1::Origin::try_from(request.origin) {
        Ok(v1::Origin::Unspecified | v1::Origin::Shared) => Origin::Shared,
        Ok(v1::Origin::Rss) => Origin::Rss,
        Ok(v1::Origin::Exclusive) => Origin::Exclusive,
        Err(_) => {
            let reason = format!("{} is not a known origin", request.origin);
            return Err(FieldError::new("origin", reason));
        }
    };
    let reference = |id: u64| (id != 0).then_some(PostId(id));
    Ok(Draft {
        author: UserId(request.author_id),
        text: request.text,
        origin,
        link: (!request.link.is_empty()).then_some(request.link),
        reply_to: reference(request.reply_to_id),
        repost_of: reference(request.repost_of_id),
        request_id: (!request.request_id.is_empty()).then_some(request.request_id),
        is_retry: request.is_retry,
    })
}

/// A post as clients see it.
pub(super) fn post_to_proto(post: &Post) -> v1::Post {
    let origin = match post.origin {
        Origin::Rss => v1::Origin::Rss,
        Origin::Shared => v1::Origin::Shared,
        Origin::Exclusive => v1::Origin::Exclusive,
    };
    v1::Post {
        id: post.id.0,
        author_id: post.author.0,
        text: post.text.clone(),
        origin: origin.into(),
        link: post.link.clone().unwrap_or_default(),
        reply_to_id: post.reply_to.map_or(0, |id| id.0),
        repost_of_id: post.repost_of.map_or(0, |id| id.0),
        create_time: Some(Timestamp::from(post.id.created_at())),
    }
}
