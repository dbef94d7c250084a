//! What the conductor owns, and what it does with a batch: decide into it, perform it, undo it.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::Arc,
    time::Duration,
};

use avtomatika_proto::{ApiError, ErrorCode, JobId, SessionId, TaskId};
use tokio::sync::watch;

use super::{
    BATCH_MAX, SLEEP_MAX,
    admission::Admission,
    batch::{Afterwards, Batch},
    book::Book,
    ended::Ended,
    families::{Families, Origin},
    gate::Gate,
    handle::{job_not_found, shutting_down},
    mail::Mail,
    mailbox::{Accepted, Follow, Reply, Request},
    pruning::Reopened,
    quota::Usage,
    view::{Acted, JobView, Stats},
    waiting::Waiting,
    watchers::Watchers,
};
use crate::{
    blueprint::{Catalog, Registry},
    dispatch::{Dispatch, Farewell, Mark, Session, ToWorker, Verdict},
    engine::{
        ChildSpec, Children, Context, Decision, Effect, Entropy, Event, Job, JobStatus, Refusal, decide,
    },
    hash::FastSet,
    live::Live,
    metrics::{Metrics, Tally},
    museum::{Mistake, plants},
    store::{IdempotencyKey, KeyName, Store, Write},
    time::{Clock, Timestamp},
    trust::{Tenancy, Tenants},
    webhook,
};

/// How soon a decision is tried again that could not be stored.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Jobs for which nobody waits that one decision may start, with all that those start at once: they become durable together.
const DETACHED_AT_ONCE_MAX: u32 = 1000;

/// How long a full disk is spoken of after the last commit that met it.
const FULL_FOR: Duration = Duration::from_secs(1);

/// How often streams that do not take their messages are looked for.
const BROKEN_CHECK_EVERY: Duration = Duration::from_secs(1);

/// The conductor's knobs.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How much there may be of what, at the start.
    pub limits: Limits,
    /// How long after a restart the workers of before are waited for.
    pub adoption_window: Duration,
    /// How webhooks are told; `None` where there are none.
    pub webhooks: Option<webhook::Setup>,
    /// Secret seed of task ids and jitter. Fixed only in tests.
    pub entropy_seed: [u8; 32],
}

/// Those of the knobs that may be turned while the conductor works. What is beyond a limit that has become smaller stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Jobs that may be open at once.
    pub max_open_jobs: usize,
    /// Workers that may be connected or registered at once.
    pub max_workers: usize,
    /// About how much memory waiting jobs may take, in bytes. Beyond it they wait in the store, and are read again when their
    /// turn comes; 0 keeps none. See [`DEFAULT_RESIDENT_BYTES`](super::DEFAULT_RESIDENT_BYTES).
    pub resident_bytes_max: usize,
}

impl Settings {
    /// A seed that nobody knows.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn fresh_seed() -> io::Result<[u8; 32]> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        Ok(seed)
    }
}

