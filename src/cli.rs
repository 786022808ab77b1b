//! The command line.

mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::serve::ServeArgs;
use crate::{
    app::AppError,
    client::{
        ClientError, DeleteArgs, FollowArgs, ImportArgs, PostArgs, TimelineArgs, UnfollowArgs,
    },
    load::{LoadArgs, LoadError},
};

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
    Post(PostArgs),
    Delete(DeleteArgs),
    Follow(FollowArgs),
    Unfollow(UnfollowArgs),
    Timeline(TimelineArgs),
    Import(ImportArgs),
    Load(Box<LoadArgs>),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::App(_) | Self::Client(_) => 1,
            Self::Load(error) => error.exit_code(),
        }
    }
}

impl Cli {
    /// Does what the command line says. What fails is told on stderr in one line.
    pub async fn run(self) -> ExitCode {
        let result: Result<(), CliError> = match self.command {
            Command::Serve(args) => args.run().await.map_err(Into::into),
            Command::Post(args) => args.run().await.map_err(Into::into),
            Command::Delete(args) => args.run().await.map_err(Into::into),
            Command::Follow(args) => args.run().await.map_err(Into::into),
            Command::Unfollow(args) => args.run().await.map_err(Into::into),
            Command::Timeline(args) => args.run().await.map_err(Into::into),
            Command::Import(args) => args.run().await.map_err(Into::into),
            Command::Load(args) => args.run().await.map_err(Into::into),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("roost: {error}");
                ExitCode::from(error.exit_code())
            }
        }
    }
}
