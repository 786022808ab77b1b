//! The command line.

mod config;
mod demo;
mod property_files;
mod rebuild;
mod serve;
mod value_file;

use std::{io, process::ExitCode};

use clap::{Parser, Subcommand};

pub use self::serve::LogFormat;
use self::{
    config::ConfigError,
    demo::DemoArgs,
    rebuild::RebuildArgs,
    serve::{ServeArgs, stop_signal},
};
use crate::{
    app::AppError,
    bench::{BenchArgs, BenchError, Workspace},
    client::{
        ClientError, DeleteArgs, DeleteMessageArgs, DeliveryArgs, FollowArgs, HideArgs, ImportArgs,
        MessageArgs, MessagesArgs, NotificationsArgs, PostArgs, ThreadArgs, TimelineArgs,
        UnfollowArgs,
    },
    load::{LoadArgs, LoadError},
    rss::{RssArgs, RssError},
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
    /// Make the store again from the event log
    Rebuild(RebuildArgs),
    /// Start a Roost, load it with a small town, show its figures, keep serving
    Demo(DemoArgs),
    /// Publish a post
    Post(PostArgs),
    /// Delete a post
    Delete(DeleteArgs),
    /// Let an account follow another
    Follow(FollowArgs),
    /// Let an account stop following another
    Unfollow(UnfollowArgs),
    /// Let an account see nothing of another
    Mute(HideArgs),
    /// Let an account see another again
    Unmute(HideArgs),
    /// Let two accounts see nothing of each other
    Block(HideArgs),
    /// End a block
    Unblock(HideArgs),
    /// Read what a post answers, and what answers it
    Thread(ThreadArgs),
    /// Have an author's posts pulled by reads
    Pull(DeliveryArgs),
    /// Have an author's posts pushed into timelines again
    Push(DeliveryArgs),
    /// Read a timeline
    Timeline(TimelineArgs),
    /// Read what an account is told of: mentions, answers and reposts
    Notifications(NotificationsArgs),
    /// Send a direct message
    Message(MessageArgs),
    /// Read direct messages
    Messages(MessagesArgs),
    /// Delete a direct message
    DeleteMessage(DeleteMessageArgs),
    /// Import a follow graph from an edge list
    Import(ImportArgs),
    /// Poll feeds and post what is new in them
    Rss(RssArgs),
    /// Load a Roost and measure it
    Load(LoadArgs),
    /// Measure how fast Roost is on this machine
    Bench(BenchArgs),
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Rss(#[from] RssError),
    #[error(transparent)]
    Bench(#[from] BenchError),
    #[error(
        "the bench was stopped, and what it had started is ended; what it has made in servers that \
         you have named is still there: drop topics that begin with roost-bench-, and empty that \
         Redis (FLUSHALL)"
    )]
    BenchStopped,
    #[error("the demo's data directory cannot be made: {0}")]
    DemoDir(std::io::Error),
}

impl Cli {
    /// How the command wants its log to be written.
    pub fn log_format(&self) -> LogFormat {
        match &self.command {
            Command::Serve(args) => args.log_format,
            _ => LogFormat::Text,
        }
    }

    /// Does what the command line says. What fails is told on stderr in one line.
    pub async fn run(self) -> ExitCode {
        match self.command.run().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // Whoever reads what is written has had enough.
                if !matches!(&error, CliError::Client(ClientError::Output(error))
                    if error.kind() == io::ErrorKind::BrokenPipe)
                {
                    eprintln!("roost: {error}");
                }
                ExitCode::FAILURE
            }
        }
    }
}

impl Command {
    async fn run(self) -> Result<(), CliError> {
        match self {
            Self::Serve(args) => args.run().await?,
            Self::Rebuild(args) => args.run().await?,
            Self::Demo(args) => args.run().await?,
            Self::Post(args) => args.run().await?,
            Self::Delete(args) => args.run().await?,
            Self::Follow(args) => args.run().await?,
            Self::Unfollow(args) => args.run().await?,
            Self::Mute(args) => args.mute().await?,
            Self::Unmute(args) => args.unmute().await?,
            Self::Block(args) => args.block().await?,
            Self::Unblock(args) => args.unblock().await?,
            Self::Thread(args) => args.run().await?,
            Self::Pull(args) => args.pull().await?,
            Self::Push(args) => args.push().await?,
            Self::Timeline(args) => args.run().await?,
            Self::Notifications(args) => args.run().await?,
            Self::Message(args) => args.run().await?,
            Self::Messages(args) => args.run().await?,
            Self::DeleteMessage(args) => args.run().await?,
            Self::Import(args) => args.run().await?,
            Self::Rss(args) => args.run().await?,
            Self::Load(args) => args.run().await?,
            Self::Bench(args) => {
                let workspace = Workspace::make()?;
                // What it has started ends as it is dropped.
                let ended = tokio::select! {
                    measured = args.run(workspace.path()) => measured.map_err(CliError::from),
                    () = stop_signal() => Err(CliError::BenchStopped),
                };
                let removed = workspace.remove().await;
                if let (Err(_), Err(left)) = (&ended, &removed) {
                    eprintln!("roost: {left}");
                }
                ended?;
                removed?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_may_begin_with_a_hyphen() {
        let parse = |words: &str| Cli::try_parse_from(words.split(' ')).map(|cli| cli.command);
        let post = parse("roost post --author 1 -hello");
        assert!(matches!(&post, Ok(Command::Post(args)) if args.text == "-hello"), "{post:?}");
        let message = parse("roost message --from 1 --to 2 -hi");
        assert!(matches!(&message, Ok(Command::Message(args)) if args.text == "-hi"));
        assert!(parse("roost post --author 1 --nobody hello").is_err());
        assert!(parse("roost post --author 1 --help").is_err());
    }
}
