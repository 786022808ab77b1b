//! `roost serve`.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{CliError, config::ServeFlags};
use crate::app::{App, AppError, Settings};

/// Where `serve` listens if nothing else is said.
pub(super) const DEFAULT_LISTEN: &str = "127.0.0.1:50051";

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: an object in JSON each line.
    Json,
}

/// Runs until Ctrl-C or SIGTERM, then finishes the calls under way and exits 0.
/// Everything acknowledged is on disk by then, and is after `kill -9` too.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    flags: ServeFlags,
    /// How the log is written, to stderr: for people, or an object in JSON each line,
    /// with partition and offset as fields
    #[arg(long, value_name = "FORMAT", env = "ROOST_LOG_FORMAT", default_value = "text")]
    pub(super) log_format: LogFormat,
}

impl ServeArgs {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let settings = self.flags.settings()?;
        let stop = stop_token();
        let Some(app) = start(settings, &stop).await? else { return Ok(()) };
        // It serves though nobody may read this.
        let mut stdout = io::stdout();
        let _ = writeln!(stdout, "roost listens on {}; stop it with Ctrl-C", app.address());
        if let Some(address) = app.metrics_address() {
            let _ = writeln!(stdout, "metrics are at http://{address}/metrics");
        }
        Ok(run_until(app, stop.cancelled()).await?)
    }
}

/// Starts a Roost; `None` if it was told to stop before it served. A second signal does
/// not wait for that to be done in order.
pub(super) async fn start(
    settings: Settings,
    stop: &CancellationToken,
) -> Result<Option<App>, AppError> {
    let again = async {
        stop.cancelled().await;
        stop_signal().await;
    };
    tokio::select! {
        started = App::start(settings, stop) => match started {
            Ok(app) => Ok(Some(app)),
            Err(AppError::Stopped) => Ok(None),
            Err(error) => Err(error),
        },
        () = again => Ok(None),
    }
}

/// Lets a Roost serve until `stop`, or until a part of it fails, and stops it. A
/// second signal ends it where it stands, which loses nothing either.
pub(super) async fn run_until(
    mut app: App,
    stop: impl Future<Output = ()>,
) -> Result<(), AppError> {
    let failure = tokio::select! {
        () = stop => None,
        error = app.failed() => Some(error),
    };
    tracing::info!("stopping: finishing the calls under way; again Ctrl-C does not wait for them");
    let stopped = tokio::select! {
        stopped = app.stop() => stopped,
        () = stop_signal() => Ok(()),
    };
    match failure {
        Some(error) => Err(error),
        None => stopped,
    }
}

/// A token that the first Ctrl-C (SIGINT) or SIGTERM cancels.
pub(super) fn stop_token() -> CancellationToken {
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        stop_signal().await;
        stopped.cancel();
    });
    stop
}

/// Ends with the first Ctrl-C (SIGINT) or SIGTERM.
pub(super) async fn stop_signal() {
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        // Without handlers the signals end the process, which loses nothing.
        _ => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::DEFAULT_LISTEN;
    use crate::client::DEFAULT_TARGET;

    #[test]
    fn clients_look_where_a_server_listens() {
        assert_eq!(DEFAULT_TARGET, format!("http://{DEFAULT_LISTEN}"));
    }
}
