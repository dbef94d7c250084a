//! What is in the journal and not yet in the store behind it: the changes of many batches, one entry for each job and schedule.
//!
//! A job that was inserted and updated a few times is written once, with all of its history: most jobs end before they are
//! written for the first time. Whoever reads looks here first.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use avtomatika_proto::JobId;

use super::ring::Appended;
use crate::{
    engine::{HistoryEntry, Job},
    store::{
        Batch, BucketRecord, IdempotencyKey, KeyName, NoticeRecord, Removal, ScheduleRecord, UsageRecord,
        Write,
    },
    time::Timestamp,
};

/// A rate key and its period.
pub(super) type BucketName = (Arc<str>, Duration);

/// What is new of a job.
#[derive(Debug)]
pub(super) enum News<'p> {
    /// This.
    Changed(&'p PendingJob),
    /// It is gone.
    Removed,
}

/// Changes that were gathered.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// By the job's key.
    jobs: BTreeMap<i64, PendingJob>,
    /// What the keys of the new jobs stand for.
    keys: HashMap<KeyName, (JobId, [u8; 32])>,
    /// Jobs that the store behind has, and shall no longer have; with the end that it does not know of.
    removed: BTreeMap<JobId, (Option<Box<PendingJob>>, Removal)>,
    /// Their keys.
    freed: HashSet<KeyName>,
    /// How far schedules have come.
    schedules: BTreeMap<Arc<str>, ScheduleRecord>,
    /// How far buckets are emptied, by key and period.
    buckets: BTreeMap<BucketName, BucketRecord>,
    /// Buckets that the store behind has and that were full by then shall be forgotten.
    buckets_forgotten: Option<Timestamp>,
    /// How much of their quotas clients have used.
    usage: BTreeMap<Arc<str>, UsageRecord>,
    /// By the job's key and their sequence, as last committed.
    notices: BTreeMap<(i64, u64), Arc<NoticeRecord>>,
    /// Of their frames.
    pub(super) bytes: usize,
    /// When the first one came.
    pub(super) since: Option<Instant>,
    /// The last frame.
    pub(super) last: Option<Appended>,
}

/// All that is new of one job.
#[derive(Debug)]
pub(super) struct PendingJob {
    /// As it was last committed.
    pub(super) job: Arc<Job>,
    /// New entries of its history.
    pub(super) entries: Vec<HistoryEntry>,
    /// The job itself is new, and this is its key, if it has one.
    inserted: Option<Option<IdempotencyKey>>,
}

impl News<'_> {
    /// The job as it was last committed, unless it is gone.
    pub(super) fn job(&self) -> Option<&Arc<Job>> {
        match self {
            Self::Changed(pending) => Some(&pending.job),
            Self::Removed => None,
        }
    }
}

impl Pending {
    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Adds a batch that has become durable as this frame.
    pub(super) fn add(&mut self, batch: &Batch, frame: Appended, bytes: usize) {
        self.since.get_or_insert_with(Instant::now);
        self.bytes += bytes;
        self.last = Some(frame);
        for write in &batch.writes {
            match write {
                Write::InsertJob { job, entries, idempotency } => {
                    if let Some(key) = idempotency {
                        let name = (key.client.clone(), key.key.clone());
                        self.keys.insert(name, (job.id, key.fingerprint));
                    }
                    let inserted = Some(idempotency.clone());
                    let new = PendingJob { job: job.clone(), entries: entries.clone(), inserted };
                    self.jobs.insert(job.id.key(), new);
                }
                Write::UpdateJob { job, entries } => {
                    let known = self.jobs.entry(job.id.key());
                    let known = known.or_insert_with(|| PendingJob {
                        job: job.clone(),
                        entries: Vec::new(),
                        inserted: None,
                    });
                    known.job = job.clone();
                    known.entries.extend_from_slice(entries);
                }
                Write::RemoveJob(removal) => self.remove(removal),
                Write::PutSchedule(schedule) => {
                    self.schedules.insert(schedule.name.clone(), schedule.clone());
                }
                Write::PutBucket(bucket) => {
                    self.buckets.insert((bucket.key.clone(), bucket.per), bucket.clone());
                }
                Write::ForgetBuckets(full_by) => {
                    self.buckets.retain(|_, bucket| bucket.full_at > *full_by);
                    self.buckets_forgotten = self.buckets_forgotten.max(Some(*full_by));
                }
                Write::PutUsage(usage) => {
                    self.usage.insert(usage.client.clone(), usage.clone());
                }
                Write::PutNotice(notice) => {
                    self.notices.insert(notice.place(), notice.clone());
                }
                // Nothing else goes through the journal.
                Write::PutSession(_)
                | Write::RemoveSession(_)
                | Write::PutBlueprint(_)
                | Write::RemoveSchedule(_)
                | Write::JournalApplied(_) => {}
            }
        }
    }

