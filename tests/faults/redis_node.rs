//! One Redis process, spoken to directly.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, aio::MultiplexedConnection};
use tokio::time;

use crate::{
    failure::{Doing, Failure, Result},
    process::signal_id,
};

const LOOK_EVERY: Duration = Duration::from_millis(50);

pub struct RedisNode {
    pub address: SocketAddr,
    connection: MultiplexedConnection,
}

impl RedisNode {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let settings =
            AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        let client = Client::open(format!("redis://{address}")).doing(address)?;
        let connection = client.get_multiplexed_async_connection_with_config(&settings);
        Ok(Self { address, connection: connection.await.doing(address)? })
    }

    /// Sends a command, as in `"CONFIG SET save ''"` without quotes.
    pub async fn call<T: FromRedisValue>(&mut self, command: &str) -> Result<T> {
        let mut words = command.split(' ');
        let mut cmd = Cmd::new();
        for word in words.by_ref() {
            cmd.arg(word);
        }
        self.send(&cmd).await
    }

    pub async fn send<T: FromRedisValue>(&mut self, cmd: &Cmd) -> Result<T> {
        let sent = cmd.query_async(&mut self.connection).await;
        sent.map_err(|error| Failure::new(format!("{}: {error}", self.address)))
    }

    /// The fields of `INFO`.
    pub async fn info(&mut self) -> Result<HashMap<String, String>> {
        let text: String = self.call("INFO").await?;
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Ok(fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    /// A number of `INFO`; 0 if it is not there.
    pub async fn number(&mut self, field: &str) -> Result<u64> {
        Ok(self.info().await?.get(field).and_then(|value| value.parse().ok()).unwrap_or(0))
    }
}

/// A process that is stopped, and goes on once this is dropped, with all that was sent
/// to it meanwhile.
pub struct Frozen {
    process: u32,
}

impl RedisNode {
    pub async fn freeze(mut self) -> Result<Frozen> {
        let process = self.number("process_id").await?.try_into().doing(self.address)?;
        if signal_id(process, "STOP") {
            return Ok(Frozen { process });
        }
        Err(Failure::new(format!("{} is no process {process}", self.address)))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Whoever waits for it says so if it is gone.
        let _ = signal_id(self.process, "CONT");
    }
}

/// Asks until the answer is yes. An error is an answer that may become better.
pub async fn until<F>(what: &str, deadline: Duration, mut is_so: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    let begun = Instant::now();
    loop {
        let last = match is_so().await {
            Ok(true) => return Ok(()),
            Ok(false) => "not yet".to_owned(),
            Err(failure) => failure.to_string(),
        };
        if begun.elapsed() > deadline {
            return Err(Failure::new(format!("{what}: {last} after {deadline:?}")));
        }
        time::sleep(LOOK_EVERY).await;
    }
}
