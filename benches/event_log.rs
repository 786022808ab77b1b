//! The embedded event log beside a plain file, with records as long as a post.
//!
//! ```text
//! cargo bench --bench event_log              figures
//! cargo bench --bench event_log -- --test    runs everything once
//! ```
//!
//! The rival of appending writes the bytes of the same records in groups as large as
//! the log's can get, each with one write and one fdatasync. The rival of reading
//! reads the log's own file and looks at nothing in it.

use std::{
    fs::{self, File},
    hint::black_box,
    io::{Read, Write},
    sync::Arc,
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use roost::event_log::{
    EventLog,
    embedded::{EmbeddedLog, Settings},
};
use tokio::runtime::Runtime;

const RECORD_BYTES: usize = 120;
/// How many appends are in flight.
const TASKS: usize = 64;
/// How many appends each of them makes in one round.
const APPENDS: usize = 10;
const READ_RECORDS: usize = 200_000;
const PIECE_BYTES: usize = 1 << 20;

fn settings() -> Settings {
    Settings { partitions: Some(1), ..Settings::default() }
}

fn append(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    for records in [1, 16] {
        let mut group = criterion.benchmark_group(format!("append {records} at a time"));
        group.throughput(Throughput::Elements((TASKS * APPENDS * records) as u64));

        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(EmbeddedLog::open(dir.path(), settings()).unwrap());
        let payloads = vec![Bytes::from(vec![b'x'; RECORD_BYTES]); records];
        group.bench_function("embedded", |bencher| {
            bencher.iter(|| runtime.block_on(append_from_tasks(&log, &payloads)));
        });

        let mut file = File::create(dir.path().join("raw")).unwrap();
        let bytes = vec![b'x'; RECORD_BYTES * TASKS * records];
        group.bench_function("raw file", |bencher| {
            bencher.iter(|| {
                for _ in 0..APPENDS {
                    file.write_all(&bytes).unwrap();
                    file.sync_data().unwrap();
                }
            });
        });
        group.finish();
    }
}

async fn append_from_tasks(log: &Arc<EmbeddedLog>, payloads: &[Bytes]) {
    let task = || {
        let (log, payloads) = (log.clone(), payloads.to_vec());
        tokio::spawn(async move {
            for _ in 0..APPENDS {
                log.append(0, payloads.clone()).await.unwrap();
            }
        })
    };
    let tasks: Vec<_> = (0..TASKS).map(|_| task()).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

fn read(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), settings()).unwrap();
    let payloads = vec![Bytes::from(vec![b'x'; RECORD_BYTES]); 100];
    for _ in 0..READ_RECORDS / payloads.len() {
        runtime.block_on(log.append(0, payloads.clone())).unwrap();
    }

    let mut group = criterion.benchmark_group("read in order");
    group.throughput(Throughput::Elements(READ_RECORDS as u64));
    for bytes_max in [64 << 10, PIECE_BYTES] {
        group.bench_function(format!("embedded, {} KiB at a time", bytes_max >> 10), |bencher| {
            bencher.iter(|| runtime.block_on(read_all(&log, bytes_max)));
        });
    }
    let segment = fs::read_dir(dir.path().join("p0000")).unwrap().next().unwrap().unwrap().path();
    group.bench_function("raw file", |bencher| {
        let mut piece = vec![0; PIECE_BYTES];
        bencher.iter(|| {
            let mut file = File::open(&segment).unwrap();
            while file.read(&mut piece).unwrap() > 0 {
                black_box(&piece);
            }
        });
    });
    group.finish();
}

async fn read_all(log: &EmbeddedLog, bytes_max: usize) {
    let mut next = 0;
    let end = log.end(0).await.unwrap();
    while next < end {
        let records = log.read(0, next, bytes_max).await.unwrap();
        next += black_box(records).len() as u64;
    }
}

criterion_group!(benches, append, read);
criterion_main!(benches);
