//! Who is connected: one entry per open task stream, with its slots and what it says of itself.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use avtomatika_proto::{SessionId, TaskId};

use super::{Farewell, Outbox, ToWorker};
use crate::{
    conductor::{WorkerStatus, WorkerView},
    hash::FastMap,
    store::{SessionRecord, WorkerRecord},
    time::Timestamp,
};

/// A connected worker.
#[derive(Debug)]
pub struct Session {
    /// The session as stored, with what the worker said of itself.
    pub record: SessionRecord,
    /// Counts the session's streams, so that the end of an old one is not taken for the end of the new one.
    pub stream: u64,
    /// Where its messages go.
    pub outbox: Outbox,
    /// Tasks that it is willing to hold.
    pub slots: u32,
    /// It takes no more tasks.
    pub draining: bool,
    /// It has been silent for longer than it should, and gets no tasks until it is heard again.
    pub suspected: bool,
    /// Its stream is over, and it is waited for: it may come back with what it holds.
    pub away: bool,
    /// Tasks that it was told to stop and did not stop in time.
    pub unstopped: u32,
    /// It gets no tasks until then: too many jobs have failed on it.
    pub aside_until: Option<Timestamp>,
    /// How well its tasks end, from a little over 0 to 1.
    pub reputation: f64,
    /// Task types that it has warm.
    pub hot_cache: Vec<Arc<str>>,
    /// Its own view of its load.
    pub load: Option<f64>,
    /// When its stream was opened.
    pub connected_at: Timestamp,
    /// Tasks that fill its slots: those it holds, and those withdrawn that it has not let go of yet. With the own limit that
    /// each counts against.
    occupied: FastMap<TaskId, Option<usize>>,
    /// Its own limits.
    limits: Vec<OwnLimit>,
}

/// How many tasks of one type a worker holds at once, beside its slots.
#[derive(Debug)]
struct OwnLimit {
    task_type: Arc<str>,
    limit: u32,
    held: u32,
}

impl Session {
    /// Tasks that it could take now.
    pub fn free(&self) -> u32 {
        if self.draining || self.suspected || self.aside_until.is_some() {
            return 0;
        }
        self.slots.saturating_sub(self.held())
    }

    /// Tasks of this type that it could take now.
    pub fn free_for(&self, task_type: &str) -> u32 {
        let free = self.free();
        match self.of_type(task_type) {
            Some((held, limit)) => free.min(limit.saturating_sub(held)),
            None => free,
        }
    }

    /// How many tasks of this type it holds and how many it may, if it has a limit of its own for them.
    pub fn of_type(&self, task_type: &str) -> Option<(u32, u32)> {
        let own = self.limits.iter().find(|own| *own.task_type == *task_type)?;
        Some((own.held, own.limit))
    }

    /// A task of this type fills one of its slots.
    pub fn occupy(&mut self, task_id: TaskId, task_type: &str) {
        self.release(task_id);
        let own = self.limits.iter().position(|own| *own.task_type == *task_type);
        if let Some(own) = own {
            self.limits[own].held += 1;
        }
        self.occupied.insert(task_id, own);
    }

    /// A task has left its slot.
    pub fn release(&mut self, task_id: TaskId) {
        if let Some(Some(own)) = self.occupied.remove(&task_id) {
            self.limits[own].held -= 1;
        }
    }

    /// How many tasks fill its slots.
    pub fn held(&self) -> u32 {
        u32::try_from(self.occupied.len()).unwrap_or(u32::MAX)
    }

    /// The tasks that fill its slots.
    pub fn occupied(&self) -> Vec<TaskId> {
        let mut occupied: Vec<TaskId> = self.occupied.keys().copied().collect();
        // In an order of its own: what follows from the same events is the same.
        occupied.sort_unstable();
        occupied
    }

    /// Nothing fills its slots.
    pub fn vacate(&mut self) {
        self.occupied.clear();
        self.limits.iter_mut().for_each(|own| own.held = 0);
    }

    /// What it is doing.
    pub fn status(&self) -> WorkerStatus {
        match () {
            () if self.suspected => WorkerStatus::Suspected,
            () if self.draining => WorkerStatus::Draining,
            () if self.aside_until.is_some() => WorkerStatus::SetAside,
            () if self.held() == 0 => WorkerStatus::Idle,
            () if self.free() == 0 => WorkerStatus::Full,
            () => WorkerStatus::Busy,
        }
    }

