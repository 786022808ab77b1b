//! What the workers of other processes do, as far as the store tells; and whether the
//! store holds all that it once held.
//!
//! A store that has lost something says so by marks that go back. From then on, until
//! everything that the log held at that moment is applied again, nobody may read: what
//! was deleted or unfollowed might show, and what was there might not.
//!
//! The marks of a partition go back when its worker has noticed the loss, and a partition
//! may have none. So once a part of the store is another than before, and at the start,
//! everybody waits for all workers that have not noticed yet what it may lack.
//!
//! ```text
//!  whole ──► marks go back, or a part ──► behind: reads ──► all workers have noticed, and
//!    ▲       is another, or no answer     are shut          applied up to the log's end of then
//!    └───────────────────────────────────────────────────────────────┘
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

const LOST: &str = "the store has lost some of what it held";

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// `None` before the first.
    incarnation: Option<u64>,
    /// Partitions whose marks may say more than what is there.
    unnoticed: Vec<u32>,
    marks: Vec<Resume>,
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
    /// Follows until it is told to stop, from the first look on: what is lost from then
    /// on is noticed.
    pub(super) async fn run(self, first: Look, stop: CancellationToken) {
        let mut begun = Instant::now();
        let mut found = Ok(first);
        let mut last = Look::default();
        let mut holds = Holds::All;
        while !stop.is_cancelled() {
            let pause = match found {
                Ok(look) => {
                    let is_news = holds.may_lack(&look.unnoticed);
                    if is_news {
                        // Before anybody hears of marks that may say too much.
                        self.gate.shut_reads(LOST).await;
                    }
                    let went_back = self.take_note(&last.marks, &look.marks);
                    // A worker notices later what that one has lost.
                    let is_another =
                        last.incarnation.is_some() && last.incarnation != look.incarnation;
                    if went_back || is_another || is_news {
                        self.memory.found_loss();
                    }
                    if went_back || is_news {
                        tracing::warn!("{LOST}; reads wait");
                        holds = Holds::Less;
                    }
                    holds = self.settle(holds, &look).await;
                    last = look;
                    INTERVAL
                }
                Err(error) => {
                    holds = self.away(holds, &error).await;
                    AWAY_INTERVAL
                }
            };
            holds.tell(&self.memory, begun);
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
            begun = Instant::now();
            found = self.look(&last).await;
        }
    }

    /// What there was before anybody looked.
    ///
    /// # Errors
    /// Where the store does not answer.
    pub(super) async fn first_look(&self) -> Result<Look, StoreError> {
        self.look(&Look::default()).await
    }

    async fn look(&self, last: &Look) -> Result<Look, StoreError> {
        let (mut incarnation, mut unnoticed) = (None, Vec::new());
        if self.memory.may_fail() {
            incarnation = Some(self.store.incarnation().await?);
            if incarnation != last.incarnation || !last.unnoticed.is_empty() {
                unnoticed = self.store.unnoticed().await?;
            }
        }
        // Last: where a worker has noticed a loss, they have gone back.
        let marks = self.store.marks().await?;
        Ok(Look { incarnation, unnoticed, marks })
    }

    /// Publishes how far the workers have come. True: something was lost.
    fn take_note(&self, known: &[Resume], marks: &[Resume]) -> bool {
        let mut went_back = false;
        for (partition, now) in (0..).zip(marks) {
            let position = (*now).into();
            let before = known.get(partition as usize);
            went_back |= before.is_some_and(|before| is_loss(before, now));
            match before {
                Some(before) if now.shown < before.shown => {
                    self.progress.go_back(partition, position);
                }
                _ => self.progress.advance(partition, position),
            }
        }
        went_back
    }

    /// Opens and shuts the reads by what the store holds now that it answers.
    async fn settle(&self, holds: Holds, look: &Look) -> Holds {
        let ends = match holds {
            Holds::All => return Holds::All,
            Holds::Unknown => {
                tracing::info!("the store answers again");
                self.gate.open_reads().await;
                return Holds::All;
            }
            Holds::LessThan(ends) => ends,
            Holds::Less => {
                self.gate.shut_reads(LOST).await;
                match self.log.ends().await {
                    Ok(ends) => ends,
                    // It is asked again in a moment.
                    Err(_) => return Holds::Less,
                }
            }
        };
        let Some(reason) = look.lacks(&ends) else {
            tracing::info!("the store holds again what it had lost");
            self.gate.open_reads().await;
            return Holds::All;
        };
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

/// Whether a partition has gone back between these marks. They may be where they were
/// again.
fn is_loss(before: &Resume, now: &Resume) -> bool {
    now.shown < before.shown || (before.shown > 0 && now.history != before.history)
}

impl Holds {
    /// Tells what a look that began at `begun` has found.
    fn tell(&self, memory: &Memory, begun: Instant) {
        match self {
            Self::All => memory.found_whole(begun),
            Self::Less | Self::LessThan(_) => memory.found_lacking(),
            Self::Unknown => {}
        }
    }

    /// Whether these partitions, which no worker has looked after, are news.
    fn may_lack(&self, unnoticed: &[u32]) -> bool {
        matches!(self, Self::All | Self::Unknown) && !unnoticed.is_empty()
    }
}

impl Look {
    /// Why reads must wait until all below these ends holds again; `None` once it does.
    fn lacks(&self, ends: &[u64]) -> Option<String> {
        let partitions = ends.iter().zip(&self.marks);
        let left: u64 = partitions.map(|(end, mark)| end.saturating_sub(mark.shown)).sum();
        match &self.unnoticed[..] {
            [] if left == 0 => None,
            [] => Some(format!("{LOST}, and {left} events of the log are to be applied again")),
            [first, others @ ..] => Some(format!(
                "{LOST}, and partition {first} and {} others wait for a worker that finds out \
                 what that is of theirs; is one running?",
                others.len()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(shown: [u64; 2], unnoticed: &[u32]) -> Look {
        let marks = shown.map(|shown| Resume { shown, ..Resume::default() }).to_vec();
        Look { incarnation: Some(1), unnoticed: unnoticed.to_vec(), marks }
    }

    #[test]
    fn all_is_there_once_every_worker_has_looked_and_applied_what_was_lost() {
        let ends = [70, 90];
        assert_eq!(look([70, 90], &[]).lacks(&ends), None);
        let behind = look([58, 88], &[]).lacks(&ends).expect("less than there was");
        assert!(behind.contains("14 events"), "{behind}");
        // The marks of a partition without a worker say what was there before the loss.
        let unnoticed = look([70, 90], &[1]).lacks(&ends).expect("perhaps less");
        assert!(unnoticed.contains("partition 1 ") && unnoticed.contains("worker"), "{unnoticed}");
    }

    #[test]
    fn a_loss_is_seen_though_all_is_there_again() {
        let at = |shown, history| Resume { shown, history, ..Resume::default() };
        assert!(!is_loss(&at(70, 1), &at(90, 1)));
        assert!(is_loss(&at(70, 1), &at(58, 1)));
        assert!(is_loss(&at(70, 1), &at(70, 2)));
        assert!(is_loss(&at(70, 1), &at(90, 2)));
        // Of which nothing was there.
        assert!(!is_loss(&at(0, 0), &at(70, 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_store_says_holds_only_once_it_has_all_again() {
        let memory = Memory::of_shared_store();
        for (holds, is_trusted) in [
            (Holds::All, true),
            (Holds::Unknown, false),
            (Holds::All, true),
            (Holds::Less, false),
            (Holds::LessThan(vec![70, 90]), false),
            (Holds::All, true),
        ] {
            tokio::time::advance(Duration::from_secs(1)).await;
            let told = Instant::now();
            holds.tell(&memory, told);
            assert_eq!(memory.holds_since(told).await, is_trusted, "{holds:?}");
        }
    }

    #[test]
    fn what_no_worker_has_noticed_is_news_until_the_reads_are_shut() {
        for open in [Holds::All, Holds::Unknown] {
            assert!(open.may_lack(&[0]));
            assert!(!open.may_lack(&[]));
        }
        assert!(!Holds::LessThan(vec![70, 90]).may_lack(&[0]), "its ends stay as they are");
    }
}
