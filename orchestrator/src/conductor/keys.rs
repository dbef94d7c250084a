//! The gate at work: jobs get the keys that they waited for, or give up one that is taken from them.
//!
//! What a job holds is decided and stored with the job; what becomes of the others follows at once, in the same batch if there is room
//! in it, so that a key is never seen free while somebody waits for it. A token is stored in the transaction in which it is taken.

use avtomatika_proto::{ApiError, ErrorCode, JobId};

use super::{
    core::{AGAIN_AFTER, Core},
    gate::{Next, Seat},
};
use crate::{
    engine::{Decision, Event, HistoryEvent, Job, JobError, JobStatus, code},
    store::{StoreError, Write},
    time::Timestamp,
};

/// What the gate knew of a job before a decision that changed it.
pub(super) struct SeatBefore(Option<Seat>);

impl Core {
    /// Tells the gate of a job that was decided. `had_claims` says whether it had to do with keys before. Costs nothing where a job
    /// has nothing to do with keys.
    pub fn pass_gate(&mut self, job: &Job, had_claims: bool) -> Option<Box<SeatBefore>> {
        if !had_claims && !job.has_claims() {
            return None;
        }
        let now = self.clock.now();
        Some(Box::new(SeatBefore(self.gate.put(job, now))))
    }

    /// The decision has come to nothing.
    pub fn put_back(&mut self, id: JobId, before: Option<Box<SeatBefore>>) {
        if let Some(before) = before {
            self.gate.put_back(id, before.0, self.clock.now());
        }
    }

    /// When the gate has to be tended next.
    pub fn gate_due(&self) -> Option<Timestamp> {
        let is_busy = self.gate.is_busy() && self.has_room();
        let at_once = is_busy.then_some(Timestamp::from_micros(0));
        let due = [at_once, self.gate.next_due()].into_iter().flatten().min();
        let paused_until = self.gate_paused_until;
        due.filter(|_| self.draining.is_none()).map(|due| paused_until.map_or(due, |until| due.max(until)))
    }

    /// Whether nobody gets a turn for now: the process is stopping, or the store could not be read a moment ago.
    pub fn gate_is_held_up(&self, now: Timestamp) -> bool {
        self.draining.is_some() || self.gate_paused_until.is_some_and(|until| until > now)
    }

    /// Lets those have their keys whose turn it is, for as long as there is room in the batch.
    pub fn tend_gate(&mut self, now: Timestamp) {
        self.gate.advance(now);
        if self.gate_is_held_up(now) {
            return;
        }
        self.gate_paused_until = None;
        while self.has_room()
            && let Some(next) = self.gate.next()
        {
            let (id, event) = match next {
                Next::Grant(id) => (id, Event::KeysGranted),
                Next::Displace(id, displaced) => (id, Event::Displaced(displaced)),
            };
            match self.load_open(id) {
                Ok(Some(job)) => match self.decide(&job, self.without_strangers(&job, event), false) {
                    Ok(_) => {}
                    Err(refusal) => self.leave_out(id, now, &refusal.to_string()),
                },
                Ok(None) => self.leave_out(id, now, "the store does not have it"),
                Err(error @ StoreError::Corrupt { .. }) => self.leave_out(id, now, &error.to_string()),
                Err(error) => {
                    tracing::error!(%error, hint = error.hint(), "a job that waits for a key cannot be read");
                    self.gate_paused_until = Some(now + AGAIN_AFTER);
                    return;
                }
            }
        }
    }

    /// Nobody is told of another client's job.
    fn without_strangers(&self, job: &Job, mut event: Event) -> Event {
        if let Event::Displaced(displaced) = &mut event {
            let is_own = |by: &JobId| {
                let newer = self.load_open(*by).ok().flatten();
                newer.is_some_and(|newer| newer.client == job.client)
            };
            displaced.by = displaced.by.filter(is_own);
        }
        event
    }

    /// The job as last decided, which is open.
    fn load_open(&self, id: JobId) -> Result<Option<std::sync::Arc<Job>>, StoreError> {
        match self.book.resident(id) {
            Some(job) => Ok(Some(job.clone())),
            None => Ok(self.store.load(id)?.map(std::sync::Arc::new)),
        }
    }

    /// A job that cannot go on must not hold up the others; it stays open, and whoever asks for it is told.
    fn leave_out(&mut self, id: JobId, now: Timestamp, reason: &str) {
        tracing::error!(
            "Job {id} has to do with a key and cannot go on, so the key goes on without it: {reason}"
        );
        self.gate.give_up(id, now);
    }

    /// Puts what became of buckets into the batch that is about to be stored.
    pub fn store_buckets(&mut self, now: Timestamp) {
        let spent = self.gate.take_spent();
        self.batch.writes.writes.extend(spent.into_iter().map(Write::PutBucket));
        if self.gate.take_forgotten(now) {
            self.batch.writes.writes.push(Write::ForgetBuckets(now));
        }
    }
}

impl Decision {
    /// Why a new job is not accepted: one of its keys has no room, and nobody waits for such a one.
    pub(super) fn turned_away(&self) -> Option<ApiError> {
        let is_at_the_door = |event| {
            matches!(event, HistoryEvent::JobAccepted | HistoryEvent::StateEntered | HistoryEvent::JobFailed)
        };
        let has_done_nothing =
            self.job.transitions == 0 && self.entries.iter().all(|entry| is_at_the_door(entry.event));
        let error = self.job.error.as_ref().filter(|_| self.job.status == JobStatus::Failed)?;
        let is_refused = has_done_nothing && *error.code == *code::KEY_LIMIT_REACHED;
        is_refused.then(|| key_limit_reached(error))
    }
}

fn key_limit_reached(error: &JobError) -> ApiError {
    ApiError::new(ErrorCode::KeyLimitReached, error.message.to_string())
}
