//! A store that forgets: for tests and simulations.
//!
//! It promises what [`Store`] promises except that nothing outlives the last reference to it. To play a
//! crash, drop everything but the store and start again from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use avtomatika_proto::{JobId, SessionId};

use super::{
    Batch, BlueprintRecord, EachLoaded, ListPage, ListQuery, SessionRecord, Store, StoreError, Stub, Write,
    listing::Listing,
};
use crate::engine::{HistoryEntry, Job};

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

type IdempotencyName = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct State {
    jobs: BTreeMap<i64, Arc<Job>>,
    history: BTreeMap<(i64, u64), HistoryEntry>,
    idempotency: BTreeMap<IdempotencyName, (JobId, [u8; 32])>,
    sessions: BTreeMap<SessionId, SessionRecord>,
    blueprints: BTreeMap<(Arc<str>, u32), BlueprintRecord>,
    full: bool,
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

    fn state(&self) -> MutexGuard<'_, State> {
        // A batch is checked before it is applied, and applying it cannot panic: what a panic elsewhere
        // leaves is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the batch adds: all of it must be new.
#[derive(Default)]
struct Additions {
    jobs: BTreeSet<i64>,
    history: BTreeSet<(i64, u64)>,
    idempotency: BTreeSet<IdempotencyName>,
    blueprints: BTreeSet<(Arc<str>, u32)>,
}

impl State {
    /// Whether the batch may be applied: afterwards nothing can go wrong.
    fn check(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut new = Additions::default();
        for write in &batch.writes {
            match write {
                Write::InsertJob { job, entries, idempotency } => {
                    let key = job.id.key();
                    if self.jobs.contains_key(&key) || !new.jobs.insert(key) {
                        return Err(fault(format!("job {} is there already", job.id)));
                    }
                    if let Some(name) = idempotency.as_ref().map(|key| (key.client.clone(), key.key.clone()))
                        && (self.idempotency.contains_key(&name) || !new.idempotency.insert(name))
                    {
                        return Err(fault("an idempotency key is there already".into()));
                    }
                    self.check_entries(job, entries, &mut new)?;
                }
                Write::UpdateJob { job, entries } => {
                    let known = self.jobs.get(&job.id.key()).is_some_and(|known| known.id == job.id);
                    if !known && !new.jobs.contains(&job.id.key()) {
                        return Err(fault(format!("job {} is not there", job.id)));
                    }
                    self.check_entries(job, entries, &mut new)?;
                }
                Write::PutBlueprint(blueprint) => {
                    let name = (blueprint.name.clone(), blueprint.version);
                    if self.blueprints.contains_key(&name) || !new.blueprints.insert(name) {
                        return Err(fault("a version of a blueprint is there already".into()));
                    }
                }
                Write::PutSession(_) | Write::RemoveSession(_) => {}
            }
        }
        Ok(())
    }

    fn check_entries(
        &self,
        job: &Job,
        entries: &[HistoryEntry],
        new: &mut Additions,
    ) -> Result<(), StoreError> {
        for entry in entries {
            let place = (job.id.key(), entry.sequence);
            if self.history.contains_key(&place) || !new.history.insert(place) {
                return Err(fault(format!("entry {} of job {} is there already", entry.sequence, job.id)));
            }
        }
        Ok(())
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::InsertJob { job, entries, idempotency } => {
                if let Some(key) = idempotency {
                    let name = (key.client.clone(), key.key.clone());
                    self.idempotency.insert(name, (job.id, key.fingerprint));
                }
                self.put_job(job, entries);
            }
            Write::UpdateJob { job, entries } => self.put_job(job, entries),
            Write::PutSession(session) => {
                self.sessions.insert(session.session_id, session.clone());
            }
            Write::RemoveSession(id) => {
                self.sessions.remove(id);
            }
            Write::PutBlueprint(blueprint) => {
                self.blueprints.insert((blueprint.name.clone(), blueprint.version), blueprint.clone());
            }
        }
    }

    fn put_job(&mut self, job: &Arc<Job>, entries: &[HistoryEntry]) {
        let key = job.id.key();
        self.jobs.insert(key, Arc::clone(job));
        self.history.extend(entries.iter().map(|entry| ((key, entry.sequence), entry.clone())));
    }

    fn job(&self, id: JobId) -> Option<&Arc<Job>> {
        self.jobs.get(&id.key()).filter(|job| job.id == id)
    }
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

    fn list(&self, query: &ListQuery) -> Result<ListPage, StoreError> {
        let state = self.state();
        let mut listing = Listing::new(query);
        let keys = listing.keys();
        if keys.is_empty() {
            return Ok(listing.finish());
        }
        for (&key, job) in state.jobs.range(keys).rev().filter(|(_, job)| job.client == query.client) {
            if listing.reach(key).is_break() {
                break;
            }
            if listing.wants(job.status, &job.blueprint)
                && listing.wants_origin(job.created_at, &job.submission)
                && listing.take(Job::clone(job)) == ControlFlow::Break(())
            {
                break;
            }
        }
        Ok(listing.finish())
    }

    fn history(&self, id: JobId, from_sequence: u64, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        let state = self.state();
        if state.job(id).is_none() {
            return Ok(Vec::new());
        }
        let entries = state.history.range((id.key(), from_sequence)..=(id.key(), u64::MAX));
        Ok(entries.take(limit).map(|(_, entry)| entry.clone()).collect())
    }

    fn find_idempotent(&self, client: &str, key: &str) -> Result<Option<(JobId, [u8; 32])>, StoreError> {
        Ok(self.state().idempotency.get(&(client.into(), key.into())).copied())
    }

    fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        let mut sessions: Vec<SessionRecord> = self.state().sessions.values().cloned().collect();
        sessions.sort_by_key(|session| (session.opened_at, session.session_id));
        Ok(sessions)
    }

    fn blueprints(&self) -> Result<Vec<BlueprintRecord>, StoreError> {
        Ok(self.state().blueprints.values().cloned().collect())
    }
}
