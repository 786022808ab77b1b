//! Admission control: past what the process can do, calls are shed by the time that they
//! wait, so that those that are let in are answered in time.
//!
//! ```text
//!  call ─► request whole ─► room for its answer ─► queue of its class ─► services
//!              │                                        └─► RESOURCE_EXHAUSTED, RetryInfo
//!              └── within grpc-timeout all the way, or DEADLINE_EXCEEDED ──┘
//! ```
//!
//! A request is read before its call waits, so that a client that sends slowly holds no
//! place. A call whose client has gone, or whose deadline has passed, is dropped wherever it
//! is. Streams are let in and go at the pace of what they write; health, reflection and
//! status are always answered.

mod class;
mod queue;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::sync::oneshot;
use tonic::{Code, Status, service::Routes};
use tonic_types::{ErrorDetails, StatusExt};

use self::{
    class::{Class, Classes},
    queue::{Arrival, Bounds, Decided, Queue},
};
use super::{
    REQUEST_BYTES_MAX, RETRY_DELAY,
    transport::{CallTask, timeout_of},
};
use crate::telemetry::{CallMetrics, Histogram, Kind};

/// Reads work in memory, or wait for Redis.
const READS: Bounds = Bounds { limit: 256, limit_min: 16, limit_max: 4_096, waiting_max: 16_384 };
/// Writes wait for an fsync or for Kafka, together with many others: the more, the better.
const WRITES: Bounds =
    Bounds { limit: 1_024, limit_min: 1_024, limit_max: 16_384, waiting_max: 16_384 };
/// The longest that a call waits for answers of its connection to be taken.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often a call that waits has the queue look at it, if nothing else does.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Lets calls in. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct Admission {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    classes: Classes,
    reads: Arc<Entrance>,
    writes: Arc<Entrance>,
}

impl Admission {
    /// Counts into these metrics.
    pub fn new(metrics: &CallMetrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                classes: Classes::new(),
                reads: Arc::new(Entrance::new(READS, "read", metrics)),
                writes: Arc::new(Entrance::new(WRITES, "write", metrics)),
            }),
        }
    }

    /// The same services, behind it.
    pub fn guard(self, routes: Routes) -> Routes {
        routes.into_axum_router().layer(from_fn_with_state(self, admit)).into()
    }
}

async fn admit(State(admission): State<Admission>, request: Request, next: Next) -> Response {
    let task = request.extensions().get::<Arc<CallTask>>().cloned();
    let arrived = task.as_ref().map_or_else(Instant::now, |task| task.arrived());
    let lag = arrived.elapsed();
    let deadline = timeout_of(request.headers()).and_then(|timeout| arrived.checked_add(timeout));
    let entrance = match admission.shared.classes.of(request.uri().path()) {
        Class::Read => Some(&admission.shared.reads),
        Class::Write => Some(&admission.shared.writes),
        Class::Stream { by_client, by_server } => {
            if let Some(task) = &task {
                task.set_streaming(by_client, by_server);
            }
            None
        }
        Class::Exempt => None,
    };
    let answer = async {
        match entrance {
            None => next.run(request).await,
            Some(entrance) => match unary(entrance, lag, task, request, next).await {
                Ok(response) => response,
                Err(status) => status.into_http(),
            },
        }
    };
    match deadline {
        None => answer.await,
        Some(deadline) => match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(response) => response,
            Err(_) => Status::deadline_exceeded("the deadline has passed").into_http(),
        },
    }
}

