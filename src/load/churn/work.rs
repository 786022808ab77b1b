//! Makes the changes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, transport::Channel};

use super::{
    super::{LoadError, board::Board, graph::Graph, retry::retried},
    Churn,
};
use crate::proto::v1::{
    DeletePostRequest, DeletePostResponse, Delivery, FollowRequest, SetDeliveryRequest,
    UnfollowRequest, graph_service_client::GraphServiceClient,
    post_service_client::PostServiceClient,
};

/// How many changes have been made.
#[derive(Default)]
pub(crate) struct ChurnCounts {
    pub(crate) follows: AtomicU64,
    pub(crate) unfollows: AtomicU64,
    pub(crate) deletions: AtomicU64,
    pub(crate) switches: AtomicU64,
}

/// What all workers of a load share.
pub(crate) struct Churning {
    pub(crate) graph: Arc<Graph>,
    pub(crate) board: Arc<Board>,
    pub(crate) counts: ChurnCounts,
    pub(crate) patience: Duration,
    pub(crate) stop: CancellationToken,
}

/// Makes the changes that come out of `queue`, one after the other. Ctrl-C ends
/// its waits, for the queue and for a post that nobody may send any more, and no
/// call that is under way.
pub(crate) async fn work(
    shared: Arc<Churning>,
    channel: Channel,
    mut queue: mpsc::Receiver<Churn>,
) -> Result<(), LoadError> {
    let Churning { graph, board, counts, patience, stop } = &*shared;
    let follows = GraphServiceClient::new(channel.clone());
    let posts = PostServiceClient::new(channel);
    while let Some(Some(churn)) = stop.run_until_cancelled(queue.recv()).await {
        match churn {
            Churn::Follow { follower, followee } => {
                let request = FollowRequest {
                    follower_id: graph.id(follower).0,
                    followee_id: graph.id(followee).0,
                };
                retried(*patience, || {
                    let mut follows = follows.clone();
                    async move { follows.follow(request).await }
                })
                .await?;
                counts.follows.fetch_add(1, Ordering::Relaxed);
            }
            Churn::Unfollow { follower, followee } => {
                let request = UnfollowRequest {
                    follower_id: graph.id(follower).0,
                    followee_id: graph.id(followee).0,
                };
                retried(*patience, || {
                    let mut follows = follows.clone();
                    async move { follows.unfollow(request).await }
                })
                .await?;
                counts.unfollows.fetch_add(1, Ordering::Relaxed);
            }
            Churn::Deliver { author, pulled } => {
                let delivery = if pulled { Delivery::Pull } else { Delivery::Push };
                let request =
                    SetDeliveryRequest { author_id: graph.id(author).0, delivery: delivery.into() };
                retried(*patience, || {
                    let mut follows = follows.clone();
                    async move { follows.set_delivery(request).await }
                })
                .await?;
                counts.switches.fetch_add(1, Ordering::Relaxed);
            }
            Churn::Delete(number) => {
                let Some(post) = stop.run_until_cancelled(board.wait(number)).await else { break };
                let request = DeletePostRequest { post_id: post.0 };
                retried(*patience, || {
                    let mut posts = posts.clone();
                    async move {
                        match posts.delete_post(request).await {
                            // An earlier try, or an earlier run, has deleted it.
                            Err(status) if status.code() == Code::NotFound => {
                                Ok(Response::new(DeletePostResponse { applied: true }))
                            }
                            other => other,
                        }
                    }
                })
                .await?;
                counts.deletions.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::super::population::Population, *};
    use crate::client::Target;

    #[tokio::test]
    async fn a_stopped_worker_waits_for_no_post() {
        let shared = Churning {
            graph: Arc::new(Graph::Synthetic(Population::new(1, 2))),
            board: Arc::new(Board::new(1)),
            counts: ChurnCounts::default(),
            patience: Duration::ZERO,
            stop: CancellationToken::new(),
        };
        let stop = shared.stop.clone();
        let channel = Target::new("http://unused").connect_lazily().expect("an address");
        let (lane, queue) = mpsc::channel(1);
        lane.send(Churn::Delete(0)).await.expect("there is room");
        let working = tokio::spawn(work(Arc::new(shared), channel, queue));
        // It has taken the deletion of a post that nobody will send.
        let _room = lane.reserve().await.expect("it works");
        stop.cancel();
        let done = tokio::time::timeout(Duration::from_secs(60), working).await;
        done.expect("it hangs").expect("no panic").expect("no error");
    }
}
