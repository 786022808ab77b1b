//! What the log makes of a Kafka as it is in production, three brokers with replication 3
//! and min.insync.replicas 2: brokers that go and come back, leaders that move, replicas
//! that are missing.

mod services;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
};
use roost::event_log::{
    EventLog, LogError,
    kafka::{KafkaLog, Settings},
};
use services::brokers::{Brokers, brokers_settings};
use tokio::{task::JoinHandle, time::timeout};

const DEADLINE: Duration = Duration::from_secs(120);
/// How long calls may take while brokers are away, with the settings of [`settings`].
const BOUND: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn topic_gets_three_replicas() {
    let Some(brokers) = Brokers::take().await else { return };
    let Some(settings) = settings(3) else { return };
    let log = KafkaLog::open(settings.clone()).await.unwrap();
    assert_eq!(log.partitions(), 3);
    let partitions = brokers.partitions(&settings.topic).await;
    assert!(partitions.values().all(|(_, replicas, _)| replicas.len() == 3), "{partitions:?}");
    let topic = ResourceSpecifier::Topic(&settings.topic);
    let described = admin(&settings).describe_configs([&topic], &AdminOptions::new()).await;
    let config = described.unwrap().remove(0).unwrap();
    let min_insync = config.get("min.insync.replicas").unwrap().value.clone();
    assert_eq!(min_insync.as_deref(), Some("2"));
}

