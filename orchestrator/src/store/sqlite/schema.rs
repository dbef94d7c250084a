//! The format of the database: how one is made, how a file is known to be one, how an old one is upgraded.
//!
//! A database is made under another name and gets its own when it is complete. Hence a file with that name
//! and without a sound header is always damage, never a beginning.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rusqlite::{Connection, OpenFlags};

use super::{At, corrupt, read};
use crate::store::{
    StoreError, Stub,
    files::{self, PRIVATE_FILE, io_error},
    record,
};

/// Marks a database as Avtomatika's: "Avto".
const APPLICATION_ID: i32 = 0x4176_746f;

/// Holds several jobs with payloads of a kilobyte.
const PAGE_BYTES: u32 = 8192;

/// The first bytes of every SQLite database.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Bytes of an SQLite database's header.
const HEADER_LEN: usize = 100;

/// One step from a format to the next, within a transaction.
enum Migration {
    Sql(&'static str),
    /// For what has to be made from records, which SQL cannot read.
    Rust(fn(&Connection, &Path) -> Result<(), StoreError>),
}

/// Each brings the database to the next format; the format is how many have run. What is released here is
/// never changed, only added to.
const MIGRATIONS: &[Migration] = &[
    Migration::Sql(TABLES),
    Migration::Rust(add_stubs),
    Migration::Sql(JOURNAL),
    Migration::Sql(SCHEDULES),
    Migration::Sql(NOTICES),
    Migration::Sql(BUCKETS),
    Migration::Sql(USAGE),
];

const TABLES: &str = "
    -- Job rows are keyed by the 60 leading bits of the job id, which saves an index. The columns are what
    -- rows are selected by; everything else is in the records.
    CREATE TABLE jobs (
        key INTEGER PRIMARY KEY,
        id BLOB NOT NULL,
        partition INTEGER NOT NULL,
        client TEXT NOT NULL,
        blueprint TEXT NOT NULL,
        status INTEGER NOT NULL,
        record BLOB NOT NULL
    ) STRICT;
    -- Recovery reads the open jobs only. Terminal statuses are 9 and up. The row's key is part of every
    -- index, at its end.
    CREATE INDEX jobs_open ON jobs (partition) WHERE status < 9;
    CREATE INDEX jobs_by_client ON jobs (client);

    -- What never changes in a job, apart from what does, so that an update rewrites little.
    CREATE TABLE submissions (
        key INTEGER PRIMARY KEY,
        record BLOB NOT NULL
    ) STRICT;

