//! What goes wrong between this process and the brokers, and how it is said.
//!
//! The calls of librdkafka mostly fail with a time-out; what was the matter comes
//! through a callback. So the callbacks of all clients (`observer`) note it here, and an
//! error takes the latest note along.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::lock;
use crate::{
    event_log::LogError,
    telemetry::{KafkaMetrics, Kind},
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

    /// Takes in what a client of some `role` has met, and returns what is to be logged of it.
    pub fn note_and_line(
        &self,
        role: &'static str,
        error: &KafkaError,
        reason: &str,
    ) -> Option<String> {
        self.metrics.errors.get_or_create(&Kind { kind: role }).inc();
        self.note(error.rdkafka_error_code(), reason);
        (!self.is_opening.load(Ordering::Relaxed)).then(|| one_line(reason))
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
