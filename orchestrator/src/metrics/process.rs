//! What the system says of this process: its processor time, memory and files, under the names that every Prometheus client
//! gives them. Where there is no `/proc`, they are absent and nothing else is.

use std::{
    fs,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// The figures, as last read.
#[derive(Debug, Default)]
pub(super) struct Process {
    cpu_seconds: Counter<f64, AtomicU64>,
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    threads: Gauge,
    start_time: Gauge<f64, AtomicU64>,
    /// One reader at a time: two that add to the same counter would count twice.
    reading: Mutex<()>,
}

/// What stands in `/proc/self`.
#[derive(Debug, Default, PartialEq)]
struct Reading {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    open_fds: u64,
    max_fds: Option<u64>,
    threads: u64,
    start_time: f64,
}

impl Process {
    /// Makes them part of the page. Their names have no prefix.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("process_cpu_seconds", "Processor time of this process", self.cpu_seconds.clone());
        let gauges = [
            ("process_resident_memory_bytes", "Memory that is really there", &self.resident_bytes),
            ("process_virtual_memory_bytes", "Memory that was asked for", &self.virtual_bytes),
            ("process_open_fds", "Open files and sockets", &self.open_fds),
            ("process_max_fds", "Files and sockets that may be open", &self.max_fds),
            ("process_threads", "Threads", &self.threads),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "process_start_time_seconds",
            "When this process began, in seconds since 1970",
            self.start_time.clone(),
        );
    }

    /// Asks the system. Reads a few small files: where blocking is allowed.
    pub(super) fn read(&self) {
        let _one = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(reading) = Reading::take() else { return };
        let more = reading.cpu_seconds - self.cpu_seconds.get();
        self.cpu_seconds.inc_by(more.max(0.0));
        self.resident_bytes.set(super::gauge(reading.resident_bytes));
        self.virtual_bytes.set(super::gauge(reading.virtual_bytes));
        self.open_fds.set(super::gauge(reading.open_fds));
        self.max_fds.set(super::gauge(reading.max_fds.unwrap_or(0)));
        self.threads.set(super::gauge(reading.threads));
        self.start_time.set(reading.start_time);
    }
}

impl Reading {
    fn take() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let open_fds = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let page = rustix::param::page_size() as u64;
        let reading = parse(&stat, &boot, &limits, ticks, page)?;
        Some(Self { open_fds, ..reading })
    }
}

/// The texts of `/proc/self/stat`, `/proc/stat` and `/proc/self/limits`, as proc(5) describes them.
fn parse(stat: &str, boot: &str, limits: &str, ticks: f64, page: u64) -> Option<Reading> {
    // The name of the program may hold anything, also blanks and brackets.
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    // Numbered from 3 on in proc(5).
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let booted: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    Some(Reading {
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
        resident_bytes: field(24)? * page,
        virtual_bytes: field(23)?,
        open_fds: 0,
        max_fds: open_files.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()),
        threads: field(20)?,
        start_time: booted + field(22)? as f64 / ticks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_understood() {
        let stat =
            "71 (a) b) S 1 2 3 0 -1 4 5 0 6 0 150 50 7 8 20 0 12 0 4200 1048576 300 18446744073709551615 1 1";
        let boot = "cpu 1 2 3\nbtime 1700000000\nprocesses 9\n";
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024   4096   files\n";
        let expected = Reading {
            cpu_seconds: 2.0,
            resident_bytes: 300 * 4096,
            virtual_bytes: 1_048_576,
            open_fds: 0,
            max_fds: Some(1024),
            threads: 12,
            start_time: 1_700_000_042.0,
        };
        assert_eq!(parse(stat, boot, limits, 100.0, 4096), Some(expected));
        assert_eq!(parse("nonsense", boot, limits, 100.0, 4096), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_and_files() {
        let process = Process::default();
        process.read();
        assert!(process.resident_bytes.get() > 0 && process.open_fds.get() > 0 && process.max_fds.get() > 0);
        assert!(process.start_time.get() > 1_500_000_000.0);
    }
}
