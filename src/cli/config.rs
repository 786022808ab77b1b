//! The settings of `roost serve`: from flags, from environment variables, from a
//! TOML file, in this order of precedence; whatever is wrong with them is told at
//! once.
//!
//! ```text
//!  --listen  >  ROOST_LISTEN  >  listen = "…"  >  the default
//! ```
//!
//! Properties of Kafka are settings each by itself in this order. Their values may hold
//! commas, so they are not split there: a flag is one property, and so is a line of the
//! variable.

use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use toml::{Table, Value};

use super::{property_files, serve::DEFAULT_LISTEN, value_file};
use crate::{
    app::{Backend, ConnectionLimits, Roles, Settings},
    event_log::kafka,
    fanout::PullRule,
    input,
    store::{HOME_TIMELINE_CAP_DEFAULT, redis::config::RedisConfig},
    writes::TEXT_CHARS_MAX_DEFAULT,
};

const DEFAULT_DATA_DIR: &str = "./roost-data";
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Holds properties of Kafka, one a line.
const PROPERTIES_VARIABLE: &str = "ROOST_KAFKA_PROPERTY";
/// Holds properties of Kafka and the files of their values, one a line.
const PROPERTY_FILES_VARIABLE: &str = "ROOST_KAFKA_PROPERTY_FILE";
const REDIS_VARIABLE: &str = "ROOST_REDIS";

