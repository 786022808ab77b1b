//! Appending: every event is a message of its own, and librdkafka batches them.
//!
//! ```text
//!  append ──► room? ──► producer ──► leader, replicas ──► delivery report
//!              ▲ bytes                                        │ each message
//!              └────────────── all of the append are in ◄─────┘
//! ```
//!
//! The room is bounded here and not in librdkafka, so that an append that finds
//! none waits without holding a thread.

use std::{
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{
        BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext,
        ThreadedProducer,
    },
    statistics::Statistics,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

use super::{
    Settings,
    client::{self, PAYLOAD_BYTES_MAX},
    drop_aside, lock,
    observer::Observer,
    trouble::Trouble,
};
use crate::{
    event_log::LogError,
    telemetry::{Held, KafkaMetrics},
};

/// What a message costs beside its payload, in bytes.
const MESSAGE_BYTES: usize = 128;

/// Appends to the partitions of a topic.
pub struct Appender {
    topic: String,
    config: ClientConfig,
    /// The one in use; another takes its place should it fail for good.
    producer: Mutex<Arc<Deliverer>>,
    /// Bytes that may still be under way.
    room: Arc<Semaphore>,
    room_bytes: usize,
    delivery_timeout: Duration,
    trouble: Arc<Trouble>,
    metrics: Arc<KafkaMetrics>,
}

type Deliverer = ThreadedProducer<Deliveries>;

impl Appender {
    /// A producer for the log of `settings`.
    pub fn new(settings: &Settings, trouble: &Arc<Trouble>) -> Result<Self, LogError> {
        let config = client::producer(settings);
        let producer = deliverer(&config, trouble)?;
        let room_bytes = settings.queue_bytes_max.min(Semaphore::MAX_PERMITS);
        Ok(Self {
            topic: settings.topic.clone(),
            config,
            producer: Mutex::new(Arc::new(producer)),
            room: Arc::new(Semaphore::new(room_bytes)),
            room_bytes,
            delivery_timeout: settings.delivery_timeout,
            trouble: Arc::clone(trouble),
            metrics: Arc::clone(&settings.metrics),
        })
    }

    /// Appends `payloads` in their order, and answers their offsets, ascending, once
    /// all replicas in sync have them.
    pub async fn append(&self, partition: u32, payloads: Vec<Bytes>) -> Result<Vec<u64>, LogError> {
        if payloads.is_empty() {
            return Ok(Vec::new());
        }
        let room = self.make_room(&payloads).await?;
        let producer = self.living_producer();
        let (answer, answered) = oneshot::channel();
        let append = Arc::new(Append {
            left: AtomicUsize::new(payloads.len()),
            progress: Mutex::new(Progress {
                offsets: Vec::with_capacity(payloads.len()),
                error: None,
                answer: Some((answer, room)),
            }),
        });
        for (at, payload) in payloads.iter().enumerate() {
            let opaque = Arc::clone(&append);
            let record = BaseRecord::<(), [u8], _>::with_opaque_to(&self.topic, opaque)
                .partition(partition as i32)
                .payload(payload);
            if let Err((error, _)) = producer.send(record) {
                append.finish(payloads.len() - at, Err(error));
                break;
            }
        }
        drop(append);
        // It has copied them, and what waits for it keeps no other from its place.
        drop((producer, payloads));
        match answered.await.map_err(|_| LogError::Closed)? {
            Ok(offsets) => Ok(offsets),
            Err(error) => {
                let what = format!("partition {partition} did not acknowledge");
                Err(self.trouble.explain(&what, &error))
            }
        }
    }

    /// Waits until all that is under way is acknowledged or has failed. Blocks.
    pub fn flush(&self) {
        if let Err(error) = lock(&self.producer).clone().flush(self.delivery_timeout) {
            tracing::error!(%error, "not all events under way were acknowledged");
        }
    }

    async fn make_room(&self, payloads: &[Bytes]) -> Result<Room, LogError> {
        if let Some(payload) = payloads.iter().find(|payload| payload.len() > PAYLOAD_BYTES_MAX) {
            return Err(LogError::TooLarge { size: payload.len(), size_max: PAYLOAD_BYTES_MAX });
        }
        let size = payloads.iter().map(|payload| payload.len() + MESSAGE_BYTES).sum::<usize>();
        let too_large = LogError::TooLarge { size, size_max: self.room_bytes };
        let permits = u32::try_from(size).ok().filter(|_| size <= self.room_bytes);
        let permits = permits.ok_or(too_large)?;
        // What is under way makes room within the same time, whatever becomes of it.
        match timeout(self.delivery_timeout, Arc::clone(&self.room).acquire_many_owned(permits))
            .await
        {
            Ok(Ok(room)) => Ok((room, Held::new(&self.metrics.queued_bytes, size))),
            Ok(Err(_)) => Err(LogError::Closed),
            Err(_) => Err(self.trouble.unavailable("the queue to the brokers is full")),
        }
    }

    /// The producer in use: another one if that has failed for good.
    fn living_producer(&self) -> Arc<Deliverer> {
        let mut producer = lock(&self.producer);
        if let Some(reason) = failure_of(&producer) {
            tracing::warn!(reason, "the producer has failed, and a new one takes its place");
            match deliverer(&self.config, &self.trouble) {
                Ok(new) => drop_aside(mem::replace(&mut *producer, Arc::new(new))),
                Err(error) => tracing::error!(%error, "there is no new producer yet"),
            }
        }
        Arc::clone(&producer)
    }
}

impl Drop for Appender {
    /// What is under way is given up.
    fn drop(&mut self) {
        drop_aside(Arc::clone(&lock(&self.producer)));
    }
}

/// Why a producer takes nothing more, or brings nothing any more to any broker.
fn failure_of(producer: &Deliverer) -> Option<String> {
    // An idempotent one that cannot keep its promise.
    if let Some((code, reason)) = producer.client().fatal_error() {
        return Some(format!("{code}: {reason}"));
    }
    let has_lost_all_brokers = producer.context().0.has_lost_all_brokers();
    has_lost_all_brokers.then(|| "it finds no broker any more".to_owned())
}

fn deliverer(config: &ClientConfig, trouble: &Arc<Trouble>) -> Result<Deliverer, LogError> {
    let deliveries = Deliveries(Observer::new("producer", trouble));
    Deliverer::from_config_and_context(config, deliveries)
        .map_err(|error| trouble.explain("no producer", &error))
}

/// The messages of one append.
struct Append {
    /// Messages without a report yet.
    left: AtomicUsize,
    progress: Mutex<Progress>,
}

/// The room that an append takes up.
type Room = (OwnedSemaphorePermit, Held);

type Answer = oneshot::Sender<Result<Vec<u64>, KafkaError>>;

struct Progress {
    offsets: Vec<u64>,
    /// The first that failed.
    error: Option<KafkaError>,
    /// Whom to tell in the end, and the room that is free then.
    answer: Option<(Answer, Room)>,
}

impl Append {
    /// Notes what became of `messages` of it, and tells once all are in.
    fn finish(&self, messages: usize, result: Result<u64, KafkaError>) {
        let mut progress = lock(&self.progress);
        match result {
            Ok(offset) => progress.offsets.push(offset),
            Err(error) => progress.error = progress.error.take().or(Some(error)),
        }
        if self.left.fetch_sub(messages, Ordering::Relaxed) > messages {
            return;
        }
        let Some((answer, room)) = progress.answer.take() else { return };
        let mut offsets = mem::take(&mut progress.offsets);
        offsets.sort_unstable();
        let result = progress.error.take().map_or(Ok(offsets), Err);
        drop(room);
        // Whoever appended may have gone.
        let _ = answer.send(result);
    }
}

/// Takes the delivery reports.
struct Deliveries(Observer);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.0.note_brokers(&statistics);
    }
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = Arc<Append>;

    fn delivery(&self, report: &DeliveryResult<'_>, append: Arc<Append>) {
        let result = match report {
            // A retry of what was written long ago is acknowledged without its place.
            Ok(message) => u64::try_from(message.offset()).map_err(|_| {
                KafkaError::MessageProduction(RDKafkaErrorCode::DuplicateSequenceNumber)
            }),
            Err((error, _)) => Err(error.clone()),
        };
        append.finish(1, result);
    }
}
