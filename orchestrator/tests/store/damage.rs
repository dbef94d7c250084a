//! Damaged files: noticed, named, and never read as something else.

use std::{fs, path::Path};

use avtomatika_orchestrator::{
    engine::JobStatus,
    store::{
        Batch, ListQuery, PruneQuery, PruneSlice, Store, StoreError, Stub, Write,
        conformance::{Samples, everything},
        sqlite::SqliteStore,
    },
    time::Timestamp,
};
use avtomatika_proto::JobId;

use crate::script::{Script, assert_holds_exactly, copy_as_after_a_crash, database, log};

#[test]
fn damage_inside_the_log_is_reported_and_no_commit_is_dropped() {
    const BATCHES: usize = 4;
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = SqliteStore::open(dir.path()).unwrap();
    let mut last_begins = 0;
    for batch in Script::new(1).take(BATCHES) {
        last_begins = fs::metadata(log(dir.path())).map_or(0, |file| file.len() as usize);
        store.commit(&batch).unwrap();
    }
    let sound = fs::read(log(dir.path())).unwrap();
    // A stride that meets headers and pages at ever different places.
    for at in (0..sound.len()).step_by(1009).chain([16, 24, 40, 8255]) {
        let copy = crashed.path().join(at.to_string());
        copy_as_after_a_crash(dir.path(), &copy);
        let mut damaged = sound.clone();
        damaged[at] ^= 0x10;
        fs::write(log(&copy), &damaged).unwrap();
        match SqliteStore::open(&copy) {
            Ok(store) => {
                assert!(
                    at >= last_begins,
                    "byte {at} of the log is damaged and {last_begins} bytes were synced"
                );
                assert_holds_exactly(&store, 1, BATCHES - 1);
            }
            Err(error) => {
                let StoreError::Corrupt { path, .. } = &error else { panic!("byte {at}: {error}") };
                assert_eq!(*path, log(&copy));
                assert!(fs::read(log(&copy)).unwrap() == damaged, "the damaged file must stay as it is");
            }
        }
        fs::remove_dir_all(&copy).unwrap();
    }
}

#[test]
fn no_damage_to_the_database_makes_a_job_read_differently() {
    let dir = tempfile::tempdir().unwrap();
    let mut samples = Samples::new(1);
    let jobs: Vec<_> = (0..40).map(|_| samples.job("acme")).collect();
    let stubs: Vec<_> = jobs.iter().filter_map(Stub::of).collect();
    let store = SqliteStore::open(dir.path()).unwrap();
    store.commit(&Batch { writes: jobs.iter().map(|job| samples.insert(job)).collect() }).unwrap();
    drop(store);
    let sound = fs::read(database(dir.path())).unwrap();
    let (mut noticed, mut harmless) = (0, 0);
    for at in (0..sound.len()).step_by(251) {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x40;
        fs::write(database(dir.path()), &damaged).unwrap();
        let _ = fs::remove_file(log(dir.path()));
        let Ok(store) = SqliteStore::open(dir.path()) else {
            noticed += 1;
            continue;
        };
        let answers: Vec<_> = jobs.iter().map(|job| (store.load(job.id), job)).collect();
        for (answer, job) in &answers {
            match answer {
                Ok(Some(found)) => assert_eq!(found, *job, "byte {at}"),
                Ok(None) | Err(StoreError::Corrupt { .. }) => {}
                Err(error) => panic!("byte {at}: {error}"),
            }
        }
        let all_there = answers.iter().all(|(answer, _)| matches!(answer, Ok(Some(_))));
        *if all_there { &mut harmless } else { &mut noticed } += 1;
        let mut open = Vec::new();
        match store.open_jobs(&mut |stub| open.push(stub)) {
            Ok(()) | Err(StoreError::Corrupt { .. }) => {}
            Err(error) => panic!("byte {at}: {error}"),
        }
        assert!(open.iter().all(|stub| stubs.contains(stub)), "byte {at}");
    }
    assert!(noticed > 10 && harmless > 10, "{noticed} noticed, {harmless} in free space");
}

