//! Why something was not written.

use std::sync::Arc;

use super::FieldError;
use crate::{
    domain::{MessageId, PostId, UserId},
    event_log::LogError,
    post_id::IdError,
    store::StoreError,
};

/// Why something was not written, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The request is wrong. Nothing was written.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A field names a post that does not exist. Nothing was written.
    #[error("{field}: there is no post {post}")]
    UnknownPost {
        /// The name of the field in the API.
        field: &'static str,
        /// What it names.
        post: PostId,
    },
    /// A sender has sent no such message. Nothing was written.
    #[error("message_id: account {sender} has sent no message {message}")]
    UnknownMessage {
        /// Which message.
        message: MessageId,
        /// Whose it should be.
        sender: UserId,
    },
    /// An account follows as many as it may. Nothing was written.
    #[error(
        "account {follower} follows {followees} accounts, and following_limit of this server is \
         {followees_max}; end one of its follows first"
    )]
    FollowsTooMany {
        /// Which account.
        follower: UserId,
        /// How many it follows.
        followees: u64,
        /// How many it may follow.
        followees_max: u64,
    },
    /// As much is under way as there may be, and for long. Nothing was written; try again
    /// later.
    #[error("this server has as many writes under way as it takes; try again in a moment")]
    Busy,
    /// The workers are so far behind that this cannot be answered. Nothing was
    /// written; try again later.
    #[error("the fan-out workers are behind; try again in a moment")]
    Behind,
    /// The log did not acknowledge; it may have been written. Try again with the
    /// same request id.
    #[error(transparent)]
    Log(#[from] Arc<LogError>),
    /// No id can be given out: the clock is wrong, or the node number another's. Nothing was
    /// written.
    #[error(transparent)]
    NoId(#[from] IdError),
    /// The store could not be asked. Nothing was written.
    #[error(transparent)]
    Store(#[from] Arc<StoreError>),
    /// An earlier request with the same id failed, and this one with it. Try
    /// again.
    #[error("the request with the same request id failed; try again")]
    Repeated,
    /// Nobody can tell yet whether an earlier request with the same id has made another
    /// post or message. One of them is or will be there; try again.
    #[error(
        "the request may have made its post or message before, and which one is not known before \
         the fan-out workers come to it; try again in a moment"
    )]
    Unconfirmed,
    /// The disk is nearly full. Nothing was written.
    #[error("{reason}")]
    DiskFull {
        /// Which disk, and what to do.
        reason: String,
    },
    /// The process is shutting down.
    #[error("the server is shutting down; try again on another or later")]
    Closing,
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

impl From<LogError> for WriteError {
    fn from(error: LogError) -> Self {
        Self::Log(Arc::new(error))
    }
}