/// Everything the conductor owns.
pub(super) struct Core {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    /// The blueprints in force: every version in it is durable.
    pub blueprints: Arc<Registry>,
    /// Where everybody else finds them.
    pub catalog: Catalog,
    /// The blueprints as last decided, while those are not durable yet.
    pub enacted: Option<Arc<Registry>>,
    pub limits: Live<Limits>,
    pub metrics: Arc<Metrics>,
    pub entropy: Entropy,
    pub book: Book,
    pub dispatch: Dispatch,
    pub watchers: Watchers,
    pub families: Families,
    /// Who holds which keys, and who waits for them.
    pub gate: Gate,
    /// When to go on with it, while the store cannot be read.
    pub gate_paused_until: Option<Timestamp>,
    /// What webhooks are owed.
    pub mail: Mail,
    /// What holds for which client.
    pub tenancy: Tenancy,
    /// Those of them by which clients take turns now.
    pub weighed: Arc<Tenants>,
    /// How much of their quotas clients have used.
    pub usage: Usage,
    /// What has been decided and is not with the store yet.
    pub batch: Batch,
    /// Keys on their way into the store.
    pub keys: HashMap<KeyName, (JobId, [u8; 32])>,
    /// Jobs that the store still has, and that are to be forgotten.
    pub forgetting: FastSet<JobId>,
    /// Jobs that had ended a moment ago, and were repaired.
    pub reopened: Reopened,
    /// Sessions that have no stream yet.
    pub waiting: Waiting,
    /// Events that could not be stored, and when to try again.
    pub again: Vec<(JobId, Event)>,
    /// Sessions whose end could not be stored.
    pub gone: Vec<SessionId>,
    pub again_at: Option<Timestamp>,
    /// Whether the disk is full, for those who ask whether to send work here.
    pub storage_full: watch::Sender<bool>,
    /// When to forget that it was.
    pub room_again_at: Option<Timestamp>,
    pub broken_check_at: Timestamp,
    /// Whether the loader has been asked and has not answered.
    pub loading: bool,
    /// When to ask it again after it could not read.
    pub load_again_at: Option<Timestamp>,
    pub last_job_key: i64,
    /// Jobs for which nobody waits that were started with the present decision.
    pub detached: u32,
    pub ended: BTreeMap<JobStatus, u64>,
    /// Whoever tells of traced jobs.
    pub ended_jobs: Ended,
    pub started_at: Timestamp,
    pub draining: Option<Reply<()>>,
}

impl Core {
    /// Lets clients take turns by the weights that hold now. They change with a reload, which asks nobody here.
    pub fn follow_terms(&mut self) {
        let current = self.tenancy.current();
        if !Arc::ptr_eq(&current, &self.weighed) {
            self.dispatch.set_weights(current.weights());
            self.weighed = current;
        }
    }

    /// Decides one request into the batch.
    pub fn handle(&mut self, request: Request) {
        match request {
            Request::Submit(submit, reply) => self.submit(submit, reply),
            Request::Act(act, reply) => self.act(act, reply),
            Request::Watch { client, job_id, sender, reply } => self.watch(&client, job_id, sender, reply),
            Request::Leases(task_ids, reply) => {
                let place = |task_id| match self.dispatch.lease_view(task_id) {
                    None if !self.dispatch.is_queued(task_id) => None,
                    lease => Some((task_id, lease)),
                };
                let _ = reply.send(task_ids.into_iter().filter_map(place).collect());
            }
            Request::Explain(question, reply) => drop(reply.send(self.facts(&question))),
            Request::Families(families, reply) => {
                let counts = |family: Children| Some((family.first, self.families.counts(&family)?));
                let _ = reply.send(families.into_iter().filter_map(counts).collect());
            }
            Request::Workers(reply) => {
                let _ = reply.send(self.dispatch.roster().iter().map(|session| session.view()).collect());
            }
            Request::RestoreWorker(worker_id, reply) => {
                let known = self.dispatch.restore_worker(&worker_id, self.clock.now());
                let view = known.then(|| self.dispatch.roster().of_worker(&worker_id)).flatten();
                let _ = reply.send(view.map(Session::view));
                self.tell_handed();
            }
            Request::DrainWorker(worker_id, reply) => {
                let known = self.dispatch.drain_worker(&worker_id);
                let view = known.then(|| self.dispatch.roster().of_worker(&worker_id)).flatten();
                let _ = reply.send(view.map(Session::view));
            }
            Request::Stats(reply) => drop(reply.send(self.stats())),
            Request::Measures(reply) => drop(reply.send(self.measures())),
            Request::Register { worker, credential, reply } => self.register(worker, credential, reply),
            Request::Open { session_id, credential, terms, held, outbox, reply } => {
                let _ = reply.send(self.open_stream(session_id, credential, terms.as_deref(), &held, outbox));
            }
            Request::FromWorker { session_id, stream, message, admission } => {
                self.worker_says(session_id, stream, message);
                self.keep(admission);
            }
            Request::Prune(removals, reply) => self.prune(removals, reply),
            Request::TakeNotices(reply) => self.take_notices(reply),
            Request::SettleNotice { id, record, reply } => self.settle_notice(id, record, reply),
            Request::Redeliver { client, job_id, id, reply } => self.redeliver(&client, job_id, id, reply),
            Request::Migrate { client, moves, version, reply } => {
                self.migrate(&client, moves, version, reply)
            }
            Request::Enact(served, reply) => self.enact(served, reply),
            Request::RunScheduled(scheduled, reply) => self.run_scheduled(scheduled, reply),
            Request::KeepSchedules(changes, reply) => self.keep_schedules(changes, reply),
            Request::Drain(reply) => {
                self.dispatch.pause();
                self.draining = Some(reply);
            }
        }
    }