    /// What others may see of it.
    pub fn view(&self) -> WorkerView {
        let running = self.held();
        WorkerView {
            worker: self.record.worker.clone(),
            status: self.status(),
            running_tasks: running,
            load: self.load.unwrap_or(f64::from(running) / f64::from(self.record.worker.slots.max(1))),
            hot_cache: self.hot_cache.clone(),
            reputation: self.reputation,
            aside_until: self.aside_until,
            unstopped_tasks: self.unstopped,
            connected_at: self.connected_at,
        }
    }
}

fn own_limits(worker: &WorkerRecord) -> Vec<OwnLimit> {
    let limits = worker.terms.iter().filter_map(|(task_type, terms)| Some((task_type, terms.limit?)));
    limits.map(|(task_type, limit)| OwnLimit { task_type: task_type.clone(), limit, held: 0 }).collect()
}

/// The connected workers.
#[derive(Debug, Default)]
pub struct Roster {
    sessions: FastMap<SessionId, Session>,
    by_worker: HashMap<Arc<str>, SessionId>,
    /// The sessions that serve each task type.
    serving: HashMap<Arc<str>, BTreeSet<SessionId>>,
    streams: u64,
}

impl Roster {
    /// Adds a session, or gives a connected one its new stream; the old stream is told so. Returns the stream's number.
    pub fn connect(&mut self, record: &SessionRecord, outbox: Outbox, now: Timestamp) -> u64 {
        self.streams += 1;
        let session = Session {
            record: record.clone(),
            stream: self.streams,
            outbox,
            slots: 0,
            draining: false,
            suspected: false,
            away: false,
            unstopped: 0,
            aside_until: None,
            reputation: 1.0,
            hot_cache: Vec::new(),
            load: None,
            connected_at: now,
            occupied: FastMap::default(),
            limits: own_limits(&record.worker),
        };
        self.by_worker.insert(record.worker.worker_id.clone(), record.session_id);
        if let Some(before) = self.sessions.insert(record.session_id, session) {
            before.outbox.send(ToWorker::Goodbye(Farewell::StreamTaken));
            self.serves_no_more(&before);
        }
        for task_type in &record.worker.task_types {
            self.serving.entry(task_type.clone()).or_default().insert(record.session_id);
        }
        self.streams
    }

    /// Removes a session.
    pub fn remove(&mut self, session_id: SessionId) -> Option<Session> {
        let session = self.sessions.remove(&session_id)?;
        if self.by_worker.get(&session.record.worker.worker_id) == Some(&session_id) {
            self.by_worker.remove(&session.record.worker.worker_id);
        }
        self.serves_no_more(&session);
        Some(session)
    }

    /// Whether anybody serves tasks of this type, with a free slot or without.
    pub fn is_served(&self, task_type: &str) -> bool {
        self.serving.contains_key(task_type)
    }

    /// How many serve tasks of this type, with a free slot or without.
    pub fn serving_count(&self, task_type: &str) -> usize {
        self.serving.get(task_type).map_or(0, BTreeSet::len)
    }

    /// Those who serve tasks of this type.
    pub fn serving(&self, task_type: &str) -> impl Iterator<Item = &Session> {
        let serving = self.serving.get(task_type).into_iter().flatten();
        serving.filter_map(|session_id| self.sessions.get(session_id))
    }

    /// The task types that somebody serves.
    pub fn served_types(&self) -> impl Iterator<Item = &Arc<str>> {
        self.serving.keys()
    }

    fn serves_no_more(&mut self, session: &Session) {
        for task_type in &session.record.worker.task_types {
            if let Some(serving) = self.serving.get_mut(task_type) {
                serving.remove(&session.record.session_id);
                if serving.is_empty() {
                    self.serving.remove(task_type);
                }
            }
        }
    }

    /// The session with this id.
    pub fn get(&self, session_id: SessionId) -> Option<&Session> {
        self.sessions.get(&session_id)
    }

    /// The session with this id, to change it.
    pub fn get_mut(&mut self, session_id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&session_id)
    }

    /// The session of the worker with this name.
    pub fn of_worker(&self, worker_id: &str) -> Option<&Session> {
        self.sessions.get(self.by_worker.get(worker_id)?)
    }

    /// Every session.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values()
    }

    /// How many are connected.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}
