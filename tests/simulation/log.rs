//! A log in memory: durable as long as the simulation wants it to be.

use std::sync::Mutex;

use bytes::Bytes;
use roost::event_log::{Assignments, EventLog, LogError, Record};
use tokio::sync::watch;

use crate::faults::{Faults, Struck};

pub struct SimLog {
    partitions: Vec<Partition>,
    faults: Faults,
}

struct Partition {
    payloads: Mutex<Vec<Bytes>>,
    end: watch::Sender<u64>,
    committed: Mutex<u64>,
}

impl From<Struck> for LogError {
    fn from(_: Struck) -> Self {
        Self::Closed
    }
}

impl SimLog {
    pub fn new(partitions: u32, faults: Faults) -> Self {
        let partitions = (0..partitions)
            .map(|_| Partition {
                payloads: Mutex::default(),
                end: watch::Sender::default(),
                committed: Mutex::default(),
            })
            .collect();
        Self { partitions, faults }
    }

    /// Everything in it, for the model.
    pub fn all(&self) -> Vec<Vec<Bytes>> {
        self.partitions.iter().map(|partition| partition.payloads.lock().unwrap().clone()).collect()
    }
}

impl EventLog for SimLog {
    fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    async fn append(&self, partition: u32, payloads: Vec<Bytes>) -> Result<Vec<u64>, LogError> {
        self.faults.point().await?;
        let partition = &self.partitions[partition as usize];
        let range = {
            let mut all = partition.payloads.lock().unwrap();
            let start = all.len() as u64;
            all.extend(payloads);
            start..all.len() as u64
        };
        partition.end.send_replace(range.end);
        // Durable is acknowledged, unless the process and its memory of the request
        // end first: a log in doubt takes no more events until it is opened again.
        let _ = self.faults.point_without_failure().await;
        Ok(range.collect())
    }

    async fn read(&self, partition: u32, from: u64, _: usize) -> Result<Vec<Record>, LogError> {
        self.faults.point().await?;
        let count_max = self.faults.pick(1..6) as usize;
        let payloads = self.partitions[partition as usize].payloads.lock().unwrap();
        Ok((from..)
            .zip(payloads.iter().skip(from as usize).take(count_max))
            .map(|(offset, payload)| Record { offset, payload: payload.clone() })
            .collect())
    }

    async fn end(&self, partition: u32) -> Result<u64, LogError> {
        Ok(*self.partitions[partition as usize].end.borrow())
    }

    async fn wait_past(&self, partition: u32, offset: u64) -> Result<(), LogError> {
        let mut end = self.partitions[partition as usize].end.subscribe();
        end.wait_for(|end| *end > offset).await.map(|_| ()).map_err(|_| LogError::Closed)
    }

    async fn committed(&self, partition: u32) -> Result<u64, LogError> {
        Ok(*self.partitions[partition as usize].committed.lock().unwrap())
    }

    async fn commit(&self, partition: u32, offset: u64) -> Result<(), LogError> {
        self.faults.point().await?;
        assert!(self.faults.is_synced(partition, offset), "{offset} is committed and not synced");
        *self.partitions[partition as usize].committed.lock().unwrap() = offset;
        self.faults.point().await?;
        Ok(())
    }

    async fn close(&self) {}

    fn join(&self) -> Assignments {
        Assignments::all(self.partitions())
    }
}
