//! How many feeds are fetched and parsed at once, so that the bad ones hold up no others.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{AcquireError, Semaphore, SemaphorePermit},
    task,
    time::timeout,
};

/// Feeds that are fetched at once, but for those that failed at their last poll; each takes
/// no more memory than the longest body.
const FETCHES_MAX: usize = 48;
/// Feeds that are fetched at once of those that failed: they may take all their time again,
/// and wait for each other only.
const RETRIES_MAX: usize = 16;
/// Feeds that are parsed at once, each of which keeps a thread busy. The others wait in their
/// slots to fetch in, so that no more bodies come than there are slots.
const PARSES_MAX: usize = 4;

/// One place for each feed that is fetched or parsed at once. None of them is ever closed.
pub(super) struct Slots {
    fetches: Semaphore,
    retries: Semaphore,
    parses: Arc<Semaphore>,
}

/// Why it is not known what is in a feed. The parser is somebody else's, and what it is given
/// is a stranger's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ParseError {
    #[error("the parser broke off; report it, with the feed")]
    BrokeOff,
    #[error(
        "is not parsed in time, or those before it are not; restart `roost rss` if that goes on"
    )]
    Slow,
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            fetches: Semaphore::new(FETCHES_MAX),
            retries: Semaphore::new(RETRIES_MAX),
            parses: Arc::new(Semaphore::new(PARSES_MAX)),
        }
    }
}

impl Slots {
    /// Waits for a slot to fetch a feed in, which may have failed at its last poll.
    pub(super) async fn to_fetch(
        &self,
        has_failed: bool,
    ) -> Result<SemaphorePermit<'_>, AcquireError> {
        let slots = if has_failed { &self.retries } else { &self.fetches };
        slots.acquire().await
    }

    /// Carries out `parse` on a thread for blocking calls, in a slot that it has to itself
    /// until it has really ended: nothing stops a thread.
    ///
    /// # Errors
    /// If it panics, or does not come to an end in time.
    pub(super) async fn parse<T: Send + 'static>(
        &self,
        time_max: Duration,
        parse: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ParseError> {
        let parsing = async {
            let slot = Arc::clone(&self.parses).acquire_owned().await;
            let in_slot = move || {
                let _slot = slot;
                parse()
            };
            task::spawn_blocking(in_slot).await
        };
        match timeout(time_max, parsing).await {
            Ok(parsed) => parsed.map_err(|_| ParseError::BrokeOff),
            Err(_) => Err(ParseError::Slow),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_goes_on_after_its_time_keeps_its_slot_until_it_has_ended() {
        let slots = Slots::default();
        let (end, has_ended) = mpsc::channel::<()>();
        // It is begun before the time is looked at.
        let given_up = slots.parse(Duration::ZERO, move || has_ended.recv()).await;
        assert_eq!(given_up, Err(ParseError::Slow));
        assert_eq!(slots.parses.available_permits(), PARSES_MAX - 1);
        drop(end);
        let all = slots.parses.acquire_many(PARSES_MAX as u32);
        let all = timeout(Duration::from_secs(60), all).await.expect("it has ended");
        let no_slot: Result<(), _> = slots.parse(Duration::ZERO, || unreachable!()).await;
        assert_eq!(no_slot, Err(ParseError::Slow));
        drop(all);
        let panicked = slots.parse(Duration::from_secs(60), || panic!("on purpose")).await;
        assert_eq!(panicked, Err::<(), _>(ParseError::BrokeOff));
        assert_eq!(slots.parse(Duration::from_secs(60), || 7).await, Ok(7));
    }
}
