//! The topic that holds the log: made with the right settings where it is
//! missing, and checked where it is there.

use std::{
    collections::HashMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use futures::executor::block_on;
use rdkafka::{
    admin::{
        AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
    },
    config::FromClientConfigAndContext,
    consumer::Consumer,
    error::RDKafkaErrorCode,
    metadata::Metadata,
};

use super::{
    PARTITIONS_DEFAULT, Settings, client,
    member::Member,
    observer::Observer,
    replication::{self, Choice},
    trouble::Trouble,
};
use crate::event_log::LogError;

/// How long one question to the brokers may take before the errors that came in
/// meanwhile are looked at.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);
/// For how long the next of these errors is waited for.
const EVENT_TIMEOUT: Duration = Duration::from_millis(10);
/// How long to wait before a question is asked again.
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// Batches are up to this large, which is what brokers take unless told otherwise.
const BATCH_BYTES_MAX: u64 = 1_048_588;

/// Makes the topic if it is missing and may be, checks it if it is there, and answers how many
/// partitions it has. Blocks until it has leaders for all of them, and no longer
/// than until `deadline`; that there is no topic is asked about for as long as
/// [`Settings::confirm_no_topic_after`] says.
pub fn open(
    settings: &Settings,
    member: &Member,
    trouble: &Arc<Trouble>,
    deadline: Instant,
) -> Result<u32, LogError> {
    let brokers = Brokers { settings, member, trouble, deadline };
    let mut asked_for = false;
    let mut missing_since = None;
    loop {
        let metadata = brokers.metadata()?;
        match partitions(&metadata, settings)? {
            Partitions::Ready(found) => {
                return brokers.check(found);
            }
            // A broker that has just started, or was cut off, may not know of it yet; that
            // one, or another one, will.
            Partitions::Missing if !settings.create => {
                let since = *missing_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= settings.confirm_no_topic_after {
                    return Err(LogError::NoTopic { topic: settings.topic.clone() });
                }
                thread::sleep(RETRY_DELAY);
                continue;
            }
            Partitions::Missing if !asked_for => {
                brokers.create(&metadata)?;
                asked_for = true;
            }
            Partitions::Missing | Partitions::NotReady => {}
        }
        if Instant::now() >= deadline {
            let what = format!("the topic {} has no leaders yet", settings.topic);
            return Err(trouble.unavailable(&what));
        }
        thread::sleep(RETRY_DELAY);
    }
}

/// Drops the topic and all that is in it, if it is there, and its group. Blocks, no
/// longer than until `deadline`.
pub fn remove(
    settings: &Settings,
    trouble: &Arc<Trouble>,
    deadline: Instant,
) -> Result<(), LogError> {
    let admin = admin(settings, trouble)?;
    let what = format!("the topic {} could not be dropped", settings.topic);
    let removed = block_on(admin.delete_topics(&[&settings.topic], &options(deadline)));
    match removed.map_err(|error| trouble.explain(&what, &error))?.pop() {
        Some(Err((_, RDKafkaErrorCode::UnknownTopicOrPartition))) | Some(Ok(_)) | None => {}
        Some(Err((_, code))) => return Err(trouble.unavailable(&format!("{what}: {code}"))),
    }
    // One that stays is idle, and the brokers forget those.
    let _ = block_on(admin.delete_groups(&[&settings.group], &options(deadline)));
    Ok(())
}

/// What is known of the topic.
enum Partitions {
    Missing,
    NotReady,
    Ready(Found),
}

/// A topic as it is.
#[derive(Debug, Default)]
struct Found {
    partitions: u32,
    /// The least of any partition.
    replicas: u16,
    configs: HashMap<String, String>,
}

fn partitions(metadata: &Metadata, settings: &Settings) -> Result<Partitions, LogError> {
    let topic = metadata.topics().iter().find(|topic| topic.name() == settings.topic);
    let Some(topic) = topic else { return Ok(Partitions::Missing) };
    match topic.error().map(RDKafkaErrorCode::from) {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            return Ok(Partitions::Missing);
        }
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            let reason = format!("it may not see the topic {}", settings.topic);
            return Err(LogError::Refused { reason });
        }
        Some(RDKafkaErrorCode::InvalidTopic) => {
            let reason = format!("Kafka takes no topic of the name {:?}", settings.topic);
            return Err(LogError::Settings { reason });
        }
        Some(_) => return Ok(Partitions::NotReady),
        None => {}
    }
    let partitions = topic.partitions();
    if partitions.is_empty() || partitions.iter().any(|partition| partition.leader() < 0) {
        return Ok(Partitions::NotReady);
    }
    Ok(Partitions::Ready(Found {
        partitions: partitions.len() as u32,
        replicas: partitions.iter().map(|one| one.replicas().len() as u16).min().unwrap_or(0),
        configs: HashMap::new(),
    }))
}

