//! What a bench ran on, and what time its processes have used. Read from `/proc`.

use std::{fs, time::Duration};

use serde::Serialize;

/// The clock ticks of a second in `/proc/…/stat`: the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// The machine that a bench ran on. What cannot be read is empty or 0.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many threads of it this process may use.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The kernel's version.
    pub kernel: String,
    /// The version of the Redis that was measured.
    pub redis: String,
    /// Where the event log was, where a scenario does not say otherwise.
    pub log: &'static str,
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let memory_kb: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: memory_kb * 1_024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            redis: String::new(),
            log: "",
        }
    }
}

/// The CPU time, user and system, that this process has used so far: in steps of a
/// hundredth of a second.
pub(super) fn own_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    cpu_of_stat(&stat).unwrap_or_default()
}

/// The name in parentheses may hold anything; `utime` and `stime` are the 12th and 13th
/// fields after it (man 5 proc).
fn cpu_of_stat(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some(Duration::from_secs_f64((ticks()? + ticks()?) / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_time_of_a_process_is_read_whatever_its_name_is() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4 1 2 3 4 150 50 0 0 20 0 1 0 9 10";
        assert_eq!(cpu_of_stat(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_of_stat("7 (a"), None);
    }

    #[test]
    fn work_shows() {
        let (begun, before) = (Instant::now(), own_cpu());
        let deadline = Duration::from_secs(60);
        while own_cpu() == before {
            assert!(begun.elapsed() < deadline, "no CPU time after {deadline:?} of work");
        }
        assert!(Machine::this().cores > 0);
    }
}
