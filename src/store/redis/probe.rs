//! Whether a Redis may be used at all, asked before anything else is: each node lets us
//! in, speaks what its URL says, and keeps what it is given.
//!
//! What a server does that is spoken to in the wrong way differs from one to the next,
//! so a node that gives no sense is tried in the other way, to say which is right.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{self, pki_types::ServerName},
};

use super::{
    acl,
    config::RedisConfig,
    error::NodeError,
    info,
    node::{CONNECT_TIMEOUT, ConnectionName, Dial, NodeConnection, PROGRESS_TIMEOUT},
    resp::Value,
    slots::NodeAddress,
    tls,
    topology::Topology,
};
use crate::store::StoreError;

/// How long a node may take to show that it speaks in the other way.
const OTHER_WAY_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks every node of a Redis.
///
/// # Errors
/// In one line, what is wrong and what to do. It is final where waiting cannot mend it, as
/// with a certificate that is not trusted; a replica may yet become a primary.
pub async fn check(config: &Arc<RedisConfig>) -> Result<(), StoreError> {
    let dial = Dial {
        config: Arc::clone(config),
        name: ConnectionName::new("start", 0),
        connect_timeout: CONNECT_TIMEOUT,
        progress_timeout: PROGRESS_TIMEOUT,
        scripts: Arc::new([]),
    };
    let topology = Topology::new(config);
    let nodes = match topology.snapshot(&dial).await {
        Ok(snapshot) => snapshot.map.nodes().to_vec(),
        Err(error) => return Err(explained(error, config.seeds.first(), &dial).await),
    };
    for node in &nodes {
        let problem = match problem_of(node, &dial).await {
            Ok(problem) => problem,
            Err(error) => return Err(explained(error, Some(node), &dial).await),
        };
        if let Some(problem) = problem {
            return Err(problem.of(node));
        }
    }
    Ok(())
}

/// Why a node cannot be used.
struct Problem {
    words: String,
    is_final: bool,
}

impl Problem {
    fn lasting(words: String) -> Self {
        Self { words, is_final: true }
    }

    fn of(self, node: &NodeAddress) -> StoreError {
        StoreError::Redis { reason: format!("{node}: {}", self.words), is_final: self.is_final }
    }
}

async fn problem_of(node: &NodeAddress, dial: &Dial) -> Result<Option<Problem>, NodeError> {
    let mut connection = NodeConnection::connect(node, dial).await?;
    // First: the rest needs to be allowed too.
    if let Some(denied) = acl::missing(&mut connection).await? {
        return Ok(Some(Problem::lasting(denied)));
    }
    let info = info_of(&mut connection).await?;
    if is_sentinel(&info) {
        return Ok(Some(Problem::lasting(sentinel(&mut connection).await)));
    }
    let replica = replica(&dial.config, &info).map(|words| Problem { words, is_final: false });
    let lasting = || eviction(&info).or_else(|| cluster_mode(&dial.config, &info));
    Ok(replica.or_else(|| lasting().map(Problem::lasting)))
}

/// What a node says of itself, its memory, its role and its Cluster.
async fn info_of(connection: &mut NodeConnection) -> Result<String, NodeError> {
    let mut info = String::new();
    for section in ["server", "memory", "replication", "cluster"] {
        if let Value::Text(text) = connection.call(&[b"INFO", section.as_bytes()]).await? {
            info.push_str(&String::from_utf8_lossy(&text));
        }
    }
    Ok(info)
}

fn is_sentinel(info: &str) -> bool {
    info::field(info, "redis_mode") == Some("sentinel")
}

/// Why a Sentinel cannot be used, with the primaries that it watches.
async fn sentinel(connection: &mut NodeConnection) -> String {
    let watched = match connection.call(&[b"SENTINEL", b"MASTERS"]).await {
        Ok(reply) => primaries(&reply).join(", "),
        Err(_) => String::new(),
    };
    let watched = match watched.is_empty() {
        true => "SENTINEL MASTERS tells where that is".to_owned(),
        false => format!("it watches {watched}"),
    };
    format!(
        "it is a Sentinel, which keeps no data: name the primary that it watches in --redis; \
         {watched}"
    )
}

