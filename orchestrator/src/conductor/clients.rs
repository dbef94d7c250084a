//! What clients ask for: submit, do something to a job, watch.

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode, JobId};
use tokio::sync::mpsc;

use super::{
    batch::Afterwards,
    core::Core,
    handle::{job_not_found, storage_error},
    mailbox::{Accepted, Act, Reply, Submit},
    refused::{AskedFor, refused},
    view::{Acted, JobView},
};
use crate::{
    blueprint::Blueprint,
    engine::{Event, Job, Refusal, Submission},
    store::IdempotencyKey,
};

impl Core {
    pub(super) fn submit(&mut self, submit: Submit, reply: Reply<Result<Accepted, ApiError>>) {
        let Submit { client, blueprint, submission, idempotency, follow, admission } = submit;
        let key = |(key, fingerprint)| IdempotencyKey { client: client.clone(), key, fingerprint };
        let idempotency = idempotency.map(key);
        let repeated = self.check_serving().and_then(|()| self.find_repeated(idempotency.as_ref()));
        let answer = repeated.and_then(|job| match job {
            // A repetition needs neither room nor a blueprint: its job has them.
            Some(job) => Ok((job, true)),
            None => Ok((self.create(&client, blueprint?, submission, idempotency)?, false)),
        });
        match answer {
            Ok((job, deduplicated)) => {
                self.keep(admission);
                self.answer_submission(job, deduplicated, follow, reply);
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// A new job, with its first step.
    fn create(
        &mut self,
        client: &Arc<str>,
        blueprint: Arc<Blueprint>,
        submission: Arc<Submission>,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Arc<Job>, ApiError> {
        self.check_notices(client, submission.webhook_url.is_some())?;
        self.check_room(client)?;
        let month = self.check_quota(client)?;
        let now = self.clock.now();
        let id = self.new_job_id(now);
        let job = Job::accepted(id, client.clone(), &blueprint, submission, now);
        let decision = self.ask_engine(&job, &Event::Submitted, now).map_err(|refusal| {
            let text = format!("A new job could not take its first step: {refusal}");
            ApiError::new(ErrorCode::Internal, text)
        })?;
        if let Some(error) = decision.turned_away() {
            return Err(error);
        }
        let job = self.accept(&job, decision, idempotency.clone());
        self.remember_key(idempotency, id);
        self.count_accepted(client, month);
        Ok(job)
    }

    /// Whether one more job of this client may be open.
    pub(super) fn check_room(&self, client: &str) -> Result<(), ApiError> {
        let limit = self.limits.current().max_open_jobs;
        if self.book.open_total() >= limit {
            let text = format!("{limit} jobs are open, as many as this orchestrator holds");
            return Err(ApiError::new(ErrorCode::TooManyOpenJobs, text));
        }
        match self.tenancy.current().of(client).max_open_jobs {
            Some(limit) if self.book.open_of(client) >= limit => {
                let text = format!("{limit} jobs of client {client:?} are open, as many as it may have");
                Err(ApiError::new(ErrorCode::OpenJobsLimitReached, text))
            }
            _ => Ok(()),
        }
    }

    /// The job that the same request made before.
    fn find_repeated(&self, key: Option<&IdempotencyKey>) -> Result<Option<Arc<Job>>, ApiError> {
        let Some(key) = key else { return Ok(None) };
        let on_its_way = self.keys.get(&(key.client.clone(), key.key.clone())).copied();
        let found = match on_its_way {
            Some(found) => Some(found),
            None => self.store.find_idempotent(&key.client, &key.key).map_err(storage_error)?,
        };
        match found {
            None => Ok(None),
            Some((job_id, fingerprint)) if fingerprint == key.fingerprint => self.load(job_id),
            Some((job_id, _)) => Err(ApiError::new(
                ErrorCode::IdempotencyConflict,
                format!("This idempotency key made job {job_id} from another request"),
            )),
        }
    }

    fn remember_key(&mut self, key: Option<IdempotencyKey>, job_id: JobId) {
        if let Some(IdempotencyKey { client, key, fingerprint }) = key {
            self.keys.insert((client.clone(), key.clone()), (job_id, fingerprint));
            self.batch.afterwards.push(Afterwards::KeyStored { client, key, job_id });
        }
    }

    pub(super) fn new_job_id(&mut self, now: crate::time::Timestamp) -> JobId {
        JobId::of_key(self.new_job_key(now), self.entropy.next_u64())
    }

    pub(super) fn act(&mut self, act: Act, reply: Reply<Result<Acted, ApiError>>) {
        let Act { client, job_id, event, seen, admission } = act;
        let job = match &client {
            Some(client) => self.load_own(client, job_id),
            None => self.load(job_id).and_then(|job| job.ok_or_else(job_not_found)),
        };
        let decided = job.and_then(|job| {
            if seen.is_some_and(|seen| seen != job.history_len) {
                return Err(changed_since());
            }
            if job.status.is_repairable() && is_repair(&event) {
                self.check_room(&job.client)?;
            }
            let asked = AskedFor::by(&event);
            match self.decide(&job, *event, false) {
                Ok(job) => Ok((job, false)),
                // Behind what has been decided: the first one may not be durable yet.
                Err(Refusal::SignalRepeated | Refusal::RepairRepeated) => Ok((job, true)),
                Err(refusal) => Err(refused(&self.blueprints, &job, &asked, refusal, client.is_some())),
            }
        });
        match decided {
            Ok((job, repeated)) => {
                self.keep(admission);
                self.batch.afterwards.push(Afterwards::Acted { job, repeated, reply });
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    pub(super) fn watch(
        &mut self,
        client: &Arc<str>,
        job_id: JobId,
        sender: mpsc::Sender<JobView>,
        reply: Reply<Result<(), ApiError>>,
    ) {
        match self.load_own(client, job_id) {
            Ok(job) => self.batch.afterwards.push(Afterwards::Watched { job, sender, reply }),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn load_own(&self, client: &Arc<str>, job_id: JobId) -> Result<Arc<Job>, ApiError> {
        self.load(job_id)?.filter(|job| job.client == *client).ok_or_else(job_not_found)
    }
}

/// Whether this opens a job that has ended.
fn is_repair(event: &Event) -> bool {
    matches!(event, Event::RetryRequested(_) | Event::SkipRequested(_))
}

fn changed_since() -> ApiError {
    ApiError::new(ErrorCode::NotRepairable, "The job has changed since it was looked at")
        .with_hint("Look at the job: somebody else may have repaired it.")
}
