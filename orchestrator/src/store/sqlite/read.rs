//! Answers: a few read-only connections, each of which sees the last commit that has returned.

use std::{
    collections::HashMap,
    ops::{ControlFlow, Deref, Range},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use avtomatika_proto::{JobId, SessionId};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, config::DbConfig};

use super::{At, corrupt};
use crate::{
    engine::{HistoryEntry, Job, JobStatus},
    store::{
        BlueprintRecord, BucketRecord, EachLoaded, ListPage, ListQuery, NoticeRecord, PruneQuery, PruneSlice,
        Removal, ScheduleRecord, SessionRecord, Standing, StoreError, Stub, UsageRecord, bucket,
        listing::Listing,
        notice,
        pruning::Slicing,
        record::{self, Origin},
        schedule, usage,
    },
};

/// Connections at most: reads are short, and more of them would only share the same processors.
const READERS_MAX: usize = 4;

/// Memory for pages, per connection. The operating system caches the file anyway.
const CACHE_KIB: i64 = 4 * 1024;

/// Statements that reads use, with room to spare.
const STATEMENTS_MAX: usize = 16;

/// Longest wait for another program that holds the database (a person with a shell).
const BUSY_TIMEOUT_MS: u32 = 5_000;

/// The connections that read.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Debug)]
struct Pool {
    idle: Vec<Connection>,
    /// Connections that exist, idle or not: one at least.
    open: usize,
}

/// A connection on loan.
#[derive(Debug)]
pub(super) struct Reader<'p> {
    readers: &'p Readers,
    /// There until it is dropped.
    connection: Option<Connection>,
}

impl Readers {
    /// One connection; the others are opened when they are needed.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let pool = Mutex::new(Pool { idle: vec![connect(path)?], open: 1 });
        Ok(Self { path: path.to_owned(), pool, returned: Condvar::new() })
    }

    /// A connection. Waits for one when all are in use, also when another one could not be opened: the process may have no file left for
    /// it, and there is always one that comes back.
    pub(super) fn get(&self) -> Reader<'_> {
        let mut pool = self.pool();
        loop {
            if let Some(connection) = pool.idle.pop() {
                return Reader { readers: self, connection: Some(connection) };
            }
            if pool.open < READERS_MAX
                && let Ok(connection) = connect(&self.path)
            {
                pool.open += 1;
                return Reader { readers: self, connection: Some(connection) };
            }
            pool = self.returned.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).at(path)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Or each new value of a parameter has its statement compiled again, which takes longer than to run it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).at(path)?;
    connection
        .execute_batch(&format!(
            "PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{CACHE_KIB};"
        ))
        .at(path)?;
    Ok(connection)
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.readers.pool().idle.extend(self.connection.take());
        self.readers.returned.notify_one();
    }
}

impl Deref for Reader<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("it is taken out when the loan ends, and not before")
    }
}

/// The columns that [`Reader::job`] reads.
macro_rules! select_job {
    ($rest:literal) => {
        concat!(
            "SELECT jobs.id, jobs.client, jobs.blueprint, jobs.status, jobs.record, submissions.record, jobs.key ",
            "FROM jobs LEFT JOIN submissions ON submissions.key = jobs.key ",
            $rest
        )
    };
}

const LOAD: &str = select_job!("WHERE jobs.key = ?1");

const CLIENT_OF_JOB: &str = "SELECT client FROM jobs WHERE key = ?1";
const OPEN_JOBS: &str = "SELECT key, record FROM open_jobs ORDER BY key";

/// The open jobs of a database that has no stubs yet.
const JOBS_WITHOUT_STUBS: &str = select_job!("WHERE jobs.status < 9 ORDER BY jobs.key");

const LIST: &str =
    select_job!("WHERE jobs.client = ?1 AND jobs.key >= ?2 AND jobs.key < ?3 ORDER BY jobs.key DESC");

/// The records of an open job are not read: they may be large, and there may be many.
const ENDED: &str = "SELECT jobs.id, jobs.status, jobs.key,
         CASE WHEN jobs.status BETWEEN 9 AND 12 THEN jobs.record END,
         CASE WHEN jobs.status BETWEEN 9 AND 12 THEN submissions.record END
     FROM jobs LEFT JOIN submissions ON submissions.key = jobs.key
     WHERE jobs.key >= ?1 AND jobs.key < ?2 ORDER BY jobs.key";

