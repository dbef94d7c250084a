//! A store that forgets: for tests and simulations.
//!
//! It promises what [`Store`] promises except that nothing outlives the last reference to it. To play a
//! crash, drop everything but the store and start again from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use avtomatika_proto::{JobId, SessionId};

use super::{
    Batch, BlueprintRecord, BucketRecord, EachLoaded, IdempotencyKey, KeyName, ListPage, ListQuery,
    NoticeRecord, NoticeStatus, PruneQuery, PruneSlice, Removal, ScheduleRecord, SessionRecord, Standing,
    Store, StoreError, Stub, UsageRecord, Write,
    listing::{Listing, payload_bytes},
    pruning::Slicing,
};
use crate::engine::{HistoryEntry, Job};

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    jobs: BTreeMap<i64, Arc<Job>>,
    /// By the job's key, each in the order of its entries.
    history: BTreeMap<i64, Vec<HistoryEntry>>,
    /// By the job's key and their sequence.
    notices: BTreeMap<(i64, u64), Arc<NoticeRecord>>,
    idempotency: BTreeMap<KeyName, (JobId, [u8; 32])>,
    /// The idempotency keys of jobs that have one.
    names: BTreeMap<i64, KeyName>,
    sessions: BTreeMap<SessionId, SessionRecord>,
    blueprints: BTreeMap<(Arc<str>, u32), BlueprintRecord>,
    schedules: BTreeMap<Arc<str>, ScheduleRecord>,
    buckets: BTreeMap<(Arc<str>, Duration), BucketRecord>,
    usage: BTreeMap<Arc<str>, UsageRecord>,
    journal_applied: u64,
    full: bool,
    broken: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Plays a disk without room: while `full`, every commit answers [`StoreError::Full`].
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Plays a disk that is gone: while `broken`, every commit answers [`StoreError::Failed`].
    pub fn set_broken(&self, broken: bool) {
        self.state().broken = broken;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A batch is checked before it is applied, and applying it cannot panic: what a panic elsewhere
        // leaves is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the batch changes, as far as it was checked: what it adds must be new.
#[derive(Default)]
struct Changes {
    /// The jobs that it puts, and whether they have ended; `None` for those that it removes.
    jobs: BTreeMap<i64, Option<(JobId, bool)>>,
    history: BTreeSet<(i64, u64)>,
    idempotency: BTreeSet<KeyName>,
    /// Keys of jobs that it has removed, whatever came after.
    removed: BTreeSet<i64>,
    /// Idempotency keys that it makes free.
    freed: BTreeSet<KeyName>,
    blueprints: BTreeSet<(Arc<str>, u32)>,
}

impl State {
    /// Whether the batch may be applied: afterwards nothing can go wrong.
    fn check(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut new = Changes::default();
        for write in &batch.writes {
            match write {
                Write::InsertJob { job, entries, idempotency } => {
                    let key = job.id.key();
                    if self.standing(key, &new).is_some() {
                        return Err(fault(format!("job {} is there already", job.id)));
                    }
                    if let Some(name) = idempotency.as_ref().map(name_of) {
                        let taken = self.idempotency.contains_key(&name) && !new.freed.contains(&name);
                        if taken || !new.idempotency.insert(name) {
                            return Err(fault("an idempotency key is there already".into()));
                        }
                    }
                    self.check_entries(job, entries, &mut new)?;
                    new.jobs.insert(key, Some((job.id, job.status.is_terminal())));
                }
                Write::UpdateJob { job, entries } => {
                    let key = job.id.key();
                    if self.standing(key, &new).is_none_or(|(known, _)| known != job.id) {
                        return Err(fault(format!("job {} is not there", job.id)));
                    }
                    self.check_entries(job, entries, &mut new)?;
                    new.jobs.insert(key, Some((job.id, job.status.is_terminal())));
                }
                Write::RemoveJob(removal) => self.check_removal(removal, &mut new),
                Write::PutBlueprint(blueprint) => {
                    let name = (blueprint.name.clone(), blueprint.version);
                    if self.blueprints.contains_key(&name) || !new.blueprints.insert(name) {
                        return Err(fault("a version of a blueprint is there already".into()));
                    }
                }
                Write::PutNotice(_)
                | Write::PutSession(_)
                | Write::RemoveSession(_)
                | Write::PutSchedule(_)
                | Write::RemoveSchedule(_)
                | Write::PutBucket(_)
                | Write::ForgetBuckets(_)
                | Write::PutUsage(_)
                | Write::JournalApplied(_) => {}
            }
        }
        Ok(())
    }

    fn check_entries(
        &self,
        job: &Job,
        entries: &[HistoryEntry],
        new: &mut Changes,
    ) -> Result<(), StoreError> {
        for entry in entries {
            let place = (job.id.key(), entry.sequence);
            let stored = self.has_entry(place) && !new.removed.contains(&place.0);
            if stored || !new.history.insert(place) {
                return Err(fault(format!("entry {} of job {} is there already", entry.sequence, job.id)));
            }
        }
        Ok(())
    }

    fn has_entry(&self, (key, sequence): (i64, u64)) -> bool {
        let of_job = self.history.get(&key);
        of_job.is_some_and(|entries| entries.binary_search_by_key(&sequence, |entry| entry.sequence).is_ok())
    }

    fn check_removal(&self, removal: &Removal, new: &mut Changes) {
        let key = removal.job_id.key();
        if self.standing(key, new) == Some((removal.job_id, true)) {
            new.jobs.insert(key, None);
            new.removed.insert(key);
            new.history.retain(|(owner, _)| *owner != key);
            if let Some(name) = &removal.idempotency {
                new.idempotency.remove(name);
                new.freed.insert(name.clone());
            }
        }
    }

    /// Which job has this key after the changes, and whether it has ended.
    fn standing(&self, key: i64, changes: &Changes) -> Option<(JobId, bool)> {
        let stored = || self.jobs.get(&key).map(|job| (job.id, job.status.is_terminal()));
        changes.jobs.get(&key).copied().unwrap_or_else(stored)
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::InsertJob { job, entries, idempotency } => {
                if let Some(key) = idempotency {
                    self.idempotency.insert(name_of(key), (job.id, key.fingerprint));
                    self.names.insert(job.id.key(), name_of(key));
                }
                self.put_job(job, entries);
            }
            Write::UpdateJob { job, entries } => self.put_job(job, entries),
            Write::RemoveJob(removal) => self.remove_job(removal),
            Write::PutNotice(notice) => {
                if self.job(notice.id.job_id).is_some() {
                    self.notices.insert(notice.place(), notice.clone());
                }
            }
            Write::PutSession(session) => {
                self.sessions.insert(session.session_id, session.clone());
            }
            Write::RemoveSession(id) => {
                self.sessions.remove(id);
            }
            Write::PutBlueprint(blueprint) => {
                self.blueprints.insert((blueprint.name.clone(), blueprint.version), blueprint.clone());
            }
            Write::PutSchedule(schedule) => {
                self.schedules.insert(schedule.name.clone(), schedule.clone());
            }
            Write::RemoveSchedule(name) => {
                self.schedules.remove(name);
            }
            Write::PutBucket(bucket) => {
                self.buckets.insert((bucket.key.clone(), bucket.per), bucket.clone());
            }
            Write::ForgetBuckets(full_by) => self.buckets.retain(|_, bucket| bucket.full_at > *full_by),
            Write::PutUsage(usage) => {
                self.usage.insert(usage.client.clone(), usage.clone());
            }
            Write::JournalApplied(sequence) => self.journal_applied = *sequence,
        }
    }

    fn put_job(&mut self, job: &Arc<Job>, entries: &[HistoryEntry]) {
        let key = job.id.key();
        self.jobs.insert(key, Arc::clone(job));
        let history = self.history.entry(key).or_default();
        for entry in entries {
            let place = history.partition_point(|known| known.sequence < entry.sequence);
            history.insert(place, entry.clone());
        }
    }

    fn remove_job(&mut self, removal: &Removal) {
        let key = removal.job_id.key();
        if self.job(removal.job_id).is_none_or(|job| !job.status.is_terminal()) {
            return;
        }
        self.jobs.remove(&key);
        self.names.remove(&key);
        self.history.remove(&key);
        let notices = self.notices.range((key, 0)..=(key, u64::MAX));
        for place in notices.map(|(place, _)| *place).collect::<Vec<_>>() {
            self.notices.remove(&place);
        }
        if let Some(name) = &removal.idempotency {
            self.idempotency.remove(name);
        }
    }

    fn job(&self, id: JobId) -> Option<&Arc<Job>> {
        self.jobs.get(&id.key()).filter(|job| job.id == id)
    }
}

