//! Dispatch hands ready tasks to connected workers, and knows who holds what.
//!
//! Everything here lives in memory, beside the store: which session holds which attempt is a *lease* and is not durable; the
//! fence that makes it safe (the job's current task id) is. It is owned by the conductor alone, so it needs no locks; it is
//! told of tasks only after they are committed. It refuses to know what a job is: a task is an [`Offer`], a worker a slot.
//!
//! The cost of handing out one task does not grow with the number of queued tasks or connected workers, beyond the
//! logarithm of a tree.

mod adoption;
mod aside;
mod classes;
mod fleet;
mod lane;
mod nearest;
mod outbox;
mod placement;
mod pulse;
mod ready_queue;
mod reputation;
mod roster;
mod saving;
pub mod session;
mod stopping;
mod suit;
mod workers;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use avtomatika_proto::{JobId, SessionId, TaskId};

pub use adoption::Adoption;
pub use classes::ClassId;
pub use fleet::Fleet;
pub use nearest::{Lack, Nearest, Obstacle, Standing, Whereabouts, Workers};
pub use outbox::{Assignment, Farewell, Outbox, ToWorker, Verdict};
pub use ready_queue::{Place, Position, RUN_MIN};
pub use reputation::Mark;
pub use roster::{Roster, Session};
pub use saving::Unsaved;
pub use stopping::{Obedience, STOPPED_WITHIN};
pub use suit::Unmet;

use self::{
    classes::{Class, Classes},
    placement::Placement,
    ready_queue::ReadyQueue,
    reputation::Reputations,
    saving::{Saved, Saving},
    stopping::Stopping,
};
use crate::{
    conductor::{LeaseView, Progress},
    engine::Offer,
    hash::FastMap,
    json::Json,
    store::{Reproach, SessionRecord, WorkerRecord},
    time::Timestamp,
};

/// How long after its deadline an attempt is given up: the worker, which begins to stop it at the deadline and may need up to
/// 2.5 s for a stubborn command, gets to say so itself.
pub const DEADLINE_GRACE: Duration = Duration::from_secs(3);

/// An attempt in a worker's hands.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The session that may report it.
    pub session_id: SessionId,
    /// Its worker.
    pub worker_id: Arc<str>,
    /// The job that waits for it.
    pub job_id: JobId,
    /// Its type.
    pub task_type: Arc<str>,
    /// When it was handed over.
    pub dispatched_at: Timestamp,
    /// When its time is over.
    pub deadline: Timestamp,
    /// What the worker last said of it.
    pub progress: Option<Progress>,
    saved: Saved,
}

impl Lease {
    /// How far the attempt came, as its worker last said.
    pub fn checkpoint(&self) -> Option<Json> {
        self.progress.as_ref().and_then(|progress| progress.checkpoint.clone())
    }
}

/// An attempt that its worker can no longer be expected to finish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The attempt.
    pub task_id: TaskId,
    /// The job that waits for it.
    pub job_id: JobId,
    /// Who held it.
    pub worker_id: Arc<str>,
    /// How far it came, as far as is known.
    pub checkpoint: Option<Json>,
}

/// A task came into a worker's hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// The job that waits for it.
    pub job_id: JobId,
    /// Its type.
    pub task_type: Arc<str>,
    /// How long it had been ready.
    pub waited: Duration,
    /// Whether the worker had it all along, from before a restart.
    pub adopted: bool,
}

impl Handed {
    fn of(offer: &Offer, adopted: bool, now: Timestamp) -> Self {
        let waited = now.saturating_since(offer.ready_at);
        Self { job_id: offer.job_id, task_type: offer.task_type.clone(), waited, adopted }
    }
}

/// Which of a returning worker's tasks are still its own.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// It goes on with these.
    pub adopted: Vec<TaskId>,
    /// It drops these.
    pub dropped: Vec<TaskId>,
    /// The orchestrator counted on it for these, and it does not have them.
    pub orphans: Vec<Orphan>,
}

