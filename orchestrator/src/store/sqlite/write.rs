//! Commits: one connection, one transaction per batch, one fsync per transaction.
//!
//! It promises that a batch is stored as a whole or not at all. After an error of the disk nothing is tried
//! again: the kernel may have dropped what it could not write and call the next fsync a success.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{
    At,
    rows::{Fault, Rows, execute},
    schema, store_error,
};
use crate::store::{
    Batch, StoreError,
    files::{self, Identity},
};

/// Log size at which its pages are moved into the database. Commits pause for that: some 15 ms at this size, and four
/// times the size pauses them three times as long without making them faster in between.
const CHECKPOINT_BYTES: i64 = 16 * 1024 * 1024;

/// At how many times this size commits begin to wait for readers, so that the log can begin anew: readers of whom each is short, and who
/// relieve each other, would otherwise keep it from that for ever.
const RESTART_STEPS: i64 = 4;

/// Longest such wait, once for each further [`CHECKPOINT_BYTES`] of the log. Most readers need less.
const RESTART_WAIT: Duration = Duration::from_millis(100);

/// Memory for pages that the writer touches again and again.
const CACHE_KIB: i64 = 64 * 1024;

/// Statements that a commit uses, with room to spare.
const STATEMENTS_MAX: usize = 32;

/// Longest wait for another program that writes to the database (a person with a shell).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The connection that commits.
#[derive(Debug)]
pub(super) struct Writer {
    connection: Connection,
    path: PathBuf,
    log: PathBuf,
    /// Where records are encoded.
    buffer: Vec<u8>,
    /// The files that are open: commits into one that has lost its name would be lost.
    database_file: Option<Identity>,
    log_file: Option<Identity>,
    checkpoint: Checkpoint,
    /// Why no further commit is tried.
    failed: Option<String>,
}

/// When to checkpoint next, in frames of the log.
#[derive(Debug)]
struct Checkpoint {
    step: i64,
    due: i64,
    seen: i64,
    /// For readers, when the log has become several times too large.
    wait: Duration,
}