/// With two of three brokers there, a topic would have two replicas for ever.
#[tokio::test(flavor = "multi_thread")]
async fn topic_waits_for_the_third_broker() {
    let Some(brokers) = Brokers::take().await else { return };
    let Some(settings) = settings(2) else { return };
    brokers.stop(&[3]).await;
    let error = KafkaLog::open(settings.clone()).await.unwrap_err();
    println!("{error}");
    assert!(matches!(error, LogError::Unavailable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("3 replicas, and 2 of the cluster's 3 brokers"), "{text}");
    assert!(brokers.partitions(&settings.topic).await.is_empty(), "no topic is made");

    let asked = Settings { replication: Some(2), ..self::settings(1).unwrap() };
    KafkaLog::open(asked.clone()).await.unwrap();
    let partitions = brokers.partitions(&asked.topic).await;
    assert!(partitions.values().all(|(_, replicas, _)| replicas.len() == 2), "{partitions:?}");

    brokers.start(&[3]).await;
    let _log = open(&settings).await;
    brokers.are_in_sync(&settings.topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_go_one_by_one_lose_nothing() {
    let Some(brokers) = Brokers::take().await else { return };
    let Some(settings) = settings(3) else { return };
    let log = Arc::new(KafkaLog::open(settings.clone()).await.unwrap());
    let traffic = Traffic::start(&log, 3);
    for broker in [1, 2, 3] {
        brokers.stop(&[broker]).await;
        traffic.goes_on(&log, 20).await;
        brokers.start(&[broker]).await;
        brokers.are_in_sync(&settings.topic).await;
        brokers.kill(&[broker]).await;
        traffic.goes_on(&log, 20).await;
        brokers.start(&[broker]).await;
        brokers.are_in_sync(&settings.topic).await;
    }
    traffic.end(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_move_lose_nothing() {
    let Some(brokers) = Brokers::take().await else { return };
    let Some(settings) = settings(3) else { return };
    let log = Arc::new(KafkaLog::open(settings.clone()).await.unwrap());
    brokers.are_in_sync(&settings.topic).await;
    let traffic = Traffic::start(&log, 3);
    for _ in 0..4 {
        brokers.move_leaders(&settings.topic).await;
        traffic.goes_on(&log, 20).await;
    }
    traffic.end(&log).await;
}

/// A leader that is held goes on as if it still led, until it hears of its successor.
#[tokio::test(flavor = "multi_thread")]
async fn leader_that_was_held_is_no_loss() {
    let Some(brokers) = Brokers::take().await else { return };
    let Some(settings) = settings(1) else { return };
    let log = Arc::new(KafkaLog::open(settings.clone()).await.unwrap());
    let traffic = Traffic::start(&log, 1);
    for _ in 0..2 {
        traffic.goes_on(&log, 10).await;
        let leader = brokers.partitions(&settings.topic).await[&0].0;
        brokers.pause(leader).await;
        traffic.goes_on(&log, 10).await;
        let seen = log.end(0).await.unwrap();
        brokers.go_on(leader).await;
        // Another process, which knows nothing yet.
        let other = open(&settings).await;
        for _ in 0..20 {
            let end = timeout(DEADLINE, other.end_reaching(0, seen)).await.unwrap().unwrap();
            assert!(end >= seen, "{end} is before {seen}");
        }
        traffic.goes_on(&log, 10).await;
        brokers.are_in_sync(&settings.topic).await;
    }
    traffic.end(&log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_below_the_minimum_refuse_in_time() {
    let Some(brokers) = Brokers::take().await else { return };
    let Some(settings) = settings(3) else { return };
    let log = Arc::new(KafkaLog::open(settings.clone()).await.unwrap());
    brokers.are_in_sync(&settings.topic).await;
    let traffic = Traffic::start(&log, 3);
    traffic.goes_on(&log, 10).await;
    traffic.end(&log).await;

    // All replicas must have it, and one is away: the leaders refuse.
    alter_min_insync(&settings, "3").await;
    brokers.stop(&[2]).await;
    is_refused(&log).await;
    assert!(!log.read(0, 0, 1000).await.unwrap().is_empty(), "what is here can be read");
    alter_min_insync(&settings, "2").await;
    append_soon(&log).await;

    // Two are away, and the third has no majority.
    brokers.kill(&[3]).await;
    is_refused(&log).await;
    assert!(!log.read(0, 0, 1000).await.unwrap().is_empty(), "what is here can be read");
    brokers.start(&[2, 3]).await;
    append_soon(&log).await;
    brokers.are_in_sync(&settings.topic).await;
}

fn settings(partitions: u32) -> Option<Settings> {
    Some(Settings {
        delivery_timeout: Duration::from_secs(4),
        request_timeout: Duration::from_secs(4),
        ..brokers_settings(partitions)?
    })
}

async fn open(settings: &Settings) -> KafkaLog {
    let opened = timeout(DEADLINE, async {
        loop {
            match KafkaLog::open(settings.clone()).await {
                Ok(log) => break log,
                Err(LogError::Unavailable { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    opened.await.expect("it opens")
}

async fn is_refused(log: &KafkaLog) {
    for partition in 0..log.partitions() {
        let append = log.append(partition, vec![Bytes::from_static(b"refused")]);
        let error = timeout(BOUND, append).await.expect("in time").unwrap_err();
        assert!(matches!(error, LogError::Unavailable { .. }), "{error}");
        println!("{error}");
    }
}

async fn append_soon(log: &KafkaLog) {
    for partition in 0..log.partitions() {
        timeout(DEADLINE, append(log, partition, "again")).await.expect("it goes on by itself");
    }
}

/// Appends until it is acknowledged: where.
async fn append(log: &KafkaLog, partition: u32, text: &str) -> u64 {
    loop {
        match log.append(partition, vec![Bytes::from(text.to_owned())]).await {
            Ok(offsets) => return offsets[0],
            Err(LogError::Unavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn alter_min_insync(settings: &Settings, count: &str) {
    let required = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("unclean.leader.election.enable", "false"),
        ("min.insync.replicas", count),
    ];
    let alter = AlterConfig::new(ResourceSpecifier::Topic(&settings.topic));
    let alter = required.into_iter().fold(alter, |alter, (name, value)| alter.set(name, value));
    let altered = admin(settings).alter_configs([&alter], &AdminOptions::new()).await.unwrap();
    altered.into_iter().for_each(|result| drop(result.unwrap()));
}

fn admin(settings: &Settings) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &settings.brokers).create().unwrap()
}

/// Appends and reads of every partition that go on until they are ended.
struct Traffic {
    over: Arc<AtomicBool>,
    partitions: Vec<Partition>,
}

struct Partition {
    /// Each append that was acknowledged: where, and what.
    appending: JoinHandle<Vec<(u64, String)>>,
    /// All that was read, which has no gap.
    reading: JoinHandle<Vec<Bytes>>,
}

impl Traffic {
    fn start(log: &Arc<KafkaLog>, partitions: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let start = |partition| Partition {
            appending: tokio::spawn({
                let (log, over) = (Arc::clone(log), Arc::clone(&over));
                async move {
                    let mut acknowledged = Vec::new();
                    for number in 0.. {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        let text = format!("{partition}/{number}");
                        acknowledged.push((append(&log, partition, &text).await, text));
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    acknowledged
                }
            }),
            reading: tokio::spawn({
                let (log, over) = (Arc::clone(log), Arc::clone(&over));
                async move {
                    let mut all: Vec<Bytes> = Vec::new();
                    loop {
                        let next = all.len() as u64;
                        let step = Duration::from_secs(1);
                        // As a worker waits, which looks at other things each second.
                        match timeout(step, log.wait_past(partition, next)).await {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => panic!("waiting at {next}: {error}"),
                            Err(_) if over.load(Ordering::Relaxed) => break all,
                            Err(_) => continue,
                        }
                        match log.read(partition, next, 1 << 20).await {
                            Ok(records) => all.extend(records.into_iter().map(|it| it.payload)),
                            Err(LogError::Unavailable { .. }) => {}
                            Err(error) => panic!("reading at {next}: {error}"),
                        }
                    }
                }
            }),
        };
        Self { partitions: (0..partitions).map(start).collect(), over }
    }

    /// Waits until each partition has so many events more.
    async fn goes_on(&self, log: &KafkaLog, count: u64) {
        let end = async |partition: u32| loop {
            if let Ok(end) = log.end(partition).await {
                break end;
            }
        };
        let more = async {
            for partition in 0..self.partitions.len() as u32 {
                let begun = end(partition).await;
                while end(partition).await < begun + count {
                    assert!(!self.partitions[partition as usize].reading.is_finished());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        timeout(DEADLINE, more).await.expect("appends go on");
    }

    /// Every event that was acknowledged is read, where it is said to be.
    async fn end(self, log: &KafkaLog) {
        self.over.store(true, Ordering::Relaxed);
        for (partition, traffic) in (0..).zip(self.partitions) {
            let acknowledged = timeout(DEADLINE, traffic.appending).await.unwrap().unwrap();
            let read = timeout(DEADLINE, traffic.reading).await.unwrap().unwrap();
            assert!(!acknowledged.is_empty());
            let end = log.end(partition).await.unwrap();
            assert!(read.len() as u64 <= end);
            for (offset, text) in acknowledged {
                // The reader may have ended before the last of them.
                let found = match read.get(offset as usize) {
                    Some(payload) => payload.clone(),
                    None => log.read(partition, offset, 1).await.unwrap().remove(0).payload,
                };
                assert_eq!(found, text, "offset {offset} of partition {partition}");
            }
        }
    }
}
