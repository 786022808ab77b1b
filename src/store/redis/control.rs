//! What is read, and what anybody may write: commands and scripts through the redis
//! crate, one code path for one server and for a Cluster. What only the worker of a
//! partition may write goes another way (`router`).
//!
//! ```text
//!  commands ──► one server: pipelines     ┐
//!          └──► Cluster: each on its own, ├──► replies, in the same places
//!               many at once              ┘
//! ```
//!
//! A command may be sent again when a connection breaks or a slot moves, so what
//! is sent from here changes nothing the second time.

use std::{
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use redis::{
    Client, Cmd, ConnectionAddr, ErrorKind, Pipeline, RedisError, ServerErrorKind, TlsCertificates,
    Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
};

use super::{
    acl,
    config::RedisConfig,
    node::{CONNECT_TIMEOUT, PROGRESS_TIMEOUT},
    resp,
};
use crate::{store::StoreError, telemetry::RedisMetrics};

/// How long the system goes on sending to a server that is not heard of: one that has
/// vanished without a word.
const UNHEARD_TIMEOUT: Duration = Duration::from_secs(10);
/// Commands of one pipeline.
const PIPELINE_MAX: usize = 1_000;
/// Commands under way at once in a Cluster, of one call.
const CLUSTER_COMMANDS_MAX: usize = 256;

/// A Lua script, run by its hash and sent whole where a server does not know it.
pub(super) struct Script {
    text: &'static str,
    hash: LazyLock<String>,
}

impl Script {
    /// Its text.
    pub(super) fn text(&self) -> &'static str {
        self.text
    }

    pub(super) const fn new(text: &'static str, hash: fn() -> String) -> Self {
        Self { text, hash: LazyLock::new(hash) }
    }

    /// A call with this key and these arguments. There is one key and no more: with
    /// several, some of which do not exist, it would be refused while their slot moves.
    pub(super) fn call(&'static self, key: &[u8], arguments: &[&[u8]]) -> Call {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.hash.as_str()).arg(1).arg(key).arg(arguments);
        Call { command, script: Some(self), first: None }
    }
}

/// One command.
pub(super) struct Call {
    command: Cmd,
    /// The script that it runs, if it runs one.
    script: Option<&'static Script>,
    /// What is sent in its place the first time.
    first: Option<Box<Call>>,
}

impl Call {
    /// A plain command.
    pub(super) fn of(name: &str, arguments: &[&[u8]]) -> Self {
        let mut command = redis::cmd(name);
        command.arg(arguments);
        Self { command, script: None, first: None }
    }

    /// Sends another command of the same key in its place, as long as it is certain that
    /// none was carried out.
    pub(super) fn at_first(mut self, first: Self) -> Self {
        self.first = Some(Box::new(first));
        self
    }

    /// What is sent the first time.
    pub(super) fn first(&self) -> &Self {
        self.first.as_deref().unwrap_or(self)
    }

    /// The key by which it finds its node.
    pub(super) fn key(&self) -> &[u8] {
        let place = if self.script.is_some() { 3 } else { 1 };
        match self.command.args_iter().nth(place) {
            Some(redis::Arg::Simple(key)) => key,
            _ => &[],
        }
    }

    /// Appends it to what is sent, a script by its hash.
    pub(super) fn pack(&self, out: &mut Vec<u8>) {
        let arguments = self.command.args_iter().filter_map(|argument| match argument {
            redis::Arg::Simple(bytes) => Some(bytes),
            _ => None,
        });
        resp::pack_command(out, &arguments.collect::<Vec<_>>());
    }

    /// The same with the script's text, for a server that does not know it.
    fn whole(&self) -> Option<Cmd> {
        let mut command = redis::cmd("EVAL");
        command.arg(self.script?.text);
        for argument in self.command.args_iter().skip(2) {
            if let redis::Arg::Simple(bytes) = argument {
                command.arg(bytes);
            }
        }
        Some(command)
    }
}

