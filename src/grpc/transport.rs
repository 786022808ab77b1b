//! gRPC over a connection of HTTP/2, with bounds on what one client may hold.
//!
//! ```text
//!  connection ─► HTTP/2 ─► a task for each call ─► request body ─► services
//!     │  pings, idleness,      │ given up where its    (bytes and time of
//!     │  resets                │ answer is not taken    what is received)
//!     └─► closed               └◄──────── answer body ◄──┘
//!                                      (bytes not taken)
//! ```

mod answers;
mod call_task;
mod deadline;
mod requests;
mod resets;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::Request;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::ServiceExt;

use self::{
    answers::{AnswerBody, AnswerBudget, ConnectionAnswers},
    call_task::CallExecutor,
    requests::{ConnectionBudget, ReceiveBudget, RequestBody},
    resets::ResetLimit,
};
pub(super) use self::{call_task::CallTask, deadline::timeout_of};
use crate::{
    listener::{Activity, ConnectionSlot, ConnectionTimes, GuardedIo},
    telemetry::CallMetrics,
};

/// Bytes that a client may send ahead on a stream, and on a connection. What is not read of
/// them waits in memory.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Calls of a connection at once.
const CONCURRENT_CALLS_MAX: u32 = 1_000;
/// Bytes of an answer that HTTP/2 holds for a socket that takes nothing.
const SEND_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Of the headers of a request.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Streams that HTTP/2 itself resets since their client broke its rules, until it ends the
/// connection.
const LOCAL_RESETS_MAX: usize = 1_024;
/// What a client sends before anything else.
const PREFACE_BYTES: usize = 24;
/// How often a connection is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a connection that is closed in order may take.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Speaks gRPC. Clones are handles of the same, and share what bounds the process.
#[derive(Clone)]
pub struct Transport {
    routes: axum::Router,
    times: ConnectionTimes,
    receiving: ReceiveBudget,
    answers: AnswerBudget,
}

/// What the calls of a connection share.
#[derive(Debug)]
struct Connection {
    activity: Arc<Activity>,
    answers: Arc<ConnectionAnswers>,
    receiving: ConnectionBudget,
    resets: Mutex<ResetLimit>,
    /// Once the client has given up too many calls.
    abused: CancellationToken,
}

impl Connection {
    fn note_reset(&self) {
        let mut resets = self.resets.lock().unwrap_or_else(PoisonError::into_inner);
        if resets.note(Instant::now()) {
            self.abused.cancel();
        }
    }
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    /// Its client has not said that it speaks HTTP/2.
    Handshake,
    /// It has had no call for long.
    Idle,
}

impl Transport {
    /// Answers with these services.
    pub fn new(routes: Routes, times: ConnectionTimes, metrics: &Arc<CallMetrics>) -> Self {
        Self {
            routes: routes.prepare().into_axum_router(),
            times,
            receiving: ReceiveBudget::new(Arc::clone(metrics)),
            answers: AnswerBudget::new(Arc::clone(metrics)),
        }
    }

    /// Answers the calls of a connection until its client goes, it is of no use, or `cut` is
    /// cancelled. Once `stop` is, the calls under way are the last.
    pub async fn serve<C>(
        self,
        io: C,
        slot: ConnectionSlot,
        stop: CancellationToken,
        cut: CancellationToken,
    ) where
        C: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let times = self.times;
        let activity = Arc::clone(slot.activity());
        let connection = Arc::new(Connection {
            activity: Arc::clone(&activity),
            answers: self.answers.of_connection(),
            receiving: self.receiving.of_connection(),
            resets: Mutex::new(ResetLimit::new(Instant::now())),
            abused: CancellationToken::new(),
        });
        let routes = self.routes;
        let of_call = Arc::clone(&connection);
        let service = service_fn(move |request| answer(routes.clone(), of_call.clone(), request));
        let io = GuardedIo::new(io, Arc::clone(&activity), times.write_stall_max);
        let http = http2::Builder::new(CallExecutor(Arc::clone(&connection)))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(CONCURRENT_CALLS_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
            .max_header_list_size(HEADER_BYTES_MAX)
            .max_local_error_reset_streams(LOCAL_RESETS_MAX)
            .keep_alive_interval(times.ping_interval)
            .keep_alive_timeout(times.ping_timeout)
            .serve_connection(TokioIo::new(io), service);
        let mut http = std::pin::pin!(http);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Once it is being closed: when it ends where it stands.
        let mut close_at: Option<Instant> = None;
        let mut is_stopping = false;
        loop {
            tokio::select! {
                _ = http.as_mut() => return,
                () = cut.cancelled() => return,
                () = slot.evicted() => return,
                () = connection.abused.cancelled(), if close_at.is_none() => {
                    slot.closed("resets");
                    tracing::debug!("a client has given up too many calls");
                    http.as_mut().graceful_shutdown();
                    close_at = Some(Instant::now() + LOOK_EVERY);
                }
                () = stop.cancelled(), if !is_stopping => {
                    if activity.bytes_read() < PREFACE_BYTES {
                        return;
                    }
                    is_stopping = true;
                    http.as_mut().graceful_shutdown();
                }
                _ = looks.tick() => {
                    let now = Instant::now();
                    if close_at.is_some_and(|at| at <= now) {
                        return;
                    }
                    match close(&activity, &times, now) {
                        Some(Close::Handshake) => {
                            slot.closed("handshake");
                            return;
                        }
                        Some(Close::Idle) if close_at.is_none() => {
                            slot.closed("idle");
                            http.as_mut().graceful_shutdown();
                            close_at = Some(now + CLOSE_MAX);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

/// Whether a connection is to be closed, and why.
fn close(activity: &Activity, times: &ConnectionTimes, now: Instant) -> Option<Close> {
    let has_preface = activity.bytes_read() >= PREFACE_BYTES;
    if !has_preface && now.saturating_duration_since(activity.begun()) >= times.handshake_max {
        return Some(Close::Handshake);
    }
    activity.idle_for(now).is_some_and(|idle| idle >= times.idle_max).then_some(Close::Idle)
}

type Answer = http::Response<AnswerBody<axum::body::Body>>;

/// Answers one call, in the task that the executor has begun for it.
async fn answer(
    routes: axum::Router,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Answer, std::io::Error> {
    let Some(task) = CallTask::current() else {
        return Err(std::io::Error::other("a call without a task"));
    };
    let mut request = request.map(|body| {
        let budget = connection.receiving.clone();
        axum::body::Body::new(RequestBody::new(body, Arc::clone(&task), budget))
    });
    request.extensions_mut().insert(Arc::clone(&task));
    // It cannot fail: its error has no values.
    let response = routes.oneshot(request).await.unwrap_or_else(|no| match no {});
    Ok(response.map(|body| AnswerBody::new(body, Arc::clone(&connection.answers), task)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_without_a_preface_or_calls_is_closed() {
        let times = ConnectionTimes::default();
        let begun = Instant::now();
        let activity = Activity::new(begun);
        assert_eq!(close(&activity, &times, begun), None);
        let late = begun + times.handshake_max;
        assert_eq!(close(&activity, &times, late), Some(Close::Handshake));
        activity.note_read(PREFACE_BYTES);
        assert_eq!(close(&activity, &times, late), None);
        let idle = begun + times.idle_max;
        assert_eq!(close(&activity, &times, idle), Some(Close::Idle));
        activity.begin_call();
        assert_eq!(close(&activity, &times, idle), None, "a call is under way");
    }
}
