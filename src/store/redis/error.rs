//! Why a node did not do what it was asked, and what to do about it.

use super::{acl, resp::BadReply, slots::NodeAddress};

/// Why a node could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// No connection could be made.
    #[error(
        "Redis at {node} cannot be reached: {reason}; is it running, and is the address right?"
    )]
    Unreachable {
        /// Which node.
        node: NodeAddress,
        /// What was said instead.
        reason: String,
    },
    /// Its certificate is not to be trusted, or what it speaks is not TLS.
    #[error(
        "the TLS connection to Redis at {node} failed: {reason}; name the authority that signed \
         its certificate, or use redis:// if it does not speak TLS"
    )]
    Tls {
        /// Which node.
        node: NodeAddress,
        /// What is wrong.
        reason: String,
    },
    /// It does not speak TLS.
    #[error("Redis at {node} does not speak TLS, as its URL says: use redis:// in its URL")]
    Plain {
        /// Which node.
        node: NodeAddress,
    },
    /// It speaks nothing but TLS.
    #[error("Redis at {node} speaks TLS, and its URL does not say so: use rediss:// in its URL")]
    OverTls {
        /// Which node.
        node: NodeAddress,
    },
    /// It was reached and said no.
    #[error("Redis at {node} refuses: {reason}; {advice}")]
    Refused {
        /// Which node.
        node: NodeAddress,
        /// Its own words.
        reason: String,
        /// What to do.
        advice: &'static str,
        /// Whether it will say the same again until somebody changes its
        /// settings or Roost's.
        is_final: bool,
    },
    /// The connection broke.
    #[error("the connection to Redis at {node} broke: {reason}")]
    Broken {
        /// Which node.
        node: NodeAddress,
        /// What was said.
        reason: String,
    },
    /// Nothing came and nothing could be sent for too long.
    #[error(
        "Redis at {node} gave no sign of life for {waited_ms} ms; is it overloaded or cut off?"
    )]
    TimedOut {
        /// Which node.
        node: NodeAddress,
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// What it answers is not the protocol of Redis.
    #[error("Redis at {node} answers what cannot be understood: {reason}")]
    Protocol {
        /// Which node.
        node: NodeAddress,
        /// What is wrong.
        reason: BadReply,
    },
    /// Its answer about who serves which slot makes no sense.
    #[error("Redis at {node} does not say which node has which slot: {reason}")]
    BadMap {
        /// Which node.
        node: NodeAddress,
        /// What is wrong.
        reason: String,
    },
    /// The nodes keep sending a command to each other.
    #[error(
        "the nodes of the Redis Cluster do not agree who serves slot {slot}, last asked {node}"
    )]
    Unsettled {
        /// The last one asked.
        node: NodeAddress,
        /// Which slot.
        slot: u16,
    },
    /// This worker may no longer write: another has taken over.
    #[error("this worker may no longer write to Redis: {reason}")]
    Fenced {
        /// Who said so.
        reason: String,
    },
    /// Nobody can tell now whether this worker may write, so that nothing was sent.
    #[error("whether this worker may still write to Redis is not known: {reason}")]
    Unadmitted {
        /// Why not.
        reason: String,
        /// Whether it stays so until somebody changes a setting.
        is_final: bool,
    },
    /// No node serves a slot that is needed.
    #[error("no node of the Redis Cluster serves slot {slot}; mend the Cluster")]
    NoNode {
        /// Which slot.
        slot: u16,
    },
}

impl NodeError {
    /// Whether trying again cannot help until somebody changes a setting.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused { is_final, .. } | Self::Unadmitted { is_final, .. } => *is_final,
            // At a start a certificate that is not trusted is final (`probe`); later a node may
            // come back with a wrong one for a while.
            Self::Tls { .. } => false,
            Self::Plain { .. }
            | Self::OverTls { .. }
            | Self::Protocol { .. }
            | Self::Fenced { .. } => true,
            Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::TimedOut { .. }
            | Self::BadMap { .. }
            | Self::Unsettled { .. }
            | Self::NoNode { .. } => false,
        }
    }

    /// What the node's own words, an error reply, mean.
    pub(super) fn refused(node: &NodeAddress, error: &[u8]) -> Self {
        let (advice, is_final) = advice(error);
        Self::Refused {
            node: node.clone(),
            reason: String::from_utf8_lossy(error).into_owned(),
            advice,
            is_final,
        }
    }
}

/// What to do about an error reply, and whether it will come again until then.
fn advice(error: &[u8]) -> (&'static str, bool) {
    let says = |part: &str| String::from_utf8_lossy(error).contains(part);
    match error.split(|&byte| byte == b' ').next().unwrap_or_default() {
        b"OOM" => ("it has used all of its maxmemory: raise it, or add nodes", false),
        b"READONLY" => ("it is a replica: name the primary in --redis, or make it one", false),
        b"MISCONF" => ("it cannot save to its disk: mend that", false),
        b"NOREPLICAS" => ("it has too few replicas to accept writes: start them", false),
        b"LOADING" => ("it is loading its data: wait", false),
        b"BUSY" => ("a script keeps it busy: wait, or stop the script", false),
        b"CLUSTERDOWN" => ("its Cluster is down: mend it", false),
        b"MASTERDOWN" => ("it has lost its primary: mend that", false),
        b"NOSCRIPT" => ("it was made to forget its scripts: they are sent again", false),
        b"TRYAGAIN" => ("its slot is being moved: wait", false),
        b"MOVED" | b"ASK" => ("it belongs to a Cluster: add ?cluster to its URL", true),
        b"WRONGPASS" | b"NOAUTH" => (
            "check the user and the password in --redis, where @ : / # ? % and a comma are \
             percent-encoded, or give the password as a file with --redis-password-file",
            true,
        ),
        b"NOPERM" => (acl::ALLOW, true),
        b"WRONGTYPE" => {
            ("something else uses a key of Roost: give Roost a database of its own", true)
        }
        b"DENIED" => ("it is in protected mode: give it a password, and its URL the same", true),
        _ if says(acl::DENIED_IN_SCRIPT) => (acl::ALLOW, true),
        _ if says("not allowed in cluster mode") => (
            "it belongs to a Cluster, which has only database 0: take the number out of its URL \
             and add ?cluster",
            true,
        ),
        _ if says("AUTH") => ("it has no password: take it out of its URL, or set one", true),
        _ if says("cluster support disabled") => ("it is no Cluster: take ?cluster out", true),
        _ if says("DB index") => ("it has no such database: check the number in its URL", true),
        _ if says("max number of clients") => ("raise its maxclients", false),
        _ => ("see its log", true),
    }
}
