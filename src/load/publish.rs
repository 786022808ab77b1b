//! One stream of posts.
//!
//! ```text
//!  queue ──► (wait for the post referred to) ──► pending, in order ──► stream ──► Roost
//!                                                  ▲ first out: an ack ◄─────────┘
//! ```
//!
//! Answers come in the order of the requests, so the front of `pending` is the
//! post that the next answer is about. When the connection breaks, everything
//! pending is sent again on the next one, in the same order and under the same
//! request ids. `pending` holds at most the window; beyond it the queue waits, and
//! whoever fills the queue.
//!
//! A post that waits for another cannot wait for ever: the other one has a smaller
//! number, every stream takes its posts by ascending number, and acknowledgements
//! are read while a post waits.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    LoadError, board::Board, latency::Latencies, probe::Sighting, retry::Backoff,
    workload::Workload,
};
use crate::{
    domain::PostId,
    proto::v1::{
        PublishError, PublishPostRequest, StreamPublishPostsResponse,
        post_service_client::PostServiceClient, stream_publish_posts_response::Result as Answer,
    },
};

/// After Ctrl-C, how long to wait for posts that are already on their way.
const LAST_ANSWERS_WAIT: Duration = Duration::from_secs(5);

/// A post that is to be published next on its stream.
#[derive(Clone, Copy)]
pub(super) struct Due {
    pub(super) number: u32,
    /// When; `None` is as soon as there is room for it.
    pub(super) at: Option<Instant>,
}

/// What all streams of a load share.
pub(super) struct Publishing {
    pub(super) workload: Arc<Workload>,
    pub(super) board: Arc<Board>,
    pub(super) latencies: Latencies,
    /// Full: the post is not watched.
    pub(super) sightings: mpsc::Sender<Sighting>,
    /// Every so many-th post is watched; 0 is none.
    pub(super) sample_every: u32,
    pub(super) unwatched_count: AtomicU32,
    pub(super) reconnect_count: AtomicU32,
    /// Whether the same load was begun before, with another end.
    pub(super) is_repeated: bool,
    pub(super) window: usize,
    pub(super) patience: Duration,
    pub(super) stop: CancellationToken,
}

/// A post that has been sent and not acknowledged.
struct Pending {
    number: u32,
    since: Instant,
}

/// Publishes what comes out of `queue`, until it is closed and everything is
/// acknowledged, or until Ctrl-C.
pub(super) async fn publish(
    shared: Arc<Publishing>,
    channel: Channel,
    queue: mpsc::Receiver<Due>,
) -> Result<(), LoadError> {
    let stop = shared.stop.clone();
    let mut lane = Lane {
        backoff: Backoff::new(shared.patience),
        shared,
        queue,
        queue_is_open: true,
        waiting: None,
        pending: VecDeque::new(),
    };
    tokio::select! {
        done = lane.run(channel) => done,
        () = async { stop.cancelled().await; time::sleep(LAST_ANSWERS_WAIT).await } => Ok(()),
    }
}

struct Lane {
    shared: Arc<Publishing>,
    queue: mpsc::Receiver<Due>,
    queue_is_open: bool,
    /// The next post, which refers to one that is not acknowledged yet.
    waiting: Option<(Due, u32)>,
    pending: VecDeque<Pending>,
    backoff: Backoff,
}

impl Lane {
    async fn run(&mut self, channel: Channel) -> Result<(), LoadError> {
        let mut client = PostServiceClient::new(channel);
        loop {
            let (requests, stream) = mpsc::channel(self.shared.window);
            // The channel has room for all of them: none is lost here.
            for pending in &self.pending {
                let request = PublishPostRequest { is_retry: true, ..self.request(pending.number) };
                let _ = requests.try_send(request);
            }
            let broken = match client.stream_publish_posts(ReceiverStream::new(stream)).await {
                Ok(answers) => match self.pump(&requests, answers.into_inner()).await? {
                    None => return Ok(()),
                    Some(status) => status,
                },
                Err(status) => status,
            };
            let wait = self.backoff.after(broken, Instant::now())?;
            self.shared.reconnect_count.fetch_add(1, Ordering::Relaxed);
            time::sleep(wait).await;
        }
    }