/// Those who are asked, and for how long.
struct Brokers<'a> {
    settings: &'a Settings,
    member: &'a Member,
    trouble: &'a Arc<Trouble>,
    deadline: Instant,
}

impl Brokers<'_> {
    /// Asks until there is an answer; gives up early if there will be none.
    fn metadata(&self) -> Result<Metadata, LogError> {
        loop {
            let asked = Instant::now();
            let question = self.member.fetch_metadata(Some(&self.settings.topic), QUESTION_TIMEOUT);
            // The reasons come with the events, which a consumer polls for.
            while self.member.poll(EVENT_TIMEOUT).is_some() {}
            let error = match question {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error,
            };
            if let Some(refusal) = self.trouble.refusal() {
                return Err(refusal);
            }
            if Instant::now() >= self.deadline {
                let what = format!("no answer from {}", self.settings.brokers);
                return Err(self.trouble.explain(&what, &error));
            }
            thread::sleep(RETRY_DELAY.saturating_sub(asked.elapsed()));
        }
    }

    fn create(&self, metadata: &Metadata) -> Result<(), LogError> {
        let Settings { topic, partitions, replication, min_insync_replicas, .. } = self.settings;
        let brokers = metadata.brokers().len().min(usize::from(u16::MAX)) as u16;
        let config = self.broker_config(metadata)?;
        let expected = replication::brokers_expected(brokers, &config);
        let replication = match replication::choose(*replication, brokers, expected) {
            Choice::Make(replication) => replication,
            Choice::Wait(replication) => {
                return Err(self.trouble.unavailable(&format!(
                    "the topic {topic} is to be made with {replication} replicas, and {brokers} of \
                     the cluster's {expected} brokers answer: start the others, or ask for fewer \
                     replicas (--kafka-replication)"
                )));
            }
        };
        let min_insync = min_insync_replicas.unwrap_or(min_insync_default(replication)).to_string();
        let partitions = partitions.unwrap_or(PARTITIONS_DEFAULT);
        let mut new = NewTopic::new(
            topic,
            i32::try_from(partitions).unwrap_or(i32::MAX),
            TopicReplication::Fixed(i32::from(replication)),
        );
        for (name, value) in REQUIRED {
            new = new.set(name, value);
        }
        new = new.set("min.insync.replicas", &min_insync);
        let created = block_on(self.admin()?.create_topics([&new], &self.options()));
        let refused = match created.map(|mut results| results.pop()) {
            Ok(Some(Err((_, code)))) => code,
            Ok(_) => return Ok(()),
            Err(error) => {
                let what = format!("the topic {topic} could not be made");
                return Err(self.trouble.explain(&what, &error));
            }
        };
        match refused {
            // Somebody else was faster; it is checked like any other.
            RDKafkaErrorCode::TopicAlreadyExists => Ok(()),
            // Brokers that have just started do not count yet.
            RDKafkaErrorCode::InvalidReplicationFactor if replication <= brokers => {
                Err(self.trouble.unavailable(&format!("the topic {topic} cannot be made yet")))
            }
            RDKafkaErrorCode::RequestTimedOut | RDKafkaErrorCode::NotController => {
                Err(self.trouble.unavailable(&format!("the topic {topic} is not made yet")))
            }
            code => Err(self.wrong(vec![format!(
                "it does not exist, and making it with {partitions} partitions and {replication} \
                 replicas on {brokers} brokers failed: {code}; ask for other numbers, or make it \
                 yourself with cleanup.policy=delete, retention.ms=-1, retention.bytes=-1 and \
                 min.insync.replicas={min_insync}"
            )])),
        }
    }

    /// The configuration of one of the brokers; none where this process may not read it.
    fn broker_config(&self, metadata: &Metadata) -> Result<HashMap<String, String>, LogError> {
        let Some(broker) = metadata.brokers().first() else { return Ok(HashMap::new()) };
        let broker = ResourceSpecifier::Broker(broker.id());
        let described = block_on(self.admin()?.describe_configs([&broker], &self.options()));
        let what = "the configuration of the brokers cannot be read";
        let described = described.map_err(|error| self.trouble.explain(what, &error))?;
        match described.into_iter().next() {
            Some(Ok(resource)) => Ok(config_of(resource)),
            Some(Err(
                RDKafkaErrorCode::ClusterAuthorizationFailed | RDKafkaErrorCode::InvalidRequest,
            )) => Ok(HashMap::new()),
            Some(Err(code)) => Err(self.trouble.unavailable(&format!("{what}: {code}"))),
            None => Err(self.trouble.unavailable(what)),
        }
    }

    fn check(&self, mut found: Found) -> Result<u32, LogError> {
        let topic = ResourceSpecifier::Topic(&self.settings.topic);
        let described = block_on(self.admin()?.describe_configs([&topic], &self.options()));
        let what = format!("the settings of the topic {} cannot be read", self.settings.topic);
        let resource = described
            .map_err(|error| self.trouble.explain(&what, &error))?
            .pop()
            .ok_or_else(|| self.trouble.unavailable(&what))?;
        let resource = resource.map_err(|code| match code {
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                LogError::Refused { reason: format!("{what}: {code} (it needs DescribeConfigs)") }
            }
            code => self.trouble.unavailable(&format!("{what}: {code}")),
        })?;
        found.configs = config_of(resource);
        let problems = problems(self.settings, &found);
        if !problems.is_empty() {
            return Err(self.wrong(problems));
        }
        let min_insync = found.configs.get("min.insync.replicas");
        let min_insync = min_insync.and_then(|value| value.parse().ok()).unwrap_or(1);
        if let Some(weakness) = replication::weakness(found.replicas, min_insync) {
            tracing::warn!("the topic {} is weak: {weakness}", self.settings.topic);
        }
        Ok(found.partitions)
    }

    fn wrong(&self, problems: Vec<String>) -> LogError {
        let problems = problems.join("; ");
        LogError::Topic { topic: self.settings.topic.clone(), problems }
    }

    fn admin(&self) -> Result<AdminClient<Observer>, LogError> {
        admin(self.settings, self.trouble)
    }

    fn options(&self) -> AdminOptions {
        options(self.deadline)
    }
}

