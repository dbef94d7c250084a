//! Messages that webhooks are owed.
//!
//! A notice is written in the batch that decides what it tells of; when that is durable, its name waits in the `mail`. A chore takes
//! names that are due, delivers, and brings back what came of it, which is written as everything else is: the conductor stays
//! the only writer, and it never waits for a receiver. After a start the names are read from the store. It refuses to know how
//! messages are delivered.

use std::{sync::Arc, time::Duration};

use avtomatika_proto::{ApiError, ErrorCode, JobId};

use super::{
    batch::Afterwards,
    core::{AGAIN_AFTER, Core},
    handle::{Conductor, job_not_found, shutting_down, storage_error},
    mail::DueNotices,
    mailbox::{Reply, Request},
};
use crate::{
    engine::{Effect, Job},
    museum::{Mistake, plants},
    store::{NoticeId, NoticeRecord, NoticeStatus, Write},
    webhook,
};

/// Messages of one job that are listed, so that they fit one gRPC message.
pub const LISTED_MAX: usize = 500;

/// How long a message rests of which could not be stored what came of it: its receiver may have it already.
const NOT_STORED_PAUSE: Duration = Duration::from_secs(30);

impl Conductor {
    /// The notices about a job, in the order in which they arose; the newest `LISTED_MAX` of them.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, `STORAGE_FAILED`.
    pub async fn notices(&self, client: &Arc<str>, job_id: JobId) -> Result<Vec<NoticeRecord>, ApiError> {
        self.load_own(client, job_id).await?;
        let mut notices = self.read(move |store| store.notices(job_id)).await?;
        if notices.is_empty() {
            // The job may have been forgotten between the two reads.
            self.load_own(client, job_id).await?;
        }
        notices.drain(..notices.len().saturating_sub(LISTED_MAX));
        Ok(notices)
    }

    /// This notice, and its job as it is now. `None` when they are not there (any more).
    ///
    /// # Errors
    /// `STORAGE_FAILED`.
    pub async fn notice(&self, id: NoticeId) -> Result<Option<(NoticeRecord, Job)>, ApiError> {
        self.read(move |store| {
            let found = store.notices(id.job_id)?.into_iter().find(|notice| notice.id == id);
            Ok(found.zip(store.load(id.job_id)?))
        })
        .await
    }

    /// Delivers a notice again, whatever came of it before; without a name, all about the job that were given up. Answers with
    /// those that are now to be delivered.
    ///
    /// # Errors
    /// `JOB_NOT_FOUND`, `WEBHOOK_NOT_FOUND`, `WEBHOOKS_OFF`, `STORAGE_FULL`, `STORAGE_FAILED`, `OVERLOADED`, `SHUTTING_DOWN`.
    pub async fn redeliver(
        &self,
        client: &Arc<str>,
        job_id: JobId,
        id: Option<NoticeId>,
    ) -> Result<Vec<NoticeRecord>, ApiError> {
        if self.webhooks.current().is_none() {
            return Err(webhooks_off());
        }
        let client = client.clone();
        self.mailbox.ask(|reply| Request::Redeliver { client, job_id, id, reply }).await?
    }

    /// Takes what is due. What was taken and is not settled comes again after the next start.
    ///
    /// # Errors
    /// `OVERLOADED`, `SHUTTING_DOWN`.
    pub async fn take_notices(&self) -> Result<DueNotices, ApiError> {
        self.mailbox.ask(Request::TakeNotices).await
    }

    /// Says what came of a notice that was taken; `None` when nothing did, and it is to be looked at again later.
    ///
    /// # Errors
    /// `STORAGE_FULL`, `SHUTTING_DOWN`: nothing was stored, and the notice comes again.
    pub async fn settle_notice(&self, id: NoticeId, record: Option<NoticeRecord>) -> Result<(), ApiError> {
        let record = record.map(Arc::new);
        // Not said, it would stay taken until the next start.
        self.mailbox.ask_patiently(|reply| Request::SettleNotice { id, record, reply }).await?
    }

    /// Resolves when something may have become due since it last did.
    pub async fn notice_news(&self) {
        self.notice_news.notified().await;
    }

    /// Whether a webhook may be told of this client's job.
    pub(super) fn check_webhook(&self, url: Option<&str>) -> Result<(), ApiError> {
        let Some(url) = url else { return Ok(()) };
        match &*self.webhooks.current() {
            None => Err(webhooks_off()),
            Some(setup) => webhook::check_url(url, setup.allow_private),
        }
    }
}

fn webhooks_off() -> ApiError {
    ApiError::new(ErrorCode::WebhooksOff, "This orchestrator has no secret to sign webhooks with")
}

impl Core {
    /// What was decided owes this to the job's webhook: it is written with the decision.
    pub(super) fn owe(&mut self, job: &Job, effects: &[Effect]) {
        for effect in effects {
            let Effect::Notify(notice) = effect else { continue };
            let Some(mut record) = webhook::owed(job, *notice) else { continue };
            if self.mail.is_full(&job.client) {
                record.status = NoticeStatus::Failed;
                record.problem = Some(Arc::from(TOO_MANY));
            }
            if !plants(Mistake::NoticeAside) {
                self.batch.writes.writes.push(Write::PutNotice(Arc::new(record.clone())));
            }
            self.batch.afterwards.push(Afterwards::Owed(Box::new(record)));
        }
    }