    /// Sends and settles on one connection. `None` when all is done, else what
    /// broke the connection.
    async fn pump(
        &mut self,
        requests: &mpsc::Sender<PublishPostRequest>,
        mut answers: Streaming<StreamPublishPostsResponse>,
    ) -> Result<Option<Status>, LoadError> {
        let shared = Arc::clone(&self.shared);
        loop {
            if !self.queue_is_open && self.waiting.is_none() && self.pending.is_empty() {
                return Ok(None);
            }
            let has_room = self.pending.len() < shared.window;
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        if let Some(status) = self.settle(answer)? {
                            return Ok(Some(status));
                        }
                    }
                    Ok(None) => return Ok(Some(Status::unavailable("the server ended the stream"))),
                    Err(status) => return Ok(Some(status)),
                },
                next = self.queue.recv(), if self.queue_is_open && self.waiting.is_none() && has_room => {
                    match next {
                        Some(next) => match shared.workload.reference(next.number) {
                            Some(other) if shared.board.id(other).is_none() => {
                                self.waiting = Some((next, other));
                            }
                            _ => self.send(requests, next),
                        },
                        None => self.queue_is_open = false,
                    }
                }
                next = awaited(&shared.board, self.waiting), if self.waiting.is_some() && has_room => {
                    self.waiting = None;
                    next.into_iter().for_each(|next| self.send(requests, next));
                }
                () = shared.stop.cancelled(), if self.queue_is_open => {
                    self.queue_is_open = false;
                    self.waiting = None;
                }
            }
        }
    }

    fn send(&mut self, requests: &mpsc::Sender<PublishPostRequest>, next: Due) {
        let since = next.at.unwrap_or_else(Instant::now);
        self.pending.push_back(Pending { number: next.number, since });
        // There is room for the whole window. A closed channel means a broken
        // connection, of which the answers tell; then this is sent again.
        let _ = requests.try_send(self.request(next.number));
    }

    fn request(&self, number: u32) -> PublishPostRequest {
        let workload = &self.shared.workload;
        let reference = workload.reference(number).and_then(|other| self.shared.board.id(other));
        let is_retry = self.shared.is_repeated;
        PublishPostRequest { is_retry, ..workload.request(number, reference) }
    }

    /// Takes an answer. Returns the status of a refusal that is to be retried.
    fn settle(&mut self, answer: StreamPublishPostsResponse) -> Result<Option<Status>, LoadError> {
        let Some(pending) = self.pending.front() else {
            return Err(Status::data_loss("an answer came to no request").into());
        };
        match answer.result {
            Some(Answer::PostId(id)) if id != 0 => {
                let now = Instant::now();
                self.shared.latencies.record(now.duration_since(pending.since));
                self.shared.board.ack(pending.number, PostId(id));
                self.watch(pending, PostId(id));
                self.pending.pop_front();
                self.backoff.reset();
                Ok(None)
            }
            Some(Answer::Error(error)) => refusal(pending.number, error).map(Some),
            Some(Answer::PostId(_)) | None => {
                Err(Status::data_loss("an answer has neither an id nor an error").into())
            }
        }
    }

    /// Has every so many-th post looked for in a timeline.
    fn watch(&self, pending: &Pending, id: PostId) {
        let shared = &self.shared;
        if shared.sample_every == 0 || !pending.number.is_multiple_of(shared.sample_every) {
            return;
        }
        let sighting = Sighting { number: pending.number, id, since: pending.since };
        if shared.sightings.try_send(sighting).is_err() {
            shared.unwatched_count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The post that waits, once it need not any more.
async fn awaited(board: &Board, waiting: Option<(Due, u32)>) -> Option<Due> {
    let (next, other) = waiting?;
    board.wait(other).await;
    Some(next)
}

fn refusal(number: u32, error: PublishError) -> Result<Status, LoadError> {
    let code = Code::from_i32(error.code);
    match code {
        Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::DeadlineExceeded => {
            Ok(Status::new(code, error.message))
        }
        _ => {
            let field = if error.field.is_empty() {
                String::new()
            } else {
                format!(" (field {})", error.field)
            };
            let problem = format!("{}{field}", error.message);
            Err(LoadError::PostRefused { number, problem })
        }
    }
}
