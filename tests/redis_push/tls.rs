//! Pushes over TLS, to a server that is the standalone one behind a TLS proxy.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use roost::{
    domain::{PostId, UserId},
    fanout::combine,
    store::{
        Homes, Lookups,
        redis::{RedisStore, Settings, check, config::RedisConfig, error::NodeError, push::Pusher},
    },
};
use tokio::{
    io::{AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use super::services::{self, Readers};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/redis_push/tls").join(name)
}

/// Takes TLS connections and passes on what is in them, unless it is broken.
#[derive(Clone, Default)]
struct Breaker {
    is_broken: Arc<AtomicBool>,
    cut: Arc<Notify>,
}

impl Breaker {
    /// Closes all connections; those to come speak no TLS, or do again.
    fn set(&self, is_broken: bool) {
        self.is_broken.store(is_broken, Ordering::SeqCst);
        self.cut.notify_waiters();
    }
}

async fn tls_before(server: String) -> SocketAddr {
    breakable_tls_before(server, Breaker::default()).await
}

async fn breakable_tls_before(server: String, breaker: Breaker) -> SocketAddr {
    let certificate = CertificateDer::from_pem_file(file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (acceptor, server, breaker) = (acceptor.clone(), server.clone(), breaker.clone());
            tokio::spawn(async move {
                let cut = breaker.cut.notified();
                if breaker.is_broken.load(Ordering::SeqCst) {
                    let _ = client.write_all(b"-ERR no TLS here\r\n").await;
                    return;
                }
                let pass = async {
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let mut server = TcpStream::connect(server).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                };
                tokio::select! {
                    () = cut => {}
                    () = pass => {}
                }
            });
        }
    });
    address
}

fn pusher(url: &str, ca: &str) -> Pusher {
    let config = RedisConfig::from_urls(url, Some(&file(ca))).unwrap();
    Pusher::new(Arc::new(config), services::settings())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_pass_through_tls() {
    let Some(url) = services::standalone() else { return };
    let mut redis = services::look(&url).await;
    let server = tls_before(services::address(&url)).await;
    let readers = Readers::new(20_000);
    readers.wake(&mut redis).await;
    for host in ["127.0.0.1", "localhost"] {
        let pusher = pusher(&format!("rediss://{host}:{}", server.port()), "ca.pem");
        for post in 1..4 {
            let report = pusher.push(&readers.one_each(post)).await.unwrap();
            assert!(report.unknown.is_empty());
            assert_eq!(report.outcome.pushes + report.outcome.skipped, 20_000);
        }
    }
    let lists = readers.lists(&mut redis).await;
    assert!(lists.values().all(|list| *list == [1, 2, 3, 1, 2, 3]));
    readers.clear(&mut redis).await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_is_said() {
    let Some(url) = services::standalone() else { return };
    let server = tls_before(services::address(&url)).await;
    let error = pusher(&format!("rediss://{server}"), "other_ca.pem").check().await.unwrap_err();
    assert!(matches!(error, NodeError::Tls { .. }), "{error}");
    assert!(error.to_string().contains("name the authority"), "{error}");

    // At the start it ends the process.
    let untrusted =
        RedisConfig::from_urls(&format!("rediss://{server}"), Some(&file("other_ca.pem")));
    let error = check(&Arc::new(untrusted.unwrap())).await.unwrap_err();
    assert!(error.is_final() && error.to_string().contains("name the authority"), "{error}");

    // Redis waits for the end of a line that never comes, or closes.
    let plain = format!("rediss://{}", services::address(&url));
    let error = pusher(&plain, "ca.pem").check().await.unwrap_err();
    assert!(matches!(error, NodeError::Tls { .. } | NodeError::Unreachable { .. }), "{error}");
}

/// A worker goes on by itself once the node speaks as it should.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_that_breaks_while_running_is_retried() {
    let Some(url) = services::standalone() else { return };
    let breaker = Breaker::default();
    let server = breakable_tls_before(services::address(&url), breaker.clone()).await;
    let config = RedisConfig::from_urls(&format!("rediss://{server}"), Some(&file("ca.pem")));
    let log = format!("tls-{:016x}", rand::random::<u64>());
    let mut redis = services::look(&url).await;
    redis::cmd("DEL").arg("roost:store").exec_async(&mut redis).await.unwrap();
    let store = RedisStore::open(Settings::new(Arc::new(config.unwrap()), log, 1)).await.unwrap();
    let pushes = combine(vec![(UserId(1 << 40), PostId(1))]);
    store.marks().await.unwrap();
    store.push(&pushes).await.unwrap();

    breaker.set(true);
    let error = store.push(&pushes).await.unwrap_err();
    assert!(!error.is_final() && error.to_string().contains("TLS"), "{error}");
    let error = store.marks().await.unwrap_err();
    assert!(!error.is_final(), "{error}");

    breaker.set(false);
    let again = async {
        while store.push(&pushes).await.is_err() || store.marks().await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), again).await.expect("it goes on");
    redis::cmd("DEL").arg("roost:store").exec_async(&mut redis).await.unwrap();
}
