//! What a bench ran on, and what time its own process has used.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Memory that no cache of one core holds, in bytes, as a power of two.
const LARGE_BITS: u32 = 28;
/// Accesses that are timed.
const ACCESSES: u32 = 500_000;

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

/// How long one access to memory takes that no cache has, in nanoseconds. Takes a second, of
/// work.
///
/// Follows a path through much memory: where it goes next is known only once what is there
/// has come.
pub(super) fn memory_access_ns() -> f64 {
    // Ones, so that there is memory behind it.
    let memory = vec![1_u8; 1 << LARGE_BITS];
    let (begun, mut here, mut path) = (Instant::now(), 1, 0_u64);
    for _ in 0..ACCESSES {
        // Knuth's MMIX generator, of which the high bits are used.
        path = path.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(u64::from(here));
        here = memory[(path >> (64 - LARGE_BITS)) as usize];
    }
    std::hint::black_box(here);
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(ACCESSES)
}

/// The CPU time, user and system, that this process has used so far.
pub(super) fn own_cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.try_into().unwrap_or(0), used.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows() {
        let (begun, before) = (Instant::now(), own_cpu());
        let deadline = Duration::from_secs(60);
        while own_cpu() == before {
            assert!(begun.elapsed() < deadline, "no CPU time after {deadline:?} of work");
        }
        let machine = Machine::this();
        assert!(machine.cores > 0 && memory_access_ns() > 0.0);
    }
}
