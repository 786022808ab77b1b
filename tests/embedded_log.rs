//! What the embedded event log makes of damaged files and of `kill -9`.

#[path = "common/seed.rs"]
mod seed;

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use roost::event_log::{
    EventLog, LogError, Record,
    embedded::{EmbeddedLog, Settings},
};

use self::seed::seed;

/// A log of one partition, and the files that it consists of.
struct Damaged {
    dir: tempfile::TempDir,
    settings: Settings,
    /// The segments and what they hold, in order.
    files: Vec<(PathBuf, Vec<u8>)>,
    /// The lengths of the last file after each append.
    frame_ends: Vec<usize>,
    texts: Vec<String>,
}

impl Damaged {
    /// Appends `counts` records each, one frame after the other.
    async fn new(segment_bytes_max: u64, counts: &[usize]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { partitions: Some(1), segment_bytes_max, ..Settings::default() };
        let log = EmbeddedLog::open(dir.path(), settings.clone()).unwrap();
        let mut damaged =
            Self { dir, settings, files: Vec::new(), frame_ends: Vec::new(), texts: Vec::new() };
        for count in counts {
            let from = damaged.texts.len();
            damaged.texts.extend((from..from + count).map(|at| format!("record {at}")));
            let payloads = damaged.texts[from..].iter().map(|text| text.clone().into()).collect();
            log.append(0, payloads).await.unwrap();
            let last = segments(damaged.dir.path()).pop().unwrap();
            damaged.frame_ends.push(fs::metadata(last).unwrap().len() as usize);
        }
        log.close().await;
        let files = segments(damaged.dir.path()).into_iter();
        damaged.files = files.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        damaged
    }

    fn open(&self) -> Result<EmbeddedLog, LogError> {
        EmbeddedLog::open(self.dir.path(), self.settings.clone())
    }

    /// Opens and reads everything.
    async fn read(&self) -> Result<Vec<String>, LogError> {
        Ok(texts(&read_all(&self.open()?, 0).await?))
    }

    /// Writes the files as they were, and nothing else.
    fn restore(&self) {
        for path in segments(self.dir.path()) {
            fs::remove_file(path).unwrap();
        }
        for (path, contents) in &self.files {
            fs::write(path, contents).unwrap();
        }
    }

    fn last(&self) -> &(PathBuf, Vec<u8>) {
        self.files.last().unwrap()
    }

    /// Where the frame that holds byte `at` of the only file begins.
    fn frame_start(&self, at: usize) -> usize {
        self.frame_ends.iter().copied().rfind(|end| *end <= at).unwrap_or(0)
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("p0000")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    paths.sort();
    paths
}

async fn read_all(log: &EmbeddedLog, partition: u32) -> Result<Vec<Record>, LogError> {
    let mut records = Vec::new();
    while (records.len() as u64) < log.end(partition).await.unwrap() {
        records.extend(log.read(partition, records.len() as u64, 1 << 20).await?);
    }
    Ok(records)
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8(record.payload.to_vec()).unwrap()).collect()
}

/// The position at which a file is said to be corrupt.
#[track_caller]
fn corrupt_at<T>(result: Result<T, LogError>, path: &Path) -> u64 {
    match result {
        Err(LogError::Corrupt { file, position, .. }) if Path::new(&file) == path => position,
        Err(error) => panic!("not that {} is corrupt, but: {error}", path.display()),
        Ok(_) => panic!("it was not noticed that {} is corrupt", path.display()),
    }
}

#[tokio::test]
async fn a_last_frame_cut_anywhere_is_forgotten_and_the_log_goes_on() {
    let damaged = Damaged::new(1 << 20, &[2, 1, 3]).await;
    let (path, contents) = damaged.last();
    for length in damaged.frame_ends[1]..contents.len() {
        fs::write(path, &contents[..length]).unwrap();
        let log = damaged.open().unwrap();
        assert_eq!(texts(&read_all(&log, 0).await.unwrap()), damaged.texts[..3], "{length} bytes");
        assert_eq!(fs::metadata(path).unwrap().len() as usize, damaged.frame_ends[1]);
        assert_eq!(log.append(0, vec![Bytes::from_static(b"new")]).await.unwrap(), [3]);
        drop(log);
        let expected = [&damaged.texts[..3], &["new".to_owned()]].concat();
        assert_eq!(damaged.read().await.unwrap(), expected, "{length} bytes");
    }
}

#[tokio::test]
async fn a_changed_byte_is_corrupt_unless_the_last_frame_may_be_torn() {
    let damaged = Damaged::new(1 << 20, &[2, 1, 3, 1]).await;
    let (path, contents) = damaged.last();
    let last_frame = damaged.frame_ends[2];
    for at in 0..contents.len() {
        let mut changed = contents.clone();
        changed[at] ^= 1 << (at % 8);
        fs::write(path, changed).unwrap();
        if at < last_frame {
            let position = corrupt_at(damaged.open(), path);
            assert_eq!(position as usize, damaged.frame_start(at), "byte {at}");
        } else {
            assert_eq!(damaged.read().await.unwrap(), damaged.texts[..6], "byte {at}");
        }
    }
}

