//! What every event log does, written once and run on each backend.

#[path = "common/behaviours.rs"]
mod behaviours;
#[path = "common/seed.rs"]
mod seed;
mod services;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use roost::event_log::{
    EventLog, LogError, Record,
    embedded::{EmbeddedLog, Settings},
    kafka::{KafkaLog, Settings as KafkaSettings},
};
use tempfile::TempDir;
use tokio::time::timeout;

use self::{behaviours::behaviours, seed::seed};

const PARTITIONS: u32 = 3;
const DEADLINE: Duration = Duration::from_secs(60);

/// Where a log of [`PARTITIONS`] partitions is, empty at first.
trait Backend {
    type Log: EventLog;

    /// Opens the log, each time the same one.
    fn open(&self) -> impl Future<Output = Self::Log>;
}

struct Embedded {
    dir: TempDir,
    settings: Settings,
}

impl Backend for Embedded {
    type Log = EmbeddedLog;

    async fn open(&self) -> EmbeddedLog {
        EmbeddedLog::open(self.dir.path(), self.settings.clone()).unwrap()
    }
}

/// A topic of its own.
struct Kafka(KafkaSettings);

impl Backend for Kafka {
    type Log = KafkaLog;

    async fn open(&self) -> KafkaLog {
        KafkaLog::open(self.0.clone()).await.unwrap()
    }
}

fn embedded() -> Option<Embedded> {
    let settings = Settings { partitions: Some(PARTITIONS), ..Settings::default() };
    Some(Embedded { dir: tempfile::tempdir().unwrap(), settings })
}

/// Every bound is met all the time.
fn embedded_in_small_pieces() -> Option<Embedded> {
    let settings = Settings {
        partitions: Some(PARTITIONS),
        segment_bytes_max: 500,
        queue_bytes_max: 300,
        group_bytes_max: 2000,
    };
    Some(Embedded { settings, dir: tempfile::tempdir().unwrap() })
}

fn kafka() -> Option<Kafka> {
    Some(Kafka(services::kafka_settings(PARTITIONS)?))
}

fn three_brokers() -> Option<Kafka> {
    Some(Kafka(services::brokers::brokers_settings(PARTITIONS)?))
}

/// The backends that all behaviours run on, a line each.
macro_rules! on_every_backend {
    ($($behaviours:tt)*) => {
        behaviours!(embedded: $($behaviours)*);
        behaviours!(embedded_in_small_pieces: $($behaviours)*);
        behaviours!(kafka: $($behaviours)*);
        behaviours!(three_brokers: $($behaviours)*);
    };
}

on_every_backend! {
    a_new_log_is_empty
    offsets_are_consecutive_from_0_in_each_partition
    records_are_read_in_the_order_of_appending
    a_read_keeps_to_its_limit_but_answers_one_record
    an_append_of_nothing_and_a_record_of_nothing_are_allowed
    appends_of_many_tasks_are_where_they_say_and_each_tasks_in_order
    several_readers_read_the_same
    waiting_ends_when_there_is_something_to_read
    what_was_acknowledged_is_there_after_reopening
    a_commit_survives_reopening_and_is_its_partitions_own
    a_commit_never_goes_back_nor_beyond_the_end
    it_is_what_a_plain_list_would_be
}

async fn a_new_log_is_empty(backend: impl Backend) {
    let log = backend.open().await;
    assert_eq!(log.partitions(), PARTITIONS);
    for partition in 0..PARTITIONS {
        assert_eq!(end(&log, partition).await, 0);
        assert_eq!(log.committed(partition).await.unwrap(), 0);
        assert_eq!(log.read(partition, 0, 1000).await.unwrap(), []);
        assert_eq!(log.read(partition, 5, 1000).await.unwrap(), []);
    }
}

async fn offsets_are_consecutive_from_0_in_each_partition(backend: impl Backend) {
    let log = backend.open().await;
    assert_eq!(append(&log, 0, &["a"]).await, [0]);
    assert_eq!(append(&log, 0, &["b", "c", "d"]).await, [1, 2, 3]);
    assert_eq!(append(&log, 2, &["e", "f"]).await, [0, 1]);
    assert_eq!(append(&log, 0, &["g"]).await, [4]);
    assert_eq!([end(&log, 0).await, end(&log, 1).await, end(&log, 2).await], [5, 0, 2]);
}

