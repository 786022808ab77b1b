//! Follows, unfollows and deletions between the posts.
//!
//! What is done is planned ahead from the seed alone; operations on one pair of
//! accounts, or on one post, always go to the same worker, which does one thing
//! at a time, so that they never overtake one another.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hashbrown::HashMap;
use rand::rngs::Xoshiro256PlusPlus;
use roaring::RoaringBitmap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, transport::Channel};

use super::{
    LoadError,
    board::Board,
    graph::{Graph, UserIndex},
    random::{Purpose, below, generator},
    retry::retried,
};
use crate::proto::v1::{
    DeletePostRequest, DeletePostResponse, FollowRequest, UnfollowRequest,
    graph_service_client::GraphServiceClient, post_service_client::PostServiceClient,
};

/// How many ended follows are remembered, to be begun again.
const ENDED_FOLLOWS_MAX: usize = 1_000;
/// How often a fit candidate is drawn before something else is done instead.
const DRAWS_MAX: u32 = 8;

/// One change that is no post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Churn {
    Follow {
        follower: UserIndex,
        followee: UserIndex,
    },
    Unfollow {
        follower: UserIndex,
        followee: UserIndex,
    },
    /// The post of this number.
    Delete(u32),
}

impl Churn {
    /// Equal for operations that must not overlap.
    pub(super) fn key(self) -> u64 {
        match self {
            Self::Follow { follower, followee } | Self::Unfollow { follower, followee } => {
                (u64::from(follower) << 32) | u64::from(followee)
            }
            Self::Delete(number) => u64::from(number),
        }
    }
}

/// What the planned changes make of the graph and the posts.
#[derive(Default)]
pub(super) struct Changes {
    /// By follower: whom it follows, or not, in the end.
    follows: HashMap<UserIndex, Vec<(UserIndex, bool)>, foldhash::fast::RandomState>,
    deleted: RoaringBitmap,
}

impl Changes {
    pub(super) fn is_deleted(&self, number: u32) -> bool {
        self.deleted.contains(number)
    }

    /// Whether a follow has been changed, and into what.
    pub(super) fn follow(&self, follower: UserIndex, followee: UserIndex) -> Option<bool> {
        let changes = self.follows.get(&follower)?;
        changes.iter().find(|(other, _)| *other == followee).map(|(_, follows)| *follows)
    }

    pub(super) fn follows_of(&self, follower: UserIndex) -> &[(UserIndex, bool)] {
        self.follows.get(&follower).map_or(&[], Vec::as_slice)
    }

    pub(super) fn record(&mut self, churn: Churn) {
        let (follower, followee, follows) = match churn {
            Churn::Delete(number) => {
                self.deleted.insert(number);
                return;
            }
            Churn::Follow { follower, followee } => (follower, followee, true),
            Churn::Unfollow { follower, followee } => (follower, followee, false),
        };
        let changes = self.follows.entry(follower).or_default();
        match changes.iter_mut().find(|(other, _)| *other == followee) {
            Some(change) => change.1 = follows,
            None => changes.push((followee, follows)),
        }
    }
}

/// Changes that planning writes, and probes and the model read.
#[derive(Clone, Default)]
pub(super) struct SharedChanges(Arc<Mutex<Changes>>);

impl SharedChanges {
    pub(super) fn lock(&self) -> MutexGuard<'_, Changes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Decides what changes, from the seed alone.
pub(super) struct ChurnPlan {
    random: Xoshiro256PlusPlus,
    graph: Arc<Graph>,
    ended: VecDeque<(UserIndex, UserIndex)>,
    followers: Vec<UserIndex>,
}

impl ChurnPlan {
    pub(super) fn new(seed: u64, graph: Arc<Graph>) -> Self {
        let random = generator(seed, Purpose::Churn, 0);
        Self { random, graph, ended: VecDeque::new(), followers: Vec::new() }
    }

    /// The next change, after `post_count` posts, recorded in `changes`.
    pub(super) fn next(&mut self, post_count: u32, changes: &mut Changes) -> Churn {
        let churn = match below(&mut self.random, 3) {
            0 => self.deletion(post_count, changes),
            1 => self.unfollow(changes),
            _ => None,
        }
        .unwrap_or_else(|| self.follow());
        changes.record(churn);
        churn
    }

