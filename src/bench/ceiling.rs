//! *ceiling*: the raw limit of the same machine. The push commands that Roost sends,
//! packed beforehand, and nothing else: one thread writes them, another one counts the
//! replies.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    BenchError, Goal, Ratio, Row, Section, drain,
    drain::{GOAL_DELIVERIES, RATE, REDIS_CPU, VALUES},
    ground::Ground,
    redis::BenchRedis,
    roost::micros_each,
    town::Town,
};
use crate::{
    domain::{PostId, UserId},
    fanout::combine,
    store::redis::{
        resp::{HomeKey, pack_push},
        slots::NodeAddress,
    },
};

const READ_BYTES: usize = 256 << 10;
/// How near the values of a push must come to those of the drain, as a share of them.
const NEAR: f64 = 0.03;
/// Sizes of a flush that are tried for that.
const SIZES_MAX: usize = 16;

/// Roost, and the machine's limit for the same commands; not on a Cluster.
pub(super) async fn measure(ground: &mut Ground<'_>) -> Result<Vec<Section>, BenchError> {
    let map = ground.redis.router().map().await?;
    let [node] = map.nodes() else {
        return Ok(vec![Section::not_measured(
            "ceiling",
            "the nodes of a Cluster cannot be reached over one connection",
        )]);
    };
    if ground.redis.config().needs_introduction() {
        return Ok(vec![Section::not_measured(
            "ceiling",
            "its thread speaks to a Redis without TLS, a password or another database than 0",
        )]);
    }
    let town = ground.town().await?;
    ground.say("draining, Redis");
    // What it leaves is what the limit is measured on: the same keys among the same others.
    let drained = drain::drain(ground, &town).await?;
    ground.drained.get_or_insert_with(|| drained.clone());
    ground.say("the machine's limit");
    let work = &drained.drained.work;
    let wanted = work.values_a_push();
    let packing = tokio::task::spawn_blocking({
        let town = Arc::clone(&town);
        move || Packed::like(&town, wanted)
    });
    let packed = packing.await.map_err(|_| BenchError::Panicked)?;
    let (deliveries, pushes) = (packed.deliveries, packed.pushes);
    let values = deliveries as f64 / pushes as f64;
    let sent = packed.send(&ground.redis, node.clone()).await?;
    let rate = deliveries as f64 / sent.elapsed.as_secs_f64();
    let ceiling = Row::new("ceiling").with(RATE, rate, "/s").with(VALUES, values, "").with(
        REDIS_CPU,
        micros_each(sent.redis_cpu, deliveries),
        "µs",
    );
    Ok(vec![Section {
        name: "ceiling".to_owned(),
        about: "A drain into Redis, and right after it the same commands once more, packed \
                beforehand and sent over one connection by a thread that does nothing else, \
                onto the lists that the drain has left."
            .to_owned(),
        rows: vec![drained.row("roost"), ceiling],
        ratios: vec![Ratio {
            name: "deliveries/s, Roost ÷ ceiling".to_owned(),
            value: work.rate() / rate,
            // Of pushes of another size it says nothing.
            goal: Goal::AtLeast(0.8)
                .only_if(is_near(values, wanted) && town.delivery_count() >= GOAL_DELIVERIES),
        }],
        ..Section::default()
    }])
}

fn is_near(values: f64, wanted: f64) -> bool {
    (values / wanted - 1.0).abs() < NEAR
}

/// Push commands, packed.
#[derive(Default)]
struct Packed {
    /// As many as were combined at once.
    flush_deliveries: u64,
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
    /// The pushes of a town, combined in flushes of a size at which a push has about as
    /// many values as `wanted`.
    fn like(town: &Town, wanted: f64) -> Self {
        let (mut low, mut high) = (1, town.delivery_count());
        let mut packed = Self::of(town, high);
        for _ in 0..SIZES_MAX {
            let values = packed.deliveries as f64 / packed.pushes.max(1) as f64;
            if is_near(values, wanted) || high - low <= 1 {
                break;
            }
            if values > wanted {
                high = packed.flush_deliveries
            } else {
                low = packed.flush_deliveries
            }
            packed = Self::of(town, ((low as f64) * (high as f64)).sqrt() as u64);
        }
        packed
    }

    /// The pushes of a town as they are combined, in flushes of so many deliveries.
    fn of(town: &Town, flush_deliveries: u64) -> Self {
        let mut packed = Self { flush_deliveries, ..Self::default() };
        let mut flush = Vec::new();
        for post in town.posts() {
            flush.extend(town.deliveries(&[*post]));
            if flush.len() as u64 >= flush_deliveries {
                packed.add(std::mem::take(&mut flush));
            }
        }
        packed.add(flush);
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