async fn records_are_read_in_the_order_of_appending(backend: impl Backend) {
    let log = backend.open().await;
    append(&log, 1, &["a", "b"]).await;
    append(&log, 1, &["c"]).await;
    assert_eq!(texts(&log.read(1, 0, 1000).await.unwrap()), ["a", "b", "c"]);
    assert_eq!(log.read(1, 1, 1000).await.unwrap()[0].offset, 1);
    assert_eq!(texts(&log.read(1, 1, 1000).await.unwrap()), ["b", "c"]);
    assert_eq!(texts(&log.read(1, 2, 1000).await.unwrap()), ["c"]);
    for beyond in [3, 4, u64::MAX] {
        assert_eq!(log.read(1, beyond, 1000).await.unwrap(), []);
    }
}

async fn a_read_keeps_to_its_limit_but_answers_one_record(backend: impl Backend) {
    let log = backend.open().await;
    let payload = "x".repeat(100);
    append(&log, 0, &[&payload; 10]).await;
    let count = async |from, bytes_max| log.read(0, from, bytes_max).await.unwrap().len();
    assert_eq!(count(0, 0).await, 1);
    assert_eq!(count(0, 99).await, 1);
    assert_eq!(count(0, 250).await, 2);
    assert_eq!(count(2, 300).await, 3);
    assert_eq!(count(8, usize::MAX).await, 2);
    let mut next = 0;
    while next < end(&log, 0).await {
        let records = log.read(0, next, 300).await.unwrap();
        assert_eq!(records.first().map(|record| record.offset), Some(next));
        next += records.len() as u64;
    }
    assert_eq!(next, 10);
}

async fn an_append_of_nothing_and_a_record_of_nothing_are_allowed(backend: impl Backend) {
    let log = backend.open().await;
    assert!(append(&log, 0, &[""; 0]).await.is_empty());
    assert_eq!(end(&log, 0).await, 0);
    assert_eq!(append(&log, 0, &["", "a", ""]).await, [0, 1, 2]);
    assert_eq!(texts(&log.read(0, 0, 1000).await.unwrap()), ["", "a", ""]);
}

async fn appends_of_many_tasks_are_where_they_say_and_each_tasks_in_order(backend: impl Backend) {
    const TASKS: u32 = 30;
    const APPENDS: usize = 20;
    let log = Arc::new(backend.open().await);
    let text = |task, append, record| format!("{task}/{append}/{record}");
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut appends = Vec::new();
                for at in 0..APPENDS {
                    let payloads: Vec<_> = (0..=at % 4).map(|i| text(task, at, i)).collect();
                    appends.push(append(&*log, task % PARTITIONS, &payloads).await);
                }
                appends
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for task in tasks {
        acknowledged.push(task.await.unwrap());
    }
    for partition in 0..PARTITIONS {
        let all = texts(&read_all(&*log, partition).await);
        let mut covered = 0;
        for (task, appends) in (0..TASKS).zip(&acknowledged) {
            if task % PARTITIONS != partition {
                continue;
            }
            assert!(appends.iter().flatten().is_sorted_by(|a, b| a < b));
            for (at, offsets) in appends.iter().enumerate() {
                let expected: Vec<_> = (0..=at % 4).map(|i| text(task, at, i)).collect();
                let found: Vec<_> =
                    offsets.iter().map(|offset| all[*offset as usize].clone()).collect();
                assert_eq!(found, expected);
                covered += expected.len();
            }
        }
        assert_eq!(covered, all.len());
    }
}

async fn several_readers_read_the_same(backend: impl Backend) {
    const RECORDS: usize = 200;
    let log = Arc::new(backend.open().await);
    let readers: Vec<_> = (0..6)
        .map(|reader| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut all = Vec::new();
                while all.len() < RECORDS {
                    let next = all.len() as u64;
                    log.wait_past(0, next).await.unwrap();
                    let records = log.read(0, next, 1 + reader * 7).await.unwrap();
                    assert!(records.iter().map(|r| r.offset).eq(next..next + records.len() as u64));
                    all.extend(texts(&records));
                }
                all
            })
        })
        .collect();
    let expected: Vec<String> = (0..RECORDS).map(|i| i.to_string()).collect();
    for texts in expected.chunks(3) {
        append(&*log, 0, texts).await;
    }
    for reader in readers {
        assert_eq!(reader.await.unwrap(), expected);
    }
}

async fn waiting_ends_when_there_is_something_to_read(backend: impl Backend) {
    let log = Arc::new(backend.open().await);
    append(&*log, 1, &["not enough"]).await;
    let waits = {
        let log = log.clone();
        tokio::spawn(async move {
            log.wait_past(1, 1).await.unwrap();
            log.end(1).await.unwrap()
        })
    };
    append(&*log, 0, &["another partition", "'s", "records"]).await;
    assert!(!waits.is_finished());
    append(&*log, 1, &["enough"]).await;
    assert_eq!(timeout(DEADLINE, waits).await.unwrap().unwrap(), 2);
    log.wait_past(1, 0).await.unwrap();
}