/// `NAME at HOST:PORT` of each primary in an answer to `SENTINEL MASTERS`.
fn primaries(reply: &Value) -> Vec<String> {
    let Value::Array(primaries) = reply else { return Vec::new() };
    let primary = |primary: &Value| {
        let Value::Array(words) = primary else { return None };
        let value = |name: &str| {
            let pair = words.chunks_exact(2).find(|pair| pair[0] == Value::Text(name.into()))?;
            let Value::Text(value) = &pair[1] else { return None };
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let address = NodeAddress::new(&value("ip")?, value("port")?.parse().ok()?);
        Some(format!("{} at {address}", value("name")?))
    };
    primaries.iter().filter_map(primary).collect()
}

/// Why one server that says this of its role cannot be used, as long as it is so. In a Cluster
/// the primaries are known from its slots.
fn replica(config: &RedisConfig, info: &str) -> Option<String> {
    let is_replica = !config.cluster && info::field(info, "role") == Some("slave");
    is_replica.then(|| {
        let field = |name| info::field(info, name).unwrap_or("?");
        format!(
            "it is a replica, of {}:{}, and takes no writes: name the primary in --redis, or \
             make this one a primary",
            field("master_host"),
            field("master_port")
        )
    })
}

/// Why a node that says this cannot be what the URL takes it for.
fn cluster_mode(config: &RedisConfig, info: &str) -> Option<String> {
    let is_cluster = info::field(info, "cluster_enabled") == Some("1");
    (is_cluster && !config.cluster)
        .then(|| "it belongs to a Cluster; add ?cluster to its URL".to_owned())
}

/// Why a Redis that says this of its memory may not be used: one that evicts would drop
/// timelines in use, and posts.
fn eviction(info: &str) -> Option<String> {
    let policy = info::field(info, "maxmemory_policy").unwrap_or_default();
    let limit = info::field(info, "maxmemory").unwrap_or_default();
    let evicts = limit != "0" && policy != "noeviction";
    evicts.then(|| {
        format!(
            "Redis has a memory limit and the policy {policy}, by which it would drop timelines \
             and posts in use; set maxmemory-policy to noeviction"
        )
    })
}

/// The error, final if it is of no use to wait for something else; or that the node is a
/// Sentinel, or wants to be spoken to in the other way.
async fn explained(error: NodeError, node: Option<&NodeAddress>, dial: &Dial) -> StoreError {
    let Some(node) = node else { return at_start(error) };
    if matches!(error, NodeError::Refused { .. }) {
        // It knows neither databases nor a Cluster, and has users of its own.
        return match refused_by_sentinel(node, dial).await {
            Some(words) => Problem::lasting(words).of(node),
            None => at_start(error),
        };
    }
    let is_over_tls = dial.config.tls.is_some();
    let other_way =
        async { if is_over_tls { speaks_plainly(node).await } else { speaks_tls(node).await } };
    at_start(match timeout(OTHER_WAY_TIMEOUT, other_way).await {
        Ok(Ok(true)) if is_over_tls => NodeError::Plain { node: node.clone() },
        Ok(Ok(true)) => NodeError::OverTls { node: node.clone() },
        _ => error,
    })
}

/// A certificate that is not trusted at the start is a wrong setting; later, it may be one that
/// is being replaced.
fn at_start(error: NodeError) -> StoreError {
    let is_final = error.is_final() || matches!(error, NodeError::Tls { .. });
    StoreError::Redis { reason: error.to_string(), is_final }
}

/// Why a node cannot be used, if it is a Sentinel.
async fn refused_by_sentinel(node: &NodeAddress, dial: &Dial) -> Option<String> {
    for config in [dial.config.of_one_server(), dial.config.of_one_server().without_login()] {
        let dial = Dial { config: Arc::new(config), ..dial.clone() };
        let Ok(mut connection) = NodeConnection::connect(node, &dial).await else { continue };
        let Ok(Value::Text(info)) = connection.call(&[b"INFO", b"server"]).await else { continue };
        let is_one = is_sentinel(&String::from_utf8_lossy(&info));
        return if is_one { Some(sentinel(&mut connection).await) } else { None };
    }
    None
}

async fn speaks_plainly(node: &NodeAddress) -> io::Result<bool> {
    let mut tcp = TcpStream::connect((&*node.host, node.port)).await?;
    tcp.write_all(b"PING\r\n").await?;
    // A pong, or a refusal.
    Ok(matches!(tcp.read_u8().await?, b'+' | b'-'))
}

async fn speaks_tls(node: &NodeAddress) -> io::Result<bool> {
    let (Ok(name), Ok(config)) =
        (ServerName::try_from(node.host.to_string()), tls::of_nobody_trusted())
    else {
        return Ok(false);
    };
    let tcp = TcpStream::connect((&*node.host, node.port)).await?;
    match TlsConnector::from(config).connect(name, tcp).await {
        Ok(_) => Ok(true),
        Err(error) => {
            let said = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
            // That nobody is trusted is found out from a certificate, which plain Redis
            // does not send.
            Ok(matches!(
                said,
                Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentinel_says_where_its_primaries_are() {
        let text = |text: &str| Value::Text(text.as_bytes().to_vec());
        let one = ["name", "mymaster", "ip", "10.0.0.1", "port", "6379", "flags", "master"];
        let broken = ["name", "other", "ip"];
        let reply = [&one[..], &broken]
            .map(|words| Value::Array(words.iter().map(|word| text(word)).collect()));
        assert_eq!(primaries(&Value::Array(reply.to_vec())), ["mymaster at 10.0.0.1:6379"]);
        assert!(primaries(&Value::Nil).is_empty());
        assert!(is_sentinel("# Server\r\nredis_mode:sentinel\r\n"));
        assert!(!is_sentinel("# Server\r\nredis_mode:standalone\r\n"));
    }

    #[test]
    fn replica_is_refused_unless_in_a_cluster() {
        let info = "role:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\n";
        let config = |url| RedisConfig::from_urls(url, None).expect("good");
        let words = replica(&config("redis://a"), info).expect("refused");
        assert!(words.contains("a replica, of 10.0.0.1:6379"), "{words}");
        assert_eq!(replica(&config("redis://a?cluster"), info), None);
        assert_eq!(replica(&config("redis://a"), "role:master\r\n"), None);
    }

    #[test]
    fn certificate_is_final_at_the_start_only() {
        let node = NodeAddress::new("a", 1);
        let error = NodeError::Tls { node, reason: "it has expired".to_owned() };
        assert!(!error.is_final() && at_start(error).is_final());
    }

    #[test]
    fn a_limit_is_fine_where_nothing_is_evicted() {
        let info = |limit: &str, policy: &str| {
            format!("# Memory\r\nmaxmemory:{limit}\r\nmaxmemory_policy:{policy}\r\n")
        };
        assert_eq!(eviction(&info("0", "allkeys-lru")), None);
        assert_eq!(eviction(&info("1000", "noeviction")), None);
        let reason = eviction(&info("1000", "allkeys-lru")).expect("refused");
        assert!(reason.contains("allkeys-lru") && reason.contains("noeviction"), "{reason}");
    }
}
