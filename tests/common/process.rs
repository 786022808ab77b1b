//! The `roost` program as a process of its own.

use std::{
    env,
    ffi::OsStr,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
};

/// The program, with nothing of this environment that it would heed.
pub fn roost(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roost"));
    command.args(args).stdin(Stdio::null()).env_remove("RUST_LOG");
    let is_roosts = |name: &OsStr| name.as_encoded_bytes().starts_with(b"ROOST_");
    for name in env::vars_os().map(|(name, _)| name).filter(|name| is_roosts(name)) {
        command.env_remove(name);
    }
    command
}

/// `roost serve` on this directory and address.
pub fn serve_on(data_dir: &Path, address: SocketAddr) -> Command {
    let mut command = roost(["serve", "--listen", &address.to_string(), "--data-dir"]);
    command.arg(data_dir);
    command
}

/// Sends a process a signal, named as `kill` names it.
pub fn signal(child: &Child, name: &str) {
    assert!(signal_id(child.id(), name), "process {} cannot be sent {name}", child.id());
}

/// The same by the number of the process. Whether there is such a process.
pub fn signal_id(id: u32, name: &str) -> bool {
    let kill = format!("kill -{name} {id}");
    Command::new("sh").args(["-c", &kill]).status().expect("a shell").success()
}

/// An address where nobody listens.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address")
}

/// A process that runs. Dropping it is `kill -9`.
pub struct Process(pub Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("the program starts"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Dead already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