async fn what_was_acknowledged_is_there_after_reopening(backend: impl Backend) {
    let mut expected = Vec::new();
    for round in 0..4 {
        let log = backend.open().await;
        assert_eq!(texts(&read_all(&log, 0).await), expected);
        for at in 0..10 {
            let text = format!("{round}/{at} {}", "x".repeat(at * 10));
            let offsets = append(&log, 0, &[&text]).await;
            assert_eq!(offsets, [expected.len() as u64]);
            expected.push(text);
        }
    }
}

async fn a_commit_survives_reopening_and_is_its_partitions_own(backend: impl Backend) {
    let log = backend.open().await;
    append(&log, 0, &["a", "b", "c"]).await;
    append(&log, 1, &["a", "b", "c"]).await;
    log.commit(0, 2).await.unwrap();
    log.commit(1, 3).await.unwrap();
    assert_eq!(committed(&log).await, [2, 3, 0]);
    drop(log);
    let log = backend.open().await;
    assert_eq!(committed(&log).await, [2, 3, 0]);
}

async fn a_commit_never_goes_back_nor_beyond_the_end(backend: impl Backend) {
    let log = backend.open().await;
    append(&log, 0, &["a", "b", "c"]).await;
    log.commit(0, 2).await.unwrap();
    log.commit(0, 1).await.unwrap();
    assert_eq!(committed(&log).await[0], 2);
    let error = log.commit(0, 4).await.unwrap_err();
    assert!(matches!(error, LogError::BeyondEnd { partition: 0, offset: 4, end: 3 }), "{error}");
    assert_eq!(committed(&log).await[0], 2);
    log.commit(0, 3).await.unwrap();
    drop(log);
    assert_eq!(committed(&backend.open().await).await[0], 3);
}

async fn it_is_what_a_plain_list_would_be(backend: impl Backend) {
    let mut rng = StdRng::seed_from_u64(seed());
    let mut log = backend.open().await;
    let mut model: Vec<Vec<Bytes>> = vec![Vec::new(); PARTITIONS as usize];
    let mut next_byte = 0u8;
    for _ in 0..150 {
        let partition = rng.random_range(0..PARTITIONS);
        let list = &mut model[partition as usize];
        match rng.random_range(0..10) {
            0 => {
                drop(log);
                log = backend.open().await;
            }
            1..5 => {
                let payloads: Vec<Bytes> = (0..rng.random_range(0..5))
                    .map(|_| {
                        next_byte = next_byte.wrapping_add(1);
                        vec![next_byte; rng.random_range(0..300)].into()
                    })
                    .collect();
                let start = list.len() as u64;
                let offsets = log.append(partition, payloads.clone()).await.unwrap();
                list.extend(payloads);
                assert!(offsets.into_iter().eq(start..list.len() as u64));
            }
            _ => {
                let from = rng.random_range(0..=list.len() + 1);
                let bytes_max = rng.random_range(0..2000);
                let mut bytes = 0;
                let expected = list.iter().enumerate().skip(from).take_while(|(at, payload)| {
                    bytes += payload.len();
                    *at == from || bytes <= bytes_max
                });
                let expected: Vec<_> = expected
                    .map(|(at, payload)| Record { offset: at as u64, payload: payload.clone() })
                    .collect();
                let records = log.read(partition, from as u64, bytes_max).await.unwrap();
                // A backend may answer fewer, but the same, and never none.
                assert_eq!(records, expected[..records.len()]);
                assert_eq!(records.is_empty(), expected.is_empty());
            }
        }
    }
    for (partition, list) in (0..PARTITIONS).zip(&model) {
        assert_eq!(end(&log, partition).await, list.len() as u64);
    }
}

async fn append(log: &impl EventLog, partition: u32, texts: &[impl AsRef<str>]) -> Vec<u64> {
    let payloads = texts.iter().map(|text| Bytes::from(text.as_ref().to_owned())).collect();
    let offsets = log.append(partition, payloads).await.unwrap();
    let end = end(log, partition).await;
    assert!(offsets.iter().all(|offset| *offset < end));
    offsets
}

async fn end(log: &impl EventLog, partition: u32) -> u64 {
    log.end(partition).await.unwrap()
}

async fn committed(log: &impl EventLog) -> Vec<u64> {
    let mut committed = Vec::new();
    for partition in 0..PARTITIONS {
        committed.push(log.committed(partition).await.unwrap());
    }
    committed
}

async fn read_all(log: &impl EventLog, partition: u32) -> Vec<Record> {
    let mut records = Vec::new();
    while (records.len() as u64) < end(log, partition).await {
        records.extend(log.read(partition, records.len() as u64, 1000).await.unwrap());
    }
    records
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8(record.payload.to_vec()).unwrap()).collect()
}