    // ---- Load and decide ----

    /// The job as last decided.
    pub fn load(&self, id: JobId) -> Result<Option<Arc<Job>>, ApiError> {
        if let Some(job) = self.book.resident(id) {
            return Ok(Some(job.clone()));
        }
        if self.forgetting.contains(&id) {
            return Ok(None);
        }
        // It rests, or has ended: the store has its last change.
        let stored = self.store.load(id).map_err(super::handle::storage_error)?;
        Ok(stored.map(Arc::new))
    }

    /// Decides what follows from an event, and puts it into the batch. `again` says whether the event is to be decided again,
    /// should the commit fail: nobody outside will repeat what this process has noticed by itself.
    pub fn decide(&mut self, before: &Job, event: Event, again: bool) -> Result<Arc<Job>, Refusal> {
        // It stays as it ended. One that is started again and ends at once has ended once more, and whoever waits is told.
        let stays_ended = before.status.is_terminal() && matches!(event, Event::MigrateRequested(_));
        let had_claims = before.has_claims();
        let Decision { job, entries, effects } = self.ask_engine(before, &event, self.clock.now())?;
        let tally = Tally::of(before, &entries);
        let job = Arc::new(job);
        self.batch.writes.writes.push(Write::UpdateJob { job: job.clone(), entries });
        if stays_ended && job.status.is_terminal() {
            let before = self.book.put(job.clone());
            self.batch.afterwards.push(Afterwards::Amended { job: job.clone(), before });
            return Ok(job);
        }
        if before.status.is_terminal() {
            self.reopened.add(job.id, self.clock.now());
        }
        self.record(job.clone(), effects, again.then_some(event), (tally, had_claims));
        Ok(job)
    }

