//! A start while Kafka or Redis is away, and a start with what nobody can wait for.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    observed::get,
    process::Process,
    program::{DEADLINE, ended, failure, free_address, roost, signal, wait},
    services::{self, proxy::Proxy},
};

/// `roost serve` with these, in a topic of its own.
fn serve(listen: SocketAddr, kafka: &str, redis: &str, metrics: SocketAddr) -> Command {
    let topic = format!("roost-test-{:016x}", rand::random::<u64>());
    let mut command = roost(["serve", "--listen", &listen.to_string(), "--kafka", kafka]);
    command.args(["--redis", redis, "--kafka-topic", &topic, "--kafka-group", &topic]);
    command.args(["--partitions", "1", "--metrics-listen", &metrics.to_string()]);
    command
}

/// A Redis of this test's own, at this address or with these options in its place.
fn redis(dir: &Path, address: SocketAddr, options: &[&str]) -> Process {
    let port = address.port().to_string();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir"]);
    command.arg(dir).args(options).stdout(Stdio::null());
    let server = Process::start(&mut command);
    let begun = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < DEADLINE, "Redis does not start");
        thread::sleep(Duration::from_millis(10));
    }
    server
}

/// Waits until what /readyz answers is as it should be.
fn readyz(metrics: SocketAddr, is_right: impl Fn(&str) -> bool) -> String {
    let begun = Instant::now();
    let mut last = None;
    loop {
        if let Some(answer) = get(metrics, "/readyz") {
            if is_right(&answer) {
                return answer;
            }
            last = Some(answer);
        }
        assert!(begun.elapsed() < DEADLINE, "{last:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn while_both_are_away_it_says_so_once_and_a_signal_ends_the_wait() {
    for name in ["INT", "TERM"] {
        let dir = TempDir::new().expect("a directory");
        let (kafka, away, metrics) = (free_address(), free_address(), free_address());
        let log = dir.path().join("stderr");
        let address = free_address();
        let mut command = serve(address, &kafka.to_string(), &format!("redis://{away}"), metrics);
        let mut server = Process::start(
            command.stdout(Stdio::null()).stderr(fs::File::create(&log).expect("a file")),
        );
        // What is said of Kafka comes with the first answer of the client of Kafka, by which
        // time Redis was tried many times.
        let said = readyz(metrics, |said| {
            said.contains(&format!(
                "it waits for Kafka: Kafka does not do its part: no answer from {kafka}"
            )) && said.contains(&format!("it waits for Redis: Redis at {away} cannot be reached"))
        });
        assert!(said.starts_with("HTTP/1.1 503"), "{said}");
        assert!(get(metrics, "/livez").expect("an answer").starts_with("HTTP/1.1 200"));
        let target = format!("http://{address}");
        let refused = failure(&mut roost(["timeline", "1", "--target", &target]));
        assert!(refused.contains("it waits for Redis"), "{refused}");

        let begun = Instant::now();
        signal(&server.0, name);
        assert_eq!(wait(&mut server.0).code(), Some(0), "SIG{name}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        let log = fs::read_to_string(log).expect("a log");
        for what in ["Kafka", "Redis"] {
            let line = format!("it waits for {what}: ");
            assert_eq!(log.lines().filter(|it| it.contains(&line)).count(), 1, "{log}");
        }
        assert_eq!(log.lines().count(), 3, "{log}");
    }
}

#[test]
fn it_goes_on_by_itself_and_is_not_ready_while_nothing_can_be_read() {
    let Some(proxied) = services::address("ROOST_TEST_KAFKA_PROXIED", "kafka") else { return };
    let (to, from) = proxied.split_once(',').expect("two addresses");
    let dir = TempDir::new().expect("a directory");
    let (at, metrics) = (free_address(), free_address());
    let mut command = serve(free_address(), from, &format!("redis://{at}"), metrics);
    let mut server = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    readyz(metrics, |said| said.contains("it waits for Kafka: ") && said.contains("for Redis: "));
    let first = redis(dir.path(), at, &[]);
    readyz(metrics, |said| said.contains("it waits for Kafka: ") && !said.contains("for Redis: "));
    let runtime = Runtime::new().expect("threads");
    let _proxy = runtime
        .block_on(Proxy::start(from.parse().expect("an address"), to.parse().expect("an address")));
    readyz(metrics, |said| said.starts_with("HTTP/1.1 200"));

    drop(first);
    let said = readyz(metrics, |said| said.starts_with("HTTP/1.1 503"));
    assert!(said.contains("not ready: nothing can be read now: "), "{said}");
    assert!(said.ends_with("; try again\n"), "{said}");
    let _second = redis(dir.path(), at, &[]);
    readyz(metrics, |said| said.starts_with("HTTP/1.1 200"));
    signal(&server.0, "TERM");
    assert_eq!(wait(&mut server.0).code(), Some(0));
}

#[test]
fn a_redis_that_is_spoken_to_in_the_wrong_way_ends_it_with_what_to_do() {
    let dir = TempDir::new().expect("a directory");
    let (plain, locked, tls) = (free_address(), free_address(), free_address());
    let clustered = free_address();
    let _clustered = redis(dir.path(), clustered, &["--cluster-enabled", "yes"]);
    let _plain = redis(dir.path(), plain, &[]);
    let _locked = redis(dir.path(), locked, &["--requirepass", "secret"]);
    let file = |name: &str| -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/redis_push/tls").join(name)
    };
    let (key, certificate, ca) = (file("server.key"), file("server.pem"), file("ca.pem"));
    let text = |path: &PathBuf| path.to_str().expect("UTF-8").to_owned();
    let port = tls.port().to_string();
    let options = ["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"];
    let files = ["--tls-key-file", &text(&key), "--tls-cert-file", &text(&certificate)];
    let more = ["--tls-ca-cert-file", &text(&ca)];
    let _tls = redis(dir.path(), tls, &[&options[..], &files[..], &more[..]].concat());
    let kafka = free_address().to_string();
    thread::scope(|scope| {
        for (url, more, parts) in [
            (format!("redis://{plain}?cluster"), None, ["is no Cluster", "?cluster"]),
            (format!("redis://{clustered}"), None, ["belongs to a Cluster", "add ?cluster"]),
            (format!("redis://{plain}/99"), None, ["no such database", "URL"]),
            (
                format!("redis://{plain}/1?cluster"),
                None,
                ["only database 0", "a URL names a database"],
            ),
            (format!("redis://:x@{plain}"), None, ["has no password", "URL"]),
            (format!("redis://{locked}"), None, ["check the user and the password", "--redis"]),
            (
                format!("redis://:guess@{locked}"),
                None,
                ["check the user and the password", "--redis"],
            ),
            (format!("rediss://{plain}"), Some("ca.pem"), ["does not speak TLS", "use redis://"]),
            (format!("redis://{tls}"), None, ["speaks TLS", "use rediss://"]),
            (format!("rediss://{tls}"), Some("other_ca.pem"), ["name the authority", "TLS"]),
        ] {
            let kafka = kafka.clone();
            scope.spawn(move || {
                let mut command = roost(["serve", "--listen", "127.0.0.1:0", "--kafka", &kafka]);
                // A password in a flag is warned about.
                command.env("ROOST_REDIS", &url);
                if let Some(name) = more {
                    command.arg("--redis-ca").arg(file(name));
                }
                let error = failure(&mut command);
                for part in parts {
                    assert!(error.contains(part), "{url}: {error}");
                }
                assert!(!error.contains("guess"), "{error}");
            });
        }
    });
}

/// librdkafka would ask for a host of this name for ever.
#[test]
fn kafka_given_as_url_ends_the_start() {
    let redis = format!("redis://{}", free_address());
    let words = ["serve", "--listen", "127.0.0.1:0", "--redis", &redis];
    for wrong in ["kafka://127.0.0.1:9092", "127.0.0.1:9092 127.0.0.1:9093", "localhost", ""] {
        for command in
            [roost(words).args(["--kafka", wrong]), roost(words).env("ROOST_KAFKA", wrong)]
        {
            let error = failure(command);
            assert!(error.contains("of the form host:port,host:port"), "{wrong:?}: {error}");
        }
    }
}

#[test]
fn secret_on_the_command_line_is_warned_about() {
    let words =
        ["serve", "--listen", "127.0.0.1:0", "--kafka", "localhost", "--redis", "redis://a"];
    let output = ended(roost(words).args(["--kafka-property", "sasl.password=hunter2"]));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(said.contains("--kafka-property-file sasl.password=FILE"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    let in_variable = ended(roost(words).env("ROOST_KAFKA_PROPERTY", "sasl.password=hunter2"));
    let said = String::from_utf8(in_variable.stderr).expect("UTF-8");
    assert!(!said.contains("command line"), "{said}");
}

#[test]
fn both_are_said_if_both_are_wrong() {
    let Some(address) = services::address("ROOST_TEST_KAFKA_PASSWORD", "kafka") else { return };
    let [brokers, user, _] = address.split(',').collect::<Vec<_>>().try_into().expect("three");
    let dir = TempDir::new().expect("a directory");
    let at = free_address();
    let evicting = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"];
    let _redis = redis(dir.path(), at, &evicting);
    let properties = format!(
        "security.protocol=sasl_plaintext\nsasl.mechanism=PLAIN\nsasl.username={user}\n\
         sasl.password=a,guess;of\n"
    );
    let mut command = roost(["serve", "--listen", "127.0.0.1:0", "--kafka", brokers]);
    command.args(["--redis", &format!("redis://{at}")]);
    let error = failure(command.env("ROOST_KAFKA_PROPERTY", properties));
    assert!(error.contains("Kafka refuses this process"), "{error}");
    assert!(error.contains("set maxmemory-policy to noeviction"), "{error}");
    assert!(!error.contains("guess"), "{error}");
}

#[test]
fn a_rebuild_does_not_wait_and_says_to_run_it_again() {
    let kafka = free_address().to_string();
    let away = format!("redis://{}", free_address());
    let output = ended(&mut roost(["rebuild", "--kafka", &kafka, "--redis", &away]));
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.contains("cannot be reached") && error.contains("run `roost rebuild` again"),
        "{error}"
    );
}