/// What can be set. All of it is text here, so that everything that is wrong can be
/// told at once.
#[derive(Debug, Default, Args)]
pub struct ServeFlags {
    /// A TOML file with any of these settings but the log format: `data_dir = "…"`,
    /// `listen = "…"`, …; flags and variables come before it
    #[arg(long, value_name = "FILE", env = "ROOST_CONFIG")]
    config: Option<PathBuf>,
    /// Where everything is kept; made if it does not exist [default: ./roost-data]
    #[arg(long, value_name = "DIR", env = "ROOST_DATA_DIR")]
    data_dir: Option<String>,
    /// The address of the gRPC API [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDRESS", env = "ROOST_LISTEN")]
    listen: Option<String>,
    /// Answer /metrics (Prometheus), /livez and /readyz over HTTP on this address
    /// [default: off]
    #[arg(long, value_name = "ADDRESS", env = "ROOST_METRICS_LISTEN")]
    metrics_listen: Option<String>,
    /// What this process does, `api`, `worker` or `both`: with Kafka and Redis there may
    /// be any number of each [default: both]
    #[arg(long, value_name = "ROLE", env = "ROOST_ROLE", value_delimiter = ',')]
    role: Vec<String>,
    /// How many posts a home timeline shows [default: 800]
    #[arg(long, value_name = "COUNT", env = "ROOST_HOME_TIMELINE_CAP")]
    home_timeline_cap: Option<String>,
    /// Live home timelines that each process with workers holds against what they should be,
    /// and makes anew where they are not, a minute; 0 is none [default: 60]
    #[arg(long, value_name = "COUNT", env = "ROOST_AUDITS_PER_MINUTE")]
    audits_per_minute: Option<String>,
    /// A home timeline that nobody has read for so many days leaves memory; the next read
    /// makes it anew [default: 30]
    #[arg(long, value_name = "DAYS", env = "ROOST_SLEEP_AFTER_DAYS")]
    sleep_after_days: Option<String>,
    /// Authors with more followers than this are pulled by reads once they post, and pushed
    /// again when a fifth of them has gone; 0 is never. The same for all processes
    /// [default: 250000]
    #[arg(long, value_name = "FOLLOWERS", env = "ROOST_PULL_ABOVE")]
    pull_above: Option<String>,
    /// The longest text of a post, in characters (Unicode scalar values) [default: 140]
    #[arg(long, value_name = "CHARACTERS", env = "ROOST_POST_TEXT_LIMIT")]
    post_text_limit: Option<String>,
    /// Accounts that one may follow; one more is refused, but by an import
    /// [default: 100000]
    #[arg(long, value_name = "ACCOUNTS", env = "ROOST_FOLLOWING_LIMIT")]
    following_limit: Option<String>,
    /// Home timeline streams that this process has at once; one more is refused
    /// [default: 50000]
    #[arg(long, value_name = "COUNT", env = "ROOST_HOME_STREAM_LIMIT")]
    home_stream_limit: Option<String>,
    /// Publish nothing while the newest post is dated so many days after the clock, or the clock
    /// has jumped so far ahead: one of them is wrong then [default: 7]
    #[arg(long, value_name = "DAYS", env = "ROOST_CLOCK_JUMP_LIMIT")]
    clock_jump_limit: Option<String>,
    /// Write nothing while the disk of the data directory has less free space than so many MiB,
    /// so that it is never full; reads go on [default: 64]
    #[arg(long, value_name = "MIB", env = "ROOST_DISK_RESERVE")]
    disk_reserve: Option<String>,
    /// Connections to the API; where there is no room an idle one is closed for the next, or
    /// the next is refused [default: as many as the process has file descriptors for, beside
    /// those of the log and the store, and 8192 at the most]
    #[arg(long, value_name = "COUNT", env = "ROOST_CONNECTION_LIMIT")]
    connection_limit: Option<String>,
    /// The same from one address, or one /64 network of IPv6 [default: half of all]
    #[arg(long, value_name = "COUNT", env = "ROOST_PEER_CONNECTION_LIMIT")]
    peer_connection_limit: Option<String>,
    /// Partitions of the event log; fixed once it is made [default: 4 on disk, 16 in
    /// Kafka, for a new one]
    #[arg(long, value_name = "COUNT", env = "ROOST_PARTITIONS")]
    partitions: Option<String>,
    /// Keep the event log in Kafka: some of its brokers
    #[arg(long, value_name = "HOST:PORT,…", env = "ROOST_KAFKA")]
    kafka: Option<String>,
    /// The topic of the event log [default: roost-events]
    #[arg(long, value_name = "NAME", env = "ROOST_KAFKA_TOPIC")]
    kafka_topic: Option<String>,
    /// The consumer group of the workers [default: roost-workers]
    #[arg(long, value_name = "NAME", env = "ROOST_KAFKA_GROUP")]
    kafka_group: Option<String>,
    /// On how many brokers each partition of a new topic is; that of an old one must be the
    /// same [default: 3, or the brokers of a smaller Kafka]
    #[arg(long, value_name = "COUNT", env = "ROOST_KAFKA_REPLICATION")]
    kafka_replication: Option<String>,
    /// A property of librdkafka, as for TLS and SASL; may be given several times. In
    /// the variable: one a line. In the file: a table `[kafka_property]`
    /// [env: ROOST_KAFKA_PROPERTY]
    // Not clap's own `env`, which would have to split flags too.
    #[arg(long, value_name = "KEY=VALUE")]
    kafka_property: Vec<String>,
    /// The same with a value that is read from a file, as for passwords; a line break at its
    /// end does not count. In the variable: one a line. In the file: a table
    /// `[kafka_property_file]` [env: ROOST_KAFKA_PROPERTY_FILE]
    #[arg(long, value_name = "KEY=FILE")]
    kafka_property_file: Vec<String>,
    /// Keep the store in Redis: redis://…, rediss://…; several URLs or `?cluster` for a
    /// Cluster
    #[arg(long, value_name = "URL,…", env = REDIS_VARIABLE, hide_env_values = true)]
    redis: Option<String>,
    /// The user of Redis, unless the URL names one
    #[arg(long, value_name = "NAME", env = "ROOST_REDIS_USER")]
    redis_user: Option<String>,
    /// A file that holds the password of Redis and nothing else, so that it stands on no
    /// command line; a line break at its end is no part of it
    #[arg(long, value_name = "FILE", env = "ROOST_REDIS_PASSWORD_FILE")]
    redis_password_file: Option<String>,
    /// The authority that signed the certificate of Redis, in PEM
    #[arg(long, value_name = "FILE", env = "ROOST_REDIS_CA")]
    redis_ca: Option<String>,
}

/// The variables that hold several settings each.
#[derive(Debug, Default)]
struct Variables {
    properties: String,
    property_files: String,
}

/// Everything that is wrong with the settings.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the settings cannot be used: {}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

