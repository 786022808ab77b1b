//! Where the partitions end, as their leaders say now.
//!
//! One question is for all partitions, and at most one is under way: whoever asks
//! meanwhile shares the next one, so that the answer is never older than the call.

use std::{
    mem,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};
use tokio::sync::oneshot;

use super::{group::Seat, lock, member::Member, trouble::Trouble};
use crate::event_log::LogError;

/// How long to wait before a question that failed is asked again.
const RETRY_DELAY: Duration = Duration::from_millis(100);

type Answer = Result<Arc<[u64]>, Arc<KafkaError>>;

/// Asks for the ends of a topic's partitions.
#[derive(Debug)]
pub struct Ends(Arc<Inner>);

struct Inner {
    topic: String,
    partitions: u32,
    timeout: Duration,
    seat: Seat,
    trouble: Arc<Trouble>,
    callers: Mutex<Callers>,
}

#[derive(Default)]
struct Callers {
    waiting: Vec<oneshot::Sender<Answer>>,
    /// Whether one of them wants the leaders to be asked for first.
    refresh: bool,
    /// Whether a thread is asking for them.
    asking: bool,
}

impl Ends {
    /// Questions of the member in `seat` for `topic`, each of which may take `timeout`.
    pub fn new(
        topic: String,
        partitions: u32,
        timeout: Duration,
        seat: Seat,
        trouble: Arc<Trouble>,
    ) -> Self {
        let callers = Mutex::default();
        Self(Arc::new(Inner { topic, partitions, timeout, seat, trouble, callers }))
    }

    /// One past the last acknowledged record of every partition, at some moment
    /// after the call.
    pub async fn query(&self) -> Result<Arc<[u64]>, LogError> {
        self.ask(false).await
    }

    /// The same, of the leaders that a broker names now: those known here may have been
    /// replaced.
    pub async fn query_current_leaders(&self) -> Result<Arc<[u64]>, LogError> {
        self.ask(true).await
    }

    async fn ask(&self, refresh: bool) -> Result<Arc<[u64]>, LogError> {
        let (answer, answered) = oneshot::channel();
        let start = {
            let mut callers = lock(&self.0.callers);
            callers.waiting.push(answer);
            callers.refresh |= refresh;
            !mem::replace(&mut callers.asking, true)
        };
        if start {
            let inner = Arc::clone(&self.0);
            tokio::task::spawn_blocking(move || inner.ask_until_nobody_waits());
        }
        let answer = answered.await.map_err(|_| LogError::Closed)?;
        answer.map_err(|error| self.0.trouble.explain("the end of the log is not known", &error))
    }
}

impl Inner {
    fn ask_until_nobody_waits(&self) {
        loop {
            let (waiting, refresh) = {
                let mut callers = lock(&self.callers);
                callers.asking = !callers.waiting.is_empty();
                (mem::take(&mut callers.waiting), mem::take(&mut callers.refresh))
            };
            if waiting.is_empty() {
                return;
            }
            let Some(answer) = self.ask(refresh) else { continue };
            for caller in waiting {
                // It may have gone.
                let _ = caller.send(answer.clone());
            }
        }
    }

    /// `None` once the log is closed.
    fn ask(&self, mut refresh: bool) -> Option<Answer> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let member = self.seat.member()?;
            let left = || deadline.saturating_duration_since(Instant::now());
            if mem::take(&mut refresh) {
                // What it learns from the answer is all that matters of it.
                let _ = member.fetch_metadata(Some(&self.topic), left());
            }
            match self.ask_once(&member, left()) {
                Ok(ends) => return Some(Ok(ends)),
                Err(error) if Instant::now() >= deadline => return Some(Err(Arc::new(error))),
                // A leader has moved, or is away for a moment.
                Err(error) => {
                    refresh = has_forgotten(&error);
                    thread::sleep(RETRY_DELAY);
                }
            }
        }
    }

    fn ask_once(&self, member: &Member, timeout: Duration) -> KafkaResult<Arc<[u64]>> {
        let mut asked = TopicPartitionList::with_capacity(self.partitions as usize);
        for partition in 0..self.partitions {
            asked.add_partition_offset(&self.topic, partition as i32, Offset::End)?;
        }
        let answer = member.offsets_for_times(asked, timeout)?;
        let mut ends = vec![None; self.partitions as usize];
        for element in answer.elements() {
            element.error()?;
            let end = usize::try_from(element.partition()).ok().and_then(|at| ends.get_mut(at));
            if let (Some(end), Offset::Offset(offset)) = (end, element.offset()) {
                *end = u64::try_from(offset).ok();
            }
        }
        let ends: Option<Arc<[u64]>> = ends.into_iter().collect();
        ends.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::OffsetNotAvailable))
    }
}

/// Whether the client does not know partitions that there are. A broker that has just
/// started may have said so, which is kept for minutes.
fn has_forgotten(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let unknown = [Code::UnknownPartition, Code::UnknownTopic, Code::UnknownTopicOrPartition];
    error.rdkafka_error_code().is_some_and(|code| unknown.contains(&code))
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ends").field("topic", &self.topic).finish_non_exhaustive()
    }
}