    /// Only jobs that have ended come here.
    fn remove(&mut self, removal: &Removal) {
        self.freed.extend(removal.idempotency.clone());
        if let Some(name) = &removal.idempotency {
            self.keys.remove(name);
        }
        let key = removal.job_id.key();
        let notices = self.notices.range((key, 0)..=(key, u64::MAX));
        for place in notices.map(|(place, _)| *place).collect::<Vec<_>>() {
            self.notices.remove(&place);
        }
        let known = self.jobs.remove(&key);
        if known.as_ref().is_none_or(|known| known.inserted.is_none()) {
            self.removed.insert(removal.job_id, (known.map(Box::new), removal.clone()));
        }
    }

    /// One batch that does what all of the gathered ones did, in the order of the jobs' keys: neighbours in the store are
    /// written together.
    pub(super) fn to_batch(&self) -> Batch {
        let write = |pending: &PendingJob| match &pending.inserted {
            Some(idempotency) => Write::InsertJob {
                job: pending.job.clone(),
                entries: pending.entries.clone(),
                idempotency: idempotency.clone(),
            },
            None => Write::UpdateJob { job: pending.job.clone(), entries: pending.entries.clone() },
        };
        // Removals first: the key of a removed job may stand for a new one.
        let removals = self.removed.values().flat_map(|(ended, removal)| {
            // A store removes nothing but what has ended, as far as it knows.
            ended.as_deref().map(write).into_iter().chain([Write::RemoveJob(removal.clone())])
        });
        let mut writes: Vec<Write> = removals.chain(self.jobs.values().map(write)).collect();
        writes.extend(self.schedules.values().cloned().map(Write::PutSchedule));
        writes.extend(self.usage.values().cloned().map(Write::PutUsage));
        writes.extend(self.notices.values().cloned().map(Write::PutNotice));
        writes.extend(self.buckets_forgotten.map(Write::ForgetBuckets));
        writes.extend(self.buckets.values().cloned().map(Write::PutBucket));
        writes.extend(self.last.map(|frame| Write::JournalApplied(frame.sequence)));
        Batch { writes }
    }

    /// What is new of this job, if anything is.
    pub(super) fn job(&self, id: JobId) -> Option<News<'_>> {
        let changed = self.jobs.get(&id.key()).filter(|pending| pending.job.id == id);
        changed.map(News::Changed).or_else(|| self.removed.contains_key(&id).then_some(News::Removed))
    }

    /// The jobs that are gone.
    pub(super) fn removed(&self) -> impl Iterator<Item = JobId> {
        self.removed.keys().copied()
    }

    /// The schedules with news.
    pub(super) fn schedules(&self) -> &BTreeMap<Arc<str>, ScheduleRecord> {
        &self.schedules
    }

    /// The buckets with news; and up to when those are forgotten that had been full.
    pub(super) fn buckets(&self) -> (&BTreeMap<BucketName, BucketRecord>, Option<Timestamp>) {
        (&self.buckets, self.buckets_forgotten)
    }

    /// The clients whose use is news.
    pub(super) fn usage(&self) -> &BTreeMap<Arc<str>, UsageRecord> {
        &self.usage
    }

    /// The notices that are new or changed, by their job's key and their sequence.
    pub(super) fn notices(&self) -> &BTreeMap<(i64, u64), Arc<NoticeRecord>> {
        &self.notices
    }

    /// Every job with news, by key.
    pub(super) fn jobs(&self) -> &BTreeMap<i64, PendingJob> {
        &self.jobs
    }

    /// What is new of an idempotency key: what it stands for, or `None` when its job is gone.
    pub(super) fn find_idempotent(&self, client: &str, key: &str) -> Option<Option<(JobId, [u8; 32])>> {
        if self.keys.is_empty() && self.freed.is_empty() {
            return None;
        }
        let name = (client.into(), key.into());
        match self.keys.get(&name) {
            Some(found) => Some(Some(*found)),
            None => self.freed.contains(&name).then_some(None),
        }
    }
}
