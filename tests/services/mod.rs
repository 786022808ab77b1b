//! The real services that suites run against, where they are to be had: those of
//! `deploy/services up`, told by `deploy/services env`.

// Each suite uses a part of it.
#![allow(dead_code)]

pub mod brokers;
pub mod leaders;
pub mod proxy;
pub mod slots;

use std::time::Duration;

use roost::{
    event_log::kafka::Settings,
    store::redis::{acl_rules, config::RedisConfig},
};

/// The settings of a log on the Kafka of `ROOST_TEST_KAFKA`, in a topic and a group
/// of its own. `None`, and a line that says so, where there is no Kafka.
pub fn kafka_settings(partitions: u32) -> Option<Settings> {
    Some(settings_on(address("ROOST_TEST_KAFKA", "kafka")?, partitions))
}

fn settings_on(brokers: String, partitions: u32) -> Settings {
    let name = format!("roost-test-{:016x}", rand::random::<u64>());
    Settings {
        brokers,
        topic: name.clone(),
        group: name,
        partitions: Some(partitions),
        confirm_loss_after: Duration::from_secs(2),
        confirm_no_topic_after: Duration::from_secs(2),
        ..Settings::default()
    }
}

/// The value of a variable that names a service.
///
/// # Panics
///
/// If it is not set, and `ROOST_TEST_REQUIRE_SERVICES` says that it must be.
pub fn address(variable: &str, service: &str) -> Option<String> {
    if let Ok(address) = std::env::var(variable) {
        return Some(address);
    }
    let required = std::env::var("ROOST_TEST_REQUIRE_SERVICES").is_ok_and(|value| value == "1");
    assert!(!required, "{variable} is not set, run deploy/services up {service}");
    println!("skipped: {variable} is not set, run deploy/services up {service}");
    None
}

/// The user as whom Roost is tested: it may do what README.md lists, and nothing else.
const USER: &str = "roost-test";
const PASSWORD: &str = "pass:w/rd#1";

/// The same Redis as that user, whom every node knows from now on.
pub async fn as_restricted_user(config: &RedisConfig) -> RedisConfig {
    for info in config.connection_infos() {
        let client = redis::Client::open(info.clone()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg(USER).arg("reset").arg("on").arg(format!(">{PASSWORD}"));
        command.arg(acl_rules().split(' ').collect::<Vec<_>>());
        command.exec_async(&mut connection).await.unwrap();
    }
    config.clone().with_login(Some(USER), Some(PASSWORD)).unwrap()
}

/// Empties every node of a Redis.
pub async fn empty_redis(config: &RedisConfig) {
    for info in config.connection_infos() {
        let client = redis::Client::open(info.clone()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        // A replica refuses, and has nothing of its own.
        let _: Result<(), _> = redis::cmd("FLUSHALL").query_async(&mut connection).await;
    }
}
