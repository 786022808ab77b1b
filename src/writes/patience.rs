//! How long publishing waits for a store that is away before it does without.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::store::StoreError;

/// Longer than most failovers take.
const WAIT_MAX: Duration = Duration::from_secs(15);
const TRY_AFTER: Duration = Duration::from_millis(100);

/// Since when the store has been away.
#[derive(Debug, Default)]
pub(super) struct Patience {
    away_since: Mutex<Option<Instant>>,
}

impl Patience {
    /// Asks until the store answers. `None`: it has been away for longer than one waits.
    ///
    /// # Errors
    ///
    /// What the store says where it is not away, or not just for a while.
    pub(super) async fn ask<T, F>(&self, ask: impl Fn() -> F) -> Result<Option<T>, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        loop {
            match ask().await {
                Err(error) if is_away(&error) => {
                    if self.away_since().elapsed() >= WAIT_MAX {
                        return Ok(None);
                    }
                    sleep(TRY_AFTER).await;
                }
                said => {
                    *self.away_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    return said.map(Some);
                }
            }
        }
    }

    fn away_since(&self) -> Instant {
        let mut since = self.away_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since.get_or_insert_with(Instant::now)
    }
}

/// Whether the store may answer again by itself.
fn is_away(error: &StoreError) -> bool {
    matches!(error, StoreError::Redis { is_final: false, .. })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn redis(is_final: bool) -> StoreError {
        StoreError::Redis { reason: "away".to_owned(), is_final }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_comes_back_in_time_is_waited_for() {
        let (patience, asked) = (Patience::default(), AtomicU32::new(0));
        let said = patience.ask(|| async {
            match asked.fetch_add(1, Ordering::Relaxed) {
                0..5 => Err(redis(false)),
                _ => Ok(7),
            }
        });
        assert_eq!(said.await.expect("said"), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stays_away_is_waited_for_once() {
        let patience = Patience::default();
        let begun = Instant::now();
        let asked = AtomicU32::new(0);
        let away = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(redis(false))
        };
        assert_eq!(patience.ask(away).await.expect("away"), None);
        assert!(begun.elapsed() >= WAIT_MAX);
        let (waited, asked_before) = (begun.elapsed(), asked.load(Ordering::Relaxed));
        assert_eq!(patience.ask(away).await.expect("away"), None);
        assert_eq!((begun.elapsed(), asked.load(Ordering::Relaxed)), (waited, asked_before + 1));
        // It answers, and goes away again: that is another time.
        assert_eq!(patience.ask(|| async { Ok(1) }).await.expect("said"), Some(1));
        assert_eq!(patience.ask(away).await.expect("away"), None);
        assert!(begun.elapsed() >= waited + WAIT_MAX);
    }

    #[tokio::test]
    async fn one_that_must_be_mended_is_not_waited_for() {
        let patience = Patience::default();
        assert!(patience.ask(|| async { Err::<(), _>(redis(true)) }).await.is_err());
        assert!(patience.ask(|| async { Err::<(), _>(StoreError::Closed) }).await.is_err());
    }
}
