//! `roost serve`: when it refuses to start, and how it ends.

use std::{fs, net::TcpListener};

use tempfile::TempDir;

use crate::program::{Running, failure, files, output, roost, serve, serve_on};

#[test]
fn a_port_in_use_is_told_before_anything_is_made() {
    let dir = TempDir::new().expect("a directory");
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = listener.local_addr().expect("its address");
    let data_dir = dir.path().join("data");
    let error = failure(&mut serve_on(&data_dir, address));
    assert!(error.contains(&format!("{address} is in use")), "{error}");
    assert!(error.contains("--listen"), "{error}");
    assert!(!data_dir.exists());
}

#[test]
fn a_data_directory_in_use_is_told_and_its_server_goes_on() {
    let dir = TempDir::new().expect("a directory");
    let (server, address) = Running::serve(dir.path());
    let target = format!("http://{address}");
    output(&mut roost(["post", "--author", "7", "hello", "--target", &target]));
    let before: Vec<_> = files(dir.path()).into_keys().collect();
    let error = failure(&mut serve(dir.path()));
    assert!(error.contains(&format!("in use by process {}", server.id())), "{error}");
    assert!(error.contains(&dir.path().display().to_string()), "{error}");
    assert_eq!(files(dir.path()).into_keys().collect::<Vec<_>>(), before);
    let lock = fs::read_to_string(dir.path().join("LOCK")).expect("readable");
    assert_eq!(lock.trim(), server.id().to_string());
    output(&mut roost(["post", "--author", "7", "still here", "--target", &target]));
}

#[test]
fn a_newer_data_directory_is_left_alone() {
    let dir = TempDir::new().expect("a directory");
    let (server, _) = Running::serve(dir.path());
    server.signal("INT");
    assert!(server.wait().success());
    let format = dir.path().join("FORMAT");
    let version = fs::read_to_string(&format).expect("readable").replace("version 1", "version 2");
    fs::write(&format, version).expect("written");

    let before = files(dir.path());
    let error = failure(&mut serve(dir.path()));
    assert!(error.contains("version 2") && error.contains("newer"), "{error}");
    assert!(files(dir.path()) == before, "something was changed");
}

#[test]
fn the_directory_of_something_else_is_left_alone() {
    let dir = TempDir::new().expect("a directory");
    fs::write(dir.path().join("thesis.tex"), "\\chapter{Birds}").expect("written");
    let before = files(dir.path());
    let error = failure(&mut serve(dir.path()));
    assert!(error.contains("neither empty nor a data directory"), "{error}");
    assert_eq!(files(dir.path()), before);
}

#[test]
fn both_signals_end_it_in_order() {
    let dir = TempDir::new().expect("a directory");
    for signal in ["INT", "TERM"] {
        let (server, _) = Running::serve(dir.path());
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0), "SIG{signal}");
    }
}
