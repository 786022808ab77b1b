//! Makes the changes.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status, transport::Channel};

use super::{
    super::{
        LoadError, board::Board, graph::UserIndex, messages::Messages, retry::retried,
        workload::Workload,
    },
    Change, Hide,
};
use crate::{
    domain::{MessageId, PostId},
    proto::v1::{
        BlockRequest, DeleteMessageRequest, DeletePostRequest, Delivery, FollowRequest,
        MuteRequest, SetDeliveryRequest, UnblockRequest, UnfollowRequest, UnmuteRequest,
        graph_service_client::GraphServiceClient, message_service_client::MessageServiceClient,
        post_service_client::PostServiceClient,
    },
};

/// How many changes have been made.
#[derive(Default)]
pub(crate) struct ChurnCounts {
    pub(crate) follows: AtomicU64,
    pub(crate) unfollows: AtomicU64,
    pub(crate) deletions: AtomicU64,
    pub(crate) switches: AtomicU64,
    pub(crate) hides: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) message_deletions: AtomicU64,
}

/// What all workers of a load share.
pub(crate) struct Churning {
    pub(crate) workload: Arc<Workload>,
    pub(crate) messages: Arc<Messages>,
    pub(crate) board: Arc<Board>,
    pub(crate) counts: ChurnCounts,
    /// Authors whom the server has pulled for their many followers, and does not push.
    pub(crate) kept_pulled: Mutex<BTreeSet<UserIndex>>,
    pub(crate) patience: Duration,
    pub(crate) stop: CancellationToken,
}

