//! The Redis store: one server or a Cluster, the same code path.
//!
//! ```text
//!  reads  ──► lookups, homes ──► control ─────────────────────────────► Redis
//!  events ──► ledger: fold ──► commands: idempotent writes ┐
//!  pushes ──► push: sorted ────────────────────────────────┴► router ─► Redis
//!                by node ──► pool ──► node: one pipeline    ▲    │ resp: pack, scan
//!                                  only what was refused ◄──┴────┘
//! ```
//!
//! Accounts are their ids. The followers of an account have one writer, the worker
//! of its partition, which therefore keeps them in memory; everything else is read
//! where it stands. What a list is made of is said in `scripts`, what things are
//! called in `keys`.

mod acl;
mod commands;
pub mod config;
mod control;
mod cursors;
mod emptying;
pub mod error;
mod fence;
mod fold;
mod followers;
mod followers_cache;
mod hides;
mod homes;
mod hot_authors;
mod inboxes;
mod info;
mod keys;
mod ledger;
mod lists;
mod lookups;
mod messages;
pub mod node;
mod nodes;
pub mod pool;
mod posts;
mod probe;
mod pulled;
pub mod push;
mod referrers;
mod reply;
pub mod resp;
pub mod router;
mod scripts;
mod sleepers;
pub mod slots;
mod tls;
mod topology;
mod trims;
mod wakes;
mod watermarks;

use std::{
    collections::HashMap,
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use redis::Value;
use tokio::time::Instant;

pub use self::{acl::acl_rules, probe::check};
use self::{
    config::RedisConfig,
    control::{Call, Control, bytes, elements},
    error::NodeError,
    followers_cache::{FollowersCache, followers_cache},
    hot_authors::HotAuthors,
    lists::Lists,
    node::ConnectionName,
    posts::PostsCache,
    pulled::Pulled,
    push::{PushSettings, Pusher},
    sleepers::Sleepers,
    watermarks::Watermarks,
};
use crate::{
    domain::UserId,
    store::{Accounts, HOME_TIMELINE_CAP_DEFAULT, IDLE_MAX_DEFAULT, StoreError},
    telemetry::RedisMetrics,
};

/// The version of what is in Redis.
const VERSION: &str = "10";

/// How the Redis store works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where Redis is.
    pub config: Arc<RedisConfig>,
    /// Which log the store belongs to. A store of another one is refused.
    pub log: String,
    /// How many partitions that log has.
    pub partitions: u32,
    /// The group of the workers. Workers of another one would take partitions that these
    /// have.
    pub group: String,
    /// CAP: how many posts a home timeline shows. At least 1.
    pub home_timeline_cap: usize,
    /// A name of this process that no other one has or ever had.
    pub worker: String,
    /// Bytes of memory for the followers of those who post.
    pub followers_cache_bytes: u64,
    /// Bytes of memory for the readers who are known to sleep, 8 each. None, and they cost
    /// as much as those who are awake.
    pub sleepers_bytes_max: usize,
    /// Bytes of memory for home timelines as they were read last.
    pub lists_cache_bytes: u64,
    /// Memory for posts that were read lately, in bytes.
    pub posts_cache_bytes: u64,
    /// How long a home timeline lives that nobody reads; a 64th less, since not every read
    /// makes its life longer.
    pub idle_max: Duration,
    /// Where round trips are counted.
    pub metrics: Arc<RedisMetrics>,
}

impl Settings {
    /// What suits most, for a log of so many partitions.
    pub fn new(config: Arc<RedisConfig>, log: String, partitions: u32) -> Self {
        Self {
            config,
            log,
            partitions,
            group: String::from("roost-workers"),
            home_timeline_cap: HOME_TIMELINE_CAP_DEFAULT,
            worker: format!("{}-{:016x}", std::process::id(), rand::random::<u64>()),
            followers_cache_bytes: 512 << 20,
            sleepers_bytes_max: 64 << 20,
            lists_cache_bytes: 64 << 20,
            posts_cache_bytes: 128 << 20,
            idle_max: IDLE_MAX_DEFAULT,
            metrics: Arc::default(),
        }
    }
}

