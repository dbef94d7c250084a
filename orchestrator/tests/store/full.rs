//! A disk without room: commits are refused by name, reads go on, and commits resume when there is room.

use std::{fs, path::Path, process::Command};

use avtomatika_orchestrator::store::{Store, StoreError, memory::MemoryStore, sqlite::SqliteStore};

use crate::script::{Script, assert_holds_exactly, database};

/// Commits until there is no room, makes room, and goes on.
fn fill_and_resume(store: &dyn Store, make_room: impl FnOnce()) {
    const SEED: u8 = 1;
    let mut script = Script::new(SEED).peekable();
    let mut committed = 0;
    let error = loop {
        match store.commit(script.peek().unwrap()) {
            Ok(()) => committed += 1,
            Err(error) => break error,
        }
        assert!(committed < 100_000, "the disk never became full");
        script.next();
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(committed > 0);
    assert_holds_exactly(store, SEED, committed);
    assert!(matches!(store.commit(script.peek().unwrap()), Err(StoreError::Full { .. })), "still no room");

    make_room();
    for batch in script.take(5) {
        store.commit(&batch).unwrap();
        committed += 1;
    }
    assert_holds_exactly(store, SEED, committed);
}

#[test]
fn a_full_memory_store_refuses_and_resumes() {
    let store = MemoryStore::new();
    store.commit(&Script::new(1).next().unwrap()).unwrap();
    store.set_full(true);
    let second = Script::new(1).nth(1).unwrap();
    assert!(matches!(store.commit(&second), Err(StoreError::Full { .. })));
    assert_holds_exactly(&store, 1, 1);
    store.set_full(false);
    store.commit(&second).unwrap();
    assert_holds_exactly(&store, 1, 2);
}

#[test]
fn a_full_database_refuses_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let pages = store.limit_pages(u32::MAX).unwrap();
    store.limit_pages(pages + 10).unwrap();
    fill_and_resume(&store, || {
        store.limit_pages(u32::MAX).unwrap();
    });
}

/// A file system of its own, gone when dropped.
struct SmallDisk<'d>(&'d Path);

impl<'d> SmallDisk<'d> {
    fn mount(at: &'d Path) -> Option<Self> {
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(at).output().ok()?;
        mount.status.success().then_some(Self(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(dir.path()) else {
        eprintln!("skipped: mounting a small disk takes more rights");
        return;
    };
    let ballast = dir.path().join("ballast");
    fs::write(&ballast, vec![1; 512 * 1024]).unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    fill_and_resume(&store, || fs::remove_file(&ballast).unwrap());
    drop(store);
    assert!(fs::metadata(database(dir.path())).unwrap().len() > 0);
    SqliteStore::open(dir.path()).unwrap();
}
