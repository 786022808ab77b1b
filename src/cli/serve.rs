//! `roost serve`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    app::{App, AppError, Settings},
    store::HOME_TIMELINE_CAP_DEFAULT,
    writes::TEXT_CHARS_MAX_DEFAULT,
};

/// Where `serve` listens if nothing else is said.
pub(super) const DEFAULT_LISTEN: &str = "127.0.0.1:50051";

/// Runs until Ctrl-C or SIGTERM, then finishes the calls under way and exits 0.
/// Everything acknowledged is on disk by then, and is after `kill -9` too.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where everything is kept; made if it does not exist
    #[arg(long, value_name = "DIR", env = "ROOST_DATA_DIR", default_value = "./roost-data")]
    data_dir: PathBuf,
    /// The address of the gRPC API
    #[arg(long, value_name = "ADDRESS", env = "ROOST_LISTEN", default_value = DEFAULT_LISTEN)]
    listen: SocketAddr,
    /// How many posts a home timeline shows
    #[arg(
        long, value_name = "COUNT", env = "ROOST_HOME_TIMELINE_CAP", default_value_t = HOME_TIMELINE_CAP_DEFAULT as u32,
        value_parser = clap::value_parser!(u32).range(1..=100_000),
    )]
    home_timeline_cap: u32,
    /// The longest text of a post, in characters (Unicode scalar values)
    #[arg(
        long, value_name = "CHARACTERS", env = "ROOST_POST_TEXT_LIMIT", default_value_t = TEXT_CHARS_MAX_DEFAULT as u32,
        value_parser = clap::value_parser!(u32).range(1..=100_000),
    )]
    post_text_limit: u32,
    /// Partitions of the event log; fixed once it is made [default: 4 for a new one]
    #[arg(
        long, value_name = "COUNT", env = "ROOST_PARTITIONS",
        value_parser = clap::value_parser!(u32).range(1..=1_024),
    )]
    partitions: Option<u32>,
}

impl ServeArgs {
    pub(super) async fn run(self) -> Result<(), AppError> {
        let settings = Settings {
            home_timeline_cap: self.home_timeline_cap as usize,
            text_chars_max: self.post_text_limit as usize,
            partitions: self.partitions,
            ..Settings::new(self.data_dir, self.listen)
        };
        let stop = stop_signal();
        tokio::pin!(stop);
        let app = tokio::select! {
            app = App::start(settings) => app?,
            // Nothing is served yet, so there is nothing to drain.
            () = &mut stop => return Ok(()),
        };
        println!("roost listens on {}; stop it with Ctrl-C", app.address());
        run_until(app, stop).await
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
