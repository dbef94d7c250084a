//! What a human does for a job that does not get on by itself: try again, say how a state shall have ended. Each leaves an entry in
//! the history that says who and why.

use std::sync::Arc;

use avtomatika_proto::limits::PAYLOAD_BYTES_MAX;

use super::{
    HistoryEvent, JobStatus, REPAIR_KEYS_MAX, Refusal, RepairKey, Retry, STATE_HISTORY_BYTES_MAX, Skip, Wait,
    code,
    draft::{Draft, Step},
};
use crate::{blueprint::StateKind, json::Json};

impl Draft<'_, '_> {
    pub fn retry(&mut self, retry: &Retry) -> Result<Step, Refusal> {
        if !self.job.status.is_repairable() {
            return Err(Refusal::NotRetryable);
        }
        let state = retry.state.clone().unwrap_or_else(|| self.failed_state());
        if self.context.blueprint.state(&state).is_none() || self.job.is_branch() && state != self.job.state {
            return Err(Refusal::NoSuchState);
        }
        if let Some(edit) = &retry.state_history {
            self.job.state_history = within(edit.apply(&self.job.state_history), STATE_HISTORY_BYTES_MAX)?;
        }
        if let Some(edit) = &retry.initial_data {
            self.job.edited_data = Some(within(edit.apply(self.job.initial_data()), PAYLOAD_BYTES_MAX)?);
        }
        // A child may have failed because of its input.
        let was_invalid = self.job.error.as_ref().is_some_and(|error| &*error.code == code::INPUT_INVALID);
        if (was_invalid || retry.initial_data.is_some())
            && !self.job.is_branch()
            && self.check_input().is_err()
        {
            return Err(Refusal::InputInvalid);
        }
        self.reopen();
        self.remember(retry.key.as_ref());
        let entry = self.note(HistoryEvent::JobRetried);
        entry.by = Some(retry.by.clone());
        entry.detail = retry.reason.clone();
        self.enter(state);
        Ok(if self.job.is_branch() { self.make_ready(1) } else { self.visit() })
    }

    pub fn skip(&mut self, skip: &Skip) -> Result<Step, Refusal> {
        let ended = self.job.status.is_terminal();
        if ended && !self.job.status.is_repairable() {
            return Err(Refusal::NotRetryable);
        }
        if matches!(self.job.wait, Some(Wait::Start)) || self.job.is_branch() {
            return Err(Refusal::NoSuchTransition);
        }
        if ended {
            self.job.state = self.failed_state();
        }
        let is_map = matches!(self.state().map(|state| &state.kind), Some(StateKind::Map(_)));
        let next = match &self.state().ok_or(Refusal::NoSuchState)?.kind {
            StateKind::Wait(wait) => Some(wait.next.clone()),
            StateKind::Pass(pass) => Some(pass.next.clone()),
            _ => self.transition(&skip.outcome),
        };
        let next = next.ok_or(Refusal::NoSuchTransition)?;
        self.job.state_history = within(self.job.state_history.merged(&skip.data), STATE_HISTORY_BYTES_MAX)?;
        self.withdraw("a human has decided how its state ends");
        self.stop_waiting();
        if ended {
            self.reopen();
        }
        self.job.attempt = None;
        self.job.error = None;
        self.job.outcome = Some(skip.outcome.clone());
        self.job.result = Some(skip.data.clone());
        if is_map {
            // Those of an earlier map would be taken for its own.
            self.job.results = Some(Arc::from("[]"));
        }
        self.remember(skip.key.as_ref());
        let entry = self.note(HistoryEvent::StateSkipped);
        entry.outcome = Some(skip.outcome.clone());
        entry.by = Some(skip.by.clone());
        entry.detail = skip.reason.clone();
        Ok(Step::Go { outcome: Some(skip.outcome.clone()), next })
    }

    fn remember(&mut self, key: Option<&RepairKey>) {
        let Some(key) = key else { return };
        if self.job.repair_keys.len() == REPAIR_KEYS_MAX {
            self.job.repair_keys.remove(0);
        }
        self.job.repair_keys.push(key.clone());
    }

    /// The state to begin with again.
    pub fn failed_state(&self) -> Arc<str> {
        self.job.failed_state.clone().unwrap_or_else(|| self.job.state.clone())
    }

    /// A job that has ended goes on, with all its time and all its moves.
    fn reopen(&mut self) {
        self.job.status = JobStatus::Pending;
        self.job.error = None;
        self.job.finished_at = None;
        self.job.transitions = 0;
        self.job.restarted_at = Some(self.context.now);
        self.forget_tries();
    }

    pub fn enter(&mut self, state: Arc<str>) {
        let from = std::mem::replace(&mut self.job.state, state);
        let entry = self.note(HistoryEvent::StateEntered);
        entry.from_state = Some(from);
    }
}

/// Edited data, unless it is larger than data may be.
fn within(data: Json, bytes_max: usize) -> Result<Json, Refusal> {
    if data.as_str().len() <= bytes_max { Ok(data) } else { Err(Refusal::DataTooLarge) }
}
