//! From one state of a job to the next: the total function over (job, event).
//!
//! [`decide`] first asks whether the event concerns the job as it is; if not, the answer is a [`Refusal`]. Otherwise a
//! [`Draft`] of the job is changed step by step, each step leaving its history entry, until the job waits for something
//! or has ended. What a step does is in the file of what it is about: tasks, pauses, children, repair.

use std::sync::Arc;

use avtomatika_proto::outcome;

use super::{
    Context, Decision, Event, HistoryEvent, Job, JobError, JobStatus, Refusal, Wait, code,
    draft::{Draft, Step, error},
};
use crate::{
    blueprint::{ChoiceState, Data, End, EndState, PassState, StateKind},
    museum::{Mistake, plants},
};

/// What follows from `event` for `job`.
///
/// # Errors
/// A [`Refusal`] when the event does not concern the job as it is; the job then stays as it is.
pub fn decide(job: &Job, event: &Event, context: &mut Context<'_>) -> Result<Decision, Refusal> {
    check_key(job, event)?;
    if job.status.is_terminal() {
        match event {
            Event::Reported(report) if job.settled_task == Some(report.task_id) => {
                return Err(Refusal::Duplicate);
            }
            // Its sender did not hear that it was taken.
            Event::Signalled(signal) if signal.id.as_ref().is_some_and(|id| job.signal_ids.contains(id)) => {
                return Err(Refusal::SignalRepeated);
            }
            Event::Reported(_) if job.status == JobStatus::Cancelled && plants(Mistake::CancelledRevived) => {
            }
            Event::RetryRequested(_) | Event::SkipRequested(_) | Event::MigrateRequested(_)
                if job.never_began() =>
            {
                return Err(Refusal::NeverBegan);
            }
            Event::RetryRequested(_) | Event::SkipRequested(_) | Event::MigrateRequested(_)
                if job.status.is_repairable() => {}
            Event::RetryRequested(_) | Event::SkipRequested(_) => return Err(Refusal::NotRetryable),
            _ => return Err(Refusal::JobTerminal),
        }
    }
    // Whoever stands nowhere can still be moved, or let go.
    let needs_state =
        !matches!(event, Event::MigrateRequested(_) | Event::CancelRequested { .. } | Event::Displaced(_));
    if needs_state && context.blueprint.state(&job.state).is_none() {
        return Err(Refusal::StateUnknown);
    }
    let mut draft = Draft::of(job, context);
    let step = match event {
        Event::Submitted => draft.start()?,
        Event::Stillborn(error) => draft.stillborn(error)?,
        Event::Reported(report) => draft.reported(report)?,
        Event::WorkerLost { task_id, worker_id, checkpoint } => {
            draft.worker_lost(*task_id, worker_id, checkpoint.as_ref())?
        }
        Event::AttemptTimedOut { task_id, worker_id, checkpoint } => {
            draft.attempt_timed_out(*task_id, worker_id, checkpoint.as_ref())?
        }
        Event::Checkpointed { task_id, worker_id, checkpoint } => {
            draft.checkpointed(*task_id, worker_id, checkpoint)?
        }
        Event::NotOfferable { task_id } => draft.not_offerable(*task_id)?,
        Event::Signalled(signal) => draft.signalled(signal)?,
        Event::Decided(ruling) => draft.decided(ruling)?,
        Event::ChildrenEnded(harvest) => draft.children_ended(harvest)?,
        Event::KeysGranted => draft.keys_granted()?,
        Event::Displaced(displaced) => draft.displaced(displaced)?,
        Event::RetryRequested(retry) => draft.retry(retry)?,
        Event::SkipRequested(skip) => draft.skip(skip)?,
        Event::MigrateRequested(migration) => draft.migrate(migration)?,
        Event::Due { task_is_held } => draft.due(*task_is_held)?,
        Event::CancelRequested { reason } => draft.cancel(reason.as_ref()),
    };
    draft.walk(step);
    if matches!(event, Event::MigrateRequested(_)) {
        draft.check_migrated(job)?;
    }
    Ok(draft.into_decision())
}

/// Whether a repair comes for the first time. Its sender may not have heard that it was done, whatever the job does since.
fn check_key(job: &Job, event: &Event) -> Result<(), Refusal> {
    let key = match event {
        Event::RetryRequested(retry) => retry.key.as_ref(),
        Event::SkipRequested(skip) => skip.key.as_ref(),
        _ => None,
    };
    let heard = key.and_then(|key| Some((key, job.repair_keys.iter().find(|heard| heard.id == key.id)?)));
    match heard {
        None => Ok(()),
        Some((key, heard)) if heard == key => Err(Refusal::RepairRepeated),
        Some(_) => Err(Refusal::RepairKeyTaken),
    }
}

