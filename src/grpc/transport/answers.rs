//! Answers that their clients have not taken: bounded in bytes for each connection and for
//! the process.
//!
//! A connection whose answers wait begins no more calls until some are taken. Where the
//! process holds too much, a connection has a small share only, and streams that have not
//! moved for a second are reset: so a client that takes its answers hardly notices those that
//! do not.

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
use tokio::sync::Notify;

use super::call_task::CallTask;
use crate::telemetry::CallMetrics;

/// Bytes that wait in all.
const PROCESS_BYTES_MAX: usize = 64 << 20;
/// Bytes that wait on a connection.
const CONNECTION_BYTES_MAX: usize = 16 << 20;
/// The same, while those of the process are exceeded.
const CONNECTION_BYTES_SHARE: usize = 1 << 20;
/// An answer goes to HTTP/2 in pieces of this size, each once the one before has room.
const PIECE_BYTES_MAX: usize = 32 << 10;
/// What an answer is taken to be while none is known, and what it is at the least.
const EXPECTED_BYTES: usize = 256 << 10;
const EXPECTED_BYTES_MIN: usize = 16 << 10;
/// How often a call that waits for room looks again, if nothing wakes it.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A unary answer that has not moved for so long is given up.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Any answer, while the process holds too much.
const PRESSED_STALL_MAX: Duration = Duration::from_secs(1);

/// What the answers of the process hold. Clones are handles of the same.
#[derive(Clone, Debug)]
pub(super) struct AnswerBudget {
    held: Arc<AtomicUsize>,
    metrics: Arc<CallMetrics>,
}

impl AnswerBudget {
    pub(super) fn new(metrics: Arc<CallMetrics>) -> Self {
        Self { held: Arc::default(), metrics }
    }

    pub(super) fn of_connection(&self) -> Arc<ConnectionAnswers> {
        Arc::new(ConnectionAnswers {
            process: self.clone(),
            held: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            expected: AtomicUsize::new(EXPECTED_BYTES),
            freed: Notify::new(),
        })
    }
}

/// What those of a connection hold.
#[derive(Debug)]
pub(crate) struct ConnectionAnswers {
    process: AnswerBudget,
    held: AtomicUsize,
    /// Calls at work, whose answers are still to come.
    working: AtomicUsize,
    /// Bytes of an answer, a guess from the last ones that errs to the large side.
    expected: AtomicUsize,
    freed: Notify,
}

/// A call at work. Its answer is counted from when it ends.
#[derive(Debug)]
pub(crate) struct Working(Arc<ConnectionAnswers>);

impl ConnectionAnswers {
    /// Waits until a call may begin. The caller bounds the time.
    pub(crate) async fn room(&self) {
        while !self.has_room(self.working.load(Relaxed)) {
            let freed = self.freed.notified();
            // What is given up on other connections wakes nobody here.
            let _ = tokio::time::timeout(LOOK_EVERY, freed).await;
        }
    }

    /// Begins a call, if there is room for its answer.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Working> {
        let others = self.working.fetch_add(1, Relaxed);
        let working = Working(Arc::clone(self));
        self.has_room(others).then_some(working)
    }

    /// Whether there is room for one more beside so many at work.
    fn has_room(&self, others: usize) -> bool {
        let expected = others.saturating_mul(self.expected.load(Relaxed));
        let held = self.held.load(Relaxed).saturating_add(expected);
        may_begin(held, self.process.held.load(Relaxed))
    }

    fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Relaxed);
        self.process.held.fetch_add(bytes, Relaxed);
        self.process.metrics.untaken_answer_bytes.inc_by(bytes as i64);
    }

    fn free(&self, bytes: usize) {
        if bytes > 0 {
            self.held.fetch_sub(bytes, Relaxed);
            self.process.held.fetch_sub(bytes, Relaxed);
            self.process.metrics.untaken_answer_bytes.dec_by(bytes as i64);
            self.freed.notify_waiters();
        }
    }

    /// Whether an answer that has not moved for `idle` is to be given up; counted if so.
    pub(super) fn is_stalled(&self, idle: Duration, is_streaming: bool) -> bool {
        let is_pressed = self.process.held.load(Relaxed) >= PROCESS_BYTES_MAX;
        let is_stalled = is_stalled(idle, is_streaming, is_pressed);
        if is_stalled {
            self.process.metrics.stalled_answers.inc();
        }
        is_stalled
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Relaxed);
        self.0.freed.notify_waiters();
    }
}

