//! Workers come and go, and what they hold goes with them or comes back.
//!
//! It promises that after each step every task that was handed out is held by one session or given back to whoever asked. It refuses to
//! know how a worker's silence is noticed, and when a session becomes durable.

use std::{collections::HashSet, sync::Arc};

use avtomatika_proto::{SessionId, TaskId};

use super::{Dispatch, Handed, Orphan, Outbox, Reconciled, Session, ToWorker, reputation::REPUTATIONS_MAX};
use crate::{store::SessionRecord, time::Timestamp};

impl Dispatch {
    /// A session has opened its stream. Its tasks are reconciled, and the welcome is the first thing it is sent. A task that is
    /// aside is not found: whatever of `held` is among [`Dispatch::aside_among`] has to be supplied before.
    ///
    /// A session that is connected already gets its stream replaced: what it still has, it keeps.
    pub fn connect(
        &mut self,
        record: &SessionRecord,
        held: &[TaskId],
        outbox: Outbox,
        now: Timestamp,
    ) -> (u64, Reconciled) {
        let session_id = record.session_id;
        self.adoption.settle(session_id);
        let before = self.roster.get(session_id).map(Session::occupied).unwrap_or_default();
        self.forget_orders(session_id, &before);
        let worker_id = &record.worker.worker_id;
        self.left_aside.remove(worker_id);
        // It may have been marked between its registration and now.
        if record.reproach != self.reputations.reproach(worker_id) {
            self.reputations.changed(worker_id, now);
        }
        let stream = self.roster.connect(record, outbox, now);
        let mut reconciled = Reconciled::default();
        for &task_id in held {
            match self.adopt(session_id, task_id, now) {
                true => reconciled.adopted.push(task_id),
                false => reconciled.dropped.push(task_id),
            }
        }
        let held: HashSet<TaskId> = held.iter().copied().collect();
        let missing = before.into_iter().filter(|task_id| !held.contains(task_id));
        reconciled.orphans = missing.filter_map(|task_id| self.orphan(session_id, task_id)).collect();
        if let Some(session) = self.roster.get_mut(session_id) {
            session.vacate();
            session.reputation = self.reputations.score(worker_id, now);
            session.aside_until = self.reputations.aside_until(worker_id);
            for task_id in &reconciled.adopted {
                let task_type = self.leases.get(task_id).map(|lease| &*lease.task_type);
                session.occupy(*task_id, task_type.unwrap_or_default());
            }
            session.outbox.send(ToWorker::Welcome {
                adopted: reconciled.adopted.clone(),
                dropped: reconciled.dropped.clone(),
            });
        }
        // No credits yet: a session whose stream was replaced gives up its old place.
        self.replace(session_id);
        (stream, reconciled)
    }

    /// Whether the task is, or now becomes, this session's.
    fn adopt(&mut self, session_id: SessionId, task_id: TaskId, now: Timestamp) -> bool {
        if let Some(lease) = self.leases.get(&task_id) {
            return lease.session_id == session_id;
        }
        // A ready task that a worker says it has: the orchestrator that gave it out is gone, and this is the same attempt.
        match self.ready.take(task_id) {
            Some(offer) => {
                let job_id = offer.job_id;
                tracing::info!(job = %job_id, task = %task_id, "Task {task_id} of job {job_id} is adopted: its worker still has it");
                self.put_lease(session_id, &offer, now);
                self.handed.push(Handed::of(&offer, true, now));
                true
            }
            None => false,
        }
    }

    /// The session's stream has ended, or was replaced by another session of the same worker. What it held is returned.
    pub fn disconnect(&mut self, session_id: SessionId) -> Vec<Orphan> {
        self.placement.remove(session_id);
        let Some(session) = self.roster.remove(session_id) else { return Vec::new() };
        let (held, worker) = (session.occupied(), session.record.worker);
        if session.aside_until.is_some() && self.left_aside.len() < REPUTATIONS_MAX {
            self.left_aside.insert(worker.worker_id.clone(), worker);
        }
        self.forget_orders(session_id, &held);
        held.into_iter().filter_map(|task_id| self.orphan(session_id, task_id)).collect()
    }

    /// The worker is willing to hold this many tasks.
    pub fn credits(&mut self, session_id: SessionId, slots: u32, now: Timestamp) {
        let Some(session) = self.roster.get_mut(session_id) else { return };
        session.slots = slots.min(session.record.worker.slots);
        self.replace(session_id);
        self.pump(session_id, now);
    }

    /// What the worker says of itself.
    pub fn worker_state(&mut self, session_id: SessionId, hot_cache: Vec<Arc<str>>, load: f64) {
        if let Some(session) = self.roster.get_mut(session_id) {
            session.hot_cache = hot_cache;
            session.load = Some(load.clamp(0.0, 1.0));
            self.replace(session_id);
        }
    }

    /// The worker has been silent for so long that it may be lost, or is heard again. Meanwhile it gets nothing.
    pub fn suspect(&mut self, session_id: SessionId, suspected: bool, now: Timestamp) {
        if let Some(session) = self.roster.get_mut(session_id) {
            session.suspected = suspected;
            self.replace(session_id);
            self.pump(session_id, now);
        }
    }

    /// The worker's stream is over, and the worker may come back with what it holds. Meanwhile it gets nothing.
    pub fn away(&mut self, session_id: SessionId) {
        if let Some(session) = self.roster.get_mut(session_id) {
            (session.suspected, session.away) = (true, true);
            self.replace(session_id);
        }
    }

    /// Somebody wants the worker to stop in order: it gets no more tasks, and is told. Whether it is connected.
    pub fn drain_worker(&mut self, worker_id: &str) -> bool {
        let Some(session) = self.roster.of_worker(worker_id) else { return false };
        let session_id = session.record.session_id;
        session.outbox.send(ToWorker::Drain);
        self.drain(session_id);
        true
    }

    /// The worker takes no more tasks.
    pub fn drain(&mut self, session_id: SessionId) {
        if let Some(session) = self.roster.get_mut(session_id) {
            session.draining = true;
            self.replace(session_id);
        }
    }

    /// Sessions that did not take what they were sent: their readers are gone or hopelessly behind. Without those that are away.
    pub fn broken(&self) -> Vec<SessionId> {
        let broken = self.roster.iter().filter(|session| !session.away && session.outbox.is_broken());
        let mut broken: Vec<SessionId> = broken.map(|session| session.record.session_id).collect();
        broken.sort_unstable();
        broken
    }

    // ---- After a restart ----

    /// The recorded session with this id that is expected back, if it is.
    pub fn expected(&self, session_id: SessionId) -> Option<&SessionRecord> {
        self.adoption.expected(session_id)
    }

    /// How many sessions are expected back.
    pub fn expected_count(&self) -> usize {
        self.adoption.expected_count()
    }

    /// Until when tasks of this type wait for workers of before the restart; `None` when they do not.
    pub fn awaited(&self, task_type: &str) -> Option<Timestamp> {
        self.adoption.until().filter(|_| self.adoption.awaits(task_type))
    }

    /// The session that is expected back from this worker.
    pub fn expected_of_worker(&self, worker_id: &str) -> Option<&SessionRecord> {
        self.adoption.of_worker(worker_id)
    }

    /// The session is no longer expected: its worker has registered anew.
    pub fn give_up_expected(&mut self, session_id: SessionId, now: Timestamp) {
        self.adoption.settle(session_id);
        self.pump_all(now);
    }

    /// Ends the adoption window if its time has come; returns the sessions that did not come back.
    pub fn adoption_over(&mut self, now: Timestamp) -> Vec<SessionId> {
        self.adoption.over(now)
    }
}
