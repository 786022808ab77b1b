//! What is being received: bounded in bytes for each connection and for the process, and in
//! the time that a message may take to arrive.
//!
//! A message that is larger than a few frames takes its whole length from both budgets before
//! more of it is read, so that two half-sent messages never wait for each other; what has not
//! been read stays with HTTP/2's flow control, which then grants the client no more. The
//! lease ends with the call, or when the next message of a stream begins.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep_until},
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::call_task::CallTask;
use crate::{
    grpc::{
        REQUEST_BYTES_MAX, RETRY_DELAY,
        message_meter::{MessageMeter, Place},
    },
    telemetry::{CallMetrics, Held},
};

/// Messages up to this length need no lease: a few frames.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// What all large messages that are being received hold together.
const PROCESS_BYTES_MAX: usize = 64 << 20;
/// And those of one connection.
const CONNECTION_BYTES_MAX: usize = 16 << 20;
/// Messages that wait for the budget of the process. Each holds up to a stream's window.
const WAITING_MAX: usize = 64;
/// From a message's first byte, or the beginning of the call, to its last byte.
pub(super) const MESSAGE_TIME_MAX: Duration = Duration::from_secs(20);

/// The budget of the process. Clones are handles of the same.
#[derive(Clone, Debug)]
pub(super) struct ReceiveBudget {
    free: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    metrics: Arc<CallMetrics>,
}

impl ReceiveBudget {
    pub(super) fn new(metrics: Arc<CallMetrics>) -> Self {
        Self { free: Arc::new(Semaphore::new(PROCESS_BYTES_MAX)), waiting: Arc::default(), metrics }
    }

    /// The budget of a new connection.
    pub(super) fn of_connection(&self) -> ConnectionBudget {
        ConnectionBudget {
            process: self.clone(),
            free: Arc::new(Semaphore::new(CONNECTION_BYTES_MAX)),
        }
    }
}

/// The budget of one connection. Clones are handles of the same.
#[derive(Clone, Debug)]
pub(super) struct ConnectionBudget {
    process: ReceiveBudget,
    free: Arc<Semaphore>,
}

/// What a large message holds.
#[derive(Debug)]
pub(super) struct Lease {
    _connection: OwnedSemaphorePermit,
    _process: OwnedSemaphorePermit,
    _bytes: Held,
}

impl ConnectionBudget {
    /// Waits until there is room for a message of so many bytes.
    async fn lease(self, bytes: usize) -> Result<Lease, Status> {
        // What is longer is refused once its prefix is read, which needs no room.
        let count = bytes.min(REQUEST_BYTES_MAX) as u32;
        let connection = Arc::clone(&self.free).acquire_many_owned(count).await;
        let process = match Arc::clone(&self.process.free).try_acquire_many_owned(count) {
            Ok(permit) => Ok(permit),
            Err(_) => {
                let waiting = Waiting::begin(&self.process.waiting);
                if waiting.count > WAITING_MAX {
                    return Err(self.process.refused(
                        Code::ResourceExhausted,
                        "the server is receiving as many large messages as it may; try again later",
                    ));
                }
                Arc::clone(&self.process.free).acquire_many_owned(count).await
            }
        };
        match (connection, process) {
            (Ok(connection), Ok(process)) => Ok(Lease {
                _connection: connection,
                _process: process,
                _bytes: Held::new(&self.process.metrics.receiving_bytes, bytes),
            }),
            // Nothing closes them.
            _ => Err(Status::internal("the budget of requests is closed")),
        }
    }
}

impl ReceiveBudget {
    fn refused(&self, code: Code, message: &str) -> Status {
        self.metrics.refused_messages.inc();
        let details = ErrorDetails::with_retry_info(Some(RETRY_DELAY));
        Status::with_error_details(code, message, details)
    }
}

/// One that waits, counted for as long as it does.
struct Waiting {
    all: Arc<AtomicUsize>,
    count: usize,
}

impl Waiting {
    fn begin(all: &Arc<AtomicUsize>) -> Self {
        Self { all: Arc::clone(all), count: all.fetch_add(1, Relaxed) + 1 }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Relaxed);
    }
}

/// A lease that is waited for.
type Leasing = Pin<Box<dyn Future<Output = Result<Lease, Status>> + Send>>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request, within the budgets. Its errors are [`Status`]es where Roost has
/// refused it.
pub(super) struct RequestBody {
    body: Incoming,
    task: Arc<CallTask>,
    budget: ConnectionBudget,
    meter: MessageMeter,
    /// What was read and waits for its lease.
    frame: Option<Bytes>,
    leasing: Option<Leasing>,
    /// Armed while a message is due.
    overdue: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, task: Arc<CallTask>, budget: ConnectionBudget) -> Self {
        let meter = MessageMeter::default();
        Self { body, task, budget, meter, frame: None, leasing: None, overdue: None }
    }

    /// Whether more must come by some time: within a message, and before the one of a call that
    /// has a single one. A stream may pause between messages.
    fn is_due(&self) -> bool {
        self.meter.place() != Place::Between
            || (self.meter.messages() == 0 && !self.task.is_client_streaming())
    }

    /// Fails once what is due has taken too long.
    fn poll_overdue(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let begun = Instant::now();
        let overdue =
            self.overdue.get_or_insert_with(|| Box::pin(sleep_until(begun + MESSAGE_TIME_MAX)));
        ready!(overdue.as_mut().poll(context));
        Poll::Ready(self.budget.process.refused(
            Code::DeadlineExceeded,
            "the message did not arrive whole in 20 seconds; send it again",
        ))
    }

    fn poll_data(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let Some(leasing) = &mut self.leasing {
                let lease = ready!(leasing.as_mut().poll(context));
                self.leasing = None;
                match lease {
                    Ok(lease) => self.task.set_lease(Some(lease)),
                    Err(status) => {
                        self.frame = None;
                        return Poll::Ready(Some(Err(status.into())));
                    }
                }
            }
            if let Some(frame) = self.frame.take() {
                return Poll::Ready(Some(Ok(Frame::data(frame))));
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(None),
            };
            let bytes = match frame.into_data() {
                Ok(bytes) => bytes,
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            };
            let was_at = self.meter.place();
            if self.meter.advance(&bytes) {
                self.overdue = None;
            }
            match (was_at, self.meter.place()) {
                (Place::Message(_), Place::Message(_)) if self.task.has_lease() => {}
                (_, Place::Message(length)) if length > SMALL_BYTES_MAX => {
                    // That of the message before goes first, so that none is held while waiting.
                    self.task.set_lease(None);
                    self.leasing = Some(Box::pin(self.budget.clone().lease(length)));
                    self.frame = Some(bytes);
                    continue;
                }
                _ => {}
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = self.poll_data(context);
        if polled.is_pending() && (self.is_due() || self.leasing.is_some()) {
            let status = ready!(self.poll_overdue(context));
            self.leasing = None;
            self.frame = None;
            return Poll::Ready(Some(Err(status.into())));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.frame.is_none() && self.leasing.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
