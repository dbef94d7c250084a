//! What is kept of a message to a webhook: that it is owed, to whom, about what, and how its delivery stands.
//!
//! A notice is committed with the decision that it tells of. It holds the few facts that a later change of the job would wipe
//! out; everything else is read from the job when the message is made, so that a job's data is not stored twice. It refuses to
//! know how messages are delivered, and when one is tried again.

use std::{fmt, str::FromStr, sync::Arc};

use avtomatika_proto::JobId;
use prost::Message;

use super::record::{self, Damaged, Kind, StoredError};
use crate::{
    engine::{Job, JobError, JobStatus, Notice},
    time::Timestamp,
};

/// The name of a notice. Receivers know it as `webhook-id`: it is the same for every attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoticeId {
    /// The job that it is about.
    pub job_id: JobId,
    /// How many entries the job's history had after the decision: no two decisions have the same.
    pub sequence: u64,
}

/// What every name begins with.
const PREFIX: &str = "msg_";

impl fmt::Display for NoticeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_{}", self.job_id, self.sequence)
    }
}

/// The text is not the name of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a webhook message: expected msg_, the id of its job, and a number")]
pub struct InvalidNoticeId;

impl FromStr for NoticeId {
    type Err = InvalidNoticeId;

    fn from_str(text: &str) -> Result<Self, InvalidNoticeId> {
        let (job_id, sequence) =
            text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).ok_or(InvalidNoticeId)?;
        let id = Self {
            job_id: job_id.parse().map_err(|_| InvalidNoticeId)?,
            sequence: sequence.parse().map_err(|_| InvalidNoticeId)?,
        };
        // One notice has one spelling.
        if id.to_string() == text { Ok(id) } else { Err(InvalidNoticeId) }
    }
}

/// How the delivery of a notice stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum NoticeStatus {
    /// It is to be delivered.
    Pending = 1,
    /// The receiver has taken it.
    Delivered = 2,
    /// Nobody took it, and it is not tried any more.
    Failed = 3,
    /// There is nothing to tell any more: what was asked has been decided.
    Obsolete = 4,
}

impl NoticeStatus {
    /// Every one there is.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Failed, Self::Obsolete];

    /// Its name on every surface.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Obsolete => "obsolete",
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u32 == number)
    }
}

/// One message to a webhook.
#[derive(Debug, Clone, PartialEq)]
pub struct NoticeRecord {
    /// Its name.
    pub id: NoticeId,
    /// Whose job it is about.
    pub client: Arc<str>,
    /// Where it goes.
    pub url: Arc<str>,
    /// What it tells of.
    pub notice: Notice,
    /// When that happened.
    pub at: Timestamp,
    /// How the job stood then.
    pub job_status: JobStatus,
    /// The state in which it stood.
    pub state: Arc<str>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// How its delivery stands.
    pub status: NoticeStatus,
    /// While it is pending: not before this time.
    pub due_at: Timestamp,
    /// After this time it is not tried again.
    pub give_up_at: Timestamp,
    /// Attempts so far.
    pub attempts: u32,
    /// Those among them since it was first due, or due again because somebody asked for it.
    pub tries: u32,
    /// When it was last attempted.
    pub attempted_at: Option<Timestamp>,
    /// What the receiver last answered: an HTTP status.
    pub answer: Option<u16>,
    /// Why the last attempt was none that counts.
    pub problem: Option<Arc<str>>,
    /// Grows with every change, hence it tells an older record of this notice from a newer one.
    pub revision: u32,
}

impl NoticeRecord {
    /// What is owed to the webhook of this job, as it was just decided; `None` when it has none.
    pub fn of(job: &Job, notice: Notice, give_up_at: Timestamp) -> Option<Self> {
        Some(Self {
            id: NoticeId { job_id: job.id, sequence: job.history_len },
            client: job.client.clone(),
            url: job.submission.webhook_url.clone()?,
            notice,
            at: job.updated_at,
            job_status: job.status,
            state: job.state.clone(),
            error: job.error.clone(),
            status: NoticeStatus::Pending,
            due_at: job.updated_at,
            give_up_at,
            attempts: 0,
            tries: 0,
            attempted_at: None,
            answer: None,
            problem: None,
            revision: 0,
        })
    }

    /// Where it stands among the notices of all jobs.
    pub(super) fn place(&self) -> (i64, u64) {
        (self.id.job_id.key(), self.id.sequence)
    }
}

/// Tags are for ever, as in every record.
#[derive(Message)]
struct StoredNotice {
    #[prost(bytes = "vec", tag = "1")]
    job_id: Vec<u8>,
    #[prost(string, tag = "2")]
    client: String,
    #[prost(string, tag = "3")]
    url: String,
    #[prost(uint32, tag = "4")]
    notice: u32,
    #[prost(int64, tag = "5")]
    at_us: i64,
    #[prost(uint32, tag = "6")]
    job_status: u32,
    #[prost(string, tag = "7")]
    state: String,
    #[prost(message, optional, tag = "8")]
    error: Option<StoredError>,
    #[prost(uint32, tag = "9")]
    status: u32,
    #[prost(int64, tag = "10")]
    due_at_us: i64,
    #[prost(int64, tag = "11")]
    give_up_at_us: i64,
    #[prost(uint32, tag = "12")]
    attempts: u32,
    #[prost(uint32, tag = "13")]
    tries: u32,
    #[prost(int64, optional, tag = "14")]
    attempted_at_us: Option<i64>,
    #[prost(uint32, optional, tag = "15")]
    answer: Option<u32>,
    #[prost(string, optional, tag = "16")]
    problem: Option<String>,
    #[prost(uint32, tag = "17")]
    revision: u32,
}

