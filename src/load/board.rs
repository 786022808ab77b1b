//! Which posts have been acknowledged, and under which ids.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::sync::Notify;

use crate::domain::PostId;

/// One slot of 8 bytes a post; written once each, read by everyone.
pub(super) struct Board {
    /// 0 until the post is acknowledged, which no id ever is.
    ids: Box<[AtomicU64]>,
    acked_count: AtomicU32,
    acked: Notify,
}

impl Board {
    pub(super) fn new(post_count: u32) -> Self {
        Self {
            ids: (0..post_count).map(|_| AtomicU64::new(0)).collect(),
            acked_count: AtomicU32::new(0),
            acked: Notify::new(),
        }
    }

    pub(super) fn post_count(&self) -> u32 {
        self.ids.len() as u32
    }

    pub(super) fn ack(&self, number: u32, id: PostId) {
        self.ids[number as usize].store(id.0, Ordering::Release);
        self.acked_count.fetch_add(1, Ordering::Relaxed);
        self.acked.notify_waiters();
    }

    pub(super) fn id(&self, number: u32) -> Option<PostId> {
        match self.ids[number as usize].load(Ordering::Acquire) {
            0 => None,
            id => Some(PostId(id)),
        }
    }

    /// Waits until a post is acknowledged.
    pub(super) async fn wait(&self, number: u32) -> PostId {
        loop {
            // Listening begins before the look, so that no ack slips between.
            let acked = self.acked.notified();
            tokio::pin!(acked);
            acked.as_mut().enable();
            if let Some(id) = self.id(number) {
                return id;
            }
            acked.await;
        }
    }

    pub(super) fn acked_count(&self) -> u32 {
        self.acked_count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_post_gets_its_id() {
        let board = Arc::new(Board::new(2));
        assert_eq!(board.id(1), None);
        let waiting = tokio::spawn({
            let board = Arc::clone(&board);
            async move { board.wait(1).await }
        });
        tokio::task::yield_now().await;
        board.ack(0, PostId(5));
        board.ack(1, PostId(6));
        assert_eq!(waiting.await.expect("no panic"), PostId(6));
        assert_eq!(board.wait(0).await, PostId(5));
        assert_eq!(board.acked_count(), 2);
    }
}