/// Ready tasks, connected workers, and the leases between them.
#[derive(Debug, Default)]
pub struct Dispatch {
    classes: Classes,
    ready: ReadyQueue,
    roster: Roster,
    placement: Placement,
    reputations: Reputations,
    /// Those that have left while they were set aside, until their time is over: they come back as they were.
    left_aside: HashMap<Arc<str>, Arc<WorkerRecord>>,
    leases: FastMap<TaskId, Lease>,
    deadlines: BTreeSet<(Timestamp, TaskId)>,
    saving: Saving,
    stopping: Stopping,
    adoption: Adoption,
    paused: bool,
    handed: Vec<Handed>,
}

impl Dispatch {
    /// Expects the sessions of before a restart.
    pub fn expect(&mut self, adoption: Adoption) {
        self.adoption = adoption;
    }

    /// The connected workers.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    // ---- Tasks ----

    /// A committed task is ready. It goes to a worker at once if one is free.
    pub fn offer(&mut self, offer: Offer, now: Timestamp) {
        tracing::info!(
            job = %offer.job_id,
            task = %offer.task_id,
            "Job {} dispatching task: {} (attempt {})",
            offer.job_id,
            offer.task_type,
            offer.attempt
        );
        let class = self.class_of(&offer.task_type, offer.needs.as_ref());
        // Nobody before it, and somebody free: it need not stand in line.
        if self.ready.len(class) == 0 && self.may_hand_out(class) {
            return self.hand_over(class, offer, now);
        }
        self.ready.push(class, offer);
        while self.next_of([class]).is_some() {
            self.hand_out(class, now);
        }
    }

    /// A task is no longer wanted. A worker that holds it is told so, and keeps its slot until it has obeyed.
    pub fn withdraw(&mut self, task_id: TaskId, reason: &Arc<str>, now: Timestamp) {
        if self.ready.remove(task_id) {
            return;
        }
        if let Some(lease) = self.drop_lease(task_id)
            && let Some(session) = self.roster.get_mut(lease.session_id)
        {
            session.outbox.send(ToWorker::Cancel { task_id, reason: reason.clone() });
            self.stopping.told(lease.session_id, task_id, now);
        }
    }

    /// A worker answers for a task. What that means for the order to stop it, if it was given one; `forced` when it says that the
    /// handler did not stop by itself.
    pub fn obeys(&mut self, session_id: SessionId, task_id: TaskId, forced: bool) -> Option<Obedience> {
        if !self.stopping.forget(session_id, task_id) {
            return None;
        }
        if !forced {
            return Some(Obedience::Stopped);
        }
        if let Some(session) = self.roster.get_mut(session_id) {
            session.unstopped += 1;
        }
        Some(Obedience::Forced)
    }

    /// The next task that its worker was told to stop and has not let go in time, with the worker's name. Each is returned once.
    pub fn next_unstopped(&mut self, now: Timestamp) -> Option<(TaskId, Arc<str>)> {
        let (session_id, task_id) = self.stopping.overdue(now)?;
        // The orders of a session go with it.
        let session = self.roster.get_mut(session_id)?;
        session.unstopped += 1;
        Some((task_id, session.record.worker.worker_id.clone()))
    }

    /// The lease under which a task is held.
    pub fn lease(&self, task_id: TaskId) -> Option<&Lease> {
        self.leases.get(&task_id)
    }

    /// Every lease.
    pub fn leases(&self) -> impl Iterator<Item = (TaskId, &Lease)> {
        self.leases.iter().map(|(task_id, lease)| (*task_id, lease))
    }

    /// Whether a task stands in a queue.
    pub fn is_queued(&self, task_id: TaskId) -> bool {
        self.ready.contains(task_id)
    }

    /// What others may see of a lease.
    pub fn lease_view(&self, task_id: TaskId) -> Option<LeaseView> {
        self.leases.get(&task_id).map(|lease| LeaseView {
            worker_id: lease.worker_id.clone(),
            dispatched_at: lease.dispatched_at,
            deadline: lease.deadline,
            progress: lease.progress.clone(),
        })
    }

