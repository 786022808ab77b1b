//! A producer of librdkafka that is given payloads, and does nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use rdkafka::{
    ClientConfig, ClientContext,
    config::FromClientConfigAndContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{
        BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext,
        ThreadedProducer,
    },
};

use crate::{
    bench::{BenchError, town::Town},
    event_log::{
        EventLog, codec,
        kafka::{self, KafkaLog},
        partition_of,
    },
};

const FLUSH_MAX: Duration = Duration::from_secs(60);
/// How long to wait when its queue is full.
const FULL_WAIT: Duration = Duration::from_millis(1);

/// A producer with nothing around it.
pub(super) struct Bare {
    producer: Arc<ThreadedProducer<Acknowledged>>,
    topic: String,
    /// With the partition of each.
    payloads: Arc<[(i32, Bytes)]>,
    /// What has been acknowledged, of all turns.
    acknowledged: Arc<AtomicU64>,
}

/// Counts what the brokers have acknowledged.
struct Acknowledged(Arc<AtomicU64>);

impl ClientContext for Acknowledged {}

impl ProducerContext<NoCustomPartitioner> for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, report: &DeliveryResult<'_>, (): ()) {
        if report.is_ok() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Bare {
    pub(super) async fn open(
        settings: kafka::Settings,
        town: &Town,
        turn_posts: usize,
    ) -> Result<Self, BenchError> {
        let config: ClientConfig = kafka::producer_properties(&settings).into_iter().collect();
        let topic = settings.topic.clone();
        // The topic is made as a log is.
        let log = KafkaLog::open(settings).await?;
        let partitions = log.partitions();
        log.close().await;
        let payloads = town.posts_for_ever().take(turn_posts).map(|post| {
            (partition_of(town.author(post), partitions) as i32, codec::encode(&town.event(post)))
        });
        let acknowledged = Arc::<AtomicU64>::default();
        let context = Acknowledged(Arc::clone(&acknowledged));
        let producer = ThreadedProducer::from_config_and_context(&config, context)
            .map_err(BenchError::Producer)?;
        Ok(Self { producer: Arc::new(producer), topic, payloads: payloads.collect(), acknowledged })
    }

    /// Sends all payloads, and returns how many a second were acknowledged.
    pub(super) async fn turn(&mut self) -> Result<f64, BenchError> {
        let (producer, payloads) = (Arc::clone(&self.producer), Arc::clone(&self.payloads));
        let topic = self.topic.clone();
        let before = self.acknowledged.load(Ordering::Relaxed);
        let begun = Instant::now();
        let sent = tokio::task::spawn_blocking(move || {
            payloads.iter().try_for_each(|(partition, payload)| {
                send(&producer, &topic, *partition, payload)
            })?;
            producer.flush(FLUSH_MAX)
        });
        sent.await.map_err(|_| BenchError::Panicked)?.map_err(BenchError::Producer)?;
        let elapsed = begun.elapsed();
        if self.acknowledged.load(Ordering::Relaxed) - before != self.payloads.len() as u64 {
            return Err(BenchError::Unacknowledged);
        }
        Ok(self.payloads.len() as f64 / elapsed.as_secs_f64())
    }
}

/// Sends one message, once there is room for it.
fn send(
    producer: &ThreadedProducer<Acknowledged>,
    topic: &str,
    partition: i32,
    payload: &[u8],
) -> Result<(), KafkaError> {
    loop {
        let record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(payload);
        match producer.send(record) {
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::sleep(FULL_WAIT);
            }
            sent => return sent.map_err(|(error, _)| error),
        }
    }
}
