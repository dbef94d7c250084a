//! The open jobs, as decided: a cache of the store that runs a batch ahead of it.
//!
//! It knows every job that is not terminal, and terminal ones until their end is committed. Each is *resident*, which means
//! whole, or *resting*: its last change is durable, it stays in the store until it is needed, and the book keeps its name, its
//! version and its timer. When a commit fails, the jobs of the failed batches are put back to what they were: memory never
//! stays ahead of a store that did not follow. It refuses to know where it would read a job again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use avtomatika_proto::JobId;

use crate::{
    engine::{Job, JobStatus},
    museum::{Mistake, plants},
    store::Stub,
    time::Timestamp,
};

/// The open jobs, their timers and their counts.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// A tree and not a table: it grows a page at a time, and never pauses to be built anew.
    jobs: BTreeMap<i64, Entry>,
    timers: BTreeSet<(Timestamp, i64)>,
    open: BTreeMap<JobStatus, u64>,
    open_total: usize,
    /// Of each client that has some.
    open_of: HashMap<Arc<str>, usize>,
    resident_bytes: usize,
    resting_total: usize,
}

/// A job of the book. There may be a million of them, hence every word counts.
#[derive(Debug)]
pub(super) struct Entry {
    kept: Kept,
    /// For when its timer was armed last, or [`NEVER`].
    armed: Timestamp,
}

#[derive(Debug)]
enum Kept {
    Resident(Arc<Job>),
    Resting { id: JobId, version: Version, status: JobStatus },
}

/// Which of a job's changes came last. Tells a job from what it was a moment ago, for which the low half of the length of its
/// history is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version(u32);

/// A timer that is not armed.
const NEVER: Timestamp = Timestamp::from_micros(i64::MAX);

/// What a resident job takes beside its payload: the job, its submission, its offer, and their names and labels.
const JOB_BYTES: usize = 1024;

impl Version {
    /// The version of this job.
    pub fn of(job: &Job) -> Self {
        Self::from_history_len(job.history_len)
    }

    fn from_history_len(history_len: u64) -> Self {
        Self(history_len as u32)
    }
}

impl Entry {
    fn is_open(&self) -> bool {
        !self.kept.status().is_terminal()
    }
}

impl Kept {
    fn id(&self) -> JobId {
        match self {
            Self::Resident(job) => job.id,
            Self::Resting { id, .. } => *id,
        }
    }

    fn status(&self) -> JobStatus {
        match self {
            Self::Resident(job) => job.status,
            Self::Resting { status, .. } => *status,
        }
    }

    fn rests(&self) -> usize {
        usize::from(matches!(self, Self::Resting { .. }))
    }

    /// Bytes that it takes because it is resident.
    fn bytes(&self) -> usize {
        match self {
            Self::Resident(job) => bytes_of(job),
            Self::Resting { .. } => 0,
        }
    }
}

/// About how much memory a job takes.
pub(super) fn bytes_of(job: &Job) -> usize {
    let result = job.result.as_ref().map_or(0, |result| result.as_str().len());
    let checkpoint = job.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.as_str().len());
    let history = job.state_history.as_str().len();
    JOB_BYTES + job.submission.initial_data.as_str().len() + history + result + checkpoint
}

impl Book {
    /// The job as last decided, if it is resident.
    pub fn resident(&self, id: JobId) -> Option<&Arc<Job>> {
        match self.entry(id)? {
            Kept::Resident(job) => Some(job),
            Kept::Resting { .. } => None,
        }
    }

    /// Whether the job is here, resident or resting.
    pub fn contains(&self, id: JobId) -> bool {
        self.entry(id).is_some()
    }

    /// The job with this key as last decided, if it is resident.
    pub fn resident_with(&self, key: i64) -> Option<&Arc<Job>> {
        match &self.jobs.get(&key)?.kept {
            Kept::Resident(job) => Some(job),
            Kept::Resting { .. } => None,
        }
    }

    /// The resting job with this key, and the version that rests.
    pub fn resting(&self, key: i64) -> Option<(JobId, Version)> {
        match self.jobs.get(&key)?.kept {
            Kept::Resting { id, version, .. } => Some((id, version)),
            Kept::Resident(_) => None,
        }
    }

    /// Which change of the job was the last, and for when its timer is armed.
    pub fn standing(&self, id: JobId) -> Option<(Version, Option<Timestamp>)> {
        let entry = self.jobs.get(&id.key()).filter(|entry| entry.kept.id() == id)?;
        let version = match &entry.kept {
            Kept::Resident(job) => Version::of(job),
            Kept::Resting { version, .. } => *version,
        };
        let is_armed = self.timers.contains(&(entry.armed, id.key()));
        Some((version, is_armed.then_some(entry.armed)))
    }

