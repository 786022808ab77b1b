//! How long publishing waits for a store that is away before it does without.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::memory::Memory;
use crate::store::StoreError;

const TRY_AFTER: Duration = Duration::from_millis(100);

/// Asks until the store answers. `None`: it has been away for as long as anybody waits
/// for it, by what `memory` knows of it.
///
/// # Errors
///
/// What the store says where it is not away, or not just for a while.
pub(super) async fn ask<T, F>(memory: &Memory, ask: impl Fn() -> F) -> Result<Option<T>, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    loop {
        match ask().await {
            Err(error) if is_away(&error) => {
                if Instant::now() >= memory.patience_until() {
                    return Ok(None);
                }
                sleep(TRY_AFTER).await;
            }
            said => return said.map(Some),
        }
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
        let asked = AtomicU32::new(0);
        let memory = Memory::of_shared_store();
        let said = ask(&memory, || async {
            match asked.fetch_add(1, Ordering::Relaxed) {
                0..5 => Err(redis(false)),
                _ => Ok(7),
            }
        });
        assert_eq!(said.await.expect("said"), Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stays_away_is_waited_for_once() {
        let memory = Memory::of_shared_store();
        let asked = AtomicU32::new(0);
        let away = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(redis(false))
        };
        assert_eq!(ask(&memory, away).await.expect("away"), None);
        assert!(memory.patience_until() <= Instant::now());
        let (since, asked_before) = (Instant::now(), asked.load(Ordering::Relaxed));
        assert_eq!(ask(&memory, away).await.expect("away"), None);
        assert_eq!((Instant::now(), asked.load(Ordering::Relaxed)), (since, asked_before + 1));
        // It is there, and goes away again: that is another time.
        memory.found_whole(since);
        assert_eq!(ask(&memory, away).await.expect("away"), None);
        assert!(Instant::now() > since && memory.patience_until() <= Instant::now());
    }

    #[tokio::test]
    async fn one_that_must_be_mended_is_not_waited_for() {
        let memory = Memory::of_shared_store();
        assert!(ask(&memory, || async { Err::<(), _>(redis(true)) }).await.is_err());
        assert!(ask(&memory, || async { Err::<(), _>(StoreError::Closed) }).await.is_err());
    }
}