#[tokio::test]
async fn a_changed_byte_of_a_sealed_segment_is_noticed_when_it_is_read() {
    let damaged = Damaged::new(80, &[2, 1, 3, 1, 2, 2, 2, 2]).await;
    assert!(damaged.files.len() > 2);
    for (path, contents) in &damaged.files[..damaged.files.len() - 1] {
        for at in 0..contents.len() {
            let mut changed = contents.clone();
            changed[at] ^= 1 << (at % 8);
            fs::write(path, changed).unwrap();
            corrupt_at(damaged.read().await, path);
        }
        fs::write(path, contents).unwrap();
    }
    assert_eq!(damaged.read().await.unwrap(), damaged.texts);
}

#[tokio::test]
async fn a_sealed_segment_that_was_cut_or_extended_is_corrupt() {
    let damaged = Damaged::new(80, &[2, 1, 3, 1, 2]).await;
    let (path, contents) = &damaged.files[0];
    for length in 0..contents.len() {
        fs::write(path, &contents[..length]).unwrap();
        corrupt_at(damaged.open(), path);
    }
    fs::write(path, [contents.as_slice(), b"more"].concat()).unwrap();
    corrupt_at(damaged.open(), path);
}

#[tokio::test]
async fn a_seal_that_a_crash_interrupted_is_forgotten_and_the_log_goes_on() {
    let damaged = Damaged::new(1, &[2, 1]).await;
    let (path, contents) = &damaged.files[0];
    let seal_at = damaged.frame_ends[0];
    for length in seal_at..=contents.len() {
        damaged.restore();
        fs::remove_file(&damaged.last().0).unwrap();
        fs::write(path, &contents[..length]).unwrap();
        let log = damaged.open().unwrap();
        assert_eq!(log.append(0, vec![Bytes::from_static(b"new")]).await.unwrap(), [2]);
        drop(log);
        assert_eq!(damaged.read().await.unwrap(), ["record 0", "record 1", "new"], "{length}");
    }
}

#[tokio::test]
async fn a_segment_that_was_made_but_not_written_is_gone_on_with() {
    let damaged = Damaged::new(1, &[2, 1]).await;
    fs::write(&damaged.last().0, []).unwrap();
    let log = damaged.open().unwrap();
    assert_eq!(log.append(0, vec![Bytes::from_static(b"new")]).await.unwrap(), [2]);
    drop(log);
    assert_eq!(damaged.read().await.unwrap(), ["record 0", "record 1", "new"]);
}

#[tokio::test]
async fn a_missing_segment_is_corrupt() {
    let damaged = Damaged::new(1, &[2, 1, 3, 1, 2]).await;
    for (path, _) in &damaged.files[..damaged.files.len() - 1] {
        fs::remove_file(path).unwrap();
        corrupt_at(damaged.open(), path);
        damaged.restore();
    }
    for (path, _) in &damaged.files {
        fs::remove_file(path).unwrap();
    }
    corrupt_at(damaged.open(), &damaged.files[0].0);
}

#[tokio::test]
async fn garbage_at_the_end_is_cut_off() {
    let damaged = Damaged::new(1 << 20, &[2, 1]).await;
    let (path, contents) = damaged.last();
    let mut rng = StdRng::seed_from_u64(seed());
    let random: Vec<u8> = (0..5000).map(|_| rng.random()).collect();
    let earlier_frame = contents[..damaged.frame_ends[0]].to_vec();
    for garbage in [vec![0], vec![0; 4096], vec![0xF5; 4096], random, earlier_frame[1..].to_vec()] {
        fs::write(path, [contents.clone(), garbage].concat()).unwrap();
        assert_eq!(damaged.read().await.unwrap(), damaged.texts);
        assert_eq!(&fs::read(path).unwrap(), contents);
    }
    // A whole frame, but not the one that belongs here.
    fs::write(path, [contents.clone(), earlier_frame].concat()).unwrap();
    assert_eq!(corrupt_at(damaged.open(), path) as usize, contents.len());
}

#[tokio::test]
async fn more_garbage_than_a_write_can_leave_is_corrupt() {
    let damaged = Damaged::new(1 << 20, &[2, 1]).await;
    let (path, contents) = damaged.last();
    let length = contents.len() as u64 + (65 << 20);
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
    assert_eq!(corrupt_at(damaged.open(), path) as usize, contents.len());
}

#[tokio::test]
async fn a_commit_beyond_the_end_says_that_records_were_lost() {
    let damaged = Damaged::new(1 << 20, &[2, 1]).await;
    damaged.open().unwrap().commit(0, 3).await.unwrap();
    let (path, contents) = damaged.last();
    fs::write(path, &contents[..damaged.frame_ends[0]]).unwrap();
    assert_eq!(corrupt_at(damaged.open(), path) as usize, damaged.frame_ends[0]);
}

