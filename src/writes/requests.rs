//! The requests that are under way, or acknowledged and not applied yet.
//!
//! The store knows which request made which post only once the worker has come
//! that far. Until then this table knows.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use quick_cache::sync::Cache;
use tokio::sync::watch;

use crate::domain::{PostId, UserId};

/// A client's own name for a request; every author has its own names.
pub(super) type RequestKey = (UserId, String);

/// Requests that failed and whose ids are remembered; past it, the least used go, and
/// the store must know.
const UNCERTAIN_MAX: usize = 100_000;

#[derive(Debug)]
pub(super) struct Requests {
    table: Mutex<Table>,
    /// What requests would have made that may have been written though they failed.
    uncertain: Cache<RequestKey, PostId>,
}

impl Default for Requests {
    fn default() -> Self {
        Self { table: Mutex::default(), uncertain: Cache::new(UNCERTAIN_MAX) }
    }
}

#[derive(Debug, Default)]
struct Table {
    requests: HashMap<RequestKey, watch::Receiver<Outcome>>,
    /// Acknowledged requests, by the partition and offset after which the store
    /// knows them.
    acknowledged: HashMap<u32, BTreeMap<u64, RequestKey>>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    UnderWay,
    /// It made this post.
    Made(PostId),
    /// It made this post, or an event of its name from before made another: the store did not
    /// tell in time.
    Unsure(PostId),
    /// It made nothing; the next one with its name may.
    Nothing,
}

/// Whether a request is the first of its name.
pub(super) enum Claim {
    /// It is, and whoever asked must say what becomes of it.
    First(watch::Sender<Outcome>),
    /// It is not: wait for what became of the first.
    Repeated(watch::Receiver<Outcome>),
}

impl Requests {
    pub(super) fn claim(&self, key: &RequestKey) -> Claim {
        let mut table = self.lock();
        if let Some(outcome) = table.requests.get(key) {
            // One that ended without a word has made nothing that anybody knows of.
            let abandoned =
                outcome.has_changed().is_err() && *outcome.borrow() == Outcome::UnderWay;
            if !abandoned {
                return Claim::Repeated(outcome.clone());
            }
        }
        let (outcome, receiver) = watch::channel(Outcome::UnderWay);
        table.requests.insert(key.clone(), receiver);
        Claim::First(outcome)
    }

    /// Whether a request of this name is under way, or done and not applied yet.
    pub(super) fn contains(&self, key: &RequestKey) -> bool {
        self.lock().requests.contains_key(key)
    }

    /// The request made a post, whose event stands at `offset` of `partition`.
    pub(super) fn made(&self, key: RequestKey, partition: u32, offset: u64) {
        self.lock().acknowledged.entry(partition).or_default().insert(offset, key);
    }

    /// The request may have made this post, which nobody knows: the next of its name is
    /// to make the same.
    pub(super) fn failed(&self, key: RequestKey, post: PostId) {
        self.forget(&key);
        self.uncertain.insert(key, post);
    }

    /// The post that a request makes: the one it may have made, or the one offered.
    pub(super) fn post_of(&self, key: &RequestKey, offered: PostId) -> PostId {
        self.uncertain.get(key).unwrap_or(offered)
    }

    /// The request made nothing, or the store knows what it made.
    pub(super) fn forget(&self, key: &RequestKey) {
        self.lock().requests.remove(key);
    }

    /// Forgets the requests that the store knows by now: those below the applied
    /// offset of their partition.
    pub(super) fn forget_applied(&self, applied: impl Fn(u32) -> u64) {
        let mut table = self.lock();
        let Table { requests, acknowledged } = &mut *table;
        for (partition, keys) in acknowledged {
            let applied = applied(*partition);
            while let Some(first) = keys.first_entry().filter(|first| *first.key() < applied) {
                requests.remove(&first.remove());
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().requests.len()
    }

    /// The table is whole even after a panic: its two parts may only disagree in
    /// that a request is remembered for too long.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
