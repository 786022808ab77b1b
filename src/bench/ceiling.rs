//! *ceiling*: the raw limit of the same machine. The push commands that Roost sends,
//! packed beforehand, and nothing else: one thread writes them, another one counts the
//! replies.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use super::{
    BenchError, Goal, Ratio, Row, Section, drain,
    drain::{RATE, REDIS_CPU, VALUES},
    ground::Ground,
    redis::BenchRedis,
    rivals,
    roost::micros_each,
    town::{Town, TownPost},
};
use crate::{
    domain::{PostId, UserId},
    event_log::{codec, partition_of},
    fanout::{self, combine},
    store::redis::{
        resp::{HomeKey, pack_push},
        slots::NodeAddress,
    },
};

const READ_BYTES: usize = 256 << 10;

/// Roost, and the machine's limit for the same commands. Nothing on a Cluster, whose
/// nodes one connection cannot reach.
pub(super) async fn measure(ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
    let map = ground.redis.router().map().await?;
    let [node] = map.nodes() else { return Ok(Vec::new()) };
    let town = ground.town().await?;
    let drained = drain::drained(ground).await?;
    ground.say("the machine's limit");
    // Onto lists that are there, as in a drain.
    let readers = town.readers();
    rivals::wake(&ground.redis, &readers).await?;
    let work = &drained.drained.work;
    let packed = Packed::of(&town, drained.partitions);
    let (deliveries, pushes) = (packed.deliveries, packed.pushes);
    let sent = packed.send(&ground.redis, node.clone()).await?;
    let rate = deliveries as f64 / sent.elapsed.as_secs_f64();
    let ceiling = Row::new("ceiling")
        .with(RATE, rate, "/s")
        .with(VALUES, deliveries as f64 / pushes as f64, "")
        .with(REDIS_CPU, micros_each(sent.redis_cpu, deliveries), "µs");
    Ok(vec![Section {
        name: "ceiling".to_owned(),
        about: "The commands of the drain into Redis, combined as workers do, packed \
                beforehand, and sent over one connection by a thread that does nothing else, \
                onto the same readers' lists."
            .to_owned(),
        rows: vec![drained.row("roost"), ceiling],
        ratios: vec![Ratio {
            name: "deliveries/s, Roost ÷ ceiling".to_owned(),
            value: work.rate() / rate,
            goal: Some(Goal::AtLeast(0.8)),
        }],
        ..Section::default()
    }])
}

/// Push commands, packed.
struct Packed {
    bytes: Vec<u8>,
    pushes: u64,
    deliveries: u64,
}

/// What sending them took.
#[derive(Clone, Copy, Debug)]
struct Sent {
    elapsed: Duration,
    redis_cpu: Duration,
}

impl Packed {
    /// The pushes of a town as workers combine them, partition by partition.
    fn of(town: &Town, partitions: u32) -> Self {
        let mut posts = vec![Vec::<TownPost>::new(); partitions as usize];
        for post in town.posts() {
            posts[partition_of(town.author(*post), partitions) as usize].push(*post);
        }
        let settings = fanout::Settings::default();
        let mut packed = Self { bytes: Vec::new(), pushes: 0, deliveries: 0 };
        for posts in posts {
            let mut round = Vec::new();
            for posts in fanouts(town, &posts, settings.batch_bytes_max) {
                round.extend(town.deliveries(&posts));
                if round.len() >= settings.round_deliveries_max {
                    packed.add(std::mem::take(&mut round));
                }
            }
            packed.add(round);
        }
        packed
    }

    fn add(&mut self, round: Vec<(UserId, PostId)>) {
        let pushes = combine(round);
        for (reader, ids) in pushes.iter() {
            pack_push(&mut self.bytes, &HomeKey::of(reader), ids);
            self.pushes += 1;
            self.deliveries += ids.len() as u64;
        }
    }

    /// Sends them over one connection, as fast as it takes them.
    async fn send(self, redis: &BenchRedis, to: NodeAddress) -> Result<Sent, BenchError> {
        let before = redis.usage().await?;
        let sent = tokio::task::spawn_blocking(move || send_all(&self, &to));
        let elapsed = sent.await.map_err(|_| BenchError::Panicked)?.map_err(BenchError::Ceiling)?;
        Ok(Sent { elapsed, redis_cpu: redis.usage().await?.cpu_since(&before) })
    }
}

/// The posts of a partition that workers fan out together: those of one author in one
/// batch of the log, in the order of the first of them.
fn fanouts(town: &Town, posts: &[TownPost], batch_bytes_max: usize) -> Vec<Vec<TownPost>> {
    let mut fanouts = Vec::<Vec<TownPost>>::new();
    // Where an author's posts of this batch are.
    let mut places = HashMap::new();
    let mut batch_bytes = 0;
    for post in posts {
        let place = *places.entry(town.author(*post)).or_insert_with(|| {
            fanouts.push(Vec::new());
            fanouts.len() - 1
        });
        fanouts[place].push(*post);
        batch_bytes += codec::encode(&town.event(*post)).len();
        if batch_bytes >= batch_bytes_max {
            places.clear();
            batch_bytes = 0;
        }
    }
    fanouts
}

/// Every reply is a line, as a push is answered by a number.
fn send_all(packed: &Packed, to: &NodeAddress) -> std::io::Result<Duration> {
    let mut stream = TcpStream::connect((&*to.host, to.port))?;
    stream.set_nodelay(true)?;
    let mut replies = stream.try_clone()?;
    let begun = Instant::now();
    thread::scope(|scope| {
        let writing = scope.spawn(move || stream.write_all(&packed.bytes));
        let mut buffer = vec![0; READ_BYTES];
        let mut left = packed.pushes;
        while left > 0 {
            let count = replies.read(&mut buffer)?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let lines = buffer[..count].iter().filter(|byte| **byte == b'\n').count();
            left = left.saturating_sub(lines as u64);
        }
        writing.join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))
    })?;
    Ok(begun.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::town::Drawn;

    #[test]
    fn the_posts_of_an_author_are_fanned_out_together_within_a_batch() {
        let drawn = Drawn { authors: 2, first_id: 101, followers: 10 };
        let town = Town::drawn(1, 100, drawn, 8);
        let lens = |bytes| -> Vec<usize> {
            fanouts(&town, town.posts(), bytes).iter().map(Vec::len).collect()
        };
        assert_eq!(lens(usize::MAX), [4, 4]);
        let post_bytes = codec::encode(&town.event(town.posts()[0])).len();
        assert_eq!(lens(4 * post_bytes), [2, 2, 2, 2]);
        assert_eq!(lens(1), [1; 8]);
    }

    #[test]
    fn what_is_packed_carries_every_delivery_once() {
        let drawn = Drawn { authors: 5, first_id: 101, followers: 10 };
        let town = Town::drawn(1, 100, drawn, 50);
        let packed = Packed::of(&town, 4);
        assert_eq!(packed.deliveries, town.delivery_count());
        assert!(packed.pushes < packed.deliveries, "{} pushes", packed.pushes);
    }
}
