//! Patience with a server that goes away and comes back.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use tonic::{Response, Status};

use super::LoadError;
use crate::client::is_transient;

const FIRST_WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Counts failures in a row and says how long to wait before the next try.
pub(super) struct Backoff {
    patience: Duration,
    first_failure: Option<Instant>,
    wait: Duration,
}

impl Backoff {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, first_failure: None, wait: FIRST_WAIT }
    }

    /// Something worked.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.patience);
    }

    /// How long to wait after a failure at `now`.
    ///
    /// # Errors
    /// If the failure will not pass, or patience has run out.
    pub(super) fn after(&mut self, status: Status, now: Instant) -> Result<Duration, LoadError> {
        if !is_transient(&status) {
            return Err(status.into());
        }
        let first = *self.first_failure.get_or_insert(now);
        if now.duration_since(first) >= self.patience {
            return Err(LoadError::GaveUp { patience: self.patience, last: Box::new(status) });
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(LONGEST_WAIT);
        Ok(wait)
    }
}

/// Makes a call until it succeeds, fails for good, or patience has run out.
pub(super) async fn retried<T, F, Fut>(patience: Duration, mut call: F) -> Result<T, LoadError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Response<T>, Status>>,
{
    let mut backoff = Backoff::new(patience);
    loop {
        match call().await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => {
                let wait = backoff.after(status, Instant::now())?;
                tokio::time::sleep(wait).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_and_runs_out() {
        let begin = Instant::now();
        let mut backoff = Backoff::new(Duration::from_secs(10));
        let away = || Status::unavailable("away");
        let first = backoff.after(away(), begin).expect("patient");
        let second = backoff.after(away(), begin + first).expect("patient");
        assert!(second > first);
        let late = begin + Duration::from_secs(11);
        assert!(matches!(backoff.after(away(), late), Err(LoadError::GaveUp { .. })));
        backoff.reset();
        assert_eq!(backoff.after(away(), late).expect("patient again"), first);
    }

    #[test]
    fn a_refusal_is_not_retried() {
        let mut backoff = Backoff::new(Duration::from_secs(10));
        for status in [Status::invalid_argument("no"), Status::internal("bug")] {
            assert!(matches!(backoff.after(status, Instant::now()), Err(LoadError::Client(_))));
        }
    }

    #[test]
    fn a_broken_connection_is_transient_whatever_its_code() {
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(is_transient(&Status::from_error(Box::new(broken))));
    }
}
