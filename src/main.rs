//! The `roost` program.

use std::{io, process::ExitCode};

use clap::Parser;
use roost::cli::Cli;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,roost=info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    cli.run().await
}
