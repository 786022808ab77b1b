//! Reaching a server.

use std::{error::Error, time::Duration};

use clap::Args;
use tonic::transport::{Channel, Endpoint};

use super::ClientError;

/// Where a Roost listens unless told otherwise.
pub const DEFAULT_TARGET: &str = "http://127.0.0.1:50051";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that answers no ping for this long is taken for dead, so that no
/// command hangs on a connection that nobody will ever close.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
// The windows that keep a stream of small messages from stalling.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// The server that a command talks to.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The Roost to talk to
    #[arg(
        long = "target",
        value_name = "http://HOST:PORT",
        env = "ROOST_TARGET",
        default_value = DEFAULT_TARGET
    )]
    pub url: String,
}

/// The servers that a load is spread over: API processes of one Roost.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// The Roost to talk to; of several API processes on the same Kafka and Redis, all of
    /// them, over which streams and reads are spread
    #[arg(
        long = "target",
        value_name = "http://HOST:PORT,…",
        env = "ROOST_TARGET",
        value_delimiter = ',',
        default_value = DEFAULT_TARGET
    )]
    pub urls: Vec<String>,
}

impl Target {
    /// The server at `url`, which has the form `http://HOST:PORT`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into() }
    }

    /// Connects, once.
    ///
    /// # Errors
    /// [`ClientError::BadTarget`] if the address is none, and
    /// [`ClientError::Unreachable`] if nothing listens there.
    pub async fn connect(&self) -> Result<Channel, ClientError> {
        self.endpoint()?.connect().await.map_err(|error| ClientError::Unreachable {
            target: self.url.clone(),
            reason: root_cause(&error),
        })
    }

    /// A channel that connects at its first call, and again after every broken
    /// connection.
    ///
    /// # Errors
    /// [`ClientError::BadTarget`] if the address is none.
    pub fn connect_lazily(&self) -> Result<Channel, ClientError> {
        Ok(self.endpoint()?.connect_lazy())
    }

    /// How it is connected to.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, ClientError> {
        let bad = |reason: String| ClientError::BadTarget { target: self.url.clone(), reason };
        let endpoint =
            Endpoint::from_shared(self.url.clone()).map_err(|error| bad(root_cause(&error)))?;
        match endpoint.uri().scheme_str() {
            Some("http") => {}
            Some("https") => return Err(bad("TLS is not supported".to_owned())),
            _ => return Err(bad("it does not begin with http://".to_owned())),
        }
        Ok(endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
    }
}

/// The innermost error is the one that says something, as in "connection
/// refused"; those around it say "transport error".
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_addresses_are_targets() {
        assert!(Target::new(DEFAULT_TARGET).endpoint().is_ok());
        for bad in ["https://127.0.0.1:1", "127.0.0.1:50051", "ftp://x", "http://a b", ""] {
            let error = Target::new(bad).endpoint().expect_err(bad);
            assert!(error.to_string().contains("--target"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_target_where_nothing_listens_is_named() {
        // Nobody listens on the discard port of a test machine.
        let error = Target::new("http://127.0.0.1:9").connect().await.expect_err("refused");
        let message = error.to_string();
        assert!(message.contains("http://127.0.0.1:9"), "{message}");
        assert!(message.contains("roost serve"), "{message}");
    }
}
