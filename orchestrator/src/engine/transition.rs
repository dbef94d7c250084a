//! From one state of a job to the next: the total function over (job, event).
//!
//! [`decide`] first asks whether the event concerns the job as it is; if not, the answer is a [`Refusal`]. Otherwise a
//! [`Draft`] of the job is changed step by step, each step leaving its history entry, until the job waits for something
//! or has ended.

use std::{sync::Arc, time::Duration};

use avtomatika_proto::{TaskId, limits::PAYLOAD_BYTES_MAX, outcome, task_error};

use super::{
    Attempt, Context, Decision, Effect, Event, HistoryEntry, HistoryEvent, Job, JobError, JobStatus, Offer,
    Refusal, Report, STATE_HISTORY_BYTES_MAX, WORKERS_LOST_MAX,
};
use crate::{
    blueprint::{Blueprint, ChoiceState, Data, End, ExprError, PassState, RetryPolicy, StateKind, TaskState},
    json::Json,
};

/// Codes of the engine's own, beside those that workers send.
mod code {
    pub const EXPRESSION: &str = "EXPRESSION_ERROR";
    pub const NO_CHOICE: &str = "NO_CHOICE_MATCHED";
    pub const TRANSITION_LIMIT: &str = "TRANSITION_LIMIT";
    pub const UNHANDLED_OUTCOME: &str = "UNHANDLED_OUTCOME";
    pub const WORKER_LOST: &str = "WORKER_LOST";
    pub const DISPATCH_TIMEOUT: &str = "DISPATCH_TIMEOUT";
    pub const RESULT_TIMEOUT: &str = "RESULT_TIMEOUT";
    pub const DATA_TOO_LARGE: &str = "DATA_TOO_LARGE";
    pub const END_STATE: &str = "END_STATE";
    pub const CANCELLED: &str = "CANCELLED";
    pub const STATE_UNKNOWN: &str = "STATE_UNKNOWN";
}

/// What follows from `event` for `job`.
///
/// # Errors
/// A [`Refusal`] when the event does not concern the job as it is; the job then stays as it is.
pub fn decide(job: &Job, event: &Event, context: &mut Context<'_>) -> Result<Decision, Refusal> {
    if job.status.is_terminal() {
        return Err(match event {
            Event::Reported(report) if job.settled_task == Some(report.task_id) => Refusal::Duplicate,
            _ => Refusal::JobTerminal,
        });
    }
    if context.blueprint.state(&job.state).is_none() {
        return Err(Refusal::StateUnknown);
    }
    let mut draft = Draft::of(job, context);
    let step = match event {
        Event::Submitted => draft.start()?,
        Event::Reported(report) => draft.reported(report)?,
        Event::WorkerLost { task_id, worker_id } => draft.worker_lost(*task_id, worker_id)?,
        Event::AttemptTimedOut { task_id, worker_id } => draft.attempt_timed_out(*task_id, worker_id)?,
        Event::NotOfferable { task_id } => draft.not_offerable(*task_id)?,
        Event::Due { task_is_held } => draft.due(*task_is_held)?,
        Event::CancelRequested { reason } => draft.cancel(reason.as_ref()),
    };
    draft.walk(step);
    Ok(draft.into_decision())
}

/// Where a job goes from here.
enum Step {
    /// To this state.
    Go {
        /// What selected the transition, when an attempt did.
        outcome: Option<Arc<str>>,
        next: Arc<str>,
    },
    /// Nowhere: it waits for something, or has ended.
    Stay,
}

/// The decision in the making.
struct Draft<'a, 'b> {
    job: Job,
    entries: Vec<HistoryEntry>,
    effects: Vec<Effect>,
    context: &'a mut Context<'b>,
}

/// An attempt that did not succeed.
struct Failure {
    /// The transition to look for first; `failure` is the second choice.
    outcome: &'static str,
    event: HistoryEvent,
    error: JobError,
    may_retry: bool,
    /// What the job becomes when no transition catches the failure.
    uncaught: JobStatus,
}

