//! `roost rss`, with web servers that answer in odd ways, and feeds that should not be
//! fetched.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    feeds::{Page, rss},
    program::{Running, ended, failure, free_address},
    rss::gzip,
    town::{Polled, Town, polled, titles},
};

/// A web server that answers with bytes as they are, and closes. It lives as long as the
/// process.
struct RawServer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl RawServer {
    /// With an answer for each path; others are answered with nothing.
    fn start(ip: impl Into<IpAddr>, answers: Vec<(&str, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind((ip.into(), 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let connections = Arc::new(AtomicUsize::new(0));
        let answers: Arc<HashMap<String, Vec<u8>>> =
            Arc::new(answers.into_iter().map(|(path, answer)| (path.to_owned(), answer)).collect());
        let counted = Arc::clone(&connections);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::Relaxed);
                let answers = Arc::clone(&answers);
                thread::spawn(move || answer(connection, &answers));
            }
        });
        Self { address, connections }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn answer(mut connection: TcpStream, answers: &HashMap<String, Vec<u8>>) {
    let mut request = Vec::new();
    let mut piece = [0; 1_024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match connection.read(&mut piece) {
            Ok(length @ 1..) => request.extend_from_slice(&piece[..length]),
            _ => return,
        }
    }
    let request = String::from_utf8_lossy(&request);
    let path = request.split(' ').nth(1).expect("a path");
    let answer = answers.get(path).map(Vec::as_slice).unwrap_or_default();
    // A client that has had enough closes first.
    let _ = connection.write_all(answer);
}

/// A list with a line for each URL, of accounts from 1 on.
fn list(town: &Town, urls: &[String]) {
    let lines = (1..).zip(urls).map(|(account, url)| format!("{account} {url}\n"));
    fs::write(town.path("feeds"), lines.collect::<String>()).expect("a list");
}

/// With no host allowed beside those in `more` and in the list.
fn once_on_public_addresses(town: &Town, roost: SocketAddr, more: &[&str]) -> Polled {
    let mut command = town.command(roost, &[&["--once"], more].concat());
    polled(ended(command.env_remove("ROOST_RSS_ALLOW_HOST")))
}

/// Polls these paths of a server as feeds: each has one entry, which is posted.
fn assert_each_posts_an_entry(
    town: &Town,
    roost: SocketAddr,
    server: &RawServer,
    paths: &[String],
) {
    list(town, &paths.iter().map(|path| server.url(path)).collect::<Vec<_>>());
    let polled = town.once(roost, &[]);
    let expected = format!(
        "{0} feeds, {0} polls, 0 of them failed; {0} entries posted, 0 wait\n",
        paths.len()
    );
    assert_eq!(polled.said, expected, "{}", polled.log);
}

fn answer_with(head: &str, body: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\n", head.as_bytes(), b"\r\n", body].concat()
}

/// Heads that curl, browsers and Go read, each of which ends before its empty line.
#[test]
fn heads_that_browsers_read_are_read() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    let feed = rss(&[("one", "one")]);
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    let length = feed.len();
    let heads = [
        "X-A: a;\r\n b\r\nConnection: close\r\n".to_owned(),
        "X-A: a;\r\n\tb\r\n   c\r\nX-B:\r\n d\r\n".to_owned(),
        "X-A : a\r\nConnection: close\r\n".to_owned(),
        "X-A \t: a\r\n".to_owned(),
        "X A: a\r\n".to_owned(),
        " X-A: a\r\n".to_owned(),
        "X-A: a\u{1}b\r\nno colon\r\n: no name\r\nX-(B): c\r\n\u{e9}: d\r\n".to_owned(),
        "X-A: a\nConnection: close\n".to_owned(),
        format!("Content-Length : {length}\r\nX-A: a\r\n b\r\n"),
        format!("Content-Encoding:\r\n gzip\r\nContent-Length:\r\n {length}\r\n"),
        many(150),
        many(2_000),
        format!("X-A: {}\r\n", "a".repeat(100_000)),
    ];
    let paths: Vec<String> = (0..heads.len()).map(|number| format!("/{number}")).collect();
    let mut answers: Vec<(&str, Vec<u8>)> = paths
        .iter()
        .zip(&heads)
        .map(|(path, head)| (path.as_str(), answer_with(head, feed.as_bytes())))
        .collect();
    answers.extend([
        ("/no-reason", format!("HTTP/1.0 200\r\n\r\n{feed}").into_bytes()),
        (
            "/continue",
            [b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), answer_with("", feed.as_bytes())].concat(),
        ),
        ("/redirect", b"HTTP/1.1 302 Found\r\nLocation :\r\n /0\r\n\r\n".to_vec()),
        (
            "/proxied",
            format!("HTTP/1.1 203 Non-Authoritative Information\r\n\r\n{feed}").into_bytes(),
        ),
    ]);
    let paths: Vec<String> = answers.iter().map(|(path, _)| (*path).to_owned()).collect();
    let server = RawServer::start(Ipv4Addr::LOCALHOST, answers);
    assert_each_posts_an_entry(&town, roost, &server, &paths);
}