    /// Decides the first step of a new job.
    pub fn decide_first(
        &mut self,
        before: &Job,
        event: Event,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Arc<Job>, Refusal> {
        let decision = self.ask_engine(before, &event, before.created_at)?;
        Ok(self.accept(before, decision, idempotency))
    }

    /// Puts the first step of a new job into the batch.
    pub fn accept(
        &mut self,
        before: &Job,
        decision: Decision,
        idempotency: Option<IdempotencyKey>,
    ) -> Arc<Job> {
        let Decision { job, entries, effects } = decision;
        let tally = Tally::of(before, &entries);
        let job = Arc::new(job);
        let idempotency = idempotency.filter(|_| !plants(Mistake::TwoTransactions));
        self.batch.writes.writes.push(Write::InsertJob { job: job.clone(), entries, idempotency });
        self.record(job.clone(), effects, None, (tally, false));
        job
    }

    pub fn ask_engine(&mut self, job: &Job, event: &Event, now: Timestamp) -> Result<Decision, Refusal> {
        let version = match event {
            Event::MigrateRequested(migration) => migration.version,
            _ => job.blueprint_version,
        };
        let blueprint = self.blueprints.version(&job.blueprint, version);
        let blueprint = blueprint.ok_or(Refusal::StateUnknown)?;
        let last_job_key = &mut self.last_job_key;
        let reserve = &mut |count| reserve_keys(last_job_key, now, count);
        let serves = &|name: &str| self.blueprints.newest(name).is_some();
        let at_once = DETACHED_AT_ONCE_MAX.saturating_sub(self.detached);
        let room = &|| room_beside(job, &self.limits, &self.tenancy, &self.book).min(at_once);
        let (entropy, keys) = (&mut self.entropy, &self.gate);
        decide(job, event, &mut Context { now, blueprint, entropy, reserve, serves, room, keys })
    }

    /// The key of a new job, larger than any before it.
    pub fn new_job_key(&mut self, now: Timestamp) -> i64 {
        reserve_keys(&mut self.last_job_key, now, 1)
    }

    /// `had_claims` says whether the job had to do with keys before.
    fn record(
        &mut self,
        job: Arc<Job>,
        mut effects: Vec<Effect>,
        again: Option<Event>,
        (tally, had_claims): (Tally, bool),
    ) {
        if plants(Mistake::OfferBeforeCommit) {
            effects.retain(|effect| match effect {
                Effect::Offer(offer) => {
                    self.dispatch.offer(offer.clone(), self.clock.now());
                    false
                }
                _ => true,
            });
        }
        let before = self.book.put(job.clone());
        let seat = self.pass_gate(&job, had_claims);
        // What must be stored with the decision.
        let detached = effects.iter().filter_map(|effect| match effect {
            Effect::StartDetached(spec) => Some((**spec).clone()),
            _ => None,
        });
        let detached: Vec<ChildSpec> = detached.collect();
        self.owe(&job, &effects);
        let changed = Afterwards::Changed { job: job.clone(), before, seat, effects, again, tally };
        self.batch.afterwards.push(changed);
        // They may start others in turn.
        let is_first = self.detached == 0;
        self.detached += detached.len() as u32;
        for spec in detached {
            self.start_child(&Origin::of(&job), spec);
        }
        if is_first {
            self.detached = 0;
        }
    }

    // ---- Perform ----

    /// The batch is durable: its answers and effects may leave.
    pub fn perform(&mut self, afterwards: Vec<Afterwards>) {
        let now = self.clock.now();
        for step in afterwards {
            match step {
                Afterwards::Changed { job, effects, tally, .. } => {
                    self.metrics.changed(&job, &tally);
                    self.perform_change(&job, effects, now);
                }
                Afterwards::Submitted { job, accepted, follow, reply } => {
                    let (id, client) = (job.id, &job.client);
                    tracing::debug!(job = %id, client = %client, "Job {id} of client {client} is accepted");
                    match accepted.deduplicated {
                        true => self.metrics.job_deduplicated(),
                        false => self.metrics.job_submitted(&job.blueprint),
                    }
                    let _ = reply.send(Ok(accepted));
                    if let Follow::End(sender) = follow {
                        let view = self.view(self.present(job));
                        self.watchers.await_end(view, sender);
                    }
                }
                Afterwards::Acted { job, repeated, reply } => {
                    let view = self.view(job);
                    let _ = reply.send(Ok(Acted { view, repeated }));
                }
                Afterwards::Watched { job, sender, reply } => {
                    let view = self.view(job);
                    self.watchers.watch(view, sender);
                    let _ = reply.send(Ok(()));
                }
                Afterwards::Answered { session_id, task_id, verdict, mark } => {
                    match verdict {
                        Verdict::Applied => {
                            self.metrics.result_applied();
                            self.dispatch.judge(task_id, mark, now);
                        }
                        Verdict::Refused(reason) => self.metrics.result_refused(reason),
                        Verdict::RetryLater => {}
                    }
                    self.dispatch.answer(session_id, task_id, verdict, now);
                }
                Afterwards::Registered { record, reply } => self.session_stored(record, reply, now),
                Afterwards::Pruned { forgotten, reply } => {
                    self.metrics.pruned(forgotten.len());
                    self.forgetting_is_over(&forgotten);
                    let _ = reply.send(Ok(forgotten.len()));
                }
                Afterwards::Owed(notice) => self.mail.put(&notice),
                Afterwards::NoticeSettled { record, reply } => {
                    self.notice_settled(&record);
                    let _ = reply.send(Ok(()));
                }
                Afterwards::Redelivered { before, records, reply } => {
                    self.redelivered(&before, &records);
                    let _ = reply.send(Ok(records));
                }
                Afterwards::Amended { job, .. } => self.book.close(&job),
                Afterwards::Migrated { moves, reply } => drop(reply.send(Ok(moves))),
                Afterwards::Enacted { registry, changes, reply } => {
                    self.put_in_force(registry, changes, reply)
                }
                Afterwards::Scheduled { record, job, reply } => {
                    job.iter().for_each(|job| self.metrics.job_submitted(&job.blueprint));
                    let _ = reply.send(Ok(record));
                }
                Afterwards::SchedulesKept(reply) => drop(reply.send(Ok(()))),
                Afterwards::Noticed { .. }
                | Afterwards::SessionRemoved(_)
                | Afterwards::Reproached { .. } => {}
                Afterwards::Admitted(admission) => drop(admission),
                Afterwards::KeyStored { client, key, .. } => drop(self.keys.remove(&(client, key))),
            }
        }
        self.tell_handed();
    }

    /// Counts the tasks that were just handed out, and tells the watchers of their jobs.
    pub fn tell_handed(&mut self) {
        for handed in self.dispatch.take_handed() {
            self.metrics.handed(&handed);
            self.touched(handed.job_id);
        }
    }

    fn perform_change(&mut self, job: &Arc<Job>, effects: Vec<Effect>, now: Timestamp) {
        for effect in effects {
            match effect {
                Effect::Offer(offer) => self.dispatch.offer(offer, now),
                Effect::Withdraw { task_id, reason } => self.dispatch.withdraw(task_id, &reason, now),
                Effect::StartChildren => self.start_children(job),
                Effect::CancelChildren(children) => self.cancel_children(&children),
                // They were stored with the decision.
                Effect::StartDetached(_) | Effect::Notify(_) => {}
            }
        }
        if job.status.is_terminal() {
            log_end(job);
            self.ended_jobs.tell(job);
            self.book.close(job);
            *self.ended.entry(job.status).or_default() += 1;
            self.child_ended(job);
        } else {
            self.rest(job);
        }
        let (dispatch, families) = (&self.dispatch, &self.families);
        self.watchers.committed(job, |job| view(dispatch, families, job));
    }

    /// Who holds the job's task, or how far it is, has changed.
    pub fn touched(&mut self, job_id: JobId) {
        let (dispatch, families) = (&self.dispatch, &self.families);
        self.watchers.touched(job_id, |job| view(dispatch, families, job));
    }

    /// The job with what only this process knows of it.
    pub fn view(&self, job: Arc<Job>) -> JobView {
        view(&self.dispatch, &self.families, job)
    }

    /// The job as it is now, if it ended since this was decided.
    fn present(&self, job: Arc<Job>) -> Arc<Job> {
        if job.status.is_terminal() || self.book.contains(job.id) {
            return job;
        }
        match self.store.load(job.id) {
            Ok(Some(stored)) => Arc::new(stored),
            _ => job,
        }
    }

    // ---- Undo ----

    /// The batch could not be stored, and what was decided on top of it rests on nothing: everything is as before, whoever
    /// asked is told to ask again, and what nobody would repeat is tried again soon.
    pub fn undo(&mut self, afterwards: Vec<Afterwards>) {
        // Before anybody is refused: whoever then asks why can be told.
        if !self.storage_full.send_replace(true) {
            tracing::error!("the disk is full: nothing can be accepted until there is room");
        }
        let on_top = std::mem::take(&mut self.batch);
        let steps: Vec<Afterwards> = afterwards.into_iter().chain(on_top.afterwards).collect();
        let changed: Vec<JobId> = steps.iter().filter_map(Afterwards::changed).collect();
        let mut watches = Vec::new();
        for step in steps.into_iter().rev() {
            match step {
                Afterwards::Watched { job, sender, reply } => watches.push((job.id, sender, reply)),
                step => self.undo_step(step),
            }
        }
        // Reads go on: a watch begins with the job as it is again.
        for (job_id, sender, reply) in watches {
            let present = self.load(job_id).and_then(|job| job.ok_or_else(job_not_found));
            let _ = reply.send(present.map(|job| self.watchers.watch(self.view(job), sender)));
        }
        for job_id in changed {
            self.rest_again(job_id);
        }
        self.families.look_again();
        self.again_soon();
        self.room_again_at = Some(self.clock.now() + FULL_FOR);
    }

    fn again_soon(&mut self) {
        self.again_at.get_or_insert(self.clock.now() + AGAIN_AFTER);
    }

    fn undo_step(&mut self, step: Afterwards) {
        let full = || ApiError::new(ErrorCode::StorageFull, "The orchestrator's disk is full");
        match step {
            Afterwards::Changed { job, before, seat, again, .. } => {
                self.put_back(job.id, seat);
                if before.is_none() {
                    self.child_undone(&job);
                }
                if !plants(Mistake::UndoForgotten) {
                    self.book.roll_back(job.id, before);
                }
                self.again.extend(again.map(|event| (job.id, event)));
            }
            Afterwards::Submitted { job, accepted, reply, .. } => {
                if !accepted.deduplicated {
                    self.usage.uncount(&job.client);
                }
                let _ = reply.send(Err(full()));
            }
            Afterwards::Acted { reply, .. } => drop(reply.send(Err(full()))),
            Afterwards::Pruned { forgotten, reply } => {
                self.forgetting_is_over(&forgotten);
                let _ = reply.send(Err(full()));
            }
            Afterwards::Amended { job, before } => self.book.roll_back(job.id, before),
            Afterwards::Migrated { reply, .. } => drop(reply.send(Err(full()))),
            Afterwards::Enacted { reply, .. } => {
                // Whatever was decided later has been undone before.
                self.enacted = None;
                let _ = reply.send(Err(full()));
            }
            Afterwards::Watched { .. } | Afterwards::Admitted(_) | Afterwards::Owed(_) => {}
            Afterwards::NoticeSettled { record, reply } => {
                self.notice_again(record.id);
                let _ = reply.send(Err(full()));
            }
            Afterwards::Redelivered { before, records, reply } => {
                self.not_redelivered(&before, &records);
                let _ = reply.send(Err(full()));
            }
            Afterwards::Scheduled { reply, .. } => drop(reply.send(Err(full()))),
            Afterwards::SchedulesKept(reply) => drop(reply.send(Err(full()))),
            Afterwards::Noticed { job_id, event } => self.again.push((job_id, event)),
            Afterwards::SessionRemoved(session_id) => self.gone.push(session_id),
            Afterwards::Reproached { worker_id, before } => {
                self.dispatch.not_stored(&worker_id, before, self.clock.now());
            }
            Afterwards::Answered { session_id, task_id, .. } => {
                self.dispatch.answer(session_id, task_id, Verdict::RetryLater, self.clock.now());
            }
            Afterwards::Registered { record, reply } => {
                self.waiting.has_come(&record);
                let _ = reply.send(Err(full()));
            }
            Afterwards::KeyStored { client, key, job_id } => {
                if self.keys.get(&(client.clone(), key.clone())).is_some_and(|(stored, _)| *stored == job_id)
                {
                    self.keys.remove(&(client, key));
                }
            }
        }
    }

    // ---- Time ----

    /// How long until something is due.
    pub fn until_due(&self) -> Duration {
        let job_due = if self.has_room() { self.book.next_due() } else { None };
        let due = [
            job_due,
            self.dispatch.next_due(),
            self.waiting.next_due(),
            self.again_at,
            self.room_again_at,
            self.load_again_at,
            Some(self.broken_check_at),
            self.families_due(),
            self.gate_due(),
        ];
        let now = self.clock.now();
        due.into_iter().flatten().min().map_or(SLEEP_MAX, |due| due.saturating_since(now)).min(SLEEP_MAX)
    }

    /// Whether what is due for jobs can be decided now. A full batch is handed over when the one before it is durable, which wakes us;
    /// while the disk is full, jobs wait for the next try whatever their timers say.
    pub fn has_room(&self) -> bool {
        self.again_at.is_none() && self.batch.afterwards.len() < BATCH_MAX
    }

    /// When families are to be tended next: at once while there is something to do and room for it.
    fn families_due(&self) -> Option<Timestamp> {
        let busy = self.families.is_busy() && self.has_room() && self.draining.is_none();
        busy.then(|| self.families.paused_until.unwrap_or(Timestamp::from_micros(0)))
    }

    /// Decides what is due.
    pub fn tick(&mut self) {
        let now = self.clock.now();
        if self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
            for (job_id, event) in std::mem::take(&mut self.again).into_iter().rev() {
                self.notice(job_id, event);
            }
            for session_id in std::mem::take(&mut self.gone) {
                self.remove_session(session_id);
            }
        }
        if self.room_again_at.is_some_and(|at| at <= now) {
            self.room_again_at = None;
            self.storage_full.send_replace(false);
        }
        if self.load_again_at.is_some_and(|at| at <= now) {
            self.load_again_at = None;
        }
        self.workers_due(now);
        self.jobs_due(now);
        if self.families_due().is_some() {
            self.tend_families(now);
        }
        if self.gate_due().is_some_and(|due| due <= now) {
            self.tend_gate(now);
        }
        if self.broken_check_at <= now {
            // This process may have stood still. Then those who have left have a reason, which is about to be told.
            let is_late = now.saturating_since(self.broken_check_at) > BROKEN_CHECK_EVERY;
            self.broken_check_at = now + BROKEN_CHECK_EVERY;
            self.families.look_for_room();
            let broken = if is_late { Vec::new() } else { self.dispatch.broken() };
            for session_id in broken {
                self.session_ended(session_id, "it does not read its stream");
            }
        }
    }

