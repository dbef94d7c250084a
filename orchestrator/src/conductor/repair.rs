//! Repair of many jobs at once: the same retry or skip for every job that a filter selects.
//!
//! A call looks at a bounded number of jobs, from the newest to the oldest, and says where the next one goes on; so a job is met
//! once, even when it fails again at once. It promises to touch no job that has changed since it was selected. Children that a
//! parent waited for are left alone: whoever retries the parent starts them anew.

use std::sync::Arc;

use avtomatika_proto::{
    ApiError, JobId,
    limits::{REPAIR_IDS_MAX, REPAIR_JOBS_MAX},
};
use futures_util::{StreamExt, stream};

use super::{
    handle::Conductor,
    mailbox::Act,
    refused::{AskedFor, refused, would_take},
};
use crate::{
    engine::{ChildKind, Edit, Event, Job, JobStatus, Refusal, Retry, Skip},
    store::ListQuery,
};

/// Jobs that are selected, and repaired side by side, before the next ones are looked for.
const SLICE: usize = 128;

/// Pages of jobs that one call looks at, so that a filter that selects little does not hold its caller for long.
const PAGES_MAX: usize = 32;

/// Which jobs to repair.
#[derive(Debug, Clone)]
pub struct RepairQuery {
    /// Whose, since when, of which blueprint and so on. Its limit is that of the call, at most [`REPAIR_JOBS_MAX`].
    pub jobs: ListQuery,
    /// Only jobs that failed in this state.
    pub failed_state: Option<Arc<str>>,
    /// Only jobs that ended with this code.
    pub error_code: Option<Arc<str>>,
    /// Only say which.
    pub dry_run: bool,
}

/// What to do to each.
#[derive(Debug, Clone)]
pub enum Repair {
    /// Start it again.
    Retry(Retry),
    /// Let it go on as if its state had ended with an outcome.
    Skip(Skip),
}

/// What one call has done.
#[derive(Debug, Default)]
pub struct Repaired {
    /// Jobs that were repaired, or that would be.
    pub count: usize,
    /// The first of them, at most [`REPAIR_IDS_MAX`].
    pub job_ids: Vec<JobId>,
    /// Jobs that were selected and left as they are.
    pub refused_count: usize,
    /// The first of them and why, at most [`REPAIR_IDS_MAX`].
    pub refusals: Vec<(JobId, ApiError)>,
    /// Where the next call goes on.
    pub next_below_key: Option<i64>,
    /// Why nothing more can be repaired for now.
    pub stopped_by: Option<ApiError>,
}

impl RepairQuery {
    fn selects(&self, job: &Job) -> bool {
        let child_kind = job.submission.parent.as_ref().map(|parent| parent.kind);
        let is_own = child_kind.is_none_or(|kind| kind == ChildKind::Detached);
        is_own
            && self.failed_state.as_ref().is_none_or(|state| job.failed_state.as_ref() == Some(state))
            && self
                .error_code
                .as_ref()
                .is_none_or(|code| job.error.as_ref().is_some_and(|error| error.code == *code))
    }
}

/// A job to be repaired, as it was found.
struct Selected {
    id: JobId,
    history_len: u64,
    /// What it takes to store it again.
    bytes: usize,
}

impl Selected {
    fn of(job: &Job) -> Self {
        let bytes = job.initial_data().as_str().len() + job.state_history.as_str().len();
        Self { id: job.id, history_len: job.history_len, bytes }
    }
}

impl Repair {
    /// What it adds to each job at most.
    fn bytes(&self) -> usize {
        let bytes = |edit: &Option<Edit>| match edit {
            Some(Edit::Replace(data) | Edit::Patch(data)) => data.as_str().len(),
            None => 0,
        };
        match self {
            Self::Retry(retry) => bytes(&retry.initial_data) + bytes(&retry.state_history),
            Self::Skip(skip) => skip.data.as_str().len(),
        }
    }

    fn event(&self) -> Event {
        match self {
            Self::Retry(retry) => Event::RetryRequested(retry.clone()),
            Self::Skip(skip) => Event::SkipRequested(skip.clone()),
        }
    }
}

