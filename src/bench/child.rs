//! Servers that the bench starts for itself: what they say goes into a file, and where one
//! ends before it serves, that file says why.

use std::{fs, io, path::Path, process::Stdio};

use tokio::process::{Child, Command};

/// Starts a server that ends with the bench; all that it says goes into `log`.
pub(super) fn start(command: &mut Command, log: &Path) -> io::Result<Child> {
    let file = fs::File::create(log)?;
    command.stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file).kill_on_drop(true).spawn()
}

/// Why a server does not serve, if it has ended.
pub(super) fn ended(child: &mut Child, log: &Path) -> Option<io::Error> {
    let status = child.try_wait().ok()??;
    let log = fs::read_to_string(log).unwrap_or_default();
    // Behind it may be where in a program it happened, line by line and indented.
    let is_said = |line: &&str| line.starts_with(|first: char| !first.is_whitespace());
    let said = log.lines().rfind(is_said).unwrap_or_default();
    Some(io::Error::other(format!("it has ended, with {status}: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_server_that_ends_has_said_last_is_told() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let log = dir.path().join("log");
        let script = "echo starting; echo no memory >&2; echo '\tat line 7'; exit 3";
        let mut child = start(Command::new("sh").args(["-c", script]), &log).expect("a shell");
        child.wait().await.expect("its end");
        let why = ended(&mut child, &log).expect("it has ended").to_string();
        assert!(why.contains("3") && why.ends_with("no memory"), "{why}");
    }
}
