//! After a restart: who is expected back, and which task types wait for them.
//!
//! A session that was open when the orchestrator stopped may still hold tasks that read as ready. They are handed to nobody
//! else until that session is back and has said what it holds, or until the window is over.

use std::collections::HashMap;

use avtomatika_proto::SessionId;

use crate::{store::SessionRecord, time::Timestamp};

/// The sessions of before the restart.
#[derive(Debug, Default)]
pub struct Adoption {
    expected: HashMap<SessionId, SessionRecord>,
    until: Option<Timestamp>,
}

impl Adoption {
    /// Expects these sessions until then.
    pub fn expect(sessions: Vec<SessionRecord>, until: Timestamp) -> Self {
        let expected: HashMap<_, _> =
            sessions.into_iter().map(|session| (session.session_id, session)).collect();
        let until = (!expected.is_empty()).then_some(until);
        Self { expected, until }
    }

    /// Whether tasks of this type wait for somebody.
    pub fn awaits(&self, task_type: &str) -> bool {
        self.expected
            .values()
            .any(|session| session.worker.task_types.iter().any(|served| **served == *task_type))
    }

    /// The expected session with this id.
    pub fn expected(&self, session_id: SessionId) -> Option<&SessionRecord> {
        self.expected.get(&session_id)
    }

    /// This session is back.
    pub fn returned(&mut self, session_id: SessionId) {
        self.expected.remove(&session_id);
        self.close_if_empty();
    }

    /// The worker has registered anew: its old sessions will not come back.
    pub fn forget_worker(&mut self, worker_id: &str) -> Vec<SessionId> {
        let gone: Vec<SessionId> = self
            .expected
            .values()
            .filter(|session| *session.worker.worker_id == *worker_id)
            .map(|session| session.session_id)
            .collect();
        for session_id in &gone {
            self.expected.remove(session_id);
        }
        self.close_if_empty();
        gone
    }

    /// When the window ends; `None` once it has.
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// Ends the window if its time has come; returns who did not come back.
    pub fn over(&mut self, now: Timestamp) -> Vec<SessionId> {
        match self.until {
            Some(until) if until <= now => {
                self.until = None;
                self.expected.drain().map(|(session_id, _)| session_id).collect()
            }
            _ => Vec::new(),
        }
    }

    fn close_if_empty(&mut self) {
        if self.expected.is_empty() {
            self.until = None;
        }
    }
}
