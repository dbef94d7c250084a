//! A decision in the making: the job as it will be, what its history will say, what is to be done.
//!
//! The other files of the engine change a draft step by step. What every step needs is here: notes, ends, transitions.

use std::{cell::Cell, sync::Arc};

use avtomatika_proto::outcome;

use super::{
    Context, Decision, Effect, HistoryEntry, HistoryEvent, Job, JobError, JobStatus, KeyScope, Notice,
    Refusal, STATE_HISTORY_BYTES_MAX, code,
};
use crate::{
    blueprint::{ExprError, Scope, State, StateKind, Template, Transitions},
    json::Json,
    time::Timestamp,
};

/// Where a job goes from here.
pub(super) enum Step {
    /// To this state.
    Go {
        /// What selected the transition, when something ended with it.
        outcome: Option<Arc<str>>,
        next: Arc<str>,
    },
    /// Nowhere: it waits for something, or has ended.
    Stay,
}

/// The decision in the making.
pub(super) struct Draft<'a, 'b> {
    pub job: Job,
    pub entries: Vec<HistoryEntry>,
    pub effects: Vec<Effect>,
    pub context: &'a mut Context<'b>,
    /// Whether the keys of the job were taken by this very decision.
    pub has_claimed_job: bool,
    /// Steps that its expressions have taken so far.
    pub steps: Cell<u64>,
}

impl<'a, 'b> Draft<'a, 'b> {
    pub fn of(job: &Job, context: &'a mut Context<'b>) -> Self {
        let mut job = job.clone();
        job.updated_at = context.now;
        Self {
            job,
            entries: Vec::new(),
            effects: Vec::new(),
            context,
            has_claimed_job: false,
            steps: Cell::default(),
        }
    }

    pub fn into_decision(mut self) -> Decision {
        self.settle_claims();
        self.job.history_len += self.entries.len() as u64;
        Decision { job: self.job, entries: self.entries, effects: self.effects }
    }