    /// Decides what has become due for jobs; what does not fit the batch waits for the next one. While the disk is full, time
    /// stands still for jobs: their timers stay armed.
    fn jobs_due(&mut self, now: Timestamp) {
        // Each has one turn: one that is due again at once lets the others go first.
        let mut due = Vec::new();
        while self.batch.afterwards.len() + due.len() < BATCH_MAX
            && self.again_at.is_none()
            && let Some(job_id) = self.book.pop_due(now)
        {
            due.push(job_id);
        }
        for job_id in due {
            let Ok(Some(job)) = self.load(job_id) else {
                tracing::error!(job = %job_id, "Job {job_id} is due and cannot be read");
                self.book.rearm(job_id, Some(now + AGAIN_AFTER));
                continue;
            };
            let attempt = job.attempt.as_ref();
            let is_leased = attempt.is_some_and(|attempt| self.dispatch.lease(attempt.task_id).is_some());
            // After a restart, a worker that is still expected back may have the task.
            let expected =
                attempt.filter(|_| !is_leased).and_then(|attempt| self.dispatch.awaited(&attempt.task_type));
            let task_is_held = is_leased || expected.is_some();
            if self.decide(&job, Event::Due { task_is_held }, false).is_err() {
                let next = [job.next_due(now), expected].into_iter().flatten().min();
                self.book.rearm(job.id, next);
            }
        }
    }

