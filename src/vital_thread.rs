//! Threads that a process cannot do without: a panic on one of them ends the process.
//!
//! Each writes or reads the event log for tasks that wait for it, so a process that went on without
//! one would answer UNAVAILABLE, or wait, for ever. To abort loses nothing that was acknowledged: a
//! start after it is a start after `kill -9`.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    process,
    thread::{self, JoinHandle},
};

/// Runs `work` on a thread of this name. If it panics, the process aborts, after the panic hook has
/// printed the message.
///
/// # Errors
/// If the system gives no more threads.
pub(crate) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let name = name.to_owned();
    thread::Builder::new().name(name.clone()).spawn(move || {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            tracing::error!(
                "the thread `{name}` panicked, see above; the process ends, since it cannot do \
                 without it. Please report it, and start the process again"
            );
            process::abort();
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command};

    use super::*;

    /// Set where this test runs in a process of its own, which is to end.
    const CHILD: &str = "ROOST_TEST_VITAL_THREAD";

    #[test]
    fn panic_of_a_vital_thread_ends_the_process() {
        if env::var_os(CHILD).is_some() {
            let thread = spawn("vital", || panic!("on purpose")).expect("a thread");
            // Where the panic does not end the process, the child succeeds.
            let _ = thread.join();
            return;
        }
        let mut child = Command::new(env::current_exe().expect("this program"));
        let name = "vital_thread::tests::panic_of_a_vital_thread_ends_the_process";
        let child = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1");
        let output = child.output().expect("a child");
        assert!(!output.status.success(), "it went on");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("on purpose"), "{said}");
    }

    #[test]
    fn thread_that_returns_is_joined() {
        spawn("vital", || {}).expect("a thread").join().expect("it returned");
    }
}
