//! One partition: its appender thread, its readers, its committed offset.

use std::{
    fs::OpenOptions,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{
    Settings,
    appender::{Append, Appender, Command},
    committed::Committed,
    error::{corrupt, io_error},
    frame,
    reader::{Cursor, Cursors},
    recovery::{self, Recovered},
    segments::Segments,
    writer::{DiskFile, SegmentWriter},
};
use crate::{
    event_log::{LogError, Record},
    vital_thread,
};

/// One partition of an embedded log.
#[derive(Debug)]
pub struct Partition {
    number: u32,
    append_bytes_max: usize,
    /// The bytes of the queue that are free. Closed when no more is accepted.
    room: Arc<Semaphore>,
    room_bytes: usize,
    queue: mpsc::UnboundedSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// One past the last acknowledged record.
    end: watch::Receiver<u64>,
    shared: Arc<Shared>,
}

/// What the blocking threads work on.
#[derive(Debug)]
struct Shared {
    segments: Arc<Segments>,
    cursors: Cursors,
    committed: Committed,
}

impl Partition {
    /// Recovers the partition in `dir` and starts its thread.
    pub fn open(number: u32, dir: &Path, settings: &Settings) -> Result<Self, LogError> {
        let recovered = recovery::recover(dir)?;
        let last = recovered.segments.last().map(|last| last.path.clone());
        let path = last.ok_or_else(|| corrupt(dir, 0, "it has no segments"))?;
        let file = OpenOptions::new().write(true).open(&path);
        let file = file.map_err(|error| io_error("opening", &path, error))?;
        Self::start(number, dir, settings, recovered, file)
    }

    fn start(
        number: u32,
        dir: &Path,
        settings: &Settings,
        recovered: Recovered,
        file: impl DiskFile,
    ) -> Result<Self, LogError> {
        let Recovered { segments, end, last_is_sealed } = recovered;
        let committed = Committed::open(dir)?;
        let Some(last) = segments.last() else {
            return Err(corrupt(dir, 0, "it has no segments"));
        };
        let writer = SegmentWriter { file, path: last.path.clone(), position: last.data_bytes };
        if committed.offset() > end {
            let reason = format!(
                "it ends before offset {end}, but everything below {} was there once",
                committed.offset()
            );
            return Err(corrupt(&last.path, last.data_bytes, reason));
        }
        let segments = Arc::new(Segments::new(segments));
        let (queue, queued) = mpsc::unbounded_channel();
        let (end_sender, end) = watch::channel(end);
        let appender = Appender {
            partition: number,
            dir: dir.to_owned(),
            writer,
            is_sealed: last_is_sealed,
            segment_bytes_max: settings.segment_bytes_max,
            group_bytes_max: settings.group_bytes_max,
            segments: segments.clone(),
            end: end_sender,
            needs_repair: false,
            queue: queued,
            carried: None,
            frame: Vec::new(),
        };
        let thread = vital_thread::spawn(&format!("log-p{number:04}"), move || appender.run())
            .map_err(|error| io_error("starting the appender of", dir, error))?;
        Ok(Self {
            number,
            append_bytes_max: settings.group_bytes_max,
            room: Arc::new(Semaphore::new(settings.queue_bytes_max)),
            room_bytes: settings.queue_bytes_max,
            queue,
            thread: Mutex::new(Some(thread)),
            end,
            shared: Arc::new(Shared { segments, cursors: Cursors::default(), committed }),
        })
    }

    /// See [`EventLog::append`](crate::event_log::EventLog::append).
    pub async fn append(&self, payloads: Vec<Bytes>) -> Result<Range<u64>, LogError> {
        let body_bytes =
            payloads.iter().map(|payload| frame::RECORD_HEADER_BYTES + payload.len()).sum();
        if body_bytes > self.append_bytes_max {
            return Err(LogError::TooLarge { size: body_bytes, size_max: self.append_bytes_max });
        }
        if payloads.is_empty() {
            return Ok(self.end()..self.end());
        }
        // Never more than there is in all, since it would wait for ever.
        let permits = body_bytes.min(self.room_bytes) as u32;
        let room = self.room.clone().acquire_many_owned(permits).await;
        let room = room.map_err(|_| LogError::Closed)?;
        let (acknowledge, acknowledged) = oneshot::channel();
        let append = Append { payloads, body_bytes, _room: room, acknowledge };
        self.queue.send(Command::Append(append)).map_err(|_| LogError::Closed)?;
        acknowledged.await.unwrap_or(Err(LogError::Closed))
    }

    /// See [`EventLog::read`](crate::event_log::EventLog::read).
    pub async fn read(&self, from: u64, bytes_max: usize) -> Result<Vec<Record>, LogError> {
        let end = self.end();
        if from >= end {
            return Ok(Vec::new());
        }
        let shared = self.shared.clone();
        blocking(move || {
            let Shared { segments, cursors, .. } = &*shared;
            let mut cursor = cursors.take(from).map_or_else(|| Cursor::seek(segments, from), Ok)?;
            let records = cursor.read(segments, end, bytes_max)?;
            cursors.put(cursor);
            Ok(records)
        })
        .await
    }

    /// See [`EventLog::end`](crate::event_log::EventLog::end).
    pub fn end(&self) -> u64 {
        *self.end.borrow()
    }

    /// See [`EventLog::wait_past`](crate::event_log::EventLog::wait_past).
    pub async fn wait_past(&self, offset: u64) -> Result<(), LogError> {
        let mut end = self.end.clone();
        end.wait_for(|end| *end > offset).await.map(|_| ()).map_err(|_| LogError::Closed)
    }

    /// See [`EventLog::committed`](crate::event_log::EventLog::committed).
    pub fn committed(&self) -> u64 {
        self.shared.committed.offset()
    }

    /// See [`EventLog::commit`](crate::event_log::EventLog::commit).
    pub async fn commit(&self, offset: u64) -> Result<(), LogError> {
        let end = self.end();
        if offset > end {
            return Err(LogError::BeyondEnd { partition: self.number, offset, end });
        }
        if offset <= self.committed() {
            return Ok(());
        }
        let shared = self.shared.clone();
        blocking(move || shared.committed.commit(offset)).await
    }

    /// Accepts nothing more. What is queued is still made durable.
    pub fn close(&self) {
        self.room.close();
        // An error says that the thread has ended already.
        let _ = self.queue.send(Command::Close);
    }

    /// Waits until everything queued is durable. Blocks; call after `close`.
    pub fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(partition = self.number, "the appender of the event log panicked");
        }
    }
}

/// Runs a blocking call off the async threads.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is shutting down.
        Err(_) => Err(LogError::Closed),
    }
}

#[cfg(test)]
mod tests;