    /// What expressions see of the job. What they take counts together.
    pub fn scope(&self, now: Timestamp) -> Scope<'_> {
        Scope { turn: Some(&self.steps), ..self.job.scope(now) }
    }

    /// The state in which the job stands.
    pub fn state(&self) -> Option<&'b State> {
        self.context.blueprint.state(&self.job.state)
    }

    /// The transitions of the present state, by outcome. A branch has none: it ends with its task.
    pub fn transitions(&self) -> Option<&'b Transitions> {
        if self.job.is_branch() {
            return None;
        }
        self.state()?.kind.transitions()
    }

    /// Where this outcome leads.
    pub fn transition(&self, outcome: &str) -> Option<Arc<str>> {
        self.transitions()?.get(outcome).cloned()
    }

    /// The state ended with this outcome. One that leads nowhere fails the job.
    pub fn go(&mut self, outcome: &str) -> Step {
        match self.transition(outcome) {
            Some(next) => Step::Go { outcome: Some(Arc::from(outcome)), next },
            None => {
                let message = format!("State {:?} has no transition for {outcome:?}", self.job.state);
                self.end(JobStatus::Failed, Some(error(code::UNHANDLED_OUTCOME, message)))
            }
        }
    }

    /// The state failed with this outcome: its transition, or that of a failure, or the end.
    pub fn fail(&mut self, outcome: &str, error: JobError, uncaught: JobStatus) -> Step {
        self.job.failed_state = Some(self.job.state.clone());
        let next = self.transition(outcome).or_else(|| self.transition(outcome::FAILURE));
        let Some(next) = next else { return self.end(uncaught, Some(error)) };
        self.job.error = Some(error);
        Step::Go { outcome: Some(Arc::from(outcome)), next }
    }

    pub fn end(&mut self, status: JobStatus, error: Option<JobError>) -> Step {
        let event = match status {
            JobStatus::Finished => HistoryEvent::JobFinished,
            JobStatus::Cancelled => HistoryEvent::JobCancelled,
            JobStatus::Quarantined => HistoryEvent::JobQuarantined,
            _ => HistoryEvent::JobFailed,
        };
        self.note(event).error = error.clone();
        let at_end = self.state().is_some_and(|state| matches!(state.kind, StateKind::End(_)));
        if !at_end && matches!(status, JobStatus::Failed | JobStatus::Quarantined) {
            self.job.failed_state = Some(self.job.state.clone());
        }
        self.stop_waiting();
        self.job.status = status;
        self.job.error = error;
        self.job.attempt = None;
        self.job.checkpoint = None;
        if !status.is_repairable() {
            self.job.signals = Vec::new();
        }
        self.job.finished_at = Some(self.context.now);
        if self.job.submission.webhook_url.is_some() {
            self.effects.push(Effect::Notify(Notice::JobEnded));
        }
        Step::Stay
    }

    /// Whatever the job waited for beside a task, it waits for it no more.
    pub fn stop_waiting(&mut self) {
        self.effects.extend(self.job.children().cloned().map(Effect::CancelChildren));
        if self.job.awaited_keys() == Some(KeyScope::Job) {
            // It was never its own.
            self.job.claim = None;
        }
        self.job.wait = None;
        self.job.resumes_at = None;
    }

    /// Takes the current attempt back from the queue or from its worker.
    pub fn withdraw(&mut self, reason: &str) {
        if let Some(attempt) = &self.job.attempt {
            self.effects.push(Effect::Withdraw { task_id: attempt.task_id, reason: Arc::from(reason) });
        }
    }

    /// Merges data into the state history, as it is or as a mapping says. The data becomes the job's result.
    pub fn take_data(&mut self, data: &Json, output: Option<&Template>) -> Result<(), JobError> {
        let before = self.job.result.replace(data.clone());
        let mapped = match output {
            Some(output) => self.render_object(output, "an output mapping"),
            None => Ok(data.clone()),
        };
        let merged = mapped.and_then(|mapped| self.merged(&mapped));
        match merged {
            Ok(merged) => {
                self.job.state_history = merged;
                Ok(())
            }
            Err(error) => {
                self.job.result = before;
                Err(error)
            }
        }
    }

    /// The state history with this over it.
    pub fn merged(&self, newer: &Json) -> Result<Json, JobError> {
        let merged = self.job.state_history.merged(newer);
        let bytes = merged.as_str().len();
        self.scope(self.context.now).pay_for_text(bytes).map_err(|reason| {
            let message = format!("State {:?}: to merge into the state_history: {reason}", self.job.state);
            error(code::EXPRESSION, message)
        })?;
        if bytes <= STATE_HISTORY_BYTES_MAX {
            return Ok(merged);
        }
        let message =
            format!("The state_history would have {bytes} bytes; the limit is {STATE_HISTORY_BYTES_MAX}");
        Err(error(code::DATA_TOO_LARGE, message))
    }

    /// The object that a template gives.
    pub fn render_object(&self, template: &Template, what: &str) -> Result<Json, JobError> {
        let value = template.render(&self.scope(self.context.now)).map_err(|cause| self.no_value(&cause))?;
        value
            .to_object()
            .ok_or_else(|| error(code::EXPRESSION, format!("What {what} gives must be an object")))
    }

    /// An expression of the present state has no value.
    pub fn no_value(&self, cause: &ExprError) -> JobError {
        no_value(&self.job.state, cause)
    }

    /// Adds a history entry about the job as it stands.
    pub fn note(&mut self, event: HistoryEvent) -> &mut HistoryEntry {
        let attempt = self.job.attempt.as_ref();
        let entry = HistoryEntry {
            sequence: self.job.history_len + self.entries.len() as u64,
            at: self.context.now,
            event,
            state: self.job.state.clone(),
            from_state: None,
            outcome: None,
            task_id: attempt.map(|attempt| attempt.task_id),
            attempt: attempt.map(|attempt| attempt.number),
            worker_id: None,
            error: None,
            duration: None,
            by: None,
            detail: None,
        };
        self.entries.push(entry);
        self.entries.last_mut().expect("an entry was pushed on the line before")
    }

    /// Whether the job has taken its first step.
    pub fn require_pending(&self) -> Result<(), Refusal> {
        if self.job.status == JobStatus::Pending { Ok(()) } else { Err(Refusal::AlreadyStarted) }
    }
}

/// An expression of this state has no value.
pub(super) fn no_value(state: &str, cause: &ExprError) -> JobError {
    error(code::EXPRESSION, format!("State {state:?}: {cause}"))
}

pub(super) fn error(code: &str, message: impl Into<Arc<str>>) -> JobError {
    JobError { code: Arc::from(code), message: message.into() }
}
