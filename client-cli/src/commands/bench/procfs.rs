//! What the kernel says of a process: processor time and memory. Where there is no `/proc`, nothing.

use std::{fs, time::Duration};

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The most that was resident at any time (VmHWM).
    pub peak_bytes: u64,
    /// Resident now (VmRSS).
    pub resident_bytes: u64,
}

/// Processor time of a process so far, in user and kernel mode, over all its threads. The kernel counts it in ticks of 10 ms.
pub(super) fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = cpu_ticks(&stat)?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// Memory of a process.
pub(super) fn memory(pid: u32) -> Option<Memory> {
    parse_memory(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// Processor time of this process so far, to the nanosecond.
pub(super) fn own_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    // Neither part is ever negative, and the second is below a billion.
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Fields 14 and 15 (utime, stime). The second field is the program's name in brackets, and may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

fn parse_memory(status: &str) -> Option<Memory> {
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some(Memory { peak_bytes: kib("VmHWM:")? * 1024, resident_bytes: kib("VmRSS:")? * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_does_not_confuse_the_count() {
        let stat = "42 (a ) b 1 2) S 1 42 42 0 -1 4194304 500 0 0 0 120 30 0 0 20 0 8 0 100 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(150));
        assert_eq!(cpu_ticks("42 (x"), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t   1024 kB\n";
        assert_eq!(parse_memory(status), Some(Memory { peak_bytes: 2 << 20, resident_bytes: 1 << 20 }));
        assert_eq!(parse_memory("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn work_costs_processor_time() {
        let before = own_cpu_time();
        let until = before + Duration::from_millis(2);
        while own_cpu_time() < until {}
        assert!(own_cpu_time() >= until);
    }
}
