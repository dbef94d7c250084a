//! The open jobs, as decided: a cache of the store that runs a batch ahead of it.
//!
//! It holds every job that is not terminal, and terminal ones until their end is committed. When a commit fails, the jobs of
//! the failed batches are put back to what they were: memory never stays ahead of a store that did not follow.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use avtomatika_proto::JobId;

use crate::{
    engine::{Job, JobStatus},
    time::Timestamp,
};

/// The open jobs, their timers and their counts.
#[derive(Debug, Default)]
pub(super) struct Book {
    jobs: HashMap<i64, Entry>,
    timers: BTreeSet<(Timestamp, i64)>,
    open: BTreeMap<JobStatus, u64>,
    open_total: usize,
}

#[derive(Debug)]
struct Entry {
    job: Arc<Job>,
    armed: Option<Timestamp>,
}

impl Book {
    /// The job as last decided.
    pub fn get(&self, id: JobId) -> Option<&Arc<Job>> {
        self.jobs.get(&id.key()).map(|entry| &entry.job).filter(|job| job.id == id)
    }

    /// Jobs that are not terminal.
    pub fn open_total(&self) -> usize {
        self.open_total
    }

    /// Jobs that are not terminal, by status.
    pub fn open_counts(&self) -> &BTreeMap<JobStatus, u64> {
        &self.open
    }

    /// Records what was decided, and arms the job's timer. Returns the job as it was before.
    pub fn put(&mut self, job: Arc<Job>) -> Option<Arc<Job>> {
        let key = job.id.key();
        let due = job.next_due(Timestamp::from_micros(i64::MIN));
        let before = self.take(key);
        self.count(job.status, true);
        self.arm(key, due);
        self.jobs.insert(key, Entry { job, armed: due });
        before
    }

    /// Puts a job back to what it was before a decision that did not become durable.
    pub fn roll_back(&mut self, id: JobId, before: Option<Arc<Job>>) {
        match before {
            Some(job) => drop(self.put(job)),
            None => drop(self.take(id.key())),
        }
    }

    /// The job's end is durable: it is looked up in the store from now on.
    pub fn close(&mut self, job: &Arc<Job>) {
        let key = job.id.key();
        if self.jobs.get(&key).is_some_and(|entry| Arc::ptr_eq(&entry.job, job)) {
            self.take(key);
        }
    }

    /// When the next timer is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Takes a job whose timer is due. Its next timer is armed by the decision that follows, or by [`Book::rearm`].
    pub fn pop_due(&mut self, now: Timestamp) -> Option<Arc<Job>> {
        let &(due, key) = self.timers.first()?;
        if due > now {
            return None;
        }
        self.timers.pop_first();
        let entry = self.jobs.get_mut(&key)?;
        entry.armed = None;
        Some(entry.job.clone())
    }

    /// Nothing followed from the job's timer: arms the next one.
    pub fn rearm(&mut self, id: JobId, due: Option<Timestamp>) {
        if let Some(entry) = self.jobs.get_mut(&id.key()) {
            entry.armed = due;
            self.arm(id.key(), due);
        }
    }

    fn arm(&mut self, key: i64, due: Option<Timestamp>) {
        self.timers.extend(due.map(|due| (due, key)));
    }

    fn take(&mut self, key: i64) -> Option<Arc<Job>> {
        let entry = self.jobs.remove(&key)?;
        if let Some(due) = entry.armed {
            self.timers.remove(&(due, key));
        }
        self.count(entry.job.status, false);
        Some(entry.job)
    }

    fn count(&mut self, status: JobStatus, added: bool) {
        if status.is_terminal() {
            return;
        }
        let count = self.open.entry(status).or_default();
        if added {
            *count += 1;
            self.open_total += 1;
            return;
        }
        *count -= 1;
        self.open_total -= 1;
        if *count == 0 {
            self.open.remove(&status);
        }
    }
}
