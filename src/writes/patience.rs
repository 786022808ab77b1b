//! How a write asks a store that may be away, or may have lost what it is asked for; and for
//! how long.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::memory::Memory;
use crate::store::StoreError;

const TRY_AFTER: Duration = Duration::from_millis(100);

/// What the store has said, and since when that is known: no look from before can vouch
/// for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer<T> {
    pub(super) said: T,
    pub(super) at: Instant,
}

/// Asks until the store answers. `None`: it has been away for as long as anybody waits
/// for it, by what `memory` knows of it, or has refused this for as long.
///
/// # Errors
///
/// What the store says where it is not away, or not just for a while.
pub(super) async fn ask<T, F>(
    memory: &Memory,
    ask: impl Fn() -> F,
) -> Result<Option<Answer<T>>, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut refused_until = None;
    loop {
        match ask().await {
            Err(error) if is_away(&error) => {
                // Looks may find a store that refuses this, and others may be answered. Each
                // refusal counts: they are of one time while they follow each other closely.
                let until = memory.found_refusal();
                let own = *refused_until.get_or_insert(until);
                if Instant::now() >= own.min(memory.patience_until()) {
                    return Ok(None);
                }
                sleep(TRY_AFTER).await;
            }
            said => return Ok(Some(Answer { said: said?, at: Instant::now() })),
        }
    }
}

/// Asks until the store answers while it has all that it ever had, and has lost nothing when
/// it has answered; where `ask` says `None` it is asked again. Returns `None` if nobody can
/// tell by `until`.
pub(super) async fn ask_until_sure<T, F>(
    memory: &Memory,
    until: Instant,
    ask: impl Fn() -> F,
) -> Option<T>
where
    F: Future<Output = Result<Option<T>, StoreError>>,
{
    let sure = async {
        let mut has_failed = false;
        loop {
            let lost = memory.wait_whole(Instant::now()).await;
            match ask().await {
                Ok(Some(said)) if memory.is_as_whole(lost, Instant::now()).await => return said,
                // Something was lost meanwhile, or is to come.
                Ok(_) => {}
                // Once, and not ten times a second.
                Err(error) if !has_failed => {
                    tracing::warn!(%error, "what requests have made is not known yet");
                    has_failed = true;
                }
                Err(_) => {}
            }
            sleep(TRY_AFTER).await;
        }
    };
    timeout_at(until, sure).await.ok()
}

