//! The reference: what must be true of everything that was committed and of everything that left the process, kept by the
//! simplest means.
//!
//! It sees what went onto the disk, in order, and what was told to clients and workers; it knows nothing of the conductor,
//! the engine or dispatch. Whatever it is shown it checks at once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use avtomatika_orchestrator::{
    blueprint::{Registry, StateKind},
    conductor::{JobView, Submitted},
    dispatch::{Assignment, Verdict},
    engine::{ChildKind, HistoryEntry, HistoryEvent, Job, JobStatus, Parent, code},
    json::Json,
    schedule::Schedule,
    store::{Batch, IdempotencyKey, Removal, Write},
    time::Timestamp,
};
use avtomatika_proto::{JobId, SessionId, TaskId};

use crate::{
    due::{DueBook, is_scheduled},
    editions::Versions,
    invariants::{Checked, Invariant as I, require},
    keys::KeyBook,
    owed::Owed,
    quick::{QuickMap, QuickSet},
    sometimes::{Met, Sometimes as S},
    tale::{Tale, is_about_keys},
};

/// A job as last committed.
pub struct Known {
    pub job: Arc<Job>,
    pub tale: Tale,
    is_acknowledged: bool,
    /// The number of the batch that changed it last.
    changed_in: u64,
}

/// What a client once wanted to submit.
pub struct Intent {
    pub client: Arc<str>,
    pub blueprint: Arc<str>,
    pub key: Option<Arc<str>>,
    pub payload: Json,
    /// How often the request has reached the orchestrator.
    pub delivered: u32,
    /// The job that its client was told of.
    pub told: Option<JobId>,
    /// In which life of the process it arrived first.
    pub first_life: Option<u32>,
    made: u32,
    /// The version that was in force when it first arrived, or an earlier one.
    pub least_version: u32,
}

/// An attempt, from the moment at which it was durable.
struct Attempt {
    job_key: i64,
    /// Who was given it last, and in which life of the process.
    holder: Option<(SessionId, u32)>,
    worker: Option<Arc<str>>,
    is_told_applied: bool,
}

/// Everything that must be remembered.
pub struct Model {
    registry: Arc<Registry>,
    max_open_jobs: usize,
    pub jobs: BTreeMap<i64, Known>,
    /// Every job there ever was, in the order of their insertion.
    pub ids: Vec<JobId>,
    /// The keys of those that are open.
    pub open: BTreeSet<i64>,
    /// Those that have changed since the disk was last looked at.
    pub changed: Vec<JobId>,
    pub intents: Vec<Intent>,
    keys: HashMap<(Arc<str>, Arc<str>), JobId>,
    attempts: QuickMap<TaskId, Attempt>,
    pub key_book: KeyBook,
    settled: QuickSet<TaskId>,
    /// Which worker registered which session.
    sessions: QuickMap<SessionId, Arc<str>>,
    /// Those with a stream that nobody read to its end.
    unread: QuickSet<SessionId>,
    /// Jobs that were forgotten because of their age.
    forgotten: QuickSet<JobId>,
    /// What webhooks are owed.
    pub owed: Owed,
    /// What schedules have come to.
    due: DueBook,
    /// What is known of versions.
    pub versions: Versions,
    /// The latest that any clock has shown.
    pub latest: Timestamp,
    /// Batches so far.
    batches: u64,
    /// Lives of the process so far.
    pub life: u32,
    pub met: Met,
}

impl Intent {
    pub fn new(client: Arc<str>, blueprint: Arc<str>, key: Option<Arc<str>>, payload: Json) -> Self {
        Self {
            client,
            blueprint,
            key,
            payload,
            delivered: 0,
            told: None,
            first_life: None,
            made: 0,
            least_version: u32::MAX,
        }
    }
}