    /// Decides an event that this process has noticed by itself. A refusal means that it no longer matters, unless what made
    /// it so cannot be stored: then it is looked at again.
    pub fn notice(&mut self, job_id: JobId, event: Event) {
        match self.load(job_id) {
            Ok(Some(job)) => self.notice_of(&job, event),
            Ok(None) => {}
            Err(_) => {
                self.again.push((job_id, event));
                self.again_soon();
            }
        }
    }

    /// [`Core::notice`] for a job that has just been loaded.
    pub fn notice_of(&mut self, job: &Job, event: Event) {
        if self.decide(job, event.clone(), true).is_err() {
            self.batch.afterwards.push(Afterwards::Noticed { job_id: job.id, event });
        }
    }

    // ---- The end ----

    /// Whether the conductor was asked to stop and has nothing left to make durable.
    pub fn is_drained(&self) -> bool {
        self.draining.is_some() && self.batch.is_empty()
    }

    /// The last words to every worker, and to whoever asked for the end.
    pub fn say_goodbye(&mut self) {
        for session in self.dispatch.roster().iter() {
            session.outbox.send(ToWorker::Goodbye(Farewell::Shutdown));
        }
        if let Some(reply) = self.draining.take() {
            let _ = reply.send(());
        }
    }

    /// Refuses new work while stopping.
    pub fn check_serving(&self) -> Result<(), ApiError> {
        if self.draining.is_some() { Err(shutting_down()) } else { Ok(()) }
    }

