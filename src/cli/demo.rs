//! `roost demo`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use tempfile::TempDir;

use super::{
    CliError,
    serve::{DEFAULT_LISTEN, run_until, start, stop_token},
};
use crate::{
    app::Settings,
    client::{DEFAULT_TARGET, Target, progress::TerminalReporter},
    load::{self, LoadError},
};

/// Starts a Roost of its own, loads a synthetic population into it over gRPC,
/// publishes and reads, prints what was measured, and keeps serving until Ctrl-C.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Accounts of the population
    #[arg(
        long, value_name = "N", default_value_t = 20_000,
        value_parser = clap::value_parser!(u32).range(2..=10_000_000),
    )]
    users: u32,
    /// The address of the gRPC API
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_LISTEN)]
    listen: SocketAddr,
    /// Where to keep the data [default: a new directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl DemoArgs {
    pub(super) async fn run(self) -> Result<(), CliError> {
        // Removed when it is dropped, which is after the Roost in it has stopped.
        let temporary = TempDir::with_prefix("roost-demo-").map_err(CliError::DemoDir)?;
        let data_dir = self.data_dir.unwrap_or_else(|| temporary.path().join("data"));
        let stop = stop_token();
        let settings = Settings::new(data_dir, self.listen);
        let Some(mut app) = start(settings, &stop).await? else { return Ok(()) };
        let url = format!("http://{}", app.address());
        println!("roost listens on {}", app.address());

        let settings = load::Settings::synthetic(Target::new(url.clone()), self.users);
        let mut reporter = TerminalReporter::default();
        let loaded = tokio::select! {
            loaded = load::run(settings, &mut reporter, stop.clone()) => {
                loaded.map_err(CliError::from)
            }
            error = app.failed() => Err(error.into()),
        };
        match loaded {
            Ok(report) if !report.interrupted => println!("\n{report}\n{}", how_to_try(&url)),
            // Then there is nothing to show, and nothing below waits for `stop`.
            Ok(_) | Err(CliError::Load(LoadError::Interrupted)) => {}
            Err(error) => {
                // What failed first says more than what fails on the way out.
                let _ = app.stop().await;
                return Err(error);
            }
        }
        run_until(app, stop.cancelled()).await?;
        Ok(())
    }
}

fn how_to_try(url: &str) -> String {
    // Only where it is not what the commands assume.
    let target = match url {
        DEFAULT_TARGET => String::new(),
        other => format!(" --target {other}"),
    };
    format!(
        "Try it by hand, in another terminal:\n\
         \n\
         \x20 cargo run --release -- timeline 7{target}\n\
         \x20 cargo run --release -- post --author 1000001 \"hello from a new account\"{target}\n\
         \x20 cargo run --release -- follow 7 1000001{target}\n\
         \x20 cargo run --release -- timeline 7 --limit 5{target}\n\
         \n\
         Serving until Ctrl-C."
    )
}
