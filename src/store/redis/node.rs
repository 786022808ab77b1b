//! One connection to one node.
//!
//! ```text
//!  connect: TCP, TLS, AUTH, CLIENT SETNAME, CLIENT ID, SELECT, SCRIPT LOAD
//!  call:    one command ──► one whole reply          control
//!  run:     many commands ──► a reply each           pushes, in `pipeline`
//! ```

mod pipeline;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};

pub use self::pipeline::{Interrupted, Part};
use super::{
    config::RedisConfig,
    error::NodeError,
    resp::{self, BadReply, Value},
    slots::NodeAddress,
};

/// How long connecting may take, all of it, unless something else is set.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a node may give no sign of life while it is waited for, unless something else
/// is set. A script over a long list takes milliseconds; a node that is busy with those of
/// others, longer.
pub(super) const PROGRESS_TIMEOUT: Duration = Duration::from_secs(5);
/// The room for replies of a connection; it grows for a reply that needs more.
const READ_BYTES: usize = 16 << 10;
/// The longest reply with all its elements that is waited for.
const READ_BYTES_MAX: usize = 65 << 20;

/// The name by which a worker's connections are known to Redis, so that whoever
/// takes over can close them: `roost:<worker>:<epoch>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionName(Arc<str>);

impl ConnectionName {
    /// The name of a worker's connections in an epoch. Redis takes only
    /// printable ASCII without spaces; anything else becomes `_`.
    pub fn new(worker: &str, epoch: u64) -> Self {
        let worker = worker.replace(|char: char| !char.is_ascii_graphic(), "_");
        Self(format!("roost:{worker}:{epoch}").into())
    }

    /// As `CLIENT LIST` shows it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How connections are made.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Where to, and how to get in.
    pub config: Arc<RedisConfig>,
    /// What they are called.
    pub name: ConnectionName,
    /// How long connecting may take, all of it.
    pub connect_timeout: Duration,
    /// How long a node may give no sign of life while it is waited for.
    pub progress_timeout: Duration,
    /// Scripts that the node is to know.
    pub scripts: Arc<[&'static str]>,
}

/// A connection on which nothing is under way.
#[derive(Debug)]
pub struct NodeConnection {
    node: NodeAddress,
    name: ConnectionName,
    id: i64,
    stream: Stream,
    incoming: Incoming,
    /// Commands packed and not all written yet.
    outgoing: Vec<u8>,
    progress_timeout: Duration,
    timer: Pin<Box<Sleep>>,
}

impl NodeConnection {
    /// Connects, says who it is and how it is called.
    ///
    /// # Errors
    /// Why it cannot: the node is away, refuses or is not to be trusted.
    pub async fn connect(node: &NodeAddress, dial: &Dial) -> Result<Self, NodeError> {
        let unreachable = |reason: String| NodeError::Unreachable { node: node.clone(), reason };
        let connect = async {
            let tcp = TcpStream::connect((&*node.host, node.port))
                .await
                .map_err(|error| unreachable(error.to_string()))?;
            tcp.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
            let stream = Stream::over(tcp, node, &dial.config).await?;
            let mut connection = Self {
                node: node.clone(),
                name: dial.name.clone(),
                id: 0,
                stream,
                incoming: Incoming::default(),
                outgoing: Vec::new(),
                progress_timeout: dial.progress_timeout,
                timer: Box::pin(sleep(dial.progress_timeout)),
            };
            connection.introduce(dial).await?;
            Ok(connection)
        };
        timeout(dial.connect_timeout, connect).await.unwrap_or_else(|_| {
            let over_tls = if dial.config.tls.is_some() { ", if it speaks TLS at all" } else { "" };
            let waited_ms = dial.connect_timeout.as_millis();
            Err(unreachable(format!("no answer within {waited_ms} ms{over_tls}")))
        })
    }

    async fn introduce(&mut self, dial: &Dial) -> Result<(), NodeError> {
        let config = &dial.config;
        if let Some(password) = config.password() {
            match config.username() {
                Some(user) => {
                    self.demand(&[b"AUTH", user.as_bytes(), password.as_bytes()]).await?;
                }
                None => self.demand(&[b"AUTH", password.as_bytes()]).await?,
            }
        }
        self.demand(&[b"CLIENT", b"SETNAME", dial.name.as_str().as_bytes()]).await?;
        if let Value::Integer(id) = self.call(&[b"CLIENT", b"ID"]).await? {
            self.id = id;
        }
        match config.database() {
            0 => {}
            database => self.demand(&[b"SELECT", database.to_string().as_bytes()]).await?,
        }
        for script in dial.scripts.iter() {
            self.demand(&[b"SCRIPT", b"LOAD", script.as_bytes()]).await?;
        }
        Ok(())
    }

