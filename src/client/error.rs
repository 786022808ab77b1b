//! What can go wrong for a client, each in one line that says what to do.

use std::error::Error;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::edge_list::EdgeListError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address of the server is none.
    #[error("{target:?} is no address of a Roost: {reason}; give --target http://HOST:PORT")]
    BadTarget {
        /// What was given.
        target: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing answers at the address.
    #[error(
        "no Roost answers at {target} ({reason}); start one with `roost serve`, or name \
         another with --target http://HOST:PORT"
    )]
    Unreachable {
        /// Where it was looked for.
        target: String,
        /// What the system said.
        reason: String,
    },
    /// The server refused the request or failed.
    #[error("{}", status_line(.0))]
    Refused(Box<Status>),
    /// A file of follows cannot be imported.
    #[error(transparent)]
    EdgeList(#[from] EdgeListError),
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
    /// The server's answer breaks the protocol.
    #[error("the server's answer makes no sense: {0}; is it another version of Roost?")]
    BadAnswer(String),
    /// A background thread of this process died.
    #[error("a background task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// A status as one line: what kind of failure, what the server says, and the
/// fields it names where its message does not name them.
pub(crate) fn status_line(status: &Status) -> String {
    let message = one_line(status.message());
    let kind = match status.code() {
        Code::InvalidArgument => "bad request",
        Code::NotFound => "not found",
        Code::Unavailable => "the server cannot take it now, try again",
        Code::ResourceExhausted => "the server is overloaded, try again later",
        Code::FailedPrecondition => "refused",
        Code::Unimplemented => "the server does not know this call; is it an older version?",
        Code::Internal | Code::DataLoss => "the server failed",
        _ => status.code().description(),
    };
    let mut line = if message.is_empty() { kind.to_owned() } else { format!("{kind}: {message}") };
    if let Some(bad_request) = status.get_details_bad_request() {
        for violation in bad_request.field_violations {
            let description = one_line(&violation.description);
            match (message.contains(&violation.field), message.contains(&description)) {
                (true, true) => {}
                (false, true) => line.push_str(&format!(" (field {})", violation.field)),
                _ => line.push_str(&format!(" (field {}: {description})", violation.field)),
            }
        }
    }
    line
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the same request may succeed later: the server said so, or the
/// connection broke and nobody knows.
pub(crate) fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::DeadlineExceeded
        | Code::Cancelled => true,
        // What the server says itself has no source.
        _ => status.source().is_some(),
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_status_is_one_line_with_its_fields() {
        let details = ErrorDetails::with_bad_request_violation("text", "has 141 characters");
        let status =
            Status::with_error_details(Code::InvalidArgument, "the post\nis too long", details);
        assert_eq!(
            ClientError::from(status).to_string(),
            "bad request: the post is too long (field text: has 141 characters)"
        );
    }

    #[test]
    fn what_the_message_says_is_not_said_twice() {
        let details = ErrorDetails::with_bad_request_violation("text", "is empty");
        let status = Status::with_error_details(Code::InvalidArgument, "text is empty", details);
        assert_eq!(ClientError::from(status).to_string(), "bad request: text is empty");
        assert_eq!(
            ClientError::from(Status::not_found("post 7 does not exist")).to_string(),
            "not found: post 7 does not exist"
        );
    }
}