#[test]
fn a_head_without_end_fails_its_feed() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    let header = format!("X-A: {}\r\n", "a".repeat(1_000));
    let feed = rss(&[("one", "one")]);
    let answers = vec![
        ("/long", answer_with(&header.repeat(600), feed.as_bytes())),
        ("/longest", answer_with(&header.repeat(20_000), feed.as_bytes())),
        ("/fold", answer_with(&format!("X-A: a\r\n{}", " b\r\n".repeat(200_000)), b"")),
        ("/many", answer_with(&"a:\r\n".repeat(30_000), feed.as_bytes())),
        ("/nothing", Vec::new()),
        ("/fits", answer_with(&header.repeat(200), feed.as_bytes())),
    ];
    let paths: Vec<String> = answers.iter().map(|(path, _)| (*path).to_owned()).collect();
    let server = RawServer::start(Ipv4Addr::LOCALHOST, answers);
    list(&town, &paths.iter().map(|path| server.url(path)).collect::<Vec<_>>());
    let polled = town.once_failing(roost, &[]);
    assert!(polled.said.starts_with("6 feeds, 6 polls, 5 of them failed"), "{}", polled.said);
    for line in 1..=5 {
        let told = format!("line {line}, ");
        let said = polled.log.lines().find(|said| said.contains(&told)).expect(&told);
        assert!(said.contains("cannot be fetched"), "{said}");
    }
    assert_eq!(titles(roost, 6), ["one"]);
}

#[test]
fn a_feed_is_what_its_bytes_say() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    let feed = rss(&[("one", "one")]);
    let (plain, packed) = (feed.as_bytes(), gzip(feed.as_bytes()));
    let padded = [&packed[..], &[0; 512]].concat();
    let mut bodies: Vec<(&str, Vec<u8>)> = vec![
        ("X-Nothing: is said\r\n", packed.clone()),
        ("Content-Type: application/gzip\r\n", padded.clone()),
        ("Content-Encoding: gzip\r\n", padded),
        ("Content-Encoding: gzip\r\n", [&packed[..], b"garbage"].concat()),
        ("Content-Encoding: gzip\r\n", [b" \r\n", plain].concat()),
        ("Content-Encoding: gzip\r\n", [b"\xef\xbb\xbf", plain].concat()),
    ];
    for encoding in ["utf-8", "none", "gzip", "br", "deflate", "UTF-8, gzip", "x", "\""] {
        let head: &str = Box::leak(format!("Content-Encoding: {encoding}\r\n").into_boxed_str());
        bodies.extend([(head, plain.to_vec()), (head, packed.clone())]);
    }
    let paths: Vec<String> = (0..bodies.len()).map(|number| format!("/{number}")).collect();
    let answers = paths
        .iter()
        .zip(&bodies)
        .map(|(path, (head, body))| (path.as_str(), answer_with(head, body)))
        .collect();
    let server = RawServer::start(Ipv4Addr::LOCALHOST, answers);
    assert_each_posts_an_entry(&town, roost, &server, &paths);
}

