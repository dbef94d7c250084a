//! What clients ask for: submit, do something to a job, watch.

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode, JobId};
use tokio::sync::mpsc;

use super::{
    batch::Afterwards,
    core::Core,
    handle::{job_not_found, storage_error},
    mailbox::{Accepted, Reply, Submit},
    view::JobView,
};
use crate::{
    engine::{Event, Job, Refusal},
    store::IdempotencyKey,
};

impl Core {
    pub(super) fn submit(&mut self, submit: Submit, reply: Reply<Result<Accepted, ApiError>>) {
        let idempotency = submit.idempotency.map(|(key, fingerprint)| IdempotencyKey {
            client: submit.client.clone(),
            key,
            fingerprint,
        });
        let repeated = self.check_serving().and_then(|()| self.find_repeated(idempotency.as_ref()));
        let found = repeated.and_then(|job| match job {
            // A repetition needs no room: its job has it.
            Some(job) => Ok(Some(job)),
            None => {
                let has_webhook = submit.submission.webhook_url.is_some();
                self.check_notices(&submit.client, has_webhook)
                    .and_then(|()| self.check_room())
                    .map(|()| None)
            }
        });
        match found {
            Err(error) => drop(reply.send(Err(error))),
            Ok(Some(job)) => self.answer_submission(job, true, submit.follow, reply),
            Ok(None) => {
                let now = self.clock.now();
                let id = self.new_job_id(now);
                let job = Job::accepted(id, submit.client, &submit.blueprint, submit.submission, now);
                match self.decide_first(&job, Event::Submitted, idempotency.clone()) {
                    Ok(job) => {
                        self.remember_key(idempotency, id);
                        self.keep(submit.admission);
                        self.answer_submission(job, false, submit.follow, reply);
                    }
                    Err(refusal) => {
                        let text = format!("A new job could not take its first step: {refusal}");
                        let _ = reply.send(Err(ApiError::new(ErrorCode::Internal, text)));
                    }
                }
            }
        }
    }

    fn check_room(&self) -> Result<(), ApiError> {
        let limit = self.settings.max_open_jobs;
        if self.book.open_total() < limit {
            return Ok(());
        }
        let text = format!("{limit} jobs are open, as many as this orchestrator holds");
        Err(ApiError::new(ErrorCode::TooManyOpenJobs, text))
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

    fn new_job_id(&mut self, now: crate::time::Timestamp) -> JobId {
        JobId::of_key(self.new_job_key(now), self.entropy.next_u64())
    }

    pub(super) fn act(
        &mut self,
        client: Option<&Arc<str>>,
        job_id: JobId,
        event: Event,
        reply: Reply<Result<JobView, ApiError>>,
    ) {
        let job = match client {
            Some(client) => self.load_own(client, job_id),
            None => self.load(job_id).and_then(|job| job.ok_or_else(job_not_found)),
        };
        let decided = job.and_then(|job| {
            let decided = self.decide(&job, event, false);
            decided.map_err(|refusal| refused(&job, refusal, client.is_some()))
        });
        match decided {
            Ok(job) => self.batch.afterwards.push(Afterwards::Acted { job, reply }),
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

/// Why a job does not take what somebody wants to do to it.
fn refused(job: &Job, refusal: Refusal, is_owner: bool) -> ApiError {
    let (code, text) = match refusal {
        // Whoever has no right to the job learns nothing of it.
        Refusal::NoSuchApproval if !is_owner => return job_not_found(),
        _ if !is_owner && refusal != Refusal::NoSuchTransition => return job_not_found(),
        Refusal::JobTerminal => {
            (ErrorCode::JobTerminal, format!("The job has ended already: it is {}", job.status))
        }
        Refusal::NoSuchApproval => {
            (ErrorCode::ApprovalNotFound, format!("Nobody is asked to decide: the job is {}", job.status))
        }
        Refusal::NoSuchTransition => {
            (ErrorCode::OutcomeUnknown, format!("State {:?} has no such transition", job.state))
        }
        Refusal::NoSuchState => {
            (ErrorCode::StateNotFound, format!("Blueprint {:?} has no such state", job.blueprint))
        }
        Refusal::NotRetryable => {
            let text =
                format!("Only a failed or quarantined job can be repaired: this one is {}", job.status);
            (ErrorCode::NotRepairable, text)
        }
        Refusal::SignalsFull => {
            (ErrorCode::TooManySignals, "The job keeps as many signals as a job may".to_owned())
        }
        Refusal::DataTooLarge => {
            (ErrorCode::PayloadTooLarge, "The state_history would be larger than it may be".to_owned())
        }
        other => (ErrorCode::Internal, format!("The job does not take this: {other}")),
    };
    ApiError::new(code, text)
}