    /// How Redis knows it.
    pub fn name(&self) -> &ConnectionName {
        &self.name
    }

    /// The number by which Redis knows it, until it is started again.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Has the node close the connection that it knows by this number, if there is one.
    ///
    /// # Errors
    /// If nobody knows whether it has.
    pub async fn close_other(&mut self, id: i64) -> Result<(), NodeError> {
        // Answered by how many it has closed, which is no error if there is none.
        self.demand(&[b"CLIENT", b"KILL", b"ID", id.to_string().as_bytes()]).await
    }

    /// Whether it can be used: it is open, and nothing unasked has come.
    pub fn is_idle(&mut self) -> bool {
        if !self.incoming.unread().is_empty() {
            return false;
        }
        let mut context = Context::from_waker(Waker::noop());
        let mut byte = [0];
        let read = Pin::new(&mut self.stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte));
        read.is_pending()
    }

    /// Carries out a command that answers no error.
    async fn demand(&mut self, command: &[&[u8]]) -> Result<(), NodeError> {
        self.call(command).await.map(|_| ())
    }

    /// Carries out one command. After an error other than [`NodeError::Refused`],
    /// and when given up half-way, the connection is of no more use.
    ///
    /// # Errors
    /// Why it was not carried out, or is not known to have been.
    pub async fn call(&mut self, command: &[&[u8]]) -> Result<Value, NodeError> {
        let mut packed = Vec::new();
        resp::pack_command(&mut packed, command);
        let answer = async {
            self.stream.write_all(&packed).await.map_err(|error| broken(&self.node, &error))?;
            self.stream.flush().await.map_err(|error| broken(&self.node, &error))?;
            loop {
                let unread = self.incoming.unread();
                let value = resp::read_value(unread).map_err(|e| misread(&self.node, e))?;
                if let Some((value, len)) = value {
                    self.incoming.consume(len);
                    return Ok(value);
                }
                let space = self.incoming.space().map_err(|e| misread(&self.node, e))?;
                match self.stream.read(space).await {
                    Ok(0) => return Err(closed(&self.node)),
                    Ok(len) => self.incoming.filled(len),
                    Err(error) => return Err(broken(&self.node, &error)),
                }
            }
        };
        match timeout(self.progress_timeout, answer).await {
            Ok(Ok(Value::Error(error))) => Err(NodeError::refused(&self.node, &error)),
            Ok(result) => result,
            Err(_) => Err(timed_out(&self.node, self.progress_timeout)),
        }
    }
}

fn broken(node: &NodeAddress, error: &io::Error) -> NodeError {
    NodeError::Broken { node: node.clone(), reason: error.to_string() }
}

fn closed(node: &NodeAddress) -> NodeError {
    NodeError::Broken { node: node.clone(), reason: "it was closed".to_owned() }
}

fn misread(node: &NodeAddress, reason: BadReply) -> NodeError {
    NodeError::Protocol { node: node.clone(), reason }
}

fn timed_out(node: &NodeAddress, waited: Duration) -> NodeError {
    NodeError::TimedOut { node: node.clone(), waited_ms: waited.as_millis() as u64 }
}

/// Bytes that have come and are not yet understood.
#[derive(Debug, Default)]
struct Incoming {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Incoming {
    fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn consume(&mut self, len: usize) {
        self.start += len;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Room for more, never empty.
    fn space(&mut self) -> Result<&mut [u8], BadReply> {
        if self.end == self.bytes.len() {
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else if self.bytes.len() >= READ_BYTES_MAX {
                return Err(BadReply::TooLong);
            } else {
                self.bytes.resize((self.bytes.len() * 2).max(READ_BYTES), 0);
            }
        }
        Ok(&mut self.bytes[self.end..])
    }

    fn filled(&mut self, len: usize) {
        self.end += len;
    }
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    async fn over(
        tcp: TcpStream,
        node: &NodeAddress,
        config: &RedisConfig,
    ) -> Result<Self, NodeError> {
        let Some(tls) = &config.tls else { return Ok(Self::Plain(tcp)) };
        let name = ServerName::try_from(node.host.to_string())
            .map_err(|error| NodeError::Tls { node: node.clone(), reason: error.to_string() })?;
        let tls = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await;
        let tls = tls.map_err(|error| {
            let (node, reason) = (node.clone(), error.to_string());
            match error.kind() {
                // What rustls itself objects to. The rest is the network's, and passes.
                io::ErrorKind::InvalidData => NodeError::Tls { node, reason },
                _ => NodeError::Unreachable { node, reason },
            }
        })?;
        Ok(Self::Tls(Box::new(tls)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Self::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}
