//! What a human does for a job that does not get on by itself: try again, say how a state shall have ended, move it to another
//! version of its blueprint. Each leaves an entry in the history that says who and why.

use std::sync::Arc;

use avtomatika_proto::limits::PAYLOAD_BYTES_MAX;

use super::{
    HistoryEvent, JobStatus, Refusal, Retry, STATE_HISTORY_BYTES_MAX, Skip, Wait,
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
            if !self.job.is_branch() && self.check_input().is_err() {
                return Err(Refusal::InputInvalid);
            }
        }
        self.reopen();
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
        let entry = self.note(HistoryEvent::StateSkipped);
        entry.outcome = Some(skip.outcome.clone());
        entry.by = Some(skip.by.clone());
        entry.detail = skip.reason.clone();
        Ok(Step::Go { outcome: Some(skip.outcome.clone()), next })
    }

    /// The context's blueprint is the version to move to. A job whose state is there and does the same kind of thing stays where
    /// it is and goes on as it would have; another state is entered anew.
    pub fn migrate(&mut self, state: Option<&Arc<str>>, by: &Arc<str>) -> Result<Step, Refusal> {
        let to = state.unwrap_or(&self.job.state).clone();
        let branch_is_gone = || self.job.is_branch() && (to != self.job.state || !self.stands_rightly());
        if self.context.blueprint.state(&to).is_none() || branch_is_gone() {
            return Err(Refusal::NoSuchState);
        }
        let from = self.job.blueprint_version;
        let version = self.context.blueprint.version;
        self.job.blueprint_version = version;
        self.job.migrated = true;
        let entry = self.note(HistoryEvent::JobMigrated);
        entry.by = Some(by.clone());
        entry.detail = Some(Arc::from(format!("version {from} to {version}")));
        if to == self.job.state && self.stands_rightly() {
            return Ok(Step::Stay);
        }
        self.withdraw("the job has moved to another version of its blueprint");
        self.stop_waiting();
        self.job.attempt = None;
        self.forget_tries();
        self.enter(to);
        Ok(self.visit())
    }

    /// Whether what the job waits for is what its state, as the context's blueprint has it, would have it wait for.
    fn stands_rightly(&self) -> bool {
        let Some(state) = self.state() else { return false };
        match (&self.job.wait, &state.kind) {
            (Some(Wait::Start), _)
            | (Some(Wait::Timer), StateKind::Wait(_))
            | (Some(Wait::Signal { .. }), StateKind::Event(_))
            | (Some(Wait::Approval { .. }), StateKind::Approval(_)) => true,
            (Some(Wait::Children(children)), StateKind::Run(run)) => run.waits && children.total == 1,
            (Some(Wait::Children(children)), StateKind::Map(map)) => self.count(map) == Ok(children.total),
            (Some(_), _) => false,
            // It has a task, or waits to try it again.
            (None, _) => self.has_work(),
        }
    }

    /// The state to begin with again.
    fn failed_state(&self) -> Arc<str> {
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

    fn enter(&mut self, state: Arc<str>) {
        let from = std::mem::replace(&mut self.job.state, state);
        let entry = self.note(HistoryEvent::StateEntered);
        entry.from_state = Some(from);
    }
}

/// Edited data, unless it is larger than data may be.
fn within(data: Json, bytes_max: usize) -> Result<Json, Refusal> {
    if data.as_str().len() <= bytes_max { Ok(data) } else { Err(Refusal::DataTooLarge) }
}