const NOTICES: &str = "SELECT key, sequence, record FROM notices WHERE key = ?1 ORDER BY sequence";

const PENDING_NOTICES: &str = "SELECT key, sequence, record FROM notices WHERE pending = 1";

impl Reader<'_> {
    /// See [`Store`](crate::store::Store), here and below.
    pub(super) fn load(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        let path = &self.readers.path;
        let mut statement = self.prepare_cached(LOAD).at(path)?;
        let mut rows = statement.query([id.key()]).at(path)?;
        let Some(row) = rows.next().at(path)? else { return Ok(None) };
        let job = job(path, row)?;
        // The key is a part of the id only: it may be another job's.
        Ok(Some(job).filter(|job| job.id == id))
    }

    pub(super) fn load_many(&self, ids: &[JobId], each: EachLoaded<'_>) -> Result<(), StoreError> {
        let snapshot = self.unchecked_transaction().at(&self.readers.path)?;
        for &id in ids {
            if each(id, self.load(id)?).is_break() {
                break;
            }
        }
        snapshot.finish().at(&self.readers.path)
    }

    pub(super) fn open_jobs(&self, each: &mut dyn FnMut(Stub)) -> Result<(), StoreError> {
        let path = &self.readers.path;
        let mut task_types: HashMap<String, Arc<str>> = HashMap::new();
        let mut shared = |task_type: &str| match task_types.get(task_type) {
            Some(shared) => shared.clone(),
            None => task_types.entry(task_type.to_owned()).or_insert(task_type.into()).clone(),
        };
        let mut statement = self.prepare_cached(OPEN_JOBS).at(path)?;
        let mut clients = self.prepare_cached(CLIENT_OF_JOB).at(path)?;
        let mut rows = statement.query(()).at(path)?;
        while let Some(row) = rows.next().at(path)? {
            let key = row.get(0).at(path)?;
            let mut stub = match record::decode_stub(key, blob(row, 1).at(path)?, &mut shared).at(path) {
                Ok(stub) => stub,
                Err(damaged) => self.stub_again(key).ok_or(damaged)?,
            };
            if stub.client.is_empty() {
                let client: String = clients.query_row((key,), |row| row.get(0)).at(path)?;
                stub.client = shared(&client);
                if let Some(task) = &mut stub.task {
                    task.client = stub.client.clone();
                }
            }
            each(stub);
        }
        Ok(())
    }

    /// The stub of the job with this key, whose own is damaged: it follows from the job, and is stored again with its next change.
    /// `None` when the job cannot be read either, or has ended, which contradicts that it has one.
    fn stub_again(&self, key: i64) -> Option<Stub> {
        let mut statement = self.prepare_cached(LOAD).ok()?;
        let mut rows = statement.query([key]).ok()?;
        let stub = Stub::of(&job(&self.readers.path, rows.next().ok()??).ok()?)?;
        tracing::warn!(job = %stub.id, "The stub of job {} is damaged and was made again from the job", stub.id);
        Some(stub)
    }

    pub(super) fn last_job_key(&self) -> Result<Option<i64>, StoreError> {
        self.query_row("SELECT max(key) FROM jobs", (), |row| row.get(0)).at(&self.readers.path)
    }

    pub(super) fn last_key_between(&self, keys: Range<i64>) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT max(key) FROM jobs WHERE key >= ?1 AND key < ?2";
        let mut statement = self.prepare_cached(sql).at(&self.readers.path)?;
        statement.query_row((keys.start, keys.end), |row| row.get(0)).at(&self.readers.path)
    }

    pub(super) fn list(&self, query: &ListQuery) -> Result<ListPage, StoreError> {
        let path = &self.readers.path;
        let mut listing = Listing::new(query);
        let keys = listing.keys();
        let mut statement = self.prepare_cached(LIST).at(path)?;
        let mut rows = statement.query((&*query.client, keys.start, keys.end)).at(path)?;
        while let Some(row) = rows.next().at(path)? {
            let key = row.get(6).at(path)?;
            if listing.reach(key).is_break() {
                break;
            }
            let listed = self.list_row(row, &mut listing);
            if unless_damaged(key, job_id(row, 0).ok(), listed)?.is_some_and(|flow| flow.is_break()) {
                break;
            }
        }
        Ok(listing.finish())
    }

    pub(super) fn prunable(&self, query: &PruneQuery) -> Result<PruneSlice, StoreError> {
        let path = &self.readers.path;
        let mut slicing = Slicing::new(*query);
        let keys = slicing.keys();
        let mut statement = self.prepare_cached(ENDED).at(path)?;
        let mut rows = statement.query((keys.start, keys.end)).at(path)?;
        while let Some(row) = rows.next().at(path)? {
            let key = row.get(2).at(path)?;
            if slicing.reach(key).is_break() {
                break;
            }
            unless_damaged(key, job_id(row, 0).ok(), self.prunable_row(row, &mut slicing))?;
        }
        Ok(slicing.finish())
    }

    /// Puts the job of this row of [`ENDED`] into the slice if it may be forgotten.
    fn prunable_row(&self, row: &Row<'_>, slicing: &mut Slicing) -> Result<(), StoreError> {
        let path = &self.readers.path;
        let (id, status) = (job_id(row, 0).at(path)?, status(path, row, 1)?);
        if !status.is_terminal() {
            return Ok(());
        }
        let record = blob(row, 3).at(path)?;
        let (standing, finished_at) = record::decode_end(id, record).at(path)?;
        check_status(path, id, status, standing.status)?;
        let submission = submission(path, row, 4, id)?;
        if slicing.wants(status, finished_at, record.len() + submission.len()) {
            let idempotency = record::decode_name(id, submission).at(path)?;
            slicing.take(Removal { job_id: id, idempotency }, standing);
        }
        Ok(())
    }

    /// Counts the narrowest index and the open jobs, and looks at no job.
    pub(super) fn ended_total(&self) -> Result<u64, StoreError> {
        let path = &self.readers.path;
        let sql = "SELECT (SELECT count(*) FROM jobs) - (SELECT count(*) FROM open_jobs)";
        let total: i64 = self.prepare_cached(sql).at(path)?.query_row([], |row| row.get(0)).at(path)?;
        Ok(u64::try_from(total).unwrap_or(0))
    }

    /// Reads no more of the row than it takes to see that it is not wanted.
    fn list_row(&self, row: &Row<'_>, listing: &mut Listing<'_>) -> Result<ControlFlow<()>, StoreError> {
        let path = &self.readers.path;
        let id = job_id(row, 0).at(path)?;
        let blueprint = row.get_ref(2).and_then(|value| Ok(value.as_str()?)).at(path)?;
        if !listing.wants(status(path, row, 3)?, blueprint) {
            return Ok(ControlFlow::Continue(()));
        }
        let origin = origin(path, row, id)?;
        if !listing.wants_origin(origin.created_at, &origin.submission) {
            return Ok(ControlFlow::Continue(()));
        }
        Ok(listing.take(job_of(path, row, id, origin)?))
    }

    pub(super) fn history(
        &self,
        id: JobId,
        from_sequence: u64,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, StoreError> {
        let path = &self.readers.path;
        if !self.holds(id)? {
            return Ok(Vec::new());
        }
        // The row in which the entry stands may begin before it.
        let sql = "SELECT record FROM history WHERE key = ?1 AND sequence >= coalesce(
                       (SELECT max(sequence) FROM history WHERE key = ?1 AND sequence <= ?2), 0)
                   ORDER BY sequence";
        let from = i64::try_from(from_sequence).unwrap_or(i64::MAX);
        let mut statement = self.prepare_cached(sql).at(path)?;
        let mut rows = statement.query((id.key(), from)).at(path)?;
        let mut entries = Vec::new();
        while entries.len() < limit
            && let Some(row) = rows.next().at(path)?
        {
            let record = blob(row, 0).at(path)?;
            let stored = record::decode_history(id, record).at(path)?;
            entries.extend(stored.into_iter().filter(|entry| entry.sequence >= from_sequence));
        }
        entries.truncate(limit);
        Ok(entries)
    }

    pub(super) fn standing(&self, id: JobId) -> Result<Option<Standing>, StoreError> {
        let path = &self.readers.path;
        let sql = "SELECT record FROM jobs WHERE key = ?1 AND id = ?2";
        let mut statement = self.prepare_cached(sql).at(path)?;
        let mut rows = statement.query((id.key(), id.as_bytes())).at(path)?;
        let Some(row) = rows.next().at(path)? else { return Ok(None) };
        let (standing, _) = record::decode_end(id, blob(row, 0).at(path)?).at(path)?;
        Ok(Some(standing))
    }

    /// Zero before the first journal.
    pub(super) fn journal_applied(&self) -> Result<u64, StoreError> {
        let path = &self.readers.path;
        let applied = self.query_row("SELECT applied FROM journal", (), |row| row.get::<_, i64>(0));
        applied.optional().at(path).map(|applied| applied.unwrap_or(0) as u64)
    }

    pub(super) fn find_idempotent(
        &self,
        client: &str,
        key: &str,
    ) -> Result<Option<(JobId, [u8; 32])>, StoreError> {
        let path = &self.readers.path;
        let sql = "SELECT record FROM idempotency WHERE client = ?1 AND key = ?2";
        let mut statement = self.prepare_cached(sql).at(path)?;
        let mut rows = statement.query((client, key)).at(path)?;
        let Some(row) = rows.next().at(path)? else { return Ok(None) };
        let (job_id, fingerprint) =
            record::decode_idempotency(client, key, blob(row, 0).at(path)?).at(path)?;
        // The records of early jobs do not hold their keys, so that they could not be removed together.
        Ok(self.holds(job_id)?.then_some((job_id, fingerprint)))
    }

    /// Whether the job is there.
    fn holds(&self, id: JobId) -> Result<bool, StoreError> {
        let stored = self
            .prepare_cached("SELECT id FROM jobs WHERE key = ?1")
            .and_then(|mut statement| statement.query_row([id.key()], |row| job_id(row, 0)).optional())
            .at(&self.readers.path)?;
        Ok(stored == Some(id))
    }

    pub(super) fn notices(&self, id: JobId) -> Result<Vec<NoticeRecord>, StoreError> {
        let path = &self.readers.path;
        if !self.holds(id)? {
            return Ok(Vec::new());
        }
        let mut statement = self.prepare_cached(NOTICES).at(path)?;
        let mut rows = statement.query([id.key()]).at(path)?;
        let mut notices = Vec::new();
        while let Some(row) = rows.next().at(path)? {
            notices.push(notice_of(path, row)?);
        }
        Ok(notices)
    }

    pub(super) fn pending_notices(&self, each: &mut dyn FnMut(NoticeRecord)) -> Result<(), StoreError> {
        let path = &self.readers.path;
        let mut statement = self.prepare_cached(PENDING_NOTICES).at(path)?;
        let mut rows = statement.query(()).at(path)?;
        while let Some(row) = rows.next().at(path)? {
            each(notice_of(path, row)?);
        }
        Ok(())
    }

    pub(super) fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        let path = &self.readers.path;
        let mut statement = self.prepare_cached("SELECT id, record FROM sessions").at(path)?;
        let mut rows = statement.query(()).at(path)?;
        let mut sessions = Vec::new();
        while let Some(row) = rows.next().at(path)? {
            let id = SessionId::from_bytes(row.get(0).at(path)?);
            sessions.push(record::decode_session(id, blob(row, 1).at(path)?).at(path)?);
        }
        sessions.sort_by_key(|session| (session.opened_at, session.session_id));
        Ok(sessions)
    }

    pub(super) fn blueprints(&self) -> Result<Vec<BlueprintRecord>, StoreError> {
        let path = &self.readers.path;
        let sql = "SELECT name, record FROM blueprints ORDER BY name, version";
        let mut statement = self.prepare_cached(sql).at(path)?;
        let mut rows = statement.query(()).at(path)?;
        let mut blueprints = Vec::new();
        while let Some(row) = rows.next().at(path)? {
            let name: String = row.get(0).at(path)?;
            blueprints.push(record::decode_blueprint(&name, blob(row, 1).at(path)?).at(path)?);
        }
        Ok(blueprints)
    }

    pub(super) fn schedules(&self) -> Result<Vec<ScheduleRecord>, StoreError> {
        let path = &self.readers.path;
        let mut statement =
            self.prepare_cached("SELECT name, record FROM schedules ORDER BY name").at(path)?;
        let mut rows = statement.query(()).at(path)?;
        let mut schedules = Vec::new();
        while let Some(row) = rows.next().at(path)? {
            let name: String = row.get(0).at(path)?;
            schedules.push(schedule::decode(&name, blob(row, 1).at(path)?).at(path)?);
        }
        Ok(schedules)
    }

    pub(super) fn buckets(&self) -> Result<Vec<BucketRecord>, StoreError> {
        let path = &self.readers.path;
        let mut statement =
            self.prepare_cached("SELECT key, per, record FROM buckets ORDER BY key, per").at(path)?;
        let mut rows = statement.query(()).at(path)?;
        let mut buckets = Vec::new();
        while let Some(row) = rows.next().at(path)? {
            let (key, per): (String, i64) = (row.get(0).at(path)?, row.get(1).at(path)?);
            buckets.push(bucket::decode(&key, per, blob(row, 2).at(path)?).at(path)?);
        }
        Ok(buckets)
    }

    pub(super) fn usage(&self) -> Result<Vec<UsageRecord>, StoreError> {
        let path = &self.readers.path;
        let mut statement =
            self.prepare_cached("SELECT client, record FROM usage ORDER BY client").at(path)?;
        let mut rows = statement.query(()).at(path)?;
        let mut records = Vec::new();
        while let Some(row) = rows.next().at(path)? {
            let client: String = row.get(0).at(path)?;
            records.push(usage::decode(&client, blob(row, 1).at(path)?).at(path)?);
        }
        Ok(records)
    }
}

