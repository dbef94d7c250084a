//! The store commits. A [`Store`] is the only thing that survives a crash, and everything else is a cache of it.
//!
//! It works at the level of batches: [`Store::commit`] takes what many events decided and makes it durable as one
//! transaction. It refuses to know what the records mean: whether a change is lawful was settled before.

mod bucket;
mod checksum;
mod claim;
#[doc(hidden)]
pub mod conformance;
mod files;
pub mod journal;
mod listing;
pub mod memory;
mod notice;
mod pruning;
mod record;
mod schedule;
pub mod sqlite;
mod stub;
mod usage;

use std::{
    collections::BTreeMap,
    ops::{ControlFlow, Range},
    path::PathBuf,
    sync::Arc,
};

use avtomatika_proto::{JobId, SessionId};

pub use self::bucket::BucketRecord;
pub use self::notice::{InvalidNoticeId, NoticeId, NoticeRecord, NoticeStatus};
pub use self::pruning::{PRUNE_BYTES_MAX, PRUNE_JOBS_MAX, PRUNE_SCAN_MAX, PruneQuery, PruneSlice, Removal};
pub use self::schedule::{ScheduleRecord, ScheduledRun, ScheduledSkip, SkipReason};
pub use self::stub::{Stub, StubKeys, StubTask};
pub use self::usage::UsageRecord;
use crate::{
    engine::{HistoryEntry, Job, JobStatus},
    time::Timestamp,
};

/// What one transaction makes durable, in order.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The changes.
    pub writes: Vec<Write>,
}

/// One durable change.
#[derive(Debug, Clone)]
pub enum Write {
    /// A new job with the first entries of its history.
    InsertJob {
        /// The job.
        job: Arc<Job>,
        /// Its history so far, from sequence 0.
        entries: Vec<HistoryEntry>,
        /// The key under which its client may repeat the submission.
        idempotency: Option<IdempotencyKey>,
    },
    /// The present state of a known job, and what happened to it.
    UpdateJob {
        /// The job. Its submission is as it was inserted.
        job: Arc<Job>,
        /// What to append to its history.
        entries: Vec<HistoryEntry>,
    },
    /// A job that has ended is forgotten, with its history, its notices and its idempotency key. One that is open, or is not
    /// there, stays as it is, and that is no error.
    RemoveJob(Removal),
    /// What is known of a notice. Takes the place of one with its id; of a job that is not there, nothing is kept, and that is
    /// no error.
    PutNotice(Arc<NoticeRecord>),
    /// A session was opened. Takes the place of one with its id.
    PutSession(SessionRecord),
    /// A session has ended. One that is not there is no error.
    RemoveSession(SessionId),
    /// A new version of a blueprint. A version that is there already is a fault, as is a job.
    PutBlueprint(BlueprintRecord),
    /// How far a schedule has come. Takes the place of what was said of it before.
    PutSchedule(ScheduleRecord),
    /// A schedule is forgotten. One that is not there is no error.
    RemoveSchedule(Arc<str>),
    /// How far a bucket is emptied. Takes the place of what was said of it before.
    PutBucket(BucketRecord),
    /// Buckets that are full by then are forgotten.
    ForgetBuckets(Timestamp),
    /// How much of its quota a client has used. Takes the place of what was said of it before.
    PutUsage(UsageRecord),
    /// Up to which frame a [`journal`] before this store has been taken over.
    JournalApplied(u64),
}

/// A client and one of its idempotency keys.
pub type KeyName = (Arc<str>, Arc<str>);

/// The client's promise that two requests with this key are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// Keys of different clients never meet.
    pub client: Arc<str>,
    /// The key.
    pub key: Arc<str>,
    /// SHA-256 of the request, to tell a repetition from a mistake.
    pub fingerprint: [u8; 32],
}

/// A registration that outlives a crash of the orchestrator, so that it knows whom to expect.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRecord {
    /// The session.
    pub session_id: SessionId,
    /// What the worker said of itself.
    pub worker: Arc<WorkerRecord>,
    /// Which credential it registered with (a SHA-256): nobody else may open its stream.
    pub credential: [u8; 32],
    /// When it registered.
    pub opened_at: Timestamp,
    /// What is held against the worker, if anything was when that was last stored.
    pub reproach: Option<Reproach>,
}