impl Repaired {
    fn add(&mut self, job_id: JobId, result: Result<(), ApiError>) {
        match result {
            Ok(()) => {
                self.count += 1;
                if self.job_ids.len() < REPAIR_IDS_MAX {
                    self.job_ids.push(job_id);
                }
            }
            Err(error) => {
                self.refused_count += 1;
                if self.refusals.len() < REPAIR_IDS_MAX {
                    self.refusals.push((job_id, error));
                }
            }
        }
    }

    fn total(&self) -> usize {
        self.count + self.refused_count
    }
}

impl Conductor {
    /// Repairs the next of the jobs that a query selects, or says which they are.
    ///
    /// # Errors
    /// `STORAGE_FAILED`, and what stopped the call before it could repair anything: `TOO_MANY_OPEN_JOBS`, `STORAGE_FULL`,
    /// `OVERLOADED`, `SHUTTING_DOWN`.
    pub async fn repair(&self, mut query: RepairQuery, repair: Repair) -> Result<Repaired, ApiError> {
        if query.jobs.statuses.is_empty() {
            query.jobs.statuses = vec![JobStatus::Failed, JobStatus::Quarantined];
        }
        let limit = query.jobs.limit.min(REPAIR_JOBS_MAX as usize);
        let mut repaired = Repaired::default();
        for _ in 0..PAGES_MAX {
            query.jobs.limit = SLICE.min(limit - repaired.total());
            let wanted = query.jobs.clone();
            let page = self.read(move |store| store.list(&wanted)).await?;
            let selected: Vec<&Job> = page.jobs.iter().filter(|job| query.selects(job)).collect();
            query.jobs.below_key = page.next_below_key;
            if query.dry_run {
                selected.into_iter().for_each(|job| repaired.add(job.id, self.try_repair(job, &repair)));
            } else if let Some((first, error)) = self
                .repair_slice(
                    &query,
                    &repair,
                    selected.into_iter().map(Selected::of).collect(),
                    &mut repaired,
                )
                .await
            {
                if repaired.count == 0 {
                    return Err(error);
                }
                // The next call begins with this one.
                query.jobs.below_key = Some(first.key() + 1);
                repaired.stopped_by = Some(error);
                break;
            }
            if query.jobs.below_key.is_none() || repaired.total() == limit {
                break;
            }
        }
        repaired.next_below_key = query.jobs.below_key;
        Ok(repaired)
    }

    /// What would be said of a repair now.
    fn try_repair(&self, job: &Job, repair: &Repair) -> Result<(), ApiError> {
        let (blueprints, event) = (self.blueprints(), repair.event());
        let refused = |refusal| Err(refused(&blueprints, job, &AskedFor::by(&event), refusal, true));
        let Some(blueprint) = blueprints.version(&job.blueprint, job.blueprint_version) else {
            return refused(Refusal::StateUnknown);
        };
        match would_take(&blueprints, blueprint, (job, &event, self.clock.now())) {
            Ok(()) | Err(Refusal::RepairRepeated) => Ok(()),
            Err(refusal) => refused(refusal),
        }
    }

    /// Repairs these side by side. Returns the first that could not be repaired for now.
    async fn repair_slice(
        &self,
        query: &RepairQuery,
        repair: &Repair,
        selected: Vec<Selected>,
        repaired: &mut Repaired,
    ) -> Option<(JobId, ApiError)> {
        let act = async |job: Selected| {
            let admission = self.admit(job.bytes + repair.bytes()).await;
            let (client, event) = (Some(query.jobs.client.clone()), Box::new(repair.event()));
            let act = Act { client, job_id: job.id, event, seen: Some(job.history_len), admission };
            (job.id, self.act(act).await)
        };
        let mut stopped = None;
        let mut answers = stream::iter(selected.into_iter().map(act)).buffered(SLICE);
        while let Some((job_id, answer)) = answers.next().await {
            match answer {
                Err(error) if error.code.is_retryable() => drop(stopped.get_or_insert((job_id, error))),
                answer => repaired.add(job_id, answer.map(drop)),
            }
        }
        stopped
    }
}