#[test]
fn feeds_on_private_addresses_are_refused() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    let feed = answer_with("", rss(&[("one", "one")]).as_bytes());
    let server = RawServer::start(Ipv4Addr::LOCALHOST, vec![("/", feed)]);
    let port = server.address.port();
    let hosts = [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "2130706433",
        "0x7f.1",
        "017700000001",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "[::]",
        "[::1]",
    ];
    list(&town, &hosts.map(|host| format!("http://{host}:{port}/")));
    let refused = once_on_public_addresses(&town, roost, &[]);
    for line in 1..=hosts.len() {
        let told = format!("line {line}, ");
        let said = refused.log.lines().find(|said| said.contains(&told)).expect(&told);
        assert!(said.contains("--allow-host") && said.contains("this machine's"), "{said}");
    }
    assert!(refused.said.contains("11 of them failed; 0 entries posted"), "{}", refused.said);
    // https is no way round.
    list(&town, &[format!("https://localhost:{port}/"), format!("https://127.0.0.1:{port}/")]);
    let refused = once_on_public_addresses(&town, roost, &[]);
    assert_eq!(refused.log.matches("give --allow-host").count(), 2, "{}", refused.log);
    assert_eq!(server.connections(), 0);

    // Each way to allow it.
    let url = server.url("/");
    for (account, host) in [(21, "127.0.0.1"), (22, "127.0.0.0/8"), (23, "10.0.0.1,0.0.0.0/0")] {
        fs::write(town.path("feeds"), format!("{account} {url}\n")).expect("a list");
        once_on_public_addresses(&town, roost, &["--allow-host", host]);
        assert_eq!(titles(roost, account), ["one"], "{host}");
    }
    let lines = format!("24 {url}\nallow-host 127.0.0.1\n25 http://localhost:{port}/\n");
    fs::write(town.path("feeds"), lines).expect("a list");
    once_on_public_addresses(&town, roost, &[]);
    let named = format!("allow-host localhost\n26 {url}\n27 http://localhost:{port}/\n");
    fs::write(town.path("feeds"), named).expect("a list");
    once_on_public_addresses(&town, roost, &[]);
    let posted = [24, 25, 26, 27].map(|account| titles(roost, account).len());
    assert_eq!(posted, [1, 1, 0, 1]);

    let bad = town.path("feeds");
    let mut bad =
        crate::program::roost(["rss", "--allow-host", "http://a/", bad.to_str().expect("UTF-8")]);
    let said = failure(bad.args(["--state", &town.text("none")]));
    assert!(said.contains("--allow-host") && said.contains("10.0.0.0/8"), "{said}");
}

#[test]
fn redirects_to_private_addresses_are_refused() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    let feed = answer_with("", rss(&[("one", "one")]).as_bytes());
    // Of the machine's own addresses the one is allowed, and the other is not.
    let hidden = RawServer::start(Ipv4Addr::new(127, 0, 0, 2), vec![("/", feed)]);
    let port = hidden.address.port();
    let targets = [
        format!("http://127.0.0.2:{port}/"),
        format!("http://2130706434:{port}/"),
        format!("http://[::ffff:127.0.0.2]:{port}/"),
        format!("https://127.0.0.2:{port}/"),
        format!("//127.0.0.2:{port}/"),
        format!("http://localhost:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://[fd00:ec2::254]/latest/meta-data/".to_owned(),
        "/0".to_owned(),
    ];
    let mut list = String::new();
    for (number, target) in targets.iter().enumerate() {
        let location = vec![("location", target.clone())];
        town.feeds.set(&format!("/{number}"), Page::Status(302, location));
        let allowed = "allow-host 127.0.0.1/32";
        list.push_str(&format!("{allowed}\n1 {}\n", town.feeds.url(&format!("/{number}"))));
    }
    fs::write(town.path("feeds"), list).expect("a list");
    let refused = once_on_public_addresses(&town, roost, &[]);
    assert!(refused.said.contains("9 of them failed; 0 entries posted"), "{}", refused.log);
    // `localhost` is an allowed address, where nothing listens at this port.
    let forbidden = refused.log.matches("feeds are fetched from public addresses only").count();
    assert_eq!(forbidden, targets.len() - 1, "{}", refused.log);
    assert_eq!(hidden.connections(), 0);
}