#[test]
fn damage_in_a_record_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut samples = Samples::new(2);
    let job = samples.job("acme");
    let store = SqliteStore::open(dir.path()).unwrap();
    store.commit(&Batch { writes: vec![samples.insert(&job)] }).unwrap();
    drop(store);
    for (table, verb) in [("submissions", "load"), ("jobs", "load"), ("history", "history")] {
        let connection = rusqlite::Connection::open(database(dir.path())).unwrap();
        let select = format!("SELECT record FROM {table}");
        let update = format!("UPDATE {table} SET record = ?1");
        let sound: Vec<u8> = connection.query_row(&select, (), |row| row.get(0)).unwrap();
        for at in (0..sound.len()).step_by(17) {
            let mut damaged = sound.clone();
            damaged[at] ^= 1;
            connection.execute(&update, [&damaged]).unwrap();
            let store = SqliteStore::open(dir.path()).unwrap();
            let answer = match verb {
                "load" => store.load(job.id).map(|_| ()),
                _ => store.history(job.id, 0, 10).map(|_| ()),
            };
            assert!(matches!(answer, Err(StoreError::Corrupt { .. })), "byte {at} of {table}: {answer:?}");
        }
        connection.execute(&update, [&sound]).unwrap();
    }
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.load(job.id).unwrap(), Some(job));
}

#[test]
fn a_damaged_stub_is_made_again_from_its_job_unless_that_is_damaged_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut samples = Samples::new(5);
    let jobs = [(); 3].map(|()| samples.job("acme"));
    let stubs: Vec<_> = jobs.iter().filter_map(Stub::of).collect();
    let store = SqliteStore::open(dir.path()).unwrap();
    store.commit(&Batch { writes: jobs.iter().map(|job| samples.insert(job)).collect() }).unwrap();
    let open_jobs = || {
        let mut open = Vec::new();
        store.open_jobs(&mut |stub| open.push(stub)).map(|()| open)
    };
    let connection = rusqlite::Connection::open(database(dir.path())).unwrap();
    let key = jobs[1].id.key();
    let select = "SELECT record FROM open_jobs WHERE key = ?1";
    let sound: Vec<u8> = connection.query_row(select, [key], |row| row.get(0)).unwrap();
    for at in (0..sound.len()).step_by(17) {
        let mut damaged = sound.clone();
        damaged[at] ^= 1;
        connection.execute("UPDATE open_jobs SET record = ?2 WHERE key = ?1", (key, &damaged)).unwrap();
        assert_eq!(open_jobs().as_ref(), Ok(&stubs), "byte {at}");
    }
    for damage in [
        "UPDATE submissions SET record = x'00' WHERE key = ?1",
        "UPDATE jobs SET record = x'00' WHERE key = ?1",
        "DELETE FROM jobs WHERE key = ?1",
    ] {
        connection.execute(damage, [key]).unwrap();
        let open = open_jobs();
        assert!(matches!(open, Err(StoreError::Corrupt { .. })), "{damage}: {open:?}");
    }
}

#[test]
fn columns_that_contradict_the_record_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut samples = Samples::new(3);
    let job = samples.job("acme");
    let store = SqliteStore::open(dir.path()).unwrap();
    let writes = vec![samples.insert(&job), Write::PutSession(samples.session(std::time::Duration::ZERO))];
    store.commit(&Batch { writes }).unwrap();
    let sound = everything(&store, &[job.id], &["acme"]);
    drop(store);
    for damage in [
        "UPDATE jobs SET id = zeroblob(16)",
        "UPDATE jobs SET id = x'00'",
        "UPDATE jobs SET client = 'umbrella'",
        "UPDATE jobs SET blueprint = 'other'",
        "UPDATE jobs SET status = 9",
        "UPDATE jobs SET status = 77",
        "UPDATE jobs SET status = -1",
        "UPDATE jobs SET record = x''",
        "UPDATE jobs SET record = (SELECT record FROM submissions)",
        "DELETE FROM submissions",
    ] {
        let connection = rusqlite::Connection::open(database(dir.path())).unwrap();
        connection.execute_batch("CREATE TABLE kept AS SELECT * FROM jobs").unwrap();
        connection.execute_batch("CREATE TABLE kept_too AS SELECT * FROM submissions").unwrap();
        connection.execute_batch(damage).unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        let answer = store.load(job.id);
        assert!(matches!(answer, Err(StoreError::Corrupt { .. })), "{damage}: {answer:?}");
        drop(store);
        connection
            .execute_batch(
                "DELETE FROM jobs; INSERT INTO jobs SELECT * FROM kept; DROP TABLE kept;
                 DELETE FROM submissions; INSERT INTO submissions SELECT * FROM kept_too; DROP TABLE kept_too;",
            )
            .unwrap();
    }
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(everything(&store, &[job.id], &["acme"]), sound);
}

