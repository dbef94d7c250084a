//! The store on one machine's disk: one SQLite database in a data directory that one process owns.
//!
//! It promises that a commit which has returned survives the loss of power (write-ahead log, one fsync per
//! batch), that a damaged file is reported and never taken for an empty one, and that reads go on beside
//! commits. It refuses to know what jobs mean: it stores records and keeps beside them only the columns that
//! it selects by.
//!
//! `lock` holds the directory, `schema` the format, `wal` looks for damage in the log, `write`
//! commits, `read` answers.

mod lock;
mod read;
mod rows;
mod schema;
mod wal;
mod write;

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use avtomatika_proto::JobId;
use rusqlite::ErrorCode;

use self::{lock::DirLock, read::Readers, write::Writer};
use super::{
    Batch, BlueprintRecord, BucketRecord, EachLoaded, ListPage, ListQuery, NoticeRecord, PruneQuery,
    PruneSlice, ScheduleRecord, SessionRecord, Standing, Store, StoreError, StoreMeasures, Stub, UsageRecord,
    files,
};
use crate::engine::{HistoryEntry, Job};

/// Name of the database in the data directory.
pub const FILE_NAME: &str = "avtomatika.db";

/// Oldest SQLite that does not lose commits when a checkpoint meets a restart of the log (fixed in 3.51.3).
const LIBRARY_VERSION_MIN: i32 = 3_051_003;

/// The partition of every job while one node owns them all.
const PARTITION: i64 = 0;

/// A store in a data directory.
#[derive(Debug)]
pub struct SqliteStore {
    // In the order in which they must go: the last connection to close is the writer's, and then others may
    // have the place.
    /// For looking up one job: never behind a listing, since the conductor waits for it.
    lookups: Readers,
    /// For everything that may take longer.
    scans: Readers,
    writer: Mutex<Writer>,
    path: PathBuf,
    _lock: DirLock,
}