    /// What the end of an attempt says of the worker that holds it. Before [`Dispatch::answer`], which takes it out of its hands.
    pub fn judge(&mut self, task_id: TaskId, mark: Mark, now: Timestamp) {
        let Some(lease) = self.leases.get(&task_id) else { return };
        // Almost always: nothing is held against it, and nothing is now.
        if mark == Mark::None || mark == Mark::Good && !self.reputations.knows(&lease.worker_id) {
            return;
        }
        let (session_id, worker_id, job_id) = (lease.session_id, lease.worker_id.clone(), lease.job_id);
        if self.reputations.mark(&worker_id, job_id, mark, now) && self.may_spare(session_id) {
            let until = self.reputations.set_aside(&worker_id, now);
            tracing::warn!(
                "Worker '{worker_id}' is set aside: many different jobs in a row failed on it or were lost with it; `avtomatika workers restore` ends it"
            );
            if let Some(session) = self.roster.get_mut(session_id) {
                session.aside_until = until;
            }
        }
        let reputation = self.reputations.score(&worker_id, now);
        if let Some(session) = self.roster.get_mut(session_id) {
            session.reputation = reputation;
            self.replace(session_id);
        }
    }

    /// A session is lost with what it holds, which says of its worker what one failed attempt says, however many tasks go with it:
    /// whoever has eight slots and loses its connection once would else be as good as set aside for that alone. What is told is one of
    /// its jobs that is not in the row yet, so that one job that takes its worker down again and again sets nobody aside. Before
    /// [`Dispatch::disconnect`], which takes them out of its hands.
    ///
    /// Nothing is held against a worker whose end was wanted, nor against one that left because this process stood still.
    pub fn judge_lost(&mut self, session_id: SessionId, now: Timestamp) {
        let Some(session) = self.roster.get(session_id) else { return };
        if session.draining || session.away {
            return;
        }
        let worker_id = &session.record.worker.worker_id;
        let lost = session.occupied().into_iter().filter_map(|task_id| {
            // Without those that were withdrawn: the job does not lose these.
            let lease = self.leases.get(&task_id).filter(|lease| lease.session_id == session_id)?;
            Some((self.reputations.is_in_row(worker_id, lease.job_id), task_id))
        });
        if let Some((_, task_id)) = lost.min() {
            self.judge(task_id, Mark::Bad, now);
        }
    }

    /// Whether no more than half of those that serve any of its types would be set aside with this one: when everybody fails,
    /// it is the jobs. Costs a look at all of those.
    fn may_spare(&self, session_id: SessionId) -> bool {
        let Some(session) = self.roster.get(session_id) else { return false };
        session.record.worker.task_types.iter().all(|task_type| {
            let away =
                self.left_aside.values().filter(|worker| worker.task_types.contains(task_type)).count();
            let aside = self.roster.serving(task_type).filter(|other| other.aside_until.is_some()).count();
            2 * (aside + away + 1) <= self.roster.serving_count(task_type) + away
        })
    }

    /// Ends the time aside of those for whom it is over.
    pub fn back_from_aside(&mut self, now: Timestamp) {
        for worker_id in self.reputations.back(now) {
            self.take_back(&worker_id, now);
        }
    }

    /// Somebody vouches for a worker: it is set aside no more, and nothing is held against it. Whether it is connected.
    pub fn restore_worker(&mut self, worker_id: &str, now: Timestamp) -> bool {
        self.reputations.restore(worker_id, now);
        self.take_back(worker_id, now)
    }

    /// What is held against this worker.
    pub fn reproach(&self, worker_id: &str) -> Option<Reproach> {
        self.reputations.reproach(worker_id)
    }

    /// Holds against workers what was stored with their sessions.
    pub fn remember(&mut self, sessions: &[SessionRecord], now: Timestamp) {
        for session in sessions {
            if let Some(reproach) = session.reproach {
                self.reputations.remember(&session.worker.worker_id, reproach, now);
            }
        }
    }