    /// Refuses a job that would owe its webhook something when there is no room for it.
    pub(super) fn check_notices(&self, client: &str, has_webhook: bool) -> Result<(), ApiError> {
        if has_webhook && self.mail.is_full(client) {
            return Err(ApiError::new(ErrorCode::TooManyNotices, TOO_MANY));
        }
        Ok(())
    }

    pub(super) fn take_notices(&mut self, reply: Reply<DueNotices>) {
        let now = self.clock.now();
        let due = if self.draining.is_some() {
            // Nothing leaves a process that is stopping.
            DueNotices::default()
        } else if *self.storage_full.borrow() {
            // What came of a delivery could not be stored.
            DueNotices { ids: Vec::new(), next_due: Some(now + AGAIN_AFTER) }
        } else {
            self.mail.take(now)
        };
        // Whoever asked is gone: what it was given waits again.
        if let Err(due) = reply.send(due) {
            due.ids.into_iter().for_each(|id| self.notice_again(id));
        }
    }

    pub(super) fn settle_notice(
        &mut self,
        id: NoticeId,
        record: Option<Arc<NoticeRecord>>,
        reply: Reply<Result<(), ApiError>>,
    ) {
        match record {
            // Its lease ends with this process, and it is found again by the next one.
            _ if self.draining.is_some() => drop(reply.send(Err(shutting_down()))),
            Some(record) => {
                self.batch.writes.writes.push(Write::PutNotice(record.clone()));
                self.batch.afterwards.push(Afterwards::NoticeSettled { record, reply });
            }
            None => {
                self.notice_again(id);
                let _ = reply.send(Ok(()));
            }
        }
    }

    /// What came of it is durable.
    pub(super) fn notice_settled(&mut self, record: &NoticeRecord) {
        self.mail.settled(record.id);
        self.mail.put(record);
    }

    /// Nothing that could be stored came of it. If it is still to be delivered, it is tried again after a while; should it have
    /// been delivered, the receiver gets it twice.
    pub(super) fn notice_again(&mut self, id: NoticeId) {
        self.mail.settled(id);
        match self.store.notices(id.job_id) {
            Ok(notices) => {
                if let Some(notice) = notices.into_iter().find(|notice| notice.id == id) {
                    let due_at = self.clock.now() + NOT_STORED_PAUSE;
                    self.mail.put(&NoticeRecord { due_at, ..notice });
                }
            }
            Err(error) => tracing::error!(%error, hint = error.hint(), "webhook message {id} cannot be read"),
        }
    }

    pub(super) fn redeliver(
        &mut self,
        client: &Arc<str>,
        job_id: JobId,
        id: Option<NoticeId>,
        reply: Reply<Result<Vec<NoticeRecord>, ApiError>>,
    ) {
        match self.find_notices(client, job_id, id) {
            Err(error) => drop(reply.send(Err(error))),
            Ok(found) => {
                let now = self.clock.now();
                let again = |notice: &NoticeRecord| match self.mail.is_busy(notice.id) {
                    // It is being delivered at this moment, or will be as soon as that is durable.
                    true => notice.clone(),
                    false => webhook::redelivered(notice, now),
                };
                let records: Vec<NoticeRecord> = found.iter().map(again).collect();
                for (before, record) in found.iter().zip(&records) {
                    if before != record {
                        self.mail.begin_change(before);
                        self.batch.writes.writes.push(Write::PutNotice(Arc::new(record.clone())));
                    }
                }
                self.batch.afterwards.push(Afterwards::Redelivered { before: found, records, reply });
            }
        }
    }

    fn find_notices(
        &self,
        client: &Arc<str>,
        job_id: JobId,
        id: Option<NoticeId>,
    ) -> Result<Vec<NoticeRecord>, ApiError> {
        self.check_serving()?;
        self.load(job_id)?.filter(|job| job.client == *client).ok_or_else(job_not_found)?;
        self.check_notices(client, true)?;
        let mut found = self.store.notices(job_id).map_err(storage_error)?;
        match id {
            None => found.retain(|notice| notice.status == NoticeStatus::Failed),
            Some(id) => {
                found.retain(|notice| notice.id == id);
                if found.is_empty() {
                    let text = "The job has no such webhook message";
                    return Err(ApiError::new(ErrorCode::WebhookNotFound, text));
                }
            }
        }
        Ok(found)
    }

    /// They are durable: they are due now, and not when they were before.
    pub(super) fn redelivered(&mut self, before: &[NoticeRecord], records: &[NoticeRecord]) {
        let changed = before.iter().zip(records).filter(|(before, record)| before != record);
        changed.for_each(|(_, record)| self.mail.end_change(record));
    }

    /// They could not be stored: they are due when they were before.
    pub(super) fn not_redelivered(&mut self, before: &[NoticeRecord], records: &[NoticeRecord]) {
        let changed = before.iter().zip(records).filter(|(before, record)| before != record);
        changed.for_each(|(before, _)| self.mail.end_change(before));
    }
}

const TOO_MANY: &str = "As many messages wait for this client's webhooks as may";
