//! Posts that come on a stream, each refused or published for itself and answered in its
//! place.
//!
//! What is ready is published together, and while it is on its way to the log more is read:
//! [`IN_FLIGHT_MAX`] chunks at once, as far as there is room for all that is written. Beyond that
//! the stream is not read, and its client waits.

use futures::{Stream, StreamExt, stream};
use tonic::Status;

use super::{
    posts::{check_count, draft},
    with_taken,
};
use crate::{
    domain::PostId,
    event_log::EventLog,
    proto::v1::{self, stream_publish_posts_response::Result as Answer},
    store::Store,
    writes::{Draft, FieldError, Room, WriteError, Writes},
};

/// Requests that are published together, if so many have come.
const CHUNK_MAX: usize = 256;
/// Chunks, or batches, under way at once.
const IN_FLIGHT_MAX: usize = 64;

/// What is said of a stream that has broken.
const TAKEN: &str = "what came before on the stream is answered";

/// Every request has a response. Where the stream breaks, whatever came before is still
/// published.
pub(super) fn one_by_one<L: EventLog, S: Store>(
    writes: Writes<L, S>,
    requests: impl Stream<Item = Result<v1::PublishPostRequest, Status>> + Send,
) -> impl Stream<Item = Result<v1::StreamPublishPostsResponse, Status>> + Send {
    let publishing = writes.clone();
    requests
        .ready_chunks(CHUNK_MAX)
        .then(move |chunk| {
            let mut broken = None;
            let whole = chunk.into_iter().map_while(|request| match request {
                Ok(request) => Some(request),
                Err(status) => {
                    broken = Some(Err(with_taken(&status, TAKEN)));
                    None
                }
            });
            let chunk = Chunk::of(whole.map(draft));
            let writes = writes.clone();
            async move { (chunk.with_room(&writes).await, broken) }
        })
        .map(move |(chunk, broken)| {
            let published = chunk.publish(&publishing);
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
    let publishing = writes.clone();
    batches
        .then(move |batch| {
            let batch = batch.map_err(|status| with_taken(&status, TAKEN));
            let chunk = batch.map(|v1::BatchPublishPostsRequest { requests }| {
                // There is nothing wrong with an empty one here: its answer is empty.
                let too_many = check_count("requests", requests.len().max(1)).err();
                Chunk::of(requests.into_iter().map(|request| match &too_many {
                    Some(error) => Err(error.clone()),
                    None => draft(request),
                }))
            });
            let writes = writes.clone();
            async move { Ok(chunk?.with_room(&writes).await) }
        })
        .map(move |chunk: Result<_, Status>| {
            let published = chunk.map(|chunk| chunk.publish(&publishing));
            async move { Ok(batch_response(published?.await)) }
        })
        .buffered(IN_FLIGHT_MAX)
}

/// Requests that came together.
struct Chunk {
    good: Vec<Draft>,
    /// In the places of all of them, what is wrong with those that are not good.
    bad: Vec<Option<FieldError>>,
}

/// The same, and the room for the good ones, if there was any in time.
struct ChunkWithRoom {
    chunk: Chunk,
    room: Result<Room, WriteError>,
}

impl Chunk {
    fn of(drafts: impl Iterator<Item = Result<Draft, FieldError>>) -> Self {
        let mut good = Vec::new();
        let bad = drafts.map(|draft| draft.map(|draft| good.push(draft)).err()).collect();
        Self { good, bad }
    }

    /// Waits for room: until there is, no more of the stream is read.
    async fn with_room<L: EventLog, S: Store>(self, writes: &Writes<L, S>) -> ChunkWithRoom {
        ChunkWithRoom { room: writes.room_for(&self.good).await, chunk: self }
    }
}

impl ChunkWithRoom {
    /// Publishes the good ones; the results are in the order of all of them.
    ///
    /// The call itself begins to publish, so that the posts of two calls have their ids in
    /// the order in which they came.
    fn publish<L: EventLog, S: Store>(
        self,
        writes: &Writes<L, S>,
    ) -> impl Future<Output = Vec<Result<PostId, WriteError>>> + Send + use<L, S> {
        let Self { chunk: Chunk { good, bad }, room } = self;
        let is_busy = room.is_err();
        let published = room.ok().map(|room| writes.publish_in(room, good));
        async move {
            let mut published = match published {
                Some(published) => published.await,
                None => Vec::new(),
            }
            .into_iter();
            let missing = || if is_busy { WriteError::Busy } else { WriteError::Closing };
            bad.into_iter()
                .map(|bad| match bad {
                    Some(error) => Err(error.into()),
                    None => published.next().unwrap_or_else(|| Err(missing())),
                })
                .collect()
        }
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