/// Whether a call may begin on a connection that holds, or is about to hold, so much.
fn may_begin(connection_held: usize, process_held: usize) -> bool {
    let is_pressed = process_held >= PROCESS_BYTES_MAX;
    let max = if is_pressed { CONNECTION_BYTES_SHARE } else { CONNECTION_BYTES_MAX };
    connection_held <= max
}

/// Streams wait for their clients as long as there is room for what they hold.
fn is_stalled(idle: Duration, is_streaming: bool, is_pressed: bool) -> bool {
    (is_pressed && idle >= PRESSED_STALL_MAX) || (!is_streaming && idle >= STALL_MAX)
}

/// What is expected of the next answer after one of so many bytes.
fn expected_after(expected: usize, bytes: usize) -> usize {
    bytes.max(expected - expected / 8).max(EXPECTED_BYTES_MIN)
}

/// The body of an answer, within the budgets.
pub(super) struct AnswerBody<B> {
    body: B,
    answers: Arc<ConnectionAnswers>,
    task: Arc<CallTask>,
    /// What is still to go out of the last frame.
    rest: Bytes,
    /// Of the last frame: the rest, and the piece that went out last.
    held: usize,
}

impl<B: Body> AnswerBody<B> {
    pub(super) fn new(body: B, answers: Arc<ConnectionAnswers>, task: Arc<CallTask>) -> Self {
        if body.is_end_stream() {
            task.set_answered();
        }
        Self { body, answers, task, rest: Bytes::new(), held: 0 }
    }

    /// Gives back all but so much, as what went out before has been taken.
    fn keep(&mut self, bytes: usize) {
        self.answers.free(self.held.saturating_sub(bytes));
        self.held = self.held.min(bytes);
        self.task.moved(self.held);
    }

    fn piece(&mut self) -> Frame<Bytes> {
        let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES_MAX));
        Frame::data(piece)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for AnswerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let rest = self.rest.len();
        self.keep(rest);
        if rest > 0 {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            ended => {
                self.task.set_answered();
                return Poll::Ready(ended);
            }
        };
        match frame.into_data() {
            Ok(bytes) => {
                let expected = self.answers.expected.load(Relaxed);
                self.answers.expected.store(expected_after(expected, bytes.len()), Relaxed);
                self.answers.hold(bytes.len());
                self.held = bytes.len();
                self.task.moved(self.held);
                self.rest = bytes;
                Poll::Ready(Some(Ok(self.piece())))
            }
            Err(trailers) => {
                self.task.set_answered();
                Poll::Ready(Some(Ok(trailers)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl<B> Drop for AnswerBody<B> {
    fn drop(&mut self) {
        self.answers.free(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_without_answers_always_begins_calls() {
        assert!(may_begin(0, 10 * PROCESS_BYTES_MAX));
        assert!(may_begin(CONNECTION_BYTES_MAX, 0));
        assert!(!may_begin(CONNECTION_BYTES_MAX + 1, 0));
        assert!(!may_begin(CONNECTION_BYTES_SHARE + 1, PROCESS_BYTES_MAX));
    }

    #[test]
    fn streams_stall_only_while_the_process_holds_too_much() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3_600));
        assert!(!is_stalled(hour, true, false) && is_stalled(hour, false, false));
        assert!(is_stalled(second, true, true) && is_stalled(second, false, true));
        assert!(!is_stalled(second, false, false));
    }

    #[test]
    fn small_answers_let_a_connection_begin_a_thousand_calls() {
        let expected = (0..100).fold(EXPECTED_BYTES, |expected, _| expected_after(expected, 500));
        assert!(may_begin(1_000 * expected, 0), "{expected}");
        assert_eq!(expected_after(expected, 2 << 20), 2 << 20);
    }
}
