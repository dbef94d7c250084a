//! Which jobs may be forgotten, and how many of them at a time: the rules that every store shares.
//!
//! A store walks its jobs from the oldest to the newest and asks a [`Slicing`] about each. The walk ends by itself where the jobs
//! are too young: a job's key holds the time of its creation, and no job ends before that. Hence no index by the time of the
//! end is needed. It refuses to know where the jobs come from, and how long jobs are kept.

use std::ops::{ControlFlow, Range};

use avtomatika_proto::JobId;

use super::{KEY_UNIX_MS_MAX, KeyName, Standing};
use crate::{engine::JobStatus, time::Timestamp};

/// Jobs in one slice at most: removing one lengthens the transaction that does it by some five microseconds.
pub const PRUNE_JOBS_MAX: usize = 1024;

/// Jobs that one slice looks at, so that jobs which are open for long cannot hold a reader.
pub const PRUNE_SCAN_MAX: usize = 10_000;

/// Bytes of records after which a slice ends, so that a few large jobs make no long commit either.
pub const PRUNE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// About how many bytes an entry of history takes, and rather too many: what a slice counts for it, without reading any.
const HISTORY_ENTRY_BYTES: usize = 512;

/// Which jobs to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneQuery {
    /// Only jobs whose [key](JobId::key) is above this one: where the slice before ended, or [`Self::FROM_THE_OLDEST`].
    pub above_key: i64,
    /// Only jobs that had ended by then.
    pub ended_by: Timestamp,
    /// Jobs in the slice at most, and no more than [`PRUNE_JOBS_MAX`].
    pub limit: usize,
}

impl PruneQuery {
    /// Below every key.
    pub const FROM_THE_OLDEST: i64 = -1;
}

/// Some jobs that may be forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneSlice {
    /// The jobs, oldest first.
    pub removals: Vec<Removal>,
    /// How far each of them had come, in the same order.
    pub standings: Vec<Standing>,
    /// How many jobs were looked at, these included.
    pub looked_at: usize,
    /// Where the next slice begins; `None` when there is nothing further.
    pub next_above_key: Option<i64>,
}

/// A job to forget, and what has to go with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The job.
    pub job_id: JobId,
    /// Its client and the idempotency key under which it was submitted, if it was.
    pub idempotency: Option<KeyName>,
}

/// A slice in the making.
#[derive(Debug)]
pub(super) struct Slicing {
    query: PruneQuery,
    slice: PruneSlice,
    /// Bytes of the records looked at.
    bytes: usize,
    /// The job looked at last.
    last_key: i64,
}

impl Slicing {
    /// An empty slice for this query.
    pub(super) fn new(query: PruneQuery) -> Self {
        Self { query, slice: PruneSlice::default(), bytes: 0, last_key: query.above_key }
    }

    /// The keys that the walk must cover, from the lowest up.
    pub(super) fn keys(&self) -> Range<i64> {
        let first_too_young = (self.query.ended_by.as_unix_ms() + 1).min(KEY_UNIX_MS_MAX);
        let first = self.query.above_key.saturating_add(1);
        first..JobId::first_key_of(first_too_young).max(first)
    }

    /// Says that the walk has reached the job with this key. `Break` when the slice must end before it.
    pub(super) fn reach(&mut self, key: i64) -> ControlFlow<()> {
        if self.slice.removals.len() >= self.query.limit.clamp(1, PRUNE_JOBS_MAX)
            || self.slice.looked_at >= PRUNE_SCAN_MAX
            || self.bytes >= PRUNE_BYTES_MAX
        {
            self.slice.next_above_key = Some(self.last_key);
            return ControlFlow::Break(());
        }
        self.slice.looked_at += 1;
        self.last_key = key;
        ControlFlow::Continue(())
    }

    /// Whether a job that stands so may be forgotten. Counts the bytes that had to be read to see that.
    pub(super) fn wants(&mut self, status: JobStatus, finished_at: Option<Timestamp>, bytes: usize) -> bool {
        self.bytes += bytes;
        status.is_terminal() && finished_at.is_some_and(|at| at <= self.query.ended_by)
    }

    /// Puts a wanted job into the slice.
    pub(super) fn take(&mut self, removal: Removal, standing: Standing) {
        let entries = usize::try_from(standing.history_len).unwrap_or(usize::MAX);
        self.bytes = self.bytes.saturating_add(entries.saturating_mul(HISTORY_ENTRY_BYTES));
        self.slice.removals.push(removal);
        self.slice.standings.push(standing);
    }

    /// The slice.
    pub(super) fn finish(self) -> PruneSlice {
        self.slice
    }
}
