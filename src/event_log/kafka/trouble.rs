//! What goes wrong between this process and the brokers, and how it is said.
//!
//! The calls of librdkafka mostly fail with a time-out; what was the matter comes
//! through a callback. So the callbacks of all clients note it here, and an error
//! takes the latest note along.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::lock;
use crate::{
    event_log::LogError,
    telemetry::{KafkaMetrics, Kind},
};
use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
    statistics::Statistics,
};

/// How long a note explains later errors.
const NOTE_LIFE: Duration = Duration::from_secs(60);

/// The latest trouble that any client of a log has met.
#[derive(Debug)]
pub struct Trouble {
    latest: Mutex<Option<Note>>,
    /// Until the log is open, whoever opens it says what is the matter.
    is_opening: AtomicBool,
    metrics: Arc<KafkaMetrics>,
}

#[derive(Clone, Debug)]
struct Note {
    at: Instant,
    code: Option<RDKafkaErrorCode>,
    reason: String,
}

impl Trouble {
    /// None yet; what comes is counted in `metrics`.
    pub fn new(metrics: Arc<KafkaMetrics>) -> Self {
        Self { latest: Mutex::default(), is_opening: AtomicBool::new(true), metrics }
    }

    /// The log is open: from now on complaints are logged as they come.
    pub fn opened(&self) {
        self.is_opening.store(false, Ordering::Relaxed);
    }

    /// That the brokers do not do what was asked: `what`, and the latest trouble.
    pub fn unavailable(&self, what: &str) -> LogError {
        let reason = match self.latest() {
            Some(note) => format!("{what} ({})", note.reason),
            None => what.to_owned(),
        };
        LogError::Unavailable { reason }
    }

    /// An error of a call, in terms of the log.
    pub fn explain(&self, what: &str, error: &KafkaError) -> LogError {
        if let KafkaError::ClientConfig(_, reason, property, _) = error {
            // The value may be a password.
            let reason = format!("the property {property} of Kafka is not valid: {reason}");
            return LogError::Settings { reason };
        }
        if let KafkaError::ClientCreation(reason) = error {
            return LogError::Settings { reason: one_line(reason) };
        }
        match error.rdkafka_error_code() {
            Some(code) if is_refusal(code) => {
                LogError::Refused { reason: format!("{what}: {code}") }
            }
            Some(
                RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::MessageTimedOut
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown,
            ) => self.refusal().unwrap_or_else(|| self.unavailable(what)),
            Some(code) => self.unavailable(&format!("{what}: {code}")),
            None => self.unavailable(&format!("{what}: {error}")),
        }
    }

    /// The latest trouble, if it is one that does not pass by itself.
    pub fn refusal(&self) -> Option<LogError> {
        let note = self.latest()?;
        note.code.is_some_and(is_refusal).then_some(LogError::Refused { reason: note.reason })
    }

    fn note(&self, code: Option<RDKafkaErrorCode>, reason: &str) {
        // That all brokers are down says less than why the last of them is.
        let is_summary = code == Some(RDKafkaErrorCode::AllBrokersDown);
        if is_summary && self.latest().is_some() {
            return;
        }
        let note = Note { at: Instant::now(), code, reason: essence(reason) };
        *lock(&self.latest) = Some(note);
    }

    fn latest(&self) -> Option<Note> {
        let note = lock(&self.latest).clone()?;
        (note.at.elapsed() < NOTE_LIFE).then_some(note)
    }
}

/// Whether somebody has to change something before it can succeed.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::Authentication
            | Code::SSL
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
    )
}

/// A complaint without what differs each time: how long it took, how many were the same.
fn essence(reason: &str) -> String {
    let line = one_line(reason);
    match line.rfind(" (after ") {
        Some(at) => line[..at].to_owned(),
        None => line,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether there is a broker that is more than a name for something, as that of the group's
/// coordinator.
fn knows_a_broker(statistics: &Statistics) -> bool {
    let is_real = |source: &str| matches!(source, "configured" | "learned");
    statistics.brokers.values().any(|broker| is_real(&broker.source))
}

/// After this the same complaint is logged again.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The callbacks that every client has.
#[derive(Debug)]
pub struct Observer {
    /// What the client is for.
    role: &'static str,
    trouble: Arc<Trouble>,
    /// What was said last, and when: a broker that is away is complained of many
    /// times a second.
    said: Mutex<Option<(String, Instant)>>,
    /// How many statistics in a row have named no broker.
    without_brokers: AtomicU32,
}

impl Observer {
    /// Callbacks of a client that note in `trouble` what it meets.
    pub fn new(role: &'static str, trouble: &Arc<Trouble>) -> Self {
        Self {
            role,
            trouble: Arc::clone(trouble),
            said: Mutex::default(),
            without_brokers: AtomicU32::new(0),
        }
    }

    /// Takes in whether the client knows any broker.
    pub fn note_brokers(&self, statistics: &Statistics) {
        if knows_a_broker(statistics) {
            self.without_brokers.store(0, Ordering::Relaxed);
        } else {
            self.without_brokers.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the client knows no broker any more, and will never find one by itself.
    ///
    /// A broker that shuts down names the brokers that are left. If it was the only one,
    /// librdkafka (2.12) takes that for an answer, forgets the last broker, and is to begin
    /// anew with those of `bootstrap.servers`, which the same answer may cancel: then there is
    /// nobody whom it could ask. Between two steps of beginning anew it knows none either,
    /// so one look is not enough.
    pub fn has_lost_all_brokers(&self) -> bool {
        self.without_brokers.load(Ordering::Relaxed) >= 2
    }

    /// Whether something was not said a moment ago.
    fn is_news(&self, reason: &str) -> bool {
        let mut said = lock(&self.said);
        let is_known = said
            .as_ref()
            .is_some_and(|(last, at)| last == reason && at.elapsed() < SAY_AGAIN_AFTER);
        if !is_known {
            *said = Some((reason.to_owned(), Instant::now()));
        }
        !is_known
    }
}

impl ClientContext for Observer {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Errors come through `error` too, and are logged there.
        if level as i32 <= RDKafkaLogLevel::Critical as i32 {
            tracing::error!(role = self.role, facility, "kafka: {message}");
        } else {
            tracing::debug!(role = self.role, facility, "kafka: {message}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.metrics.errors.get_or_create(&Kind { kind: self.role }).inc();
        let line = one_line(reason);
        if !self.trouble.is_opening.load(Ordering::Relaxed) && self.is_news(&line) {
            tracing::warn!(role = self.role, "kafka: {line}");
        }
        self.trouble.note(error.rdkafka_error_code(), reason);
    }
}

impl ConsumerContext for Observer {}
