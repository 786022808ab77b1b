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
/// In one line, what is wrong and what to do.
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
        Err(error) => return Err(explained(error, config.seeds.first(), &dial).await.into()),
    };
    for node in &nodes {
        let info = match info_of(node, &dial).await {
            Ok(info) => info,
            Err(error) => return Err(explained(error, Some(node), &dial).await.into()),
        };
        let problem = eviction(&info).or_else(|| cluster_mode(config, &info));
        if let Some(problem) = problem {
            let reason = format!("{}:{}: {problem}", node.host, node.port);
            return Err(StoreError::Redis { reason, is_final: true });
        }
    }
    Ok(())
}

/// What a node says of its memory and of its Cluster.
async fn info_of(node: &NodeAddress, dial: &Dial) -> Result<String, NodeError> {
    let mut connection = NodeConnection::connect(node, dial).await?;
    let mut info = String::new();
    for section in ["memory", "cluster"] {
        if let Value::Text(text) = connection.call(&[b"INFO", section.as_bytes()]).await? {
            info.push_str(&String::from_utf8_lossy(&text));
        }
    }
    Ok(info)
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

/// The error, or that the node wants to be spoken to in the other way.
async fn explained(error: NodeError, node: Option<&NodeAddress>, dial: &Dial) -> NodeError {
    let Some(node) = node.filter(|_| !matches!(error, NodeError::Refused { .. })) else {
        return error;
    };
    let is_over_tls = dial.config.tls.is_some();
    let other_way =
        async { if is_over_tls { speaks_plainly(node).await } else { speaks_tls(node).await } };
    match timeout(OTHER_WAY_TIMEOUT, other_way).await {
        Ok(Ok(true)) if is_over_tls => NodeError::Plain { node: node.clone() },
        Ok(Ok(true)) => NodeError::OverTls { node: node.clone() },
        _ => error,
    }
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
