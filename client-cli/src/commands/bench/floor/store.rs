//! The least that a durable store of jobs does on SQLite: a row for the job and one for its history when it is accepted, and
//! for each task an update of the one and another row of the other, committed in groups by one writer, every commit synced;
//! and an index of the open jobs, without which nobody could go on with them after a crash.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};

use super::{Cost, Meter};
use crate::failure::Failure;

/// Bytes of a job's row beside its payload (ids, state, times), as the orchestrator's store writes them.
const JOB_RECORD_BYTES: usize = 100;

/// Bytes of a row of history, likewise.
const HISTORY_RECORD_BYTES: usize = 120;

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// Jobs that share a commit.
    pub(super) jobs_per_commit: usize,
    /// Updates of each job, hence commits that it takes part in after the first.
    pub(super) tasks: u32,
    /// Bytes that each job is accepted with.
    pub(super) payload: usize,
}

const SCHEMA: &str = "
    PRAGMA page_size = 8192;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA cache_size = -65536;
    CREATE TABLE jobs (key INTEGER PRIMARY KEY, is_open INTEGER NOT NULL, record BLOB NOT NULL) STRICT;
    CREATE INDEX open_jobs ON jobs (is_open) WHERE is_open;
    CREATE TABLE history (
        key INTEGER NOT NULL, sequence INTEGER NOT NULL, record BLOB NOT NULL, PRIMARY KEY (key, sequence)
    ) STRICT, WITHOUT ROWID;";

/// Does it for so long, in a new database in this directory. Checkpoints are left to SQLite.
pub(super) fn measure(dir: &Path, work: Work, each: Duration) -> Result<Cost, Failure> {
    commit_for(dir, work, each)
        .map_err(|error| Failure::System(format!("measuring the store has failed: {error}")))
}

fn commit_for(dir: &Path, work: Work, each: Duration) -> rusqlite::Result<Cost> {
    let mut connection = Connection::open(dir.join("floor.db"))?;
    connection.execute_batch(SCHEMA)?;
    let mut group = 0;
    // The first groups make the files and fill the caches.
    while group < 4 {
        walk(&mut connection, group, work)?;
        group += 1;
    }
    let meter = Meter::start();
    let (started, first) = (Instant::now(), group);
    while started.elapsed() < each {
        walk(&mut connection, group, work)?;
        group += 1;
    }
    Ok(meter.stop((group - first) * work.jobs_per_commit as u64))
}

/// A group of jobs from being accepted to its end.
fn walk(connection: &mut Connection, group: u64, work: Work) -> rusqlite::Result<()> {
    let jobs = work.jobs_per_commit as u64;
    let keys = group * jobs..(group + 1) * jobs;
    let record = |bytes| vec![b'r'; bytes];
    // The payload is written once and never again: it stands beside the history.
    let (job, entry) = (record(JOB_RECORD_BYTES), record(HISTORY_RECORD_BYTES));
    let accepted = record(HISTORY_RECORD_BYTES + work.payload);
    let transaction = connection.transaction()?;
    {
        let mut insert =
            transaction.prepare_cached("INSERT INTO jobs (key, is_open, record) VALUES (?1, 1, ?2)")?;
        let mut append = transaction.prepare_cached(APPEND)?;
        for key in keys.clone() {
            insert.execute(params![key as i64, job])?;
            append.execute(params![key as i64, 0, accepted])?;
        }
    }
    transaction.commit()?;
    for task in 1..=work.tasks {
        let transaction = connection.transaction()?;
        {
            let sql = "UPDATE jobs SET is_open = ?2, record = ?3 WHERE key = ?1";
            let mut update = transaction.prepare_cached(sql)?;
            let mut append = transaction.prepare_cached(APPEND)?;
            for key in keys.clone() {
                update.execute(params![key as i64, task < work.tasks, job])?;
                append.execute(params![key as i64, task, entry])?;
            }
        }
        transaction.commit()?;
    }
    Ok(())
}

const APPEND: &str = "INSERT INTO history (key, sequence, record) VALUES (?1, ?2, ?3)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_of_a_group_is_there_with_its_history() {
        let dir = tempfile::tempdir().unwrap();
        let work = Work { jobs_per_commit: 8, tasks: 2, payload: 1000 };
        let cost = measure(dir.path(), work, Duration::from_millis(1)).unwrap();
        assert!(cost.jobs >= 8 && cost.jobs.is_multiple_of(8), "{cost:?}");
        let connection = Connection::open(dir.path().join("floor.db")).unwrap();
        let count = |sql| connection.query_row(sql, (), |row| row.get::<_, i64>(0)).unwrap();
        let jobs = count("SELECT count(*) FROM jobs");
        assert_eq!(jobs as u64, cost.jobs + 4 * 8, "with those that were not measured");
        assert_eq!(count("SELECT count(*) FROM history"), 3 * jobs);
        assert_eq!(count("SELECT sum(length(record)) FROM history WHERE sequence = 0"), jobs * 1120);
    }
}
