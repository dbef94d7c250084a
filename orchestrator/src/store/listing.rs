//! Which jobs a page of a listing holds and where the next one begins: the rules that every store shares.
//!
//! A store walks its jobs from the newest to the oldest and asks a [`Listing`] about each. It refuses to know
//! where the jobs come from.

use std::{
    ops::{ControlFlow, Range},
    sync::Arc,
};

use avtomatika_proto::JobId;

use super::{KEY_UNIX_MS_MAX, LIST_BYTES_MAX, LIST_SCAN_BYTES_MAX, LIST_SCAN_MAX, ListPage, ListQuery};
use crate::{
    engine::{Job, JobStatus, Submission, Wait},
    time::Timestamp,
};

/// A page in the making.
#[derive(Debug)]
pub(super) struct Listing<'q> {
    query: &'q ListQuery,
    page: ListPage,
    /// Jobs looked at.
    scanned: usize,
    /// Bytes of the submissions looked at.
    scanned_bytes: usize,
    /// Payload of the jobs taken.
    bytes: usize,
    /// The job looked at last.
    last_key: i64,
}

impl<'q> Listing<'q> {
    /// An empty page for this query.
    pub(super) fn new(query: &'q ListQuery) -> Self {
        Self { query, page: ListPage::default(), scanned: 0, scanned_bytes: 0, bytes: 0, last_key: i64::MAX }
    }

    /// The keys that the walk must cover, from the highest down. They hold a millisecond, hence the ends are
    /// rounded outwards and [`Self::wants_origin`] decides.
    pub(super) fn keys(&self) -> Range<i64> {
        let first_key = |unix_ms: u64| JobId::first_key_of(unix_ms.min(KEY_UNIX_MS_MAX));
        let from = self.query.created_from.map_or(0, |time| first_key(time.as_unix_ms()));
        let before = self.query.created_before.map_or(i64::MAX, |time| first_key(time.as_unix_ms() + 1));
        from..before.min(self.query.below_key.unwrap_or(i64::MAX))
    }

    /// Says that the walk has reached the job with this key. `Break` when the page must end before it.
    pub(super) fn reach(&mut self, key: i64) -> ControlFlow<()> {
        if self.page.jobs.len() >= self.query.limit.max(1)
            || self.scanned >= LIST_SCAN_MAX
            || self.scanned_bytes >= LIST_SCAN_BYTES_MAX
        {
            self.page.next_below_key = Some(self.last_key);
            return ControlFlow::Break(());
        }
        self.scanned += 1;
        self.last_key = key;
        ControlFlow::Continue(())
    }

    /// Whether a job with this status and blueprint may be on the page.
    pub(super) fn wants(&self, status: JobStatus, blueprint: &str) -> bool {
        (self.query.statuses.is_empty() || self.query.statuses.contains(&status))
            && self.query.blueprint.as_deref().is_none_or(|wanted| wanted == blueprint)
    }

    /// Whether a job that was submitted so may be on the page. Counts what had to be read to see that. A child counts from when its
    /// parent came to it, which is the time in its key, and not from when there was room for it.
    pub(super) fn wants_origin(&mut self, created_at: Timestamp, submission: &Submission) -> bool {
        self.scanned_bytes += submission.initial_data.as_str().len();
        let labels = &submission.labels;
        let is_in_time = submission.parent.is_some()
            || self.query.created_from.is_none_or(|from| created_at >= from)
                && self.query.created_before.is_none_or(|before| created_at < before);
        is_in_time && self.query.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Puts a wanted job on the page. `Break` when the page must end before it.
    pub(super) fn take(&mut self, job: Job) -> ControlFlow<()> {
        let bytes = payload_bytes(&job);
        if !self.page.jobs.is_empty() && self.bytes + bytes > LIST_BYTES_MAX {
            self.page.next_below_key = Some(job.id.key() + 1);
            return ControlFlow::Break(());
        }
        self.bytes += bytes;
        self.page.jobs.push(job);
        ControlFlow::Continue(())
    }

    /// For a store that has the job whole: all of the above. `Break` when the page must end before it.
    pub(super) fn look_at(&mut self, job: Arc<Job>) -> ControlFlow<()> {
        self.reach(job.id.key())?;
        if self.wants(job.status, &job.blueprint) && self.wants_origin(job.created_at, &job.submission) {
            self.take(Arc::unwrap_or_clone(job))?;
        }
        ControlFlow::Continue(())
    }

    /// The page.
    pub(super) fn finish(self) -> ListPage {
        self.page
    }
}

/// Bytes of what the client and the workers have put into the job.
pub(super) fn payload_bytes(job: &Job) -> usize {
    let message = match &job.wait {
        Some(Wait::Approval { message: Some(message), .. }) => message.len(),
        _ => 0,
    };
    job.initial_data().as_str().len()
        + job.state_history.as_str().len()
        + job.result.as_ref().map_or(0, |result| result.as_str().len())
        + message
}