async fn unary(
    entrance: &Arc<Entrance>,
    lag: Duration,
    task: Option<Arc<CallTask>>,
    request: Request,
    next: Next,
) -> Result<Response, Status> {
    let (head, body) = request.into_parts();
    let request = Request::from_parts(head, read_whole(body).await?);
    let mut lag = lag;
    let (_slot, _working) = loop {
        if let Some(task) = &task {
            let room = tokio::time::timeout(ROOM_WAIT_MAX, task.answers().room()).await;
            room.map_err(|_| {
                exhausted("this connection has not taken its answers; read them, and try again")
            })?;
        }
        let slot = entrance.enter(lag).await?;
        match &task {
            None => break (slot, None),
            Some(task) => {
                if let Some(working) = task.answers().begin() {
                    break (slot, Some(working));
                }
            }
        }
        // It was late because of its connection.
        lag = Duration::ZERO;
    };
    Ok(next.run(request).await)
}

/// All of a request, which is one message. What is too long is cut, since its prefix says
/// already that it is.
async fn read_whole(mut body: Body) -> Result<Body, Status> {
    let mut first: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    while !body.is_end_stream() && whole.len() <= REQUEST_BYTES_MAX {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(|error| Status::from_error(error.into_inner()))?;
        // Trailers of a request say nothing.
        let Ok(bytes) = frame.into_data() else { break };
        match first.take() {
            None if whole.is_empty() => first = Some(bytes),
            before => {
                whole.extend_from_slice(before.as_deref().unwrap_or_default());
                whole.extend_from_slice(&bytes);
            }
        }
    }
    Ok(Body::new(Full::new(first.unwrap_or_else(|| whole.freeze()))))
}

fn exhausted(message: &str) -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY_DELAY));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// The entrance of a class.
#[derive(Debug)]
struct Entrance {
    inside: Mutex<Inside>,
    queue_seconds: Histogram,
    shed: Counter,
    limit: Gauge,
}

#[derive(Debug)]
struct Inside {
    queue: Queue,
    /// Tells those that wait whether they are let in.
    waiting: HashMap<u64, oneshot::Sender<bool>>,
}

/// The place of a call that was let in.
struct Slot {
    entrance: Arc<Entrance>,
    begun: Instant,
}

/// The place of a call that waits.
struct Waiting {
    entrance: Arc<Entrance>,
    ticket: u64,
    verdict: oneshot::Receiver<bool>,
}

impl Entrance {
    fn new(bounds: Bounds, name: &'static str, metrics: &CallMetrics) -> Self {
        let kind = Kind { kind: name };
        let limit = metrics.concurrency_limit.get_or_create(&kind).clone();
        limit.set(bounds.limit as i64);
        Self {
            inside: Mutex::new(Inside { queue: Queue::new(bounds), waiting: HashMap::new() }),
            queue_seconds: metrics.queue_seconds.get_or_create(&kind).clone(),
            shed: metrics.shed_calls.get_or_create(&kind).clone(),
            limit,
        }
    }

    /// Waits until a call may begin.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if it is shed.
    async fn enter(self: &Arc<Self>, lag: Duration) -> Result<Slot, Status> {
        let begun = Instant::now();
        let arrival = {
            let mut inside = self.lock();
            let arrival = inside.queue.arrive(begun, lag);
            self.limit.set(inside.queue.limit() as i64);
            let waiting = match arrival {
                Arrival::LetIn => Ok(None),
                Arrival::Shed => Err(()),
                Arrival::Waits(ticket) => {
                    let (sender, verdict) = oneshot::channel();
                    inside.waiting.insert(ticket, sender);
                    Ok(Some(Waiting { entrance: Arc::clone(self), ticket, verdict }))
                }
            };
            inside.decide(begun);
            waiting
        };
        let is_let_in = match arrival {
            Ok(None) => true,
            Ok(Some(waiting)) => waiting.verdict().await,
            Err(()) => false,
        };
        self.queue_seconds.observe_since(begun);
        if is_let_in {
            return Ok(Slot { entrance: Arc::clone(self), begun: Instant::now() });
        }
        self.shed.inc();
        Err(exhausted("the server has more to do than it can; try again later"))
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Whole even after a panic: nothing in between can panic.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, took: Duration) {
        let mut inside = self.lock();
        inside.queue.leave(took);
        inside.decide(Instant::now());
    }
}

