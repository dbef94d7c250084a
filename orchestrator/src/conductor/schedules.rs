//! Due times of schedules: the job of one, and how far the schedule has come, in one transaction.
//!
//! So a due time either has its job and is decided, or neither, whatever happens in between: nobody has to find out afterwards
//! whether there is a job. It refuses to know when schedules are due.

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode};

use super::{
    batch::Afterwards,
    core::Core,
    handle::{Conductor, check_input, no_blueprint},
    mailbox::{Reply, Request},
};
use crate::{
    blueprint::Blueprint,
    engine::{Event, Job, Submission},
    museum::{Mistake, plants},
    schedule::Overlap,
    store::{ScheduleRecord, ScheduledRun, ScheduledSkip, SkipReason, Write},
};

/// Changes that one request may bring.
pub const SCHEDULE_CHANGES_MAX: usize = 256;

/// A due time that has come.
#[derive(Debug, Clone)]
pub struct DueTime {
    /// Name of the blueprint; the newest version is taken.
    pub blueprint: Arc<str>,
    /// Whose job it will be.
    pub client: Arc<str>,
    /// What the job starts with.
    pub submission: Submission,
    /// What to do when the last job has not ended.
    pub overlap: Overlap,
    /// The schedule as it will have come so far: decided up to this due time, and with the last job before it.
    pub record: ScheduleRecord,
}

/// A due time and the blueprint that was found for it, on their way to the conductor.
pub(super) struct Scheduled {
    pub due: DueTime,
    pub blueprint: Arc<Blueprint>,
}

/// Something to remember of a schedule, without a job.
#[derive(Debug, Clone)]
pub enum ScheduleChange {
    /// It has come so far.
    Put(ScheduleRecord),
    /// It is no more.
    Remove(Arc<str>),
}

impl Conductor {
    /// Makes the job of a due time, or lets it go, as the overlap has it. Answers how far the schedule has come, durably.
    ///
    /// # Errors
    /// `BLUEPRINT_NOT_FOUND`, `INPUT_INVALID`, `UNSUPPORTED` for a webhook, `TOO_MANY_OPEN_JOBS`, `STORAGE_FULL`, `STORAGE_FAILED`, `OVERLOADED`, `SHUTTING_DOWN`. The due time
    /// is then not decided.
    pub async fn run_scheduled(&self, due: DueTime) -> Result<ScheduleRecord, ApiError> {
        let blueprint = self.blueprint_for(&due.blueprint, &due.submission)?;
        self.mailbox.ask(|reply| Request::RunScheduled(Scheduled { due, blueprint }, reply)).await?
    }

    /// Whether a due time could have its job, as far as that depends on what the schedule says and on the blueprints of now.
    ///
    /// # Errors
    /// `BLUEPRINT_NOT_FOUND`, `INPUT_INVALID`, `UNSUPPORTED` for a webhook.
    pub fn check_scheduled(&self, blueprint: &str, submission: &Submission) -> Result<(), ApiError> {
        self.blueprint_for(blueprint, submission).map(drop)
    }

    /// The blueprint by which a scheduled job is made, once it is found to take the submission.
    fn blueprint_for(&self, name: &str, submission: &Submission) -> Result<Arc<Blueprint>, ApiError> {
        let blueprints = self.blueprints();
        let blueprint = blueprints.newest(name).cloned().ok_or_else(|| no_blueprint(&blueprints, name))?;
        check_input(&blueprint, &submission.initial_data)?;
        self.check_webhook(submission.webhook_url.as_deref())?;
        Ok(blueprint)
    }

    /// Remembers this of schedules, at most [`SCHEDULE_CHANGES_MAX`] things at a time.
    ///
    /// # Errors
    /// `STORAGE_FULL`, `OVERLOADED`, `SHUTTING_DOWN`. Nothing was stored then.
    pub async fn keep_schedules(&self, changes: Vec<ScheduleChange>) -> Result<(), ApiError> {
        self.mailbox.ask(|reply| Request::KeepSchedules(changes, reply)).await?
    }

    /// How far every schedule has come, as stored.
    ///
    /// # Errors
    /// `STORAGE_FAILED`.
    pub async fn schedule_records(&self) -> Result<Vec<ScheduleRecord>, ApiError> {
        self.read(|store| store.schedules()).await
    }
}

impl Core {
    pub(super) fn run_scheduled(
        &mut self,
        scheduled: Scheduled,
        reply: Reply<Result<ScheduleRecord, ApiError>>,
    ) {
        match self.decide_scheduled(scheduled) {
            Ok((record, job)) => {
                if !plants(Mistake::DueTimeAside) {
                    self.batch.writes.writes.push(Write::PutSchedule(record.clone()));
                }
                self.batch.afterwards.push(Afterwards::Scheduled { record, job, reply });
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Decides into the batch, or not at all.
    fn decide_scheduled(
        &mut self,
        Scheduled { due, blueprint }: Scheduled,
    ) -> Result<(ScheduleRecord, Option<Arc<Job>>), ApiError> {
        self.check_serving()?;
        let DueTime { client, submission, overlap, mut record, .. } = due;
        let due_at = record.decided;
        let before = record.last_run.map(|run| self.load(run.job_id)).transpose()?.flatten();
        let open = before.filter(|job| !job.status.is_terminal());
        if overlap == Overlap::Skip && open.is_some() {
            record.last_skip = Some(ScheduledSkip { due_at, reason: SkipReason::Overlap });
            return Ok((record, None));
        }
        self.check_room(&client)?;
        let now = self.clock.now();
        let id = self.new_job_id(now);
        if overlap == Overlap::Cancel
            && let Some(open) = open
        {
            let reason = format!("schedule {} has begun its next job, {id}", record.name);
            // Before the next one takes its first step, for which it may need the keys of this one. An open job can always be cancelled.
            let _ = self.decide(&open, Event::CancelRequested { reason: Some(reason.into()) }, false);
        }
        let job = Job::accepted(id, client, &blueprint, Arc::new(submission), now);
        let job = self.decide_first(&job, Event::Submitted, None).map_err(|refusal| {
            ApiError::new(ErrorCode::Internal, format!("A new job could not take its first step: {refusal}"))
        })?;
        record.last_run = Some(ScheduledRun { due_at, job_id: id });
        Ok((record, Some(job)))
    }

    pub(super) fn keep_schedules(
        &mut self,
        changes: Vec<ScheduleChange>,
        reply: Reply<Result<(), ApiError>>,
    ) {
        let writes = changes.into_iter().map(|change| match change {
            ScheduleChange::Put(record) => Write::PutSchedule(record),
            ScheduleChange::Remove(name) => Write::RemoveSchedule(name),
        });
        self.batch.writes.writes.extend(writes);
        self.batch.afterwards.push(Afterwards::SchedulesKept(reply));
    }
}