impl Model {
    pub fn new(registry: Arc<Registry>, max_open_jobs: usize, schedules: &[Arc<Schedule>]) -> Self {
        Self {
            registry,
            max_open_jobs,
            jobs: BTreeMap::new(),
            ids: Vec::new(),
            open: BTreeSet::new(),
            changed: Vec::new(),
            intents: Vec::new(),
            keys: HashMap::new(),
            attempts: QuickMap::default(),
            key_book: KeyBook::default(),
            settled: QuickSet::default(),
            sessions: QuickMap::default(),
            unread: QuickSet::default(),
            forgotten: QuickSet::default(),
            owed: Owed::default(),
            due: DueBook::new(schedules),
            versions: Versions::default(),
            latest: Timestamp::default(),
            batches: 0,
            life: 0,
            met: Met::none(),
        }
    }

    /// Every version that is durable.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub fn job(&self, id: JobId) -> Option<&Arc<Job>> {
        self.jobs.get(&id.key()).map(|known| &known.job).filter(|job| job.id == id)
    }

    // ---- What was committed ----

    /// This batch is durable now.
    pub fn committed(&mut self, batch: &Batch) -> Checked {
        self.batches += 1;
        for write in &batch.writes {
            match write {
                Write::InsertJob { job, entries, idempotency } => {
                    self.inserted(job, entries, idempotency.as_ref())?;
                }
                Write::UpdateJob { job, entries } => self.updated(job, entries)?,
                Write::RemoveJob(removal) => self.removed(removal)?,
                Write::PutSession(session) => {
                    self.sessions.insert(session.session_id, session.worker.worker_id.clone());
                }
                // Of a job that is forgotten, nothing is kept.
                Write::PutNotice(record) if self.job(record.id.job_id).is_none() => {}
                Write::PutNotice(record) => self.owed.put(record, self.life, &mut self.met)?,
                Write::PutBlueprint(record) => Versions::put(&mut self.registry, record)?,
                Write::PutSchedule(record) => {
                    self.due.put(record, self.latest, self.life, &mut self.met)?;
                }
                // What else there is concerns no job and no session.
                _ => {}
            }
        }
        self.due.look_at_batch()?;
        self.owed.look_at_batch()
    }

    fn inserted(
        &mut self,
        job: &Arc<Job>,
        entries: &[HistoryEntry],
        key: Option<&IdempotencyKey>,
    ) -> Checked {
        require(!self.jobs.contains_key(&job.id.key()), I::NoGhosts, || {
            format!("job {} is there twice", job.id)
        })?;
        match &job.submission.parent {
            Some(parent) => self.born(job, parent)?,
            None => self.submitted(job, key)?,
        }
        let mut tale = Tale::new();
        self.tell(&mut tale, job, entries)?;
        self.key_book.changed(None, job)?;
        self.ids.push(job.id);
        self.note_change(job, entries);
        self.jobs.insert(
            job.id.key(),
            Known { job: job.clone(), tale, is_acknowledged: false, changed_in: self.batches },
        );
        Ok(())
    }

    fn submitted(&mut self, job: &Arc<Job>, key: Option<&IdempotencyKey>) -> Checked {
        let (open, limit) = (self.open.len(), self.max_open_jobs);
        require(open < limit, I::OpenJobsAreBounded, || {
            format!("{open} jobs are open, and one more is accepted")
        })?;
        if is_scheduled(job) {
            return self.due.made(job);
        }
        let number = number_of(&job.submission.initial_data);
        let Some(intent) = self.intents.get_mut(number) else {
            return require(false, I::NoGhosts, || format!("nobody submitted {job:?}"));
        };
        let as_wanted = intent.client == job.client
            && intent.blueprint == job.blueprint
            && intent.payload == job.submission.initial_data
            && job.blueprint_version >= intent.least_version
            && key.map(|key| &key.key) == intent.key.as_ref();
        intent.made += 1;
        // Without a key, each copy of the request that arrives makes a job.
        let allowed = if intent.key.is_some() { 1 } else { intent.delivered };
        require(as_wanted && intent.made <= allowed, I::NoGhosts, || {
            format!("submission {number} has made {} jobs, the last with key {key:?}: {job:?}", intent.made)
        })?;
        let Some(key) = key else { return Ok(()) };
        let before = self.keys.insert((key.client.clone(), key.key.clone()), job.id);
        require(before.is_none(), I::OneKeyOneJob, || format!("{key:?} has made {before:?} and {}", job.id))
    }

    fn born(&mut self, job: &Arc<Job>, parent: &Parent) -> Checked {
        let Some(known) = self.jobs.get(&parent.job_id.key()) else {
            return require(false, I::NoGhosts, || format!("the parent of {} is not there", job.id));
        };
        if parent.kind == ChildKind::Detached {
            self.met.mark(S::LetGo);
            return Ok(());
        }
        let mother = &known.job;
        let children = mother.children().filter(|children| children.child(parent.index) == job.id);
        let Some(children) = children else {
            return require(false, I::NoGhosts, || {
                format!("nobody waits for child {}: its parent is {mother:?}", job.id)
            });
        };
        let first = children.first.key();
        let siblings = self.jobs.range(first..first + i64::from(children.total));
        let running = siblings.filter(|(_, known)| is_waited_for(&known.job)).count();
        let law = self.registry.version(&mother.blueprint, mother.blueprint_version);
        let max = match law.and_then(|law| law.state(&mother.state)).map(|state| &state.kind) {
            Some(StateKind::Map(map)) => map.max_parallel.unwrap_or(u32::MAX) as usize,
            _ => 1,
        };
        require(running < max, I::MaxParallel, || {
            format!("{running} children of {} run, and {} is one more", mother.id, job.id)
        })
    }

    fn updated(&mut self, job: &Arc<Job>, entries: &[HistoryEntry]) -> Checked {
        let Some(known) = self.jobs.get(&job.id.key()).filter(|known| known.job.id == job.id) else {
            return require(false, I::NoGhosts, || format!("{} changes and is not there", job.id));
        };
        let (before, mut tale) = (known.job.clone(), known.tale.clone());
        let same = before.submission == job.submission
            && (&before.client, &before.blueprint) == (&job.client, &job.blueprint)
            && before.created_at == job.created_at;
        require(same, I::HistoryIsTheJob, || format!("{before:?} has become another: {job:?}"))?;
        self.versions.changed(&before, job, entries, &self.registry)?;
        self.tell(&mut tale, job, entries)?;
        self.look_at_children(&before, job, entries)?;
        self.key_book.changed(Some(&before), job)?;
        self.note_signals(&before, job, entries);
        self.note_change(job, entries);
        if let Some(known) = self.jobs.get_mut(&job.id.key()) {
            (known.job, known.tale, known.changed_in) = (job.clone(), tale, self.batches);
        }
        Ok(())
    }

    fn note_change(&mut self, job: &Job, entries: &[HistoryEntry]) {
        self.changed.push(job.id);
        self.owed.changed(job, entries);
        if job.status.is_terminal() {
            self.open.remove(&job.id.key());
        } else {
            self.open.insert(job.id.key());
        }
    }

    fn tell(&mut self, tale: &mut Tale, job: &Job, entries: &[HistoryEntry]) -> Checked {
        let registry = self.registry.clone();
        let Some(law) = registry.version(&job.blueprint, job.blueprint_version) else {
            return require(false, I::LawfulMoves, || format!("{} follows no known blueprint", job.id));
        };
        for entry in entries {
            tale.tell(entry, law, self.life, &mut self.settled)?;
            self.look_at_attempt(job, entry)?;
            self.note_entry(entry);
        }
        tale.agrees_with(job)?;
        let retries = match law.state(&job.state).map(|state| &state.kind) {
            Some(StateKind::Task(task)) => task.work.retry.max_retries,
            _ => 2,
        };
        let bounded =
            job.retry_count <= retries && job.workers_lost <= 3 && job.transitions <= law.max_transitions;
        require(bounded, I::TriesAreBounded, || format!("{job:?}"))
    }

    fn look_at_attempt(&mut self, job: &Job, entry: &HistoryEntry) -> Checked {
        let Some(task_id) = entry.task_id else { return Ok(()) };
        if entry.event == HistoryEvent::TaskReady {
            let attempt =
                Attempt { job_key: job.id.key(), holder: None, worker: None, is_told_applied: false };
            let before = self.attempts.insert(task_id, attempt);
            return require(before.is_none(), I::AttemptIdsAreUnique, || {
                format!("attempt {task_id} of {} has the id of another one", job.id)
            });
        }
        let Some(worker) = &entry.worker_id else { return Ok(()) };
        let given = self.attempts.get(&task_id).and_then(|attempt| attempt.worker.as_ref());
        // Given to a stream that nobody reads, and found to be lost there within one turn: nobody saw it given.
        let is_unseen = || {
            let of_worker = |session_id: &SessionId| self.sessions.get(session_id) == Some(worker);
            given.is_none() && entry.event == HistoryEvent::WorkerLost && self.unread.iter().any(of_worker)
        };
        require(given == Some(worker) || is_unseen(), I::HolderOnly, || {
            format!("{:?} of attempt {task_id} from {worker}, and {given:?} was given it", entry.event)
        })
    }

    /// Children that a parent has waited for have ended, and it knows how.
    fn look_at_children(&mut self, before: &Job, job: &Job, entries: &[HistoryEntry]) -> Checked {
        if !entries.iter().any(|entry| entry.event == HistoryEvent::ChildrenEnded) {
            return Ok(());
        }
        self.met.mark(S::FanIn);
        let Some(children) = before.children() else { return Ok(()) };
        let results: Vec<serde_json::Value> = match before.status {
            JobStatus::WaitingForParallel => job
                .results
                .as_deref()
                .map_or(Vec::new(), |text| serde_json::from_str(text).unwrap_or_default()),
            _ => Vec::new(),
        };
        for index in 0..children.total {
            let id = children.child(index);
            let child = self.job(id);
            let ended = child.is_none_or(|child| !is_waited_for(child));
            require(ended, I::ChildrenFirst, || {
                format!("{} goes on, and its child {index} has not ended: {child:?}", job.id)
            })?;
            let told = results.get(index as usize).and_then(|result| result.get("outcome")?.as_str());
            let meant = outcome_of(child);
            // One that a human has started again may end in another way. An empty list is that of a later map.
            let again = child.is_some_and(|child| child.restarted_at.is_some());
            require(again || results.is_empty() || told == Some(meant), I::ChildrenFirst, || {
                format!(
                    "child {index} of {} has ended with {meant}, and its parent was told {told:?}",
                    job.id
                )
            })?;
        }
        let lists_all = results.is_empty() || results.len() == children.total as usize;
        require(lists_all, I::ChildrenFirst, || {
            format!("{} results of {} children", results.len(), children.total)
        })
    }

    fn removed(&mut self, removal: &Removal) -> Checked {
        let id = removal.job_id;
        let Some(job) = self.job(id).filter(|job| job.status.is_terminal()).cloned() else { return Ok(()) };
        let parent = job.waiting_parent().and_then(|parent| self.job(parent.job_id));
        let needed = parent.is_some_and(|mother| {
            let index = job.submission.parent.as_ref().map_or(0, |parent| parent.index);
            mother.children().is_some_and(|children| children.child(index) == id)
        });
        require(!needed, I::ChildrenFirst, || format!("child {id} is forgotten while its parent waits"))?;
        self.met.mark(S::Pruned);
        self.jobs.remove(&id.key());
        self.changed.push(id);
        self.owed.forget(id);
        self.forgotten.insert(id);
        if let Some((client, key)) = &removal.idempotency {
            self.keys.remove(&(client.clone(), key.clone()));
        }
        if let Some(intent) = self.intents.get_mut(number_of(&job.submission.initial_data))
            && job.submission.parent.is_none()
            && !is_scheduled(&job)
        {
            // Its client may submit it anew.
            (intent.told, intent.made) = (None, intent.made.saturating_sub(1));
        }
        Ok(())
    }

    // ---- What left the process ----

    /// A client is told that its job is accepted.
    pub fn accepted(&mut self, number: usize, submitted: &Submitted) -> Checked {
        let id = submitted.job_id;
        if submitted.deduplicated && self.forgotten.contains(&id) {
            // It was there when the repetition was decided, and its time was over in the same batch.
            return Ok(());
        }
        let intent = &self.intents[number];
        let Some(known) = self.jobs.get_mut(&id.key()).filter(|known| known.job.id == id) else {
            return require(false, I::AcknowledgedIsDurable, || {
                format!("job {id} is acknowledged and not durable")
            });
        };
        let as_submitted =
            known.job.client == intent.client && known.job.submission.initial_data == intent.payload;
        require(as_submitted, I::AcknowledgedIsDurable, || {
            format!("submission {number} is acknowledged with {:?}", known.job)
        })?;
        let same = intent.key.is_none() || intent.told.is_none_or(|told| told == id);
        require(same, I::OneKeyOneJob, || {
            format!("submission {number} was acknowledged with {:?} and then with {id}", intent.told)
        })?;
        known.is_acknowledged = true;
        self.intents[number].told = Some(id);
        if submitted.deduplicated {
            self.met.mark(S::Deduplicated);
        }
        Ok(())
    }

    /// A client is shown a job.
    pub fn shown(&self, view: &JobView) -> Checked {
        let shown = &view.job;
        let known = self.job(shown.id);
        let durable = known.map_or(self.forgotten.contains(&shown.id), |job| {
            job.history_len >= shown.history_len && (job.history_len > shown.history_len || *job == *shown)
        });
        require(durable, I::SeenIsDurable, || {
            format!("a client is shown {shown:?}, and durable is {known:?}")
        })
    }

    /// A task is given to a session.
    pub fn given(&mut self, session_id: SessionId, assignment: &Assignment) -> Checked {
        let offer = &assignment.offer;
        let known = self.jobs.get(&offer.job_id.key());
        let current = known.and_then(|known| known.job.attempt.as_ref());
        let is_current = current.is_some_and(|attempt| {
            (attempt.task_id, attempt.number, &attempt.task_type)
                == (offer.task_id, offer.attempt, &offer.task_type)
        });
        // What ends it may be in the very batch that is being performed, later on: then it is taken back at once.
        let is_ending = known.is_some_and(|known| known.changed_in == self.batches)
            && self.attempts.contains_key(&offer.task_id);
        require(is_current || is_ending, I::OfferedIsDurable, || {
            format!("{offer:?} is offered, and durable is {:?}", known.map(|known| &known.job))
        })?;
        self.take(session_id, offer.task_id)
    }

    /// Nobody reads this session's stream any more, and the conductor has not heard of it.
    pub fn is_unread(&mut self, session_id: SessionId) {
        self.unread.insert(session_id);
        self.met.mark(S::BrokenStream);
    }

    /// A session goes on with a task that it has.
    pub fn adopted(&mut self, session_id: SessionId, task_id: TaskId) -> Checked {
        let attempt = self.attempts.get(&task_id);
        if attempt.is_some_and(|attempt| attempt.holder == Some((session_id, self.life))) {
            return Ok(());
        }
        let job = attempt.and_then(|attempt| self.jobs.get(&attempt.job_key)).map(|known| &known.job);
        let current = job.and_then(|job| job.attempt.as_ref()).map(|attempt| attempt.task_id);
        // What ends it may be durable, and the conductor not have heard of it: it is taken back then.
        let known = attempt.and_then(|attempt| self.jobs.get(&attempt.job_key));
        let is_ending = known.is_some_and(|known| known.changed_in == self.batches);
        require(current == Some(task_id) || is_ending, I::OfferedIsDurable, || {
            format!("{task_id} is adopted, and durable is {job:?}")
        })?;
        self.met.mark(S::Adopted);
        self.take(session_id, task_id)
    }

    /// A session was found to hold these: what it was sent did not leave, because nobody reads its stream.
    pub fn found(&mut self, leases: impl Iterator<Item = (TaskId, JobId, SessionId)>) -> Checked {
        for (task_id, _, session_id) in leases {
            if self.holder(task_id) != Some(session_id) {
                self.take(session_id, task_id)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, session_id: SessionId, task_id: TaskId) -> Checked {
        let (life, worker) = (self.life, self.sessions.get(&session_id).cloned());
        let Some(attempt) = self.attempts.get_mut(&task_id) else {
            return require(false, I::OfferedIsDurable, || format!("attempt {task_id} is not durable"));
        };
        let before = attempt.holder.replace((session_id, life));
        attempt.worker = worker;
        require(before.is_none_or(|(_, then)| then != life), I::OneHolder, || {
            format!("attempt {task_id} was given to {before:?} in life {life}, and is given to {session_id}")
        })
    }

    /// A worker is told what became of its result. The answer to a lie says nothing about a result.
    pub fn answered(
        &mut self,
        session_id: SessionId,
        task_id: TaskId,
        verdict: Verdict,
        may_lie: bool,
    ) -> Checked {
        let life = self.life;
        let is_settled = self.settled.contains(&task_id);
        let mut attempt = self.attempts.get_mut(&task_id);
        let holds = attempt.as_ref().is_some_and(|attempt| attempt.holder == Some((session_id, life)));
        match verdict {
            Verdict::RetryLater => {
                self.met.mark(S::RetryLater);
                return Ok(());
            }
            Verdict::Applied => {
                require(is_settled, I::AppliedIsDurable, || {
                    format!("the result of {task_id} is acknowledged and not durable")
                })?;
                require(holds, I::HolderOnly, || format!("{session_id} does not hold {task_id}"))?;
                let told = attempt
                    .as_mut()
                    .is_some_and(|attempt| std::mem::replace(&mut attempt.is_told_applied, true));
                return require(!told, I::AppliedOnce, || {
                    format!("the result of {task_id} is acknowledged twice")
                });
            }
            Verdict::Refused(_) => {}
        }
        let Verdict::Refused(reason) = verdict else { return Ok(()) };
        let job = attempt.and_then(|attempt| self.jobs.get(&attempt.job_key)).map(|known| known.job.clone());
        let current = job.as_ref().and_then(|job| job.attempt.as_ref()).map(|attempt| attempt.task_id);
        let wrong = holds && current == Some(task_id) && !is_settled && !may_lie;
        require(!wrong, I::RefusedForGood, || {
            format!("the holder's result of {task_id} is refused: {reason}")
        })?;
        let reasonable = match reason {
            "duplicate" => is_settled,
            "stale_task" => current != Some(task_id),
            "job_terminal" => {
                job.as_ref().is_none_or(|job| job.status.is_terminal()) || current != Some(task_id)
            }
            // A liar may be given a task between its lie about that task and the answer.
            "foreign_session" => !holds || may_lie,
            _ => true,
        };
        require(reasonable, I::RefusedForGood, || {
            format!("the result of {task_id} is refused: {reason}; durable is {job:?}")
        })?;
        self.note_refusal(reason, current, job.as_deref());
        Ok(())
    }

    // ---- The cases that were met ----

    fn note_refusal(&mut self, reason: &str, current: Option<TaskId>, job: Option<&Job>) {
        let newer = current.and_then(|task_id| self.attempts.get(&task_id));
        let newer_runs = newer.is_some_and(|newer| newer.holder.is_some_and(|(_, life)| life == self.life));
        match reason {
            "stale_task" => {
                self.met.mark(S::StaleRefused);
                if newer_runs {
                    self.met.mark(S::LateWhileNewer);
                }
            }
            "duplicate" => self.met.mark(S::DuplicateRefused),
            "foreign_session" => self.met.mark(S::ForeignRefused),
            "unknown_job" => self.met.mark(S::UnknownRefused),
            "job_terminal" => {
                self.met.mark(S::TerminalRefused);
                if job.is_some_and(|job| job.status == JobStatus::Cancelled) {
                    self.met.mark(S::CancelRacesResult);
                }
            }
            _ => {}
        }
    }

    fn note_entry(&mut self, entry: &HistoryEntry) {
        use HistoryEvent as E;
        let met = match entry.event {
            E::RetryScheduled => S::RetryScheduled,
            E::WorkerLost => S::WorkerLost,
            E::TaskReturned => S::Returned,
            E::CheckpointSaved => S::CheckpointSaved,
            E::TaskTimedOut if entry.worker_id.is_some() => S::AttemptTimedOut,
            E::JobRetried => S::RetriedByHuman,
            E::StateSkipped => S::SkippedByHuman,
            E::WaitStarted if is_about_keys(entry) => S::KeyAwaited,
            E::TaskSucceeded if entry.outcome.as_deref() == Some("again") => S::CustomOutcome,
            E::TaskFailed if entry.error.as_ref().is_some_and(|error| &*error.code == "CAUGHT") => S::Caught,
            _ => return self.note_error(entry),
        };
        self.met.mark(met);
        self.note_error(entry);
    }

    fn note_error(&mut self, entry: &HistoryEntry) {
        if entry.event == HistoryEvent::WaitEnded && entry.outcome.as_deref() == Some("timeout") {
            self.met.mark(S::WaitTimedOut);
        }
        let Some(error) = &entry.error else { return };
        let ends = matches!(entry.event, HistoryEvent::JobFailed | HistoryEvent::JobQuarantined);
        let met = match &*error.code {
            code::KEY_TAKEN_OVER => S::KeyTakenOver,
            code::DISPATCH_TIMEOUT => S::DispatchTimeout,
            code::RESULT_TIMEOUT => S::ResultTimeout,
            code::DEPTH_LIMIT => S::DepthLimit,
            code::TRANSITION_LIMIT => S::MovesLimit,
            code::BRANCHES_FAILED => S::TooManyFailed,
            code::WORKER_LOST if ends => S::ThreeWorkersLost,
            code::CANCELLED if &*error.message == "nobody waits for it any more" => S::ChildrenCancelled,
            _ => return,
        };
        self.met.mark(met);
    }

    fn note_signals(&mut self, before: &Job, job: &Job, entries: &[HistoryEntry]) {
        let has = |event| entries.iter().any(|entry| entry.event == event);
        if has(HistoryEvent::SignalReceived) {
            self.met.mark(if before.signals.is_empty() { S::SignalInTime } else { S::SignalEarly });
        }
        if has(HistoryEvent::JobRetried)
            && let Some(parent) = before.waiting_parent()
            && self.job(parent.job_id).is_some_and(|mother| {
                mother.children().is_some_and(|children| children.child(parent.index) == job.id)
            })
        {
            self.met.mark(S::ChildRestarted);
        }
        if before.resumes_at.is_some() && before.tale_is_at_start() && job.status != JobStatus::Cancelled {
            self.met.mark(S::StartedLater);
        }
    }

    /// Who must hold this attempt in this life, if anybody does.
    pub fn holder(&self, task_id: TaskId) -> Option<SessionId> {
        let (session_id, life) = self.attempts.get(&task_id)?.holder?;
        (life == self.life).then_some(session_id)
    }

    /// Acknowledged jobs that are not there.
    pub fn acknowledged(&self) -> impl Iterator<Item = &Known> {
        self.jobs.values().filter(|known| known.is_acknowledged)
    }
}

trait AtStart {
    fn tale_is_at_start(&self) -> bool;
}

impl AtStart for Job {
    fn tale_is_at_start(&self) -> bool {
        matches!(self.wait, Some(avtomatika_orchestrator::engine::Wait::Start))
    }
}

/// Whether its parent would still wait for it.
fn is_waited_for(job: &Job) -> bool {
    !job.status.is_terminal() && job.restarted_at.is_none()
}

/// What a parent must be told of a child.
fn outcome_of(child: Option<&Arc<Job>>) -> &str {
    let Some(child) = child else { return "cancelled" };
    match child.status {
        JobStatus::Finished if child.is_branch() => child.outcome.as_deref().unwrap_or("success"),
        JobStatus::Finished => "success",
        JobStatus::Cancelled => "cancelled",
        JobStatus::Quarantined => "quarantined",
        _ => "failure",
    }
}

/// The number of the submission, which stands first in every payload.
fn number_of(payload: &Json) -> usize {
    let digits = payload.as_str().trim_start_matches("{\"n\":");
    let end = digits.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(usize::MAX)
}
