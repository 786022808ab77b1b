//! What readers notice while others publish: how long a post takes into a
//! follower's timeline, and how long a read takes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};

use super::{
    churn::SharedChanges,
    graph::{Graph, UserIndex},
    latency::Latencies,
    random::{Purpose, below, generator, unit},
    workload::Workload,
};
use crate::{
    client::page::PAGE_SIZE_MAX,
    domain::PostId,
    proto::v1::{ListHomeTimelineRequest, timeline_service_client::TimelineServiceClient},
};

/// Posts that are looked for at the same time. More are waiting in the queue, as
/// many again; beyond it they are not watched.
pub(super) const SIGHTINGS_AT_ONCE: usize = 64;
/// Between two looks at a timeline: short while the post is young, so that little
/// is added to a short latency, and long enough in the end to leave the server be.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LAST: Duration = Duration::from_millis(50);
/// A look at the newest; only where that does not say, at everything.
const LOOK_PAGE_SIZE: i32 = 50;
/// How many followers are drawn in search of one whose timeline is live.
const FOLLOWER_DRAWS: u32 = 16;
/// The page that the read latency is about: what a screen shows.
const READ_PAGE_SIZE: i32 = 20;
/// So many that the readers themselves do not queue while the server stalls for
/// less than a third of a second at the default rate; beyond it they do, and their
/// latency goes on counting.
const READS_AT_ONCE: usize = 64;
/// How long to leave a server alone that has failed a read.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// A post that was acknowledged and should soon be visible.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    pub(super) number: u32,
    pub(super) id: PostId,
    /// When its publication was due.
    pub(super) since: Instant,
}

/// What watching has found.
pub(super) struct Sightings {
    pub(super) latencies: Latencies,
    /// Posts that were not there although everything had been delivered.
    pub(super) missed_count: AtomicU32,
}

/// Looks for every post of the queue in the timeline of one of its author's
/// followers. Ends when the queue does, or soon after `delivered`.
pub(super) async fn watch(
    workload: Arc<Workload>,
    changes: SharedChanges,
    active_percent: u8,
    channels: Vec<Channel>,
    sightings: Arc<Sightings>,
    queue: mpsc::Receiver<Sighting>,
    delivered: CancellationToken,
) {
    ReceiverStream::new(queue)
        .for_each_concurrent(SIGHTINGS_AT_ONCE, |sighting| {
            let (channels, changes) = (&channels, changes.clone());
            let (workload, sightings) = (Arc::clone(&workload), Arc::clone(&sightings));
            let delivered = delivered.clone();
            async move {
                let author = workload.author(sighting.number);
                let reader = reader_of(&workload, active_percent, author, sighting.number);
                let repeated = workload.repeats(sighting.number);
                let repeated = repeated.and_then(|_| workload.meant(sighting.number));
                let hidden = [Some(author), repeated.map(|number| workload.author(number))];
                let void = || {
                    let changes = changes.lock();
                    changes.is_deleted(sighting.number)
                        || changes.follow(reader, author).is_some()
                        || hidden.iter().flatten().any(|user| changes.was_hidden(reader, *user))
                };
                let user_id = workload.graph.id(reader).0;
                let timelines = TimelineServiceClient::new(channel_of(channels, reader));
                let mut wait = LOOK_FIRST;
                while !void() {
                    // Whatever the look finds held before it ended.
                    let is_last = delivered.is_cancelled();
                    match look(timelines.clone(), user_id, sighting.id).await {
                        Ok(Look::Visible) => {
                            sightings.latencies.record(sighting.since.elapsed());
                            return;
                        }
                        Ok(Look::Overtaken) => return,
                        Ok(Look::NotYet) if is_last && !void() => {
                            sightings.missed_count.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                        Ok(Look::NotYet) => {}
                        Err(_) if is_last => return,
                        Err(_) => wait = LOOK_LAST,
                    }
                    time::sleep(wait).await;
                    wait = (wait * 3 / 2).min(LOOK_LAST);
                }
            }
        })
        .await;
}

/// What one look at a timeline says of a post.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Visible,
    NotYet,
    /// So many newer ones came that it is out of the timeline.
    Overtaken,
}

async fn look(
    mut timelines: TimelineServiceClient<Channel>,
    user_id: u64,
    post: PostId,
) -> Result<Look, Status> {
    for page_size in [LOOK_PAGE_SIZE, PAGE_SIZE_MAX] {
        let request = ListHomeTimelineRequest {
            user_id,
            page_size,
            ids_only: true,
            all_reposts: true,
            ..ListHomeTimelineRequest::default()
        };
        let ids = timelines.list_home_timeline(request).await?.into_inner().post_ids;
        if let Some(look) = judge(&ids, post, page_size as usize) {
            return Ok(look);
        }
    }
    Ok(Look::Overtaken)
}