/// The notice, for the place that its key and its sequence name.
pub(super) fn encode(notice: &NoticeRecord, buffer: &mut Vec<u8>) {
    let message = StoredNotice {
        job_id: notice.id.job_id.as_bytes().to_vec(),
        client: notice.client.to_string(),
        url: notice.url.to_string(),
        notice: notice.notice as u32,
        at_us: notice.at.as_micros(),
        job_status: notice.job_status as u32,
        state: notice.state.to_string(),
        error: notice.error.as_ref().map(record::error_to_stored),
        status: notice.status as u32,
        due_at_us: notice.due_at.as_micros(),
        give_up_at_us: notice.give_up_at.as_micros(),
        attempts: notice.attempts,
        tries: notice.tries,
        attempted_at_us: notice.attempted_at.map(Timestamp::as_micros),
        answer: notice.answer.map(u32::from),
        problem: notice.problem.as_deref().map(str::to_owned),
        revision: notice.revision,
    };
    record::seal(Kind::Notice, &owner(notice.id.job_id.key(), notice.id.sequence), &message, buffer);
}

/// The notice in this place.
pub(super) fn decode(key: i64, sequence: u64, bytes: &[u8]) -> Result<NoticeRecord, Damaged> {
    let message: StoredNotice = record::unseal(Kind::Notice, &owner(key, sequence), bytes)?;
    let unknown = |number: u32, what: &str| Damaged::new(format!("{number} is not the number of {what}"));
    let notice = u8::try_from(message.notice).ok().and_then(Notice::from_number);
    let status = NoticeStatus::from_number(message.status);
    Ok(NoticeRecord {
        id: NoticeId { job_id: record::job_id(&message.job_id)?, sequence },
        client: message.client.into(),
        url: message.url.into(),
        notice: notice.ok_or_else(|| unknown(message.notice, "a kind of notice"))?,
        at: Timestamp::from_micros(message.at_us),
        job_status: record::job_status(message.job_status)?,
        state: message.state.into(),
        error: message.error.map(record::error_from_stored),
        status: status.ok_or_else(|| unknown(message.status, "how a delivery stands"))?,
        due_at: Timestamp::from_micros(message.due_at_us),
        give_up_at: Timestamp::from_micros(message.give_up_at_us),
        attempts: message.attempts,
        tries: message.tries,
        attempted_at: message.attempted_at_us.map(Timestamp::from_micros),
        answer: message.answer.and_then(|answer| u16::try_from(answer).ok()),
        problem: message.problem.map(Into::into),
        revision: message.revision,
    })
}

pub(super) fn owner(key: i64, sequence: u64) -> [u8; 16] {
    let mut owner = [0; 16];
    owner[..8].copy_from_slice(&key.to_le_bytes());
    owner[8..].copy_from_slice(&sequence.to_le_bytes());
    owner
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::Samples;

    #[test]
    fn a_name_has_one_spelling() {
        let job_id = JobId::compose(1_700_000_000_123, 0, 0);
        let id = NoticeId { job_id, sequence: 7 };
        assert_eq!(id.to_string(), "msg_018bcfe5-687b-7000-8000-000000000000_7");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in [
            "",
            "msg_",
            "018bcfe5-687b-7000-8000-000000000000_7",
            "msg_018bcfe5-687b-7000-8000-000000000000",
            "msg_018bcfe5-687b-7000-8000-000000000000_",
            "msg_018bcfe5-687b-7000-8000-000000000000_07",
            "msg_018bcfe5-687b-7000-8000-000000000000_+7",
            "msg_018BCFE5-687b-7000-8000-000000000000_7",
            "msg_018bcfe5-687b-7000-8000-000000000000_7_7",
        ] {
            assert_eq!(text.parse::<NoticeId>(), Err(InvalidNoticeId), "{text}");
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_in_its_own_place_only() {
        let mut samples = Samples::new(21);
        let job = samples.job("acme");
        let mut bytes = Vec::new();
        for mut notice in [samples.notice(&job), samples.notice(&job)] {
            notice.status = NoticeStatus::Failed;
            (notice.answer, notice.problem) = (Some(503), Some("не сейчас".into()));
            notice.attempted_at = Some(notice.at);
            encode(&notice, &mut bytes);
            let (key, sequence) = notice.place();
            assert_eq!(decode(key, sequence, &bytes), Ok(notice));
            assert!(decode(key + 1, sequence, &bytes).is_err());
            assert!(decode(key, sequence + 1, &bytes).is_err());
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                assert!(decode(key, sequence, &damaged).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn the_bytes_of_a_record_are_known() {
        let mut samples = Samples::new(22);
        let job = samples.job("acme");
        let mut bytes = Vec::new();
        let notice = samples.notice(&job);
        encode(&notice, &mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        // What was written once must be read for ever. A new field changes what is written, and then a second text stands here.
        let stored = "010a10018bcfe568017000ab484d09e026708c120461636d651a1568747470733a2f2f6578616d706c652e636f6d2f3220\
             0128e987f9c0c1c4820330033a04696e6974480150b997f9c0c1c4820358e990f3c1c1c48203600268018201096e6f20616e737765\
             727d77129a";
        assert_eq!(hex, stored);
        let (key, sequence) = notice.place();
        assert_eq!(decode(key, sequence, &bytes), Ok(notice));
    }
}