/// What is held against a worker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reproach {
    /// How well its tasks end: 1 is best.
    pub reputation: f64,
    /// As of when.
    pub at: Timestamp,
    /// Until when it is set aside, if it is.
    pub aside_until: Option<Timestamp>,
    /// How often it was, since a task ended well there.
    pub times_aside: u32,
}

/// What a worker says of itself when it registers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkerRecord {
    /// Its name.
    pub worker_id: Arc<str>,
    /// What kind it is, for people.
    pub worker_type: Arc<str>,
    /// The task types that it serves.
    pub task_types: Vec<Arc<str>>,
    /// Tasks that it holds at once.
    pub slots: u32,
    /// For people and for placement.
    pub labels: BTreeMap<String, String>,
    /// Named quantities.
    pub resources: BTreeMap<String, f64>,
    /// Where it runs.
    pub hostname: Arc<str>,
    /// What it runs.
    pub sdk_version: Arc<str>,
    /// Programs that it has, with their versions.
    pub software: BTreeMap<String, String>,
    /// Models that it has, with their versions.
    pub models: BTreeMap<String, String>,
    /// On what terms it serves its types, where there are any.
    pub terms: BTreeMap<Arc<str>, Terms>,
}

/// On what terms a worker serves a task type.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Terms {
    /// Tasks of the type that it holds at once, beside its slots.
    pub limit: Option<u32>,
    /// What one task costs there, in whatever unit the workers of an installation agree on. Not negative.
    pub cost: Option<f64>,
}

/// One version of a blueprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlueprintRecord {
    /// Its name.
    pub name: Arc<str>,
    /// Its version, from 1.
    pub version: u32,
    /// Its canonical definition.
    pub definition: Arc<str>,
    /// Whether it was put over the wire.
    pub is_put: bool,
}

/// Which jobs to list: those of one client that meet every condition, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListQuery {
    /// Whose jobs.
    pub client: Arc<str>,
    /// Only these statuses; empty means all.
    pub statuses: Vec<JobStatus>,
    /// Only this blueprint.
    pub blueprint: Option<Arc<str>>,
    /// Only jobs that carry all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only jobs created at or after.
    pub created_from: Option<Timestamp>,
    /// Only jobs created before.
    pub created_before: Option<Timestamp>,
    /// Only jobs whose [key](JobId::key) is below this one: where the page before ended.
    pub below_key: Option<i64>,
    /// Jobs in the page at most.
    pub limit: usize,
}

/// One page of a listing.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// The jobs, newest first.
    pub jobs: Vec<Job>,
    /// Where the next page begins; `None` when there is nothing further. A page may be short and still have a next one:
    /// see [`LIST_SCAN_MAX`] and [`LIST_BYTES_MAX`].
    pub next_below_key: Option<i64>,
}

/// Jobs that one page of a listing looks at, so that a filter that matches little cannot hold a reader for long.
pub const LIST_SCAN_MAX: usize = 20_000;

/// Payload bytes that one page of a listing may look at in submissions, whether it takes their jobs or not.
pub const LIST_SCAN_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Payload bytes after which a page ends, so that it fits one gRPC message.
pub const LIST_BYTES_MAX: usize = 1024 * 1024;

/// The last millisecond whose jobs have keys: 48 bits.
const KEY_UNIX_MS_MAX: u64 = (1 << 48) - 1;

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its status.
    pub status: JobStatus,
    /// Entries in its history.
    pub history_len: u64,
}

impl Standing {
    /// How far this job has come.
    pub fn of(job: &Job) -> Self {
        Self { status: job.status, history_len: job.history_len }
    }
}

/// What a store could not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No room on the disk. Nothing of the batch was stored; what was stored before is safe and readable, and a later commit
    /// may succeed.
    #[error("the disk that holds {path} is full", path = path.display())]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// Another process has the store open.
    #[error("{path} is in use by another orchestrator{by}", path = path.display(), by = pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// The other process, when it says so.
        pid: Option<u32>,
    },
    /// The directory or file cannot be created, opened or written.
    #[error("cannot use {path}: {reason}", path = path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The file is not a sound store.
    #[error("{path} is damaged: {reason}", path = path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A newer release wrote the file.
    #[error("{path} has format {found}, and this release knows formats up to {known}", path = path.display())]
    TooNew {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that this release opens.
        known: i64,
    },
    /// The system failed to read or write. After a failed commit the store must not be used: what is durable is unknown.
    #[error("the store failed: {reason}")]
    Failed {
        /// What the system said.
        reason: String,
    },
}

