//! The task of one call: what it holds, and when it is given up since its client does not
//! take the answer.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep};

use super::{Connection, answers::ConnectionAnswers, requests::Lease};

/// How often a call whose answer waits is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

tokio::task_local! {
    static CURRENT: Arc<CallTask>;
}

/// A call. It counts as one of its connection until it is dropped.
#[derive(Debug)]
pub(crate) struct CallTask {
    connection: Arc<Connection>,
    arrived: Instant,
    /// Its client may send nothing for as long as it likes.
    is_client_streaming: AtomicBool,
    /// Its client may take as long as it likes over the answers.
    is_server_streaming: AtomicBool,
    is_answered: AtomicBool,
    /// Bytes of the answer that wait for the client.
    untaken: AtomicUsize,
    /// When the answer last moved, in milliseconds since the call arrived.
    moved_ms: AtomicU64,
    lease: Mutex<Option<Lease>>,
}

impl CallTask {
    fn new(connection: Arc<Connection>) -> Self {
        connection.activity.begin_call();
        Self {
            connection,
            arrived: Instant::now(),
            is_client_streaming: AtomicBool::new(false),
            is_server_streaming: AtomicBool::new(false),
            is_answered: AtomicBool::new(false),
            untaken: AtomicUsize::new(0),
            moved_ms: AtomicU64::new(0),
            lease: Mutex::new(None),
        }
    }

    /// The call whose task this is; `None` elsewhere.
    pub(super) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// When its headers had come.
    pub(crate) fn arrived(&self) -> Instant {
        self.arrived
    }

    /// The answers of its connection.
    pub(crate) fn answers(&self) -> &Arc<ConnectionAnswers> {
        &self.connection.answers
    }

    /// Takes note on which side it streams.
    pub(crate) fn set_streaming(&self, by_client: bool, by_server: bool) {
        self.is_client_streaming.store(by_client, Relaxed);
        self.is_server_streaming.store(by_server, Relaxed);
    }

    pub(super) fn is_client_streaming(&self) -> bool {
        self.is_client_streaming.load(Relaxed)
    }

    pub(super) fn set_answered(&self) {
        self.is_answered.store(true, Relaxed);
    }

    /// Some of the answer has been taken, and so much waits.
    pub(super) fn moved(&self, untaken: usize) {
        self.untaken.store(untaken, Relaxed);
        self.moved_ms.store(self.arrived.elapsed().as_millis() as u64, Relaxed);
    }

    pub(super) fn set_lease(&self, lease: Option<Lease>) {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
    }

    pub(super) fn has_lease(&self) -> bool {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn is_stalled(&self) -> bool {
        let moved = self.arrived + Duration::from_millis(self.moved_ms.load(Relaxed));
        self.answers().is_stalled(moved.elapsed(), self.is_server_streaming.load(Relaxed))
    }
}

impl Drop for CallTask {
    fn drop(&mut self) {
        self.connection.activity.end_call();
        if !self.is_answered.load(Relaxed) {
            self.connection.note_reset();
        }
    }
}

/// Spawns the calls of a connection.
#[derive(Clone, Debug)]
pub(super) struct CallExecutor(pub(super) Arc<Connection>);

impl<F> hyper::rt::Executor<F> for CallExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        let task = Arc::new(CallTask::new(Arc::clone(&self.0)));
        let watched = Watched { call: Box::pin(call), task: Arc::clone(&task), look: None };
        tokio::spawn(CURRENT.scope(task, watched));
    }
}

/// A call that ends where its client does not take the answer: its stream is reset then.
struct Watched<F> {
    call: Pin<Box<F>>,
    task: Arc<CallTask>,
    look: Option<Pin<Box<Sleep>>>,
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.call.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        if self.task.untaken.load(Relaxed) == 0 {
            self.look = None;
            return Poll::Pending;
        }
        loop {
            let look = self.look.get_or_insert_with(|| Box::pin(sleep(LOOK_EVERY)));
            ready!(look.as_mut().poll(context));
            if self.task.is_stalled() {
                return Poll::Ready(());
            }
            self.look = None;
        }
    }
}