impl Draft<'_, '_> {
    // ---- Events ----

    fn start(&mut self) -> Result<Step, Refusal> {
        self.require_pending()?;
        self.note(HistoryEvent::JobAccepted);
        let start_at = self.job.submission.start_at.filter(|start_at| *start_at > self.context.now);
        if let Some(start_at) = start_at {
            let delay = start_at.saturating_since(self.context.now);
            self.job.status = JobStatus::WaitingForTimer;
            self.job.wait = Some(Wait::Start);
            self.job.resumes_at = Some(start_at);
            self.note(HistoryEvent::WaitStarted).duration = Some(delay);
            return Ok(Step::Stay);
        }
        Ok(self.begin())
    }

    /// The first step.
    pub(super) fn begin(&mut self) -> Step {
        self.note(HistoryEvent::StateEntered);
        if self.job.is_branch() {
            return self.make_ready(1);
        }
        if self.job.submission.parent.is_some()
            && let Err(error) = self.check_input()
        {
            return self.end(JobStatus::Failed, Some(error));
        }
        self.visit()
    }

    /// Whether a child's input fits its blueprint. A client's was looked at before the job was accepted.
    pub(super) fn check_input(&self) -> Result<(), JobError> {
        let Some(schema) = &self.context.blueprint.input_schema else { return Ok(()) };
        let input = serde_json::Value::Object(self.job.initial_data().to_map());
        schema.check("initial_data", &input).map_err(|cause| error(code::INPUT_INVALID, cause.to_string()))
    }

    /// A child that cannot be started leaves a record all the same.
    fn stillborn(&mut self, error: &JobError) -> Result<Step, Refusal> {
        self.require_pending()?;
        self.note(HistoryEvent::JobAccepted);
        Ok(self.end(JobStatus::Failed, Some(error.clone())))
    }

    fn due(&mut self, task_is_held: bool) -> Result<Step, Refusal> {
        let now = self.context.now;
        let passed = |deadline: Option<_>| deadline.is_some_and(|deadline| deadline <= now);
        if passed(self.job.result_deadline()) {
            self.withdraw("the job has run out of time");
            let message = "The job did not reach its end within its result_timeout";
            return Ok(self.end(JobStatus::Failed, Some(error(code::RESULT_TIMEOUT, message))));
        }
        if passed(self.job.resumes_at) {
            return Ok(self.resume());
        }
        if !task_is_held && passed(self.job.dispatch_deadline()) {
            return Ok(self.dispatch_timed_out());
        }
        Err(Refusal::NothingDue)
    }

    fn cancel(&mut self, reason: Option<&Arc<str>>) -> Step {
        self.withdraw("the job was cancelled");
        let error = reason.map(|reason| error(code::CANCELLED, reason.clone()));
        self.end(JobStatus::Cancelled, error)
    }

    // ---- States ----

    /// Goes from state to state until the job waits or has ended. The blueprint's limit of transitions bounds the walk.
    fn walk(&mut self, mut step: Step) {
        while let Step::Go { outcome, next } = step {
            let limit = self.context.blueprint.max_transitions;
            if self.job.transitions >= limit {
                let message = format!("The job has made {limit} moves, the most that its blueprint allows");
                self.end(JobStatus::Quarantined, Some(error(code::TRANSITION_LIMIT, message)));
                return;
            }
            self.stop_waiting();
            let from = std::mem::replace(&mut self.job.state, next);
            self.job.transitions += 1;
            if self.job.failed_state.is_none() && self.is_at_failed_end() {
                // Nothing has failed, and a retry of an end would be no use.
                self.job.failed_state = Some(from.clone());
            }
            self.forget_tries();
            let entry = self.note(HistoryEvent::StateEntered);
            entry.from_state = Some(from);
            entry.outcome = outcome;
            step = self.visit();
        }
    }

    fn is_at_failed_end(&self) -> bool {
        let kind = self.state().map(|state| &state.kind);
        matches!(kind, Some(StateKind::End(EndState { end: End::Failed, .. })))
    }

    /// What was counted in a state does not count in the next one.
    pub(super) fn forget_tries(&mut self) {
        self.job.retry_count = 0;
        self.job.workers_lost = 0;
        self.job.checkpoint = None;
    }