impl ServeFlags {
    /// The settings that these flags and their file make.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn settings(self) -> Result<Settings, ConfigError> {
        let mut problems = Vec::new();
        let file = match &self.config {
            Some(path) => read_file(path, &mut problems),
            None => Table::new(),
        };
        let mut variable = |name: &str| {
            let text = env::var_os(name).unwrap_or_default();
            text.into_string().unwrap_or_else(|_| {
                problems.push(format!("{name} is not UTF-8"));
                String::new()
            })
        };
        let variables = Variables {
            properties: variable(PROPERTIES_VARIABLE),
            property_files: variable(PROPERTY_FILES_VARIABLE),
        };
        for name in property_files::secrets(&self.kafka_property) {
            tracing::warn!(
                "{name} is on the command line, where every user of this machine can read it: \
                 give --kafka-property-file {name}=FILE instead, or set {PROPERTIES_VARIABLE}"
            );
        }
        if shows_password(self.redis.as_deref(), env::var(REDIS_VARIABLE).ok().as_deref()) {
            tracing::warn!(
                "the password in --redis is visible to every user of this machine, in the list of \
                 processes: give it as a file with --redis-password-file, or set {REDIS_VARIABLE}"
            );
        }
        let settings = self.merge(&variables, file, &mut problems);
        if problems.is_empty() { Ok(settings) } else { Err(ConfigError(problems)) }
    }

    fn merge(self, variables: &Variables, mut file: Table, problems: &mut Vec<String>) -> Settings {
        let mut text = |name: &str, flag: Option<String>| {
            let in_file = file.remove(name);
            flag.or_else(|| in_file.map(scalar))
        };
        let data_dir = text("data_dir", self.data_dir);
        let listen = text("listen", self.listen);
        let metrics_listen = text("metrics_listen", self.metrics_listen);
        let cap = text("home_timeline_cap", self.home_timeline_cap);
        let audits = text("audits_per_minute", self.audits_per_minute);
        let idle_days = text("sleep_after_days", self.sleep_after_days);
        let pull_above = text("pull_above", self.pull_above);
        let text_limit = text("post_text_limit", self.post_text_limit);
        let following_limit = text("following_limit", self.following_limit);
        let stream_limit = text("home_stream_limit", self.home_stream_limit);
        let clock_jump_limit = text("clock_jump_limit", self.clock_jump_limit);
        let disk_reserve = text("disk_reserve", self.disk_reserve);
        let connection_limit = text("connection_limit", self.connection_limit);
        let peer_limit = text("peer_connection_limit", self.peer_connection_limit);
        let partitions = text("partitions", self.partitions);
        let brokers = text("kafka", self.kafka);
        let topic = text("kafka_topic", self.kafka_topic);
        let group = text("kafka_group", self.kafka_group);
        let replication = text("kafka_replication", self.kafka_replication);
        let redis = text("redis", self.redis);
        let redis_user = text("redis_user", self.redis_user);
        let redis_password_file = text("redis_password_file", self.redis_password_file);
        let redis_ca = text("redis_ca", self.redis_ca);
        let roles = text("role", (!self.role.is_empty()).then(|| self.role.join(",")));
        let mut in_file = BTreeMap::new();
        match file.remove("kafka_property") {
            Some(Value::Table(table)) => flatten("", table, &mut in_file),
            Some(_) => problems.push("kafka_property must be a table of the file".to_owned()),
            None => {}
        }
        let mut files_in_file = BTreeMap::new();
        match file.remove("kafka_property_file") {
            Some(Value::Table(table)) => flatten("", table, &mut files_in_file),
            Some(_) => problems.push("kafka_property_file must be a table of the file".to_owned()),
            None => {}
        }
        property_files::read("the file", files_in_file, &mut in_file, problems);
        let lines = variables.properties.lines();
        let mut in_variable = pairs("line", PROPERTIES_VARIABLE, lines, problems);
        let lines = variables.property_files.lines();
        let files = pairs("line", PROPERTY_FILES_VARIABLE, lines, problems);
        property_files::read(PROPERTY_FILES_VARIABLE, files, &mut in_variable, problems);
        let flags = self.kafka_property.iter().map(String::as_str);
        let mut in_flags = pairs("number", "--kafka-property", flags, problems);
        let flags = self.kafka_property_file.iter().map(String::as_str);
        let files = pairs("number", "--kafka-property-file", flags, problems);
        property_files::read("--kafka-property-file", files, &mut in_flags, problems);
        let properties: BTreeMap<String, String> =
            in_file.into_iter().chain(in_variable).chain(in_flags).collect();
        problems.extend(file.keys().map(|name| match name.as_str() {
            // It logs before it reads the file.
            "log_format" => "log_format has no place in a file: set ROOST_LOG_FORMAT".to_owned(),
            _ => format!("there is no setting {name} in a file"),
        }));

        let listen = read_address("listen", listen.as_deref().unwrap_or(DEFAULT_LISTEN), problems);
        let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let metrics_listen =
            metrics_listen.and_then(|text| read_address("metrics_listen", &text, problems));
        let cap = number("home_timeline_cap", cap, 1..=100_000, problems);
        let audits = number("audits_per_minute", audits, 0..=60_000, problems);
        let idle_days = number("sleep_after_days", idle_days, 1..=36_500, problems);
        let pull_above = number("pull_above", pull_above, 0..=u32::MAX, problems);
        let text_limit = number("post_text_limit", text_limit, 1..=100_000, problems);
        let following_limit = number("following_limit", following_limit, 1..=10_000_000, problems);
        let stream_limit = number("home_stream_limit", stream_limit, 1..=1_000_000, problems);
        let clock_jump_limit = number("clock_jump_limit", clock_jump_limit, 1..=36_500, problems);
        let disk_reserve = number("disk_reserve", disk_reserve, 0..=1 << 30, problems);
        let connection_limit =
            number("connection_limit", connection_limit, 1..=1_000_000, problems);
        let peer_limit = number("peer_connection_limit", peer_limit, 1..=1_000_000, problems);
        let partitions = number("partitions", partitions, 1..=1_024, problems);
        let replication = number("kafka_replication", replication, 1..=100, problems);
        let roles = read_roles(roles.as_deref(), problems);
        let backend = match (brokers, redis) {
            (None, None) => {
                if roles != Roles::default() {
                    problems.push(
                        "role: without kafka and redis one process does everything; leave it away"
                            .to_owned(),
                    );
                }
                let of_no_use = [
                    ("kafka_topic", topic.is_some()),
                    ("kafka_group", group.is_some()),
                    ("kafka_replication", replication.is_some()),
                    ("kafka_property", !properties.is_empty()),
                    ("redis_user", redis_user.is_some()),
                    ("redis_password_file", redis_password_file.is_some()),
                    ("redis_ca", redis_ca.is_some()),
                ];
                for (name, _) in of_no_use.iter().filter(|(_, is_set)| *is_set) {
                    problems.push(format!("{name} is of no use without kafka and redis"));
                }
                let data_dir = data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.to_owned());
                Backend::Embedded { data_dir: data_dir.into(), partitions }
            }
            (brokers, redis) => {
                if data_dir.is_some() {
                    problems.push(
                        "data_dir is of no use with kafka and redis, which keep everything"
                            .to_owned(),
                    );
                }
                let missing = [("kafka", brokers.is_none()), ("redis", redis.is_none())];
                for (name, _) in missing.iter().filter(|(_, is_missing)| *is_missing) {
                    problems.push(format!("{name} is not set; kafka and redis go together"));
                }
                let ca = redis_ca.as_deref().map(Path::new);
                let password = redis_password_file.and_then(|file| {
                    let problem = |reason| format!("redis_password_file: the file {file} {reason}");
                    value_file::read(&file).map_err(|it| problems.push(problem(it))).ok()
                });
                let redis = redis
                    .map(|urls| {
                        let config = RedisConfig::from_urls(&urls, ca)?;
                        config.with_login(redis_user.as_deref(), password.as_deref())
                    })
                    .and_then(|read| {
                        let name = |problem: String| format!("redis (--redis): {problem}");
                        read.map_err(|error| problems.extend(error.problems.into_iter().map(name)))
                            .ok()
                    });
                let default = kafka::Settings::default();
                let kafka = kafka::Settings {
                    // That there are none has been said.
                    brokers: brokers.unwrap_or(default.brokers),
                    topic: topic.unwrap_or(default.topic),
                    group: group.unwrap_or(default.group),
                    partitions,
                    // Its range has been checked.
                    replication: replication.and_then(|count| u16::try_from(count).ok()),
                    properties,
                    ..kafka::Settings::default()
                };
                problems.extend(kafka.problems().into_iter().map(|it| format!("kafka: {it}")));
                match redis {
                    Some(redis) => {
                        Backend::Shared { kafka: Box::new(kafka), redis: Arc::new(redis) }
                    }
                    // It has said why.
                    None => Backend::Embedded { data_dir: PathBuf::new(), partitions: None },
                }
            }
        };
        let defaults = Settings::new(PathBuf::new(), listen);
        Settings {
            backend,
            roles,
            metrics_listen,
            home_timeline_cap: cap.map_or(HOME_TIMELINE_CAP_DEFAULT, |cap| cap as usize),
            audit_every: match audits {
                Some(audits) => Duration::from_secs(60).checked_div(audits),
                None => defaults.audit_every,
            },
            idle_max: idle_days.map_or(defaults.idle_max, |days| DAY * days),
            pull_rule: match pull_above {
                Some(0) => PullRule { above: None },
                Some(above) => PullRule { above: Some(above.into()) },
                None => defaults.pull_rule,
            },
            clock_jump_max: clock_jump_limit.map_or(defaults.clock_jump_max, |days| DAY * days),
            disk_reserve_bytes: disk_reserve
                .map_or(defaults.disk_reserve_bytes, |mib| u64::from(mib) << 20),
            text_chars_max: text_limit.map_or(TEXT_CHARS_MAX_DEFAULT, |limit| limit as usize),
            followees_max: following_limit.map_or(defaults.followees_max, u64::from),
            home_streams_max: stream_limit
                .map_or(defaults.home_streams_max, |limit| limit as usize),
            connections: ConnectionLimits {
                max: connection_limit.map(|limit| limit as usize),
                peer_max: peer_limit.map(|limit| limit as usize),
                ..defaults.connections
            },
            ..defaults
        }
    }
}

