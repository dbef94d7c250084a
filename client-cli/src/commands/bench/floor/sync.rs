//! One small append and its `fdatasync`, one at a time: what the disk asks for a promise.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

use super::super::figures::{Latencies, Percentiles};
use crate::failure::Failure;

/// Appends to measure.
const APPENDS: usize = 1_000;

/// Bytes of an append: about a record.
const APPEND_BYTES: usize = 512;

/// Measures until there were enough, or for so long. `None` if there was time for none.
pub(super) fn measure(dir: &Path, at_most: Duration) -> Result<Option<Percentiles>, Failure> {
    append(dir, at_most).map_err(|error| Failure::System(format!("measuring fdatasync has failed: {error}")))
}

fn append(dir: &Path, at_most: Duration) -> io::Result<Option<Percentiles>> {
    let latencies = Latencies::new();
    let mut file = File::create_new(dir.join("floor.log"))?;
    let started = Instant::now();
    for _ in 0..APPENDS {
        if started.elapsed() >= at_most {
            break;
        }
        let began = Instant::now();
        file.write_all(&[b'a'; APPEND_BYTES])?;
        file.sync_data()?;
        latencies.record(began.elapsed());
    }
    Ok(latencies.percentiles())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let told = measure(dir.path(), Duration::from_millis(20)).unwrap().unwrap();
        let written = dir.path().join("floor.log").metadata().unwrap().len();
        assert_eq!(written, told.count * APPEND_BYTES as u64);
    }
}
