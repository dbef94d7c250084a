//! Sessions that are registered and have not opened their stream yet.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use avtomatika_proto::SessionId;

use crate::{store::SessionRecord, time::Timestamp};

/// How long a registered worker may take to open its stream.
pub const STREAM_WITHIN: Duration = Duration::from_secs(10);

/// The waiting room. Every operation costs the same however many wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    sessions: HashMap<SessionId, SessionRecord>,
    by_worker: HashMap<Arc<str>, SessionId>,
    /// Workers whose registration is being made durable: with which credential, and how many registrations.
    coming: HashMap<Arc<str>, ([u8; 32], usize)>,
    /// In the order of registration, which is the order in which patience ends.
    until: VecDeque<(Timestamp, SessionId)>,
}

impl Waiting {
    /// A session is being made durable.
    pub fn comes(&mut self, record: &SessionRecord) {
        let coming = self.coming.entry(record.worker.worker_id.clone()).or_insert((record.credential, 0));
        coming.1 += 1;
    }

    /// It is durable, or could not be made so.
    pub fn has_come(&mut self, record: &SessionRecord) {
        let Some((_, registrations)) = self.coming.get_mut(&record.worker.worker_id) else { return };
        *registrations -= 1;
        if *registrations == 0 {
            self.coming.remove(&record.worker.worker_id);
        }
    }

    /// The credential of this worker, if its registration is being made durable.
    pub fn credential_of_coming(&self, worker_id: &str) -> Option<[u8; 32]> {
        self.coming.get(worker_id).map(|(credential, _)| *credential)
    }

    /// Lets a session wait from now on.
    pub fn insert(&mut self, record: SessionRecord, now: Timestamp) {
        let session_id = record.session_id;
        self.by_worker.insert(record.worker.worker_id.clone(), session_id);
        self.sessions.insert(session_id, record);
        self.until.push_back((now + STREAM_WITHIN, session_id));
    }

    /// The waiting session with this id.
    pub fn get(&self, session_id: SessionId) -> Option<&SessionRecord> {
        self.sessions.get(&session_id)
    }

    /// The waiting session of this worker.
    pub fn of_worker(&self, worker_id: &str) -> Option<SessionId> {
        self.by_worker.get(worker_id).copied()
    }

    /// The session waits no more.
    pub fn remove(&mut self, session_id: SessionId) {
        if let Some(record) = self.sessions.remove(&session_id) {
            self.by_worker.remove(&record.worker.worker_id);
        }
    }

    /// How many wait, or will.
    pub fn len(&self) -> usize {
        self.sessions.len() + self.coming.len()
    }

    /// When patience next ends.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.until.front().map(|(until, _)| *until)
    }

    /// Takes out those who have waited too long.
    pub fn expired(&mut self, now: Timestamp) -> Vec<SessionId> {
        let mut expired = Vec::new();
        while let Some(&(until, session_id)) = self.until.front()
            && until <= now
        {
            self.until.pop_front();
            if self.sessions.contains_key(&session_id) {
                self.remove(session_id);
                expired.push(session_id);
            }
        }
        expired
    }
}
