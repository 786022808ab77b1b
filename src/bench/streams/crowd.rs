//! All readers together.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{
    lines::Line,
    reader::{Habit, Mark, Reader, Shared},
};
use crate::{
    bench::BenchError,
    client::{ClientError, page::PAGE_SIZE_MAX},
    domain::{PostId, UserId},
    proto::v1::{ListHomeTimelineRequest, timeline_service_client::TimelineServiceClient},
};

/// Streams that are being opened at once.
const OPENING_MAX: usize = 256;
/// Connections are cut so often in a window, one at a time.
const CUTS: u32 = 9;
/// How long all may take to be connected, and to receive what is due.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The golden ratio: multiples of it are spread evenly.
const SPREAD: f64 = 0.618_033_988_749_895;
/// Pages that are read at the most.
const PAGES_MAX: usize = 1_000;

pub(super) type Client = TimelineServiceClient<Channel>;

/// Who does what in a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// The accounts 1 to this.
    pub(super) readers: u32,
    /// The first so many of them are slow.
    pub(super) slow: u32,
    pub(super) window: Duration,
    /// How long slow ones take nothing.
    pub(super) stall: Duration,
    /// How long those are away who leave, which each of the others does once.
    pub(super) away: Duration,
    /// How long all are connected before anything is posted.
    pub(super) idle: Duration,
}

/// Readers who are connected.
pub(super) struct Crowd {
    plan: Plan,
    shared: Arc<Shared>,
    lines: Vec<Arc<Line>>,
    readers: JoinSet<Result<Reader, BenchError>>,
}

impl Crowd {
    /// Connects everybody.
    pub(super) async fn connect(
        address: SocketAddr,
        plan: Plan,
        due_counts: &[usize],
    ) -> Result<Self, BenchError> {
        let lines = Line::for_streams(address, plan.readers as usize).await?;
        let lines: Vec<Arc<Line>> = lines.into_iter().map(Arc::new).collect();
        let slow_line = Arc::new(Line::slow(address).await?);
        let shared = Arc::new(Shared {
            opening: Semaphore::new(OPENING_MAX),
            begun: watch::Sender::new(None),
            stop: CancellationToken::new(),
            connected: AtomicU64::new(0),
            marks: due_counts.iter().map(|_| Mark::default()).collect(),
        });
        let mut readers = JoinSet::new();
        for (place, due) in due_counts.iter().enumerate() {
            let is_slow = place < plan.slow as usize;
            let (habit, line) = if is_slow {
                (Habit::Stalls { for_: plan.stall }, &slow_line)
            } else {
                let after = plan.window.mul_f64((place as f64 * SPREAD).fract());
                (Habit::Leaves { after, away: plan.away }, &lines[place % lines.len()])
            };
            let (user, line) = (UserId(place as u64 + 1), Arc::clone(line));
            let reader = Reader::new(user, habit, line, Arc::clone(&shared), *due);
            readers.spawn(reader.run(place));
        }
        let mut this = Self { plan, shared, lines, readers };
        let connected = |this: &Self| this.shared.connected.load(Ordering::Relaxed);
        if !this.wait_until(|this| connected(this) == u64::from(plan.readers)).await? {
            return Err(BenchError::NotConnected {
                connected: connected(&this),
                streams: plan.readers,
                seconds: PATIENCE.as_secs(),
            });
        }
        Ok(this)
    }

    /// Says when the first post is due.
    pub(super) fn begin(&self, at: Instant) {
        self.shared.begun.send_replace(Some(at));
    }

    /// Cuts connections, at even distances in the window.
    pub(super) async fn cut_now_and_then(&self, begun: Instant) {
        for (number, line) in (1..=CUTS).zip(self.lines.iter().cycle()) {
            sleep_until(begun + self.plan.window * number / (CUTS + 1)).await;
            line.cut();
        }
    }

    /// Waits until everybody has received as much as is due, or nothing more can be hoped for.
    pub(super) async fn all_received(&mut self, due: &[Vec<PostId>]) -> Result<(), BenchError> {
        let slow = self.plan.slow as usize;
        self.wait_until(|this| {
            let mut marks = this.shared.marks.iter().zip(due).enumerate();
            marks.all(|(place, (mark, due))| {
                // Slow ones do not receive everything, but the last.
                let newest = due.last().map_or(0, |id| id.0);
                mark.newest.load(Ordering::Relaxed) >= newest
                    && (place < slow || mark.count.load(Ordering::Relaxed) >= due.len() as u64)
            })
        })
        .await?;
        Ok(())
    }

    /// For other calls, on a connection of the readers.
    pub(super) fn client(&self) -> Client {
        self.lines[0].client()
    }

    /// Ends all streams, and returns their readers in order.
    pub(super) async fn stop(mut self) -> Result<Vec<Reader>, BenchError> {
        self.shared.stop.cancel();
        let mut readers = Vec::with_capacity(self.readers.len());
        while let Some(done) = self.readers.join_next().await {
            readers.push(done.map_err(|_| BenchError::Panicked)??);
        }
        readers.sort_unstable_by_key(|reader| reader.user);
        Ok(readers)
    }

    /// Whether it is so before patience ends. No reader ends before it is told to.
    async fn wait_until(&mut self, is_so: impl Fn(&Self) -> bool) -> Result<bool, BenchError> {
        let give_up_at = Instant::now() + PATIENCE;
        while !is_so(self) {
            if Instant::now() >= give_up_at {
                return Ok(false);
            }
            tokio::select! {
                ended = self.readers.join_next() => {
                    return Err(match ended {
                        Some(Ok(Err(error))) => error,
                        _ => BenchError::Panicked,
                    });
                }
                () = sleep(LOOK_EVERY) => {}
            }
        }
        Ok(true)
    }
}

/// What a home timeline holds, down to a post.
pub(super) async fn list_down_to(
    client: &Client,
    user: UserId,
    oldest: PostId,
) -> Result<Vec<PostId>, BenchError> {
    let (mut client, mut ids) = (client.clone(), Vec::new());
    let mut request = ListHomeTimelineRequest {
        user_id: user.0,
        page_size: PAGE_SIZE_MAX,
        ids_only: true,
        ..ListHomeTimelineRequest::default()
    };
    for _ in 0..PAGES_MAX {
        let page = client.list_home_timeline(request.clone()).await.map_err(ClientError::from)?;
        let page = page.into_inner();
        ids.extend(page.post_ids.iter().map(|id| PostId(*id)));
        let is_enough = ids.last().is_some_and(|last| *last < oldest);
        if is_enough || page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok(ids)
}
