//! How many calls there are, how long they take and how they end.
//!
//! A status comes with the headers of an answer, or after its last message: so the
//! body is watched until its end. A client that goes away before has cancelled.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use bytes::Bytes;
use http_body::Frame;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};
use tonic::{Code, codegen::http::HeaderMap, service::Routes};

use super::methods::Methods;
use crate::telemetry::{Call, CallMetrics, Held};

const STATUS: &str = "grpc-status";
/// Calls that go on until somebody ends them.
const ENDLESS: [&str; 4] = [
    "/roost.v1.TimelineService/StreamHomeTimeline",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Measures calls. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct Calls {
    metrics: Arc<CallMetrics>,
    /// The methods that there are, as `/roost.v1.PostService/PublishPost`. What else is
    /// asked for is counted together, since clients can make up any number of names.
    methods: Arc<HashSet<Arc<str>>>,
    other: Arc<str>,
    /// Those under way that end by themselves.
    ending: TaskTracker,
}

impl Calls {
    /// Measures into these metrics.
    pub fn new(metrics: Arc<CallMetrics>) -> Self {
        Self {
            metrics,
            methods: Arc::new(Methods::new().paths().map(Arc::from).collect()),
            other: "other".into(),
            ending: TaskTracker::new(),
        }
    }

    /// Waits until no call is under way but those that go on for ever.
    pub async fn ended(&self) {
        self.ending.close();
        self.ending.wait().await;
    }

    /// The same services, measured.
    pub fn measure(self, routes: Routes) -> Routes {
        routes.into_axum_router().layer(from_fn_with_state(self, measure)).into()
    }
}

async fn measure(State(calls): State<Calls>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let ending = (!ENDLESS.contains(&path)).then(|| calls.ending.token());
    let method = calls.methods.get(path).unwrap_or(&calls.other);
    let mut call = UnderWay {
        method: Arc::clone(method),
        code: None,
        begun: Instant::now(),
        _ending: ending,
        _held: Held::new(&calls.metrics.calls_in_progress, 1),
        metrics: Arc::clone(&calls.metrics),
    };
    let response = next.run(request).await;
    call.take_code(response.headers());
    response.map(|body| Body::new(Watched { body, call }))
}

/// A call that has not ended. It is measured when it is dropped.
struct UnderWay {
    method: Arc<str>,
    /// As soon as it is known.
    code: Option<Code>,
    begun: Instant,
    metrics: Arc<CallMetrics>,
    _ending: Option<TaskTrackerToken>,
    _held: Held,
}

impl UnderWay {
    fn take_code(&mut self, headers: &HeaderMap) {
        self.code = headers.get(STATUS).map(|code| Code::from_bytes(code.as_bytes())).or(self.code);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let code = name(self.code.unwrap_or(Code::Cancelled));
        let call = Call { method: Arc::clone(&self.method), code };
        self.metrics.call_seconds.get_or_create(&call).observe_since(self.begun);
    }
}

/// The body of an answer, until whose end the call lasts.
struct Watched {
    body: Body,
    call: UnderWay,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.call.take_code(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// As the documentation of gRPC spells it, in the way of metrics.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_without_an_end_have_names_that_there_are() {
        let calls = Calls::new(Arc::default());
        let of_roost: Vec<&str> =
            ENDLESS.into_iter().filter(|path| path.starts_with("/roost.")).collect();
        assert!(!of_roost.is_empty());
        assert!(of_roost.iter().all(|path| calls.methods.contains(*path)), "{of_roost:?}");
    }

    #[test]
    fn the_methods_of_the_api_are_known_and_nothing_else() {
        let calls = Calls::new(Arc::default());
        assert!(calls.methods.contains("/roost.v1.PostService/PublishPost"));
        assert!(calls.methods.contains("/roost.v1.TimelineService/ListHomeTimeline"));
        assert!(!calls.methods.contains("/roost.v1.PostService/MakeCoffee"));
    }
}