impl StoreError {
    /// How to mend it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Full { .. } => "free space on that disk; the orchestrator resumes by itself",
            Self::InUse { .. } => "stop the other orchestrator, or choose another --data-dir",
            Self::Unusable { .. } => {
                "check that the directory exists, belongs to this user and can be written"
            }
            Self::Corrupt { .. } => {
                "restore the data directory from a backup; keep the damaged one for inspection"
            }
            Self::TooNew { .. } => "start the release that wrote it, or a later one",
            Self::Failed { .. } => {
                "check the disk and the system log, then start again: acknowledged jobs are recovered"
            }
        }
    }
}

/// How large a store is, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreMeasures {
    /// The database.
    pub database_bytes: u64,
    /// What was committed to the database and is still in its log.
    pub log_bytes: u64,
    /// The file of the journal.
    pub journal_bytes: u64,
    /// What is durable in the journal and not yet in the database.
    pub journal_pending_bytes: u64,
    /// As large the journal may become.
    pub journal_capacity_bytes: u64,
}

/// What [`Store::load_many`] does with each job.
pub type EachLoaded<'a> = &'a mut dyn FnMut(JobId, Option<Job>) -> ControlFlow<()>;

/// Durable jobs, their histories, sessions and blueprints.
///
/// Reads see every batch whose commit has returned, and never a part of one. They may run beside a commit and beside each
/// other. Commits come from one thread at a time.
pub trait Store: Send + Sync + 'static {
    /// How large it is. Of a store without files, nothing.
    fn measures(&self) -> StoreMeasures {
        StoreMeasures::default()
    }

    /// A short name, such as `sqlite`.
    fn name(&self) -> &'static str;

    /// Makes the batch durable as a whole. When it returns `Ok`, all of it survives any crash, including loss of power. When
    /// it returns [`StoreError::Full`], none of it was stored and the store remains usable. Any other error leaves
    /// unknown what is durable: nothing may be acknowledged afterwards, and the process should end and recover.
    fn commit(&self, batch: &Batch) -> Result<(), StoreError>;

    /// The job as last committed.
    fn load(&self, id: JobId) -> Result<Option<Job>, StoreError>;

    /// Calls `each` for every one of these jobs, in this order, with the job as last committed, or `None` when it is not there;
    /// all of them as they were at one moment. Ends early when `each` breaks off.
    fn load_many(&self, ids: &[JobId], each: EachLoaded<'_>) -> Result<(), StoreError>;

    /// Calls `each` for the [`Stub`] of every job that is not terminal, oldest first. After a crash these are exactly the jobs
    /// whose insertion was committed and whose end was not, each as last committed.
    fn open_jobs(&self, each: &mut dyn FnMut(Stub)) -> Result<(), StoreError>;

    /// The largest [key](JobId::key) of any job, so that new ids stay unique when the clock has stepped back.
    fn last_job_key(&self) -> Result<Option<i64>, StoreError>;

    /// The largest [key](JobId::key) of any job in this range.
    fn last_key_between(&self, keys: Range<i64>) -> Result<Option<i64>, StoreError>;

    /// Jobs that have ended and may be forgotten, oldest first: a slice of them, since there may be very many. To be read again
    /// from the oldest on now and then: a job that was open when the walk passed it ends later.
    fn prunable(&self, query: &PruneQuery) -> Result<PruneSlice, StoreError>;

    /// How many jobs have ended and are kept. What is being committed meanwhile may or may not be counted.
    fn ended_total(&self) -> Result<u64, StoreError> {
        let mut query = PruneQuery {
            above_key: PruneQuery::FROM_THE_OLDEST,
            ended_by: Timestamp::from_micros(i64::MAX),
            limit: PRUNE_JOBS_MAX,
        };
        let mut total = 0;
        loop {
            let slice = self.prunable(&query)?;
            total += slice.removals.len() as u64;
            match slice.next_above_key {
                Some(above_key) => query.above_key = above_key,
                None => return Ok(total),
            }
        }
    }

    /// The jobs that meet the query.
    fn list(&self, query: &ListQuery) -> Result<ListPage, StoreError>;

    /// Entries of a job's history from a sequence number on, oldest first, at most `limit`. Empty for an unknown job.
    fn history(&self, id: JobId, from_sequence: u64, limit: usize) -> Result<Vec<HistoryEntry>, StoreError>;

    /// Where the job stands; `None` for an unknown job. Cheaper than loading it.
    fn standing(&self, id: JobId) -> Result<Option<Standing>, StoreError>;

    /// The job that a client made with this key, and the fingerprint of its request. `None` also when that job was removed.
    fn find_idempotent(&self, client: &str, key: &str) -> Result<Option<(JobId, [u8; 32])>, StoreError>;

    /// The notices about a job, in the order in which they arose. Empty for an unknown job.
    fn notices(&self, id: JobId) -> Result<Vec<NoticeRecord>, StoreError>;

    /// Calls `each` for every notice that is pending, in no particular order.
    fn pending_notices(&self, each: &mut dyn FnMut(NoticeRecord)) -> Result<(), StoreError>;

    /// Every recorded session, in the order of their opening.
    fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError>;

    /// Every version of every blueprint.
    fn blueprints(&self) -> Result<Vec<BlueprintRecord>, StoreError>;

    /// How far every recorded schedule has come, by name.
    fn schedules(&self) -> Result<Vec<ScheduleRecord>, StoreError>;

    /// How far the buckets are emptied that are not forgotten, by key and period.
    fn buckets(&self) -> Result<Vec<BucketRecord>, StoreError>;

    /// How much of its quota every client has used of whom that is recorded, by name.
    fn usage(&self) -> Result<Vec<UsageRecord>, StoreError>;

    /// The number in the last [`Write::JournalApplied`]; 0 before the first one.
    fn journal_applied(&self) -> Result<u64, StoreError>;
}

