//! The `roost` program.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Parser;
use roost::cli::Cli;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,roost=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("roost: the system gives no threads: {error}; raise its limits");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(cli.run());
    // A command that was stopped does not wait for a file that is still being read.
    runtime.shutdown_background();
    code
}