impl<'a, 'b> Draft<'a, 'b> {
    fn of(job: &Job, context: &'a mut Context<'b>) -> Self {
        let mut job = job.clone();
        job.updated_at = context.now;
        Self { job, entries: Vec::new(), effects: Vec::new(), context }
    }

    fn into_decision(mut self) -> Decision {
        self.job.history_len += self.entries.len() as u64;
        Decision { job: self.job, entries: self.entries, effects: self.effects }
    }

    // ---- Events ----

    fn start(&mut self) -> Result<Step, Refusal> {
        if self.job.status != JobStatus::Pending {
            return Err(Refusal::AlreadyStarted);
        }
        self.note(HistoryEvent::JobAccepted);
        self.note(HistoryEvent::StateEntered);
        Ok(self.visit())
    }

    fn reported(&mut self, report: &Report) -> Result<Step, Refusal> {
        self.require_current(report.task_id)?;
        if !report.by_holder {
            return Err(Refusal::ForeignSession);
        }
        // From now on, whatever else is said of this attempt is a duplicate.
        self.job.settled_task = Some(report.task_id);
        let code = report.error.as_ref().map(|error| &*error.code);
        Ok(match &*report.outcome {
            outcome::FAILURE if code == Some(task_error::WORKER_STOPPED) => self.returned(report),
            outcome::FAILURE | outcome::TIMEOUT => {
                self.failed(classify(report), Some(&report.worker_id), report.held_for)
            }
            _ => self.ended(report),
        })
    }

    fn worker_lost(&mut self, task_id: TaskId, worker_id: &Arc<str>) -> Result<Step, Refusal> {
        let attempt = self.require_current(task_id)?;
        self.job.workers_lost += 1;
        self.note(HistoryEvent::WorkerLost).worker_id = Some(worker_id.clone());
        if self.job.workers_lost < WORKERS_LOST_MAX {
            return Ok(self.make_ready(attempt.number));
        }
        let message = format!(
            "The task was running on {WORKERS_LOST_MAX} workers when they were lost, the last of them {worker_id}"
        );
        Ok(self.end(JobStatus::Quarantined, Some(error(code::WORKER_LOST, message))))
    }

    fn attempt_timed_out(&mut self, task_id: TaskId, worker_id: &Arc<str>) -> Result<Step, Refusal> {
        self.require_current(task_id)?;
        self.withdraw("the attempt took longer than its timeout");
        Ok(self.failed(timeout_failure(None), Some(worker_id), None))
    }

