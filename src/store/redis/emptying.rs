//! A store emptied, to be filled from the log anew.
//!
//! ```text
//!  every partition: marks gone, "emptying" ──► keys found and dropped ──► partitions free
//!   (its worker is fenced, none resumes)         on every node             (workers begin at 0)
//! ```
//!
//! Whoever follows the marks sees them go back, and lets nobody read until the log is
//! applied again. Should it break off, the partitions stay shut, so that nobody takes
//! what is left for a whole store, until it is done again. The numbers that API nodes
//! have leased stay, since ids must not repeat.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Inner, RedisStore, Settings,
    control::{Call, bytes, elements},
    fence, keys, reply,
    resp::Value as Reply,
    scripts,
    slots::NodeAddress,
};
use crate::store::StoreError;

/// Keys that a node is asked for at once, about.
const SCAN_COUNT: &[u8] = b"1000";

impl RedisStore {
    /// As [`open`](Self::open), and drops everything that is derived from the log; tells
    /// how many keys are gone. No slot should move meanwhile: what moves may be missed.
    ///
    /// # Errors
    /// As [`open`](Self::open); if there are keys like Roost's and nothing says whose they
    /// are; or if somebody else empties it too.
    pub async fn open_emptied(
        settings: Settings,
        mut told: impl FnMut(u64),
    ) -> Result<Self, StoreError> {
        super::check(&settings.config).await?;
        let inner = Inner::connect(settings).await?;
        inner.check_whose().await?;
        inner.check_log().await?;
        inner.shut_partitions().await?;
        let mut dropped = 0;
        for node in inner.nodes().await? {
            let mut cursor = None;
            while let Some(keys) = inner.scan(&node, &mut cursor).await? {
                let calls = keys.iter().map(|key| Call::of("UNLINK", &[key])).collect();
                dropped += inner.write(calls).await?.iter().sum::<i64>() as u64;
                told(dropped);
            }
        }
        inner.free_partitions().await?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Inner {
    /// Keys without a word of whose they are may be something else's.
    async fn check_whose(&self) -> Result<(), StoreError> {
        if reply::yes_or_no(&self.control.one(Call::of("EXISTS", &[keys::STORE])).await?)? {
            return Ok(());
        }
        for node in self.nodes().await? {
            let mut cursor = None;
            while let Some(keys) = self.scan(&node, &mut cursor).await? {
                let Some(key) = keys.first() else { continue };
                let reason = format!(
                    "this Redis has keys like {:?}, and no {:?} that says which log they belong \
                     to: they may be something else's; use another Redis, or empty this one",
                    String::from_utf8_lossy(key),
                    String::from_utf8_lossy(keys::STORE)
                );
                return Err(StoreError::Redis { reason, is_final: true });
            }
        }
        Ok(())
    }

    /// Fences every worker off, and lets none take a partition over.
    async fn shut_partitions(&self) -> Result<(), StoreError> {
        let worker = self.settings.worker.as_bytes();
        let mut owners = BTreeSet::new();
        for partition in 0..self.settings.partitions {
            let key = keys::partition(partition);
            let reply = self.control.one(scripts::SHUT.call(&key, &[worker])).await?;
            owners.extend(elements(reply).into_iter().filter_map(bytes));
        }
        for owner in owners {
            let owner = String::from_utf8_lossy(&owner);
            fence::close_connections(&self.settings.config, &owner).await?;
        }
        Ok(())
    }

    async fn free_partitions(&self) -> Result<(), StoreError> {
        let worker = self.settings.worker.as_bytes();
        for partition in 0..self.settings.partitions {
            let key = keys::partition(partition);
            let freed = self.control.one(scripts::FREE.call(&key, &[worker])).await?;
            let Some(other) = bytes(freed) else { continue };
            let reason = if other.is_empty() {
                "this Redis has lost meanwhile that it is being emptied, and workers may have \
                 gone on: begin again"
            } else {
                "another `roost rebuild` empties this Redis too: let it finish, or stop it and \
                 begin again"
            };
            return Err(StoreError::Redis { reason: reason.to_owned(), is_final: true });
        }
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<NodeAddress>, StoreError> {
        Ok(self.pusher.router.map().await?.nodes().to_vec())
    }

    /// Some more of the keys of a node that are derived from the log. `None` where the
    /// walk that `cursor` stands for, `None` at first, is over.
    async fn scan(
        &self,
        node: &NodeAddress,
        cursor: &mut Option<Vec<u8>>,
    ) -> Result<Option<Vec<Vec<u8>>>, StoreError> {
        const END: &[u8] = b"0";
        let from = match cursor.as_deref() {
            Some(END) => return Ok(None),
            Some(from) => from,
            None => END,
        };
        let command: &[&[u8]] = &[b"SCAN", from, b"COUNT", SCAN_COUNT];
        let reply = self.pusher.router.on_node(node, &[command]).await?.pop();
        let Some(Reply::Array(reply)) = reply else { return Err(super::damaged("a walk")) };
        let mut reply = reply.into_iter();
        let (Some(Reply::Text(next)), Some(Reply::Array(found))) = (reply.next(), reply.next())
        else {
            return Err(super::damaged("a walk"));
        };
        *cursor = Some(next);
        let found = found.into_iter().filter_map(|key| match key {
            Reply::Text(key) => Some(key),
            _ => None,
        });
        Ok(Some(found.filter(|key| keys::is_derived(key)).collect()))
    }
}
