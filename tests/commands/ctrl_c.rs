//! Ctrl-C, with a server that takes connections and never answers.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    process::Stdio,
    thread,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    process::Process,
    program::{Running, roost, signal, wait},
};

#[test]
fn a_load_that_has_sent_nothing_ends_with_a_line() {
    for (more, code, said) in
        [(&[][..], 0, "stopped before anything was sent\n"), (&["--verify"], 1, "")]
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let target = format!("http://{}", listener.local_addr().expect("its address"));
        let mut load = roost(["load", "--target", &target]);
        let signalling = thread::spawn(move || listener.accept().expect("a connection"));
        let load = Running::start(load.args(more));
        let _connection = signalling.join().expect("connected");
        load.signal("INT");
        let (status, printed) = load.rest();
        assert_eq!((status.code(), printed.as_str()), (Some(code), said), "{more:?}");
    }
}

#[test]
fn a_second_ctrl_c_ends_an_import_that_hangs() {
    let dir = TempDir::new().expect("a directory");
    let graph = dir.path().join("graph.txt");
    fs::write(&graph, "1 2\n").expect("written");
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let target = format!("http://{}", silent.local_addr().expect("its address"));
    let mut import = roost(["import", "--target", &target]);
    let mut import = Process::start(import.arg(graph).stderr(Stdio::piped()));
    let stderr = import.0.stderr.take().expect("its stderr");
    let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("reading lines")), "it did not get to reading");
    // From the file to the handler is no distance; then it hangs for good.
    thread::sleep(Duration::from_millis(500));
    signal(&import.0, "INT");
    thread::sleep(Duration::from_millis(500));
    assert_eq!(import.0.try_wait().expect("a child"), None, "the first one waits");
    signal(&import.0, "INT");
    assert_eq!(wait(&mut import.0).code(), Some(130));
    let said: Vec<String> = lines.collect();
    assert!(said.last().is_some_and(|line| line.starts_with("roost: stopped at once")), "{said:?}");
}