    fn not_offerable(&mut self, task_id: TaskId) -> Result<Step, Refusal> {
        self.require_current(task_id)?;
        self.withdraw("its params no longer compute");
        let message = "The params of the task no longer compute, though they did when it became ready";
        Ok(self.end(JobStatus::Quarantined, Some(error(code::EXPRESSION, message))))
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
            return Ok(self.make_ready(self.job.retry_count + 1));
        }
        if !task_is_held && passed(self.job.dispatch_deadline()) {
            self.withdraw("no worker took the task within its dispatch_timeout");
            let failure = Failure {
                outcome: outcome::TIMEOUT,
                event: HistoryEvent::TaskTimedOut,
                error: error(code::DISPATCH_TIMEOUT, "No worker took the task within its dispatch_timeout"),
                may_retry: false,
                uncaught: JobStatus::Failed,
            };
            return Ok(self.failed(failure, None, None));
        }
        Err(Refusal::NothingDue)
    }

    fn cancel(&mut self, reason: Option<&Arc<str>>) -> Step {
        self.withdraw("the job was cancelled");
        let error = reason.map(|reason| error(code::CANCELLED, reason.clone()));
        self.end(JobStatus::Cancelled, error)
    }

    // ---- Results ----

    /// The attempt, if it is the one that the job waits for.
    fn require_current(&self, task_id: TaskId) -> Result<Attempt, Refusal> {
        match &self.job.attempt {
            Some(attempt) if attempt.task_id == task_id => Ok(attempt.clone()),
            _ if self.job.settled_task == Some(task_id) => Err(Refusal::Duplicate),
            _ => Err(Refusal::StaleTask),
        }
    }

    /// The worker gave the attempt back unfinished: another one is ready at once, and nothing is counted against the task.
    fn returned(&mut self, report: &Report) -> Step {
        let entry = self.note(HistoryEvent::TaskReturned);
        entry.worker_id = Some(report.worker_id.clone());
        entry.duration = report.held_for;
        let number = self.job.retry_count + 1;
        self.make_ready(number)
    }

    /// The attempt ended with an outcome of its own choice: success, cancelled or a custom one.
    fn ended(&mut self, report: &Report) -> Step {
        let merged = self.job.state_history.merged(&report.data);
        if let Err(error) = check_history_size(&merged) {
            return self.failed(permanent_failure(error), Some(&report.worker_id), report.held_for);
        }
        let cancelled = &*report.outcome == outcome::CANCELLED;
        let kind = if cancelled { HistoryEvent::TaskCancelled } else { HistoryEvent::TaskSucceeded };
        let entry = self.note(kind);
        entry.outcome = Some(report.outcome.clone());
        entry.worker_id = Some(report.worker_id.clone());
        entry.duration = report.held_for;
        self.job.attempt = None;
        self.job.state_history = merged;
        self.job.result = Some(report.data.clone());
        self.job.error = None;
        match self.transition(&report.outcome) {
            Some(next) => Step::Go { outcome: Some(report.outcome.clone()), next },
            None if cancelled => self.end(JobStatus::Cancelled, report.error.clone()),
            None => {
                let message = format!("Worker returned unhandled status: {}", report.outcome);
                self.end(JobStatus::Failed, Some(error(code::UNHANDLED_OUTCOME, message)))
            }
        }
    }

    /// The attempt did not succeed: try again, follow a transition, or end.
    fn failed(&mut self, failure: Failure, worker_id: Option<&Arc<str>>, held_for: Option<Duration>) -> Step {
        let entry = self.note(failure.event);
        entry.outcome = Some(Arc::from(failure.outcome));
        entry.worker_id = worker_id.cloned();
        entry.error = Some(failure.error.clone());
        entry.duration = held_for;
        self.job.attempt = None;
        if failure.may_retry
            && let Some(task) = self.task_state()
            && self.job.retry_count < task.work.retry.max_retries
        {
            return self.schedule_retry(&task.work.retry, failure.error);
        }
        let next = self.transition(failure.outcome).or_else(|| self.transition(outcome::FAILURE));
        if let Some(next) = next {
            self.job.error = Some(failure.error);
            return Step::Go { outcome: Some(Arc::from(failure.outcome)), next };
        }
        let mut error = failure.error;
        if failure.may_retry {
            let attempts = self.job.retry_count + 1;
            error.message = Arc::from(format!("Task failed after {attempts} attempts: {}", error.message));
        }
        self.end(failure.uncaught, Some(error))
    }

    fn schedule_retry(&mut self, policy: &RetryPolicy, error: JobError) -> Step {
        self.job.retry_count += 1;
        let delay = policy.delay(self.job.retry_count, self.context.entropy.next_fraction());
        self.job.status = JobStatus::WaitingForTimer;
        self.job.resumes_at = Some(self.context.now + delay);
        self.job.error = Some(error);
        let attempt = self.job.retry_count + 1;
        let entry = self.note(HistoryEvent::RetryScheduled);
        entry.attempt = Some(attempt);
        entry.duration = Some(delay);
        Step::Stay
    }

    // ---- States ----

    /// Goes from state to state until the job waits or has ended. The blueprint's limit of transitions bounds the walk.
    fn walk(&mut self, mut step: Step) {
        while let Step::Go { outcome, next } = step {
            let limit = self.context.blueprint.max_transitions;
            if self.job.transitions == limit {
                let message = format!("The job has made {limit} moves, the most that its blueprint allows");
                self.end(JobStatus::Quarantined, Some(error(code::TRANSITION_LIMIT, message)));
                return;
            }
            let from = std::mem::replace(&mut self.job.state, next);
            self.job.transitions += 1;
            self.job.retry_count = 0;
            self.job.workers_lost = 0;
            let entry = self.note(HistoryEvent::StateEntered);
            entry.from_state = Some(from);
            entry.outcome = outcome;
            step = self.visit();
        }
    }

    /// Does what the present state says.
    fn visit(&mut self) -> Step {
        let Some(state) = self.context.blueprint.state(&self.job.state) else {
            // The loader lets no transition lead to a state that is not there.
            let message = format!("The blueprint has no state {:?}", self.job.state);
            return self.end(JobStatus::Quarantined, Some(error(code::STATE_UNKNOWN, message)));
        };
        let next = match &state.kind {
            StateKind::Task(_) => return self.make_ready(1),
            StateKind::End(end) => return self.reach_end(end.end),
            StateKind::Choice(choice) => self.choose(choice),
            StateKind::Pass(pass) => self.pass(pass),
            // The loader makes none of the others yet.
            _ => return Step::Stay,
        };
        match next {
            Ok(next) => Step::Go { outcome: None, next },
            Err(error) => self.end(JobStatus::Failed, Some(error)),
        }
    }

    fn choose(&self, choice: &ChoiceState) -> Result<Arc<str>, JobError> {
        let scope = self.job.scope();
        let data = Data::new(&scope);
        for (condition, next) in &choice.when {
            if condition.holds(&data).map_err(expression_error)? {
                return Ok(next.clone());
            }
        }
        choice.otherwise.clone().ok_or_else(|| {
            error(
                code::NO_CHOICE,
                format!("No condition of state {:?} holds and it has no else", self.job.state),
            )
        })
    }

    fn pass(&mut self, pass: &PassState) -> Result<Arc<str>, JobError> {
        let value = pass.set.render(&self.job.scope()).map_err(expression_error)?;
        let serde_json::Value::Object(members) = value else {
            return Err(error(code::EXPRESSION, "What a pass state sets must be an object"));
        };
        let merged = self.job.state_history.merged(&Json::from_map(&members));
        check_history_size(&merged)?;
        self.job.state_history = merged;
        Ok(pass.next.clone())
    }

    fn reach_end(&mut self, end: End) -> Step {
        match end {
            End::Finished => self.end(JobStatus::Finished, None),
            End::Failed => {
                let error = self.job.error.take().unwrap_or_else(|| {
                    error(code::END_STATE, format!("The job ended in state {:?}", self.job.state))
                });
                self.end(JobStatus::Failed, Some(error))
            }
        }
    }

    /// A new attempt at the task of the present state, with an id of its own.
    fn make_ready(&mut self, number: u32) -> Step {
        let Some(task) = self.task_state() else {
            // Only states of kind task have attempts, retries and workers to lose.
            return Step::Stay;
        };
        self.job.resumes_at = None;
        let params = match render_params(task, &self.job) {
            Ok(params) => params,
            Err(error) => return self.failed(permanent_failure(error), None, None),
        };
        let attempt = Attempt {
            task_id: TaskId::from_random(self.context.entropy.next_u128()),
            task_type: task.work.task_type.clone(),
            number,
            ready_at: self.context.now,
        };
        self.job.status = JobStatus::WaitingForWorker;
        self.effects.push(Effect::Offer(offer(&self.job, &attempt, task, params)));
        self.job.attempt = Some(attempt);
        self.note(HistoryEvent::TaskReady);
        Step::Stay
    }

    fn end(&mut self, status: JobStatus, error: Option<JobError>) -> Step {
        let event = match status {
            JobStatus::Finished => HistoryEvent::JobFinished,
            JobStatus::Cancelled => HistoryEvent::JobCancelled,
            JobStatus::Quarantined => HistoryEvent::JobQuarantined,
            _ => HistoryEvent::JobFailed,
        };
        self.note(event).error = error.clone();
        self.job.status = status;
        self.job.error = error;
        self.job.attempt = None;
        self.job.resumes_at = None;
        self.job.finished_at = Some(self.context.now);
        Step::Stay
    }

    /// Takes the current attempt back from the queue or from its worker.
    fn withdraw(&mut self, reason: &str) {
        if let Some(attempt) = &self.job.attempt {
            self.effects.push(Effect::Withdraw { task_id: attempt.task_id, reason: Arc::from(reason) });
        }
    }

    // ---- Helpers ----

    fn task_state(&self) -> Option<&'b TaskState> {
        match &self.context.blueprint.state(&self.job.state)?.kind {
            StateKind::Task(task) => Some(task),
            _ => None,
        }
    }

    fn transition(&self, outcome: &str) -> Option<Arc<str>> {
        self.task_state()?.on.get(outcome).cloned()
    }

    /// Adds a history entry about the job as it stands.
    fn note(&mut self, event: HistoryEvent) -> &mut HistoryEntry {
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
        };
        self.entries.push(entry);
        self.entries.last_mut().expect("an entry was pushed on the line before")
    }
}

