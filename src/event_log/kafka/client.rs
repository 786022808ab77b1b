//! What the clients of a log are configured with.
//!
//! The settings of an operator go over the choices made here, except those that
//! the log's promises rest on: [`RESERVED`] cannot be set.

use rdkafka::{ClientConfig, error::KafkaError};

use super::{Settings, member};

/// Properties that are the log's own, and what each would break.
pub const RESERVED: [&str; 21] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "group.protocol",
    "partition.assignment.strategy",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.partition.eof",
    "isolation.level",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "transactional.id",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "message.max.bytes",
    "log.queue",
    "statistics.interval.ms",
];

/// The largest payload of an event, in bytes: with its batch it stays below what
/// librdkafka and brokers take by default.
pub const PAYLOAD_BYTES_MAX: usize = 512 << 10;

/// What all clients share.
pub fn config(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    overlay(&mut config, settings);
    config
}

/// Writes: acknowledged by all replicas in sync, once and in order, in bounded time.
pub fn producer(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        // A request carries what one partition has gathered in this time, and costs the
        // broker the same whatever it carries.
        .set("linger.ms", "5")
        .set("batch.num.messages", "100000")
        .set("compression.type", "lz4");
    overlay(&mut config, settings)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // These say whether it knows any broker.
        .set("statistics.interval.ms", "2000")
        .set("delivery.timeout.ms", settings.delivery_timeout.as_millis().to_string())
        // The room is bounded before a message gets here.
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", (settings.queue_bytes_max / 512).max(1).to_string());
    config
}

/// Reads: of partitions that are named, from offsets that are named.
pub fn reader(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    let queued_kbytes = (settings.buffer_bytes_max / 1024).clamp(1, 2_000_000);
    config
        .set("queued.max.messages.kbytes", queued_kbytes.to_string())
        // There is one request at a time: while it waits for news, a partition that is
        // read from elsewhere, or for the first time, waits too.
        .set("fetch.wait.max.ms", "100")
        // A reader that has caught up with a full queue goes on at once.
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.error.backoff.ms", "100");
    consumer(&mut config, settings);
    config
}

/// Membership: who works on which partition, and how far they are.
pub fn member(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("session.timeout.ms", member::SESSION_TIMEOUT_MS.to_string());
    // It never keeps what it might fetch.
    config.set("queued.max.messages.kbytes", "1");
    consumer(&mut config, settings)
        .set("group.protocol", "classic")
        .set("partition.assignment.strategy", "cooperative-sticky")
        // These say whether the coordinator is there, and any broker.
        .set("statistics.interval.ms", "1000");
    config
}

/// In what librdkafka says of a property of TLS where it was built without.
pub const NO_OPENSSL: &str = "OpenSSL not available at build time";

/// Why librdkafka does not take a property, if it does not. What does not fit together
/// shows once a client is made.
pub fn refusal(name: &str, value: &str) -> Option<String> {
    let mut config = ClientConfig::new();
    match config.set(name, value).create_native_config() {
        Ok(_) => None,
        Err(KafkaError::ClientConfig(_, reason, ..)) if reason.starts_with("No such") => {
            Some("librdkafka has none of this name".to_owned())
        }
        Err(KafkaError::ClientConfig(_, reason, ..)) if reason.contains(NO_OPENSSL) => {
            Some(NO_OPENSSL.to_owned())
        }
        // What librdkafka says may quote the value, which may be a password.
        Err(_) => Some("its value is none that it can have".to_owned()),
    }
}

fn consumer<'a>(config: &'a mut ClientConfig, settings: &Settings) -> &'a mut ClientConfig {
    overlay(config, settings)
        .set("group.id", &settings.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // What is missing is an error, and never skipped.
        .set("auto.offset.reset", "error")
}

/// Sets what all clients share, and then what the operator has set.
fn overlay<'a>(config: &'a mut ClientConfig, settings: &Settings) -> &'a mut ClientConfig {
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("client.id", "roost")
        .set("socket.keepalive.enable", "true")
        // Once the brokers are back, so is the log.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "1000")
        // What a broker that has just started says of the topic may not be all, and is
        // believed until somebody asks again.
        .set("topic.metadata.refresh.interval.ms", "10000");
    for (name, value) in &settings.properties {
        config.set(name, value);
    }
    config
}