    /// The sessions of connected workers against whom something else is held than was stored, as they should be stored now, and what
    /// was stored. Each is returned once.
    pub fn take_unstored(&mut self, now: Timestamp) -> Vec<(SessionRecord, Option<Reproach>)> {
        let mut unstored = Vec::new();
        for worker_id in self.reputations.take_unstored(now) {
            let reproach = self.reputations.reproach(&worker_id);
            let session_id = self.roster.of_worker(&worker_id).map(|session| session.record.session_id);
            let session = session_id.and_then(|session_id| self.roster.get_mut(session_id));
            if let Some(session) = session.filter(|session| session.record.reproach != reproach) {
                let before = std::mem::replace(&mut session.record.reproach, reproach);
                unstored.push((session.record.clone(), before));
            }
        }
        unstored
    }

    /// What is held against this worker could not be stored: what was before still is.
    pub fn not_stored(&mut self, worker_id: &Arc<str>, before: Option<Reproach>, now: Timestamp) {
        let session_id = self.roster.of_worker(worker_id).map(|session| session.record.session_id);
        if let Some(session) = session_id.and_then(|session_id| self.roster.get_mut(session_id)) {
            session.record.reproach = before;
        }
        self.reputations.changed(worker_id, now);
    }

    fn take_back(&mut self, worker_id: &str, now: Timestamp) -> bool {
        self.left_aside.remove(worker_id);
        let Some(session_id) = self.roster.of_worker(worker_id).map(|session| session.record.session_id)
        else {
            return false;
        };
        let reputation = self.reputations.score(worker_id, now);
        if let Some(session) = self.roster.get_mut(session_id) {
            session.aside_until = None;
            session.reputation = reputation;
        }
        self.replace(session_id);
        self.pump(session_id, now);
        true
    }

    /// Tells a worker what became of its result. Unless it is to be sent again, the task has left its slot.
    pub fn answer(&mut self, session_id: SessionId, task_id: TaskId, verdict: Verdict, now: Timestamp) {
        let Some(session) = self.roster.get_mut(session_id) else { return };
        session.outbox.send(ToWorker::Ack { task_id, verdict });
        let is_held = self.leases.get(&task_id).is_some_and(|lease| lease.session_id == session_id);
        match verdict {
            Verdict::RetryLater => return,
            // The job could not be judged at all: the lease stays until its time is over, so that the job is not forgotten.
            Verdict::Refused(_) if is_held => return,
            Verdict::Applied | Verdict::Refused(_) => {}
        }
        session.release(task_id);
        // It may have been told to stop after it had answered.
        self.stopping.forget(session_id, task_id);
        if is_held {
            self.drop_lease(task_id);
        }
        self.replace(session_id);
        self.pump(session_id, now);
    }

    /// The worker's last word on how far a task is. Ignored unless it holds the task. One that says nothing of a checkpoint leaves
    /// the last one as it is.
    pub fn progress(
        &mut self,
        session_id: SessionId,
        task_id: TaskId,
        mut progress: Progress,
        now: Timestamp,
    ) -> Option<JobId> {
        let lease = self.leases.get_mut(&task_id).filter(|lease| lease.session_id == session_id)?;
        let before = lease.progress.take().and_then(|before| before.checkpoint);
        if progress.checkpoint.is_none() {
            progress.checkpoint = before;
        } else if progress.checkpoint != before {
            self.saving.said(task_id, &mut lease.saved, lease.dispatched_at, now);
        }
        lease.progress = Some(progress);
        Some(lease.job_id)
    }

    /// The next checkpoint that is to be stored now. Each is returned once.
    pub fn next_unsaved(&mut self, now: Timestamp) -> Option<Unsaved> {
        let task_id = self.saving.next(now)?;
        let lease = self.leases.get_mut(&task_id)?;
        lease.saved.store(now);
        let (job_id, worker_id) = (lease.job_id, lease.worker_id.clone());
        Some(Unsaved { task_id, job_id, worker_id, checkpoint: lease.checkpoint()? })
    }

