//! What an operator sees: metrics, liveness and readiness, over HTTP.
//!
//! ```text
//!  worker, writes, calls, Redis, Kafka ──► handles ──► registry ──► GET /metrics
//!                              gate ──► readiness ──────────────► GET /readyz
//! ```
//!
//! Every part counts through a handle of its own that it is given; there is nothing
//! global, and a handle that nobody has registered counts all the same. A field's
//! name is the metric's name behind the prefix of its part, and its comment is the
//! metric's help. Labels are few and bounded: the partition, the gRPC method and
//! code, what kind of failure.

mod histogram;
mod http;
mod process;
mod readiness;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};

pub(crate) use self::process::resident_bytes;
pub use self::{histogram::Histogram, http::router, readiness::Readiness};

/// From a tenth of a millisecond to ten seconds.
const CALL_SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
/// From a millisecond to ten minutes, as a backlog asks for.
const DELAY_SECONDS: &[f64] = &[
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    600.0,
];
const VALUES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
const DELIVERIES: &[f64] =
    &[1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0];

/// Metrics that are registered together: a handle, whose fields say what they mean.
macro_rules! metrics {
    (
        $(#[$about:meta])*
        $name:ident {
            $($(#[doc = $help:literal])+ $field:ident: $type:ty = $new:expr,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug)]
        pub struct $name {
            $($(#[doc = $help])+ pub $field: $type,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $new,)+ }
            }
        }

        impl $name {
            fn register(&self, registry: &mut Registry) {
                // The registry ends each of them with a full stop of its own.
                $(registry.register(
                    stringify!($field),
                    concat!($($help),+).trim().trim_end_matches('.'),
                    self.$field.clone(),
                );)+
            }
        }
    };
}

metrics! {
    /// `roost_…`: what the workers of this process do.
    FanoutMetrics {
        /// Ids written to live timelines.
        deliveries: Counter = Counter::default(),
        /// Ids not written since their readers sleep.
        skipped_deliveries: Counter = Counter::default(),
        /// Live timelines written to, once for each flush that wrote to them.
        pushes: Counter = Counter::default(),
        /// Timelines written to with a look first, since they may have had it already.
        checked_pushes: Counter = Counter::default(),
        /// Events taken from the log and applied.
        events: Counter = Counter::default(),
        /// Ids in one push to one reader, awake or not.
        push_values: Histogram = Histogram::new(VALUES),
        /// Deliveries that were written at once, those of all partitions together.
        flush_deliveries: Histogram = Histogram::new(DELIVERIES),
        /// How long a flush took, from its first push to the last answer.
        flush_seconds: Histogram = Histogram::new(CALL_SECONDS),
        /// Timelines that one round of a partition writes to, awake or not, each post
        /// counted.
        round_deliveries: Histogram = Histogram::new(DELIVERIES),
        /// How long a round took, from asking for followers to the last answer: a turn of
        /// the writer round all readers.
        round_seconds: Histogram = Histogram::new(CALL_SECONDS),
        /// From the moment in a post's id until it has reached every follower.
        delivery_delay_seconds: Histogram = Histogram::new(DELAY_SECONDS),
        /// Fan-outs that are not finished: how deep a partition's queue is.
        fanouts_in_progress: Family<Partition, Gauge> = Family::default(),
        /// Partitions that this process works on.
        workers: Gauge = Gauge::default(),
        /// Partitions taken up, at a start, from another process or after a fault.
        worker_resumes: Counter = Counter::default(),
        /// Fan-outs half done by a worker before, that went on where they were.
        resumed_fanouts: Counter = Counter::default(),
        /// Authors whom workers have had pulled, or pushed again, because of how many
        /// follow them.
        switched_authors: Counter = Counter::default(),
        /// Steps of workers that failed, by what failed: log, store, fenced (another
        /// process has the partition), lost (Redis has lost some of what it was given,
        /// and it is written again) or event (it cannot be read).
        worker_failures: Family<Kind, Counter> = Family::default(),
    }
}

metrics! {
    /// `roost_…`: how far the workers are behind the log, those of every process.
    LagMetrics {
        /// One past the last acknowledged event.
        log_end_offset: Family<Partition, Gauge> = Family::default(),
        /// Acknowledged events that do not hold in reads yet.
        apply_lag_events: Family<Partition, Gauge> = Family::default(),
        /// Acknowledged events that have not reached every timeline yet.
        delivery_lag_events: Family<Partition, Gauge> = Family::default(),
    }
}

metrics! {
    /// `roost_…`: what the API writes.
    WriteMetrics {
        /// From an append to the log until it is durable: an fsync, or a round trip to Kafka.
        append_seconds: Histogram = Histogram::new(CALL_SECONDS),
        /// Appends that the log did not acknowledge.
        append_failures: Counter = Counter::default(),
        /// Bytes of writes under way.
        writes_in_flight_bytes: Gauge = Gauge::default(),
        /// Seconds that the newest post is dated after the clock of this process; 0 while it is
        /// not.
        ids_ahead_seconds: Gauge<f64, AtomicU64> = Gauge::default(),
    }
}

metrics! {
    /// `roost_…`: what the auditor of this process finds.
    AuditMetrics {
        /// Live timelines that were held against what they should be.
        audited_timelines: Counter = Counter::default(),
        /// Ids that should be in them.
        audited_entries: Counter = Counter::default(),
        /// Of these, ids that were not: lost.
        audit_missing_entries: Counter = Counter::default(),
        /// Ids in them that should not be.
        audit_extra_entries: Counter = Counter::default(),
        /// Timelines that were made anew for either.
        audit_repairs: Counter = Counter::default(),
        /// Audits that failed, since the log or the store did.
        audit_failures: Counter = Counter::default(),
        /// Turns of the auditor that compared nothing, by why: nobody (of 64 accounts, or keys
        /// of Redis, drawn at random none has a live timeline), asleep (the timeline fell
        /// asleep meanwhile) or follows (its reader follows more than 5,000 accounts, and is
        /// never compared).
        audit_skips: Family<Kind, Counter> = Family::default(),
        /// Ids that were lost, as a share of those that should be there, since the start.
        audit_loss_ratio: Gauge<f64, AtomicU64> = Gauge::default(),
    }
}

metrics! {
    /// `roost_grpc_…`: the calls that are answered.
    CallMetrics {
        /// How long a call took, to its end where it streams.
        call_seconds: Family<Call, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(CALL_SECONDS)),
        /// Calls under way.
        calls_in_progress: Gauge = Gauge::default(),
        /// Home timeline streams that are open, which are calls under way too.
        home_streams: Gauge = Gauge::default(),
        /// How long calls waited until they were let in or shed, by class: read or write.
        queue_seconds: Family<Kind, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(CALL_SECONDS)),
        /// Calls that were shed since there was more to do than the process can, by class:
        /// read or write.
        shed_calls: Family<Kind, Counter> = Family::default(),
        /// Calls of a class that may be at work at once: read or write.
        concurrency_limit: Family<Kind, Gauge> = Family::default(),
        /// Bytes of large messages that are being received.
        receiving_bytes: Gauge = Gauge::default(),
        /// Bytes of answers that their clients have not taken.
        untaken_answer_bytes: Gauge = Gauge::default(),
        /// Streams reset since their clients did not take the answer in time.
        stalled_answers: Counter = Counter::default(),
        /// Messages that did not arrive whole in time, or for which there was no room.
        refused_messages: Counter = Counter::default(),
    }
}

metrics! {
    /// `roost_…`: the connections of clients.
    ConnectionMetrics {
        /// Open connections, by listener: grpc or metrics.
        connections: Family<Kind, Gauge> = Family::default(),
        /// Connections closed as they came since there is no room, by what is full: full (the
        /// process) or peer (what one address may have).
        refused_connections: Family<Kind, Counter> = Family::default(),
        /// Connections that Roost has closed, by why: handshake, headers, idle, evicted (for
        /// another to have room) or resets (too many calls given up by the client).
        closed_connections: Family<Kind, Counter> = Family::default(),
        /// Times that the system had no room for another connection (EMFILE).
        accept_failures: Counter = Counter::default(),
    }
}

metrics! {
    /// `roost_redis_…`: what goes to and fro between this process and Redis.
    RedisMetrics {
        /// A round trip of what is read and marked: one pipeline, or one batch in a Cluster.
        call_seconds: Histogram = Histogram::new(CALL_SECONDS),
        /// Round trips of what is read and marked that failed.
        call_failures: Counter = Counter::default(),
        /// One pipeline of pushes and other writes of workers, on one node.
        write_seconds: Histogram = Histogram::new(CALL_SECONDS),
        /// Pipelines of writes of which not all were carried out as they were sent.
        write_failures: Counter = Counter::default(),
        /// Writes of unknown outcome, which are looked at and made again.
        write_unknowns: Counter = Counter::default(),
        /// Writes sent elsewhere since a slot has moved (MOVED, ASK).
        write_redirects: Counter = Counter::default(),
        /// Connections made for writes, the first ones and those made anew.
        write_connections: Counter = Counter::default(),
    }
}

metrics! {
    /// `roost_kafka_…`: what goes to and fro between this process and the brokers.
    KafkaMetrics {
        /// Bytes on their way to the brokers.
        queued_bytes: Gauge = Gauge::default(),
        /// Complaints of a client of librdkafka, by what it is for: producer, reader,
        /// member (of the group) or admin.
        errors: Family<Kind, Counter> = Family::default(),
    }
}

impl ConnectionMetrics {
    /// Counts a connection that was closed for this reason.
    pub fn closed(&self, kind: &'static str) {
        self.closed_connections.get_or_create(&Kind { kind }).inc();
    }
}

impl WriteMetrics {
    /// Carries out an append, and measures it.
    pub async fn append<T, E>(&self, append: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let begun = Instant::now();
        let appended = append.await;
        match &appended {
            Ok(_) => self.append_seconds.observe_since(begun),
            Err(_) => drop(self.append_failures.inc()),
        }
        appended
    }
}

impl AuditMetrics {
    /// Counts an audit: so many ids should have been there, so many of them were not, and so
    /// many others were.
    pub fn audited(&self, compared: usize, missing: usize, extra: usize) {
        self.audited_timelines.inc();
        self.audited_entries.inc_by(compared as u64);
        self.audit_missing_entries.inc_by(missing as u64);
        self.audit_extra_entries.inc_by(extra as u64);
        if missing + extra > 0 {
            self.audit_repairs.inc();
        }
        let entries = self.audited_entries.get().max(1);
        self.audit_loss_ratio.set(self.audit_missing_entries.get() as f64 / entries as f64);
    }
}

/// The handles of one process.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "their types say it")]
pub struct Metrics {
    pub fanout: Arc<FanoutMetrics>,
    pub lag: LagMetrics,
    pub writes: Arc<WriteMetrics>,
    pub audit: Arc<AuditMetrics>,
    pub calls: Arc<CallMetrics>,
    pub connections: Arc<ConnectionMetrics>,
    pub redis: Arc<RedisMetrics>,
    pub kafka: Arc<KafkaMetrics>,
}

impl Metrics {
    /// All of them under their names, and the process itself.
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        process::register(&mut registry);
        let roost = registry.sub_registry_with_prefix("roost");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        roost.register("build", "Which Roost this is", version);
        self.fanout.register(roost);
        self.lag.register(roost);
        self.writes.register(roost);
        self.audit.register(roost);
        self.connections.register(roost);
        self.calls.register(roost.sub_registry_with_prefix("grpc"));
        self.redis.register(roost.sub_registry_with_prefix("redis"));
        self.kafka.register(roost.sub_registry_with_prefix("kafka"));
        registry
    }
}

/// The label of what each partition has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Partition {
    /// Its number.
    pub partition: u32,
}

/// The label of failures, and of what was left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// One of few words.
    pub kind: &'static str,
}

