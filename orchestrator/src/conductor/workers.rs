//! What workers say: register, open a stream, report, leave.

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode, SessionId, TaskId, outcome, task_error};

use super::{
    BATCH_MAX,
    batch::Afterwards,
    core::Core,
    mailbox::{FromWorker, Registered, Reply, WorkerResult},
};
use crate::{
    dispatch::{Farewell, Mark, Obedience, Orphan, Outbox, ToWorker, Unsaved, Verdict},
    engine::{Event, Refusal, Report},
    museum::{Mistake, plants},
    store::{SessionRecord, WorkerRecord, Write},
    time::Timestamp,
    trust::WorkerTerms,
};

impl Core {
    pub(super) fn register(
        &mut self,
        worker: WorkerRecord,
        credential: [u8; 32],
        reply: Reply<Result<Registered, ApiError>>,
    ) {
        if let Err(error) = self.check_serving().and_then(|()| self.check_credential(&worker, credential)) {
            let _ = reply.send(Err(error));
            return;
        }
        let session_id = SessionId::from_random(self.entropy.next_u128());
        let record = SessionRecord {
            session_id,
            credential,
            opened_at: self.clock.now(),
            reproach: self.dispatch.reproach(&worker.worker_id),
            worker: Arc::new(worker),
        };
        self.waiting.comes(&record);
        self.batch.writes.writes.push(Write::PutSession(record.clone()));
        self.batch.afterwards.push(Afterwards::Registered { record, reply });
    }

    /// The session is durable: it takes the place of whatever session the worker had, and waits for its stream.
    pub(super) fn session_stored(
        &mut self,
        record: SessionRecord,
        reply: Reply<Result<Registered, ApiError>>,
        now: Timestamp,
    ) {
        let worker = &record.worker;
        tracing::info!(
            worker = %worker.worker_id,
            "Worker '{}' registered with info: {{worker_type: {:?}, supported_tasks: {:?}, max_concurrent_tasks: {}, hostname: {:?}}}",
            worker.worker_id,
            worker.worker_type,
            worker.task_types,
            worker.slots,
            worker.hostname,
        );
        let worker_id = worker.worker_id.clone();
        self.waiting.has_come(&record);
        self.replace_session_of(&worker_id, now);
        let registered = Registered { session_id: record.session_id, worker_id };
        self.waiting.insert(record, now);
        let _ = reply.send(Ok(registered));
    }

    /// A worker's name may be taken over by whoever has the credential that holds it, and there must be room for one more.
    fn check_credential(&self, worker: &WorkerRecord, credential: [u8; 32]) -> Result<(), ApiError> {
        // A session that is only expected back may have been opened with a token that is no longer valid.
        let holder = self.present_session_of(&worker.worker_id).map(|record| record.credential);
        let holder = holder.or_else(|| self.waiting.credential_of_coming(&worker.worker_id));
        if let Some(holder) = holder {
            if holder == credential {
                return Ok(());
            }
            let text = format!("A worker named {:?} is known with another token", worker.worker_id);
            return Err(ApiError::new(ErrorCode::InvalidToken, text)
                .with_hint("Choose another worker_id, or use the token of the worker that holds this one."));
        }
        let limit = self.limits.current().max_workers;
        if self.dispatch.roster().len() + self.waiting.len() < limit {
            return Ok(());
        }
        let text = format!("{limit} workers are connected, as many as this orchestrator serves");
        Err(ApiError::new(ErrorCode::TooManyWorkers, text))
    }

    /// The session that holds this worker's name, connected or about to be.
    fn present_session_of(&self, worker_id: &str) -> Option<&SessionRecord> {
        let connected = self.dispatch.roster().of_worker(worker_id).map(|session| &session.record);
        let waiting =
            || self.waiting.of_worker(worker_id).and_then(|session_id| self.waiting.get(session_id));
        connected.or_else(waiting)
    }

    /// Ends the session that the worker had: it has registered anew.
    fn replace_session_of(&mut self, worker_id: &str, now: Timestamp) {
        let holder = self.present_session_of(worker_id);
        let holder = holder.or_else(|| self.dispatch.expected_of_worker(worker_id));
        let Some(session_id) = holder.map(|record| record.session_id) else { return };
        if let Some(session) = self.dispatch.roster().get(session_id) {
            session.outbox.send(ToWorker::Goodbye(Farewell::Replaced));
            return self.session_ended(session_id, "it was replaced by a new registration");
        }
        self.waiting.remove(session_id);
        self.dispatch.give_up_expected(session_id, now);
        self.remove_session(session_id);
    }

    /// Stores that a session has ended.
    pub(super) fn remove_session(&mut self, session_id: SessionId) {
        self.batch.writes.writes.push(Write::RemoveSession(session_id));
        self.batch.afterwards.push(Afterwards::SessionRemoved(session_id));
    }