    /// The jobs with keys in this range that are not terminal.
    pub fn open_between(&self, keys: std::ops::Range<i64>) -> impl Iterator<Item = JobId> {
        let open = self.jobs.range(keys).filter(|(_, entry)| !entry.kept.status().is_terminal());
        open.map(|(_, entry)| entry.kept.id())
    }

    /// Jobs that are not terminal.
    pub fn open_total(&self) -> usize {
        self.open_total
    }

    /// Jobs that are not terminal, by status.
    pub fn open_counts(&self) -> &BTreeMap<JobStatus, u64> {
        &self.open
    }

    /// Jobs of this client that are not terminal.
    pub fn open_of(&self, client: &str) -> usize {
        self.open_of.get(client).copied().unwrap_or(0)
    }

    /// Jobs that rest in the store.
    pub fn resting_total(&self) -> usize {
        self.resting_total
    }

    /// About how much memory the resident jobs take.
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// Records what was decided, and arms the job's timer. Returns what was here before.
    pub fn put(&mut self, job: Arc<Job>) -> Option<Entry> {
        let key = job.id.key();
        let before = self.take(key);
        let armed = job.first_due().unwrap_or(NEVER);
        self.change_of(&job.client, before.as_ref(), !job.status.is_terminal());
        self.insert(key, Entry { kept: Kept::Resident(job), armed });
        before
    }

    /// Takes a job from before a restart. It rests.
    pub fn restore(&mut self, stub: &Stub) {
        let version = Version::from_history_len(stub.history_len);
        let kept = Kept::Resting { id: stub.id, version, status: stub.status };
        self.change_of(&stub.client, None, !stub.status.is_terminal());
        self.insert(stub.id.key(), Entry { kept, armed: stub.next_due.unwrap_or(NEVER) });
    }

    /// Puts a job back to what it was before a decision that did not become durable.
    pub fn roll_back(&mut self, id: JobId, before: Option<Entry>) {
        let key = id.key();
        let undone = self.take(key);
        // What has been decided is resident until it is durable.
        if let Some(Entry { kept: Kept::Resident(job), .. }) = &undone {
            let is_open = before.as_ref().is_some_and(Entry::is_open);
            self.change_of(&job.client.clone(), undone.as_ref(), is_open);
        }
        if let Some(entry) = before {
            self.insert(key, entry);
        }
    }

    /// Lets a job rest whose last change is durable: this one. Returns whether it now rests.
    pub fn rest(&mut self, job: &Arc<Job>) -> bool {
        if !self.is_latest(job) {
            return false;
        }
        let kept = Kept::Resting { id: job.id, version: Version::of(job), status: job.status };
        self.keep(job.id.key(), kept);
        true
    }

    /// Makes a resting job resident again. It is as it was when it was laid to rest: nothing else has changed it.
    pub fn bring_back(&mut self, job: Arc<Job>) {
        let key = job.id.key();
        if self.resting(key) == Some((job.id, Version::of(&job))) || plants(Mistake::OldVersionBroughtBack) {
            self.keep(key, Kept::Resident(job));
        }
    }

    /// The job's end is durable: it is looked up in the store from now on.
    pub fn close(&mut self, job: &Arc<Job>) {
        if self.is_latest(job) {
            self.take(job.id.key());
        }
    }

    /// When the next timer is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Takes a job whose timer is due. Its next timer is armed by the decision that follows, or by [`Book::rearm`].
    pub fn pop_due(&mut self, now: Timestamp) -> Option<JobId> {
        let &(due, key) = self.timers.first()?;
        if due > now {
            return None;
        }
        self.timers.pop_first();
        // What its timer was armed for stays written there, to be armed again if the decision has to be undone.
        self.jobs.get(&key).map(|entry| entry.kept.id())
    }

    /// Nothing followed from the job's timer: arms the next one.
    pub fn rearm(&mut self, id: JobId, due: Option<Timestamp>) {
        if let Some(entry) = self.jobs.get_mut(&id.key()) {
            entry.armed = due.unwrap_or(NEVER);
            self.timers.extend(due.map(|due| (due, id.key())));
        }
    }

    fn entry(&self, id: JobId) -> Option<&Kept> {
        self.jobs.get(&id.key()).map(|entry| &entry.kept).filter(|kept| kept.id() == id)
    }