/// The labels of a gRPC call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    /// One that Roost has, or `other`.
    pub method: Arc<str>,
    /// How it ended.
    pub code: &'static str,
}

/// Adds to a gauge for as long as it lives.
#[derive(Debug)]
pub struct Held {
    gauge: Gauge,
    amount: i64,
}

impl Held {
    /// Adds so much to it.
    pub fn new(gauge: &Gauge, amount: usize) -> Self {
        let amount = i64::try_from(amount).unwrap_or(i64::MAX);
        gauge.inc_by(amount);
        Self { gauge: gauge.clone(), amount }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.dec_by(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn the_text_has_a_help_a_type_and_a_number_for_everything() {
        let metrics = Metrics::default();
        metrics.fanout.deliveries.inc_by(7);
        metrics.fanout.push_values.observe_all([1.0, 3.0]);
        metrics.lag.apply_lag_events.get_or_create(&Partition { partition: 3 }).set(9);
        let call = Call { method: "/roost.v1.PostService/DeletePost".into(), code: "ok" };
        metrics.calls.call_seconds.get_or_create(&call).observe(0.2);
        let mut text = String::new();
        encode(&mut text, &metrics.registry()).expect("text");

        let mut types = HashSet::new();
        for line in text.lines() {
            if let Some(named) = line.strip_prefix("# ") {
                let mut words = named.split(' ');
                match (words.next(), words.next()) {
                    (Some("TYPE"), Some(name)) => assert!(types.insert(name), "twice: {line}"),
                    (Some("HELP"), Some(_)) => assert!(!line.ends_with(".."), "{line}"),
                    (Some("EOF"), None) => {}
                    _ => panic!("{line}"),
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
            let name = series.split('{').next().expect("a name");
            assert!(types.iter().any(|one| name.starts_with(one)), "no type: {line}");
        }
        for line in [
            "roost_deliveries_total 7",
            "roost_push_values_sum 4.0",
            "roost_push_values_bucket{le=\"2.0\"} 1",
            "roost_push_values_bucket{le=\"4.0\"} 2",
            "roost_push_values_bucket{le=\"+Inf\"} 2",
            "roost_apply_lag_events{partition=\"3\"} 9",
            "roost_grpc_call_seconds_count{method=\"/roost.v1.PostService/DeletePost\",code=\"ok\"} 1",
            "# HELP roost_deliveries Ids written to live timelines.",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn what_is_held_is_given_back() {
        let gauge = Gauge::default();
        let held = Held::new(&gauge, 3);
        assert_eq!(gauge.get(), 3);
        drop(held);
        assert_eq!(gauge.get(), 0);
    }
}
