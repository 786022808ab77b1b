//! Posts that come on a stream, each refused or published for itself and answered in its
//! place.
//!
//! What is ready is published together, and while it is on its way to the log more is read:
//! [`IN_FLIGHT_MAX`] chunks at once. Beyond them the stream is not read, and its client waits.

use futures::{Stream, StreamExt, stream};
use tonic::Status;

use super::posts::{check_count, draft};
use crate::{
    domain::PostId,
    event_log::EventLog,
    proto::v1::{self, stream_publish_posts_response::Result as Answer},
    store::Store,
    writes::{Draft, FieldError, WriteError, Writes},
};

/// Requests that are published together, if so many have come.
const CHUNK_MAX: usize = 256;
/// Chunks, or batches, under way at once.
const IN_FLIGHT_MAX: usize = 16;

/// Every request has a response. Where the stream breaks, whatever came before is still
/// published.
pub(super) fn one_by_one<L: EventLog, S: Store>(
    writes: Writes<L, S>,
    requests: impl Stream<Item = Result<v1::PublishPostRequest, Status>> + Send,
) -> impl Stream<Item = Result<v1::StreamPublishPostsResponse, Status>> + Send {
    requests
        .ready_chunks(CHUNK_MAX)
        .map(move |chunk| {
            let mut broken = None;
            let whole = chunk.into_iter().map_while(|request| match request {
                Ok(request) => Some(request),
                Err(status) => {
                    broken = Some(Err(status));
                    None
                }
            });
            let published = publish(&writes, whole.map(draft).collect());
            async move {
                let answers = published.await.into_iter().map(|result| Ok(response(result)));
                stream::iter(answers.chain(broken))
            }
        })
        .buffered(IN_FLIGHT_MAX)
        .flatten()
}

/// Every batch has a response.
pub(super) fn in_batches<L: EventLog, S: Store>(
    writes: Writes<L, S>,
    batches: impl Stream<Item = Result<v1::BatchPublishPostsRequest, Status>> + Send,
) -> impl Stream<Item = Result<v1::StreamBatchPublishPostsResponse, Status>> + Send {
    batches
        .map(move |batch| {
            let published = batch.map(|v1::BatchPublishPostsRequest { requests }| {
                let too_many = check_count("requests", requests.len().max(1)).err();
                let drafts = requests.into_iter().map(|request| match &too_many {
                    Some(error) => Err(error.clone()),
                    None => draft(request),
                });
                publish(&writes, drafts.collect())
            });
            async move { Ok(batch_response(published?.await)) }
        })
        .buffered(IN_FLIGHT_MAX)
}

/// Publishes the drafts that are good. The results are in the order of `drafts`.
///
/// The call itself begins to publish, so that the posts of two calls have their ids in the
/// order in which they came.
fn publish<L: EventLog, S: Store>(
    writes: &Writes<L, S>,
    drafts: Vec<Result<Draft, FieldError>>,
) -> impl Future<Output = Vec<Result<PostId, WriteError>>> + Send + use<L, S> {
    let mut good = Vec::with_capacity(drafts.len());
    let bad: Vec<Option<FieldError>> =
        drafts.into_iter().map(|draft| draft.map(|draft| good.push(draft)).err()).collect();
    let published = writes.publish(good);
    async move {
        let mut published = published.await.into_iter();
        bad.into_iter()
            .map(|bad| match bad {
                Some(error) => Err(error.into()),
                None => published.next().unwrap_or(Err(WriteError::Closing)),
            })
            .collect()
    }
}

fn response(result: Result<PostId, WriteError>) -> v1::StreamPublishPostsResponse {
    let answer = match result {
        Ok(post) => Answer::PostId(post.0),
        Err(error) => Answer::Error(publish_error(error)),
    };
    v1::StreamPublishPostsResponse { result: Some(answer) }
}

fn batch_response(results: Vec<Result<PostId, WriteError>>) -> v1::StreamBatchPublishPostsResponse {
    let mut response = v1::StreamBatchPublishPostsResponse::default();
    for (index, result) in (0..).zip(results) {
        let post = result.unwrap_or_else(|error| {
            let error = Some(publish_error(error));
            response.refused_posts.push(v1::RefusedPost { index, error });
            PostId(0)
        });
        response.post_ids.push(post.0);
    }
    response
}

fn publish_error(error: WriteError) -> v1::PublishError {
    let field = match &error {
        WriteError::Field(FieldError { field, .. }) | WriteError::UnknownPost { field, .. } => {
            field
        }
        _ => "",
    };
    let field = field.to_owned();
    let status = Status::from(error);
    v1::PublishError { code: status.code().into(), message: status.message().to_owned(), field }
}