fn name_of(key: &IdempotencyKey) -> KeyName {
    (key.client.clone(), key.key.clone())
}

fn fault(reason: String) -> StoreError {
    StoreError::Failed { reason }
}

impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.full {
            return Err(StoreError::Full { path: PathBuf::from("memory") });
        }
        if state.broken {
            return Err(fault("memory is broken".into()));
        }
        state.check(batch)?;
        batch.writes.iter().for_each(|write| state.apply(write));
        Ok(())
    }

    fn load(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        Ok(self.state().job(id).map(|job| Job::clone(job)))
    }

    fn load_many(&self, ids: &[JobId], each: EachLoaded<'_>) -> Result<(), StoreError> {
        // Collected first, here and below, so that `each` may use the store.
        let state = self.state();
        let jobs: Vec<Option<Arc<Job>>> = ids.iter().map(|&id| state.job(id).cloned()).collect();
        drop(state);
        for (&id, job) in ids.iter().zip(jobs) {
            if each(id, job.map(Arc::unwrap_or_clone)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn open_jobs(&self, each: &mut dyn FnMut(Stub)) -> Result<(), StoreError> {
        let open: Vec<Stub> = self.state().jobs.values().filter_map(|job| Stub::of(job)).collect();
        open.into_iter().for_each(each);
        Ok(())
    }

    fn last_job_key(&self) -> Result<Option<i64>, StoreError> {
        Ok(self.state().jobs.keys().next_back().copied())
    }

    fn last_key_between(&self, keys: Range<i64>) -> Result<Option<i64>, StoreError> {
        Ok(self.state().jobs.range(keys).next_back().map(|(key, _)| *key))
    }

    fn prunable(&self, query: &PruneQuery) -> Result<PruneSlice, StoreError> {
        let state = self.state();
        let mut slicing = Slicing::new(*query);
        for (&key, job) in state.jobs.range(slicing.keys()) {
            if slicing.reach(key).is_break() {
                break;
            }
            let bytes = if job.status.is_terminal() { payload_bytes(job) } else { 0 };
            if slicing.wants(job.status, job.finished_at, bytes) {
                let idempotency = state.names.get(&key).cloned();
                slicing.take(Removal { job_id: job.id, idempotency }, Standing::of(job));
            }
        }
        Ok(slicing.finish())
    }

    fn list(&self, query: &ListQuery) -> Result<ListPage, StoreError> {
        let state = self.state();
        let mut listing = Listing::new(query);
        let keys = listing.keys();
        if keys.is_empty() {
            return Ok(listing.finish());
        }
        let jobs = state.jobs.range(keys).rev().map(|(_, job)| job);
        // Where it breaks off, the page knows.
        let _ =
            jobs.filter(|job| job.client == query.client).try_for_each(|job| listing.look_at(job.clone()));
        Ok(listing.finish())
    }

    fn history(&self, id: JobId, from_sequence: u64, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        let state = self.state();
        if state.job(id).is_none() {
            return Ok(Vec::new());
        }
        let entries = state.history.get(&id.key()).into_iter().flatten();
        Ok(entries.filter(|entry| entry.sequence >= from_sequence).take(limit).cloned().collect())
    }

    fn standing(&self, id: JobId) -> Result<Option<Standing>, StoreError> {
        let standing = |job: &Arc<Job>| Standing::of(job);
        Ok(self.state().job(id).map(standing))
    }

    fn find_idempotent(&self, client: &str, key: &str) -> Result<Option<(JobId, [u8; 32])>, StoreError> {
        Ok(self.state().idempotency.get(&(client.into(), key.into())).copied())
    }

    fn notices(&self, id: JobId) -> Result<Vec<NoticeRecord>, StoreError> {
        let state = self.state();
        if state.job(id).is_none() {
            return Ok(Vec::new());
        }
        let notices = state.notices.range((id.key(), 0)..=(id.key(), u64::MAX));
        Ok(notices.map(|(_, notice)| NoticeRecord::clone(notice)).collect())
    }

    fn pending_notices(&self, each: &mut dyn FnMut(NoticeRecord)) -> Result<(), StoreError> {
        let is_pending = |notice: &&Arc<NoticeRecord>| notice.status == NoticeStatus::Pending;
        let pending: Vec<_> = self.state().notices.values().filter(is_pending).cloned().collect();
        pending.into_iter().map(Arc::unwrap_or_clone).for_each(each);
        Ok(())
    }

    fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        let mut sessions: Vec<SessionRecord> = self.state().sessions.values().cloned().collect();
        sessions.sort_by_key(|session| (session.opened_at, session.session_id));
        Ok(sessions)
    }

    fn blueprints(&self) -> Result<Vec<BlueprintRecord>, StoreError> {
        Ok(self.state().blueprints.values().cloned().collect())
    }

    fn buckets(&self) -> Result<Vec<BucketRecord>, StoreError> {
        Ok(self.state().buckets.values().cloned().collect())
    }

    fn schedules(&self) -> Result<Vec<ScheduleRecord>, StoreError> {
        Ok(self.state().schedules.values().cloned().collect())
    }

    fn usage(&self) -> Result<Vec<UsageRecord>, StoreError> {
        Ok(self.state().usage.values().cloned().collect())
    }

    fn journal_applied(&self) -> Result<u64, StoreError> {
        Ok(self.state().journal_applied)
    }
}
