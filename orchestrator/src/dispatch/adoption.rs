//! After a restart: who is expected back, and which task types wait for them.
//!
//! A session that was open when the orchestrator stopped may still hold tasks that read as ready. They are handed to nobody
//! else until that session is back and has said what it holds, or until the window is over.

use std::{collections::HashMap, sync::Arc};

use avtomatika_proto::SessionId;

use crate::{store::SessionRecord, time::Timestamp};

/// The sessions of before the restart.
#[derive(Debug, Default)]
pub struct Adoption {
    expected: HashMap<SessionId, SessionRecord>,
    by_worker: HashMap<Arc<str>, SessionId>,
    /// How many expected sessions serve each task type.
    serving: HashMap<Arc<str>, usize>,
    until: Option<Timestamp>,
}

impl Adoption {
    /// Expects these sessions until then.
    pub fn expect(sessions: Vec<SessionRecord>, until: Timestamp) -> Self {
        let mut adoption = Self::default();
        for session in sessions {
            for task_type in &session.worker.task_types {
                *adoption.serving.entry(task_type.clone()).or_default() += 1;
            }
            adoption.by_worker.insert(session.worker.worker_id.clone(), session.session_id);
            adoption.expected.insert(session.session_id, session);
        }
        adoption.until = (!adoption.expected.is_empty()).then_some(until);
        adoption
    }

    /// Whether tasks of this type wait for somebody.
    pub fn awaits(&self, task_type: &str) -> bool {
        self.serving.contains_key(task_type)
    }

    /// How many are expected back that serve this type.
    pub fn awaited(&self, task_type: &str) -> usize {
        self.serving.get(task_type).copied().unwrap_or(0)
    }

    /// How many sessions are expected back.
    pub fn expected_count(&self) -> usize {
        self.expected.len()
    }

    /// The expected session with this id.
    pub fn expected(&self, session_id: SessionId) -> Option<&SessionRecord> {
        self.expected.get(&session_id)
    }

    /// The expected session of this worker.
    pub fn of_worker(&self, worker_id: &str) -> Option<&SessionRecord> {
        self.expected.get(self.by_worker.get(worker_id)?)
    }

    /// This session is back, or will not come back.
    pub fn settle(&mut self, session_id: SessionId) {
        let Some(session) = self.expected.remove(&session_id) else { return };
        self.by_worker.remove(&session.worker.worker_id);
        for task_type in &session.worker.task_types {
            if let Some(count) = self.serving.get_mut(task_type) {
                *count -= 1;
                if *count == 0 {
                    self.serving.remove(task_type);
                }
            }
        }
        if self.expected.is_empty() {
            self.until = None;
        }
    }

    /// When the window ends; `None` once it has.
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// Ends the window if its time has come; returns who did not come back.
    pub fn over(&mut self, now: Timestamp) -> Vec<SessionId> {
        if self.until.is_none_or(|until| until > now) {
            return Vec::new();
        }
        let mut missing: Vec<SessionId> = self.expected.keys().copied().collect();
        missing.sort_unstable();
        *self = Self::default();
        missing
    }
}