    pub(super) fn open_stream(
        &mut self,
        session_id: SessionId,
        credential: [u8; 32],
        terms: Option<&WorkerTerms>,
        held: &[TaskId],
        outbox: Outbox,
    ) -> Result<u64, ApiError> {
        self.check_serving()?;
        // Whoever registers anew is told what is no longer allowed.
        let is_allowed = |worker: &WorkerRecord| {
            terms.is_none_or(|terms| terms.allow(&worker.worker_id, &worker.task_types))
        };
        let record = self.find_session(session_id);
        let record = record.filter(|record| record.credential == credential && is_allowed(&record.worker));
        let Some(record) = record else {
            return Err(ApiError::new(ErrorCode::SessionUnknown, "The session is not known here"));
        };
        self.bring_back_held(held)?;
        self.waiting.remove(session_id);
        let now = self.clock.now();
        let (stream, reconciled) = self.dispatch.connect(&record, held, outbox, now);
        tracing::info!(
            worker = %record.worker.worker_id,
            "Worker '{}' connected: {} tasks adopted, {} dropped",
            record.worker.worker_id,
            reconciled.adopted.len(),
            reconciled.dropped.len()
        );
        self.lose(reconciled.orphans);
        self.dispatch.pump_all(now);
        self.tell_handed();
        Ok(stream)
    }

    fn find_session(&self, session_id: SessionId) -> Option<SessionRecord> {
        self.waiting
            .get(session_id)
            .or_else(|| self.dispatch.expected(session_id))
            .or_else(|| self.dispatch.roster().get(session_id).map(|session| &session.record))
            .cloned()
    }

    pub(super) fn worker_says(&mut self, session_id: SessionId, stream: u64, message: FromWorker) {
        // A stream that was replaced has no say any more.
        if self.dispatch.roster().get(session_id).is_none_or(|session| session.stream != stream) {
            return;
        }
        let now = self.clock.now();
        match message {
            FromWorker::Credits(slots) => self.dispatch.credits(session_id, slots, now),
            FromWorker::Results(results) => {
                results.into_iter().for_each(|result| self.result(session_id, result, now));
            }
            FromWorker::Progress(task_id, progress) => {
                if let Some(job_id) = self.dispatch.progress(session_id, task_id, progress, now) {
                    self.touched(job_id);
                }
            }
            FromWorker::State { hot_cache, load } => self.dispatch.worker_state(session_id, hot_cache, load),
            FromWorker::Drain => self.dispatch.drain(session_id),
            FromWorker::Silent => {
                self.log_silence(session_id, "has fallen silent and gets no tasks");
                self.dispatch.suspect(session_id, true, now);
            }
            FromWorker::Heard => {
                self.log_silence(session_id, "is heard again");
                self.dispatch.suspect(session_id, false, now);
            }
            FromWorker::Away => {
                self.log_silence(session_id, "has left while this process stood still, and is waited for");
                self.dispatch.away(session_id);
            }
            FromWorker::Ended => self.session_ended(session_id, "its stream has ended"),
        }
        self.tell_handed();
    }

    fn log_silence(&self, session_id: SessionId, what: &str) {
        if let Some(session) = self.dispatch.roster().get(session_id) {
            let worker_id = &session.record.worker.worker_id;
            tracing::info!(worker = %worker_id, "Worker '{worker_id}' {what}");
        }
    }

    fn result(&mut self, session_id: SessionId, result: WorkerResult, now: Timestamp) {
        let (task_id, job_id) = (result.task_id, result.job_id);
        let mark = mark_of(&result);
        let forced = result.error.as_ref().is_some_and(|error| *error.code == *task_error::NOT_STOPPED);
        if let Some(obedience) = self.dispatch.obeys(session_id, task_id, forced) {
            self.metrics.stopped(obedience);
        }
        let verdict = match self.apply(session_id, result, now) {
            Ok(Ok(())) => Verdict::Applied,
            Ok(Err(refusal)) => {
                let job = job_id.map(tracing::field::display);
                tracing::warn!(job, task = %task_id, "Result for task {task_id} refused: {refusal}");
                Verdict::Refused(refusal.as_str())
            }
            Err(_) => Verdict::RetryLater,
        };
        self.answer(session_id, task_id, verdict, mark);
    }

