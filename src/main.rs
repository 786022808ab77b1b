//! The `roost` program.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Parser;
use roost::cli::{Cli, LogFormat};
use tikv_jemallocator::Jemalloc;
use tracing_subscriber::EnvFilter;

/// Workers allocate what they gather anew at every turn, and the system's allocator gives
/// such pieces back, and has them made again, page by page.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// What is logged where `RUST_LOG` does not say. Of each connection that it makes
/// anew, the redis crate warns a dozen times a second.
const DEFAULT_FILTER: &str = "warn,roost=info,redis=error";

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match cli.log_format() {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
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
