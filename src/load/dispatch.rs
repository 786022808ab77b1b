//! When each action is due, and who does it.
//!
//! An author's posts go to one lane, in their order. A lane that is full makes the
//! dispatcher wait; latencies count from when an action was due all the same.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, time};
use tokio_util::sync::CancellationToken;

use super::{
    LoadError,
    board::Board,
    churn::{Change, Plan, SharedChanges},
    publish::Due,
    workload::Workload,
};

/// Hands out actions in their order and at their time.
pub(super) struct Dispatcher {
    pub(super) workload: Arc<Workload>,
    /// What an earlier run has published is not published again.
    pub(super) board: Arc<Board>,
    pub(super) changes: SharedChanges,
    pub(super) lanes: Vec<mpsc::Sender<Due>>,
    pub(super) churn_lanes: Vec<mpsc::Sender<Change>>,
    pub(super) plan: Plan,
    pub(super) actions_per_second: Option<f64>,
    pub(super) stop: CancellationToken,
}

impl Dispatcher {
    pub(super) async fn dispatch(self) -> Result<(), LoadError> {
        let stop = self.stop.clone();
        tokio::select! {
            () = self.dispatch_all() => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    }

    /// Ends early where a lane has ended, which has an error of its own to tell.
    async fn dispatch_all(mut self) {
        let begin = Instant::now();
        let mut action = 0u64;
        for number in 0..self.workload.post_count() {
            loop {
                let change = self.plan.next(action, number, &mut self.changes.lock());
                let Some(change) = change else { break };
                if let Some(due) = self.due(begin, action) {
                    time::sleep_until(due.into()).await;
                }
                let lane = mixed(change.key()) as usize % self.churn_lanes.len();
                if self.churn_lanes[lane].send(change).await.is_err() {
                    return;
                }
                action += 1;
            }
            if self.board.id(number).is_some() {
                // The changes between the posts are the same as in that run.
                action += 1;
                continue;
            }
            let due = match self.workload.due(number) {
                Some(after) => Some(begin + after),
                None => self.due(begin, action),
            };
            if let Some(due) = due {
                time::sleep_until(due.into()).await;
            }
            let lane = mixed(self.workload.author(number).into()) as usize % self.lanes.len();
            if self.lanes[lane].send(Due { number, at: due }).await.is_err() {
                return;
            }
            action += 1;
        }
    }

    fn due(&self, begin: Instant, action: u64) -> Option<Instant> {
        let rate = self.actions_per_second?;
        Some(begin + Duration::from_secs_f64(action as f64 / rate))
    }
}

/// Spreads neighbouring numbers.
fn mixed(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}
