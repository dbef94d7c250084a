//! A store behind a journal: what is on its way is read as if it had arrived, and nothing that was acknowledged is lost on it.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use avtomatika_orchestrator::{
    engine::{Entropy, Job, JobStatus},
    store::{
        Batch, ListQuery, PruneQuery, Store, StoreError, Write,
        conformance::{Samples, everything},
        journal::{self, JournaledStore, Pace},
        memory::MemoryStore,
        sqlite::SqliteStore,
    },
    time::Timestamp,
};

use crate::{
    model::{CLIENTS, random_batch, random_query},
    script::{Script, assert_holds_exactly, database, log},
};

/// Nothing is applied by itself.
const NEVER: Pace = Pace { age: Duration::MAX, bytes: usize::MAX };

fn open(dir: &Path, pace: Pace) -> JournaledStore<SqliteStore> {
    JournaledStore::open(SqliteStore::open(dir).unwrap(), dir, pace).unwrap()
}

/// All jobs that meet the query, page by page.
fn walk(store: &dyn Store, mut query: ListQuery) -> Vec<Job> {
    let mut jobs = Vec::new();
    loop {
        let page = store.list(&query).unwrap();
        jobs.extend(page.jobs);
        match page.next_below_key {
            Some(key) => query.below_key = Some(key),
            None => return jobs,
        }
    }
}

#[test]
fn whatever_is_on_its_way_the_answers_are_those_of_memory() {
    for seed in 0..6 {
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let (mut entropy, mut samples) = (Entropy::from_seed([seed; 32]), Samples::new(seed));
        let model = MemoryStore::new();
        let mut store = Some(open(dir.path(), NEVER));
        let mut jobs = Vec::new();
        let mut ids = BTreeSet::new();
        for _ in 0..80 {
            let ended_by = Timestamp::from_micros(i64::MAX);
            let all = PruneQuery { ended_by, above_key: i64::MIN, limit: 10 };
            let batch = random_batch(&mut entropy, &mut samples, &mut jobs, &model.prunable(&all).unwrap());
            store.as_ref().unwrap().commit(&batch).unwrap();
            model.commit(&batch).unwrap();
            ids.extend(jobs.iter().map(|job| job.id));
            match entropy.next_u64() % 12 {
                0 => drop(store.take()),
                1 => store.as_ref().unwrap().flush().unwrap(),
                _ => {}
            }
            let store = store.get_or_insert_with(|| open(dir.path(), NEVER));
            let query = random_query(&mut entropy, &jobs);
            assert_eq!(walk(store, query.clone()), walk(&model, query.clone()), "{query:?}");
            let job = &jobs[(entropy.next_u64() % jobs.len() as u64) as usize];
            let from = entropy.next_u64() % 4;
            assert_eq!(store.history(job.id, from, 2), model.history(job.id, from, 2));
            assert_eq!(store.standing(job.id), model.standing(job.id));
        }
        let ids: Vec<_> = ids.into_iter().collect();
        assert!(ids.len() > jobs.len(), "some were removed");
        let (found, expected) =
            (everything(&store.unwrap(), &ids, &CLIENTS), everything(&model, &ids, &CLIENTS));
        for (a, b) in found.lines().zip(expected.lines()) {
            assert_eq!(a, b);
        }
    }
}

#[test]
fn a_job_that_ends_before_it_is_applied_is_written_once_with_all_of_its_history() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), NEVER);
    for batch in Script::new(1).take(3).map(only_jobs) {
        store.commit(&batch).unwrap();
    }
    assert_eq!(store.behind().last_job_key(), Ok(None), "nothing has arrived yet");
    store.flush().unwrap();
    drop(store);
    let connection = rusqlite::Connection::open(database(dir.path())).unwrap();
    let count = |sql: &str| connection.query_row(sql, (), |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count("SELECT count(*) FROM jobs"), 6, "three were removed before they arrived");
    assert_eq!(count("SELECT count(*) FROM history"), 6, "one row for each job");
    assert_eq!(count("SELECT applied FROM journal"), 3);
}

fn only_jobs(batch: Batch) -> Batch {
    let is_about_jobs = |write: &Write| {
        matches!(write, Write::InsertJob { .. } | Write::UpdateJob { .. } | Write::RemoveJob(_))
    };
    Batch { writes: batch.writes.into_iter().filter(is_about_jobs).collect() }
}

/// The files as a crash at this instant would leave them.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in [database(from), log(from), from.join(journal::FILE_NAME)] {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

