//! Attempts at a task: making them, hearing how they ended, trying again.

use std::{sync::Arc, time::Duration};

use avtomatika_proto::{TaskId, outcome, task_error};

use super::{
    Attempt, Effect, HistoryEvent, Job, JobError, JobStatus, Offer, Refusal, Report, WORKERS_LOST_MAX, code,
    draft::{Draft, Step, error, no_value},
};
use crate::{
    blueprint::{Blueprint, Branch, RetryPolicy, Scope, StateKind, TaskState, TaskWork, Template},
    json::Json,
    museum::{Mistake, plants},
    time::Timestamp,
};

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

impl<'b> Draft<'_, 'b> {
    pub fn reported(&mut self, report: &Report) -> Result<Step, Refusal> {
        let revives = self.job.status == JobStatus::Cancelled && plants(Mistake::CancelledRevived);
        if !revives {
            self.require_current(report.task_id)?;
        }
        if !report.by_holder
            && !revives
            && !plants(Mistake::StateOnlyGuard)
            && !plants(Mistake::AnyoneReports)
        {
            return Err(Refusal::ForeignSession);
        }
        // From now on, whatever else is said of this attempt is a duplicate.
        self.job.settled_task = Some(report.task_id);
        self.keep_checkpoint(report.checkpoint.as_ref());
        let code = report.error.as_ref().map(|error| &*error.code);
        Ok(match &*report.outcome {
            outcome::FAILURE if code == Some(task_error::WORKER_STOPPED) => self.returned(report),
            outcome::FAILURE | outcome::TIMEOUT => {
                self.failed(classify(report), Some(&report.worker_id), report.held_for)
            }
            _ => self.ended(report),
        })
    }

    pub fn worker_lost(
        &mut self,
        task_id: TaskId,
        worker_id: &Arc<str>,
        checkpoint: Option<&Json>,
    ) -> Result<Step, Refusal> {
        let attempt = self.require_current(task_id)?;
        self.keep_checkpoint(checkpoint);
        self.job.workers_lost += 1;
        self.note(HistoryEvent::WorkerLost).worker_id = Some(worker_id.clone());
        if self.job.workers_lost < WORKERS_LOST_MAX {
            return Ok(self.replace_attempt(attempt.number));
        }
        let message = format!(
            "The task was running on {WORKERS_LOST_MAX} workers when they were lost, the last of them {worker_id}"
        );
        Ok(self.end(JobStatus::Quarantined, Some(error(code::WORKER_LOST, message))))
    }

    pub fn attempt_timed_out(
        &mut self,
        task_id: TaskId,
        worker_id: &Arc<str>,
        checkpoint: Option<&Json>,
    ) -> Result<Step, Refusal> {
        self.require_current(task_id)?;
        self.keep_checkpoint(checkpoint);
        self.withdraw("the attempt took longer than its timeout");
        Ok(self.failed(timeout_failure(None), Some(worker_id), None))
    }

    pub fn checkpointed(
        &mut self,
        task_id: TaskId,
        worker_id: &Arc<str>,
        checkpoint: &Json,
    ) -> Result<Step, Refusal> {
        self.require_current(task_id)?;
        self.keep_checkpoint(Some(checkpoint));
        self.note(HistoryEvent::CheckpointSaved).worker_id = Some(worker_id.clone());
        Ok(Step::Stay)
    }

    pub fn not_offerable(&mut self, task_id: TaskId) -> Result<Step, Refusal> {
        self.require_current(task_id)?;
        self.withdraw("its params no longer compute");
        let message = "The params of the task no longer compute, though they did when it became ready";
        Ok(self.end(JobStatus::Quarantined, Some(error(code::EXPRESSION, message))))
    }

    pub fn dispatch_timed_out(&mut self) -> Step {
        self.withdraw("no worker took the task within its dispatch_timeout");
        let failure = Failure {
            outcome: outcome::TIMEOUT,
            event: HistoryEvent::TaskTimedOut,
            error: error(code::DISPATCH_TIMEOUT, "No worker took the task within its dispatch_timeout"),
            may_retry: false,
            uncaught: JobStatus::Failed,
        };
        self.failed(failure, None, None)
    }

    /// The attempt, if it is the one that the job waits for.
    fn require_current(&self, task_id: TaskId) -> Result<Attempt, Refusal> {
        match &self.job.attempt {
            Some(attempt) if attempt.task_id == task_id || plants(Mistake::StateOnlyGuard) => {
                Ok(attempt.clone())
            }
            _ if self.job.settled_task == Some(task_id) => Err(Refusal::Duplicate),
            _ => Err(Refusal::StaleTask),
        }
    }

    fn keep_checkpoint(&mut self, checkpoint: Option<&Json>) {
        if let Some(checkpoint) = checkpoint {
            self.job.checkpoint = Some(checkpoint.clone());
        }
    }

    /// The worker gave the attempt back unfinished: another one is ready at once, and nothing is counted against the task.
    fn returned(&mut self, report: &Report) -> Step {
        let entry = self.note(HistoryEvent::TaskReturned);
        entry.worker_id = Some(report.worker_id.clone());
        entry.duration = report.held_for;
        let number = self.job.retry_count + 1;
        self.replace_attempt(number)
    }

    /// The attempt ended with an outcome of its own choice: success, cancelled or a custom one.
    fn ended(&mut self, report: &Report) -> Step {
        let taken = self
            .check_result(report)
            .and_then(|()| self.take_data(&report.data, self.output()).map_err(permanent_failure));
        if let Err(failure) = taken {
            return self.failed(failure, Some(&report.worker_id), report.held_for);
        }
        let cancelled = &*report.outcome == outcome::CANCELLED;
        let kind = if cancelled { HistoryEvent::TaskCancelled } else { HistoryEvent::TaskSucceeded };
        let entry = self.note(kind);
        entry.outcome = Some(report.outcome.clone());
        entry.worker_id = Some(report.worker_id.clone());
        entry.duration = report.held_for;
        self.job.attempt = None;
        self.job.outcome = Some(report.outcome.clone());
        self.job.error = None;
        match self.transition(&report.outcome) {
            Some(next) => Step::Go { outcome: Some(report.outcome.clone()), next },
            None if cancelled => self.end(JobStatus::Cancelled, report.error.clone()),
            // A branch ends with its task, whatever the word.
            None if self.job.is_branch() => self.end(JobStatus::Finished, None),
            None => {
                let message = format!("Worker returned unhandled status: {}", report.outcome);
                self.end(JobStatus::Failed, Some(error(code::UNHANDLED_OUTCOME, message)))
            }
        }
    }

    /// Whether the data of a success is what the blueprint says that it is.
    fn check_result(&self, report: &Report) -> Result<(), Failure> {
        let schema = self.work().and_then(|work| work.result_schema.as_ref());
        let Some(schema) = schema.filter(|_| &*report.outcome == outcome::SUCCESS) else { return Ok(()) };
        let data = serde_json::Value::Object(report.data.to_map());
        schema.check("result", &data).map_err(|cause| Failure {
            outcome: outcome::FAILURE,
            event: HistoryEvent::TaskFailed,
            error: error(task_error::INVALID_RESULT, cause.to_string()),
            may_retry: false,
            uncaught: JobStatus::Quarantined,
        })
    }

    /// The attempt did not succeed: try again, follow a transition, or end.
    fn failed(&mut self, failure: Failure, worker_id: Option<&Arc<str>>, held_for: Option<Duration>) -> Step {
        let entry = self.note(failure.event);
        entry.outcome = Some(Arc::from(failure.outcome));
        entry.worker_id = worker_id.cloned();
        entry.error = Some(failure.error.clone());
        entry.duration = held_for;
        self.job.attempt = None;
        self.job.outcome = Some(Arc::from(failure.outcome));
        if failure.may_retry
            && let Some(work) = self.work()
            && self.job.retry_count < work.retry.max_retries
        {
            return self.schedule_retry(&work.retry, failure.error);
        }
        if let Some(next) = self.caught(&failure.error) {
            self.job.failed_state = Some(self.job.state.clone());
            self.job.error = Some(failure.error);
            return Step::Go { outcome: Some(Arc::from(failure.outcome)), next };
        }
        let caught = self.transition(failure.outcome).or_else(|| self.transition(outcome::FAILURE));
        let mut error = failure.error;
        if caught.is_none() && failure.may_retry {
            let attempts = self.job.retry_count + 1;
            error.message = Arc::from(format!("Task failed after {attempts} attempts: {}", error.message));
        }
        // Nobody would look at a branch that is quarantined: its parent decides what its failure means.
        let uncaught = if self.job.is_branch() { JobStatus::Failed } else { failure.uncaught };
        self.fail(failure.outcome, error, uncaught)
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

    /// A new attempt at the task of the present state, with an id of its own, as soon as its keys have room.
    pub fn make_ready(&mut self, number: u32) -> Step {
        self.claim_and_offer(number, false)
    }

    /// The same, in the place of the present attempt, which did not end by itself: what keys that one has, this one has.
    fn replace_attempt(&mut self, number: u32) -> Step {
        self.claim_and_offer(number, true)
    }

    fn claim_and_offer(&mut self, number: u32, keeps: bool) -> Step {
        // Only tasks have attempts, retries and workers to lose.
        let Some(work) = self.work() else { return Step::Stay };
        self.job.resumes_at = None;
        match self.claim_attempt(&work.keys, keeps) {
            Ok(true) => self.offer_attempt(number, self.context.now),
            Ok(false) => Step::Stay,
            Err(error) => self.failed(permanent_failure(error), None, None),
        }
    }

    /// A new attempt that has its keys, with the place in the queue of one that became ready then.
    pub fn offer_attempt(&mut self, number: u32, ready_at: Timestamp) -> Step {
        let Some(work) = self.work() else { return Step::Stay };
        self.job.resumes_at = None;
        let params = match params_of(work, &self.job, &self.scope(ready_at)) {
            Ok(params) => params,
            Err(error) => return self.failed(permanent_failure(error), None, None),
        };
        let attempt = Attempt {
            task_id: TaskId::of_job(self.job.id, self.context.entropy.next_u64()),
            task_type: work.task_type.clone(),
            needs: work.needs.as_ref().map(|needs| needs.text.clone()),
            number,
            ready_at,
        };
        self.job.status = JobStatus::WaitingForWorker;
        self.effects.push(Effect::Offer(offer(&self.job, &attempt, work, params)));
        self.job.attempt = Some(attempt);
        self.note(HistoryEvent::TaskReady);
        Step::Stay
    }

    fn task_state(&self) -> Option<&'b TaskState> {
        match &self.state()?.kind {
            StateKind::Task(task) => Some(task),
            _ => None,
        }
    }

    /// Where this error leads.
    pub fn caught(&self, error: &JobError) -> Option<Arc<str>> {
        self.task_state()?.catch.get(&error.code).cloned()
    }

    fn output(&self) -> Option<&'b Template> {
        self.task_state()?.output.as_ref()
    }

    fn work(&self) -> Option<&'b TaskWork> {
        work_of(&self.job, self.context.blueprint)
    }
}