/// Whether the store may answer again by itself.
fn is_away(error: &StoreError) -> bool {
    matches!(error, StoreError::Redis { is_final: false, .. })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::timeout;

    use super::{super::memory::WAIT_MAX, *};

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
        assert_eq!(said.await.expect("said").expect("in time").said, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_from_before_the_answer_does_not_vouch_for_it() {
        let (memory, asked) = (Memory::of_shared_store(), AtomicU32::new(0));
        let answer = ask(&memory, || async {
            match asked.fetch_add(1, Ordering::Relaxed) {
                // It is there, and is lost before it answers.
                0 => {
                    memory.found_whole(Instant::now());
                    Err(redis(false))
                }
                _ => Ok(()),
            }
        });
        let answer = answer.await.expect("said").expect("in time");
        let task = tokio::spawn({
            let memory = memory.clone();
            async move { memory.holds_since(answer.at).await }
        });
        tokio::task::yield_now().await;
        assert!(!task.is_finished(), "it waits for the next look");
        memory.found_loss();
        assert!(!task.await.unwrap());
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
        sleep(WAIT_MAX).await;
        let since = Instant::now();
        memory.found_whole(since);
        assert_eq!(ask(&memory, away).await.expect("away"), None);
        assert!(Instant::now() > since && memory.patience_until() <= Instant::now());
    }

    /// Redis whose memory is full answers whoever looks at it.
    #[tokio::test(start_paused = true)]
    async fn one_that_refuses_this_though_it_is_there_is_waited_for_once() {
        let memory = Memory::of_shared_store();
        let looking = memory.clone();
        tokio::spawn(async move {
            loop {
                looking.found_whole(Instant::now());
                sleep(Duration::from_millis(20)).await;
            }
        });
        let refused = || ask(&memory, || async { Err::<(), _>(redis(false)) });
        sleep(2 * WAIT_MAX).await;
        let begun = Instant::now();
        let patient = timeout(4 * WAIT_MAX, refused()).await.expect("no longer than that");
        assert_eq!(patient.expect("away"), None);
        assert!((WAIT_MAX..WAIT_MAX + 2 * TRY_AFTER).contains(&begun.elapsed()));
        let waited = begun.elapsed();
        assert_eq!(refused().await.expect("away"), None);
        assert_eq!(begun.elapsed(), waited, "whoever comes later does not wait as long again");
        // It takes writes for a while: that is another time.
        sleep(WAIT_MAX).await;
        let begun = Instant::now();
        assert_eq!(refused().await.expect("away"), None);
        assert!(begun.elapsed() >= WAIT_MAX);
    }

    /// A node of a Cluster may refuse what others do.
    #[tokio::test(start_paused = true)]
    async fn whoever_is_refused_waits_no_longer_than_that_whatever_becomes_of_others() {
        let memory = Memory::of_shared_store();
        let begun = Instant::now();
        let slow = || async {
            // So long that each refusal is another time.
            sleep(WAIT_MAX / 4).await;
            memory.found_whole(Instant::now());
            Err::<(), _>(redis(false))
        };
        let patient = timeout(4 * WAIT_MAX, ask(&memory, slow)).await.expect("no longer than that");
        assert_eq!(patient.expect("away"), None);
        assert!(begun.elapsed() < 2 * WAIT_MAX);
    }

    #[tokio::test]
    async fn one_that_must_be_mended_is_not_waited_for() {
        let memory = Memory::of_shared_store();
        assert!(ask(&memory, || async { Err::<(), _>(redis(true)) }).await.is_err());
        assert!(ask(&memory, || async { Err::<(), _>(StoreError::Closed) }).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_while_something_is_lost_is_asked_again() {
        let (memory, asked) = (Memory::of_shared_store(), AtomicU32::new(0));
        let until = || Instant::now() + 4 * WAIT_MAX;
        // A look that was under way, and found everything, before each answer.
        let answer = || async {
            memory.found_whole(Instant::now());
            // Never at the moment of a look.
            sleep(TRY_AFTER / 3).await;
            match asked.fetch_add(1, Ordering::Relaxed) {
                0 => Err(redis(false)),
                1 => Ok(Some("a later event's")),
                2 => Ok(None),
                _ => Ok(Some("the first event's")),
            }
        };
        let looking = async {
            let mut asked_before = 0;
            loop {
                sleep(TRY_AFTER / 2).await;
                match asked.load(Ordering::Relaxed) {
                    // The first look after that answer finds it.
                    2 if asked_before < 2 => memory.found_loss(),
                    _ => memory.found_whole(Instant::now()),
                }
                asked_before = asked.load(Ordering::Relaxed);
            }
        };
        let said = tokio::select! {
            said = ask_until_sure(&memory, until(), answer) => said,
            () = looking => None,
        };
        assert_eq!(said, Some("the first event's"));
        sleep(TRY_AFTER).await;
        // Nobody has looked since, so nobody knows.
        assert_eq!(ask_until_sure(&memory, until(), || async { Ok(Some(7)) }).await, None);
    }

    /// A store that takes writes again is waited for as ever when it goes away later.
    #[tokio::test(start_paused = true)]
    async fn a_refusal_of_long_ago_takes_nobodys_patience() {
        let memory = Memory::of_shared_store();
        memory.found_refusal();
        sleep(2 * WAIT_MAX).await;
        memory.found_whole(Instant::now());
        assert_eq!(memory.patience_until(), Instant::now() + WAIT_MAX);
    }
}