    pub fn stats(&self) -> Stats {
        let running_tasks = self.dispatch.lease_count() as u64;
        let mut jobs = self.book.open_counts().clone();
        if running_tasks > 0 {
            // Stored as waiting, and in truth in a worker's hands.
            let waiting =
                jobs.remove(&JobStatus::WaitingForWorker).unwrap_or(0).saturating_sub(running_tasks);
            jobs.extend((waiting > 0).then_some((JobStatus::WaitingForWorker, waiting)));
            jobs.insert(JobStatus::Running, running_tasks);
        }
        jobs.extend(&self.ended);
        Stats {
            jobs,
            connected_workers: self.dispatch.roster().len() as u64,
            ready_tasks: self.dispatch.ready_counts(),
            running_tasks,
            undelivered_notices: self.mail.undelivered() as u64,
            started_at: self.started_at,
        }
    }

    /// Keeps an admission until what has been decided is durable.
    pub fn keep(&mut self, admission: Admission) {
        if admission.is_held() {
            self.batch.afterwards.push(Afterwards::Admitted(admission));
        }
    }

    /// Puts an answer to a worker behind what has been decided.
    pub fn answer(&mut self, session_id: SessionId, task_id: TaskId, verdict: Verdict, mark: Mark) {
        self.batch.afterwards.push(Afterwards::Answered { session_id, task_id, verdict, mark });
    }

