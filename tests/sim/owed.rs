//! What webhooks are owed, kept by the simplest means: one message for each end of a job and one for each question to a human, written
//! together with what it tells of.
//!
//! A message leaves when it is durable, and counts as delivered when its receiver has it.

use std::{collections::BTreeMap, sync::Arc};

use avtomatika_orchestrator::{
    engine::{HistoryEntry, HistoryEvent, Job, JobStatus, Notice},
    store::{NoticeId, NoticeRecord, NoticeStatus},
};
use avtomatika_proto::JobId;

use crate::{
    invariants::{Checked, Invariant as I, require},
    sometimes::{Met, Sometimes as S},
};

/// Messages among which somebody looks for one that did not arrive.
const LATEST: usize = 200;

/// A message, as last committed.
struct Message {
    record: Arc<NoticeRecord>,
    /// How often its receiver got it.
    received: u32,
    /// In which life of the process it was first owed.
    life: u32,
    /// In which life somebody wanted it again, if it was not delivered since.
    wanted: Option<u32>,
}

/// Everything that is owed, or was.
#[derive(Default)]
pub struct Owed {
    messages: BTreeMap<NoticeId, Message>,
    /// What the batch that is being looked at has to bring, and has not brought yet.
    expected: BTreeMap<NoticeId, Notice>,
    pending: usize,
}

impl Owed {
    /// A job has changed. What that owes is written in the same batch.
    pub fn changed(&mut self, job: &Job, entries: &[HistoryEntry]) {
        let has = |events: &[HistoryEvent]| entries.iter().any(|entry| events.contains(&entry.event));
        use HistoryEvent as E;
        let ends = [E::JobFinished, E::JobFailed, E::JobCancelled, E::JobQuarantined];
        let notice = match job.status {
            status if status.is_terminal() && has(&ends) => Notice::JobEnded,
            JobStatus::WaitingForHuman if has(&[E::ApprovalRequested]) => Notice::ApprovalRequested,
            _ => return,
        };
        if job.submission.webhook_url.is_some() {
            self.expected.insert(NoticeId { job_id: job.id, sequence: job.history_len }, notice);
        }
    }

    /// What is known of a message is durable.
    pub fn put(&mut self, record: &Arc<NoticeRecord>, life: u32, met: &mut Met) -> Checked {
        let id = record.id;
        let Some(message) = self.messages.get_mut(&id) else {
            let expected = self.expected.remove(&id);
            let sound = expected == Some(record.notice) && record.status == NoticeStatus::Pending;
            require(sound, I::OwedExactly, || format!("{record:?} is owed, and {expected:?} is"))?;
            self.pending += 1;
            self.messages.insert(id, Message { record: record.clone(), received: 0, life, wanted: None });
            return Ok(());
        };
        let before = &message.record;
        require(record.revision > before.revision, I::OwedExactly, || {
            format!("{record:?} takes the place of {before:?}")
        })?;
        let is_true = record.status != NoticeStatus::Delivered || message.received > 0;
        require(is_true, I::DeliveredIsReceived, || format!("nobody received {record:?}"))?;
        // An attempt counts one more try; whoever wants a message again has them counted anew.
        let is_wanted = record.status == NoticeStatus::Pending && record.tries <= before.tries;
        match (before.status, record.status) {
            (NoticeStatus::Pending, NoticeStatus::Pending) if !is_wanted => met.mark(S::NoticeRetried),
            (NoticeStatus::Pending, NoticeStatus::Pending) if before.tries > 0 => met.mark(S::NoticeHurried),
            // It was on its way anyhow.
            (NoticeStatus::Pending, NoticeStatus::Pending) => {}
            (NoticeStatus::Failed, NoticeStatus::Pending) => met.mark(S::NoticeRevived),
            (_, NoticeStatus::Pending) => met.mark(S::NoticeRedelivered),
            (_, NoticeStatus::Delivered) if message.wanted.is_some_and(|wanted| wanted != life) => {
                met.mark(S::NoticeRedeliveredAfterRestart);
            }
            (_, NoticeStatus::Delivered) if life != message.life => met.mark(S::NoticeAfterRestart),
            (_, NoticeStatus::Delivered) => met.mark(S::NoticeDelivered),
            (_, NoticeStatus::Failed) => met.mark(S::NoticeGivenUp),
            (_, NoticeStatus::Obsolete) => met.mark(S::NoticeObsolete),
        }
        message.wanted = match record.status {
            NoticeStatus::Pending if is_wanted => Some(life),
            NoticeStatus::Pending => message.wanted,
            _ => None,
        };
        let pending = |record: &NoticeRecord| usize::from(record.status == NoticeStatus::Pending);
        self.pending = self.pending + pending(record) - pending(before);
        message.record = record.clone();
        Ok(())
    }