fn admin(settings: &Settings, trouble: &Arc<Trouble>) -> Result<AdminClient<Observer>, LogError> {
    let observer = Observer::new("admin", trouble);
    AdminClient::from_config_and_context(&client::config(settings), observer)
        .map_err(|error| trouble.explain("no client for the topic", &error))
}

fn config_of(resource: ConfigResource) -> HashMap<String, String> {
    let entries = resource.entries.into_iter();
    entries.filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

fn options(deadline: Instant) -> AdminOptions {
    let left = deadline.saturating_duration_since(Instant::now()).max(QUESTION_TIMEOUT);
    AdminOptions::new().request_timeout(Some(left)).operation_timeout(Some(left))
}

/// What a topic must be set to, whoever made it.
const REQUIRED: [(&str, &str); 4] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("retention.bytes", "-1"),
    ("unclean.leader.election.enable", "false"),
];

/// Why each of [`REQUIRED`] is.
const REASONS: [&str; 4] = [
    "events would be dropped by their key",
    "the log is the truth, and old events would be dropped",
    "the log is the truth, and old events would be dropped",
    "events that were acknowledged could be lost",
];

/// Everything that keeps a topic from being a log, and what to do about it.
fn problems(settings: &Settings, found: &Found) -> Vec<String> {
    let mut problems = Vec::new();
    let config = |name: &str| found.configs.get(name).map(String::as_str);
    let number = |name: &str| config(name).and_then(|value| value.parse::<u64>().ok());
    if let Some(asked) = settings.partitions
        && asked != found.partitions
    {
        problems.push(format!(
            "it has {} partitions and {asked} were asked for: ask for {0}, or name another topic, \
             since the partitions of a log cannot change",
            found.partitions
        ));
    }
    if let Some(asked) = settings.replication
        && asked != found.replicas
    {
        problems.push(format!(
            "it has {} replicas and {asked} were asked for: ask for {0}, or reassign its partitions",
            found.replicas
        ));
    }
    for ((name, value), reason) in REQUIRED.into_iter().zip(REASONS) {
        if let Some(there) = config(name).filter(|there| *there != value) {
            problems.push(format!("{name} is {there}: set it to {value}, or {reason}"));
        }
    }
    if let Some(there) = number("min.insync.replicas") {
        let least = min_insync_default(found.replicas.max(1));
        let asked = settings.min_insync_replicas.unwrap_or(least);
        if there > u64::from(found.replicas) {
            problems.push(format!(
                "min.insync.replicas is {there} with {} replicas: set it to {asked}, since nothing \
                 can be written like this",
                found.replicas
            ));
        } else if there < u64::from(asked.max(least)) {
            problems.push(format!(
                "min.insync.replicas is {there} with {} replicas: set it to {}, or one broker that \
                 is lost takes acknowledged events with it",
                found.replicas,
                asked.max(least)
            ));
        }
    }
    if let Some(there) = number("max.message.bytes").filter(|there| *there < BATCH_BYTES_MAX) {
        problems.push(format!(
            "max.message.bytes is {there}: set it to {BATCH_BYTES_MAX} or more, since batches are \
             up to that large"
        ));
    }
    if let Some(there @ ("gzip" | "zstd")) = config("compression.type") {
        problems.push(format!(
            "compression.type is {there}: set it to producer, since {there} cannot be read here"
        ));
    }
    problems
}

