//! One orchestrator per data directory.
//!
//! The lock is the operating system's: it ends with the process that holds it, however that ends. The process
//! id in the file is for people only.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::store::{
    StoreError,
    files::{PRIVATE_FILE, io_error},
};

/// Name of the file in the data directory.
const FILE_NAME: &str = "lock";

/// Holds the directory until it is dropped.
#[derive(Debug)]
pub(super) struct DirLock {
    file: File,
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is being started at this moment has a copy of it until its program runs.
        let _ = self.file.unlock();
    }
}

impl DirLock {
    /// Takes the directory, or says who has it.
    pub(super) fn acquire(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE_NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE_FILE)
            .open(&path)
            .map_err(|error| io_error(&path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: dir.to_owned(), pid: holder(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(io_error(&path, error)),
        }
        write_pid(&mut file).map_err(|error| io_error(&path, error))?;
        Ok(Self { file })
    }
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_let_go_is_free_whoever_has_a_copy_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::acquire(dir.path()).unwrap();
        let _copy = lock.file.try_clone().unwrap();
        assert!(matches!(DirLock::acquire(dir.path()), Err(StoreError::InUse { .. })));
        drop(lock);
        DirLock::acquire(dir.path()).unwrap();
    }
}