/// The work that a job asks a worker for where it stands.
pub(super) fn work_of<'b>(job: &Job, blueprint: &'b Blueprint) -> Option<&'b TaskWork> {
    match &blueprint.state(&job.state)?.kind {
        StateKind::Task(task) => Some(&task.work),
        StateKind::Map(map) if job.is_branch() => {
            let index = job.submission.parent.as_ref()?.index;
            match map.over.branch(index)?.0 {
                Branch::Task(work) => Some(work),
                Branch::Run(_) => None,
            }
        }
        _ => None,
    }
}

/// The offer of a job's current attempt, made again from the stored job: what a restart needs.
///
/// `None` when the job waits for no worker, or when its params can no longer be computed.
pub fn offer_again(job: &Job, blueprint: &Blueprint) -> Option<Offer> {
    let attempt = job.attempt.as_ref()?;
    let work = work_of(job, blueprint)?;
    let params = params_of(work, job, &job.scope(attempt.ready_at)).ok()?;
    Some(offer(job, attempt, work, params))
}

fn offer(job: &Job, attempt: &Attempt, work: &TaskWork, params: Arc<str>) -> Offer {
    Offer {
        task_id: attempt.task_id,
        job_id: job.id,
        client: job.client.clone(),
        task_type: attempt.task_type.clone(),
        needs: attempt.needs.clone(),
        params,
        attempt: attempt.number,
        priority: job.submission.priority,
        timeout: work.timeout,
        ready_at: attempt.ready_at,
        checkpoint: job.checkpoint.clone(),
        trace: job.submission.trace.clone(),
    }
}

/// What the handler is given. A branch was given it when it was made.
fn params_of(work: &TaskWork, job: &Job, scope: &Scope<'_>) -> Result<Arc<str>, JobError> {
    if job.is_branch() {
        return Ok(Arc::from(job.initial_data().as_str()));
    }
    let params = work.params.render(scope).map_err(|cause| no_value(&job.state, &cause))?;
    Ok(Arc::from(params.as_str()))
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