    /// Leases whose time has been over for [`DEADLINE_GRACE`], at most `limit`. Each is returned once.
    pub fn expired(&mut self, now: Timestamp, limit: usize) -> Vec<Orphan> {
        let mut expired = Vec::new();
        while expired.len() < limit
            && let Some(&(due, task_id)) = self.deadlines.first()
            && due <= now
        {
            self.deadlines.pop_first();
            if let Some(lease) = self.leases.get(&task_id) {
                let (job_id, worker_id) = (lease.job_id, lease.worker_id.clone());
                expired.push(Orphan { task_id, job_id, worker_id, checkpoint: lease.checkpoint() });
            }
        }
        expired
    }

    /// When [`Dispatch::expired`], [`Dispatch::adoption_over`], [`Dispatch::back_from_aside`], [`Dispatch::take_unstored`],
    /// [`Dispatch::next_unsaved`] or [`Dispatch::next_unstopped`] next have something to say.
    pub fn next_due(&self) -> Option<Timestamp> {
        let expires = self.deadlines.first().map(|(due, _)| *due);
        let (saving, stopping) = (self.saving.next_due(), self.stopping.next_due());
        [expires, self.adoption.until(), self.reputations.next_due(), saving, stopping]
            .into_iter()
            .flatten()
            .min()
    }

    // ---- All of it ----

    /// Hands out whatever can be handed out.
    pub fn pump_all(&mut self, now: Timestamp) {
        let waiting = self.classes.iter().map(|(class, _)| class).filter(|&class| self.ready.len(class) > 0);
        let waiting: Vec<ClassId> = waiting.collect();
        while let Some(class) = self.next_of(waiting.iter().copied()) {
            self.hand_out(class, now);
        }
    }

    /// What clients weigh from now on; whoever is not named weighs 1.
    pub fn set_weights(&mut self, weights: HashMap<Arc<str>, u32>) {
        self.ready.set_weights(weights);
    }

    /// Hands out nothing more, and tells the workers why.
    pub fn pause(&mut self) {
        self.paused = true;
        for session in self.roster.iter() {
            session.outbox.send(ToWorker::Draining);
        }
    }

    /// The tasks that came into a worker's hands since the last call.
    pub fn take_handed(&mut self) -> Vec<Handed> {
        std::mem::take(&mut self.handed)
    }

    /// Ready tasks by type.
    pub fn ready_counts(&self) -> BTreeMap<Arc<str>, u64> {
        let mut counts = BTreeMap::new();
        for (class, Class { task_type, .. }) in self.classes.iter() {
            let count = self.ready.len(class) as u64;
            if count > 0 {
                *counts.entry(task_type.clone()).or_default() += count;
            }
        }
        counts
    }

    /// Since when the oldest ready task of each type has been ready. Costs a look at one task of each client and priority.
    pub fn oldest(&self) -> Vec<(Arc<str>, Timestamp)> {
        let mut oldest: BTreeMap<Arc<str>, Timestamp> = BTreeMap::new();
        for (class, Class { task_type, .. }) in self.classes.iter() {
            if let Some(since) = self.ready.oldest(class) {
                oldest
                    .entry(task_type.clone())
                    .and_modify(|least| *least = since.min(*least))
                    .or_insert(since);
            }
        }
        oldest.into_iter().collect()
    }

    /// Tasks in workers' hands.
    pub fn lease_count(&self) -> usize {
        self.leases.len()
    }

    // ---- Inside ----

    /// The class of these tasks. A new one gets its order of workers, and takes the place of others if there are many.
    fn class_of(&mut self, task_type: &Arc<str>, needs: Option<&Arc<str>>) -> ClassId {
        let (class, is_new) = self.classes.of(task_type, needs);
        if is_new {
            let forgotten = self.classes.forget_unused(|class| self.ready.len(class) > 0);
            if !forgotten.is_empty() {
                self.placement.forget(&forgotten);
                forgotten.iter().for_each(|&class| self.ready.forget_class(class));
            }
            for session in self.roster.serving(task_type) {
                self.placement.place(session, &self.classes);
            }
        }
        class
    }

    /// Hands out what this session's free slots are good for. A class whose first task is aside waits for its offer; the others
    /// go on.
    fn pump(&mut self, session_id: SessionId, now: Timestamp) {
        while let Some(class) = self.next_of(self.placement.classes_of(session_id)) {
            self.hand_out(class, now);
        }
    }

