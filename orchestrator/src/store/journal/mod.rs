//! A journal in front of a store: commits become durable in one small write, and reach the store behind it later, in bulk.
//!
//! The store behind keeps jobs where they can be found: many pages change with every commit, and each costs a write. The
//! journal keeps what happened in the order in which it happened: one write and one sync of a few blocks, whatever the batch
//! touches. So a batch is durable when it is in the journal. A thread of its own (`applier`) then moves what has gathered
//! to the store behind, one write for each job however often it changed, in one transaction that also says up to which
//! frame it reaches. After a crash the frames behind that one are applied again.
//!
//! It promises what [`Store`] promises; reads look at what is still on its way (`pending`) and then at the store behind.
//! What is rare (sessions, blueprints) or large takes the direct way. It refuses to know how the store behind works.

mod applier;
mod frame;
mod pending;
mod ring;
mod seen;
#[doc(hidden)]
pub mod torn;

use std::{
    collections::{BTreeMap, HashSet},
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use avtomatika_proto::JobId;

use self::{
    frame::Encoder,
    pending::{News, Pending},
    ring::{Appended, Found, Ring},
    seen::Seen,
};
use super::{
    Batch, BlueprintRecord, BucketRecord, EachLoaded, ListPage, ListQuery, NoticeRecord, PruneQuery,
    PruneSlice, ScheduleRecord, SessionRecord, Standing, Store, StoreError, StoreMeasures, Stub, UsageRecord,
    Write, files, listing::Listing, sqlite::SqliteStore,
};
use crate::{
    engine::{HistoryEntry, Job},
    hash::FastMap,
};

/// Name of the journal in the data directory.
pub const FILE_NAME: &str = "avtomatika.journal";

/// Largest size of the journal: half a second of the fastest submission that was measured, so that the store behind may be late
/// without anybody waiting.
const CAPACITY_BYTES: u64 = 16 * 1024 * 1024;

/// Body of a frame above which a batch takes the direct way: large payloads need not be written twice.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// When what has gathered is moved on, whichever comes first. Longer, and more of the jobs have ended before they are written
/// for the first time; shorter, and there is less to apply again after a crash.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// This old.
    pub age: Duration,
    /// This large, in bytes of the journal.
    pub bytes: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { age: Duration::from_millis(100), bytes: 4 * 1024 * 1024 }
    }
}

/// Opens the store of an orchestrator in `dir`, or creates it: SQLite behind a journal.
///
/// # Errors
/// As [`SqliteStore::open`]; [`StoreError::Corrupt`] also when a synced frame of the journal is missing.
pub fn open(dir: &Path) -> Result<JournaledStore<SqliteStore>, StoreError> {
    JournaledStore::open(SqliteStore::open(dir)?, dir, Pace::default())
}

/// A store behind a journal.
#[derive(Debug)]
pub struct JournaledStore<S: Store> {
    shared: Arc<Shared<S>>,
    writer: Mutex<Writer>,
    applier: Option<JoinHandle<()>>,
}

/// What the committing side and the applying side share.
#[derive(Debug)]
struct Shared<S> {
    behind: S,
    pace: Pace,
    path: PathBuf,
    state: Mutex<State>,
    /// Something in the state is different.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Durable in the journal, and waiting.
    gathering: Pending,
    /// On its way to the store behind.
    applying: Option<Arc<Pending>>,
    /// What readers found in the store behind, and no commit has touched since.
    seen: Seen,
    /// The last frame that has been applied: the journal is free up to its end.
    applied: Option<Appended>,
    /// Somebody waits for everything to be applied.
    hurry: bool,
    /// The store behind has no room; it is tried again.
    is_blocked: bool,
    /// The store is about to be dropped.
    is_closing: bool,
    /// Why nothing is applied any more.
    failed: Option<String>,
}

/// The committing side.
#[derive(Debug)]
struct Writer {
    ring: Ring,
    encoder: Encoder,
    /// The largest key of any job: a job with a larger one is new.
    last_job_key: i64,
    /// Why no further commit is tried.
    failed: Option<String>,
}

