//! A partition on a disk that fails, or stands still, when told to.
//!
//! The tests run on one thread, so an append that has taken its room is queued.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Condvar, time::Duration};

use tokio::{task::JoinHandle, time::timeout};

use super::*;
use crate::event_log::embedded::segments::{Segment, file_name};

const NO_SPACE: i32 = 28;
const IO_ERROR: i32 = 5;

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Call {
    Create,
    Write(usize),
    Sync,
    SyncDir,
    Truncate(u64),
    Remove,
}

type Matches = fn(Call) -> bool;

/// What the disk was asked, and what it shall answer.
#[derive(Default)]
struct Disk {
    state: Mutex<DiskState>,
    changed: Condvar,
}

#[derive(Default)]
struct DiskState {
    calls: Vec<Call>,
    /// The next call that matches fails with this code.
    faults: Vec<(Matches, i32)>,
    syncs_stand_still: bool,
}

impl Disk {
    fn fail_next(&self, which: Matches, code: i32) {
        self.state.lock().unwrap().faults.push((which, code));
    }

    fn stand_still(&self, still: bool) {
        self.state.lock().unwrap().syncs_stand_still = still;
        self.changed.notify_all();
    }

    fn calls(&self) -> Vec<Call> {
        self.state.lock().unwrap().calls.clone()
    }

    fn called(&self, call: Call) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(call);
        while call == Call::Sync && state.syncs_stand_still {
            state = self.changed.wait(state).unwrap();
        }
        match state.faults.iter().position(|(which, _)| which(call)) {
            Some(at) => Err(io::Error::from_raw_os_error(state.faults.remove(at).1)),
            None => Ok(()),
        }
    }
}

struct FaultyFile {
    file: File,
    disk: Arc<Disk>,
}

impl DiskFile for FaultyFile {
    fn create(&self, path: &Path) -> io::Result<Self> {
        self.disk.called(Call::Create)?;
        Ok(Self { file: DiskFile::create(&self.file, path)?, disk: self.disk.clone() })
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let result = self.disk.called(Call::Write(bytes.len()));
        let written = if result.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        self.file.write_all_at(written, position)?;
        result
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.called(Call::Sync)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.disk.called(Call::SyncDir)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.disk.called(Call::Truncate(bytes))?;
        self.file.set_len(bytes)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.called(Call::Remove)?;
        self.file.remove(path)
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    disk: Arc<Disk>,
    partition: Arc<Partition>,
}

impl Fixture {
    fn new(settings: Settings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join(file_name(0))).unwrap();
        let disk = Arc::new(Disk::default());
        let segments = vec![Segment::empty(dir.path(), 0)];
        let recovered = Recovered { segments, end: 0, last_is_sealed: false };
        let file = FaultyFile { file, disk: disk.clone() };
        let partition = Partition::start(0, dir.path(), &settings, recovered, file).unwrap();
        Self { dir, disk, partition: Arc::new(partition) }
    }

    async fn append(&self, text: &str) -> Result<Range<u64>, LogError> {
        self.partition.append(vec![Bytes::from(text.to_owned())]).await
    }

    fn spawn_append(&self, text: &str) -> JoinHandle<Result<Range<u64>, LogError>> {
        let (partition, payload) = (self.partition.clone(), Bytes::from(text.to_owned()));
        tokio::spawn(async move { partition.append(vec![payload]).await })
    }

    /// Makes the appender stand in the fsync of a group of its own.
    async fn stand_in_a_sync(&self) -> JoinHandle<Result<Range<u64>, LogError>> {
        let syncs = || self.disk.calls().iter().filter(|call| **call == Call::Sync).count();
        let before = syncs();
        self.disk.stand_still(true);
        let append = self.spawn_append("first");
        until(|| syncs() > before).await;
        append
    }

    async fn texts(&self) -> Vec<String> {
        texts(&self.partition).await
    }

    /// What the operating system's file holds once the partition is opened again.
    async fn texts_reopened(self) -> Vec<String> {
        self.partition.close();
        self.partition.join();
        let partition = Partition::open(0, self.dir.path(), &Settings::default()).unwrap();
        let texts = texts(&partition).await;
        partition.close();
        texts
    }
}

async fn texts(partition: &Partition) -> Vec<String> {
    let mut texts = Vec::new();
    while (texts.len() as u64) < partition.end() {
        for record in partition.read(texts.len() as u64, 10).await.unwrap() {
            assert_eq!(record.offset, texts.len() as u64);
            texts.push(String::from_utf8(record.payload.to_vec()).unwrap());
        }
    }
    texts
}

async fn until(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), poll).await.expect("it never came about");
}