    /// Whether this is the job as last decided.
    fn is_latest(&self, job: &Arc<Job>) -> bool {
        self.resident(job.id).is_some_and(|latest| Arc::ptr_eq(latest, job))
    }

    fn keep(&mut self, key: i64, kept: Kept) {
        if let Some(entry) = self.jobs.get_mut(&key) {
            self.resident_bytes = self.resident_bytes + kept.bytes() - entry.kept.bytes();
            self.resting_total = self.resting_total + kept.rests() - entry.kept.rests();
            entry.kept = kept;
        }
    }

    fn insert(&mut self, key: i64, entry: Entry) {
        self.count(entry.kept.status(), true);
        self.resident_bytes += entry.kept.bytes();
        self.resting_total += entry.kept.rests();
        if entry.armed != NEVER {
            self.timers.insert((entry.armed, key));
        }
        self.jobs.insert(key, entry);
    }

    fn take(&mut self, key: i64) -> Option<Entry> {
        let entry = self.jobs.remove(&key)?;
        if entry.armed != NEVER {
            self.timers.remove(&(entry.armed, key));
        }
        self.resident_bytes -= entry.kept.bytes();
        self.resting_total -= entry.kept.rests();
        self.count(entry.kept.status(), false);
        Some(entry)
    }

    /// A job of this client was `before`, and now is open or not.
    fn change_of(&mut self, client: &Arc<str>, before: Option<&Entry>, is_open: bool) {
        match (before.is_some_and(Entry::is_open), is_open) {
            (false, true) => *self.open_of.entry(client.clone()).or_default() += 1,
            (true, false) => {
                if let Some(open) = self.open_of.get_mut(client) {
                    *open -= 1;
                    if *open == 0 {
                        self.open_of.remove(client);
                    }
                }
            }
            (true, true) | (false, false) => {}
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::Samples;

    #[test]
    fn an_entry_takes_four_words() {
        assert_eq!(size_of::<Entry>(), 32);
    }

    #[test]
    fn a_job_that_rests_is_counted_and_timed_as_before() {
        let mut samples = Samples::new(1);
        let (mut book, mut restored) = (Book::default(), Book::default());
        for _ in 0..12 {
            let job = Arc::new(samples.job("acme"));
            restored.restore(&Stub::of(&job).unwrap());
            book.put(job.clone());
            assert!(book.resident_bytes() > 0 && book.rest(&job));
            assert_eq!((book.resident_bytes(), book.resident(job.id)), (0, None));
            assert!(book.contains(job.id) && !book.rest(&job));
        }
        for book in [&book, &restored] {
            assert_eq!(book.resting_total(), 12);
            assert_eq!(book.open_counts(), &BTreeMap::from([(JobStatus::WaitingForWorker, 12)]));
            assert_eq!((book.open_of("acme"), book.open_of("other")), (12, 0));
            assert_eq!(book.timers.len(), 6, "those with a timeout of either kind");
        }
        assert_eq!(book.timers, restored.timers);
    }

    #[test]
    fn what_is_undone_is_as_before_resident_or_resting() {
        let mut samples = Samples::new(1);
        let mut book = Book::default();
        let jobs: Vec<Arc<Job>> = (0..4).map(|_| Arc::new(samples.job("acme"))).collect();
        for (number, job) in jobs.iter().enumerate() {
            book.put(job.clone());
            if number % 2 == 0 {
                book.rest(job);
            }
        }
        let before = format!("{book:?}");
        while let Some(id) = book.pop_due(NEVER) {
            assert!(book.contains(id));
        }
        let ended = jobs.iter().map(|job| Arc::new(samples.moved(job, JobStatus::Finished)));
        let undo: Vec<_> = ended.map(|job| (job.id, book.put(job))).collect();
        assert_eq!((book.open_total(), book.open_of("acme"), book.next_due()), (0, 0, None));
        undo.into_iter().rev().for_each(|(id, entry)| book.roll_back(id, entry));
        assert_eq!(format!("{book:?}"), before);
    }

    #[test]
    fn only_the_version_that_rests_comes_back() {
        let mut samples = Samples::new(1);
        let mut book = Book::default();
        let first = Arc::new(samples.job("acme"));
        let second = Arc::new(samples.moved(&first, JobStatus::WaitingForTimer));
        book.put(first.clone());
        book.put(second.clone());
        assert!(!book.rest(&first), "it is not the last any more");
        assert!(book.rest(&second));
        book.bring_back(first);
        assert_eq!(book.resident(second.id), None);
        book.bring_back(second.clone());
        assert_eq!(book.resident(second.id), Some(&second));
    }
}