#[test]
fn a_torn_tail_costs_the_last_batch_at_most_and_damage_before_it_is_reported() {
    const BATCHES: usize = 4;
    const BLOCK: usize = 4096;
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path(), NEVER);
    let mut ends = Vec::new();
    for batch in Script::new(1).take(BATCHES).map(only_jobs) {
        store.commit(&batch).unwrap();
        let bytes = fs::read(dir.path().join(journal::FILE_NAME)).unwrap();
        ends.push(bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1);
    }
    let expected = |batches: usize| {
        let model = MemoryStore::new();
        let batches: Vec<Batch> = Script::new(1).take(batches).map(only_jobs).collect();
        batches.iter().for_each(|batch| model.commit(batch).unwrap());
        everything(&model, &[], &["acme"])
    };
    let sound = fs::read(dir.path().join(journal::FILE_NAME)).unwrap();
    let last_begins = ends[BATCHES - 2].next_multiple_of(BLOCK);
    for sector in (BLOCK..ends[BATCHES - 1]).step_by(512) {
        let mut torn = sound.clone();
        let sector = sector..sector + 512;
        let was_zero = torn[sector.clone()].iter().all(|&byte| byte == 0);
        torn[sector.clone()].fill(0);
        let at = crashed.path().join(sector.start.to_string());
        copy(dir.path(), &at);
        fs::write(at.join(journal::FILE_NAME), &torn).unwrap();
        let opened = JournaledStore::open(SqliteStore::open(&at).unwrap(), &at, NEVER);
        match opened {
            Ok(store) => {
                let batches = if was_zero { BATCHES } else { BATCHES - 1 };
                assert!(was_zero || sector.start >= last_begins, "sector {sector:?} was synced");
                assert!(everything(&store, &[], &["acme"]) == expected(batches), "sector {sector:?}");
            }
            Err(error) => {
                let StoreError::Corrupt { path, .. } = &error else { panic!("{error}") };
                assert_eq!(*path, at.join(journal::FILE_NAME));
                assert!(sector.start < last_begins, "sector {sector:?}: {error}");
            }
        }
        fs::remove_dir_all(&at).unwrap();
    }
}

#[test]
fn a_journal_that_is_older_than_its_database_is_passed_over_and_a_newer_one_is_reported() {
    let (dir, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path(), NEVER);
    let mut script = Script::new(1).map(only_jobs);
    store.commit(&script.next().unwrap()).unwrap();
    store.flush().unwrap();
    copy(dir.path(), old.path());
    store.commit(&script.next().unwrap()).unwrap();
    store.flush().unwrap();
    store.commit(&script.next().unwrap()).unwrap();
    let journal = |dir: &Path| dir.join(journal::FILE_NAME);
    let both = crashed_with(&old, &journal(dir.path()), true);
    let error =
        JournaledStore::open(SqliteStore::open(both.path()).unwrap(), both.path(), NEVER).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    let both = crashed_with(&dir, &journal(old.path()), false);
    assert!(JournaledStore::open(SqliteStore::open(both.path()).unwrap(), both.path(), NEVER).is_ok());
}

/// The database of one directory with the journal of another, whose second frame is lost if so wanted.
fn crashed_with(database_of: &tempfile::TempDir, journal: &Path, lose_second: bool) -> tempfile::TempDir {
    let both = tempfile::tempdir().unwrap();
    copy(database_of.path(), both.path());
    let mut bytes = fs::read(journal).unwrap();
    if lose_second {
        // Overwritten since by a later round.
        let second = 2u64.to_le_bytes();
        let at = (4096..bytes.len()).step_by(4096).find(|at| bytes[at + 8..at + 16] == second).unwrap();
        bytes[at..at + 16].fill(0);
    }
    fs::write(both.path().join(journal::FILE_NAME), bytes).unwrap();
    both
}