/// Makes the changes that come out of `queue`, one after the other. Ctrl-C ends
/// its waits, for the queue and for a post that nobody may send any more, and no
/// call that is under way.
pub(crate) async fn work(
    shared: Arc<Churning>,
    channel: Channel,
    mut queue: mpsc::Receiver<Change>,
) -> Result<(), LoadError> {
    let stop = shared.stop.clone();
    let worker = Worker {
        graph: GraphServiceClient::new(channel.clone()),
        posts: PostServiceClient::new(channel.clone()),
        messages: MessageServiceClient::new(channel),
        shared,
    };
    while let Some(Some(change)) = stop.run_until_cancelled(queue.recv()).await {
        let counts = &worker.shared.counts;
        let count = match change {
            Change::Follow { follower, followee } => {
                worker.follow(follower, followee).await?;
                &counts.follows
            }
            Change::Unfollow { follower, followee } => {
                worker.unfollow(follower, followee).await?;
                &counts.unfollows
            }
            Change::SetDelivery { author, pulled } => {
                worker.set_delivery(author, pulled).await?;
                &counts.switches
            }
            Change::Hide { how, by, other, hides } => {
                worker.hide(how, by, other, hides).await?;
                &counts.hides
            }
            Change::SendMessage(number) => {
                worker.send_message(number).await?;
                &counts.messages
            }
            Change::DeleteMessage(number) => {
                worker.delete_message(number).await?;
                &counts.message_deletions
            }
            Change::DeletePost(number) => {
                let board = &worker.shared.board;
                let Some(post) = stop.run_until_cancelled(board.wait(number)).await else { break };
                worker.delete_post(post).await?;
                &counts.deletions
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Makes one change at a time, and tries each until it is made. What was tried before may
/// have been made as well: each of them may be made twice.
struct Worker {
    shared: Arc<Churning>,
    graph: GraphServiceClient<Channel>,
    posts: PostServiceClient<Channel>,
    messages: MessageServiceClient<Channel>,
}

impl Worker {
    async fn follow(&self, follower: UserIndex, followee: UserIndex) -> Result<(), LoadError> {
        let request =
            FollowRequest { follower_id: self.id(follower), followee_id: self.id(followee) };
        retried(self.shared.patience, || {
            let mut graph = self.graph.clone();
            async move { Ok(graph.follow(request).await?.map(drop)) }
        })
        .await
    }

    async fn unfollow(&self, follower: UserIndex, followee: UserIndex) -> Result<(), LoadError> {
        let request =
            UnfollowRequest { follower_id: self.id(follower), followee_id: self.id(followee) };
        retried(self.shared.patience, || {
            let mut graph = self.graph.clone();
            async move { Ok(graph.unfollow(request).await?.map(drop)) }
        })
        .await
    }

    async fn set_delivery(&self, author: UserIndex, pulled: bool) -> Result<(), LoadError> {
        let delivery = if pulled { Delivery::Pull } else { Delivery::Push };
        let request = SetDeliveryRequest { author_id: self.id(author), delivery: delivery.into() };
        let is_kept = retried(self.shared.patience, || {
            let mut graph = self.graph.clone();
            async move {
                match graph.set_delivery(request).await {
                    Err(status) if !pulled && status.code() == Code::InvalidArgument => {
                        Ok(Response::new(true))
                    }
                    other => Ok(other?.map(|_| false)),
                }
            }
        })
        .await?;
        if is_kept {
            let mut kept = self.shared.kept_pulled.lock().unwrap_or_else(PoisonError::into_inner);
            kept.insert(author);
        }
        Ok(())
    }

    async fn hide(
        &self,
        how: Hide,
        by: UserIndex,
        other: UserIndex,
        hides: bool,
    ) -> Result<(), LoadError> {
        let (by, other) = (self.id(by), self.id(other));
        retried(self.shared.patience, || {
            let mut graph = self.graph.clone();
            async move {
                Ok(match (how, hides) {
                    (Hide::Mute, true) => {
                        let request = MuteRequest { muter_id: by, muted_id: other };
                        graph.mute(request).await?.map(drop)
                    }
                    (Hide::Mute, false) => {
                        let request = UnmuteRequest { muter_id: by, muted_id: other };
                        graph.unmute(request).await?.map(drop)
                    }
                    (Hide::Block, true) => {
                        let request = BlockRequest { blocker_id: by, blocked_id: other };
                        graph.block(request).await?.map(drop)
                    }
                    (Hide::Block, false) => {
                        let request = UnblockRequest { blocker_id: by, blocked_id: other };
                        graph.unblock(request).await?.map(drop)
                    }
                })
            }
        })
        .await
    }

    async fn delete_post(&self, post: PostId) -> Result<(), LoadError> {
        let request = DeletePostRequest { post_id: post.0 };
        retried(self.shared.patience, || {
            let mut posts = self.posts.clone();
            async move { gone(posts.delete_post(request).await.map(|done| done.map(drop))) }
        })
        .await
    }

    /// Sends a message, unless an earlier run is known to have sent it.
    async fn send_message(&self, number: u32) -> Result<(), LoadError> {
        let Churning { workload, messages, patience, .. } = &*self.shared;
        if messages.id(number).is_some() {
            return Ok(());
        }
        let request = workload.message_request(number);
        let sent = retried(*patience, || {
            let (mut client, request) = (self.messages.clone(), request.clone());
            async move { client.send_message(request).await }
        })
        .await?;
        messages.ack(number, MessageId(sent.message_id));
        Ok(())
    }

    async fn delete_message(&self, number: u32) -> Result<(), LoadError> {
        let Churning { workload, messages, patience, .. } = &*self.shared;
        // It is sent before by this worker.
        let Some(id) = messages.id(number) else { return Ok(()) };
        let request = DeleteMessageRequest {
            sender_id: self.id(workload.message_parties(number).sender),
            message_id: id.0,
        };
        retried(*patience, || {
            let mut client = self.messages.clone();
            async move { gone(client.delete_message(request).await.map(|done| done.map(drop))) }
        })
        .await
    }

    fn id(&self, user: UserIndex) -> u64 {
        self.shared.workload.graph.id(user).0
    }
}

/// What is not there to be deleted was deleted by an earlier try, or by an earlier run.
fn gone(deleted: Result<Response<()>, Status>) -> Result<Response<()>, Status> {
    match deleted {
        Err(status) if status.code() == Code::NotFound => Ok(Response::new(())),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::Target,
        load::workload::tests::{planned, synthetic_settings},
    };

    #[tokio::test]
    async fn a_stopped_worker_waits_for_no_post() {
        let shared = Churning {
            workload: Arc::new(planned(&synthetic_settings(2, 1))),
            messages: Arc::default(),
            board: Arc::new(Board::new(1)),
            counts: ChurnCounts::default(),
            kept_pulled: Mutex::default(),
            patience: Duration::ZERO,
            stop: CancellationToken::new(),
        };
        let stop = shared.stop.clone();
        let channel = Target::new("http://unused").connect_lazily().expect("an address");
        let (lane, queue) = mpsc::channel(1);
        lane.send(Change::DeletePost(0)).await.expect("there is room");
        let working = tokio::spawn(work(Arc::new(shared), channel, queue));
        // It has taken the deletion of a post that nobody will send.
        let _room = lane.reserve().await.expect("it works");
        stop.cancel();
        let done = tokio::time::timeout(Duration::from_secs(60), working).await;
        done.expect("it hangs").expect("no panic").expect("no error");
    }
}