#[tokio::test]
async fn a_log_keeps_its_number_of_partitions() {
    let dir = tempfile::tempdir().unwrap();
    let open =
        |partitions| EmbeddedLog::open(dir.path(), Settings { partitions, ..Settings::default() });
    assert_eq!(open(Some(3)).unwrap().partitions(), 3);
    assert_eq!(open(None).unwrap().partitions(), 3);
    assert_eq!(open(Some(3)).unwrap().partitions(), 3);
    let message = open(Some(4)).unwrap_err().to_string();
    assert!(message.contains("has 3 partitions") && message.contains("4 were asked"), "{message}");
}

#[tokio::test]
async fn a_log_without_its_number_of_partitions_is_not_made_anew() {
    let damaged = Damaged::new(1 << 20, &[2, 1]).await;
    let manifest = damaged.dir.path().join("partitions");
    for text in [b"".as_slice(), b"0", b"two\n", b"\xFF\xFF", b" 1\n", b"99999999999\n"] {
        fs::write(&manifest, text).unwrap();
        corrupt_at(damaged.open(), &manifest);
    }
    fs::remove_file(&manifest).unwrap();
    corrupt_at(damaged.open(), &manifest);
}

#[tokio::test]
async fn an_interrupted_creation_is_completed() {
    let damaged = Damaged::new(1 << 20, &[]).await;
    fs::remove_file(damaged.dir.path().join("partitions")).unwrap();
    fs::create_dir(damaged.dir.path().join("p0001")).unwrap();
    assert_eq!(damaged.read().await.unwrap(), [""; 0]);
}

#[test]
fn all_bad_settings_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        partitions: Some(0),
        segment_bytes_max: 0,
        queue_bytes_max: 0,
        group_bytes_max: 65 << 20,
    };
    let message = EmbeddedLog::open(dir.path(), settings).unwrap_err().to_string();
    for name in ["partitions", "segment_bytes_max", "queue_bytes_max", "group_bytes_max"] {
        assert!(message.contains(name), "{message}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_closed_log_takes_no_more_but_is_still_read() {
    let damaged = Damaged::new(1 << 20, &[2]).await;
    let log = damaged.open().unwrap();
    log.close().await;
    log.close().await;
    let error = log.append(0, vec![Bytes::from_static(b"late")]).await.unwrap_err();
    assert!(matches!(error, LogError::Closed), "{error}");
    assert_eq!(texts(&read_all(&log, 0).await.unwrap()), damaged.texts);
}

/// The directory in which [`child_that_is_killed`] works.
const CHILD_DIR: &str = "ROOST_TEST_KILLED_CHILD_DIR";
const CHILD_ROUND: &str = "ROOST_TEST_KILLED_CHILD_ROUND";
const CHILD_PARTITIONS: u32 = 2;

fn child_settings() -> Settings {
    Settings {
        partitions: Some(CHILD_PARTITIONS),
        segment_bytes_max: 2 << 10,
        ..Settings::default()
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let mut rng = StdRng::seed_from_u64(seed());
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = HashMap::new();
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_that_is_killed", "--exact", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .env(CHILD_ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let kill_after = rng.random_range(100..1500);
        let mut seen = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            // "ack PARTITION OFFSET TEXT ." and whatever the test harness says.
            let line = line.unwrap();
            if let ["ack", partition, offset, text, "."] = *line.split(' ').collect::<Vec<_>>() {
                let place = (partition.parse::<u32>().unwrap(), offset.parse::<usize>().unwrap());
                assert_eq!(acknowledged.insert(place, text.to_owned()), None, "{line}");
                seen += 1;
                if seen == kill_after {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(seen >= kill_after, "the child ended by itself after {seen}");

        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let log = EmbeddedLog::open(dir.path(), child_settings()).unwrap();
            for partition in 0..CHILD_PARTITIONS {
                let texts = texts(&read_all(&log, partition).await.unwrap());
                for ((_, offset), text) in acknowledged.iter().filter(|(at, _)| at.0 == partition) {
                    assert_eq!(texts.get(*offset), Some(text), "round {round}, offset {offset}");
                }
            }
        });
    }
    assert!(segments(dir.path()).len() > 1, "no segment was ever sealed");
}

/// Not a test: appends without an end and says what was acknowledged, where
/// [`what_was_acknowledged_survives_kill_9`] has started it. That closes the pipe when
/// it dies, and the next line is then the last.
#[test]
fn child_that_is_killed() {
    const APPENDS_MAX: usize = 100_000;
    let Ok(dir) = std::env::var(CHILD_DIR) else {
        return;
    };
    let round = std::env::var(CHILD_ROUND).unwrap();
    println!();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let log = Arc::new(EmbeddedLog::open(dir.as_ref(), child_settings()).unwrap());
        let tasks = (0..16).map(|task| {
            let (log, round) = (log.clone(), round.clone());
            tokio::spawn(async move {
                for at in 0..APPENDS_MAX / 16 {
                    let texts: Vec<String> = (0..=at % 3)
                        .map(|record| format!("{round}/{task}/{at}/{record}"))
                        .collect();
                    let payloads = texts.iter().map(|text| text.clone().into()).collect();
                    let partition = (at % 2) as u32;
                    let offsets = log.append(partition, payloads).await.unwrap();
                    for (offset, text) in offsets.into_iter().zip(texts) {
                        println!("ack {partition} {offset} {text} .");
                    }
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
}
