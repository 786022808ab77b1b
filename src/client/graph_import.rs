//! A follow graph as a stream of messages of bounded size.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{sync::mpsc, task, time};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{
    ClientError,
    edge_list::Edge,
    progress::{REPORT_EVERY, Reporter},
};
use crate::proto::v1::{
    FollowerList, ImportFollowsRequest, graph_service_client::GraphServiceClient,
};

/// The most edges that the API takes in a message.
const MESSAGE_EDGES_MAX: usize = 100_000;
/// How many messages wait for the network; their maker waits when they are full.
const MESSAGES_IN_FLIGHT_MAX: usize = 4;

/// The follower lists of edges that are sorted by followee.
pub fn follower_lists(edges: Vec<Edge>) -> impl Iterator<Item = FollowerList> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let followee = edges.get(next)?.followee;
        let list = edges[next..].iter().take_while(|edge| edge.followee == followee);
        let follower_ids: Vec<u64> = list.map(|edge| edge.follower.0).collect();
        next += follower_ids.len();
        Some(FollowerList { followee_id: followee.0, follower_ids })
    })
}

/// Follower lists in messages: long lists are split, short ones share a message.
struct Messages<L> {
    lists: L,
    /// What is left over from the message before, and how much of it was sent.
    rest: FollowerList,
    rest_sent: usize,
}

impl<L: Iterator<Item = FollowerList>> Messages<L> {
    fn new(lists: L) -> Self {
        Self { lists, rest: FollowerList::default(), rest_sent: 0 }
    }
}

impl<L: Iterator<Item = FollowerList>> Iterator for Messages<L> {
    type Item = ImportFollowsRequest;

    fn next(&mut self) -> Option<ImportFollowsRequest> {
        let mut lists = Vec::new();
        let mut room = MESSAGE_EDGES_MAX;
        while room > 0 {
            if self.rest_sent == self.rest.follower_ids.len() {
                let Some(list) = self.lists.next() else { break };
                (self.rest, self.rest_sent) = (list, 0);
                continue;
            }
            let followers = &self.rest.follower_ids[self.rest_sent..];
            let followers = &followers[..followers.len().min(room)];
            lists.push(FollowerList {
                followee_id: self.rest.followee_id,
                follower_ids: followers.to_vec(),
            });
            room -= followers.len();
            self.rest_sent += followers.len();
        }
        (!lists.is_empty()).then_some(ImportFollowsRequest { lists })
    }
}

/// Sends follows and waits until they are durable; returns how many the server
/// has counted. Once `stop` is cancelled, nothing more is sent, and what was sent
/// is counted. Repeating a broken import is harmless.
///
/// # Errors
/// If the server cannot be reached or refuses.
pub async fn import(
    channel: Channel,
    lists: impl Iterator<Item = FollowerList> + Send + 'static,
    reporter: &mut impl Reporter,
    stop: CancellationToken,
) -> Result<u64, ClientError> {
    let sent_count = Arc::new(AtomicU64::new(0));
    let (messages, stream) = mpsc::channel(MESSAGES_IN_FLIGHT_MAX);
    let maker = task::spawn_blocking({
        let sent_count = Arc::clone(&sent_count);
        move || {
            for message in Messages::new(lists) {
                let edges: usize = message.lists.iter().map(|list| list.follower_ids.len()).sum();
                // Whoever no longer listens has an error to tell.
                if stop.is_cancelled() || messages.blocking_send(message).is_err() {
                    return;
                }
                sent_count.fetch_add(edges as u64, Ordering::Relaxed);
            }
        }
    });
    let mut graph = GraphServiceClient::new(channel);
    let call = graph.import_follows(ReceiverStream::new(stream));
    tokio::pin!(call);
    let answer = loop {
        tokio::select! {
            answer = &mut call => break answer,
            () = time::sleep(REPORT_EVERY) => reporter.advance(sent_count.load(Ordering::Relaxed)),
        }
    }?;
    maker.await?;
    reporter.advance(sent_count.load(Ordering::Relaxed));
    Ok(answer.into_inner().edge_count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::UserId;

    fn sizes(message: &ImportFollowsRequest) -> Vec<(u64, usize)> {
        message.lists.iter().map(|list| (list.followee_id, list.follower_ids.len())).collect()
    }

    #[test]
    fn long_lists_are_split_and_short_ones_share_a_message() {
        let followers = |followee: u64, count: u64| {
            (1..=count).map(move |follower| Edge {
                followee: UserId(followee),
                follower: UserId(1_000_000 + follower),
            })
        };
        let edges: Vec<Edge> =
            followers(1, 10).chain(followers(2, 250_000)).chain(followers(3, 5)).collect();
        let messages: Vec<_> = Messages::new(follower_lists(edges.clone())).collect();
        assert_eq!(sizes(&messages[0]), [(1, 10), (2, 99_990)]);
        assert_eq!(sizes(&messages[1]), [(2, 100_000)]);
        assert_eq!(sizes(&messages[2]), [(2, 50_010), (3, 5)]);
        let sent: Vec<Edge> = messages
            .iter()
            .flat_map(|message| &message.lists)
            .flat_map(|list| {
                list.follower_ids.iter().map(|follower| Edge {
                    followee: UserId(list.followee_id),
                    follower: UserId(*follower),
                })
            })
            .collect();
        assert_eq!(sent, edges);
        assert_eq!(follower_lists(Vec::new()).count(), 0);
    }
}
