//! Faults of a Kafka of three brokers, of which a majority must be there to write.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::json;
use tokio::time;

use super::World;
use crate::{
    failure::{Doing, Failure, Result},
    leaders,
    plan::Draws,
    record::{Details, details},
    services::{BROKERS, Services},
};

const TOPIC: &str = "roost-events";
/// The longest wait until every replica is in sync again.
const DEADLINE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Up to longer than the controller waits for a broker, 4 s.
const PAUSED_MS: std::ops::Range<u64> = 1_000..10_000;

impl World {
    pub(super) async fn restart_broker(&self, how: &str, draws: &mut Draws) -> Result<Details> {
        let (broker, away) = (self.one_broker(draws), draws.ms(0..6_000));
        let names = [name(broker)];
        self.services.all(how, &names).await?;
        time::sleep(away).await;
        self.services.all("start", &names).await?;
        self.are_in_sync().await?;
        Ok(details(json!({ "what": names[0], "away_seconds": away.as_secs_f64() })))
    }

    pub(super) async fn kill_two_brokers(&self, draws: &mut Draws) -> Result<Details> {
        let (stays, away) = (self.one_broker(draws), draws.ms(0..8_000));
        let names: Vec<String> = BROKERS.filter(|it| *it != stays).map(name).collect();
        self.services.all("kill", &names).await?;
        time::sleep(away).await;
        self.services.all("start", &names).await?;
        self.are_in_sync().await?;
        Ok(details(json!({ "what": names, "away_seconds": away.as_secs_f64() })))
    }

    /// A leader that is held is replaced, and goes on as if it had not been.
    pub(super) async fn pause_broker(&self, draws: &mut Draws) -> Result<Details> {
        let (broker, paused) = (self.one_broker(draws), draws.ms(PAUSED_MS));
        let names = [name(broker)];
        self.services.all("pause", &names).await?;
        time::sleep(paused).await;
        self.services.all("continue", &names).await?;
        self.are_in_sync().await?;
        Ok(details(json!({ "what": names[0], "paused_seconds": paused.as_secs_f64() })))
    }

    /// Has every partition led by another of its replicas.
    pub(super) async fn move_leaders(&self, draws: &mut Draws) -> Result<Details> {
        let by = draws.number(1..3) as usize;
        let partitions = partitions(&self.services).await?;
        let moved: Vec<(i32, Vec<i32>)> = partitions
            .into_iter()
            .map(|(partition, seen)| {
                let mut replicas = seen.replicas;
                let at = replicas.iter().position(|one| *one == seen.leader).unwrap_or_default();
                let count = replicas.len().max(1);
                replicas.rotate_left((at + by) % count);
                (partition, replicas)
            })
            .collect();
        let (broker, count) = (self.services.broker(1), moved.len());
        let moving = move || leaders::move_leaders(broker, TOPIC, &moved);
        tokio::task::spawn_blocking(moving).await.doing("moving leaders")?.doing("leaders")?;
        self.are_in_sync().await?;
        Ok(details(json!({ "what": "leaders", "partitions": count })))
    }

    fn one_broker(&self, draws: &mut Draws) -> u16 {
        draws.number(u64::from(*BROKERS.start())..u64::from(*BROKERS.end()) + 1) as u16
    }

    /// Waits until no further broker that goes can take an event along.
    async fn are_in_sync(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let seen = partitions(&self.services).await;
            if let Ok(seen) = &seen
                && !seen.is_empty()
                && seen.values().all(|one| one.leader > 0 && one.in_sync == BROKERS.len())
            {
                return Ok(());
            }
            if begun.elapsed() > DEADLINE {
                return Err(Failure::new(format!("the replicas are not in sync: {seen:?}")));
            }
            time::sleep(LOOK_EVERY).await;
        }
    }
}

fn name(broker: u16) -> String {
    format!("broker-{broker}")
}

#[derive(Debug)]
struct Seen {
    leader: i32,
    replicas: Vec<i32>,
    in_sync: usize,
}

async fn partitions(services: &Services) -> Result<BTreeMap<i32, Seen>> {
    let addresses: Vec<String> =
        BROKERS.map(|broker| services.broker(broker).to_string()).collect();
    let ask = move || -> Result<BTreeMap<i32, Seen>> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", addresses.join(","));
        let consumer: BaseConsumer = config.create().doing("a client of Kafka")?;
        let metadata = consumer.fetch_metadata(Some(TOPIC), Duration::from_secs(5));
        let metadata = metadata.doing("the topic")?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        let seen = partitions.map(|one| {
            let seen = Seen {
                leader: one.leader(),
                replicas: one.replicas().to_vec(),
                in_sync: one.isr().len(),
            };
            (one.id(), seen)
        });
        Ok(seen.collect())
    };
    tokio::task::spawn_blocking(ask).await.doing("the topic")?
}