    /// A job is forgotten, and what it owed.
    pub fn forget(&mut self, job_id: JobId) {
        let of_job = NoticeId { job_id, sequence: 0 }..=NoticeId { job_id, sequence: u64::MAX };
        let forgotten: Vec<NoticeId> = self.messages.range(of_job).map(|(id, _)| *id).collect();
        for message in forgotten.iter().filter_map(|id| self.messages.remove(id)) {
            self.pending -= usize::from(message.record.status == NoticeStatus::Pending);
        }
    }

    /// The batch is over: whatever it owes stands in it.
    pub fn look_at_batch(&self) -> Checked {
        require(self.expected.is_empty(), I::OwedExactly, || {
            format!("these messages are owed, and are not written: {:?}", self.expected)
        })
    }

    /// Somebody who wanted messages again is told that they will come: that is durable.
    pub fn promised(&self, notices: &[NoticeRecord]) -> Checked {
        for notice in notices {
            // One of a job that was forgotten meanwhile is owed to nobody.
            let Some(message) = self.messages.get(&notice.id) else { continue };
            require(message.record.revision >= notice.revision, I::SeenIsDurable, || {
                format!("{notice:?} is promised, and durable is {:?}", message.record)
            })?;
        }
        Ok(())
    }

    /// A message leaves.
    pub fn posted(&self, notice: &NoticeRecord) -> Checked {
        let message = self.messages.get(&notice.id);
        let durable = message.is_some_and(|message| *message.record == *notice);
        require(durable, I::SeenIsDurable, || {
            format!("{notice:?} leaves, and durable is {:?}", message.map(|message| &message.record))
        })
    }

    /// Its receiver has it.
    pub fn received(&mut self, id: NoticeId, met: &mut Met) {
        if let Some(message) = self.messages.get_mut(&id) {
            message.received += 1;
            if message.received > 1 {
                met.mark(S::NoticeTwice);
            }
        }
    }

    /// Messages of late that their receivers have not taken: given up, or waiting to be sent again.
    pub fn not_taken(&self) -> Vec<NoticeId> {
        let latest = self.messages.values().rev().take(LATEST).map(|message| &message.record);
        let is_missing = |record: &NoticeRecord| match record.status {
            NoticeStatus::Failed => true,
            NoticeStatus::Pending => record.tries > 0,
            NoticeStatus::Delivered | NoticeStatus::Obsolete => false,
        };
        latest.filter(|record| is_missing(record)).map(|record| record.id).collect()
    }

    /// Some message about this job.
    pub fn about(&self, job_id: JobId) -> Option<NoticeId> {
        let of_job = NoticeId { job_id, sequence: 0 }..=NoticeId { job_id, sequence: u64::MAX };
        self.messages.range(of_job).next_back().map(|(id, _)| *id)
    }

    /// How many are still to be delivered.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// One that is still to be delivered, for words.
    pub fn first_pending(&self) -> Option<&NoticeRecord> {
        let records = self.messages.values().map(|message| &*message.record);
        records.into_iter().find(|record| record.status == NoticeStatus::Pending)
    }
}