/// Calls `each` for every open job of a database in the format before stubs.
pub(super) fn jobs_without_stubs(
    connection: &Connection,
    path: &Path,
    mut each: impl FnMut(Job) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare(JOBS_WITHOUT_STUBS).at(path)?;
    let mut rows = statement.query(()).at(path)?;
    while let Some(row) = rows.next().at(path)? {
        each(job(path, row)?)?;
    }
    Ok(())
}

/// The job of a row of `select_job!`.
fn job(path: &Path, row: &Row<'_>) -> Result<Job, StoreError> {
    let id = job_id(row, 0).at(path)?;
    job_of(path, row, id, origin(path, row, id)?)
}

fn job_of(path: &Path, row: &Row<'_>, id: JobId, origin: Origin) -> Result<Job, StoreError> {
    let job = record::decode_job(id, origin, blob(row, 4).at(path)?).at(path)?;
    check_status(path, id, status(path, row, 3)?, job.status)?;
    Ok(job)
}

fn check_status(path: &Path, id: JobId, in_row: JobStatus, in_record: JobStatus) -> Result<(), StoreError> {
    if in_row == in_record {
        return Ok(());
    }
    Err(corrupt(path, format!("the row of job {id} and its record disagree on the status")))
}

/// What was read of one row, for who walks over many jobs: one that is damaged is told and passed over, so that it is not in the way of
/// all the others. An error between rows is the database's own, and none of those.
fn unless_damaged<T>(
    key: i64,
    id: Option<JobId>,
    read: Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    match read {
        Err(error @ StoreError::Corrupt { .. }) => {
            let job = id.map(tracing::field::display);
            tracing::warn!(job, key, "A job cannot be read and was passed over: {error}");
            Ok(None)
        }
        read => read.map(Some),
    }
}

