//! A home timeline as a stream.
//!
//! A response is made only once its client has taken the one before, and nothing waits for it
//! but a [`Position`]: so a slow client is told later, and of more at once.

use std::time::Duration;

use futures::{Stream, stream};
use prost_types::Timestamp;
use tokio::time::Instant;
use tonic::Status;

use super::{
    Api,
    answer_size::{ANSWER_BYTES_MAX, Budget},
    page::{self, List},
    stream_slots::StreamSlot,
    unavailable,
};
use crate::{
    domain::{PostId, UserId},
    event_log::EventLog,
    home_stream::{Batch, HomeStream, Position},
    proto::v1,
    store::Store,
    writes::{FieldError, Writes},
};

/// After so long without a post an empty response says that the stream is still there: the
/// next time that the timeline is read, or at the latest.
const QUIET_MIN: Duration = Duration::from_secs(20);
const QUIET_MAX: Duration = Duration::from_secs(30);

/// Where a stream goes on, as a request says; `None`: from now on.
pub(super) async fn position<L: EventLog, S: Store>(
    writes: &Writes<L, S>,
    user: UserId,
    resume_token: &str,
    resume_after: PostId,
) -> Result<Option<Position>, Status> {
    let field = "resume_token";
    let token = page::unseal(field, resume_token, List::HomeStream, user.0)?;
    let position = match (token, resume_after) {
        (None, PostId(0)) => return Ok(None),
        (None, after) => Position::after(after),
        (Some(bytes), PostId(0)) => {
            Position::of_bytes(&bytes).ok_or_else(|| page::malformed(field))?
        }
        (Some(_), _) => {
            let reason = "is not to be set with a token";
            return Err(FieldError::new("resume_after_id", reason).into());
        }
    };
    if writes.is_of_the_future(position.settled()).await? {
        let field = if resume_token.is_empty() { "resume_after_id" } else { field };
        let created_at = Timestamp::from(position.settled().created_at());
        let reason = format!(
            "names a post of the future, of {created_at}; resume after a post that was received"
        );
        return Err(FieldError::new(field, reason).into());
    }
    Ok(Some(position))
}

/// Responses until the client goes, the server stops, or something fails.
pub(super) fn responses<L: EventLog, S: Store>(
    api: Api<L, S>,
    home: HomeStream<S>,
    user: UserId,
    ids_only: bool,
    slot: StreamSlot,
) -> impl Stream<Item = Result<v1::StreamHomeTimelineResponse, Status>> + Send {
    let streaming = Streaming { api, home, user, ids_only, last: None, _slot: slot };
    stream::unfold(Some(streaming), |streaming| async {
        let mut streaming = streaming?;
        match streaming.next().await {
            Ok(response) => Some((Ok(response), Some(streaming))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

struct Streaming<L, S: Store> {
    api: Api<L, S>,
    home: HomeStream<S>,
    user: UserId,
    ids_only: bool,
    /// When the last response went out.
    last: Option<Instant>,
    _slot: StreamSlot,
}

impl<L: EventLog, S: Store> Streaming<L, S> {
    async fn next(&mut self) -> Result<v1::StreamHomeTimelineResponse, Status> {
        loop {
            if let Some(last) = self.last {
                tokio::select! {
                    biased;
                    () = self.api.door.closing() => {
                        let reason = "the server is stopping; resume on another, or later";
                        return Err(unavailable(reason.to_owned()));
                    }
                    changed = self.home.changed() => changed?,
                    () = tokio::time::sleep_until(last + QUIET_MAX) => {}
                }
            }
            if let Some(reason) = self.api.door.reads_shut() {
                return Err(unavailable(reason));
            }
            let new = self.home.find_new().await?;
            let (mut posts, mut count) = (Vec::new(), new.ids.len());
            if !self.ids_only {
                // One that is not there was deleted since.
                let mut budget = Budget::new(ANSWER_BYTES_MAX);
                let fit = self.api.posts_with_originals(&new.ids, &mut budget).await?;
                (posts, count) = (fit.posts, fit.taken);
            }
            let batch = self.home.take(new, count).await;
            // The first one says at once where to go on.
            let is_due = self.last.is_none_or(|last| last.elapsed() >= QUIET_MIN);
            if batch != Batch::default() || is_due {
                self.last = Some(Instant::now());
                return Ok(self.response(batch, posts));
            }
        }
    }

    fn response(&self, batch: Batch, posts: Vec<v1::Post>) -> v1::StreamHomeTimelineResponse {
        let post_ids = if self.ids_only {
            batch.ids.iter().map(|id| id.0).collect()
        } else {
            posts.iter().map(|post| post.id).collect()
        };
        let resume_token =
            page::seal(List::HomeStream, self.user.0, &self.home.position().to_bytes());
        let missed_before_id = batch.missed_before.map_or(0, |id| id.0);
        v1::StreamHomeTimelineResponse { post_ids, posts, resume_token, missed_before_id }
    }
}
