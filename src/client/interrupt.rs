//! Ctrl-C while a command works: the first ends it in order, the second at once.

use std::process;

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// What a shell reports of a command that Ctrl-C (SIGINT) has killed.
const KILLED_BY_CTRL_C: i32 = 130;

/// Listens for Ctrl-C until it is dropped.
pub(crate) struct Interrupt {
    /// Cancelled by the first Ctrl-C.
    pub(crate) stop: CancellationToken,
    listening: JoinHandle<()>,
}

impl Interrupt {
    /// From now on Ctrl-C no longer kills the process.
    pub(crate) fn listen() -> Self {
        let stop = CancellationToken::new();
        let ctrl_c = signal(SignalKind::interrupt());
        let listening = tokio::spawn({
            let stop = stop.clone();
            async move {
                // Without a handler Ctrl-C goes on killing the process.
                let Ok(mut ctrl_c) = ctrl_c else { return };
                ctrl_c.recv().await;
                stop.cancel();
                // A server that hangs must not hold the command: who says it twice
                // does not want to wait for what is under way.
                ctrl_c.recv().await;
                eprintln!("roost: stopped at once; what was under way may or may not be done");
                process::exit(KILLED_BY_CTRL_C);
            }
        });
        Self { stop, listening }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.listening.abort();
    }
}