#[test]
fn without_room_behind_it_the_journal_takes_what_it_can_and_all_of_it_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let behind = Arc::new(MemoryStore::new());
    let pace = Pace { age: Duration::ZERO, bytes: 0 };
    let store = JournaledStore::open(behind.clone(), dir.path(), pace).unwrap();
    behind.set_full(true);
    let mut script = Script::new(1).map(only_jobs).peekable();
    let mut committed = Vec::new();
    let error = loop {
        match store.commit(script.peek().unwrap()) {
            Ok(()) => committed.extend(script.next()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(committed.len() > 100, "{} batches", committed.len());
    let model = MemoryStore::new();
    committed.iter().for_each(|batch| model.commit(batch).unwrap());
    assert!(everything(&store, &[], &["acme"]) == everything(&model, &[], &["acme"]));

    behind.set_full(false);
    while let Err(StoreError::Full { .. }) = store.commit(script.peek().unwrap()) {
        std::thread::yield_now();
    }
    model.commit(script.peek().unwrap()).unwrap();
    assert!(everything(&store, &[], &["acme"]) == everything(&model, &[], &["acme"]));
    store.flush().unwrap();
    assert!(everything(&*behind, &[], &["acme"]) == everything(&model, &[], &["acme"]));
}

#[test]
fn a_flush_ends_while_others_go_on_committing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), NEVER);
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for batch in Script::new(1).map(only_jobs).take_while(|_| !enough.load(Ordering::Relaxed)) {
                store.commit(&batch).unwrap();
            }
        });
        for _ in 0..20 {
            store.flush().unwrap();
        }
        enough.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_walk_over_what_has_ended_waits_for_the_journal_at_its_beginning_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), NEVER);
    let mut samples = Samples::new(3);
    let mut ids = Vec::new();
    for _ in 0..4 {
        let job = samples.job("acme");
        let ended = samples.moved(&job, JobStatus::Finished);
        let writes = vec![samples.insert(&job), samples.update(&ended)];
        store.commit(&Batch { writes }).unwrap();
        ids.push(job.id);
    }
    let beginning = PruneQuery {
        above_key: PruneQuery::FROM_THE_OLDEST,
        ended_by: Timestamp::from_micros(i64::MAX),
        limit: 2,
    };
    let remove_slice = |query: PruneQuery| {
        let slice = store.prunable(&query).unwrap();
        let removed: Vec<_> = slice.removals.iter().map(|removal| removal.job_id).collect();
        store.commit(&Batch { writes: slice.removals.into_iter().map(Write::RemoveJob).collect() }).unwrap();
        (removed, slice.next_above_key)
    };
    let (removed, next) = remove_slice(beginning);
    assert_eq!(removed, ids[..2]);
    let applied = store.journal_applied().unwrap();
    let (removed, next) = remove_slice(PruneQuery { above_key: next.unwrap(), ..beginning });
    assert_eq!((removed.as_slice(), next), (&ids[2..], None));
    assert_eq!(store.journal_applied().unwrap(), applied, "the removals are still on their way");
    assert_eq!(store.prunable(&beginning).unwrap().removals, [], "another walk meets none of them");
}

#[test]
fn large_batches_and_sessions_take_the_direct_way_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), NEVER);
    for batch in Script::new(1).take(4) {
        // Every other one through the journal.
        store.commit(&batch).unwrap();
    }
    assert_holds_exactly(&store, 1, 4);
    let mut samples = Samples::new(9);
    let mut job = samples.job("acme");
    job.status = JobStatus::Finished;
    let large = "x".repeat(5 * 1024 * 1024);
    let json = avtomatika_orchestrator::json::Json::object(&format!("{{\"a\":\"{large}\"}}")).unwrap();
    job.result = Some(json);
    let update = Write::UpdateJob { entries: samples.entries(&job, 2..3), job: Arc::new(job.clone()) };
    store.commit(&Batch { writes: vec![samples.insert(&job)] }).unwrap();
    store.commit(&Batch { writes: vec![update] }).unwrap();
    assert_eq!(store.behind().load(job.id).unwrap(), Some(job), "it is there at once");
}

#[test]
fn a_store_behind_that_fails_ends_the_commits_and_a_new_start_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    let behind = Arc::new(MemoryStore::new());
    let store = JournaledStore::open(behind.clone(), dir.path(), NEVER).unwrap();
    let mut script = Script::new(1).map(only_jobs);
    let batches: Vec<Batch> = script.by_ref().take(3).collect();
    store.commit(&batches[0]).unwrap();
    store.flush().unwrap();
    behind.set_broken(true);
    store.commit(&batches[1]).unwrap();
    assert!(matches!(store.flush(), Err(StoreError::Failed { .. })));
    let error = store.commit(&batches[2]).unwrap_err();
    assert!(
        matches!(&error, StoreError::Failed { reason } if reason.contains("memory is broken")),
        "{error}"
    );
    drop(store);
    behind.set_broken(false);
    let store = JournaledStore::open(behind, dir.path(), NEVER).unwrap();
    let model = MemoryStore::new();
    batches[..2].iter().for_each(|batch| model.commit(batch).unwrap());
    assert!(everything(&store, &[], &["acme"]) == everything(&model, &[], &["acme"]));
}
