//! Files that users name: edge lists as data sets have them, and FIFOs, which come when
//! another program writes.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use tempfile::TempDir;

use crate::{
    process::Process,
    program::{Running, ended, free_address, roost, serve, signal, wait},
    rss::gzip,
};

#[test]
fn edge_lists_of_data_sets_are_imported() {
    let dir = TempDir::new().expect("a directory");
    let (_server, address) = Running::serve(&dir.path().join("data"));
    let padded = [gzip(b"1 2\n1 3\n"), vec![0; 512]].concat();
    let comment = format!("# {}\n1 2\n1 3\n", "c".repeat(9_000));
    let matrix = "%%MatrixMarket matrix coordinate pattern general\n3 3 2\n1 2\n1 3\n";
    for (name, content) in [
        ("bom", "\u{feff}1 2\n1 3\n".as_bytes()),
        ("konect", b"% asym unweighted\n% 3 3 3\n1 2\n1 3\n"),
        ("weights", b"1 2 7\n1 3 1217567877\n"),
        ("csv", b"id_1,id_2\n1,2\n1,3\n"),
        ("long-comment", comment.as_bytes()),
        ("matrix", matrix.as_bytes()),
        ("padded", &padded),
    ] {
        let file = dir.path().join(name);
        fs::write(&file, content).expect("written");
        let mut import = roost(["import", "--target", &format!("http://{address}")]);
        let imported = ended(import.arg(file));
        let (said, log) = (imported.stdout, String::from_utf8_lossy(&imported.stderr));
        let said = String::from_utf8_lossy(&said);
        assert!(said.starts_with("imported 2 follows ("), "{name}: {said}{log}");
        assert_eq!(log.contains("2 lines have more than two columns"), name == "weights", "{log}");
    }
}

#[test]
fn an_import_from_a_pipe_or_fifo_works() {
    let dir = TempDir::new().expect("a directory");
    let (_server, address) = Running::serve(&dir.path().join("data"));
    let target = format!("http://{address}");
    let mut import = roost(["import", "/dev/stdin", "--target", &target]);
    let import = import.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut import = import.spawn().expect("the program starts");
    let mut stdin = import.stdin.take().expect("its input");
    // The first byte of gzip data comes alone.
    let packed = gzip(b"1 2\n");
    for piece in [&packed[..1], &packed[1..]] {
        stdin.write_all(piece).and_then(|()| stdin.flush()).expect("taken");
    }
    drop(stdin);
    let output = import.wait_with_output().expect("its output");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("imported 1 follows"));

    let fifo = fifo(&dir);
    let import = Waiting::start(roost(["import", "--target", &target]).arg(&fifo), &fifo);
    fs::write(&fifo, "1 2\n1 3\n").expect("written");
    let status = import.ended();
    assert!(status.success(), "{status}");
}

/// Each command says that it waits for a FIFO without a writer, and a signal ends it.
#[test]
fn fifo_without_a_writer_is_said_and_a_signal_ends_it() {
    let dir = TempDir::new().expect("a directory");
    let (_server, address) = Running::serve(&dir.path().join("data"));
    let (target, fifo) = (format!("http://{address}"), fifo(&dir));
    let file = fifo.to_str().expect("UTF-8");
    let state = dir.path().join("state");
    let state = state.to_str().expect("UTF-8");
    let commands = [
        (roost(["import", file, "--target", &target]), None),
        (roost(["load", "--graph", file, "--target", &target]), Some(0)),
        (roost(["load", "--trace", file, "--target", &target]), Some(0)),
        (roost(["rss", file, "--state", state, "--target", &target]), Some(0)),
        (roost(["rss", file, "--once", "--state", state, "--target", &target]), Some(0)),
        (roost(["serve", "--config", file, "--listen", &free_address().to_string()]), None),
    ];
    for (mut command, code) in commands {
        let waiting = Waiting::start(&mut command, &fifo);
        // Those without a handler inherit what the test's own parent does with SIGINT, and a
        // shell lets its background jobs ignore it.
        signal(&waiting.process.0, if code.is_some() { "INT" } else { "TERM" });
        assert_eq!(waiting.ended().code(), code, "{command:?}");
    }
}

#[test]
fn a_configuration_may_come_from_a_fifo() {
    let dir = TempDir::new().expect("a directory");
    let fifo = fifo(&dir);
    let mut serve = serve(&dir.path().join("data"));
    let server = Running::start(serve.arg("--config").arg(&fifo));
    fs::write(&fifo, "home_timeline_cap = 100\n").expect("written");
    server.address();
}

fn fifo(dir: &TempDir) -> PathBuf {
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    fifo
}

/// A program that has said that it waits for a file.
struct Waiting {
    process: Process,
}

impl Waiting {
    fn start(command: &mut Command, file: &Path) -> Self {
        let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::start(command);
        let stderr = process.0.stderr.take().expect("its stderr");
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        let notice = format!("roost: waiting for {}, ", file.display());
        assert!(lines.any(|line| line.starts_with(&notice)), "it does not say that it waits");
        // What it says later must not block it.
        thread::spawn(move || lines.for_each(drop));
        Self { process }
    }

    fn ended(mut self) -> std::process::ExitStatus {
        wait(&mut self.process.0)
    }
}