    /// The answer for a submission, behind what has been decided.
    pub fn answer_submission(
        &mut self,
        job: Arc<Job>,
        deduplicated: bool,
        follow: Follow,
        reply: Reply<Result<Accepted, ApiError>>,
    ) {
        let accepted = Accepted { job_id: job.id, deduplicated };
        self.batch.afterwards.push(Afterwards::Submitted { job, accepted, follow, reply });
    }
}

/// Jobs of its client that may be open beside this one and those that are.
fn room_beside(job: &Job, limits: &Live<Limits>, tenancy: &Tenancy, book: &Book) -> u32 {
    // A new one is not among them yet.
    let new = usize::from(!book.contains(job.id));
    let of_all = limits.current().max_open_jobs.saturating_sub(book.open_total() + new);
    let of_client = tenancy.current().of(&job.client).max_open_jobs;
    let of_client =
        of_client.map_or(usize::MAX, |limit| limit.saturating_sub(book.open_of(&job.client) + new));
    u32::try_from(of_all.min(of_client)).unwrap_or(u32::MAX)
}

/// Only what a human has to look at is worth a line by default.
fn log_end(job: &Job) {
    let (id, client) = (job.id, &job.client);
    match (job.status, &job.error) {
        (JobStatus::Quarantined, Some(error)) => tracing::warn!(
            job = %id, client = %client, code = %error.code,
            "Job {id} of client {client} waits for a human: {}", error.message
        ),
        (status, _) => {
            tracing::debug!(job = %id, client = %client, "Job {id} of client {client} has ended: {status}")
        }
    }
}

/// The job with the lease under which its task is held, and how far its children are.
fn view(dispatch: &Dispatch, families: &Families, job: Arc<Job>) -> JobView {
    let attempt = job.attempt.as_ref();
    let lease = attempt.and_then(|attempt| dispatch.lease_view(attempt.task_id));
    let children = job.children().and_then(|children| families.counts(children));
    JobView { job, lease, children }
}

/// Takes so many keys in a row, each larger than any before it, also when the clock has stepped back. Returns the first.
fn reserve_keys(last: &mut i64, now: Timestamp, count: u32) -> i64 {
    let first = JobId::first_key_of(now.as_unix_ms()).max(*last + 1);
    *last = first + i64::from(count) - 1;
    first
}
