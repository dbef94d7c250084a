//! The files of a data directory: private to their owner, and on the disk (names included) before they are
//! relied on.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::StoreError;

/// Mode of files: jobs are their owner's business.
pub(super) const PRIVATE_FILE: u32 = 0o600;

/// Mode of the data directory.
const PRIVATE_DIR: u32 = 0o700;

/// Creates the directory unless it is there, and every directory on the way to it.
pub(super) fn create_dir(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(dir).map_err(|error| io_error(dir, error))?;
    match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

/// Makes the names in the directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| io_error(dir, error))
}

/// Removes a file; one that is not there is no error.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error(path, error)),
        _ => Ok(()),
    }
}

/// The file that SQLite keeps beside a database, such as `-wal`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Length of a file; `None` when it is not there.
pub(super) fn len(path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path, error)),
    }
}

/// Tells a file from another one that has taken its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

/// Which file has this name now; `None` when none has.
///
/// This is asked with every commit, and so without the file's times where that can be: after a look at those, Linux 6.13 and
/// later give the next write a time of its own, and a file system without a journal then writes that with every sync.
pub(super) fn identity(path: &Path) -> Option<Identity> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};
        if let Ok(found) = statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
            let device = makedev(found.stx_dev_major, found.stx_dev_minor);
            return Some(Identity { device, inode: found.stx_ino });
        }
    }
    let metadata = fs::metadata(path).ok()?;
    Some(Identity { device: metadata.dev(), inode: metadata.ino() })
}

/// What went wrong before there was a store.
pub(super) fn io_error(path: &Path, error: io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::StorageFull => StoreError::Full { path: path.to_owned() },
        _ => StoreError::Unusable { path: path.to_owned(), reason: error.to_string() },
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::fs::FileExt;

    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    /// A write so soon after another one has the same time, unless somebody has looked at it in between.
    #[test]
    fn whoever_asks_for_a_files_identity_leaves_its_next_write_without_a_time_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create(&path).unwrap();
        let without_a_time = |in_between: &dyn Fn()| {
            let is_without = |_: &i32| {
                file.write_all_at(b"first", 0).unwrap();
                in_between();
                let now = clock_gettime(ClockId::Realtime);
                file.write_all_at(b"second", 0).unwrap();
                let written = file.metadata().unwrap();
                (written.mtime(), written.mtime_nsec()) <= (now.tv_sec, now.tv_nsec)
            };
            // Not each time: the clock may tick in between.
            (0..100).filter(is_without).count()
        };
        // Some file systems give a time to each write, whatever was asked.
        if without_a_time(&|| {}) > 50 {
            let count = without_a_time(&|| assert!(identity(&path).is_some()));
            assert!(count > 50, "{count} of 100");
        }
    }
}