impl<S: Store> JournaledStore<S> {
    /// Puts a journal in `dir` before the store; what the journal holds and the store does not is applied first.
    ///
    /// # Errors
    /// When the journal cannot be used or is damaged, or the store behind cannot be written.
    pub fn open(behind: S, dir: &Path, pace: Pace) -> Result<Self, StoreError> {
        let path = dir.join(FILE_NAME);
        let (ring, found) = Ring::open(&path, CAPACITY_BYTES, behind.journal_applied()?)?;
        replay(&behind, &path, found)?;
        let last_job_key = behind.last_job_key()?.unwrap_or(i64::MIN);
        let state = Mutex::default();
        let shared = Arc::new(Shared { behind, pace, path, state, changed: Condvar::new() });
        let applier = applier::start(shared.clone())?;
        let writer = Writer { ring, encoder: Encoder::default(), last_job_key, failed: None };
        Ok(Self { shared, writer: Mutex::new(writer), applier: Some(applier) })
    }

    /// The store behind the journal, which may lag.
    #[doc(hidden)]
    pub fn behind(&self) -> &S {
        &self.shared.behind
    }

    /// Returns when everything that was committed is in the store behind.
    ///
    /// # Errors
    /// [`StoreError::Full`] when that has no room, [`StoreError::Failed`] when it has failed.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.shared.flush()
    }
}

/// Applies frames that a crash left behind.
fn replay<S: Store>(behind: &S, path: &Path, found: Found) -> Result<(), StoreError> {
    let mut pending = Pending::default();
    for (sequence, body) in (found.first_sequence..).zip(&found.bodies) {
        let known = |id| match pending.job(id) {
            Some(News::Changed(pending)) => Ok(Some(pending.job.clone())),
            Some(News::Removed) => Ok(None),
            None => behind.load(id).map(|job| job.map(Arc::new)),
        };
        let batch = frame::decode(body, known)?
            .map_err(|damaged| StoreError::Corrupt { path: path.to_owned(), reason: damaged.to_string() })?;
        pending.add(&batch, Appended { sequence, end: 0 }, body.len());
    }
    if !pending.is_empty() {
        tracing::info!("Applied {} batches of the journal that a crash had left there", found.bodies.len());
        behind.commit(&pending.to_batch())?;
    }
    Ok(())
}

impl<S: Store> JournaledStore<S> {
    fn commit_with(&self, writer: &mut Writer, batch: &Batch) -> Result<(), StoreError> {
        if !frame::is_for_journal(batch) || !self.is_lawful(writer, batch)? {
            return self.commit_directly(batch);
        }
        let Writer { ring, encoder, .. } = writer;
        let body = encoder.encode(batch);
        if body.len() > BODY_BYTES_MAX || !ring.is_large_enough_for(body.len()) {
            return self.commit_directly(batch);
        }
        self.shared.wait_for_room(ring, body.len())?;
        match ring.append(body) {
            Ok(appended) => {
                self.shared.gather(batch, appended, body.len());
                Ok(())
            }
            Err(error) => {
                if !matches!(error, StoreError::Full { .. }) {
                    // What is durable now is unknown.
                    writer.failed = Some(error.to_string());
                }
                Err(error)
            }
        }
    }

    /// For what is rare, large or doubtful: everything before it is applied, and then the store behind judges the batch.
    fn commit_directly(&self, batch: &Batch) -> Result<(), StoreError> {
        self.shared.flush()?;
        self.shared.behind.commit(batch)?;
        self.shared.state().seen.touch(batch);
        Ok(())
    }

    /// Whether the store behind is sure to take this batch: once it is in the journal, it is acknowledged.
    fn is_lawful(&self, writer: &Writer, batch: &Batch) -> Result<bool, StoreError> {
        let mut last_key = writer.last_job_key;
        let mut names = HashSet::new();
        // Entries in the histories of the jobs that this batch has touched so far.
        let mut lens: FastMap<JobId, u64> = FastMap::default();
        for write in &batch.writes {
            let (job, entries, before) = match write {
                Write::InsertJob { job, entries, idempotency } => {
                    // A child's key was promised before those of jobs that came earlier than it.
                    let key = job.id.key();
                    if key <= last_key
                        && (lens.contains_key(&job.id) || self.last_key_between(key..key + 1)?.is_some())
                    {
                        return Ok(false);
                    }
                    if let Some(key) = idempotency
                        && (!names.insert((&key.client, &key.key))
                            || self.find_idempotent(&key.client, &key.key)?.is_some())
                    {
                        return Ok(false);
                    }
                    last_key = last_key.max(key);
                    (job, entries, Some(0))
                }
                Write::UpdateJob { job, entries } => {
                    let before = match lens.get(&job.id) {
                        Some(len) => Some(*len),
                        None => self.known_standing(job.id)?.map(|standing| standing.history_len),
                    };
                    (job, entries, before)
                }
                Write::RemoveJob(removal) => {
                    let standing = self.known_standing(removal.job_id)?;
                    let has_ended = standing.is_some_and(|standing| standing.status.is_terminal());
                    if !has_ended || lens.contains_key(&removal.job_id) {
                        return Ok(false);
                    }
                    continue;
                }
                Write::PutSchedule(_)
                | Write::PutBucket(_)
                | Write::ForgetBuckets(_)
                | Write::PutUsage(_) => continue,
                // Whatever the store behind has of the job, it takes them.
                Write::PutNotice(_) => continue,
                _ => return Ok(false),
            };
            let Some(before) = before else { return Ok(false) };
            if entries.first().is_some_and(|entry| entry.sequence < before) {
                return Ok(false);
            }
            lens.insert(job.id, entries.last().map_or(before, |entry| entry.sequence + 1));
        }
        Ok(true)
    }