/// One replica fewer than there are may be missing, but never all but one.
fn min_insync_default(replicas: u16) -> u16 {
    replicas.min(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(replicas: u16, configs: &[(&str, &str)]) -> Found {
        let right = [
            ("cleanup.policy", "delete"),
            ("retention.ms", "-1"),
            ("retention.bytes", "-1"),
            ("unclean.leader.election.enable", "false"),
            ("min.insync.replicas", "2"),
            ("max.message.bytes", "1048588"),
            ("compression.type", "producer"),
        ];
        let configs = right.iter().chain(configs);
        let configs = configs.map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Found { partitions: 8, replicas, configs }
    }

    fn named(settings: &Settings, found: &Found) -> Vec<String> {
        let first_words = |problem: String| {
            let end = problem.find(" is ").or(problem.find(" and ")).unwrap_or(problem.len());
            problem[..end].to_owned()
        };
        problems(settings, found).into_iter().map(first_words).collect()
    }

    #[test]
    fn a_right_one_has_no_problem() {
        assert_eq!(problems(&Settings::default(), &found(3, &[])), [""; 0]);
        let asked = Settings {
            partitions: Some(8),
            replication: Some(3),
            min_insync_replicas: Some(2),
            ..Settings::default()
        };
        assert_eq!(problems(&asked, &found(3, &[])), [""; 0]);
        let one = found(1, &[("min.insync.replicas", "1")]);
        assert_eq!(problems(&Settings::default(), &one), [""; 0]);
    }

    #[test]
    fn every_problem_is_named() {
        let asked = Settings {
            partitions: Some(4),
            replication: Some(2),
            min_insync_replicas: Some(3),
            ..Settings::default()
        };
        let wrong = found(
            3,
            &[
                ("cleanup.policy", "compact"),
                ("retention.ms", "604800000"),
                ("retention.bytes", "1000"),
                ("unclean.leader.election.enable", "true"),
                ("max.message.bytes", "1000"),
                ("compression.type", "zstd"),
            ],
        );
        let expected = [
            "it has 8 partitions",
            "it has 3 replicas",
            "cleanup.policy",
            "retention.ms",
            "retention.bytes",
            "unclean.leader.election.enable",
            "min.insync.replicas",
            "max.message.bytes",
            "compression.type",
        ];
        assert_eq!(named(&asked, &wrong), expected);
    }

    #[test]
    fn too_few_or_too_many_insync_replicas_are_named() {
        for (replicas, min_insync, is_wrong) in
            [(1, "1", false), (2, "1", true), (2, "2", false), (3, "1", true), (2, "3", true)]
        {
            let found = found(replicas, &[("min.insync.replicas", min_insync)]);
            assert_eq!(!problems(&Settings::default(), &found).is_empty(), is_wrong, "{found:?}");
        }
    }
}
