//! Node numbers for post ids, leased in Redis: two API nodes never have the same.
//!
//! A lease is a key that expires. Its holder renews it long before, and gives out
//! no more ids from a moment on that is before the key can have expired: by a clock
//! that goes on while the process is stopped.
//!
//! Publishing goes on while Redis is away, so a lease is long: for as long as it lasts.
//! A process that is killed keeps its number from others for the same time, of which
//! there are enough for one such end every four seconds.
//!
//! With each renewal the process compares its clock with that of Redis: where its own is ahead,
//! it must not count posts of other processes as settled. What ids it gives out does not depend
//! on it, nor on ids of others that are ahead: a process takes the greatest id into account once,
//! when it starts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{RedisStore, keys, reply, scripts};
use crate::{
    domain::PostId,
    post_id::{NODE_MAX, PostIds},
    store::StoreError,
};

const LEASE: Duration = Duration::from_secs(3_600);
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// So long before its end a lease is no longer relied on.
const MARGIN: Duration = Duration::from_secs(60);

impl RedisStore {
    /// Leases a node number that nobody has, and gives out ids greater than
    /// `greatest` with it. `unix_ms` is the clock of this process.
    ///
    /// # Errors
    /// If Redis cannot be asked, or all numbers are leased.
    pub async fn lease_node(
        &self,
        greatest: Option<PostId>,
        unix_ms: impl Fn() -> u64,
    ) -> Result<PostIds, StoreError> {
        // Anywhere, so that many that start at once seldom meet.
        let first = rand::random_range(0..=NODE_MAX);
        for step in 0..=NODE_MAX {
            let node = (first + step) & NODE_MAX;
            let since = Instant::now();
            if let Some(time_of_redis) = self.renew(node).await? {
                let ids = PostIds::new(node, greatest);
                ids.compare_clocks(unix_ms(), time_of_redis);
                ids.set_valid_until(since + LEASE - MARGIN);
                return Ok(ids);
            }
        }
        Err(StoreError::Redis {
            reason: format!(
                "all {} node numbers are leased; stop API nodes that are not needed, or wait {} minutes",
                u32::from(NODE_MAX) + 1,
                LEASE.as_secs() / 60
            ),
            is_final: true,
        })
    }

    /// Keeps the lease of these ids until it is told to stop, and gives it back then.
    pub async fn keep_node(
        self,
        ids: Arc<PostIds>,
        unix_ms: impl Fn() -> u64 + Send,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
            let since = Instant::now();
            match self.renew(ids.node()).await {
                Ok(Some(time_of_redis)) => {
                    ids.set_valid_until(since + LEASE - MARGIN);
                    ids.compare_clocks(unix_ms(), time_of_redis);
                }
                Ok(None) => {
                    ids.set_valid_until(Instant::now());
                    tracing::error!(
                        node = ids.node(),
                        "another process has this one's node number; posts are refused until it \
                         is free"
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "the lease of the node number was not renewed")
                }
            }
        }
        // Whoever has it next gives out ids of it at once.
        ids.set_valid_until(Instant::now());
        let key = keys::node(ids.node());
        let call = scripts::GIVE_BACK_LEASE.call(&key, &[self.inner.settings.worker.as_bytes()]);
        if let Err(error) = self.inner.control.one(call).await {
            tracing::warn!(%error, "the node number was not given back and stays taken for a while");
        }
    }

    /// What time it is by the clock of Redis; `None` if another process has the number.
    async fn renew(&self, node: u16) -> Result<Option<u64>, StoreError> {
        let key = keys::node(node);
        let millis = LEASE.as_millis().to_string();
        let worker = self.inner.settings.worker.as_bytes();
        let call = scripts::RENEW_LEASE.call(&key, &[worker, millis.as_bytes()]);
        let unix_ms = reply::number(&self.inner.control.one(call).await?, "the time of a lease")?;
        Ok((unix_ms > 0).then_some(unix_ms))
    }
}
