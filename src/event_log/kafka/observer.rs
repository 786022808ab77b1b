//! The callbacks that every client of librdkafka has: what it complains of, and whether it
//! still knows a broker.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError,
    statistics::Statistics,
};

use super::{lock, trouble::Trouble};

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
        let line = self.trouble.note_and_line(self.role, &error, reason);
        if let Some(line) = line.filter(|line| self.is_news(line)) {
            tracing::warn!(role = self.role, "kafka: {line}");
        }
    }
}

impl ConsumerContext for Observer {}

/// Whether there is a broker that is more than a name for something, as that of the group's
/// coordinator.
fn knows_a_broker(statistics: &Statistics) -> bool {
    let is_real = |source: &str| matches!(source, "configured" | "learned");
    statistics.brokers.values().any(|broker| is_real(&broker.source))
}
