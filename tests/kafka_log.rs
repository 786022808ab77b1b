//! What the log in Kafka makes of topics, workers, brokers that are away, and
//! brokers that refuse.

mod services;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use roost::event_log::{
    Assignment, Assignments, EventLog, LogError,
    kafka::{KafkaLog, Settings},
};
use services::proxy::Proxy;
use tokio::{sync::Mutex, time::timeout};

const DEADLINE: Duration = Duration::from_secs(60);

/// One test at a time has the proxy's address.
static PROXY: Mutex<()> = Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_made_as_a_log_must_be() {
    let Some(settings) = services::kafka_settings(5) else { return };
    let log = KafkaLog::open(settings.clone()).await.unwrap();
    assert_eq!(log.partitions(), 5);
    let configs = configs(&settings).await;
    for (name, value) in [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("min.insync.replicas", "1"),
        ("unclean.leader.election.enable", "false"),
    ] {
        assert_eq!(configs[name], value, "{name}");
    }
    let any = KafkaLog::open(Settings { partitions: None, ..settings }).await.unwrap();
    assert_eq!(any.partitions(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_removed_is_gone_and_removing_it_again_is_as_good() {
    let Some(settings) = services::kafka_settings(2) else { return };
    let log = KafkaLog::open(settings.clone()).await.unwrap();
    log.append(1, vec![Bytes::from_static(b"event")]).await.unwrap();
    log.close().await;
    drop(log);
    for _ in 0..2 {
        KafkaLog::remove(settings.clone()).await.unwrap();
    }
    let topics = admin(&settings).inner().fetch_metadata(None, DEADLINE).unwrap();
    assert!(topics.topics().iter().all(|topic| topic.name() != settings.topic));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_other_settings_is_refused_and_each_is_named() {
    let Some(settings) = services::kafka_settings(3) else { return };
    let wrong = [
        ("cleanup.policy", "compact"),
        ("retention.ms", "604800000"),
        ("retention.bytes", "1000000"),
        ("min.insync.replicas", "2"),
        ("max.message.bytes", "100000"),
        ("compression.type", "gzip"),
    ];
    let topic = NewTopic::new(&settings.topic, 2, TopicReplication::Fixed(1));
    let topic = wrong.into_iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    admin(&settings).create_topics([&topic], &AdminOptions::new()).await.unwrap()[0]
        .as_ref()
        .unwrap();
    let error = KafkaLog::open(settings.clone()).await.unwrap_err();
    assert!(matches!(error, LogError::Topic { .. }), "{error}");
    let text = error.to_string();
    println!("{text}");
    assert!(text.contains("it has 2 partitions and 3 were asked for"), "{text}");
    for (name, value) in wrong {
        assert!(text.contains(&format!("{name} is {value}")), "{name}: {text}");
    }
    assert!(text.contains(&settings.topic) && !text.contains('\n'), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_cannot_be_made_is_an_error_that_says_why() {
    let Some(settings) = services::kafka_settings(3) else { return };
    let error = KafkaLog::open(Settings { replication: Some(9), ..settings }).await.unwrap_err();
    assert!(matches!(error, LogError::Topic { .. }), "{error}");
    println!("{error}");
    assert!(error.to_string().contains("9 replicas on 1 brokers"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_that_the_log_rests_on_are_refused() {
    let properties = [("acks", "1"), ("enable.auto.commit", "true"), ("client.id", "mine")];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = Settings { properties: properties.into(), ..Settings::default() };
    let problems = settings.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    let error = KafkaLog::open(settings).await.unwrap_err();
    assert!(matches!(error, LogError::Settings { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_property_that_does_not_exist_is_named() {
    let properties = [("ssl.certificat".to_owned(), "secret".to_owned())].into();
    let settings = Settings { properties, ..Settings::default() };
    let error = KafkaLog::open(settings).await.unwrap_err();
    assert!(matches!(error, LogError::Settings { .. }), "{error}");
    let text = error.to_string();
    println!("{text}");
    assert!(text.contains("ssl.certificat") && !text.contains("secret"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_not_there_are_an_error_in_bounded_time() {
    let settings = Settings {
        // Nobody listens at a port of this number.
        brokers: "127.0.0.1:1".into(),
        open_timeout: Duration::from_secs(2),
        ..Settings::default()
    };
    let started = Instant::now();
    let error = KafkaLog::open(settings).await.unwrap_err();
    assert!(matches!(error, LogError::Unavailable { .. }), "{error}");
    println!("{error}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_and_the_right_one_works() {
    let Some(settings) = services::kafka_settings(1) else { return };
    let Some(address) = services::address("ROOST_TEST_KAFKA_PASSWORD", "kafka") else { return };
    let [brokers, user, password] = address.split(',').collect::<Vec<_>>().try_into().unwrap();
    let with = |password: &str| Settings {
        brokers: brokers.into(),
        properties: properties(&[
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", user),
            ("sasl.password", password),
        ]),
        ..settings.clone()
    };
    let log = KafkaLog::open(with(password)).await.unwrap();
    assert_eq!(log.append(0, vec![Bytes::from("a")]).await.unwrap(), [0]);
    is_refused(KafkaLog::open(with("guessed")).await, "Authentication failed");
}

#[cfg(feature = "kafka-tls")]
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_certificate_is_said_and_the_right_one_works() {
    let Some(settings) = services::kafka_settings(1) else { return };
    let Some(address) = services::address("ROOST_TEST_KAFKA_TLS", "kafka") else { return };
    let (brokers, certificate) = address.split_once(',').unwrap();
    let with = |more: &[(&str, &str)]| {
        let mut properties = properties(more);
        properties.insert("security.protocol".into(), "ssl".into());
        Settings { brokers: brokers.into(), properties, ..settings.clone() }
    };
    let log = KafkaLog::open(with(&[("ssl.ca.location", certificate)])).await.unwrap();
    assert_eq!(log.append(0, vec![Bytes::from("a")]).await.unwrap(), [0]);
    is_refused(KafkaLog::open(with(&[])).await, "certificate");
    // A broker that has no TLS at all is told apart from one that is away, too.
    let open_timeout = Duration::from_secs(2);
    let plain = Settings { brokers: settings.brokers.clone(), open_timeout, ..with(&[]) };
    let error = KafkaLog::open(plain).await.unwrap_err();
    println!("{error}");
    assert!(error.to_string().contains("SSL connection closed by peer"), "{error}");
    let error = KafkaLog::open(with(&[("ssl.ca.location", "/missing.pem")])).await.unwrap_err();
    assert!(matches!(error, LogError::Settings { .. }), "{error}");
}

#[cfg(not(feature = "kafka-tls"))]
#[tokio::test]
async fn a_build_without_tls_says_how_to_get_it() {
    for property in [("security.protocol", "sasl_ssl"), ("sasl.mechanism", "SCRAM-SHA-256")] {
        let settings = Settings { properties: properties(&[property]), ..Settings::default() };
        let error = KafkaLog::open(settings).await.unwrap_err();
        assert!(error.to_string().contains("--features kafka-tls"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_too_large_is_refused_whole() {
    let Some(settings) = services::kafka_settings(1) else { return };
    let log = KafkaLog::open(settings).await.unwrap();
    let payloads = vec![Bytes::from("small"), Bytes::from(vec![0; 2 << 20])];
    let error = log.append(0, payloads).await.unwrap_err();
    assert!(matches!(error, LogError::TooLarge { .. }), "{error}");
    assert_eq!(log.end(0).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_beyond_the_queue_wait_and_all_is_read_though_the_buffer_is_small() {
    const APPENDS: u64 = 400;
    const RECORD_BYTES: usize = 20_000;
    let Some(settings) = services::kafka_settings(2) else { return };
    let settings = Settings { queue_bytes_max: 1 << 20, buffer_bytes_max: 64 << 10, ..settings };
    let log = Arc::new(KafkaLog::open(settings).await.unwrap());
    let append = |at: u64| {
        let log = Arc::clone(&log);
        let payload = Bytes::from(vec![at as u8; RECORD_BYTES]);
        tokio::spawn(async move { log.append((at % 2) as u32, vec![payload]).await.unwrap() })
    };
    let appends: Vec<_> = (0..APPENDS).map(append).collect();
    for append in appends {
        append.await.unwrap();
    }
    for partition in 0..2 {
        let mut next = 0;
        while next < log.end(partition).await.unwrap() {
            let read = log.read(partition, next, 1 << 20).await.unwrap();
            assert!(!read.is_empty());
            assert!(read.iter().all(|record| record.payload.len() == RECORD_BYTES));
            next += read.len() as u64;
        }
        assert_eq!(next, APPENDS / 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_does_not_keep_readers_from_going_elsewhere() {
    const RECORDS: u64 = 1_000;
    let Some(settings) = services::kafka_settings(1) else { return };
    let request_timeout = Duration::from_secs(5);
    let settings = Settings { buffer_bytes_max: 64 << 10, request_timeout, ..settings };
    let log = KafkaLog::open(settings).await.unwrap();
    let payloads = (0..RECORDS).map(|at| Bytes::from(vec![at as u8; 1_000])).collect();
    log.append(0, payloads).await.unwrap();
    // The first records come together with more than the buffer holds.
    for from in [0, RECORDS / 2, 10, RECORDS - 300, 5, RECORDS - 1] {
        let read = log.read(0, from, 1_000).await.unwrap();
        assert_eq!(read[0].offset, from);
        assert_eq!(read[0].payload[0], from as u8);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_the_topic_has_dropped_are_an_error_and_are_not_skipped() {
    let Some(settings) = services::kafka_settings(1) else { return };
    let log = KafkaLog::open(settings.clone()).await.unwrap();
    append(&log, 0, 10).await;
    let mut dropped = TopicPartitionList::new();
    dropped.add_partition_offset(&settings.topic, 0, Offset::Offset(4)).unwrap();
    admin(&settings).delete_records(&dropped, &AdminOptions::new()).await.unwrap();
    let error = timeout(DEADLINE, log.read(0, 0, 1000)).await.unwrap().unwrap_err();
    assert!(matches!(error, LogError::Incomplete { partition: 0, offset: 0, .. }), "{error}");
    println!("{error}");
    assert!(error.is_corrupt() && error.to_string().contains("retention"), "{error}");
    assert_eq!(log.read(0, 4, 1000).await.unwrap().len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_is_an_error_for_those_who_wait_for_more() {
    let Some(settings) = services::kafka_settings(1) else { return };
    let log = KafkaLog::open(settings.clone()).await.unwrap();
    append(&log, 0, 3).await;
    assert_eq!(log.read(0, 0, 1000).await.unwrap().len(), 3);
    KafkaLog::remove(settings.clone()).await.unwrap();
    let existing = Settings { create: false, ..settings.clone() };
    let error = KafkaLog::open(existing).await.expect_err("there is none");
    assert!(matches!(&error, LogError::NoTopic { topic } if *topic == settings.topic), "{error}");
    let _anew = KafkaLog::open(settings).await.unwrap();
    let error = timeout(DEADLINE, log.wait_past(0, 3)).await.unwrap().unwrap_err();
    assert!(matches!(error, LogError::Incomplete { partition: 0, offset: 3, .. }), "{error}");
    assert!(error.to_string().contains("made anew"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_was_committed_to_another_log_is_an_error() {
    let Some(settings) = services::kafka_settings(1) else { return };
    let log = KafkaLog::open(settings.clone()).await.unwrap();
    append(&log, 0, 2).await;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&settings.topic, 0, Offset::Offset(3)).unwrap();
    let other: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &settings.brokers)
        .set("group.id", &settings.group)
        .create()
        .unwrap();
    other.commit(&offsets, CommitMode::Sync).unwrap();
    let error = log.committed(0).await.unwrap_err();
    assert!(matches!(error, LogError::BeyondEnd { offset: 3, end: 2, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_over_waits_until_the_partition_is_released() {
    const PARTITIONS: u32 = 4;
    let Some(settings) = services::kafka_settings(PARTITIONS) else { return };
    let first = KafkaLog::open(settings.clone()).await.unwrap();
    let mut firsts = first.join();
    let mut owned = given(&mut firsts, PARTITIONS as usize).await;
    assert_eq!(owned, (0..PARTITIONS).collect());
    for partition in 0..PARTITIONS {
        append(&first, partition, 3).await;
    }

    let second = Arc::new(KafkaLog::open(settings).await.unwrap());
    let mut seconds = second.join();
    let taken = {
        let second = Arc::clone(&second);
        tokio::spawn(async move {
            let taken = given(&mut seconds, 2).await;
            let mut committed = BTreeMap::new();
            for partition in taken {
                committed.insert(partition, second.committed(partition).await.unwrap());
            }
            (committed, seconds)
        })
    };
    let mut withdrawn = Vec::new();
    while withdrawn.len() < 2 {
        match next(&mut firsts).await {
            Assignment::Withdrawn { partition, released } => withdrawn.push((partition, released)),
            other => panic!("{other:?}"),
        }
    }
    for (partition, released) in withdrawn {
        assert!(!taken.is_finished(), "it is this process's until it is released");
        assert!(owned.remove(&partition));
        first.commit(partition, 2).await.unwrap();
        released.send(()).unwrap();
    }
    let (committed, seconds) = timeout(DEADLINE, taken).await.unwrap().unwrap();
    assert!(committed.keys().all(|partition| !owned.contains(partition)));
    assert!(committed.values().all(|offset| *offset == 2), "{committed:?}");

    // Whoever stops listening gives its partitions back at once.
    drop(seconds);
    let regained = given(&mut firsts, 2).await;
    assert_eq!(regained, committed.into_keys().collect());
    timeout(DEADLINE, second.close()).await.unwrap();
    timeout(DEADLINE, first.close()).await.unwrap();
    assert!(timeout(DEADLINE, firsts.next()).await.unwrap().is_none());
}

/// The older of two that say that they are the same one.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_instance_id_another_one_has_is_told_that_it_is_over() {
    let Some(settings) = services::kafka_settings(1) else { return };
    let properties = properties(&[("group.instance.id", "the same")]);
    let settings = Settings { properties, ..settings };
    let first = KafkaLog::open(settings.clone()).await.unwrap();
    let mut firsts = first.join();
    given(&mut firsts, 1).await;
    let second = KafkaLog::open(settings).await.unwrap();
    let _seconds = second.join();
    let error = loop {
        match next(&mut firsts).await {
            Assignment::Over { error } => break error,
            Assignment::Given { .. } => panic!("it goes to the other one"),
            Assignment::Withdrawn { .. } | Assignment::Lost { .. } => {}
        }
    };
    println!("{error}");
    assert!(matches!(error, LogError::NoWorker { .. }), "{error}");
    assert!(error.to_string().contains("group.instance.id of its own"), "{error}");
    assert!(timeout(DEADLINE, firsts.next()).await.expect("an end").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_cut_off_is_replaced_and_told_so() {
    const PARTITIONS: u32 = 4;
    let Some(mut settings) = services::kafka_settings(PARTITIONS) else { return };
    let Some((_turn, mut proxy, proxied)) = proxy().await else { return };
    settings.properties = properties(&[("session.timeout.ms", "6000")]);
    settings.delivery_timeout = Duration::from_secs(2);
    settings.request_timeout = Duration::from_secs(2);
    let survivor = KafkaLog::open(settings.clone()).await.unwrap();
    let victim = KafkaLog::open(Settings { brokers: proxied, ..settings }).await.unwrap();
    let mut victims = victim.join();
    let mut given_to_victim = given(&mut victims, PARTITIONS as usize).await;
    append(&victim, 0, 3).await;

    let mut survivors = survivor.join();
    for _ in 0..2 {
        let Assignment::Withdrawn { partition, released } = next(&mut victims).await else {
            panic!("a partition is withdrawn");
        };
        given_to_victim.remove(&partition);
        released.send(()).unwrap();
    }
    given(&mut survivors, 2).await;

    proxy.cut().await;
    let mut lost = BTreeSet::new();
    while lost.len() < 2 {
        let Assignment::Lost { partition } = next(&mut victims).await else {
            panic!("a partition is lost");
        };
        lost.insert(partition);
    }
    assert_eq!(lost, given_to_victim);
    assert_eq!(given(&mut survivors, 2).await, lost);
    let late = victim.commit(0, 3).await.unwrap_err();
    assert!(matches!(late, LogError::Unavailable { .. } | LogError::Fenced { .. }), "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_broker_is_away_calls_fail_in_bounded_time_and_then_go_on() {
    let Some(settings) = services::kafka_settings(1) else { return };
    let Some((_turn, mut proxy, brokers)) = proxy().await else { return };
    let settings = Settings {
        brokers,
        delivery_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(2),
        ..settings
    };
    let log = Arc::new(KafkaLog::open(settings).await.unwrap());
    append(&log, 0, 3).await;
    assert_eq!(log.read(0, 0, 1000).await.unwrap().len(), 3);
    let waits = {
        let log = Arc::clone(&log);
        tokio::spawn(async move { log.wait_past(0, 3).await })
    };

    proxy.cut().await;
    let bound = Duration::from_secs(8);
    let append_once = || log.append(0, vec![Bytes::from("while it is away")]);
    let appended = timeout(bound, append_once()).await.unwrap();
    let read_end = timeout(bound, log.end(0)).await.unwrap();
    let committed = timeout(bound, log.commit(0, 2)).await.unwrap();
    for error in [appended.unwrap_err(), read_end.unwrap_err(), committed.unwrap_err()] {
        assert!(matches!(error, LogError::Unavailable { .. }), "{error}");
        println!("{error}");
    }
    assert_eq!(log.read(0, 0, 1000).await.unwrap().len(), 3, "what is here can still be read");
    assert!(!waits.is_finished());

    proxy.mend().await;
    let acknowledged = timeout(DEADLINE, async {
        loop {
            match append_once().await {
                Ok(offsets) => break offsets[0],
                Err(LogError::Unavailable { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    let acknowledged = acknowledged.await.unwrap();
    timeout(DEADLINE, waits).await.unwrap().unwrap().unwrap();
    let read = timeout(DEADLINE, log.read(0, acknowledged, 1000)).await.unwrap().unwrap();
    assert_eq!(read[0].payload, "while it is away");
    log.commit(0, acknowledged).await.unwrap();
    assert_eq!(log.committed(0).await.unwrap(), acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_which_nothing_comes_any_more_is_replaced() {
    /// Than librdkafka gives up a connection on which nothing comes.
    const SOONER: Duration = Duration::from_secs(40);
    let Some(settings) = services::kafka_settings(1) else { return };
    let Some((_turn, proxy, brokers)) = proxy().await else { return };
    let other = KafkaLog::open(settings.clone()).await.unwrap();
    let settings = Settings { brokers, request_timeout: Duration::from_secs(2), ..settings };
    let log = KafkaLog::open(settings).await.unwrap();
    append(&other, 0, 1).await;
    assert_eq!(timeout(DEADLINE, log.read(0, 0, 1000)).await.unwrap().unwrap().len(), 1);

    proxy.silence_readers();
    append(&other, 0, 1).await;
    let read = timeout(SOONER, async {
        log.wait_past(0, 1).await.unwrap();
        loop {
            match log.read(0, 1, 1000).await {
                Ok(read) if !read.is_empty() => break read,
                Ok(_) | Err(LogError::Unavailable { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert_eq!(read.await.unwrap().len(), 1);
}

/// A proxy before the broker, the address that clients of it use, and the turn to
/// have it.
async fn proxy() -> Option<(tokio::sync::MutexGuard<'static, ()>, Proxy, String)> {
    let addresses = services::address("ROOST_TEST_KAFKA_PROXIED", "kafka")?;
    let turn = PROXY.lock().await;
    let (broker, proxy) = addresses.split_once(',').unwrap();
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    Some((turn, Proxy::start(address(proxy), address(broker)).await, proxy.to_owned()))
}

async fn append(log: &KafkaLog, partition: u32, count: usize) {
    let payloads = (0..count).map(|at| Bytes::from(at.to_string())).collect();
    log.append(partition, payloads).await.unwrap();
}

async fn next(assignments: &mut Assignments) -> Assignment {
    timeout(DEADLINE, assignments.next()).await.expect("a change").expect("more changes")
}

/// The next partitions that are given, of which there are `count`.
async fn given(assignments: &mut Assignments, count: usize) -> BTreeSet<u32> {
    let mut given = BTreeSet::new();
    while given.len() < count {
        match next(assignments).await {
            Assignment::Given { partition } => assert!(given.insert(partition)),
            other => panic!("{other:?}"),
        }
    }
    given
}

fn is_refused(opened: Result<KafkaLog, LogError>, words: &str) {
    let error = opened.unwrap_err();
    assert!(matches!(error, LogError::Refused { .. }), "{error}");
    let text = error.to_string();
    println!("{text}");
    assert!(text.contains(words) && !text.contains('\n'), "{text}");
}

fn properties(properties: &[(&str, &str)]) -> BTreeMap<String, String> {
    properties.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn admin(settings: &Settings) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &settings.brokers).create().unwrap()
}

async fn configs(settings: &Settings) -> BTreeMap<String, String> {
    let topic = ResourceSpecifier::Topic(&settings.topic);
    let described = admin(settings).describe_configs([&topic], &AdminOptions::new()).await;
    let entries = described.unwrap().remove(0).unwrap().entries;
    entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
}