    /// Calls `each` for these jobs, which have this news or none, and notes how far those had come that have none and are open: one that
    /// has ended is hardly ever touched again, and would be remembered for as long as it is kept.
    fn load_each(
        &self,
        news: &[(JobId, Option<Option<Arc<Job>>>)],
        found: &mut Vec<(JobId, Standing)>,
        each: EachLoaded<'_>,
    ) -> Result<(), StoreError> {
        // In their order: those with news one by one, those between them in one go.
        for run in news.chunk_by(|(_, one), (_, next)| one.is_none() && next.is_none()) {
            let mut flow = ControlFlow::Continue(());
            match run {
                [(id, Some(job))] => flow = each(*id, job.clone().map(Arc::unwrap_or_clone)),
                _ => {
                    let ids: Vec<JobId> = run.iter().map(|(id, _)| *id).collect();
                    self.shared.behind.load_many(&ids, &mut |id, job| {
                        let open = job.as_ref().filter(|job| !job.status.is_terminal());
                        found.extend(open.map(|job| (id, Standing::of(job))));
                        flow = each(id, job);
                        flow
                    })?;
                }
            }
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// [`Store::standing`], from memory if somebody has read the job since it was last touched.
    fn known_standing(&self, id: JobId) -> Result<Option<Standing>, StoreError> {
        let seen = self.shared.state().seen.standing(id);
        if seen.is_some() { Ok(seen) } else { self.standing(id) }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A commit that panicked may have left anything: the next one finds that it failed.
        self.writer.lock().unwrap_or_else(|poisoned| {
            let mut writer = poisoned.into_inner();
            writer.failed.get_or_insert_with(|| "a commit has panicked".to_owned());
            writer
        })
    }
}

impl<S> Shared<S> {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is whole before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the journal has room for this frame. Without a store behind that takes anything, there will be none.
    fn wait_for_room(&self, ring: &mut Ring, body_len: usize) -> Result<(), StoreError> {
        let mut state = self.state();
        loop {
            state.check()?;
            ring.release(state.applied.map_or(0, |frame| frame.end));
            if ring.has_room_for(body_len) {
                return Ok(());
            }
            state = self.hurry(state)?;
        }
    }

    /// Waits until everything that has gathered so far is applied; what others commit meanwhile is not waited for.
    fn flush(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        let last = state.newest(|pending| pending.last).map(|frame| frame.sequence);
        while last > state.applied.map(|frame| frame.sequence) {
            state.check()?;
            state = self.hurry(state)?;
        }
        state.check()
    }

    /// Waits for something to change, and has the applier not wait for more. [`StoreError::Full`] when it cannot go on.
    fn hurry<'s>(&self, mut state: MutexGuard<'s, State>) -> Result<MutexGuard<'s, State>, StoreError> {
        if state.is_blocked {
            return Err(StoreError::Full { path: self.path.clone() });
        }
        state.hurry = true;
        self.changed.notify_all();
        Ok(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds a batch that is durable in the journal.
    fn gather(&self, batch: &Batch, appended: Appended, bytes: usize) {
        let mut state = self.state();
        let before = state.gathering.bytes;
        state.gathering.add(batch, appended, bytes);
        state.seen.touch(batch);
        // The applier sleeps until there is something, and then until it is enough.
        if before == 0 || (before < self.pace.bytes && before + bytes >= self.pace.bytes) {
            self.changed.notify_all();
        }
    }

    /// The newest of what is on its way.
    fn newest<T>(&self, look: impl Fn(&Pending) -> Option<T>) -> Option<T> {
        self.state().newest(look)
    }

    /// What is on its way, the newer first. A reader takes it before it reads the store behind: what leaves it meanwhile has
    /// arrived there.
    fn on_its_way<T>(&self, look: impl Fn(&Pending) -> Option<T>) -> Vec<T> {
        let state = self.state();
        let applying = state.applying.as_deref();
        [Some(&state.gathering), applying].into_iter().flatten().filter_map(look).collect()
    }
}

impl State {
    fn newest<T>(&self, look: impl Fn(&Pending) -> Option<T>) -> Option<T> {
        look(&self.gathering).or_else(|| self.applying.as_deref().and_then(look))
    }

    fn check(&self) -> Result<(), StoreError> {
        check_failed(self.failed.as_deref())
    }
}

/// Refuses to go on after a failure.
fn check_failed(reason: Option<&str>) -> Result<(), StoreError> {
    match reason {
        None => Ok(()),
        Some(reason) => Err(StoreError::Failed { reason: format!("an earlier commit failed: {reason}") }),
    }
}

impl<S: Store> Store for JournaledStore<S> {
    fn name(&self) -> &'static str {
        self.shared.behind.name()
    }

    fn measures(&self) -> StoreMeasures {
        let pending = self.shared.on_its_way(|pending| Some(pending.bytes as u64)).into_iter().sum();
        StoreMeasures {
            journal_bytes: files::len(&self.shared.path).ok().flatten().unwrap_or(0),
            journal_pending_bytes: pending,
            journal_capacity_bytes: CAPACITY_BYTES,
            ..self.shared.behind.measures()
        }
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut writer = self.writer();
        check_failed(writer.failed.as_deref())?;
        self.shared.state().check()?;
        if batch.writes.is_empty() {
            return Ok(());
        }
        let outcome = self.commit_with(&mut writer, batch);
        if outcome.is_ok() {
            let inserted = batch.writes.iter().filter_map(inserted_key);
            writer.last_job_key = inserted.fold(writer.last_job_key, i64::max);
        }
        outcome
    }

    fn load(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        match self.shared.newest(|pending| pending.job(id).map(|news| news.job().cloned())) {
            Some(job) => Ok(job.map(Arc::unwrap_or_clone)),
            None => self.shared.behind.load(id),
        }
    }

    fn load_many(&self, ids: &[JobId], each: EachLoaded<'_>) -> Result<(), StoreError> {
        let news: Vec<(JobId, Option<Option<Arc<Job>>>)> = {
            let mut state = self.shared.state();
            state.seen.begin_reading();
            let newest = |id| state.newest(|pending| pending.job(id).map(|news| news.job().cloned()));
            ids.iter().map(|&id| (id, newest(id))).collect()
        };
        let mut found = Vec::with_capacity(ids.len());
        let outcome = self.load_each(&news, &mut found, each);
        self.shared.state().seen.end_reading(found);
        outcome
    }

    fn open_jobs(&self, each: &mut dyn FnMut(Stub)) -> Result<(), StoreError> {
        let (news, removed) = self.news();
        let mut news = news.into_values().peekable();
        let tell = |each: &mut dyn FnMut(Stub), job: &Job| Stub::of(job).into_iter().for_each(each);
        self.shared.behind.open_jobs(&mut |stub| {
            while let Some(new) = news.next_if(|new| new.id.key() < stub.id.key()) {
                tell(each, &new);
            }
            match news.next_if(|new| new.id == stub.id) {
                Some(new) if new.history_len >= stub.history_len => tell(each, &new),
                // Its end and its removal are both on their way.
                _ if removed.contains(&stub.id) => {}
                _ => each(stub),
            }
        })?;
        news.for_each(|new| tell(each, &new));
        Ok(())
    }

    fn last_job_key(&self) -> Result<Option<i64>, StoreError> {
        let on_its_way = self.shared.on_its_way(|pending| pending.jobs().keys().next_back().copied());
        Ok(self.shared.behind.last_job_key()?.into_iter().chain(on_its_way).max())
    }

    fn last_key_between(&self, keys: Range<i64>) -> Result<Option<i64>, StoreError> {
        let on_its_way = self
            .shared
            .on_its_way(|pending| pending.jobs().range(keys.clone()).next_back().map(|(key, _)| *key));
        Ok(self.shared.behind.last_key_between(keys)?.into_iter().chain(on_its_way).max())
    }

    fn list(&self, query: &ListQuery) -> Result<ListPage, StoreError> {
        let (mut news, removed) = self.news();
        let page = self.shared.behind.list(query)?;
        let mut listing = Listing::new(query);
        // What the page behind has not reached is for the next one.
        let mut keys = listing.keys();
        keys.start = keys.start.max(page.next_below_key.unwrap_or(i64::MIN));
        news.retain(|key, job| keys.contains(key) && job.client == query.client);
        for job in page.jobs.into_iter().filter(|job| !removed.contains(&job.id)) {
            let is_newer = |news: &Arc<Job>| news.history_len >= job.history_len;
            if !news.get(&job.id.key()).is_some_and(is_newer) {
                news.insert(job.id.key(), Arc::new(job));
            }
        }
        if news.into_values().rev().try_for_each(|job| listing.look_at(job)).is_break() {
            return Ok(listing.finish());
        }
        Ok(ListPage { next_below_key: page.next_below_key, ..listing.finish() })
    }

    fn history(&self, id: JobId, from_sequence: u64, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        let news = self.shared.on_its_way(|pending| {
            pending.job(id).map(|news| match news {
                News::Changed(pending) => Some(pending.entries.clone()),
                News::Removed => None,
            })
        });
        let mut entries = self.shared.behind.history(id, from_sequence, limit)?;
        for news in news.into_iter().rev() {
            let Some(news) = news else { return Ok(Vec::new()) };
            for entry in news {
                let next = entries.last().map_or(from_sequence, |last| last.sequence + 1);
                if entry.sequence >= next && entries.len() < limit {
                    entries.push(entry);
                }
            }
        }
        Ok(entries)
    }

    fn standing(&self, id: JobId) -> Result<Option<Standing>, StoreError> {
        let standing = |news: News<'_>| news.job().map(|job| Standing::of(job));
        match self.shared.newest(|pending| pending.job(id).map(standing)) {
            Some(standing) => Ok(standing),
            None => self.shared.behind.standing(id),
        }
    }

    fn find_idempotent(&self, client: &str, key: &str) -> Result<Option<(JobId, [u8; 32])>, StoreError> {
        match self.shared.newest(|pending| pending.find_idempotent(client, key)) {
            Some(found) => Ok(found),
            None => self.shared.behind.find_idempotent(client, key),
        }
    }

    fn prunable(&self, query: &PruneQuery) -> Result<PruneSlice, StoreError> {
        // What the walk removes on its way lies behind it. So it is enough that it begins with everything that was committed, and
        // what has gathered since may go on gathering.
        if query.above_key == PruneQuery::FROM_THE_OLDEST {
            self.shared.flush()?;
        }
        self.shared.state().seen.begin_reading();
        let outcome = self.shared.behind.prunable(query);
        let slice = outcome.as_ref().ok();
        let found = slice.into_iter().flat_map(|slice| slice.removals.iter().zip(&slice.standings));
        let found = found.map(|(removal, standing)| (removal.job_id, *standing));
        self.shared.state().seen.end_reading(found);
        outcome
    }

    fn notices(&self, id: JobId) -> Result<Vec<NoticeRecord>, StoreError> {
        if self.standing(id)?.is_none() {
            return Ok(Vec::new());
        }
        let range = (id.key(), 0)..=(id.key(), u64::MAX);
        let news = self.shared.on_its_way(|pending| {
            Some(pending.notices().range(range.clone()).map(|(_, notice)| notice.clone()).collect::<Vec<_>>())
        });
        let stored = self.shared.behind.notices(id)?;
        let mut notices: BTreeMap<u64, NoticeRecord> =
            stored.into_iter().map(|notice| (notice.id.sequence, notice)).collect();
        // The older news first. What has arrived behind meanwhile may be newer than they are.
        for new in news.into_iter().rev().flatten().filter(|new| new.id.job_id == id) {
            let known = notices.get(&new.id.sequence);
            if known.is_none_or(|known| known.revision <= new.revision) {
                notices.insert(new.id.sequence, Arc::unwrap_or_clone(new));
            }
        }
        Ok(notices.into_values().collect())
    }

    fn pending_notices(&self, each: &mut dyn FnMut(NoticeRecord)) -> Result<(), StoreError> {
        // Asked for once, at the start, when nothing is on its way.
        self.shared.flush()?;
        self.shared.behind.pending_notices(each)
    }

    fn ended_total(&self) -> Result<u64, StoreError> {
        // As above.
        self.shared.flush()?;
        self.shared.behind.ended_total()
    }

    fn sessions(&self) -> Result<Vec<SessionRecord>, StoreError> {
        self.shared.behind.sessions()
    }

    fn blueprints(&self) -> Result<Vec<BlueprintRecord>, StoreError> {
        self.shared.behind.blueprints()
    }

    fn schedules(&self) -> Result<Vec<ScheduleRecord>, StoreError> {
        let news = self.shared.on_its_way(|pending| Some(pending.schedules().clone()));
        let stored = self.shared.behind.schedules()?;
        let mut schedules: BTreeMap<_, _> =
            stored.into_iter().map(|schedule| (schedule.name.clone(), schedule)).collect();
        news.into_iter().rev().for_each(|news| schedules.extend(news));
        Ok(schedules.into_values().collect())
    }

    fn buckets(&self) -> Result<Vec<BucketRecord>, StoreError> {
        let news = self.shared.on_its_way(|pending| {
            let (buckets, forgotten) = pending.buckets();
            Some((buckets.clone(), forgotten))
        });
        let stored = self.shared.behind.buckets()?;
        let mut buckets: BTreeMap<_, _> =
            stored.into_iter().map(|bucket| ((bucket.key.clone(), bucket.per), bucket)).collect();
        for (news, forgotten) in news.into_iter().rev() {
            buckets.retain(|_, bucket| forgotten.is_none_or(|full_by| bucket.full_at > full_by));
            buckets.extend(news);
        }
        Ok(buckets.into_values().collect())
    }

    fn usage(&self) -> Result<Vec<UsageRecord>, StoreError> {
        let news = self.shared.on_its_way(|pending| Some(pending.usage().clone()));
        let stored = self.shared.behind.usage()?;
        let mut records: BTreeMap<_, _> =
            stored.into_iter().map(|usage| (usage.client.clone(), usage)).collect();
        news.into_iter().rev().for_each(|news| records.extend(news));
        Ok(records.into_values().collect())
    }

    fn journal_applied(&self) -> Result<u64, StoreError> {
        self.shared.behind.journal_applied()
    }
}

impl<S: Store> JournaledStore<S> {
    /// Every job that is on its way, as last committed, by key; and the ones that are gone.
    fn news(&self) -> (BTreeMap<i64, Arc<Job>>, HashSet<JobId>) {
        let state = self.shared.state();
        let (mut jobs, mut removed) = (BTreeMap::new(), HashSet::new());
        for pending in [state.applying.as_deref(), Some(&state.gathering)].into_iter().flatten() {
            jobs.extend(pending.jobs().iter().map(|(&key, pending)| (key, pending.job.clone())));
            pending.removed().for_each(|id| {
                jobs.remove(&id.key());
            });
            removed.extend(pending.removed());
        }
        (jobs, removed)
    }
}

impl<S: Store> Drop for JournaledStore<S> {
    fn drop(&mut self) {
        self.shared.state().is_closing = true;
        self.shared.changed.notify_all();
        if let Some(applier) = self.applier.take() {
            // Should it have panicked: the journal holds what it has not applied.
            let _ = applier.join();
        }
    }
}

fn inserted_key(write: &Write) -> Option<i64> {
    match write {
        Write::InsertJob { job, .. } => Some(job.id.key()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::JobStatus, store::conformance::Samples, time::Timestamp};

    #[test]
    fn of_jobs_that_have_ended_only_those_are_remembered_that_are_about_to_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        let mut samples = Samples::new(1);
        let (open, other) = (samples.job("acme"), samples.job("acme"));
        let ended = samples.moved(&other, JobStatus::Finished);
        let writes = vec![samples.insert(&open), samples.insert(&other), samples.update(&ended)];
        store.commit(&Batch { writes }).unwrap();
        store.flush().unwrap();
        let known = || [&open, &ended].map(|job| store.shared.state().seen.standing(job.id));

        store.load_many(&[open.id, ended.id], &mut |_, _| ControlFlow::Continue(())).unwrap();
        assert_eq!(known(), [Some(Standing::of(&open)), None]);
        let (above_key, ended_by) = (PruneQuery::FROM_THE_OLDEST, Timestamp::from_micros(i64::MAX));
        let slice = store.prunable(&PruneQuery { above_key, ended_by, limit: 1 }).unwrap();
        assert_eq!(known(), [Some(Standing::of(&open)), Some(Standing::of(&ended))]);
        store.commit(&Batch { writes: slice.removals.into_iter().map(Write::RemoveJob).collect() }).unwrap();
        assert_eq!(known(), [Some(Standing::of(&open)), None]);
    }
}
