//! What a start says of a Redis that cannot be used: a Sentinel, a replica, a user that may too
//! little.

use std::{
    net::TcpListener as StdListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use roost::store::{
    StoreError,
    redis::{check, config::RedisConfig},
};
use tokio::time::{sleep, timeout};

use super::services;
use crate::external;

const DEADLINE: Duration = Duration::from_secs(30);

/// A redis-server of the test's own.
struct Server {
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    async fn start(dir: &Path, arguments: &[&str]) -> Self {
        let port = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("redis-server")
            .args(arguments)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"])
            .arg("--dir")
            .arg(dir)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server");
        let server = Self { process, port };
        let answers = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, answers).await.expect("it answers");
        server
    }
}

async fn refused(urls: &str) -> StoreError {
    let config = RedisConfig::from_urls(urls, None).unwrap();
    check(&Arc::new(config)).await.expect_err(urls)
}

#[tokio::test]
async fn sentinel_is_refused_with_its_primary() {
    let Some(url) = services::standalone() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sentinel.conf");
    let primary = services::address(&url).replace(':', " ");
    std::fs::write(&file, format!("sentinel monitor mymaster {primary} 1\n")).unwrap();
    let sentinel = Server::start(dir.path(), &[file.to_str().unwrap(), "--sentinel"]).await;
    for (login, rest) in [("", ""), ("", "/3"), ("", "?cluster"), (":x@", ""), ("ann:x@", "/3")] {
        let urls = format!("redis://{login}127.0.0.1:{}{rest}", sentinel.port);
        let error = refused(&urls).await;
        let expected = format!("it watches mymaster at {}", services::address(&url));
        for part in ["it is a Sentinel", "name the primary", "--redis", &expected] {
            assert!(error.to_string().contains(part), "{urls}: {error}");
        }
        assert!(error.is_final(), "{urls}");
    }
}

#[tokio::test]
async fn replica_is_waited_for_and_its_primary_named() {
    let Some(url) = services::standalone() else { return };
    let dir = tempfile::tempdir().unwrap();
    let address = services::address(&url);
    let (host, port) = address.split_once(':').unwrap();
    let replica = Server::start(dir.path(), &["--save", "", "--replicaof", host, port]).await;
    let urls = format!("redis://127.0.0.1:{}", replica.port);
    let error = refused(&urls).await;
    for part in ["it is a replica", &address, "name the primary in --redis"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(!error.is_final(), "it may become a primary");
    let mut redis = services::look(&urls).await;
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec_async(&mut redis).await.unwrap();
    check(&services::config(&urls)).await.expect("it is a primary now");
}

#[tokio::test]
async fn denied_keys_and_commands_are_all_named() {
    for urls in [services::standalone(), services::cluster()].into_iter().flatten() {
        let of = |rules: &'static str| {
            let urls = urls.clone();
            async move {
                for info in services::config(&urls).connection_infos() {
                    let client = redis::Client::open(info.clone()).unwrap();
                    let mut node = client.get_multiplexed_async_connection().await.unwrap();
                    let mut command = redis::cmd("ACL");
                    command.arg("SETUSER").arg("roost-denied").arg("reset").arg("on").arg(">x");
                    command.arg(rules.split(' ').collect::<Vec<_>>());
                    command.exec_async(&mut node).await.unwrap();
                }
                let config = RedisConfig::from_urls(&urls, None).unwrap();
                let config = config.with_login(Some("roost-denied"), Some("x")).unwrap();
                check(&Arc::new(config)).await
            }
        };
        for (rules, parts) in [
            ("~roost* ~{roost* &* +@all", &["the keys ~h:* ~a:*", "~k:*"][..]),
            ("~* &* +@all -@dangerous", &["the commands", "+info", "+client|kill"]),
            ("~* +@all -xadd -client|id", &["client|id"]),
            ("~* +@all -xadd -hrandfield", &["the commands +hrandfield +xadd"]),
            ("%R~* %W~roost:* +@all", &["the keys ~h:*"]),
        ] {
            let error = of(rules).await.expect_err(rules);
            assert!(error.is_final(), "{error}");
            for part in parts.iter().chain(&["README.md"]) {
                assert!(error.to_string().contains(part), "{rules}: {error}");
            }
        }
        let config = external::as_restricted_user(&services::config(&urls)).await;
        check(&Arc::new(config)).await.expect("what is listed is enough");
        // Nothing of what it was asked about is done.
        let mut redis = services::look(urls.split(',').next().unwrap()).await;
        let left: Result<bool, _> =
            redis::cmd("EXISTS").arg("roost:acl").query_async(&mut redis).await;
        assert!(!left.unwrap_or(false));
    }
}