    -- One row for each commit that touched the job, under the sequence of the first entry that it added.
    CREATE TABLE history (
        key INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (key, sequence)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE idempotency (
        client TEXT NOT NULL,
        key TEXT NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (client, key)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE sessions (
        id BLOB PRIMARY KEY,
        record BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE blueprints (
        name TEXT NOT NULL,
        version INTEGER NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (name, version)
    ) STRICT, WITHOUT ROWID;
";

/// Recovery reads the stubs of the open jobs, which stand in a table of their own, in place of the jobs behind an index.
fn add_stubs(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    connection
        .execute_batch(
            "CREATE TABLE open_jobs (key INTEGER PRIMARY KEY, record BLOB NOT NULL) STRICT;
             DROP INDEX jobs_open;",
        )
        .at(path)?;
    let mut insert = connection.prepare("INSERT INTO open_jobs (key, record) VALUES (?1, ?2)").at(path)?;
    let mut buffer = Vec::new();
    read::jobs_without_stubs(connection, path, |job| {
        let Some(stub) = Stub::of(&job) else { return Ok(()) };
        record::encode_stub(&stub, &mut buffer);
        insert.execute((stub.id.key(), &buffer)).at(path).map(drop)
    })
}

const JOURNAL: &str = "
    -- Up to which frame a journal before the database has been applied; no row before the first.
    CREATE TABLE journal (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        applied INTEGER NOT NULL
    ) STRICT;
";

const SCHEDULES: &str = "
    CREATE TABLE schedules (
        name TEXT PRIMARY KEY,
        record BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
";

const NOTICES: &str = "
    -- Messages to webhooks, under their job's key: they go with it.
    CREATE TABLE notices (
        key INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        pending INTEGER NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (key, sequence)
    ) STRICT, WITHOUT ROWID;
    -- A start reads those that are still to be delivered.
    CREATE INDEX notices_pending ON notices (key, sequence) WHERE pending = 1;
";

const BUCKETS: &str = "
    -- How far the buckets of rate keys are emptied, by key and period in microseconds.
    CREATE TABLE buckets (
        key TEXT NOT NULL,
        per INTEGER NOT NULL,
        full_at INTEGER NOT NULL,
        record BLOB NOT NULL,
        PRIMARY KEY (key, per)
    ) STRICT, WITHOUT ROWID;
    -- Those that are full again are forgotten.
    CREATE INDEX buckets_full ON buckets (full_at);
";

const USAGE: &str = "
    CREATE TABLE usage (
        client TEXT PRIMARY KEY,
        record BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// The newest format that this release knows.
fn newest() -> i64 {
    MIGRATIONS.len() as i64
}

/// Whether there is a database, sound or not. A log without its database is damage: creating a new one would
/// erase it.
pub(super) fn exists(path: &Path) -> Result<bool, StoreError> {
    if files::len(path)?.is_some() {
        return Ok(true);
    }
    let log = files::beside(path, "-wal");
    match files::len(&log)? {
        None | Some(0) => Ok(false),
        Some(_) => Err(corrupt(path, format!("it is gone, but its log {} is there", log.display()))),
    }
}

/// Makes an empty database.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    let unfinished = files::beside(path, ".new");
    for suffix in ["", "-wal", "-shm", "-journal"] {
        files::remove(&files::beside(&unfinished, suffix))?;
    }
    // What an earlier database of this name may have left; none of it holds data.
    for suffix in ["-wal", "-shm"] {
        files::remove(&files::beside(path, suffix))?;
    }
    // Made here for its mode, which SQLite takes over for the files beside it.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(&unfinished)
        .map_err(|error| io_error(&unfinished, error))?;
    fill(&unfinished)?;
    let made = File::open(&unfinished).and_then(|file| file.sync_all());
    made.and_then(|()| fs::rename(&unfinished, path)).map_err(|error| io_error(path, error))?;
    match path.parent() {
        Some(dir) => files::sync_dir(dir),
        None => Ok(()),
    }
}

fn fill(path: &Path) -> Result<(), StoreError> {
    let mut connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .at(path)?;
    connection
        .execute_batch(&format!(
            "PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA application_id = {APPLICATION_ID};"
        ))
        .at(path)?;
    migrate(&mut connection, path, 0)?;
    connection.close().map_err(|(_, error)| error).at(path)
}

/// Whether the file begins as a database must and is as long as it says. SQLite itself would take an empty
/// file for a new database, and the missing end of a last page for zeros.
pub(super) fn check_file(path: &Path) -> Result<(), StoreError> {
    let mut header = [0; HEADER_LEN];
    match File::open(path).and_then(|mut file| file.read_exact(&mut header)) {
        Ok(()) if header.starts_with(MAGIC) => {}
        Ok(()) => return Err(corrupt(path, "it is not an SQLite database")),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return Err(corrupt(path, "it is shorter than the header of a database"));
        }
        Err(error) => return Err(io_error(path, error)),
    }
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        // The one size that the field has no room for.
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    let pages = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
    let (expected, found) = (page_bytes * u64::from(pages), files::len(path)?.unwrap_or(0));
    // A log that is not empty may hold the rest.
    let log = files::len(&files::beside(path, "-wal"))?.unwrap_or(0);
    if log == 0 && found < expected {
        return Err(corrupt(path, format!("it has {found} of {expected} bytes")));
    }
    Ok(())
}

/// Whether the database is Avtomatika's and of a format that this release knows; an older one is brought up
/// to date.
pub(super) fn adopt(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let number =
        |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).at(path);
    let (application, format) = (number("application_id")?, number("user_version")?);
    if application != i64::from(APPLICATION_ID) {
        return Err(corrupt(path, "it is the database of another program"));
    }
    match format {
        format if format > newest() => {
            Err(StoreError::TooNew { path: path.to_owned(), found: format, known: newest() })
        }
        1.. => migrate(connection, path, format),
        _ => Err(corrupt(path, format!("it has the format {format}, which no release wrote"))),
    }
}

/// Runs what is missing, each step in its own transaction together with its number.
fn migrate(connection: &mut Connection, path: &Path, format: i64) -> Result<(), StoreError> {
    for (step, migration) in (1..).zip(MIGRATIONS).filter(|&(step, _)| step > format) {
        let transaction = connection.transaction().at(path)?;
        match migration {
            Migration::Sql(sql) => transaction.execute_batch(sql).at(path)?,
            Migration::Rust(run) => run(&transaction, path)?,
        }
        transaction.pragma_update(None, "user_version", step).at(path)?;
        transaction.commit().at(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::JobStatus,
        store::{Batch, Store, conformance::Samples, sqlite::SqliteStore},
    };

    #[test]
    fn a_store_from_before_stubs_gets_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut samples = Samples::new(1);
        let jobs: Vec<_> = (0..20).map(|_| samples.job("acme")).collect();
        let ended = samples.moved(&jobs[7], JobStatus::Finished);
        let mut writes: Vec<_> = jobs.iter().map(|job| samples.insert(job)).collect();
        writes.push(samples.update(&ended));
        let store = SqliteStore::open(dir.path()).unwrap();
        store.commit(&Batch { writes }).unwrap();
        drop(store);
        let connection = Connection::open(dir.path().join(super::super::FILE_NAME)).unwrap();
        connection
            .execute_batch(
                "DROP TABLE usage;
                 DROP TABLE buckets;
                 DROP TABLE schedules;
                 DROP TABLE notices;
                 DROP TABLE journal;
                 DROP TABLE open_jobs;
                 CREATE INDEX jobs_open ON jobs (partition) WHERE status < 9;
                 PRAGMA user_version = 1;",
            )
            .unwrap();
        drop(connection);

        let store = SqliteStore::open(dir.path()).unwrap();
        let mut stubs = Vec::new();
        store.open_jobs(&mut |stub| stubs.push(stub)).unwrap();
        let open = jobs.iter().filter(|job| job.id != ended.id);
        assert_eq!(stubs, open.filter_map(Stub::of).collect::<Vec<_>>());
    }
}
