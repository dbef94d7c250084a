//! Moving a job to another version of its blueprint.
//!
//! A job whose state is in the other version and waits there for the same thing stays where it is; whatever it waits for, it goes on
//! waiting for. Any other job enters its state anew, as the other version has it. It promises that no job is left waiting for
//! something that will not come, that no work is given up without a word, and that a migration fails nobody: a job that cannot be
//! moved stays as it was, by a name that says why.

use std::sync::Arc;

use super::{
    Attempt, HistoryEvent, Job, JobStatus, Migration, Refusal, Wait,
    draft::{Draft, Step},
    task::offer_again,
};
use crate::blueprint::StateKind;

/// Why a worker's or a queue's attempt is taken back.
const MOVED: &str = "the job has moved to another version of its blueprint";

impl Draft<'_, '_> {
    /// The context's blueprint is the version to move to.
    pub fn migrate(&mut self, migration: &Migration) -> Result<Step, Refusal> {
        self.check_movable()?;
        let to = self.destination(migration);
        if self.context.blueprint.state(&to).is_none() {
            return Err(Refusal::NoSuchState);
        }
        let from = std::mem::replace(&mut self.job.blueprint_version, self.context.blueprint.version);
        self.job.migrated = true;
        let entry = self.note(HistoryEvent::JobMigrated);
        entry.by = Some(migration.by.clone());
        entry.detail = Some(Arc::from(format!("version {from} to {}", migration.version)));
        if self.job.status.is_terminal() {
            self.move_ended(to);
            return Ok(Step::Stay);
        }
        if matches!(self.job.wait, Some(Wait::Start)) {
            self.job.state = to;
            return Ok(Step::Stay);
        }
        if to == self.job.state
            && let Some(step) = self.stay(migration.task_is_held)?
        {
            return Ok(step);
        }
        self.withdraw(MOVED);
        self.stop_waiting();
        self.job.attempt = None;
        self.job.error = None;
        self.forget_tries();
        self.enter(to);
        Ok(self.visit())
    }

    /// Whether the walk that followed is one that a migration may cause. `before` is the job as it was.
    pub fn check_migrated(&self, before: &Job) -> Result<(), Refusal> {
        let ends_badly = matches!(self.job.status, JobStatus::Failed | JobStatus::Quarantined);
        let has_failed = self.job.error.is_some() && self.job.error != before.error;
        let was_open = !before.status.is_terminal();
        if was_open && (ends_badly || has_failed) { Err(Refusal::WouldFail) } else { Ok(()) }
    }

    fn check_movable(&self) -> Result<(), Refusal> {
        let (job, blueprint) = (&self.job, self.context.blueprint);
        if job.blueprint_version == blueprint.version {
            return Err(Refusal::SameVersion);
        }
        // It stands in its parent's version, which has to be the version by which the parent gathers it.
        if job.is_branch() {
            return Err(Refusal::BranchOfParent);
        }
        // What those are given and what becomes of their results is written in the version that started them.
        if job.children().is_some() {
            return Err(Refusal::ChildrenRun);
        }
        if !job.status.is_terminal() && job.transitions >= blueprint.max_transitions {
            return Err(Refusal::TooManyMoves);
        }
        Ok(())
    }

    /// Where the job is to stand. One that has not begun begins at the beginning.
    fn destination(&self, migration: &Migration) -> Arc<str> {
        if matches!(self.job.wait, Some(Wait::Start)) {
            return self.context.blueprint.start.clone();
        }
        let present = match self.job.status.is_terminal() {
            true => self.failed_state(),
            false => self.job.state.clone(),
        };
        migration.state.clone().unwrap_or(present)
    }

    /// A job that has failed stays as it ended; a retry will begin at this state.
    fn move_ended(&mut self, to: Arc<str>) {
        self.job.failed_state = Some(to.clone());
        if self.context.blueprint.state(&self.job.state).is_none() {
            self.job.state = to;
        }
    }

    /// The job goes on waiting where it is, if its state still waits for what it waits for.
    fn stay(&mut self, task_is_held: bool) -> Result<Option<Step>, Refusal> {
        let Some(state) = self.state() else { return Ok(None) };
        let stays = match (self.job.wait.clone(), self.job.attempt.clone(), &state.kind) {
            (None, Some(attempt), StateKind::Task(task)) if attempt.task_type == task.work.task_type => {
                return self.keep_attempt(&attempt, task_is_held).map(Some);
            }
            // It waits to try again, which it will do as the other version says.
            (None, None, StateKind::Task(_)) => self.job.resumes_at.is_some(),
            (Some(Wait::Timer), _, StateKind::Wait(_)) => true,
            (Some(Wait::Signal { name, since }), _, StateKind::Event(event)) => {
                let stays = self.still_awaits(event, &name);
                self.job.resumes_at = event.deadline.map(|deadline| since + deadline);
                stays
            }
            (Some(Wait::Approval { message, since, .. }), _, StateKind::Approval(approval)) => {
                let stays = self.still_asks(approval, message.as_ref(), since);
                self.job.resumes_at = approval.deadline.map(|deadline| since + deadline);
                stays
            }
            _ => false,
        };
        Ok(stays.then_some(Step::Stay))
    }

    /// A worker that has the task goes on with what it was given. A task that nobody has is made again, in its old place in the
    /// queue, so that it does not depend on what happens to be in memory by which version its params were computed.
    fn keep_attempt(&mut self, attempt: &Attempt, task_is_held: bool) -> Result<Step, Refusal> {
        // Should its worker be lost, it is made again, too.
        if offer_again(&self.job, self.context.blueprint).is_none() {
            return Err(Refusal::WouldFail);
        }
        if task_is_held {
            return Ok(Step::Stay);
        }
        self.withdraw(MOVED);
        Ok(self.offer_attempt(attempt.number, attempt.ready_at))
    }
}
