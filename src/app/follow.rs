//! What the workers of other processes do, as far as the store tells; and whether the
//! store holds all that it once held.
//!
//! A store that has lost something says so by marks that go back. From then on, until
//! everything that the log held at that moment is applied again, nobody may read: what
//! was deleted or unfollowed might show, and what was there might not.
//!
//! ```text
//!  whole ──► marks go back, or no answer ──► behind: reads are shut ──► applied up to the
//!    ▲                                                                  log's end of then
//!    └──────────────────────────────────────────────────────────────────────┘
//! ```

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    event_log::EventLog,
    fanout::Progress,
    grpc::Gate,
    store::{Resume, Store, StoreError},
    writes::Memory,
};

/// How often the store is asked.
const INTERVAL: Duration = Duration::from_millis(20);
/// How often while it does not answer.
const AWAY_INTERVAL: Duration = Duration::from_millis(100);

/// Follows a store that processes share.
pub(super) struct Follower<L, S> {
    pub(super) log: Arc<L>,
    pub(super) store: Arc<S>,
    pub(super) progress: Arc<Progress>,
    pub(super) memory: Memory,
    pub(super) gate: Gate,
}

/// What a store is known to hold.
#[derive(Debug, PartialEq, Eq)]
enum Holds {
    All,
    /// Nobody knows, since it does not answer.
    Unknown,
    /// Less than it once did; how much that was is yet to be asked of the log.
    Less,
    /// Less than what is below these offsets, by partition.
    LessThan(Vec<u64>),
}

impl<L: EventLog, S: Store> Follower<L, S> {
    /// Follows until it is told to stop.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut known = Vec::new();
        let mut incarnation = None;
        let mut holds = Holds::All;
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let pause = match self.look().await {
                Ok((marks, now)) => {
                    let went_back = self.take_note(&known, &marks);
                    known = marks;
                    // A worker notices later what that one has lost.
                    let is_another = incarnation.replace(now).is_some_and(|before| before != now);
                    if went_back || is_another {
                        self.memory.found_loss();
                    }
                    if went_back {
                        tracing::warn!("the store has lost some of what it held; reads wait");
                        holds = Holds::Less;
                    }
                    holds = self.settle(holds, &known).await;
                    if holds == Holds::All {
                        self.memory.found_whole(begun);
                    }
                    INTERVAL
                }
                Err(error) => {
                    holds = self.away(holds, &error).await;
                    AWAY_INTERVAL
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn look(&self) -> Result<(Vec<Resume>, u64), StoreError> {
        // In this order: should it become another one in between, the next look says so.
        let marks = self.store.marks().await?;
        let incarnation = if self.memory.may_fail() { self.store.incarnation().await? } else { 0 };
        Ok((marks, incarnation))
    }

    /// Publishes how far the workers have come. True: less than before.
    fn take_note(&self, known: &[Resume], marks: &[Resume]) -> bool {
        let mut went_back = false;
        for (partition, now) in (0..).zip(marks) {
            let position = (*now).into();
            match known.get(partition as usize) {
                Some(before) if now.shown < before.shown => {
                    went_back = true;
                    self.progress.go_back(partition, position);
                }
                _ => self.progress.advance(partition, position),
            }
        }
        went_back
    }

    /// Opens and shuts the reads by what the store holds now that it answers.
    async fn settle(&self, holds: Holds, marks: &[Resume]) -> Holds {
        let ends = match holds {
            Holds::All => return Holds::All,
            Holds::Unknown => {
                tracing::info!("the store answers again");
                self.gate.open_reads().await;
                return Holds::All;
            }
            Holds::LessThan(ends) => ends,
            Holds::Less => {
                self.gate.shut_reads("the store has lost some of what it held").await;
                match self.log.ends().await {
                    Ok(ends) => ends,
                    // It is asked again in a moment.
                    Err(_) => return Holds::Less,
                }
            }
        };
        let partitions = ends.iter().zip(marks);
        let left: u64 = partitions.map(|(end, mark)| end.saturating_sub(mark.shown)).sum();
        if left == 0 {
            tracing::info!("the store holds again what it had lost");
            self.gate.open_reads().await;
            return Holds::All;
        }
        let reason = format!(
            "the store has lost some of what it held, and {left} events of the log are to be \
             applied again"
        );
        self.gate.shut_reads(&reason).await;
        Holds::LessThan(ends)
    }

    /// What it holds can be another once it answers again.
    async fn away(&self, holds: Holds, error: &StoreError) -> Holds {
        match holds {
            Holds::All => {
                // Once, and not ten times a second.
                tracing::warn!(%error, "the store does not answer; reads wait");
                self.gate.shut_reads(&error.to_string()).await;
                Holds::Unknown
            }
            holds => holds,
        }
    }
}
