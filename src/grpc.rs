//! The gRPC API: proto to domain and back, errors to statuses; nothing else.

mod admission;
mod answer_size;
mod calls;
mod gate;
mod graph;
mod home_stream;
mod message_meter;
mod messages;
mod methods;
mod notifications;
mod page;
mod posts;
mod publish_stream;
mod reading;
mod status;
mod stream_slots;
mod timelines;
mod transport;
mod whole_messages;

use std::sync::Arc;

use tonic::{Status, codec::CompressionEncoding, service::Routes};
use tonic_types::{ErrorDetails, StatusExt};

use self::whole_messages::WholeMessages;
pub use self::{
    admission::Admission,
    calls::Calls,
    gate::{Door, Gate},
    stream_slots::StreamSlots,
    transport::Transport,
};
use crate::{
    event_log::{EventLog, LogError},
    fanout::Progress,
    home_stream::Watch,
    home_timeline::{HomeTimelines, ReadError},
    post_id::IdError,
    proto::{self, v1},
    store::{Store, StoreError},
    telemetry::FanoutMetrics,
    writes::{FieldError, WriteError, Writes},
};

/// The largest message of a request, in bytes, packed and unpacked. One of 100,000 edges fits.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// The time after which a client may try again, in answers that say so.
const RETRY_DELAY: std::time::Duration = std::time::Duration::from_millis(500);

/// What the services answer from. Clones are handles of the same.
pub struct Api<L, S: Store> {
    /// Takes what is written.
    pub writes: Writes<L, S>,
    /// Answers what is read.
    pub homes: Arc<HomeTimelines<S>>,
    /// Tells streams of what is new.
    pub watch: Arc<Watch<S>>,
    /// Says whether anything may be read, and when streams are to end.
    pub door: Door,
    /// Says whether there is room for one more stream.
    pub stream_slots: StreamSlots,
    /// Answers what is looked up.
    pub store: Arc<S>,
    /// Says how far the log has come.
    pub log: Arc<L>,
    /// Says how far the workers have come.
    pub progress: Arc<Progress>,
    /// Says what the workers have done.
    pub fanout: Arc<FanoutMetrics>,
    /// What clients are told of the settings.
    pub limits: Limits,
}

/// What clients are told of the settings.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// CAP.
    pub home_timeline_cap: usize,
    /// The longest text of a post, in Unicode scalar values.
    pub text_chars_max: usize,
}

impl<L, S: Store> Clone for Api<L, S> {
    fn clone(&self) -> Self {
        Self {
            writes: self.writes.clone(),
            homes: Arc::clone(&self.homes),
            watch: Arc::clone(&self.watch),
            door: self.door.clone(),
            stream_slots: self.stream_slots.clone(),
            store: Arc::clone(&self.store),
            log: Arc::clone(&self.log),
            progress: Arc::clone(&self.progress),
            fanout: Arc::clone(&self.fanout),
            limits: self.limits,
        }
    }
}

/// All services, with reflection.
pub fn routes<L: EventLog, S: Store>(
    api: Api<L, S>,
) -> Result<Routes, tonic_reflection::server::Error> {
    // Requests may be packed. Answers are not: the usual clients say that they take gzip whether
    // they want it or not, and to pack costs more than to make an answer.
    macro_rules! service {
        ($server:path, $api:expr) => {
            WholeMessages(
                <$server>::new($api)
                    .max_decoding_message_size(REQUEST_BYTES_MAX)
                    .accept_compressed(CompressionEncoding::Gzip),
            )
        };
    }
    let posts = service!(v1::post_service_server::PostServiceServer<_>, api.clone());
    let graph = service!(v1::graph_service_server::GraphServiceServer<_>, api.clone());
    let timelines = service!(v1::timeline_service_server::TimelineServiceServer<_>, api.clone());
    let notifications =
        service!(v1::notification_service_server::NotificationServiceServer<_>, api.clone());
    let messages = service!(v1::message_service_server::MessageServiceServer<_>, api.clone());
    let status = service!(v1::status_service_server::StatusServiceServer<_>, api);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Routes::new(posts)
        .add_service(graph)
        .add_service(timelines)
        .add_service(notifications)
        .add_service(messages)
        .add_service(status)
        .add_service(reflection().build_v1()?)
        // Many tools still ask for the older one.
        .add_service(reflection().build_v1alpha()?))
}

