//! The command line.

mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::serve::ServeArgs;
use crate::app::AppError;

/// A timeline fan-out engine for a large microblog.
///
/// `roost demo` shows what it does, `roost serve` runs it, and the other commands
/// talk to one that runs.
#[derive(Debug, Parser)]
#[command(name = "roost", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run Roost: the gRPC API, the event log, the workers and the store
    Serve(ServeArgs),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    App(#[from] AppError),
}

impl Cli {
    /// Does what the command line says. What fails is told on stderr in one line.
    pub async fn run(self) -> ExitCode {
        let result: Result<(), CliError> = match self.command {
            Command::Serve(args) => args.run().await.map_err(Into::into),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("roost: {error}");
                ExitCode::FAILURE
            }
        }
    }
}