/// The Redis store. Clones are handles of the same.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

struct Inner {
    control: Control,
    pusher: Pusher,
    limits: Limits,
    settings: Settings,
    claims: Claims,
    followers: FollowersCache,
    sleepers: tokio::sync::Mutex<Sleepers>,
    lists: Lists,
    posts_cache: PostsCache,
    pulled: Pulled,
    hot_authors: HotAuthors,
    /// What was seen last of which Redis this is.
    incarnation: AtomicU64,
    /// How many there were: each time one of its nodes is another.
    incarnations: AtomicU64,
    /// How many partitions this process has resumed.
    resumed: AtomicU64,
    /// When the watermarks were looked at last.
    looked_at: tokio::sync::Mutex<Instant>,
}

/// What home lists may hold, in ids.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// How many a reader is shown.
    cap: usize,
    /// How many are kept when a list is written or trimmed.
    kept: usize,
    /// A list with more is trimmed.
    len_max: usize,
}

/// A mark of a partition, by its field.
type Mark<'a> = (&'a str, &'a (dyn Display + Sync));

/// The partitions that this process works on.
type Claims = Arc<Mutex<HashMap<u32, Claim>>>;

/// A partition that is this process's.
#[derive(Clone, Debug)]
struct Claim {
    /// What its marks must say for it to be still so.
    epoch: Vec<u8>,
    /// One past the last event that holds.
    applied: u64,
    /// One past the last event of which anything may hold or have been pushed.
    attempted: u64,
    /// Below it, everything is delivered.
    delivered: u64,
    /// The cursors beside it, as they were written last.
    cursors: Arc<str>,
    /// The greatest post id that holds, or 0.
    greatest_post: u64,
    /// What every node was told of it.
    watermarks: Watermarks,
    state: ClaimState,
}

/// Whether a partition that is this process's can be worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClaimState {
    /// It can.
    Held,
    /// Another process has it. No connection is admitted until whoever works on it
    /// here has taken note.
    Fenced,
    /// A node has lost something of it.
    Lost,
}