    fn apply(
        &mut self,
        session_id: SessionId,
        result: WorkerResult,
        now: Timestamp,
    ) -> Result<Result<(), Refusal>, ApiError> {
        let Some(session) = self.dispatch.roster().get(session_id) else {
            return Ok(Err(Refusal::ForeignSession));
        };
        let lease = self.dispatch.lease(result.task_id).filter(|lease| lease.session_id == session_id);
        // Of a task that it holds, the worker need not know the job; we do.
        let Some(job_id) = lease.map(|lease| lease.job_id).or(result.job_id) else {
            return Ok(Err(Refusal::UnknownJob));
        };
        let Some(job) = self.load(job_id)? else { return Ok(Err(Refusal::UnknownJob)) };
        let mut error = result.error;
        if let Some(error) = error.as_mut().filter(|_| !session.draining)
            && *error.code == *task_error::WORKER_STOPPED
        {
            // A worker that stays could give its task back for ever.
            error.code = Arc::from(task_error::TRANSIENT);
        }
        let report = Report {
            task_id: result.task_id,
            worker_id: session.record.worker.worker_id.clone(),
            by_holder: lease.is_some(),
            outcome: result.outcome,
            data: result.data,
            error,
            held_for: lease.map(|lease| now.saturating_since(lease.dispatched_at)),
            checkpoint: result.checkpoint.or_else(|| lease.and_then(|lease| lease.checkpoint())),
        };
        Ok(self.decide(&job, Event::Reported(report), false).map(drop))
    }

    /// The session is over: its tasks are ready for others.
    pub(super) fn session_ended(&mut self, session_id: SessionId, why: &str) {
        // The tasks of a stopping orchestrator stay with their workers.
        if self.draining.is_some() {
            return;
        }
        if let Some(session) = self.dispatch.roster().get(session_id) {
            let worker_id = &session.record.worker.worker_id;
            tracing::info!(worker = %worker_id, "Worker '{worker_id}' left: {why}");
        }
        self.dispatch.judge_lost(session_id, self.clock.now());
        let orphans = self.dispatch.disconnect(session_id);
        if !orphans.is_empty() {
            self.metrics.worker_lost();
        }
        self.remove_session(session_id);
        if plants(Mistake::LostWorkerForgotten) {
            return;
        }
        self.lose(orphans);
    }

    fn lose(&mut self, orphans: Vec<Orphan>) {
        for Orphan { task_id, job_id, worker_id, checkpoint } in orphans {
            tracing::warn!(job = %job_id, task = %task_id, worker = %worker_id, "Task {task_id} of job {job_id} is lost with worker '{worker_id}'");
            self.notice(job_id, Event::WorkerLost { task_id, worker_id, checkpoint });
        }
    }

    /// What time has done to workers: attempts that took too long or would not stop, checkpoints that are to be stored, sessions that
    /// never opened their stream, and the end of the adoption window.
    pub(super) fn workers_due(&mut self, now: Timestamp) {
        for Orphan { task_id, job_id, worker_id, checkpoint } in self.dispatch.expired(now, BATCH_MAX) {
            tracing::warn!(job = %job_id, task = %task_id, worker = %worker_id, "Task {task_id} of job {job_id} took too long on worker '{worker_id}'");
            self.dispatch.judge(task_id, Mark::Bad, now);
            self.notice(job_id, Event::AttemptTimedOut { task_id, worker_id, checkpoint });
        }
        while let Some((task_id, worker_id)) = self.dispatch.next_unstopped(now) {
            tracing::warn!(task = %task_id, worker = %worker_id, "Worker '{worker_id}' was told to stop task {task_id} and has not");
            self.metrics.stopped(Obedience::Overdue);
        }
        while let Some(Unsaved { task_id, job_id, worker_id, checkpoint }) = self.dispatch.next_unsaved(now) {
            self.notice(job_id, Event::Checkpointed { task_id, worker_id, checkpoint });
        }
        self.dispatch.back_from_aside(now);
        for (record, before) in self.dispatch.take_unstored(now) {
            let worker_id = record.worker.worker_id.clone();
            self.batch.writes.writes.push(Write::PutSession(record));
            self.batch.afterwards.push(Afterwards::Reproached { worker_id, before });
        }
        self.tell_handed();
        for session_id in self.waiting.expired(now) {
            self.remove_session(session_id);
        }
        let missing = self.dispatch.adoption_over(now);
        if !missing.is_empty() {
            tracing::warn!("{} workers of before the restart did not come back in time", missing.len());
            missing.into_iter().for_each(|session_id| self.remove_session(session_id));
            self.dispatch.pump_all(now);
            self.tell_handed();
        }
    }
}

/// What a result says of the worker that sends it.
fn mark_of(result: &WorkerResult) -> Mark {
    let code = result.error.as_ref().map(|error| &*error.code);
    match (&*result.outcome, code) {
        (outcome::CANCELLED, _) => Mark::None,
        (outcome::FAILURE, Some(task_error::WORKER_STOPPED | task_error::INVALID_INPUT)) => Mark::None,
        (outcome::FAILURE | outcome::TIMEOUT, _) => Mark::Bad,
        _ => Mark::Good,
    }
}
