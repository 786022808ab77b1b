//! What *naive* measures: the same deliveries in the ways in which others write them, by the same
//! client: pipelines packed by hand, as many commands in flight.
//!
//! | strategy | a delivery |
//! |---|---|
//! | `LPUSHX`, `LTRIM` | both, every time |
//! | as Misskey | `LPUSH` of an id of 16 characters, `LTRIM` one time in ten |
//! | as Mastodon | `ZADD`, `ZREMRANGEBYRANK` |
//! | as DeathStarBench | `ZADD`, never trimmed |
//!
//! The strategies are those of Misskey's `FanoutTimelineService`, Mastodon's
//! `FeedManager` and the home timeline service of DeathStarBench's social network.

use std::time::{Duration, Instant};

use super::{BenchError, redis::BenchRedis, town::Town};
use crate::{
    domain::{PostId, UserId},
    store::{
        HOME_TIMELINE_CAP_DEFAULT,
        redis::{
            resp::{HomeKey, Reply, pack_command},
            router::Work,
            slots::home_slot,
        },
    },
};

/// Posts whose deliveries are laid out at once.
const POSTS_AT_ONCE: usize = 2_048;
/// Deliveries that are written in one call: as many as Roost's two flushes have.
const CALL_DELIVERIES: usize = 128 << 10;
/// The entry that timelines begin with: older than all others.
const FIRST: PostId = PostId(1);
/// One delivery in so many is followed by a trim, in Misskey's way.
const MISSKEY_TRIM_EVERY: u64 = 10;
/// How many entries the ones who trim keep: as many as Roost.
const CAP: usize = HOME_TIMELINE_CAP_DEFAULT;

/// A way to write a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    PushAndTrim,
    Misskey,
    Mastodon,
    DeathStarBench,
}

/// What a strategy took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    /// While commands were under way: to lay them out is not a part of any of these ways.
    pub(super) elapsed: Duration,
    pub(super) redis_cpu: Duration,
    pub(super) deliveries: u64,
}

impl Strategy {
    pub(super) const ALL: [Self; 4] =
        [Self::PushAndTrim, Self::Misskey, Self::Mastodon, Self::DeathStarBench];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::PushAndTrim => "LPUSHX + LTRIM",
            Self::Misskey => "LPUSH, some LTRIM (Misskey)",
            Self::Mastodon => "ZADD + ZREMRANGEBYRANK (Mastodon)",
            Self::DeathStarBench => "ZADD (DeathStarBench)",
        }
    }

    /// Writes a town's deliveries, post by post, into timelines that its warm-up has begun.
    pub(super) async fn write(
        self,
        redis: &BenchRedis,
        town: &Town,
    ) -> Result<Written, BenchError> {
        redis.empty().await?;
        self.begin(redis, &town.readers()).await?;
        // As Roost's drain does.
        self.deliver(redis, &town.warm_up()).await?;
        let before = redis.usage().await?;
        let elapsed = self.deliver(redis, town).await?;
        let redis_cpu = redis.usage().await?.cpu_since(&before);
        Ok(Written { elapsed, redis_cpu, deliveries: town.delivery_count() })
    }

    /// Writes a town's deliveries, and says for how long it was writing.
    async fn deliver(self, redis: &BenchRedis, town: &Town) -> Result<Duration, BenchError> {
        let mut elapsed = Duration::ZERO;
        for posts in town.posts().chunks(POSTS_AT_ONCE) {
            for some in town.deliveries(posts).chunks(CALL_DELIVERIES) {
                let commands = Commands::of(self, some);
                let begun = Instant::now();
                run(redis, &commands).await?;
                elapsed += begun.elapsed();
            }
        }
        Ok(elapsed)
    }

    /// Fills the timelines of `readers` to the cap, and says what an entry takes, keys
    /// included.
    pub(super) async fn bytes_an_entry(
        self,
        redis: &BenchRedis,
        readers: &[UserId],
        ids: &[PostId],
    ) -> Result<f64, BenchError> {
        redis.empty().await?;
        let before = redis.usage().await?;
        self.begin(redis, readers).await?;
        for id in ids {
            let deliveries: Vec<(UserId, PostId)> =
                readers.iter().map(|reader| (*reader, *id)).collect();
            run(redis, &Commands::of(self, &deliveries)).await?;
        }
        let bytes = redis.usage().await?.memory_bytes.saturating_sub(before.memory_bytes);
        // Who never trims has all of them, and the first one.
        let entries = if self == Self::DeathStarBench { ids.len() + 1 } else { CAP };
        Ok(bytes as f64 / (readers.len() * entries) as f64)
    }

    /// Gives these readers a timeline of one entry.
    async fn begin(self, redis: &BenchRedis, readers: &[UserId]) -> Result<(), BenchError> {
        run(redis, &Commands::Begin(self, readers)).await
    }

    /// What a delivery is: its first command, and the second if there is one.
    fn pack(self, reader: UserId, id: PostId, out: &mut Vec<u8>) {
        let key = HomeKey::of(reader);
        let key = key.as_bytes();
        match self {
            Self::PushAndTrim => pack_command(out, &[b"LPUSHX", key, &id.0.to_be_bytes()]),
            Self::Misskey => {
                let text = format!("{:016x}", id.0);
                pack_command(out, &[b"LPUSH", key, text.as_bytes()]);
            }
            Self::Mastodon | Self::DeathStarBench => {
                let text = id.to_string();
                pack_command(out, &[b"ZADD", key, text.as_bytes(), text.as_bytes()]);
            }
        }
    }

    fn pack_trim(self, reader: UserId, out: &mut Vec<u8>) {
        let key = HomeKey::of(reader);
        match self {
            Self::PushAndTrim | Self::Misskey => {
                let last = (CAP - 1).to_string();
                pack_command(out, &[b"LTRIM", key.as_bytes(), b"0", last.as_bytes()]);
            }
            Self::Mastodon | Self::DeathStarBench => {
                let last = format!("-{}", CAP + 1);
                pack_command(out, &[b"ZREMRANGEBYRANK", key.as_bytes(), b"0", last.as_bytes()]);
            }
        }
    }

    /// Whether a delivery is followed by a trim.
    fn trims(self, reader: UserId, id: PostId) -> bool {
        match self {
            Self::PushAndTrim | Self::Mastodon => true,
            // At random there; here by a hash, the same in every run.
            Self::Misskey => {
                let mixed = (reader.0 ^ id.0.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                (mixed >> 32).is_multiple_of(MISSKEY_TRIM_EVERY)
            }
            Self::DeathStarBench => false,
        }
    }
}