/// The record of what the job was submitted with.
fn submission<'r>(path: &Path, row: &'r Row<'_>, column: usize, id: JobId) -> Result<&'r [u8], StoreError> {
    let record = row.get_ref(column).and_then(|value| Ok(value.as_blob_or_null()?)).at(path)?;
    record.ok_or_else(|| corrupt(path, format!("the submission of job {id} is missing")))
}

/// The part of the job that was written once. The columns are checked against it: they have no checksum of their own.
fn origin(path: &Path, row: &Row<'_>, id: JobId) -> Result<Origin, StoreError> {
    let origin = record::decode_submission(id, submission(path, row, 5, id)?).at(path)?;
    let text = |column| row.get_ref(column).and_then(|value| Ok(value.as_str()?)).at(path);
    if text(1)? == &*origin.client && text(2)? == &*origin.blueprint {
        Ok(origin)
    } else {
        Err(corrupt(path, format!("the row of job {id} and its submission disagree")))
    }
}

fn notice_of(path: &Path, row: &Row<'_>) -> Result<NoticeRecord, StoreError> {
    let (key, sequence): (i64, i64) = (row.get(0).at(path)?, row.get(1).at(path)?);
    notice::decode(key, sequence as u64, blob(row, 2).at(path)?).at(path)
}

