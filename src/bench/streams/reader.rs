//! A reader, who follows a home timeline, leaves it, and goes on where it was.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::{check::Received, lines::Line};
use crate::{
    bench::BenchError,
    client::ClientError,
    domain::{PostId, UserId},
    proto::v1::{StreamHomeTimelineRequest, StreamHomeTimelineResponse},
};

/// How long a reader tries to go on with a stream that was broken.
const RESUME_MAX: Duration = Duration::from_secs(30);
const RESUME_EVERY: Duration = Duration::from_millis(20);

/// What is done while posts come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Habit {
    /// Leaves after so long, and comes back after as long as `away`.
    Leaves { after: Duration, away: Duration },
    /// Takes nothing for so long.
    Stalls { for_: Duration },
}

/// A reader, and what it has received.
pub(super) struct Reader {
    pub(super) user: UserId,
    habit: Habit,
    line: Arc<Line>,
    shared: Arc<Shared>,
    resume_token: String,
    /// When the stream that there is was asked for.
    asked_at: Instant,
    pub(super) received: Received,
}

/// What all readers share.
pub(super) struct Shared {
    /// Few streams are asked for at once, as if by clients on machines of their own.
    pub(super) opening: Semaphore,
    /// When the first post is due, once that is known.
    pub(super) begun: watch::Sender<Option<Instant>>,
    pub(super) stop: CancellationToken,
    /// How many have begun.
    pub(super) connected: AtomicU64,
    /// By reader: how far it has come.
    pub(super) marks: Vec<Mark>,
}

/// How far a reader has come.
#[derive(Default)]
pub(super) struct Mark {
    pub(super) count: AtomicU64,
    pub(super) newest: AtomicU64,
}

impl Reader {
    pub(super) fn new(
        user: UserId,
        habit: Habit,
        line: Arc<Line>,
        shared: Arc<Shared>,
        due: usize,
    ) -> Self {
        Self {
            user,
            habit,
            line,
            shared,
            resume_token: String::new(),
            asked_at: Instant::now(),
            received: Received::nothing_of(due),
        }
    }

    /// Connects, and reads from when the posts begin until it is told to stop.
    pub(super) async fn run(mut self, place: usize) -> Result<Self, BenchError> {
        let shared = Arc::clone(&self.shared);
        let mut stream = self.open().await.map_err(ClientError::from)?;
        let first = stream.message().await.map_err(ClientError::from)?.unwrap_or_default();
        self.resume_token = first.resume_token;
        shared.connected.fetch_add(1, Ordering::Relaxed);
        let mut begins = shared.begun.subscribe();
        // The sender is here.
        let begun = begins.wait_for(Option::is_some).await.ok().and_then(|begun| *begun);
        let begun = begun.unwrap_or_else(Instant::now);
        let leave_at = match self.habit {
            Habit::Leaves { after, .. } => begun + after,
            Habit::Stalls { for_ } => {
                sleep_until(begun + for_).await;
                begun
            }
        };
        let (leave, mut has_left) = (sleep_until(leave_at), false);
        tokio::pin!(leave);
        loop {
            tokio::select! {
                () = shared.stop.cancelled() => return Ok(self),
                message = stream.message() => match message {
                    Ok(Some(message)) => self.note(message, begun, &shared.marks[place]),
                    // It was cut.
                    Ok(None) | Err(_) => stream = self.resume().await?,
                },
                () = &mut leave, if !has_left => {
                    has_left = true;
                    if let Habit::Leaves { away, .. } = self.habit {
                        drop(stream);
                        sleep(away).await;
                        stream = self.resume().await?;
                    }
                }
            }
        }
    }

    fn note(&mut self, message: StreamHomeTimelineResponse, begun: Instant, mark: &Mark) {
        let at = begun.elapsed();
        let asked_at = self.asked_at.saturating_duration_since(begun);
        for id in &message.post_ids {
            self.received.note(PostId(*id), at, asked_at);
        }
        if let Some(newest) = message.post_ids.last() {
            mark.count.fetch_add(message.post_ids.len() as u64, Ordering::Relaxed);
            mark.newest.fetch_max(*newest, Ordering::Relaxed);
        }
        if message.missed_before_id > 0 {
            self.received.note_told(PostId(message.missed_before_id));
        }
        self.resume_token = message.resume_token;
    }

    /// Goes on where it was, as soon as there is a connection.
    async fn resume(&mut self) -> Result<Streaming<StreamHomeTimelineResponse>, BenchError> {
        self.received.note_resumed();
        let give_up_at = Instant::now() + RESUME_MAX;
        loop {
            let late = |_| Status::deadline_exceeded("the stream was not opened in time");
            match timeout_at(give_up_at, self.open()).await.map_err(late).flatten() {
                Ok(stream) => return Ok(stream),
                Err(status) if Instant::now() >= give_up_at => {
                    return Err(ClientError::from(status).into());
                }
                Err(_) => sleep(RESUME_EVERY).await,
            }
        }
    }

    async fn open(&mut self) -> Result<Streaming<StreamHomeTimelineResponse>, Status> {
        let request = StreamHomeTimelineRequest {
            user_id: self.user.0,
            resume_token: self.resume_token.clone(),
            ..StreamHomeTimelineRequest::default()
        };
        // The semaphore is never closed.
        let _permit = self.shared.opening.acquire().await;
        self.asked_at = Instant::now();
        Ok(self.line.client().stream_home_timeline(request).await?.into_inner())
    }
}
