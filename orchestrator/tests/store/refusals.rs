//! What cannot be opened, and what is said about it. Nothing that is refused is touched.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use avtomatika_orchestrator::store::{Store, StoreError, sqlite::SqliteStore};

use crate::script::{Script, assert_holds_exactly, copy_as_after_a_crash, database, log};

fn refusal(dir: &Path) -> StoreError {
    match SqliteStore::open(dir) {
        Ok(_) => panic!("{} was opened", dir.display()),
        Err(error) => error,
    }
}

/// A directory with a store that holds two batches.
fn used() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    for batch in Script::new(1).take(2) {
        store.commit(&batch).unwrap();
    }
    dir
}

#[test]
fn the_second_orchestrator_is_told_who_the_first_one_is() {
    let dir = used();
    let first = SqliteStore::open(dir.path()).unwrap();
    let error = refusal(dir.path());
    let pid = Some(std::process::id());
    assert_eq!(error, StoreError::InUse { path: dir.path().to_owned(), pid });
    assert!(error.to_string().ends_with(&format!("(process {})", std::process::id())));
    drop(first);
    assert_holds_exactly(&SqliteStore::open(dir.path()).unwrap(), 1, 2);
}

#[test]
fn a_newer_format_is_left_to_a_newer_release() {
    let dir = used();
    let connection = rusqlite::Connection::open(database(dir.path())).unwrap();
    connection.pragma_update(None, "user_version", 999).unwrap();
    drop(connection);
    let before = fs::read(database(dir.path())).unwrap();
    assert_eq!(refusal(dir.path()), StoreError::TooNew { path: database(dir.path()), found: 999, known: 7 });
    assert!(fs::read(database(dir.path())).unwrap() == before);
}

#[test]
fn what_is_no_store_is_damage_and_never_an_empty_store() {
    let sound = fs::read(database(used().path())).unwrap();
    let foreign = {
        let dir = tempfile::tempdir().unwrap();
        let connection = rusqlite::Connection::open(dir.path().join("x")).unwrap();
        connection.execute_batch("CREATE TABLE t (a)").unwrap();
        fs::read(dir.path().join("x")).unwrap()
    };
    let mut zeroed_page = sound.clone();
    zeroed_page[..8192].fill(0);
    for (name, bytes) in [
        ("zero length", Vec::new()),
        ("a part of the header", sound[..99].to_vec()),
        ("the header only", sound[..100].to_vec()),
        ("one page", sound[..8192].to_vec()),
        ("half", sound[..sound.len() / 2].to_vec()),
        ("all but the last byte", sound[..sound.len() - 1].to_vec()),
        ("a page of zeros", zeroed_page),
        ("all zeros", vec![0; sound.len()]),
        ("garbage", b"lorem ipsum ".repeat(4000)),
        ("another program's database", foreign),
    ] {
        let dir = used();
        fs::write(database(dir.path()), &bytes).unwrap();
        println!("{name}");
        let error = refusal(dir.path());
        assert!(
            matches!(&error, StoreError::Corrupt { path, .. } if *path == database(dir.path())),
            "{name}: {error:?}"
        );
        assert!(fs::read(database(dir.path())).unwrap() == bytes, "{name} was changed");
    }
}

#[test]
fn a_log_without_its_database_is_damage() {
    let (dir, crashed) = (used(), tempfile::tempdir().unwrap());
    let store = SqliteStore::open(dir.path()).unwrap();
    store.commit(&Script::new(1).nth(2).unwrap()).unwrap();
    copy_as_after_a_crash(dir.path(), crashed.path());
    fs::remove_file(database(crashed.path())).unwrap();
    let error = refusal(crashed.path());
    assert!(matches!(&error, StoreError::Corrupt { reason, .. } if reason.contains("is gone")), "{error}");
    assert!(fs::metadata(log(crashed.path())).unwrap().len() > 0, "the log must stay");
}

#[test]
fn a_creation_that_was_cut_short_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    for suffix in ["", "-wal", "-journal"] {
        fs::write(dir.path().join(format!("avtomatika.db.new{suffix}")), "half").unwrap();
    }
    let store = SqliteStore::open(dir.path()).unwrap();
    store.commit(&Script::new(1).next().unwrap()).unwrap();
    drop(store);
    assert_holds_exactly(&SqliteStore::open(dir.path()).unwrap(), 1, 1);
}

#[test]
fn a_place_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let below = file.join("data");
    let error = refusal(&below);
    assert!(matches!(&error, StoreError::Unusable { path, .. } if *path == below), "{error:?}");
    assert!(matches!(refusal(&file), StoreError::Unusable { .. }));

    fs::create_dir(database(dir.path())).unwrap();
    assert!(matches!(refusal(dir.path()), StoreError::Unusable { .. }));
}

#[test]
fn only_their_owner_can_read_the_files() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/b");
    let store = SqliteStore::open(&dir).unwrap();
    store.commit(&Script::new(1).next().unwrap()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}