/// A store with three jobs that have ended, oldest first.
fn with_three_that_have_ended(dir: &Path) -> [JobId; 3] {
    let mut samples = Samples::new(4);
    let jobs = [(); 3].map(|()| samples.job("acme"));
    let ended = jobs.each_ref().map(|job| samples.moved(job, JobStatus::Finished));
    let mut writes: Vec<_> = jobs.iter().map(|job| samples.insert(job)).collect();
    writes.extend(ended.iter().map(|job| samples.update(job)));
    SqliteStore::open(dir).unwrap().commit(&Batch { writes }).unwrap();
    jobs.map(|job| job.id)
}

/// Everything that may be forgotten, and everything that is listed, a job at a time.
fn walks(store: &SqliteStore) -> Result<(PruneSlice, Vec<JobId>), StoreError> {
    let (ended_by, mut all) = (Timestamp::from_micros(i64::MAX), PruneSlice::default());
    let mut query = PruneQuery { above_key: PruneQuery::FROM_THE_OLDEST, ended_by, limit: 1 };
    loop {
        let slice = store.prunable(&query)?;
        all.removals.extend(slice.removals);
        all.looked_at += slice.looked_at;
        let Some(above_key) = slice.next_above_key else { break };
        assert!(above_key > query.above_key, "the walk goes on");
        query.above_key = above_key;
    }
    let mut query = ListQuery { client: "acme".into(), limit: 1, ..ListQuery::default() };
    let mut listed = Vec::new();
    loop {
        let page = store.list(&query)?;
        listed.extend(page.jobs.iter().map(|job| job.id));
        let Some(below_key) = page.next_below_key else { return Ok((all, listed)) };
        assert!(query.below_key.is_none_or(|before| below_key < before), "the walk goes on");
        query.below_key = Some(below_key);
    }
}

#[test]
fn who_walks_over_many_jobs_passes_a_damaged_one() {
    for damage in [
        "UPDATE jobs SET record = x'' WHERE key = ?1",
        "UPDATE jobs SET record = (SELECT record FROM jobs WHERE key > ?1) WHERE key = ?1",
        "UPDATE jobs SET id = zeroblob(16) WHERE key = ?1",
        "UPDATE jobs SET id = x'00' WHERE key = ?1",
        "UPDATE jobs SET status = 10 WHERE key = ?1",
        "UPDATE jobs SET status = 77 WHERE key = ?1",
        "UPDATE submissions SET record = x'00' WHERE key = ?1",
        "DELETE FROM submissions WHERE key = ?1",
    ] {
        println!("{damage}");
        let dir = tempfile::tempdir().unwrap();
        let [oldest, damaged, newest] = with_three_that_have_ended(dir.path());
        let connection = rusqlite::Connection::open(database(dir.path())).unwrap();
        assert_eq!(connection.execute(damage, [damaged.key()]).unwrap(), 1);
        let store = SqliteStore::open(dir.path()).unwrap();
        let (prunable, listed) = walks(&store).unwrap();
        let removed: Vec<_> = prunable.removals.iter().map(|removal| removal.job_id).collect();
        assert_eq!((removed, prunable.looked_at), (vec![oldest, newest], 3));
        assert_eq!(listed, [newest, oldest]);
        let asked_for = store.load(damaged);
        assert!(matches!(asked_for, Err(StoreError::Corrupt { .. })), "{asked_for:?}");
    }
}

#[test]
fn a_damaged_page_of_the_database_is_passed_by_nobody() {
    const PAGE_BYTES: usize = 8192;
    let dir = tempfile::tempdir().unwrap();
    with_three_that_have_ended(dir.path());
    let connection = rusqlite::Connection::open(database(dir.path())).unwrap();
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'submissions'";
    let page: u32 = connection.query_row(root, (), |row| row.get(0)).unwrap();
    drop(connection);
    let mut bytes = fs::read(database(dir.path())).unwrap();
    bytes[(page as usize - 1) * PAGE_BYTES..][..PAGE_BYTES].fill(0);
    fs::write(database(dir.path()), bytes).unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let query = PruneQuery {
        above_key: PruneQuery::FROM_THE_OLDEST,
        ended_by: Timestamp::from_micros(i64::MAX),
        limit: 10,
    };
    let prunable = store.prunable(&query);
    assert!(matches!(prunable, Err(StoreError::Corrupt { .. })), "{prunable:?}");
    let listed = store.list(&ListQuery { client: "acme".into(), limit: 10, ..ListQuery::default() });
    assert!(matches!(listed, Err(StoreError::Corrupt { .. })), "{listed:?}");
}
