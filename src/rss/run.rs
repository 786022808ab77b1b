//! Following all feeds of a list at once.

use std::{fmt, sync::Arc};

use futures::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task;
use tokio_util::sync::CancellationToken;

use super::{
    RssError,
    destination::AllowedHosts,
    fetch::Fetcher,
    list::{self, Feed},
    poll::{Counts, FeedTask, Shared},
    publish::Roost,
    settings::{Settings, UnixSeconds},
    slots::Slots,
    state::FeedState,
    state_dir::StateDir,
};
use crate::client::ClientError;

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Summary {
    pub(super) feeds: usize,
    /// With `once`, feeds that could not be read or posted.
    pub(super) failed_feeds: usize,
    counts: Counts,
    waiting: usize,
}

/// Follows the feeds of the list until `stop`, until all are gone for good, or once.
///
/// # Errors
/// If the list or the state cannot be used. What is wrong with a feed is logged.
pub(super) async fn run(
    settings: Settings,
    roost: Roost,
    unix_seconds: UnixSeconds,
    mut random: StdRng,
    stop: CancellationToken,
) -> Result<Summary, RssError> {
    let once = settings.once;
    let opening = {
        let settings = settings.clone();
        task::spawn_blocking(move || open(&settings))
    };
    // The list may be a FIFO, which is waited for.
    let Some(opened) = stop.run_until_cancelled(opening).await else {
        return Ok(Summary::default());
    };
    let Opened { allowed, state_dir, feeds } = opened.map_err(ClientError::from)??;
    let shared = Shared {
        fetcher: Fetcher::new(settings.fetch_timeout, allowed)?,
        settings,
        roost,
        state_dir: Arc::new(state_dir),
        unix_seconds,
        slots: Slots::default(),
    };
    let mut tasks: Vec<FeedTask<'_>> = feeds
        .into_iter()
        .map(|(feed, state)| {
            FeedTask::new(&shared, feed, state, StdRng::seed_from_u64(random.next_u64()))
        })
        .collect();
    let mut failed_feeds = 0;
    let following = async {
        if once {
            let are_done = join_all(tasks.iter_mut().map(FeedTask::once)).await;
            failed_feeds = are_done.into_iter().filter(|is_done| !is_done).count();
        } else {
            join_all(tasks.iter_mut().map(FeedTask::follow)).await;
        }
    };
    tokio::select! {
        () = following => {}
        () = stop.cancelled() => {}
    }
    Ok(Summary { failed_feeds, ..summary(&tasks) })
}

/// The list, and what is remembered of its feeds.
struct Opened {
    allowed: AllowedHosts,
    state_dir: StateDir,
    feeds: Vec<(Feed, FeedState)>,
}

fn open(settings: &Settings) -> Result<Opened, RssError> {
    let list = list::read(&settings.list, settings.allowed.clone())?;
    let state_dir = StateDir::open(&settings.state_dir)?;
    let read = |feed: Feed| state_dir.read(&feed).map(|state| (feed, state));
    let feeds = list.feeds.into_iter().map(read).collect::<Result<_, _>>()?;
    Ok(Opened { allowed: list.allowed, state_dir, feeds })
}

fn summary(tasks: &[FeedTask<'_>]) -> Summary {
    let feeds = tasks.len();
    tasks.iter().fold(Summary { feeds, ..Summary::default() }, |mut sum, task| {
        sum.counts.polls += task.counts.polls;
        sum.counts.failed_polls += task.counts.failed_polls;
        sum.counts.posted += task.counts.posted;
        sum.waiting += task.waiting();
        sum
    })
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { polls, failed_polls, posted } = self.counts;
        write!(
            f,
            "{} feeds, {polls} polls, {failed_polls} of them failed; {posted} entries posted, {} \
             wait",
            self.feeds, self.waiting
        )
    }
}
