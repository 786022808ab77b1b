//! The background tasks of an engine, as one supervised set.
//!
//! ```text
//!  spawn ──► runs until `stop` ──► joined by `stop`
//!              └──► fails, panics or returns before ──► `failed` names it ──► the process ends
//! ```
//!
//! A process without one of them would look healthy and be wrong: without the task that follows the
//! store, reads stay open while Redis has lost data; without the one that renews the id lease, another
//! process may give out the same post ids. So an engine spawns nothing outside this set.

use futures::future;
use tokio::{runtime::Handle, task::JoinError};
use tokio_util::{sync::CancellationToken, task::JoinMap};

use super::AppError;

/// Runs background tasks, none of which may end before it is stopped. Dropping it aborts them.
pub(super) struct Supervisor {
    tasks: JoinMap<&'static str, Result<(), AppError>>,
    stop: CancellationToken,
}

impl Supervisor {
    pub(super) fn new() -> Self {
        Self { tasks: JoinMap::new(), stop: CancellationToken::new() }
    }

    /// The token that asks every task to return.
    pub(super) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs a task that returns once [`stop_token`](Self::stop_token) is cancelled. Names are
    /// unique within the set.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tasks.spawn(name, async move {
            task.await;
            Ok(())
        });
    }

    /// Runs a task that can fail on the threads of another runtime.
    pub(super) fn spawn_fallible_on<E: Into<AppError>>(
        &mut self,
        name: &'static str,
        threads: &Handle,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.tasks.spawn_on(name, async move { task.await.map_err(Into::into) }, threads);
    }

    /// Waits until a task has ended too early, and says which and why.
    pub(super) async fn failed(&mut self) -> AppError {
        match self.tasks.join_next().await {
            Some((task, Ok(Ok(())))) => AppError::TaskEnded { task },
            Some((task, ended)) => failure(task, ended).unwrap_or(AppError::TaskEnded { task }),
            None => future::pending().await,
        }
    }

    /// Asks every task to return and waits until all have.
    ///
    /// # Errors
    /// The failure of the first task that did not return in order.
    pub(super) async fn stop(mut self) -> Result<(), AppError> {
        self.stop.cancel();
        let mut result = Ok(());
        while let Some((task, ended)) = self.tasks.join_next().await {
            result = result.and(failure(task, ended).map_or(Ok(()), Err));
        }
        result
    }
}

/// Why a task did not return in order, if it did not.
fn failure(task: &'static str, ended: Result<Result<(), AppError>, JoinError>) -> Option<AppError> {
    match ended {
        Ok(result) => result.err(),
        Err(_) => Some(AppError::TaskPanicked { task }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until(stop: CancellationToken) {
        stop.cancelled().await;
    }

    #[tokio::test]
    async fn task_that_panics_is_named_as_failure() {
        let mut tasks = Supervisor::new();
        tasks.spawn("lag", until(tasks.stop_token()));
        tasks.spawn("auditor", async { panic!("on purpose") });
        let error = tasks.failed().await;
        assert!(matches!(error, AppError::TaskPanicked { task: "auditor" }), "{error}");
        tasks.stop().await.expect("the others stop in order");
    }

    #[tokio::test]
    async fn task_that_returns_too_early_is_named_as_failure() {
        let mut tasks = Supervisor::new();
        tasks.spawn("lag", until(tasks.stop_token()));
        tasks.spawn("id lease", async {});
        let error = tasks.failed().await;
        assert!(matches!(error, AppError::TaskEnded { task: "id lease" }), "{error}");
    }

    #[tokio::test]
    async fn stop_joins_all_and_reports_the_failure() {
        let mut tasks = Supervisor::new();
        let stop = tasks.stop_token();
        tasks.spawn("lag", until(stop.clone()));
        tasks.spawn_fallible_on("workers", &Handle::current(), async move {
            until(stop).await;
            Err(AppError::Stopped)
        });
        let stopped = tasks.stop().await;
        assert!(matches!(stopped, Err(AppError::Stopped)), "{stopped:?}");
    }

    #[tokio::test]
    async fn failed_waits_while_all_tasks_run() {
        let mut tasks = Supervisor::new();
        tasks.spawn("lag", until(tasks.stop_token()));
        assert!(futures::poll!(std::pin::pin!(tasks.failed())).is_pending());
        tasks.stop().await.expect("stopped in order");
    }
}