impl Writer {
    /// Opens the database for writing and brings its format up to date.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).at(path)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        // Closing after an error must not touch the files again; an orderly end checkpoints by itself.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).at(path)?;
        connection.busy_timeout(BUSY_TIMEOUT).at(path)?;
        connection
            .execute_batch(&format!(
                "PRAGMA foreign_keys = OFF;
                 PRAGMA temp_store = MEMORY;
                 PRAGMA cache_size = -{CACHE_KIB};
                 PRAGMA synchronous = FULL;
                 PRAGMA wal_autocheckpoint = 0;
                 PRAGMA journal_size_limit = {CHECKPOINT_BYTES};"
            ))
            .at(path)?;
        schema::adopt(&mut connection, path)?;
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).at(path)?;
        if mode != "wal" {
            return Err(StoreError::Unusable {
                path: path.to_owned(),
                reason: format!("the file system allows journal mode {mode} only, not WAL"),
            });
        }
        let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0)).at(path)?;
        let step = CHECKPOINT_BYTES / page_bytes;
        Ok(Self {
            connection,
            path: path.to_owned(),
            log: files::beside(path, "-wal"),
            buffer: Vec::new(),
            database_file: files::identity(path),
            log_file: None,
            checkpoint: Checkpoint { step, due: step, seen: 0, wait: RESTART_WAIT },
            failed: None,
        })
    }

    /// Stores the batch: see [`Store::commit`](crate::store::Store::commit).
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if let Some(reason) = &self.failed {
            return Err(StoreError::Failed { reason: format!("an earlier commit failed: {reason}") });
        }
        if batch.writes.is_empty() {
            return Ok(());
        }
        match self.transact(batch) {
            Ok(()) => self.check_files().and_then(|()| self.checkpoint()).inspect_err(|error| {
                self.failed = Some(error.to_string());
            }),
            Err(error) => Err(self.roll_back(error)),
        }
    }

    fn transact(&mut self, batch: &Batch) -> Result<(), Fault> {
        execute(&self.connection, "BEGIN IMMEDIATE", ())?;
        Rows::new(&self.connection, &mut self.buffer)?.write(&batch.writes)?;
        execute(&self.connection, "COMMIT", ())
    }

    /// Undoes what was begun. A full disk and a fault of ours leave the store as it was; after anything else
    /// the state of the files is unknown.
    fn roll_back(&mut self, fault: Fault) -> StoreError {
        let error = match fault {
            Fault::Ours(reason) => StoreError::Failed { reason },
            Fault::Sqlite(error) => {
                let constraint = error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation);
                let error = match store_error(&self.path, &error) {
                    // Opening was possible: the disk has changed its mind.
                    StoreError::Unusable { reason, .. } => StoreError::Failed { reason },
                    error => error,
                };
                if !constraint && !matches!(error, StoreError::Full { .. }) {
                    self.failed = Some(error.to_string());
                }
                error
            }
        };
        if !self.connection.is_autocommit()
            && let Err(rollback) = execute(&self.connection, "ROLLBACK", ())
        {
            self.failed = Some(rollback.to_string());
            return StoreError::Failed { reason: format!("{error}; undoing it failed too: {rollback}") };
        }
        error
    }

    /// Whether what was committed is where the next start will look for it.
    fn check_files(&mut self) -> Result<(), StoreError> {
        if self.log_file.is_none() {
            self.log_file = files::identity(&self.log);
        }
        for (path, opened) in [(&self.path, self.database_file), (&self.log, self.log_file)] {
            if opened.is_none() || files::identity(path) != opened {
                let reason = format!("{} was moved, replaced or removed while in use", path.display());
                return Err(StoreError::Failed { reason });
            }
        }
        Ok(())
    }

    /// Moves the log into the database once it is large. Without room for that, the log goes on growing while
    /// it can.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        let frames = self.log_frames("PRAGMA wal_checkpoint(NOOP)").at(&self.path)?;
        let checkpoint = &mut self.checkpoint;
        if frames < checkpoint.seen {
            // It began anew.
            checkpoint.due = checkpoint.step;
        }
        checkpoint.seen = frames;
        if frames < checkpoint.due {
            return Ok(());
        }
        // A reader may keep a part of the log in use: not every commit shall try again.
        checkpoint.due = frames + checkpoint.step;
        let moved = if frames < RESTART_STEPS * checkpoint.step {
            self.log_frames("PRAGMA wal_checkpoint(PASSIVE)")
        } else {
            self.wait_for_readers()
        };
        match moved.at(&self.path) {
            Ok(_) | Err(StoreError::Full { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A checkpoint after which nobody reads from the log, so that the next commit begins it anew. When a reader takes too long, as much is
    /// moved as can be, and that is no error.
    fn wait_for_readers(&self) -> rusqlite::Result<i64> {
        self.connection.busy_timeout(self.checkpoint.wait)?;
        let moved = self.log_frames("PRAGMA wal_checkpoint(RESTART)");
        self.connection.busy_timeout(BUSY_TIMEOUT)?;
        moved
    }

    /// Runs a checkpoint and returns how many frames the log has.
    fn log_frames(&self, checkpoint: &str) -> rusqlite::Result<i64> {
        self.connection.prepare_cached(checkpoint)?.query_row((), |row| row.get(1))
    }

    /// See [`SqliteStore::limit_pages`](super::SqliteStore::limit_pages).
    pub(super) fn limit_pages(&self, pages: u32) -> Result<u32, StoreError> {
        let page_count =
            |pragma: &str| self.connection.query_row(pragma, (), |row| row.get(0)).at(&self.path);
        let _: i64 = page_count(&format!("PRAGMA max_page_count = {pages}"))?;
        page_count("PRAGMA page_count").map(|count: i64| u32::try_from(count).unwrap_or(u32::MAX))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.failed.is_none()
            && let Err(error) = self.log_frames("PRAGMA wal_checkpoint(TRUNCATE)")
        {
            // Nothing is lost: the log stays, and the next start reads it.
            tracing::warn!(%error, path = %self.path.display(), "the log could not be moved into the database");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{self, RecvTimeoutError},
        thread,
    };

    use super::*;
    use crate::{
        engine::JobStatus,
        store::{PruneQuery, Removal, Store, Write, conformance::Samples, record, sqlite::SqliteStore},
    };

    /// Jobs that were stored when their records did not hold their keys.
    #[test]
    fn the_key_of_a_removed_job_is_free_even_when_it_could_not_be_removed_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        let mut samples = Samples::new(1);
        let (first, second) = (samples.job("acme"), samples.job("acme"));
        let ended = samples.moved(&first, JobStatus::Finished);
        store
            .commit(&Batch { writes: vec![samples.insert_as(&first, "k"), samples.update(&ended)] })
            .unwrap();
        let mut record = Vec::new();
        record::encode_submission(&first, None, &mut record);
        let sql = "UPDATE submissions SET record = ?1";
        store.writer().connection.execute(sql, [record]).unwrap();

        let insert = Batch { writes: vec![samples.insert_as(&second, "k")] };
        let refused = store.commit(&insert);
        assert!(matches!(refused, Err(StoreError::Failed { .. })), "the job is still there");
        let query =
            PruneQuery { above_key: PruneQuery::FROM_THE_OLDEST, ended_by: ended.updated_at, limit: 10 };
        let removals = store.prunable(&query).unwrap().removals;
        assert_eq!(removals, [Removal { job_id: first.id, idempotency: None }]);
        store.commit(&Batch { writes: removals.into_iter().map(Write::RemoveJob).collect() }).unwrap();
        assert_eq!(store.find_idempotent("acme", "k"), Ok(None));
        store.commit(&insert).unwrap();
        assert_eq!(store.find_idempotent("acme", "k"), Ok(Some((second.id, [7; 32]))));
    }

    #[test]
    fn the_log_is_moved_into_the_database_again_and_again() {
        const STEP: i64 = 50;
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        store.writer().checkpoint = Checkpoint { step: STEP, due: STEP, seen: 0, wait: Duration::ZERO };
        let log_bytes = || std::fs::metadata(&store.writer().log).unwrap().len();
        let mut samples = Samples::new(1);
        let mut commit_some = || {
            for _ in 0..100 {
                let job = samples.job("acme");
                store.commit(&Batch { writes: vec![samples.insert(&job)] }).unwrap();
            }
        };
        commit_some();
        let usual = log_bytes();
        assert!(
            usual < 2 * STEP as u64 * 8192,
            "{usual} bytes after a hundred commits of several pages each"
        );

        // Someone who reads for long keeps the log from beginning anew, and afterwards it does again.
        let reader = rusqlite::Connection::open(&store.writer().path).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM jobs").unwrap();
        commit_some();
        let held = store.writer().checkpoint.seen;
        assert!(held > 2 * RESTART_STEPS * STEP, "the log has {held} frames while it is read");
        reader.execute_batch("COMMIT").unwrap();
        commit_some();
        let after = store.writer().checkpoint.seen;
        assert!(after < 2 * STEP, "the log has {after} frames again");
    }

    /// Readers that are short, and of whom there is always one that has begun before the last commit.
    struct Relay {
        path: PathBuf,
        _reading: Connection,
    }

    impl Relay {
        fn begin(path: &Path) -> Self {
            let reading = Connection::open(path).unwrap();
            reading.execute_batch("BEGIN; SELECT count(*) FROM jobs").unwrap();
            Self { path: path.to_owned(), _reading: reading }
        }

        /// The next one begins, and only then does this one end.
        fn pass_on(&mut self) {
            *self = Self::begin(&self.path);
        }
    }

    #[test]
    fn readers_who_relieve_each_other_do_not_make_the_log_grow_for_ever() {
        const STEP: i64 = 50;
        const COMMITS: usize = 400;
        const PATIENCE: Duration = Duration::from_secs(30);
        /// A commit that takes longer waits for the reader. One that does not and takes longer all the same does no harm.
        const A_MOMENT: Duration = Duration::from_millis(10);
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        store.writer().checkpoint = Checkpoint { step: STEP, due: STEP, seen: 0, wait: PATIENCE };
        let mut samples = Samples::new(1);
        let mut relay = Relay::begin(&store.path);
        let (turn, turns) = mpsc::channel();
        let (done, was_done) = mpsc::channel();
        let mut longest = 0;
        thread::scope(|scope| {
            scope.spawn(move || {
                loop {
                    match turns.recv_timeout(A_MOMENT) {
                        Ok(()) => {
                            relay.pass_on();
                            done.send(()).unwrap();
                        }
                        Err(RecvTimeoutError::Timeout) => relay.pass_on(),
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            });
            for _ in 0..COMMITS {
                turn.send(()).unwrap();
                was_done.recv().unwrap();
                let job = samples.job("acme");
                store.commit(&Batch { writes: vec![samples.insert(&job)] }).unwrap();
                longest = longest.max(store.writer().checkpoint.seen);
            }
            drop(turn);
        });
        assert!(longest < (RESTART_STEPS + 1) * STEP, "the log had {longest} frames");
    }
}