async fn run(redis: &BenchRedis, commands: &Commands<'_>) -> Result<(), BenchError> {
    let run = redis.router().run(commands).await;
    match run.undone {
        Some((error, _)) => Err(error.into()),
        None if !run.unknown.is_empty() => Err(BenchError::RedisWentAway),
        None => Ok(()),
    }
}

/// Commands, each for one reader.
enum Commands<'a> {
    /// A first entry, in a strategy's way.
    Begin(Strategy, &'a [UserId]),
    /// Deliveries in a strategy's way: the place of each of their commands.
    Deliver { strategy: Strategy, deliveries: &'a [(UserId, PostId)], commands: Vec<Command> },
}

#[derive(Clone, Copy)]
struct Command {
    delivery: u32,
    is_trim: bool,
}

impl<'a> Commands<'a> {
    fn of(strategy: Strategy, deliveries: &'a [(UserId, PostId)]) -> Self {
        let mut commands = Vec::with_capacity(deliveries.len() * 2);
        for (place, (reader, id)) in deliveries.iter().enumerate() {
            let command = Command { delivery: place as u32, is_trim: false };
            commands.push(command);
            if strategy.trims(*reader, *id) {
                commands.push(Command { is_trim: true, ..command });
            }
        }
        Self::Deliver { strategy, deliveries, commands }
    }
}

impl Work for Commands<'_> {
    type Done = ();

    fn count(&self) -> usize {
        match self {
            Self::Begin(_, readers) => readers.len(),
            Self::Deliver { commands, .. } => commands.len(),
        }
    }

    fn slot(&self, place: u32) -> u16 {
        let reader = match self {
            Self::Begin(_, readers) => readers[place as usize],
            Self::Deliver { deliveries, commands, .. } => {
                deliveries[commands[place as usize].delivery as usize].0
            }
        };
        home_slot(&HomeKey::of(reader))
    }

    fn pack(&self, place: u32, out: &mut Vec<u8>) {
        match self {
            // There is no list yet that it could be pushed to.
            Self::Begin(Strategy::PushAndTrim, readers) => {
                let key = HomeKey::of(readers[place as usize]);
                pack_command(out, &[b"LPUSH", key.as_bytes(), &[0; 8]]);
            }
            Self::Begin(strategy, readers) => strategy.pack(readers[place as usize], FIRST, out),
            Self::Deliver { strategy, deliveries, commands } => {
                let command = commands[place as usize];
                let (reader, id) = deliveries[command.delivery as usize];
                if command.is_trim {
                    strategy.pack_trim(reader, out);
                } else {
                    strategy.pack(reader, id, out);
                }
            }
        }
    }

    fn take(&self, _: u32, _: Reply<'_>, (): &mut ()) -> bool {
        true
    }

    fn join((): &mut (), (): ()) {}
}