impl SqliteStore {
    /// Opens the store in `dir`, or creates it when there is none.
    ///
    /// # Errors
    ///
    /// Each says which file it is about: [`StoreError::InUse`], [`StoreError::Unusable`],
    /// [`StoreError::Corrupt`], [`StoreError::TooNew`], [`StoreError::Full`], [`StoreError::Failed`]. None of
    /// them changes what is stored.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        check_library(rusqlite::version_number())?;
        files::create_dir(dir)?;
        let lock = DirLock::acquire(dir)?;
        let path = dir.join(FILE_NAME);
        if !schema::exists(&path)? {
            schema::create(&path)?;
        }
        schema::check_file(&path)?;
        wal::check(&path)?;
        let writer = Writer::open(&path)?;
        // The log's name, if it is new.
        files::sync_dir(dir)?;
        Ok(Self {
            lookups: Readers::open(&path)?,
            scans: Readers::open(&path)?,
            writer: Mutex::new(writer),
            path,
            _lock: lock,
        })
    }

    /// Lets the database grow to this many pages at most, to play a full disk. Returns how many it has.
    #[doc(hidden)]
    pub fn limit_pages(&self, pages: u32) -> Result<u32, StoreError> {
        self.writer().limit_pages(pages)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A commit that panicked has left its transaction open; the next one cannot begin and says so.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for SqliteStore {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn measures(&self) -> StoreMeasures {
        // A file that cannot be looked at has nothing to say; a commit will tell why.
        let len = |path: &Path| files::len(path).ok().flatten().unwrap_or(0);
        StoreMeasures {
            database_bytes: len(&self.path),
            log_bytes: len(&files::beside(&self.path, "-wal")),
            ..StoreMeasures::default()
        }
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.writer().commit(batch)
    }

    fn load(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.lookups.get().load(id)
    }

    fn load_many(&self, ids: &[JobId], each: EachLoaded<'_>) -> Result<(), StoreError> {
        self.lookups.get().load_many(ids, each)
    }

    fn open_jobs(&self, each: &mut dyn FnMut(Stub)) -> Result<(), StoreError> {
        self.scans.get().open_jobs(each)
    }

    fn last_job_key(&self) -> Result<Option<i64>, StoreError> {
        self.lookups.get().last_job_key()
    }

    fn last_key_between(&self, keys: Range<i64>) -> Result<Option<i64>, StoreError> {
        self.lookups.get().last_key_between(keys)
    }

    fn prunable(&self, query: &PruneQuery) -> Result<PruneSlice, StoreError> {
        self.scans.get().prunable(query)
    }

    fn ended_total(&self) -> Result<u64, StoreError> {
        self.scans.get().ended_total()
    }

    fn list(&self, query: &ListQuery) -> Result<ListPage, StoreError> {
        self.scans.get().list(query)
    }

    fn history(&self, id: JobId, from_sequence: u64, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        self.scans.get().history(id, from_sequence, limit)
    }

    fn standing(&self, id: JobId) -> Result<Option<Standing>, StoreError> {
        self.lookups.get().standing(id)
    }

    fn find_idempotent(&self, client: &str, key: &str) -> Result<Option<(JobId, [u8; 32])>, StoreError> {
        self.lookups.get().find_idempotent(client, key)
    }

    fn notices(&self, id: JobId) -> Result<Vec<NoticeRecord>, StoreError> {
        self.lookups.get().notices(id)
    }

    fn pending_notices(&self, each: &mut dyn FnMut(NoticeRecord)) -> Result<(), StoreError> {
        self.scans.get().pending_notices(each)
    }

    fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        self.scans.get().sessions()
    }

    fn blueprints(&self) -> Result<Vec<BlueprintRecord>, StoreError> {
        self.scans.get().blueprints()
    }

    fn buckets(&self) -> Result<Vec<BucketRecord>, StoreError> {
        self.scans.get().buckets()
    }

    fn schedules(&self) -> Result<Vec<ScheduleRecord>, StoreError> {
        self.scans.get().schedules()
    }

    fn usage(&self) -> Result<Vec<UsageRecord>, StoreError> {
        self.scans.get().usage()
    }

    fn journal_applied(&self) -> Result<u64, StoreError> {
        self.lookups.get().journal_applied()
    }
}

/// The build brings its own SQLite; a packager may have put another in its place.
fn check_library(version: i32) -> Result<(), StoreError> {
    if version >= LIBRARY_VERSION_MIN {
        return Ok(());
    }
    Err(StoreError::Failed {
        reason: format!(
            "SQLite {version} can lose commits; build with the bundled one, or with {LIBRARY_VERSION_MIN} at least"
        ),
    })
}

/// Tells what an SQLite error means for the store in this file.
trait At<T> {
    fn at(self, path: &Path) -> Result<T, StoreError>;
}

impl<T> At<T> for rusqlite::Result<T> {
    fn at(self, path: &Path) -> Result<T, StoreError> {
        self.map_err(|error| store_error(path, &error))
    }
}

impl<T> At<T> for Result<T, super::record::Damaged> {
    fn at(self, path: &Path) -> Result<T, StoreError> {
        self.map_err(|damaged| corrupt(path, damaged.to_string()))
    }
}

fn corrupt(path: &Path, reason: impl Into<String>) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), reason: reason.into() }
}

fn store_error(path: &Path, error: &rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    let reason = error.to_string();
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DiskFull => StoreError::Full { path },
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Corrupt { path, reason },
            ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied => {
                StoreError::Unusable { path, reason }
            }
            // The code tells which step failed, such as the fsync; SQLite's text says "disk I/O error" for all.
            code => StoreError::Failed { reason: format!("{reason} ({code:?} {})", failure.extended_code) },
        },
        // A column holds what no release writes there.
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::Utf8Error(..) => StoreError::Corrupt { path, reason },
        _ => StoreError::Failed { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_with_the_log_restart_fault_is_refused() {
        assert_eq!(check_library(rusqlite::version_number()), Ok(()));
        assert!(matches!(check_library(3_051_002), Err(StoreError::Failed { .. })));
    }
}