fn read_file(path: &Path, problems: &mut Vec<String>) -> Table {
    let text = match input::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problems.push(format!("the file {} cannot be read: {error}", path.display()));
            return Table::new();
        }
    };
    text.parse().unwrap_or_else(|error: toml::de::Error| {
        problems.push(format!("the file {} is not TOML: {}", path.display(), error.message()));
        Table::new()
    })
}

/// Whether a URL of Redis on the command line has a password, which `ps` shows to every user
/// of the machine. What is the variable's is not told from the same on the command line.
fn shows_password(flag: Option<&str>, variable: Option<&str>) -> bool {
    let on_command_line = flag.filter(|urls| variable != Some(*urls));
    let config = on_command_line.map(|urls| RedisConfig::from_urls(urls, None));
    config.is_some_and(|config| config.is_ok_and(|config| config.has_password()))
}

/// A value of the file as it would stand in a flag.
fn scalar(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Array(values) => values.into_iter().map(scalar).collect::<Vec<String>>().join(","),
        value => value.to_string(),
    }
}

fn read_address(name: &str, text: &str, problems: &mut Vec<String>) -> Option<SocketAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        problems.push(format!("{name}: {text:?} is not of the form IP:PORT, as {DEFAULT_LISTEN}"));
    }
    address
}