impl Inside {
    fn decide(&mut self, now: Instant) {
        let Decided { let_in, shed } = self.queue.decide(now);
        let verdicts = let_in.into_iter().map(|ticket| (ticket, true));
        for (ticket, is_let_in) in verdicts.chain(shed.into_iter().map(|ticket| (ticket, false))) {
            if let Some(sender) = self.waiting.remove(&ticket) {
                // One that is being dropped takes note of its verdict there.
                let _ = sender.send(is_let_in);
            }
        }
    }
}

impl Waiting {
    async fn verdict(mut self) -> bool {
        loop {
            match tokio::time::timeout(LOOK_EVERY, &mut self.verdict).await {
                Ok(verdict) => {
                    // It is the caller's from now on.
                    return verdict.unwrap_or(false);
                }
                Err(_) => self.entrance.lock().decide(Instant::now()),
            }
        }
    }
}

impl Drop for Waiting {
    /// A call that is given up while it waits gives its place back.
    fn drop(&mut self) {
        let mut inside = self.entrance.lock();
        if inside.waiting.remove(&self.ticket).is_some() {
            inside.queue.give_up(self.ticket);
        } else if self.verdict.try_recv() == Ok(true) {
            inside.queue.release();
        }
        inside.decide(Instant::now());
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.entrance.leave(self.begun.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn entrance() -> Arc<Entrance> {
        let bounds = Bounds { limit: 1, limit_min: 1, limit_max: 1, waiting_max: 10 };
        Arc::new(Entrance::new(bounds, "read", &CallMetrics::default()))
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_leaves_its_place() {
        let entrance = entrance();
        let slot = entrance.enter(Duration::ZERO).await.expect("let in");
        let mut given_up = Box::pin(entrance.enter(Duration::ZERO));
        let mut next = Box::pin(entrance.enter(Duration::ZERO));
        assert!(given_up.as_mut().now_or_never().is_none());
        assert!(next.as_mut().now_or_never().is_none());
        drop(given_up);
        drop(slot);
        drop(next.await.expect("let in"));
        assert!(entrance.lock().waiting.is_empty());
        drop(entrance.enter(Duration::ZERO).await.expect("let in"));
    }

    #[tokio::test]
    async fn a_call_that_is_given_up_once_let_in_leaves_its_place() {
        let entrance = entrance();
        let slot = entrance.enter(Duration::ZERO).await.expect("let in");
        let mut given_up = Box::pin(entrance.enter(Duration::ZERO));
        assert!(given_up.as_mut().now_or_never().is_none());
        drop(slot);
        drop(given_up);
        drop(entrance.enter(Duration::ZERO).await.expect("let in"));
    }

    #[tokio::test]
    async fn what_waits_behind_a_call_that_hangs_is_shed_with_advice() {
        let entrance = entrance();
        let _slot = entrance.enter(Duration::ZERO).await.expect("let in");
        let status = entrance.enter(Duration::ZERO).await.err().expect("shed");
        assert_eq!(status.code(), Code::ResourceExhausted);
        let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
        assert_eq!(retry, Some(RETRY_DELAY));
    }

    #[tokio::test]
    async fn a_request_is_read_whole_and_no_longer_than_one_may_be() {
        let pieces = |count: usize| {
            let piece = Bytes::from(vec![7; 1 << 20]);
            let pieces = (0..count).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
            Body::from_stream(futures::stream::iter(pieces))
        };
        let length = async |body| {
            read_whole(body).await.expect("read").collect().await.expect("bytes").to_bytes().len()
        };
        assert_eq!(length(pieces(0)).await, 0);
        assert_eq!(length(pieces(1)).await, 1 << 20);
        assert_eq!(length(pieces(3)).await, 3 << 20);
        assert_eq!(length(pieces(100)).await, 5 << 20);
    }
}