    /// Does what the present state says.
    pub(super) fn visit(&mut self) -> Step {
        let Some(state) = self.state() else {
            // The loader lets no transition lead to a state that is not there.
            let message = format!("The blueprint has no state {:?}", self.job.state);
            return self.end(JobStatus::Quarantined, Some(error(code::STATE_UNKNOWN, message)));
        };
        if !matches!(state.kind, StateKind::End(_))
            && let Some(step) = self.claim_job()
        {
            return step;
        }
        match &state.kind {
            StateKind::Task(_) => self.make_ready(1),
            StateKind::Choice(choice) => self.choose(choice),
            StateKind::Pass(pass) => self.pass(pass),
            StateKind::Wait(wait) => self.start_wait(wait),
            StateKind::Event(event) => self.await_signal(event),
            StateKind::Approval(approval) => self.ask_human(approval),
            StateKind::Run(run) => self.start_child(run),
            StateKind::Map(map) => self.start_branches(map),
            StateKind::End(end) => self.reach_end(end),
        }
    }

    /// To the next state, or to the job's end for the sake of an error of its blueprint.
    pub(super) fn go_or_fail(&mut self, next: Result<Arc<str>, JobError>) -> Step {
        match next {
            Ok(next) => Step::Go { outcome: None, next },
            Err(error) => self.end(JobStatus::Failed, Some(error)),
        }
    }

    fn choose(&mut self, choice: &ChoiceState) -> Step {
        let next = self.chosen(choice);
        self.go_or_fail(next)
    }

    fn chosen(&self, choice: &ChoiceState) -> Result<Arc<str>, JobError> {
        let scope = self.scope(self.context.now);
        let data = Data::new(&scope);
        for (condition, next) in &choice.when {
            if condition.holds(&data).map_err(|cause| self.no_value(&cause))? {
                return Ok(next.clone());
            }
        }
        choice.otherwise.clone().ok_or_else(|| {
            let message = format!("No condition of state {:?} holds and it has no else", self.job.state);
            error(code::NO_CHOICE, message)
        })
    }

    fn pass(&mut self, pass: &PassState) -> Step {
        let merged = self.render_object(&pass.set, "a pass state").and_then(|set| self.merged(&set));
        let next = merged.map(|merged| {
            self.job.state_history = merged;
            pass.next.clone()
        });
        self.go_or_fail(next)
    }

    fn reach_end(&mut self, end: &EndState) -> Step {
        if let Some(result) = &end.result {
            match self.render_object(result, "the result of an end state") {
                Ok(result) => self.job.result = Some(result),
                Err(error) => {
                    self.job.failed_state = Some(self.job.state.clone());
                    return self.end(JobStatus::Failed, Some(error));
                }
            }
        }
        match end.end {
            End::Finished => self.end(JobStatus::Finished, None),
            End::Failed => {
                let error = self.job.error.take().unwrap_or_else(|| self.bad_end());
                self.end(JobStatus::Failed, Some(error))
            }
        }
    }

    /// A bad end that no error led to at once. A state that failed on the way is named: what came after it may have undone what was
    /// done before it.
    fn bad_end(&self) -> JobError {
        let mut message = format!("The job ended in state {:?}", self.job.state);
        let entered = self.entries.iter().rev().find(|entry| entry.event == HistoryEvent::StateEntered);
        let from = entered.and_then(|entry| entry.from_state.as_ref());
        if let Some(failed) = self.job.failed_state.as_ref().filter(|failed| Some(*failed) != from) {
            message.push_str(&format!("; state {failed:?} had failed before"));
        }
        error(code::END_STATE, message)
    }

    /// The time has come for which the job waited.
    fn resume(&mut self) -> Step {
        match self.job.wait {
            None => self.make_ready(self.job.retry_count + 1),
            Some(Wait::Start) => {
                self.stop_waiting();
                self.begin()
            }
            Some(Wait::Timer) => self.wait_is_over(),
            // No time is set for them.
            Some(Wait::Keys(_)) => Step::Stay,
            Some(Wait::Signal { .. } | Wait::Approval { .. } | Wait::Children(_)) => {
                self.note(HistoryEvent::WaitEnded).outcome = Some(Arc::from(outcome::TIMEOUT));
                let message = format!("What state {:?} waits for did not come in time", self.job.state);
                self.fail(outcome::TIMEOUT, error(code::WAIT_TIMEOUT, message), JobStatus::Failed)
            }
        }
    }
}