impl From<FieldError> for Status {
    fn from(error: FieldError) -> Self {
        let details = ErrorDetails::with_bad_request_violation(error.field, &error.reason);
        Self::with_error_details(tonic::Code::InvalidArgument, error.to_string(), details)
    }
}

impl From<WriteError> for Status {
    fn from(error: WriteError) -> Self {
        let message = error.to_string();
        match error {
            WriteError::Field(error) => error.into(),
            WriteError::UnknownPost { post, .. } => not_found("post", post.0, message),
            WriteError::UnknownMessage { message: id, .. } => not_found("message", id.0, message),
            WriteError::DiskFull { .. } => Status::resource_exhausted(message),
            WriteError::FollowsTooMany { .. } => Status::failed_precondition(message),
            WriteError::Store(error) => store_status(&error),
            WriteError::Log(error) => log_status(&error),
            // Trying again does not help until somebody has mended it.
            WriteError::NoId(
                IdError::Ahead { .. } | IdError::Jumped { .. } | IdError::Exhausted { .. },
            ) => Status::unavailable(message),
            WriteError::Busy
            | WriteError::Behind
            | WriteError::Unconfirmed
            | WriteError::Repeated
            | WriteError::NoId(IdError::NoNode)
            | WriteError::Closing => unavailable(message),
        }
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        store_status(&error)
    }
}

fn log_status(error: &LogError) -> Status {
    let message = error.to_string();
    match error {
        LogError::Corrupt { .. } | LogError::Incomplete { .. } => Status::data_loss(message),
        LogError::TooLarge { .. } => Status::invalid_argument(message),
        // Trying again does not help until somebody has mended it.
        LogError::Refused { .. } => Status::unavailable(message),
        _ => unavailable(message),
    }
}

fn store_status(error: &StoreError) -> Status {
    let message = error.to_string();
    match error {
        StoreError::Damaged { .. } => Status::data_loss(message),
        StoreError::TooManyAccounts { .. } => Status::resource_exhausted(message),
        // Trying again does not help until somebody has mended it.
        StoreError::Poisoned { .. } | StoreError::InUse { .. } => Status::unavailable(message),
        StoreError::Redis { is_final: true, .. } => Status::unavailable(message),
        StoreError::Disk { .. }
        | StoreError::Redis { .. }
        | StoreError::Fenced { .. }
        | StoreError::Lost { .. }
        | StoreError::Closed => unavailable(message),
    }
}

impl From<ReadError> for Status {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::Busy => unavailable(error.to_string()),
        }
    }
}

fn unavailable(message: String) -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_DELAY));
    Status::with_error_details(tonic::Code::Unavailable, message, details)
}

fn not_found(kind: &'static str, id: u64, message: String) -> Status {
    let details = ErrorDetails::with_resource_info(kind, id.to_string(), "", &message);
    Status::with_error_details(tonic::Code::NotFound, message, details)
}

/// The status of a stream that has ended in an error, with what of it was taken.
fn with_taken(status: &Status, taken: &str) -> Status {
    let message = format!("{}; {taken}", status.message());
    Status::with_details(status.code(), message, status.details().to_vec().into())
}

/// The status of a whole stream, or batch, that one of its items has spoiled.
fn at_place(place: usize, error: WriteError) -> Status {
    match error {
        WriteError::Field(FieldError { field, reason }) => {
            let field = format!("requests[{place}].{field}");
            let details = ErrorDetails::with_bad_request_violation(&field, &reason);
            let message = format!("{field}: {reason}; nothing was published");
            Status::with_error_details(tonic::Code::InvalidArgument, message, details)
        }
        WriteError::UnknownPost { field, post } => {
            let message = format!(
                "requests[{place}].{field}: there is no post {post}; nothing was published"
            );
            not_found("post", post.0, message)
        }
        error => error.into(),
    }
}
