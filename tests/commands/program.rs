//! Running the program.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use crate::process::Process;
pub use crate::process::{free_address, roost, serve_on, signal};

/// The longest wait for something that must happen.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// `roost serve` on this directory and a free port.
pub fn serve(data_dir: &Path) -> Command {
    serve_on(data_dir, SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// Runs a command to its end, which must be exit code 1 and one line on stderr.
pub fn failure(command: &mut Command) -> String {
    let output = ended(command);
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("roost: "), "{stderr}");
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
    stderr.trim_end().to_owned()
}

/// Runs a command to its end.
pub fn ended(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("the program starts");
    // What these commands print fits into the pipes.
    wait(&mut child);
    child.wait_with_output().expect("its output")
}

/// What a command that must succeed prints.
pub fn output(command: &mut Command) -> String {
    let output = ended(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A program that runs. Dropping it is `kill -9`.
pub struct Running {
    process: Process,
    stdout: Receiver<String>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::null()));
        let pipe = process.0.stdout.take().expect("its output");
        let (lines, stdout) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                // Nobody may be listening any more.
                let _ = lines.send(line);
            }
        });
        Self { process, stdout }
    }

    /// A `roost serve` on this directory, once it serves, and where.
    pub fn serve(data_dir: &Path) -> (Self, SocketAddr) {
        let server = Self::start(&mut serve(data_dir));
        let address = server.address();
        (server, address)
    }

    /// The address that it says to listen on.
    pub fn address(&self) -> SocketAddr {
        let said = self.printed("roost listens on ").pop().expect("a line");
        let address = said.trim_start_matches("roost listens on ").split(';').next();
        address.expect("an address").parse().expect("an address")
    }

    /// Waits for a line with `part` in it: what is printed up to there.
    pub fn printed(&self, part: &str) -> Vec<String> {
        let begun = Instant::now();
        let mut lines: Vec<String> = Vec::new();
        while !lines.last().is_some_and(|line| line.contains(part)) {
            let left = DEADLINE.saturating_sub(begun.elapsed());
            match self.stdout.recv_timeout(left) {
                Ok(line) => lines.push(line),
                Err(_) => panic!("{part:?} was not printed: {lines:#?}"),
            }
        }
        lines
    }

    /// Sends it a signal, named as `kill` names it.
    pub fn signal(&self, name: &str) {
        signal(&self.process.0, name);
    }

    pub fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// Waits for its end: how it ended, and what it printed that nobody has read.
    pub fn rest(mut self) -> (ExitStatus, String) {
        let status = wait(&mut self.process.0);
        (status, self.stdout.iter().map(|line| line + "\n").collect())
    }

    pub fn wait(mut self) -> ExitStatus {
        wait(&mut self.process.0)
    }
}

/// Every file below a directory, with what it holds.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let content = fs::read(&path).expect("readable");
            found.insert(path, content);
        }
    }
    found
}

pub fn wait(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        if begun.elapsed() > DEADLINE {
            let _ = child.kill();
            panic!("the program did not end");
        }
        thread::sleep(Duration::from_millis(10));
    }
}