#[test]
fn no_secret_of_a_url_is_shown() {
    let town = Town::new();
    let (_server, roost) = Running::serve(&town.path("data"));
    let to = |status, location: &str| Page::Status(status, vec![("location", location.to_owned())]);
    let pages = [
        ("/good", Page::Feed { text: rss(&[("one", "one")]), etag: "\"1\"".to_owned() }),
        ("/broken", Page::Status(500, vec![])),
        ("/gone", Page::Status(410, vec![])),
        ("/page", Page::Bytes { encoding: "", bytes: b"<html></html>".to_vec() }),
        ("/moved", to(301, "/good?key=secret")),
        ("/loop", to(302, "/loop?key=secret")),
        ("/ftp", to(302, "ftp://me:secret@example.org/?secret")),
        ("/none", to(302, "http://me:secret@[/?secret")),
        ("/private", to(302, "http://me:secret@127.0.0.2/?secret#secret")),
    ];
    let paths: Vec<&str> = pages.iter().map(|(path, _)| *path).collect();
    let mut urls: Vec<String> =
        paths.iter().map(|path| town.feeds.url(&format!("{path}?key=secret#secret"))).collect();
    urls.push(format!("http://{}/?secret", free_address()));
    pages.into_iter().for_each(|(path, page)| town.feeds.set(path, page));
    list(&town, &urls);
    for level in ["info", "trace"] {
        let mut command = town.command(roost, &["--once", "--state", &town.text(level)]);
        let output = command.env("RUST_LOG", level).output().expect("the program starts");
        let said = polled(output);
        let (shown, log) = (said.said, said.log);
        assert!(!shown.contains("secret"), "{shown}");
        let told: Vec<&str> = log.lines().filter(|line| line.contains("secret")).collect();
        assert_eq!(told, [""; 0]);
        assert!(log.contains("/moved?…: has moved for good to"), "{log}");
        assert!(log.contains("line 2, ") && log.contains("/broken?…: answers 500"), "{log}");
    }
    // It was asked for with its key all the same.
    assert_eq!(titles(roost, 1), ["one"]);
    let state = fs::read_dir(town.path("info"))
        .expect("a state")
        .map(|file| fs::read_to_string(file.expect("an entry").path()).expect("text"));
    assert!(state.into_iter().any(|text| text.contains("/good?key=secret")));
    fs::write(town.path("feeds"), "1 http://me:secret@a/\nx http://a/?secret\n").expect("a list");
    let broken = failure(&mut town.command(roost, &["--once"]));
    assert!(broken.contains("line 2") && !broken.contains("secret"), "{broken}");
}

#[test]
fn the_state_is_for_its_owner_alone() {
    let town = Town::new();
    town.feeds.set_feed("/rss", &rss(&[("one", "one")]));
    town.list(&[(7, "/rss")]);
    town.once_failing(free_address(), &["--state", &town.text("a/b")]);
    let mode =
        |path: &std::path::Path| fs::metadata(path).expect("its mode").permissions().mode() & 0o777;
    assert_eq!([town.path("a"), town.path("a/b")].map(|dir| mode(&dir)), [0o700, 0o700]);
    let files = crate::program::files(&town.path("a/b"));
    assert_eq!(files.len(), 2);
    for (file, _) in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}
