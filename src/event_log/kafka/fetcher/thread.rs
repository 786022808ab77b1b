//! The thread that reads: it alone talks to its consumer.

use std::{
    sync::{Arc, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::Consumer,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};

use super::{Command, Followed, Reader, Shared};
use crate::event_log::{LogError, Record, kafka::window::Pushed};

/// How long the thread waits for messages before it looks for commands.
const POLL_TIMEOUT: Duration = Duration::from_millis(5);
/// Messages that the thread takes before it hands them out.
const BATCH_RECORDS_MAX: usize = 4096;
/// Payloads share pieces of memory of this size, so a record that is kept keeps one.
const PIECE_BYTES: usize = 64 << 10;
/// A partition that nobody has read for so long is followed no more.
const IDLE: Duration = Duration::from_secs(30);
/// How often that is looked for.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// The thread, with all that only it touches.
pub(super) struct Thread {
    reader: Reader,
    shared: Arc<Shared>,
    generation: u64,
    /// Where the next payloads are copied to.
    piece: BytesMut,
}

impl Thread {
    pub(super) fn new(reader: Reader, shared: Arc<Shared>, generation: u64) -> Self {
        Self { reader, shared, generation, piece: BytesMut::new() }
    }

    /// Reads until the log is closed or another thread takes over.
    pub(super) fn run(mut self, commands: &mpsc::Receiver<Command>) {
        let mut idle_at = Instant::now();
        while !self.shared.closed.load(Ordering::Relaxed) && self.is_current() {
            for command in commands.try_iter() {
                self.obey(command);
            }
            let (batch, is_missing) = self.poll();
            self.hand_out(batch);
            if is_missing {
                self.find_missing();
            }
            if idle_at.elapsed() >= IDLE_INTERVAL {
                self.leave_idle();
                idle_at = Instant::now();
            }
        }
    }

    /// Whether it is the one that reads. While a partition is locked, it remains so for
    /// that partition: whoever replaces it looks at every partition afterwards.
    fn is_current(&self) -> bool {
        self.shared.generation.load(Ordering::Relaxed) == self.generation
    }

    fn obey(&self, command: Command) {
        if let Err(error) = self.try_to_obey(command) {
            tracing::error!(%error, "a partition is not followed as it should be");
        }
    }

    fn try_to_obey(&self, command: Command) -> KafkaResult<()> {
        match command {
            Command::Resume { partition } => self.reader.resume(&self.one(partition, None)?),
            Command::Follow { partition, from } => {
                self.leave(partition)?;
                self.reader.incremental_assign(&self.one(partition, Some(from))?)?;
                let mut followed = self.shared.partitions[partition as usize].followed();
                followed.moving_to = followed.moving_to.filter(|latest| *latest != from);
                Ok(())
            }
        }
    }

    /// What has come, once something has, in the order of each partition; and whether
    /// something that was to come is missing.
    fn poll(&mut self) -> (Vec<(u32, Record)>, bool) {
        let (mut batch, mut is_missing) = (Vec::new(), false);
        let mut wait = POLL_TIMEOUT;
        while batch.len() < BATCH_RECORDS_MAX {
            match self.reader.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let payload = message.payload().unwrap_or_default();
                    if let (Ok(partition), Ok(offset)) =
                        (u32::try_from(message.partition()), u64::try_from(message.offset()))
                    {
                        let payload = keep(&mut self.piece, payload);
                        batch.push((partition, Record { offset, payload }));
                    }
                }
                Some(Err(error)) => {
                    let code = error.rdkafka_error_code();
                    is_missing |= code == Some(RDKafkaErrorCode::AutoOffsetReset);
                }
            }
            wait = Duration::ZERO;
        }
        (batch, is_missing)
    }

    fn hand_out(&self, batch: Vec<(u32, Record)>) {
        if !batch.is_empty() && self.is_current() {
            self.shared.batches.fetch_add(1, Ordering::Relaxed);
        }
        let mut records = batch.into_iter().peekable();
        while let Some((number, _)) = records.peek() {
            let number = *number;
            let Some(partition) = self.shared.partitions.get(number as usize) else {
                records.next();
                continue;
            };
            let mut followed = partition.followed();
            let is_wanted =
                followed.is_followed && followed.moving_to.is_none() && self.is_current();
            while let Some((_, record)) = records.next_if(|(other, _)| *other == number) {
                let (offset, next) = (record.offset, followed.window.next());
                if !is_wanted || followed.window.push(record) != Pushed::Gap {
                    continue;
                }
                let reason = format!(
                    "Kafka goes on at offset {offset}: the topic was compacted, or written to in \
                     transactions"
                );
                followed.fail(LogError::Incomplete { partition: number, offset: next, reason });
            }
            if !is_wanted {
                continue;
            }
            followed.end = followed.end.max(Some(followed.window.next()));
            followed.heard_at = Instant::now();
            let is_filled = followed.window.is_full() && followed.is_followed;
            if is_filled && !followed.is_paused {
                let paused = self.one(number, None).and_then(|one| self.reader.pause(&one));
                followed.is_paused = paused.is_ok();
            }
            drop(followed);
            partition.changed.notify_waiters();
        }
    }

    /// Finds the partitions that do not hold what is to be read next, which
    /// librdkafka says without naming them. Those of which nothing is known in time
    /// are asked for again.
    fn find_missing(&self) {
        let deadline = Instant::now() + self.shared.request_timeout / 2;
        for (number, partition) in self.shared.partitions.iter().enumerate() {
            let next = {
                let followed = partition.followed();
                if !followed.is_followed || followed.moving_to.is_some() {
                    continue;
                }
                followed.window.next()
            };
            let topic = &self.shared.topic;
            // 0 would be for ever.
            let limit = deadline.saturating_duration_since(Instant::now()).max(POLL_TIMEOUT);
            let Ok((low, high)) = self.reader.fetch_watermarks(topic, number as i32, limit) else {
                self.follow_anew(number as u32, next);
                continue;
            };
            let (low, high) = (low.max(0) as u64, high.max(0) as u64);
            let failure = if next < low {
                let reason = format!(
                    "the topic {topic} begins at offset {low}, since its retention has dropped what \
                     was before: set retention.ms and retention.bytes to -1"
                );
                LogError::Incomplete { partition: number as u32, offset: next, reason }
            } else if self.has_lost(number as u32, next, high) {
                self.shared.ends_too_early(number as u32, next, high)
            } else {
                if next > high {
                    // Its leader may have been replaced, which a broker will say.
                    let _ = self.reader.fetch_metadata(Some(topic), limit);
                    std::thread::sleep(POLL_TIMEOUT);
                }
                self.follow_anew(number as u32, next);
                continue;
            };
            let mut followed = partition.followed();
            if self.is_current() {
                followed.fail(failure);
            }
            drop(followed);
            partition.changed.notify_waiters();
        }
    }

    fn has_lost(&self, number: u32, known: u64, end: u64) -> bool {
        let mut followed = self.shared.partitions[number as usize].followed();
        self.shared.has_lost(&mut followed, number, known, end)
    }

    /// Goes on where a partition was: what was missing may come back, as when a broker
    /// has just been started again, and librdkafka fetches no more of it by itself.
    fn follow_anew(&self, partition: u32, from: u64) {
        self.shared.partitions[partition as usize].followed().is_paused = false;
        self.obey(Command::Follow { partition, from });
    }

    fn leave_idle(&self) {
        for (number, partition) in self.shared.partitions.iter().enumerate() {
            let mut followed = partition.followed();
            let is_idle = followed.used_at.elapsed() >= IDLE
                && partition.waiting.load(Ordering::Relaxed) == 0;
            if !followed.is_followed || followed.moving_to.is_some() || !is_idle {
                continue;
            }
            followed.is_followed = false;
            let next = followed.window.next();
            followed.window.restart(next);
            if let Err(error) = self.leave(number as u32) {
                tracing::error!(%error, "a partition is followed for longer than it should be");
            }
        }
    }

    /// Ends the assignment of a partition, if it is assigned.
    fn leave(&self, partition: u32) -> KafkaResult<()> {
        let assigned = self.reader.assignment()?;
        let is_assigned = assigned.find_partition(&self.shared.topic, partition as i32).is_some();
        if is_assigned {
            let one = self.one(partition, None)?;
            // Else it would still be paused when it is assigned again, and nothing come of it.
            self.reader.resume(&one)?;
            self.reader.incremental_unassign(&one)
        } else {
            Ok(())
        }
    }

    fn one(&self, partition: u32, from: Option<u64>) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(1);
        let topic = &self.shared.topic;
        match from {
            None => drop(list.add_partition(topic, partition as i32)),
            Some(from) => {
                let from = i64::try_from(from).map_err(|_| {
                    KafkaError::SetPartitionOffset(RDKafkaErrorCode::InvalidArgument)
                })?;
                list.add_partition_offset(topic, partition as i32, Offset::Offset(from))?;
            }
        }
        Ok(list)
    }
}

impl Followed {
    fn fail(&mut self, failure: LogError) {
        self.is_followed = false;
        self.failure = Some(failure);
    }
}

/// A copy of `payload` in a piece of memory that many share.
fn keep(piece: &mut BytesMut, payload: &[u8]) -> Bytes {
    if piece.capacity() < payload.len() {
        *piece = BytesMut::with_capacity(PIECE_BYTES.max(payload.len()));
    }
    piece.extend_from_slice(payload);
    piece.split().freeze()
}
