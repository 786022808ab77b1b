//! A TCP proxy before Kafka that can be cut, and that can silence those who read.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{JoinHandle, JoinSet},
};

/// Where a request says what it is, and what it says there if it is a Fetch: after its
/// length, <https://kafka.apache.org/protocol#protocol_messages>.
const API_KEY: std::ops::Range<usize> = 4..6;
const FETCH: [u8; 2] = [0, 1];

/// Passes connections on from one address to another, until it is cut.
pub struct Proxy {
    from: SocketAddr,
    to: SocketAddr,
    running: Option<JoinHandle<()>>,
    /// How often readers were silenced.
    silenced: Arc<AtomicU64>,
}

impl Proxy {
    pub async fn start(from: SocketAddr, to: SocketAddr) -> Self {
        let mut proxy = Self { from, to, running: None, silenced: Arc::default() };
        proxy.mend().await;
        proxy
    }

    /// Breaks all connections, and refuses new ones.
    pub async fn cut(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            // Its end is what was asked for.
            let _ = running.await;
        }
    }

    /// From now on the connections that there are and that have read bring nothing more,
    /// and stay open.
    pub fn silence_readers(&self) {
        self.silenced.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes connections again.
    pub async fn mend(&mut self) {
        let listener = TcpListener::bind(self.from).await.unwrap();
        let (to, silenced) = (self.to, Arc::clone(&self.silenced));
        self.running = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass_on(client, to, Arc::clone(&silenced)));
            }
        }));
    }
}

async fn pass_on(client: TcpStream, to: SocketAddr, silenced: Arc<AtomicU64>) -> io::Result<()> {
    let server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (mut from_server, to_server)) =
        (client.into_split(), server.into_split());
    let has_read = AtomicBool::new(false);
    let there_at = silenced.load(Ordering::Relaxed);
    let is_silent =
        || has_read.load(Ordering::Relaxed) && silenced.load(Ordering::Relaxed) > there_at;
    tokio::select! {
        passed = pass_requests(from_client, to_server, &has_read) => passed,
        passed = pass_answers(&mut from_server, to_client, is_silent) => passed,
    }
}

/// Requests are sent one at a time, in one piece, by whoever does not send much.
async fn pass_requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    has_read: &AtomicBool,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut bytes).await?;
        if length == 0 {
            return Ok(());
        }
        if bytes[..length].get(API_KEY) == Some(&FETCH) {
            has_read.store(true, Ordering::Relaxed);
        }
        to.write_all(&bytes[..length]).await?;
    }
}

async fn pass_answers(
    from: &mut OwnedReadHalf,
    mut to: OwnedWriteHalf,
    is_silent: impl Fn() -> bool,
) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut bytes).await?;
        if length == 0 {
            return Ok(());
        }
        if is_silent() {
            copy(from, &mut tokio::io::sink()).await?;
            return std::future::pending().await;
        }
        to.write_all(&bytes[..length]).await?;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}