    fn deletion(&mut self, post_count: u32, changes: &Changes) -> Option<Churn> {
        if post_count == 0 {
            return None;
        }
        (0..DRAWS_MAX)
            .map(|_| below(&mut self.random, u64::from(post_count)) as u32)
            .find(|number| !changes.is_deleted(*number))
            .map(Churn::Delete)
    }

    fn unfollow(&mut self, changes: &Changes) -> Option<Churn> {
        for _ in 0..DRAWS_MAX {
            let followee = self.user();
            self.graph.followers_into(followee, &mut self.followers);
            if self.followers.is_empty() {
                continue;
            }
            let place = below(&mut self.random, self.followers.len() as u64) as usize;
            let follower = self.followers[place];
            if changes.follow(follower, followee) != Some(false) {
                if self.ended.len() == ENDED_FOLLOWS_MAX {
                    self.ended.pop_front();
                }
                self.ended.push_back((follower, followee));
                return Some(Churn::Unfollow { follower, followee });
            }
        }
        None
    }

    /// Half of the follows begin one again that had ended, so that undoing is
    /// tried too.
    fn follow(&mut self) -> Churn {
        if below(&mut self.random, 2) == 0
            && let Some((follower, followee)) = self.ended.pop_front()
        {
            return Churn::Follow { follower, followee };
        }
        let followee = self.user();
        let other = below(&mut self.random, u64::from(self.graph.user_count()) - 1) as UserIndex;
        let follower = other + UserIndex::from(other >= followee);
        Churn::Follow { follower, followee }
    }

    fn user(&mut self) -> UserIndex {
        below(&mut self.random, u64::from(self.graph.user_count())) as UserIndex
    }
}

/// How many changes have been made.
#[derive(Default)]
pub(super) struct ChurnCounts {
    pub(super) follows: AtomicU64,
    pub(super) unfollows: AtomicU64,
    pub(super) deletions: AtomicU64,
}

/// What all workers of a load share.
pub(super) struct Churning {
    pub(super) graph: Arc<Graph>,
    pub(super) board: Arc<Board>,
    pub(super) counts: ChurnCounts,
    pub(super) patience: Duration,
    pub(super) stop: CancellationToken,
}

/// Makes the changes that come out of `queue`, one after the other. Ctrl-C ends
/// its waits, for the queue and for a post that nobody may send any more, and no
/// call that is under way.
pub(super) async fn work(
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
    use super::*;
    use crate::{client::Target, load::population::Population};

    fn plan(seed: u64, count: u32) -> (Vec<Churn>, Changes) {
        let graph = Arc::new(Graph::Synthetic(Population::new(1, 500)));
        let mut plan = ChurnPlan::new(seed, graph);
        let mut changes = Changes::default();
        let churn = (0..count).map(|n| plan.next(n * 3, &mut changes)).collect();
        (churn, changes)
    }

    #[test]
    fn the_plan_is_a_function_of_the_seed() {
        assert_eq!(plan(1, 300).0, plan(1, 300).0);
        assert_ne!(plan(1, 300).0, plan(2, 300).0);
    }

    #[test]
    fn the_last_word_on_a_pair_holds_and_no_post_is_deleted_twice() {
        let (churn, changes) = plan(3, 2_000);
        let mut deleted = RoaringBitmap::new();
        let mut last = HashMap::new();
        let mut kinds = [0; 3];
        for churn in churn {
            match churn {
                Churn::Delete(number) => {
                    kinds[0] += 1;
                    assert!(deleted.insert(number) && changes.is_deleted(number));
                }
                Churn::Follow { follower, followee } => {
                    kinds[1] += 1;
                    assert_ne!(follower, followee);
                    last.insert((follower, followee), true);
                }
                Churn::Unfollow { follower, followee } => {
                    kinds[2] += 1;
                    last.insert((follower, followee), false);
                }
            }
        }
        for ((follower, followee), follows) in last {
            assert_eq!(changes.follow(follower, followee), Some(follows));
        }
        assert!(kinds.iter().all(|kind| *kind > 400), "{kinds:?}");
    }

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