    /// Which of these classes goes next: one that has a task and a worker.
    fn next_of(&self, classes: impl IntoIterator<Item = ClassId>) -> Option<ClassId> {
        let able = classes.into_iter().filter(|&class| self.may_hand_out(class));
        let heads = able.filter_map(|class| Some((self.ready.head(class)?, class)));
        heads.min().map(|(_, class)| class)
    }

    /// Whether a task of this class would find a worker.
    fn may_hand_out(&self, class: ClassId) -> bool {
        !self.paused
            && self.placement.has_free(class)
            && !self.adoption.awaits(&self.classes.get(class).task_type)
    }

    fn hand_out(&mut self, class: ClassId, now: Timestamp) {
        if let Some(offer) = self.ready.pop(class) {
            self.hand_over(class, offer, now);
        }
    }

    /// The caller has seen that the class has a worker.
    fn hand_over(&mut self, class: ClassId, offer: Offer, now: Timestamp) {
        let free = self.placement.free_count(class);
        tracing::info!(job = %offer.job_id, task = %offer.task_id, "Found {free} available workers");
        match self.placement.choose(class) {
            Some(session_id) => self.assign(class, session_id, offer, now),
            None => self.ready.push(class, offer),
        }
    }

    fn assign(&mut self, class: ClassId, session_id: SessionId, offer: Offer, now: Timestamp) {
        self.put_lease(session_id, &offer, now);
        if let Some(session) = self.roster.get_mut(session_id) {
            let worker_id = &session.record.worker.worker_id;
            tracing::info!(
                job = %offer.job_id,
                task = %offer.task_id,
                worker = %worker_id,
                "Dispatching task '{}' to worker {worker_id} (strategy: {})",
                offer.task_type,
                self.classes.get(class).strategy().as_str(),
            );
            session.occupy(offer.task_id, &offer.task_type);
            self.handed.push(Handed::of(&offer, false, now));
            let deadline = now + offer.timeout;
            session.outbox.send(ToWorker::Task(Box::new(Assignment { offer, deadline })));
        }
        self.replace(session_id);
    }

    fn put_lease(&mut self, session_id: SessionId, offer: &Offer, now: Timestamp) {
        let Some(session) = self.roster.get(session_id) else { return };
        let lease = Lease {
            session_id,
            worker_id: session.record.worker.worker_id.clone(),
            job_id: offer.job_id,
            task_type: offer.task_type.clone(),
            dispatched_at: now,
            deadline: now + offer.timeout,
            progress: None,
            saved: Saved::default(),
        };
        self.deadlines.insert((lease.deadline + DEADLINE_GRACE, offer.task_id));
        self.leases.insert(offer.task_id, lease);
    }

    fn drop_lease(&mut self, task_id: TaskId) -> Option<Lease> {
        let lease = self.leases.remove(&task_id)?;
        self.deadlines.remove(&(lease.deadline + DEADLINE_GRACE, task_id));
        self.saving.forget(task_id, lease.saved);
        Some(lease)
    }

    /// The stream is over on which a worker was told to stop these.
    fn forget_orders(&mut self, session_id: SessionId, task_ids: &[TaskId]) {
        for &task_id in task_ids {
            self.stopping.forget(session_id, task_id);
        }
    }

    /// Ends this session's lease of a task; `None` when the task was withdrawn from it before.
    fn orphan(&mut self, session_id: SessionId, task_id: TaskId) -> Option<Orphan> {
        self.leases.get(&task_id).filter(|lease| lease.session_id == session_id)?;
        let lease = self.drop_lease(task_id)?;
        Some(Orphan {
            task_id,
            job_id: lease.job_id,
            checkpoint: lease.checkpoint(),
            worker_id: lease.worker_id,
        })
    }

    /// Puts the session where its free slots now belong.
    fn replace(&mut self, session_id: SessionId) {
        if let Some(session) = self.roster.get(session_id) {
            self.placement.place(session, &self.classes);
        }
    }
}

#[cfg(test)]
mod tests;
