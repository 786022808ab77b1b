//! Waiting at a start for what is away. What trying again cannot mend ends the start.
//!
//! ```text
//!  try ──► it is there: go on
//!   ▲ ├──► it is away: say why ──► wait, longer each time up to a bound ──┐
//!   │ └──► it is wrong: fail; the other one gets a moment to be wrong too │
//!   └─────────────────────────────────────────────────────────────────────┘
//! ```

use std::{
    collections::{BTreeMap, HashSet},
    pin::pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::future::{self, Either};

use super::AppError;
use crate::grpc::Gate;

const DELAY_FIRST: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(2);
/// How long a start that fails waits to hear whether something else is wrong as well.
const VERDICT_WAIT: Duration = Duration::from_secs(3);
/// Reasons of one wait that are remembered as said; when they are that many, all are
/// forgotten.
const SAID_MAX: usize = 64;

/// What a start waits for; says so at its gate.
pub(super) struct Waits<'a> {
    gate: &'a Gate,
    /// What is waited for, and what there is to say of it.
    reasons: Mutex<BTreeMap<&'static str, String>>,
}

impl<'a> Waits<'a> {
    pub(super) fn new(gate: &'a Gate) -> Self {
        Self { gate, reasons: Mutex::default() }
    }

    /// Tries until `what` is there.
    ///
    /// # Errors
    /// One that trying again cannot mend.
    pub(super) async fn until<T, F: Future<Output = Result<T, AppError>>>(
        &self,
        what: &'static str,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, AppError> {
        let mut delay = DELAY_FIRST;
        // Reasons may take turns, as those of several brokers do: each is said once.
        let mut said = HashSet::new();
        self.tell(what, format!("it waits for {what}"));
        loop {
            let error = match attempt().await {
                Ok(there) => {
                    if !said.is_empty() {
                        tracing::info!("starting: {what} can be used now");
                    }
                    self.forget(what);
                    return Ok(there);
                }
                Err(error) if error.may_pass() => error,
                Err(error) => {
                    self.forget(what);
                    return Err(error);
                }
            };
            let reason = format!("it waits for {what}: {error}");
            if said.len() >= SAID_MAX {
                said.clear();
            }
            if said.insert(reason.clone()) {
                tracing::warn!("starting: {reason}");
            }
            self.tell(what, reason);
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(DELAY_MAX);
        }
    }

    fn tell(&self, what: &'static str, reason: String) {
        self.change(|reasons| drop(reasons.insert(what, reason)));
    }

    fn forget(&self, what: &'static str) {
        self.change(|reasons| drop(reasons.remove(what)));
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<&'static str, String>)) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut reasons);
        let texts: Vec<&str> = reasons.values().map(String::as_str).collect();
        if !texts.is_empty() {
            self.gate.tell(&texts.join("; "));
        }
    }
}

/// Waits for both.
///
/// # Errors
/// The first that fails; and the other as well if that fails a moment later.
pub(super) async fn both<A, B>(
    log: impl Future<Output = Result<A, AppError>>,
    store: impl Future<Output = Result<B, AppError>>,
) -> Result<(A, B), AppError> {
    match future::select(pin!(log), pin!(store)).await {
        Either::Left((Ok(log), store)) => Ok((log, store.await?)),
        Either::Right((Ok(store), log)) => Ok((log.await?, store)),
        Either::Left((Err(error), store)) => match failure(store).await {
            Some(other) => Err(AppError::Both(Box::new(error), Box::new(other))),
            None => Err(error),
        },
        Either::Right((Err(error), log)) => match failure(log).await {
            Some(other) => Err(AppError::Both(Box::new(other), Box::new(error))),
            None => Err(error),
        },
    }
}

/// How it fails, if it does within a moment.
async fn failure<T>(other: impl Future<Output = Result<T, AppError>>) -> Option<AppError> {
    tokio::time::timeout(VERDICT_WAIT, other).await.ok()?.err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    fn error(reason: &str, is_final: bool) -> AppError {
        AppError::Store(StoreError::Redis { reason: reason.to_owned(), is_final })
    }

    #[tokio::test(start_paused = true)]
    async fn it_tries_until_it_is_there_and_says_what_it_waits_for() {
        let (gate, _routes) = Gate::new().await;
        let waits = Waits::new(&gate);
        let mut tries = 0;
        let there = waits.until("Redis", || {
            tries += 1;
            let heard = gate.readiness().reason().expect("not ready");
            let answer = match tries {
                1 => {
                    assert_eq!(heard, "it waits for Redis");
                    Err(error("refused", false))
                }
                2 => {
                    assert_eq!(heard, "it waits for Redis: refused");
                    Err(error("loading", false))
                }
                _ => {
                    assert_eq!(heard, "it waits for Redis: loading");
                    Ok(tries)
                }
            };
            future::ready(answer)
        });
        assert_eq!(there.await.expect("there"), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_is_said_of_both_and_nobody_waits_for_what_is_away() {
        let (gate, _routes) = Gate::new().await;
        let waits = Waits::new(&gate);
        let wrong =
            |reason| waits.until(reason, move || future::ready(Err::<(), _>(error(reason, true))));
        let away = || waits.until("away", || future::ready(Err::<(), _>(error("away", false))));
        let said = |both: Result<((), ()), AppError>| both.expect_err("wrong").to_string();
        assert_eq!(said(both(wrong("log"), wrong("store")).await), "log; store");
        assert_eq!(said(both(away(), wrong("store")).await), "store");
        assert_eq!(said(both(wrong("log"), away()).await), "log");
    }
}