/// `None` where only a longer page can tell.
fn judge(newest_ids: &[u64], post: PostId, page_size: usize) -> Option<Look> {
    if newest_ids.contains(&post.0) {
        Some(Look::Visible)
    } else if newest_ids.len() < page_size || newest_ids.last().is_some_and(|id| *id < post.0) {
        Some(Look::NotYet)
    } else {
        None
    }
}

/// A follower whose timeline is live if that is easily found; the author if
/// nobody follows it.
fn reader_of(workload: &Workload, active_percent: u8, author: UserIndex, number: u32) -> UserIndex {
    let mut followers = Vec::new();
    workload.graph.followers_into(author, &mut followers);
    if followers.is_empty() {
        return author;
    }
    let mut random = generator(workload.seed(), Purpose::Probes, u64::from(number));
    let mut draw = || followers[below(&mut random, followers.len() as u64) as usize];
    let first = draw();
    (0..FOLLOWER_DRAWS)
        .map(|_| draw())
        .find(|reader| is_active(workload.seed(), active_percent, *reader))
        .unwrap_or(first)
}

/// A reader's own connection.
pub(super) fn channel_of(channels: &[Channel], reader: UserIndex) -> Channel {
    channels[reader as usize % channels.len()].clone()
}

/// Whether a reader is one of those that are made live before publishing.
pub(super) fn is_active(seed: u64, active_percent: u8, reader: UserIndex) -> bool {
    let mut random = generator(seed, Purpose::Sample, u64::from(reader));
    unit(&mut random) * 100.0 < f64::from(active_percent)
}

/// Latencies of home timeline reads.
pub(super) struct Reads {
    pub(super) ids_only: Latencies,
    pub(super) hydrated: Latencies,
    pub(super) failed_count: AtomicU32,
    /// Pages that repeat a post or are out of order.
    pub(super) wrong_count: AtomicU32,
}

/// Reads home timelines at a steady rate, whatever the server does, until it is
/// cancelled. Latency counts from when a read was due.
pub(super) async fn read_steadily(
    graph: Arc<Graph>,
    seed: u64,
    active_percent: u8,
    reads_per_second: u32,
    channels: Vec<Channel>,
    reads: Arc<Reads>,
    stop: CancellationToken,
) {
    if reads_per_second == 0 {
        return;
    }
    let begin = Instant::now();
    stream::iter(0u64..)
        .take_until(stop.cancelled())
        .for_each_concurrent(READS_AT_ONCE, |number| {
            let channels = &channels;
            let (graph, reads) = (Arc::clone(&graph), Arc::clone(&reads));
            let due = begin + Duration::from_secs_f64(number as f64 / f64::from(reads_per_second));
            async move {
                time::sleep_until(due.into()).await;
                let ids_only = number.is_multiple_of(2);
                let mut random = generator(!seed, Purpose::Probes, number);
                let mut draw = || below(&mut random, u64::from(graph.user_count())) as UserIndex;
                let first = draw();
                let reader = (0..FOLLOWER_DRAWS)
                    .map(|_| draw())
                    .find(|reader| is_active(seed, active_percent, *reader))
                    .unwrap_or(first);
                let request = ListHomeTimelineRequest {
                    user_id: graph.id(reader).0,
                    page_size: READ_PAGE_SIZE,
                    ids_only,
                    ..ListHomeTimelineRequest::default()
                };
                let mut timelines = TimelineServiceClient::new(channel_of(channels, reader));
                match timelines.list_home_timeline(request).await {
                    Ok(page) => {
                        let latencies = if ids_only { &reads.ids_only } else { &reads.hydrated };
                        latencies.record(due.elapsed());
                        // Newest first, none twice, whatever else goes on.
                        if !page.get_ref().post_ids.is_sorted_by(|newer, older| newer > older) {
                            reads.wrong_count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Err(_) => {
                        reads.failed_count.fetch_add(1, Ordering::Relaxed);
                        time::sleep(AFTER_FAILURE).await;
                    }
                }
            }
        })
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_whether_a_post_is_there() {
        let post = PostId(5);
        assert_eq!(judge(&[9, 5], post, 2), Some(Look::Visible));
        assert_eq!(judge(&[9, 4], post, 2), Some(Look::NotYet));
        assert_eq!(judge(&[9], post, 2), Some(Look::NotYet));
        assert_eq!(judge(&[], post, 2), Some(Look::NotYet));
        assert_eq!(judge(&[9, 8], post, 2), None);
    }

    #[test]
    fn the_share_of_active_readers_is_as_asked() {
        let active = |percent| (0..10_000).filter(|user| is_active(1, percent, *user)).count();
        assert_eq!((active(0), active(100)), (0, 10_000));
        assert!((900..1_100).contains(&active(10)));
    }
}
