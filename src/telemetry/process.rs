//! The process itself, under the names that all programs use. Read from `/proc` when
//! it is asked for; what cannot be read is left away.

use std::{fmt, fs, time::SystemTime};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::gauge::ConstGauge,
    registry::Registry,
};

pub(super) fn register(registry: &mut Registry) {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let started_at = since_1970.map_or(0.0, |since| since.as_secs_f64());
    registry.register_collector(Box::new(Process { started_at }));
}

/// Memory that the process has in RAM.
pub(crate) fn resident_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kb| kb * 1_024)
}

#[derive(Debug)]
struct Process {
    /// Seconds since 1970.
    started_at: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let open_files = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Bytes of memory that the process has in RAM.",
                resident_bytes().map(|bytes| bytes as f64),
            ),
            (
                "process_open_fds",
                "Files and connections that are open.",
                open_files.map(|count| count as f64),
            ),
            (
                "process_start_time_seconds",
                "When the process started, in seconds since 1970.",
                Some(self.started_at),
            ),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