/// A store that others hold as well.
impl<S: Store + ?Sized> Store for Arc<S> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        (**self).commit(batch)
    }

    fn load(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        (**self).load(id)
    }

    fn load_many(&self, ids: &[JobId], each: EachLoaded<'_>) -> Result<(), StoreError> {
        (**self).load_many(ids, each)
    }

    fn open_jobs(&self, each: &mut dyn FnMut(Stub)) -> Result<(), StoreError> {
        (**self).open_jobs(each)
    }

    fn last_job_key(&self) -> Result<Option<i64>, StoreError> {
        (**self).last_job_key()
    }

    fn last_key_between(&self, keys: Range<i64>) -> Result<Option<i64>, StoreError> {
        (**self).last_key_between(keys)
    }

    fn list(&self, query: &ListQuery) -> Result<ListPage, StoreError> {
        (**self).list(query)
    }

    fn history(&self, id: JobId, from_sequence: u64, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        (**self).history(id, from_sequence, limit)
    }

    fn standing(&self, id: JobId) -> Result<Option<Standing>, StoreError> {
        (**self).standing(id)
    }

    fn prunable(&self, query: &PruneQuery) -> Result<PruneSlice, StoreError> {
        (**self).prunable(query)
    }

    fn ended_total(&self) -> Result<u64, StoreError> {
        (**self).ended_total()
    }

    fn find_idempotent(&self, client: &str, key: &str) -> Result<Option<(JobId, [u8; 32])>, StoreError> {
        (**self).find_idempotent(client, key)
    }

    fn notices(&self, id: JobId) -> Result<Vec<NoticeRecord>, StoreError> {
        (**self).notices(id)
    }

    fn pending_notices(&self, each: &mut dyn FnMut(NoticeRecord)) -> Result<(), StoreError> {
        (**self).pending_notices(each)
    }

    fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        (**self).sessions()
    }

    fn blueprints(&self) -> Result<Vec<BlueprintRecord>, StoreError> {
        (**self).blueprints()
    }

    fn schedules(&self) -> Result<Vec<ScheduleRecord>, StoreError> {
        (**self).schedules()
    }

    fn buckets(&self) -> Result<Vec<BucketRecord>, StoreError> {
        (**self).buckets()
    }

    fn usage(&self) -> Result<Vec<UsageRecord>, StoreError> {
        (**self).usage()
    }

    fn journal_applied(&self) -> Result<u64, StoreError> {
        (**self).journal_applied()
    }
}