fn status(path: &Path, row: &Row<'_>, column: usize) -> Result<JobStatus, StoreError> {
    let number: u8 = row.get(column).at(path)?;
    JobStatus::from_number(number)
        .ok_or_else(|| corrupt(path, format!("{number} is not the number of a job status")))
}

fn job_id(row: &Row<'_>, column: usize) -> rusqlite::Result<JobId> {
    row.get(column).map(JobId::from_bytes)
}

fn blob<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<&'r [u8]> {
    Ok(row.get_ref(column)?.as_blob()?)
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::store::{Batch, Store, conformance::Samples, sqlite::SqliteStore};

    /// The steps of the query, as SQLite tells them.
    fn plan(store: &SqliteStore, sql: &str) -> String {
        let reader = store.scans.get();
        let mut statement = reader.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        for parameter in 1..=statement.parameter_count() {
            statement.raw_bind_parameter(parameter, 1).unwrap();
        }
        let steps: Vec<String> = statement.raw_query().mapped(|row| row.get(3)).map(Result::unwrap).collect();
        steps.join("; ")
    }

    #[test]
    fn no_query_reads_or_sorts_more_than_it_answers() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        let submission = "SEARCH submissions USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN";
        for (sql, jobs) in [
            (LOAD, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)"),
            (LIST, "SEARCH jobs USING INDEX jobs_by_client (client=? AND rowid>? AND rowid<?)"),
            (ENDED, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        ] {
            assert_eq!(plan(&store, sql), format!("{jobs}; {submission}"));
        }
        assert_eq!(plan(&store, OPEN_JOBS), "SCAN open_jobs");
        assert_eq!(plan(&store, NOTICES), "SEARCH notices USING PRIMARY KEY (key=?)");
        assert_eq!(plan(&store, PENDING_NOTICES), "SCAN notices USING INDEX notices_pending");
    }

    #[test]
    fn no_statement_is_compiled_again_for_other_values() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        let mut samples = Samples::new(1);
        let jobs: Vec<Job> = (0..10).map(|_| samples.job("acme")).collect();
        let writes = jobs.iter().map(|job| samples.insert(job)).collect();
        store.commit(&Batch { writes }).unwrap();
        let reader = store.lookups.get();
        for job in &jobs {
            assert_eq!(reader.load(job.id), Ok(Some(job.clone())));
        }
        let statement = reader.prepare_cached(LOAD).unwrap();
        assert_eq!(statement.get_status(StatementStatus::Run), 10, "it is the statement that was used");
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }

    #[test]
    fn who_cannot_open_a_reader_waits_for_one_that_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        let on_loan = store.lookups.get();
        // As when there are no files left: what is open stays so, and nothing else can be opened.
        std::fs::rename(&store.path, dir.path().join("elsewhere")).unwrap();
        let (asking, asked) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for asking in vec![asking; READERS_MAX] {
                let store = &store;
                scope.spawn(move || {
                    asking.send(()).unwrap();
                    assert_eq!(store.last_job_key(), Ok(None));
                });
            }
            (0..READERS_MAX).for_each(|_| asked.recv().unwrap());
            drop(on_loan);
        });
        assert_eq!(store.lookups.pool().open, 1);
    }

    #[test]
    fn readers_are_shared_and_never_more_than_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path()).unwrap();
        let on_loan: Vec<_> = (0..READERS_MAX).map(|_| store.scans.get()).collect();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| store.last_job_key());
            drop(on_loan);
            assert_eq!(waiting.join().unwrap(), Ok(None));
        });
        let pool = store.scans.pool();
        assert!(pool.open == READERS_MAX && pool.idle.len() == READERS_MAX);
    }
}
