//! A follow graph as a stream of messages of bounded size.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{sync::mpsc, task, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{
    edge_list::Edge,
    graph::{Graph, UserIndex},
    progress::{REPORT_EVERY, Reporter},
};
use crate::{
    client::ClientError,
    proto::v1::{FollowerList, ImportFollowsRequest, graph_service_client::GraphServiceClient},
};

/// The most edges that the API takes in a message.
const MESSAGE_EDGES_MAX: usize = 100_000;
/// How many messages wait for the network; their maker waits when they are full.
const MESSAGES_IN_FLIGHT_MAX: usize = 4;

/// Follows, to be taken message by message.
pub struct FollowerLists {
    source: Source,
    /// Followers of one account that are left over from the message before, and
    /// how many of them have been sent.
    rest: Vec<u64>,
    rest_sent: usize,
    rest_followee: u64,
}

enum Source {
    Edges { edges: Vec<Edge>, next: usize },
    Graph { graph: Arc<Graph>, next: UserIndex, followers: Vec<UserIndex> },
}

impl FollowerLists {
    /// Of edges that are sorted by followee.
    pub fn sorted_edges(edges: Vec<Edge>) -> Self {
        Self::new(Source::Edges { edges, next: 0 })
    }

    pub(super) fn of_graph(graph: Arc<Graph>) -> Self {
        Self::new(Source::Graph { graph, next: 0, followers: Vec::new() })
    }

    fn new(source: Source) -> Self {
        Self { source, rest: Vec::new(), rest_sent: 0, rest_followee: 0 }
    }

    /// Loads the followers of the next account that has any into `rest`.
    fn next_followee(&mut self) -> bool {
        self.rest.clear();
        self.rest_sent = 0;
        match &mut self.source {
            Source::Edges { edges, next } => {
                let Some(first) = edges.get(*next) else { return false };
                self.rest_followee = first.followee.0;
                let list = edges[*next..].iter().take_while(|edge| edge.followee == first.followee);
                self.rest.extend(list.map(|edge| edge.follower.0));
                *next += self.rest.len();
                true
            }
            Source::Graph { graph, next, followers } => {
                while *next < graph.user_count() {
                    let followee = *next;
                    *next += 1;
                    graph.followers_into(followee, followers);
                    if !followers.is_empty() {
                        self.rest_followee = graph.id(followee).0;
                        self.rest.extend(followers.iter().map(|user| graph.id(*user).0));
                        return true;
                    }
                }
                false
            }
        }
    }
}

impl Iterator for FollowerLists {
    type Item = ImportFollowsRequest;

    fn next(&mut self) -> Option<ImportFollowsRequest> {
        let mut lists = Vec::new();
        let mut room = MESSAGE_EDGES_MAX;
        while room > 0 {
            if self.rest_sent == self.rest.len() && !self.next_followee() {
                break;
            }
            let list = &self.rest[self.rest_sent..];
            let list = &list[..list.len().min(room)];
            lists.push(FollowerList {
                followee_id: self.rest_followee,
                follower_ids: list.to_vec(),
            });
            room -= list.len();
            self.rest_sent += list.len();
        }
        (!lists.is_empty()).then_some(ImportFollowsRequest { lists })
    }
}

/// Sends follows and waits until they are durable; returns how many the server
/// has counted. Repeating a broken import is harmless.
///
/// # Errors
/// If the server cannot be reached or refuses.
pub async fn import(
    channel: Channel,
    lists: FollowerLists,
    reporter: &mut impl Reporter,
) -> Result<u64, ClientError> {
    let sent_count = Arc::new(AtomicU64::new(0));
    let (messages, stream) = mpsc::channel(MESSAGES_IN_FLIGHT_MAX);
    let maker = task::spawn_blocking({
        let sent_count = Arc::clone(&sent_count);
        move || {
            for message in lists {
                let edges: usize = message.lists.iter().map(|list| list.follower_ids.len()).sum();
                // Whoever no longer listens has an error to tell.
                if messages.blocking_send(message).is_err() {
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
    use crate::{domain::UserId, load::population::Population};

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
        let messages: Vec<_> = FollowerLists::sorted_edges(edges.clone()).collect();
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
        assert_eq!(FollowerLists::sorted_edges(Vec::new()).count(), 0);
    }

    #[test]
    fn a_graph_streams_whole() {
        let population = Population::new(5, 400);
        let graph = Arc::new(Graph::Synthetic(population.clone()));
        for list in FollowerLists::of_graph(graph).flat_map(|message| message.lists) {
            let followers: Vec<u64> = population
                .followers_of(UserId(list.followee_id))
                .into_iter()
                .map(|user| user.0)
                .collect();
            assert_eq!(list.follower_ids, followers);
        }
    }
}