#[tokio::test]
async fn nothing_is_acknowledged_or_read_before_its_fsync() {
    let fixture = Fixture::new(Settings::default());
    let first = fixture.stand_in_a_sync().await;
    let second = fixture.spawn_append("second");
    until(|| fixture.partition.room.available_permits() < Settings::default().queue_bytes_max - 10)
        .await;

    assert!(!first.is_finished() && !second.is_finished());
    assert_eq!(fixture.partition.end(), 0);
    assert_eq!(fixture.partition.read(0, 100).await.unwrap(), []);
    assert_eq!(fixture.disk.calls().len(), 2, "no write may begin before the fsync ends");

    fixture.disk.stand_still(false);
    assert_eq!(first.await.unwrap().unwrap(), 0..1);
    assert_eq!(second.await.unwrap().unwrap(), 1..2);
    assert_eq!(fixture.texts().await, ["first", "second"]);
}

#[tokio::test]
async fn what_waits_together_is_one_write_and_one_fsync() {
    let fixture = Fixture::new(Settings::default());
    let first = fixture.stand_in_a_sync().await;
    let rest: Vec<_> = (0..10).map(|_| fixture.spawn_append("rest!")).collect();
    let queued = Settings::default().queue_bytes_max - 11 * 9;
    until(|| fixture.partition.room.available_permits() == queued).await;
    fixture.disk.stand_still(false);
    first.await.unwrap().unwrap();
    for append in rest {
        append.await.unwrap().unwrap();
    }
    let writes = [Call::Write(24 + 9), Call::Sync, Call::Write(24 + 90), Call::Sync];
    assert_eq!(fixture.disk.calls(), writes);
}

#[tokio::test]
async fn a_group_and_the_queue_have_their_bounds() {
    let settings = Settings { group_bytes_max: 20, queue_bytes_max: 60, ..Settings::default() };
    let fixture = Fixture::new(settings);
    let first = fixture.stand_in_a_sync().await;
    let rest: Vec<_> = (0..20).map(|_| fixture.spawn_append("rest!")).collect();
    until(|| fixture.partition.room.available_permits() < 9).await;
    fixture.disk.stand_still(false);
    first.await.unwrap().unwrap();
    for append in rest {
        append.await.unwrap().unwrap();
    }
    let writes = fixture.disk.calls().into_iter().filter(|call| *call != Call::Sync);
    assert!(writes.clone().all(|call| call == Call::Write(24 + 9) || call == Call::Write(24 + 18)));
    assert!(writes.count() >= 11);

    let error = fixture.append("more than twenty bytes").await.unwrap_err();
    assert!(matches!(error, LogError::TooLarge { size: 26, size_max: 20 }), "{error}");
    assert_eq!(fixture.append("sixteen of these").await.unwrap(), 21..22);
}

