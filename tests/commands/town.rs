//! Where feeds are tested: a directory, a web server, and what Roost shows of them.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use roost::proto::v1::{
    GetStatusRequest, ListAuthorTimelineRequest, Post, status_service_client::StatusServiceClient,
    timeline_service_client::TimelineServiceClient,
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    feeds::Feeds,
    program::{DEADLINE, ended},
};

/// A directory for everything, and a server for feeds.
pub struct Town {
    dir: TempDir,
    pub feeds: Feeds,
}

/// What a run has printed.
pub struct Polled {
    pub said: String,
    pub log: String,
}

impl Town {
    pub fn new() -> Self {
        Self { dir: TempDir::new().expect("a directory"), feeds: Feeds::start() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// The list of feeds from then on.
    pub fn list(&self, feeds: &[(u64, &str)]) {
        let line = |(author, path): &(u64, &str)| format!("{author} {}\n", self.feeds.url(path));
        fs::write(self.path("feeds"), feeds.iter().map(line).collect::<String>()).expect("a list");
    }

    pub fn command(&self, roost: SocketAddr, more: &[&str]) -> Command {
        let mut command = crate::program::roost(["rss", "--target", &format!("http://{roost}")]);
        if !more.contains(&"--state") {
            command.arg("--state").arg(self.path("state"));
        }
        command.args(more).arg(self.path("feeds"));
        // The server for feeds is on loopback.
        command.env("ROOST_RSS_ALLOW_HOST", "127.0.0.1,localhost");
        command
    }

    /// A command that goes on, and polls every second.
    pub fn follow(&self, roost: SocketAddr) -> Command {
        let mut command = self.command(roost, &["--interval", "1"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    pub fn once(&self, roost: SocketAddr, more: &[&str]) -> Polled {
        let output = ended(&mut self.command(roost, &[&["--once"], more].concat()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        polled(output)
    }

    pub fn once_failing(&self, roost: SocketAddr, more: &[&str]) -> Polled {
        let output = ended(&mut self.command(roost, &[&["--once"], more].concat()));
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        polled(output)
    }

    /// What is remembered of the feeds.
    pub fn state(&self) -> Vec<(PathBuf, Vec<u8>)> {
        crate::program::files(&self.path("state")).into_iter().collect()
    }

    pub fn restore(&self, state: &[(PathBuf, Vec<u8>)]) {
        for (path, content) in state {
            fs::write(path, content).expect("written");
        }
    }
}

pub fn polled(output: Output) -> Polled {
    let [said, log] = [output.stdout, output.stderr].map(String::from_utf8);
    Polled { said: said.expect("UTF-8"), log: log.expect("UTF-8") }
}

/// What an account has posted, oldest first; nothing while Roost is away.
pub fn posts(roost: SocketAddr, author: u64) -> Vec<Post> {
    let runtime = Runtime::new().expect("a runtime");
    let page = runtime.block_on(async {
        let channel = Endpoint::from_shared(format!("http://{roost}")).expect("an address");
        let channel = channel.connect().await.ok()?;
        wait_applied(channel.clone()).await?;
        let request = ListAuthorTimelineRequest {
            author_id: author,
            page_size: 800,
            ..ListAuthorTimelineRequest::default()
        };
        TimelineServiceClient::new(channel).list_author_timeline(request).await.ok()
    });
    page.map(|page| page.into_inner().posts.into_iter().rev().collect()).unwrap_or_default()
}

/// Waits until all that is acknowledged by now holds in reads.
async fn wait_applied(channel: Channel) -> Option<()> {
    let mut status = StatusServiceClient::new(channel);
    let mut get = async || Some(status.get_status(GetStatusRequest {}).await.ok()?.into_inner());
    let ends: Vec<u64> = get().await?.partitions.iter().map(|part| part.end_offset).collect();
    let begun = Instant::now();
    while get().await?.partitions.iter().zip(&ends).any(|(part, end)| part.applied_offset < *end) {
        assert!(begun.elapsed() < DEADLINE, "it is never applied");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Some(())
}

pub fn texts(roost: SocketAddr, author: u64) -> Vec<String> {
    posts(roost, author).into_iter().map(|post| post.text).collect()
}

/// What stands before the links.
pub fn titles(roost: SocketAddr, author: u64) -> Vec<String> {
    let title = |text: String| text.split(' ').next().expect("a part").to_owned();
    texts(roost, author).into_iter().map(title).collect()
}

pub fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < DEADLINE, "it is never {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub fn tls_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/redis_push/tls").join(name)
}

/// Takes TLS connections and passes on what is in them.
pub async fn tls_before(server: SocketAddr) -> SocketAddr {
    let certificate = CertificateDer::from_pem_file(tls_file("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(tls_file("server.key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(vec![certificate], key));
    let acceptor = TlsAcceptor::from(Arc::new(config.expect("TLS")));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(server).await.expect("the feeds");
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}