/// The connection. Clones share it.
#[derive(Clone)]
pub(super) struct Control {
    connection: Connection,
    metrics: Arc<RedisMetrics>,
}

#[derive(Clone)]
enum Connection {
    One(ConnectionManager),
    Cluster(Box<ToCluster>),
}

/// A connection to a Cluster, which is made anew when a command of it has come to
/// nothing: while nodes fail and come back at the same address, it may go on waiting
/// for one of them for ever.
#[derive(Clone)]
pub(super) struct ToCluster {
    client: ClusterClient,
    connection: Arc<Mutex<ClusterConnection>>,
    /// Whether another one is being made.
    renewing: Arc<AtomicBool>,
}

impl ToCluster {
    async fn connect(client: ClusterClient) -> Result<Self, RedisError> {
        let connection = client.get_async_connection().await?;
        let connection = Arc::new(Mutex::new(connection));
        Ok(Self { client, connection, renewing: Arc::default() })
    }

    fn connection(&self) -> ClusterConnection {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes another connection beside the calls, unless that is under way.
    fn renew(&self) {
        if self.renewing.swap(true, Ordering::Relaxed) {
            return;
        }
        let this = self.clone();
        tokio::spawn(async move {
            match this.client.get_async_connection().await {
                Ok(other) => {
                    tracing::info!("another connection to the Redis Cluster is used from now on");
                    *this.connection.lock().unwrap_or_else(PoisonError::into_inner) = other;
                }
                // The next call that comes to nothing tries again.
                Err(error) => tracing::debug!(%error, "no other connection could be made"),
            }
            this.renewing.store(false, Ordering::Relaxed);
        });
    }
}

impl Control {
    pub(super) async fn connect(
        config: &RedisConfig,
        metrics: &Arc<RedisMetrics>,
    ) -> Result<Self, StoreError> {
        let connection = Connection::open(config).await?;
        Ok(Self { connection, metrics: Arc::clone(metrics) })
    }

    /// Runs commands; their replies are in the same places.
    ///
    /// # Errors
    /// The first that failed; the others may have been carried out.
    pub(super) async fn run(&self, calls: Vec<Call>) -> Result<Vec<Value>, StoreError> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let begun = Instant::now();
        let replies = self.connection.run(calls).await;
        match &replies {
            Ok(_) => self.metrics.call_seconds.observe_since(begun),
            Err(_) => drop(self.metrics.call_failures.inc()),
        }
        replies
    }

    /// Runs one command.
    pub(super) async fn one(&self, call: Call) -> Result<Value, StoreError> {
        Ok(self.run(vec![call]).await?.pop().unwrap_or(Value::Nil))
    }
}

impl Connection {
    async fn open(config: &RedisConfig) -> Result<Self, StoreError> {
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(UNHEARD_TIMEOUT);
        let certificates = config
            .ca_pem()
            .map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) });
        let infos =
            config.connection_infos().iter().map(|info| info.clone().set_tcp_settings(tcp.clone()));
        if config.is_cluster() {
            let mut client = ClusterClientBuilder::new(infos)
                .connection_timeout(CONNECT_TIMEOUT)
                .response_timeout(PROGRESS_TIMEOUT)
                .tcp_settings(tcp);
            if let Some(certificates) = certificates {
                client = client.certs(certificates);
            }
            let client = client.build().map_err(|error| failed(&error))?;
            let cluster = ToCluster::connect(client).await.map_err(|error| failed(&error))?;
            return Ok(Self::Cluster(Box::new(cluster)));
        }
        let Some(info) = infos.into_iter().next() else {
            return Err(StoreError::Redis {
                reason: "no address of Redis is set; give --redis URL".to_owned(),
                is_final: true,
            });
        };
        let client = match (certificates, info.addr()) {
            (Some(certificates), ConnectionAddr::TcpTls { .. }) => {
                Client::build_with_tls(info, certificates)
            }
            _ => Client::open(info),
        };
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(PROGRESS_TIMEOUT))
            .set_number_of_retries(2)
            .set_max_delay(Duration::from_millis(500));
        let client = client.map_err(|error| failed(&error))?;
        let connection = client.get_connection_manager_with_config(settings);
        Ok(Self::One(connection.await.map_err(|error| failed(&error))?))
    }

    async fn run(&self, calls: Vec<Call>) -> Result<Vec<Value>, StoreError> {
        let mut replies = Vec::with_capacity(calls.len());
        match self {
            Self::One(connection) => {
                for calls in calls.chunks(PIPELINE_MAX) {
                    replies.extend(run_pipeline(connection.clone(), calls).await?);
                }
            }
            Self::Cluster(cluster) => {
                let calls = stream::iter(calls).map(|call| run_one(cluster, call));
                let mut calls = calls.buffered(CLUSTER_COMMANDS_MAX);
                while let Some(reply) = calls.try_next().await? {
                    replies.push(reply);
                }
            }
        }
        Ok(replies)
    }
}