#[tokio::test]
async fn an_append_larger_than_the_queue_is_not_stuck() {
    let fixture = Fixture::new(Settings { queue_bytes_max: 1, ..Settings::default() });
    let append = timeout(Duration::from_secs(30), fixture.append("larger than a byte"));
    assert_eq!(append.await.expect("it is stuck").unwrap(), 0..1);
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_no_more_once_there_is_space() {
    let fixture = Fixture::new(Settings::default());
    fixture.append("before").await.unwrap();
    fixture.disk.fail_next(|call| matches!(call, Call::Write(_)), NO_SPACE);
    let message = fixture.append("lost").await.unwrap_err().to_string();
    assert!(message.contains("No space left on device"), "{message}");
    assert!(message.contains(&file_name(0)), "{message}");
    assert_eq!(fixture.append("after").await.unwrap(), 1..2);
    assert_eq!(fixture.texts().await, ["before", "after"]);
    assert_eq!(fixture.texts_reopened().await, ["before", "after"]);
}

#[tokio::test]
async fn write_that_cannot_be_undone_is_repaired_later() {
    let fixture = Fixture::new(Settings::default());
    fixture.append("before").await.unwrap();
    fixture.disk.fail_next(|call| matches!(call, Call::Write(_)), NO_SPACE);
    fixture.disk.fail_next(|call| matches!(call, Call::Truncate(_)), IO_ERROR);
    fixture.disk.fail_next(|call| matches!(call, Call::Truncate(_)), IO_ERROR);
    assert!(matches!(fixture.append("lost").await, Err(LogError::Io { action: "writing", .. })));
    let refused = fixture.append("not repaired").await;
    assert!(matches!(refused, Err(LogError::Io { action: "truncating", .. })));
    assert_eq!(fixture.append("after").await.unwrap(), 1..2);
    assert_eq!(fixture.texts().await, ["before", "after"]);
    assert_eq!(fixture.texts_reopened().await, ["before", "after"]);
}

/// A second fsync answers that all is well, though the kernel may have dropped the pages.
#[tokio::test]
async fn frame_of_failed_fsync_is_cut_off_before_the_next() {
    let fixture = Fixture::new(Settings::default());
    fixture.append("before").await.unwrap();
    for _ in 0..2 {
        fixture.disk.fail_next(|call| call == Call::Sync, IO_ERROR);
    }
    assert!(matches!(fixture.append("lost").await, Err(LogError::Io { action: "syncing", .. })));
    let made = fixture.disk.calls().len();
    let refused = fixture.append("not repaired").await;
    assert!(matches!(refused, Err(LogError::Io { action: "syncing", .. })));
    let durable = Call::Truncate(24 + 4 + 6);
    assert_eq!(fixture.disk.calls()[made..], [durable, Call::Sync]);
    assert_eq!(fixture.append("after").await.unwrap(), 1..2);
    let repaired = [durable, Call::Sync, Call::Write(24 + 4 + 5), Call::Sync];
    assert_eq!(fixture.disk.calls()[made + 2..], repaired);
    assert_eq!(fixture.texts_reopened().await, ["before", "after"]);
}

#[tokio::test]
async fn those_that_wait_behind_a_failed_fsync_go_on() {
    let fixture = Fixture::new(Settings { group_bytes_max: 9, ..Settings::default() });
    fixture.disk.fail_next(|call| call == Call::Sync, IO_ERROR);
    let first = fixture.stand_in_a_sync().await;
    let rest: Vec<_> = (0..3).map(|_| fixture.spawn_append("rest!")).collect();
    fixture.disk.stand_still(false);
    assert!(matches!(first.await.unwrap(), Err(LogError::Io { .. })));
    for append in rest {
        append.await.unwrap().unwrap();
    }
    assert_eq!(fixture.texts_reopened().await, ["rest!"; 3]);
}

#[tokio::test]
async fn new_segment_of_unknown_name_is_made_again() {
    let fixture = Fixture::new(Settings { segment_bytes_max: 1, ..Settings::default() });
    fixture.append("before").await.unwrap();
    fixture.disk.fail_next(|call| call == Call::SyncDir, NO_SPACE);
    fixture.append("lost").await.unwrap_err();
    assert_eq!(fixture.append("after").await.unwrap(), 1..2);
    assert_eq!(fixture.texts_reopened().await, ["before", "after"]);
}

#[tokio::test]
async fn a_new_segment_is_tried_again_until_there_is_space() {
    let fixture = Fixture::new(Settings { segment_bytes_max: 1, ..Settings::default() });
    fixture.append("before").await.unwrap();
    fixture.disk.fail_next(|call| matches!(call, Call::Write(_)), NO_SPACE);
    fixture.append("no space for the seal").await.unwrap_err();
    fixture.disk.fail_next(|call| call == Call::Create, NO_SPACE);
    fixture.append("no space for the file").await.unwrap_err();
    assert_eq!(fixture.append("after").await.unwrap(), 1..2);
    assert!(fixture.dir.path().join(file_name(1)).exists());
    assert_eq!(fixture.texts().await, ["before", "after"]);
    assert_eq!(fixture.texts_reopened().await, ["before", "after"]);
}

#[tokio::test]
async fn a_new_segment_is_durable_before_its_first_frame() {
    let fixture = Fixture::new(Settings { segment_bytes_max: 1, ..Settings::default() });
    fixture.append("one").await.unwrap();
    fixture.append("two").await.unwrap();
    let seal = Call::Write(24 + 16 + 8);
    let frame = Call::Write(24 + 4 + 3);
    let calls =
        [frame, Call::Sync, seal, Call::Sync, Call::Create, Call::SyncDir, frame, Call::Sync];
    assert_eq!(fixture.disk.calls(), calls);
}

#[tokio::test]
async fn closing_finishes_what_is_queued() {
    let fixture = Fixture::new(Settings::default());
    let first = fixture.stand_in_a_sync().await;
    let second = fixture.spawn_append("second");
    let room = Settings::default().queue_bytes_max - 9 - 10;
    until(|| fixture.partition.room.available_permits() == room).await;
    fixture.partition.close();
    fixture.disk.stand_still(false);
    fixture.partition.join();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert!(matches!(fixture.append("late").await, Err(LogError::Closed)));
    assert!(matches!(fixture.partition.wait_past(2).await, Err(LogError::Closed)));
    assert_eq!(fixture.texts_reopened().await, ["first", "second"]);
}