fn number(
    name: &str,
    value: Option<String>,
    range: RangeInclusive<u32>,
    problems: &mut Vec<String>,
) -> Option<u32> {
    let text = value?;
    match text.parse() {
        Ok(number) if range.contains(&number) => Some(number),
        _ => {
            problems.push(format!(
                "{name}: {text:?} is not a number from {} to {}",
                range.start(),
                range.end()
            ));
            None
        }
    }
}

fn read_roles(value: Option<&str>, problems: &mut Vec<String>) -> Roles {
    let Some(text) = value else { return Roles::default() };
    let mut roles = Roles { api: false, worker: false };
    for role in text.split(',') {
        match role.trim() {
            "api" => roles.api = true,
            "worker" => roles.worker = true,
            "both" => roles = Roles { api: true, worker: true },
            other => problems.push(format!("role: {other:?} is none of api, worker and both")),
        }
    }
    roles
}

/// A table of the file as properties: `ssl.ca.location` is a table in a table there,
/// unless it is quoted.
fn flatten(prefix: &str, table: Table, properties: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        match value {
            Value::Table(table) => flatten(&format!("{prefix}{key}."), table, properties),
            value => drop(properties.insert(format!("{prefix}{key}"), scalar(value))),
        }
    }
}

/// Properties as `place` holds them, each of which is a `part` of it.
fn pairs<'a>(
    part: &str,
    place: &str,
    texts: impl Iterator<Item = &'a str>,
    problems: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    for (number, text) in (1..).zip(texts) {
        // None of what it holds is shown, which may be a password.
        let problem = match text.trim_start().split_once('=') {
            Some(("", _)) => "has no name before the =",
            Some((key, value)) => match pairs.insert(key.trim_end().to_owned(), value.to_owned()) {
                Some(_) => "sets a property that is set there already",
                None => continue,
            },
            None if text.trim().is_empty() => continue,
            None => "is not of the form KEY=VALUE",
        };
        problems.push(format!("{place}, {part} {number}, {problem}"));
    }
    pairs
}

#[cfg(test)]
mod tests;