impl RedisStore {
    /// Connects, and checks that Redis may be used: that it keeps what it is given,
    /// and that what it holds belongs to this log.
    ///
    /// # Errors
    /// In one line, what is wrong and what to do.
    pub async fn open(settings: Settings) -> Result<Self, StoreError> {
        check(&settings.config).await?;
        let inner = Inner::connect(settings).await?;
        inner.check_log().await?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// The log that a Redis holds the store of, if it holds one.
///
/// # Errors
/// Where it does not answer.
pub async fn log_of(config: &RedisConfig) -> Result<Option<String>, StoreError> {
    let control = Control::connect(config, &Arc::default()).await?;
    let log = bytes(control.one(Call::of("HGET", &[keys::STORE, b"log"])).await?);
    Ok(log.map(|log| String::from_utf8_lossy(&log).into_owned()))
}

impl Inner {
    async fn connect(settings: Settings) -> Result<Self, StoreError> {
        let control = Control::connect(&settings.config, &settings.metrics).await?;
        let cap = settings.home_timeline_cap.max(1);
        let slack = (cap / 10).max(1);
        // A trim costs much the same however much it drops.
        let limits = Limits { cap, kept: cap + slack, len_max: cap + 3 * slack };
        let claims = Claims::default();
        let mut push_settings =
            // The marker is an entry too.
            PushSettings::new(ConnectionName::new(&settings.worker, 0), limits.len_max + 1);
        push_settings.scripts = scripts::of_workers();
        push_settings.admission = Some(fence::admission(control.clone(), Arc::clone(&claims)));
        push_settings.metrics = Arc::clone(&settings.metrics);
        let pusher = Pusher::new(Arc::clone(&settings.config), push_settings);
        pusher.check().await?;
        let followers = followers_cache(settings.followers_cache_bytes);
        let looked_at = tokio::sync::Mutex::new(Instant::now());
        let sleepers = tokio::sync::Mutex::new(Sleepers::new(settings.sleepers_bytes_max));
        let lists = lists::lists(settings.lists_cache_bytes);
        let posts_cache = posts::posts_cache(settings.posts_cache_bytes);
        Ok(Self {
            control,
            pusher,
            limits,
            settings,
            claims,
            followers,
            sleepers,
            lists,
            posts_cache,
            pulled: Pulled::default(),
            hot_authors: HotAuthors::default(),
            incarnation: AtomicU64::new(0),
            incarnations: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            looked_at,
        })
    }

    /// Makes an empty store this log's, and refuses one of another log.
    async fn check_log(&self) -> Result<(), StoreError> {
        let partitions = self.settings.partitions.to_string();
        let Settings { log, group, .. } = &self.settings;
        let own: [(&str, &str, &str); 4] = [
            ("version", VERSION, "another version of Roost has written it"),
            ("log", log, "it belongs to another log; check kafka_topic"),
            ("partitions", &partitions, "it belongs to another log; check kafka_topic"),
            ("group", group, "another group of workers has it; check kafka_group"),
        ];
        let arguments: Vec<&[u8]> =
            own.iter().flat_map(|(field, value, _)| [field.as_bytes(), value.as_bytes()]).collect();
        // At once: it may be emptied at any moment.
        let reply = self.control.one(scripts::SET_IF_ABSENT.call(keys::STORE, &arguments)).await?;
        let mut found = elements(reply).into_iter();
        for (field, value, advice) in own {
            let found = found.next().unwrap_or(Value::Nil);
            let found = String::from_utf8_lossy(&bytes(found).unwrap_or_default()).into_owned();
            if found != value {
                let reason = format!(
                    "what is in this Redis has the {field} {found:?}, and this Roost has \
                     {value:?}: {advice}. If it is right, use another Redis, or empty this one, \
                     which is filled from the log then"
                );
                return Err(StoreError::Redis { reason, is_final: true });
            }
        }
        Ok(())
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<u32, Claim>> {
        lock(&self.claims)
    }

    /// Writes marks of a partition.
    async fn mark(
        &self,
        partition: u32,
        epoch: &[u8],
        marks: &[Mark<'_>],
    ) -> Result<(), StoreError> {
        let marks: Vec<(&str, String)> =
            marks.iter().map(|(field, value)| (*field, value.to_string())).collect();
        let mut arguments: Vec<&[u8]> = vec![epoch];
        for (field, value) in &marks {
            arguments.extend([field.as_bytes(), value.as_bytes()]);
        }
        let key = keys::partition(partition);
        let reply = self.control.one(scripts::MARK.call(&key, &arguments)).await?;
        if reply::yes_or_no(&reply)? {
            return Ok(());
        }
        fence::note(&self.claims, partition, epoch);
        Err(StoreError::Fenced { partition })
    }
}

/// The map is whole even after a panic: it is changed by single calls only.
fn lock(claims: &Claims) -> MutexGuard<'_, HashMap<u32, Claim>> {
    claims.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fields and values of a hash.
fn fields(value: Value) -> HashMap<Vec<u8>, Vec<u8>> {
    let mut values = elements(value).into_iter();
    let mut fields = HashMap::new();
    while let (Some(field), Some(value)) = (values.next(), values.next()) {
        if let (Some(field), Some(value)) = (bytes(field), bytes(value)) {
            fields.insert(field, value);
        }
    }
    fields
}

/// Something in Redis that Roost has not written.
fn damaged(what: &str) -> StoreError {
    StoreError::Redis {
        reason: format!(
            "{what} in Redis is not what Roost has written; empty Redis and start again, which \
             fills it from the log"
        ),
        is_final: true,
    }
}

impl From<NodeError> for StoreError {
    fn from(error: NodeError) -> Self {
        // Who is fenced off from one partition goes on with the others.
        let is_fenced = matches!(error, NodeError::Fenced { .. });
        Self::Redis { reason: error.to_string(), is_final: error.is_final() && !is_fenced }
    }
}

impl Accounts for RedisStore {
    type Account = UserId;

    /// Every account has a handle: its id.
    async fn accounts(&self, users: &[UserId]) -> Result<Vec<Option<UserId>>, StoreError> {
        Ok(users.iter().copied().map(Some).collect())
    }
}