/// The offer of a job's current attempt, made again from the stored job: what a restart needs.
///
/// `None` when the job waits for no worker, or when its params can no longer be computed.
pub fn offer_again(job: &Job, blueprint: &Blueprint) -> Option<Offer> {
    let attempt = job.attempt.as_ref()?;
    let StateKind::Task(task) = &blueprint.state(&job.state)?.kind else { return None };
    let params = render_params(task, job).ok()?;
    Some(offer(job, attempt, task, params))
}

fn offer(job: &Job, attempt: &Attempt, task: &TaskState, params: Arc<str>) -> Offer {
    Offer {
        task_id: attempt.task_id,
        job_id: job.id,
        task_type: attempt.task_type.clone(),
        params,
        attempt: attempt.number,
        priority: job.submission.priority,
        timeout: task.work.timeout,
        ready_at: attempt.ready_at,
    }
}

fn check_history_size(state_history: &Json) -> Result<(), JobError> {
    let bytes = state_history.as_str().len();
    if bytes <= STATE_HISTORY_BYTES_MAX {
        return Ok(());
    }
    let message =
        format!("The state_history would have {bytes} bytes; the limit is {STATE_HISTORY_BYTES_MAX}");
    Err(error(code::DATA_TOO_LARGE, message))
}

fn render_params(task: &TaskState, job: &Job) -> Result<Arc<str>, JobError> {
    let value = task.work.params.render(&job.scope()).map_err(expression_error)?;
    let text = value.to_string();
    if text.len() > PAYLOAD_BYTES_MAX {
        let message =
            format!("The task's params have {} bytes; the limit is {PAYLOAD_BYTES_MAX}", text.len());
        return Err(error(code::DATA_TOO_LARGE, message));
    }
    Ok(Arc::from(text))
}

