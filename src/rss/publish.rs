//! Handing an entry to Roost.

use std::time::Duration;

use tonic::{Code, Request, Status, transport::Channel};

use super::{entry::Entry, text::post_text};
use crate::{
    client::status_line,
    domain::UserId,
    proto::v1::{
        GetStatusRequest, Origin, PublishPostRequest, post_service_client::PostServiceClient,
        status_service_client::StatusServiceClient,
    },
};

/// The longest text, unless the server has a lower limit.
const TEXT_CHARS_MAX: usize = 140;

/// How long to wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why Roost has not taken an entry. It stays in the outbox either way.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublishError {
    /// The next one may be as good.
    #[error("Roost refuses a post ({}); it is tried again at the next poll", status_line(.0))]
    Refused(Status),
    /// No other one will be taken now.
    #[error("Roost takes no posts now ({}); they wait and are tried again", status_line(.0))]
    Away(Status),
}

/// A Roost to post to. Clones share a connection.
#[derive(Clone)]
pub(super) struct Roost {
    posts: PostServiceClient<Channel>,
    status: StatusServiceClient<Channel>,
}

impl Roost {
    pub(super) fn new(channel: Channel) -> Self {
        let status = StatusServiceClient::new(channel.clone());
        Self { posts: PostServiceClient::new(channel), status }
    }

    /// How long a text may be.
    ///
    /// # Errors
    /// If Roost does not say.
    pub(super) async fn text_chars_max(&mut self) -> Result<usize, PublishError> {
        let status = self.status.get_status(with_timeout(GetStatusRequest {})).await;
        let limit = status.map_err(PublishError::Away)?.into_inner().post_text_limit;
        Ok(TEXT_CHARS_MAX.min(limit as usize))
    }

    /// Posts an entry, unless its request has made a post before.
    ///
    /// # Errors
    /// If nobody knows that it did.
    pub(super) async fn publish(
        &mut self,
        author: UserId,
        entry: &Entry,
        text_chars_max: usize,
    ) -> Result<(), PublishError> {
        let request = PublishPostRequest {
            author_id: author.0,
            text: post_text(&entry.title, entry.link.as_deref(), text_chars_max),
            origin: Origin::Rss.into(),
            link: entry.link.clone().unwrap_or_default(),
            request_id: entry.id.request_id(),
            // It may have been sent before, by a process whose state is lost: only so is
            // the answer certain.
            is_retry: true,
            ..PublishPostRequest::default()
        };
        match self.posts.publish_post(with_timeout(request)).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::InvalidArgument => {
                Err(PublishError::Refused(status))
            }
            Err(status) => Err(PublishError::Away(status)),
        }
    }
}

fn with_timeout<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}