async fn run_pipeline(
    mut connection: ConnectionManager,
    calls: &[Call],
) -> Result<Vec<Value>, StoreError> {
    let mut pipeline = Pipeline::with_capacity(calls.len());
    for call in calls {
        pipeline.add_command(call.command.clone());
    }
    let replies = connection.req_packed_commands(&pipeline, 0, calls.len()).await;
    let mut replies = replies.map_err(|error| failed(&error))?;
    for (reply, call) in replies.iter_mut().zip(calls) {
        let Value::ServerError(error) = reply else { continue };
        *reply = match call.whole() {
            Some(whole) if error.kind() == Some(ServerErrorKind::NoScript) => {
                checked(connection.req_packed_command(&whole).await)
            }
            _ => Err(RedisError::from(error.clone())),
        }
        .map_err(|error| failed(&error))?;
    }
    Ok(replies)
}

async fn run_one(cluster: &ToCluster, call: Call) -> Result<Value, StoreError> {
    let mut connection = cluster.connection();
    let mut reply = checked(connection.req_packed_command(&call.command).await);
    if let (Err(error), Some(whole)) = (&reply, call.whole())
        && error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
    {
        reply = checked(connection.req_packed_command(&whole).await);
    }
    if reply.as_ref().is_err_and(|error| error.is_timeout() || error.is_io_error()) {
        cluster.renew();
    }
    reply.map_err(|error| failed(&error))
}

/// A refusal may come as a reply.
fn checked(reply: Result<Value, RedisError>) -> Result<Value, RedisError> {
    match reply {
        Ok(Value::ServerError(error)) => Err(error.into()),
        reply => reply,
    }
}

/// What went wrong, in one line that says what to do.
fn failed(error: &RedisError) -> StoreError {
    let is_denied =
        error.code() == Some("NOPERM") || error.to_string().contains(acl::DENIED_IN_SCRIPT);
    let is_final =
        matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig)
            || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "WRONGTYPE"))
            || is_denied;
    let advice = match error.code() {
        Some("OOM") => "raise its maxmemory",
        Some("EMPTYING") => {
            "this goes on once that is done; should it have broken off, run it again"
        }
        Some("NOAUTH" | "WRONGPASS") => "set its user and password in --redis",
        _ if is_denied => acl::ALLOW,
        Some("READONLY") => "it is a replica: name the primary in --redis, or make it one",
        _ if is_final => "change the settings of Redis or --redis",
        _ => "is it running and reachable?",
    };
    StoreError::Redis { reason: format!("Redis failed: {error}; {advice}"), is_final }
}

/// A reply as bytes; `None` where there is nothing.
pub(super) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// A reply of many elements.
pub(super) fn elements(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) | Value::Set(values) => values,
        Value::Map(pairs) => pairs.into_iter().flat_map(|(key, value)| [key, value]).collect(),
        _ => Vec::new(),
    }
}
