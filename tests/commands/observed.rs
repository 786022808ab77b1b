//! What an operator sees of a `roost serve` from outside.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use tempfile::TempDir;

use crate::program::{Running, ended, failure, serve};

/// What is answered at `address` to a GET of `path`, with its head.
pub fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: roost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn a_chosen_port_is_said_and_serves_until_the_end() {
    let dir = TempDir::new().expect("a directory");
    let server = Running::start(serve(dir.path()).args(["--metrics-listen", "127.0.0.1:0"]));
    let said = server.printed("metrics are at ").pop().expect("a line");
    let url = said.strip_prefix("metrics are at http://").expect("a URL");
    let address = url.trim_end_matches("/metrics").parse().expect("an address");
    assert!(get(address, "/metrics").expect("an answer").contains("roost_build_info"));
    let ready = get(address, "/readyz").expect("an answer");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    server.signal("INT");
    assert!(server.wait().success());
    assert_eq!(get(address, "/livez"), None);
}

#[test]
fn the_log_is_json_where_that_is_asked_for() {
    let dir = TempDir::new().expect("a directory");
    let (_server, _) = Running::serve(dir.path());
    // Ends by itself, since the directory is in use.
    let mut command = serve(dir.path());
    command.args(["--log-format", "json", "--metrics-listen", "127.0.0.1:0"]);
    let stderr = String::from_utf8(ended(&mut command).stderr).expect("UTF-8");
    let line = stderr.lines().next().expect("a line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(line["level"], "INFO");
    assert!(line["message"].as_str().expect("text").starts_with("metrics are at "), "{line}");
}

#[test]
fn a_port_in_use_names_the_flag_that_sets_it() {
    let dir = TempDir::new().expect("a directory");
    let (_server, address) = Running::serve(&dir.path().join("data"));
    let other = dir.path().join("other");
    let error = failure(serve(&other).args(["--metrics-listen", &address.to_string()]));
    assert!(error.contains(&format!("{address} is in use")), "{error}");
    assert!(error.contains("--metrics-listen") && !other.exists(), "{error}");
}
