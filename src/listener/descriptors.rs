//! How many file descriptors the process may open, and how many of them may be connections.
//! The rest is for the log, the store, and connections to Kafka and Redis.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Connections that a process takes at most unless something else is set, however many
/// descriptors it has: they cost memory too.
const CONNECTIONS_MAX: usize = 8_192;
/// Descriptors that are never connections of clients, where there are enough.
const RESERVED: usize = 512;
/// Connections to the HTTP listener of metrics.
const METRICS_CONNECTIONS_MAX: usize = 128;
/// With fewer descriptors the start warns.
const COMFORTABLE: usize = 4_096;

/// Descriptors that the process may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// How many. `usize::MAX` is unlimited.
    pub limit: usize,
}

/// Raises the soft limit of open files to the hard one. The limit that then holds.
pub fn raise_descriptor_limit() -> Descriptors {
    let limits = getrlimit(Resource::Nofile);
    if limits.current != limits.maximum {
        let raised = rustix::process::Rlimit { current: limits.maximum, ..limits };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files cannot be raised");
        }
    }
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    Descriptors { limit }
}

impl Descriptors {
    /// Connections to the API: what is left beside the reserved descriptors and the metrics.
    pub fn connections_max(self) -> usize {
        let left = self.limit - self.reserved() - self.metrics_connections_max();
        left.clamp(1, CONNECTIONS_MAX)
    }

    /// Connections to the HTTP listener of metrics.
    pub fn metrics_connections_max(self) -> usize {
        (self.limit / 16).clamp(1, METRICS_CONNECTIONS_MAX)
    }

    /// Whether so few descriptors are left that an operator should know.
    pub fn is_low(self) -> bool {
        self.limit < COMFORTABLE
    }

    /// A process that has few descriptors keeps half of them.
    fn reserved(self) -> usize {
        RESERVED.min(self.limit / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_leave_half_to_the_store() {
        for limit in [16, 64, 256, 1_024, 4_096, 65_536, usize::MAX] {
            let descriptors = Descriptors { limit };
            let (api, metrics) =
                (descriptors.connections_max(), descriptors.metrics_connections_max());
            assert!(limit - api - metrics >= RESERVED.min(limit / 2), "{limit}: {api}, {metrics}");
            assert!(api >= limit.min(20_000) / 4, "{limit}: {api}");
        }
        assert_eq!(Descriptors { limit: 1_024 }.connections_max(), 448);
        assert!(Descriptors { limit: 1_024 }.is_low());
        assert!(!Descriptors { limit: 65_536 }.is_low());
    }
}