fn classify(report: &Report) -> Failure {
    if &*report.outcome == outcome::TIMEOUT {
        return timeout_failure(report.error.clone());
    }
    let reported =
        report.error.clone().unwrap_or_else(|| error(task_error::TRANSIENT, "No error message provided."));
    let (may_retry, uncaught) = match &*reported.code {
        task_error::PERMANENT | task_error::INVALID_RESULT => (false, JobStatus::Quarantined),
        task_error::INVALID_INPUT => (false, JobStatus::Failed),
        _ => (true, JobStatus::Quarantined),
    };
    let event = HistoryEvent::TaskFailed;
    Failure { outcome: outcome::FAILURE, event, error: reported, may_retry, uncaught }
}

fn timeout_failure(reported: Option<JobError>) -> Failure {
    Failure {
        outcome: outcome::TIMEOUT,
        event: HistoryEvent::TaskTimedOut,
        error: reported
            .unwrap_or_else(|| error(task_error::TIMEOUT, "The attempt took longer than its timeout")),
        may_retry: true,
        uncaught: JobStatus::Quarantined,
    }
}

/// A failure of the job's own data: trying again cannot help.
fn permanent_failure(error: JobError) -> Failure {
    Failure {
        outcome: outcome::FAILURE,
        event: HistoryEvent::TaskFailed,
        error,
        may_retry: false,
        uncaught: JobStatus::Failed,
    }
}

fn expression_error(cause: ExprError) -> JobError {
    error(code::EXPRESSION, cause.to_string())
}

fn error(code: &str, message: impl Into<Arc<str>>) -> JobError {
    JobError { code: Arc::from(code), message: message.into() }
}
