//! The machine that figures were taken on. A figure without it says nothing.

use std::{fs, path::Path};

use jiff::Timestamp;
use serde::Serialize;

/// File systems that keep everything in memory: a sync means nothing there.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// What matters of a machine. What the system does not tell is absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Machine {
    pub(super) cpu: Option<String>,
    pub(super) cores: usize,
    pub(super) memory_mib: Option<u64>,
    pub(super) kernel: String,
    pub(super) date: String,
}

impl Machine {
    /// This one, now.
    pub(super) fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let uname = rustix::system::uname();
        let part = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        Self {
            cpu: value(&read("/proc/cpuinfo"), "model name").map(str::to_owned),
            cores: cores(),
            memory_mib: value(&read("/proc/meminfo"), "MemTotal")
                .and_then(|text| text.strip_suffix("kB")?.trim().parse::<u64>().ok())
                .map(|kib| kib / 1024),
            kernel: format!("{} {} {}", part(uname.sysname()), part(uname.release()), part(uname.machine())),
            date: format!("{:.0}", Timestamp::now()),
        }
    }
}

/// Processors that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The first value under this name in text of the form `name : value`.
fn value<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The type of the file system that holds a directory, such as `ext4`.
pub(super) fn file_system(dir: &Path) -> Option<String> {
    let dir = fs::canonicalize(dir).ok()?;
    of_mount(&fs::read_to_string("/proc/self/mounts").ok()?, &dir)
}

/// Whether a sync on this file system reaches no disk.
pub(super) fn is_in_memory(file_system: &str) -> bool {
    IN_MEMORY.contains(&file_system)
}

/// The deepest mount above the directory; of several at one place the last one covers the others.
fn of_mount(mounts: &str, dir: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        // The kernel writes a blank in a path as \040.
        let point = fields.next()?.replace("\\040", " ");
        Some((point, fields.next()?))
    });
    let above = mounts.filter(|(point, _)| dir.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_counts() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vdb /tmp/a\\040b xfs rw 0 0\n";
        for (dir, kind) in
            [("/home/x", "ext4"), ("/tmp/x", "tmpfs"), ("/tmpfoo", "ext4"), ("/tmp/a b/c", "xfs")]
        {
            assert_eq!(of_mount(mounts, Path::new(dir)).as_deref(), Some(kind), "{dir}");
        }
        assert!(is_in_memory("tmpfs") && !is_in_memory("ext4"));
    }

    #[test]
    fn a_machine_says_what_it_is() {
        let machine = Machine::here();
        assert!(
            machine.cores >= 1 && !machine.kernel.is_empty() && machine.date.ends_with('Z'),
            "{machine:?}"
        );
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\n";
        assert_eq!(value(text, "model name"), Some("Some CPU @ 2.0GHz"));
    }
}
