//! How many partitions there are, in a file that is written last when the log is
//! made: a log without it was never finished.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    error::{corrupt, io_error},
    recovery,
    segments::file_name,
};
use crate::{durable_file, event_log::LogError};

const FILE_NAME: &str = "partitions";

/// The directory of a partition.
pub fn partition_dir(dir: &Path, partition: u32) -> PathBuf {
    dir.join(format!("p{partition:04}"))
}

/// The partitions of the log in `dir`. `None` if there is no log.
pub fn read(dir: &Path) -> Result<Option<u32>, LogError> {
    let path = dir.join(FILE_NAME);
    match fs::read_to_string(&path) {
        Ok(text) => match parse(&text) {
            Some(partitions) => Ok(Some(partitions)),
            None => Err(corrupt(&path, 0, "it is not a number of partitions")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            refuse_orphans(dir)?;
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(corrupt(&path, 0, "it is not a number of partitions"))
        }
        Err(error) => Err(io_error("reading", &path, error)),
    }
}

/// Makes an empty log.
pub fn create(dir: &Path, partitions: u32) -> Result<(), LogError> {
    let create = || {
        for partition in 0..partitions {
            let partition_dir = partition_dir(dir, partition);
            durable_file::create_dir_all(&partition_dir)?;
            let file = partition_dir.join(file_name(0));
            durable_file::create_file(&file)?.sync_all()?;
            durable_file::sync_dir(&partition_dir)?;
        }
        durable_file::replace(dir, FILE_NAME, format!("{partitions}\n").as_bytes())
    };
    create().map_err(|error| io_error("creating the event log in", dir, error))
}

/// Without the manifest there may be what an interrupted creation left, but no
/// events.
fn refuse_orphans(dir: &Path) -> Result<(), LogError> {
    let has_events = |partition_dir: &Path| {
        let bases = recovery::list(partition_dir)?;
        let file = partition_dir.join(file_name(0));
        io::Result::Ok(bases.len() > 1 || (file.exists() && fs::metadata(file)?.len() > 0))
    };
    let find = || {
        if !dir.exists() {
            return Ok(false);
        }
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() && has_events(&path)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    match find() {
        Ok(false) => Ok(()),
        Ok(true) => {
            Err(corrupt(&dir.join(FILE_NAME), 0, "it is missing, while there are partitions"))
        }
        Err(error) => Err(io_error("listing", dir, error)),
    }
}

/// The one way in which the count is written: a checksum would say no more.
fn parse(text: &str) -> Option<u32> {
    let partitions = text.trim_end().parse().ok()?;
    (format!("{partitions}\n") == text).then_some(partitions)
}
