//! What a webhook is told: the body of a message, in the form of Standard Webhooks.
//!
//! It is made whenever it is sent, from the notice and from the job as it is then. A job that has gone on since it ended (somebody
//! has started it again) is shown as it was in what the notice holds; what it may have lost since is left out. It refuses to know
//! how the message is delivered.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::{
    rest::{JobDocument, approval_path},
    shown::Shown,
};
use crate::{
    blueprint::Blueprint,
    conductor::JobView,
    engine::{Job, JobStatus, Notice, Wait, outlook},
    store::NoticeRecord,
};

/// The body, or `None` when nobody is asked any more what the notice says that somebody is asked.
pub fn compose(notice: &NoticeRecord, job: &Job, blueprint: Option<&Blueprint>) -> Option<Bytes> {
    match notice.notice {
        Notice::JobEnded if job.history_len == notice.id.sequence => {
            Some(body(notice, &JobDocument { view: &view(job.clone()), shown: Shown::Alone, fields: None }))
        }
        Notice::JobEnded => {
            let fields = KNOWN_FIELDS.map(str::to_owned);
            Some(body(
                notice,
                &JobDocument {
                    view: &view(as_it_was(notice, job)),
                    shown: Shown::Alone,
                    fields: Some(&fields),
                },
            ))
        }
        Notice::ApprovalRequested => {
            let approval = Approval::of(notice, job, blueprint)?;
            Some(body(
                notice,
                &Asked {
                    job: JobDocument { view: &view(job.clone()), shown: Shown::Alone, fields: None },
                    approval,
                },
            ))
        }
    }
}

/// The fields of a job that has gone on which still read as they did.
const KNOWN_FIELDS: [&str; 10] = [
    "id",
    "blueprint_name",
    "current_state",
    "status",
    "error_message",
    "error_code",
    "labels",
    "priority",
    "created_at",
    "finished_at",
];

fn as_it_was(notice: &NoticeRecord, job: &Job) -> Job {
    Job {
        status: notice.job_status,
        state: notice.state.clone(),
        error: notice.error.clone(),
        finished_at: Some(notice.at),
        ..job.clone()
    }
}

fn view(job: Job) -> JobView {
    JobView { job: Arc::new(job), lease: None, children: None }
}

#[derive(Serialize)]
struct Payload<'a, D> {
    r#type: &'static str,
    timestamp: String,
    data: &'a D,
}

fn body(notice: &NoticeRecord, data: &impl Serialize) -> Bytes {
    let payload = Payload { r#type: kind(notice), timestamp: notice.at.to_string(), data };
    // What could not be written is a fault of the stored data: the receiver is told that something happened.
    let bytes = serde_json::to_vec(&payload).unwrap_or_else(|error| {
        tracing::error!(%error, "the body of webhook message {} cannot be written", notice.id);
        format!("{{\"type\":\"{}\",\"data\":{{\"id\":\"{}\"}}}}", kind(notice), notice.id.job_id).into_bytes()
    });
    Bytes::from(bytes)
}

/// What happened, in one word.
pub(super) fn kind(notice: &NoticeRecord) -> &'static str {
    match (notice.notice, notice.job_status) {
        (Notice::ApprovalRequested, _) => "job.approval_requested",
        (Notice::JobEnded, JobStatus::Finished) => "job.finished",
        (Notice::JobEnded, JobStatus::Cancelled) => "job.cancelled",
        (Notice::JobEnded, JobStatus::Quarantined) => "job.quarantined",
        (Notice::JobEnded, _) => "job.failed",
    }
}

/// A job, and what a human is asked about it.
#[derive(Serialize)]
struct Asked<'a> {
    #[serde(flatten)]
    job: JobDocument<'a>,
    approval: Approval<'a>,
}

#[derive(Serialize)]
struct Approval<'a> {
    message: Option<&'a str>,
    /// Whoever has it may decide, once.
    token: &'a str,
    /// Where to send the decision with it: a path of this orchestrator.
    path: String,
    /// What may be decided.
    decisions: Vec<Arc<str>>,
    deadline: Option<String>,
}

impl<'a> Approval<'a> {
    fn of(notice: &NoticeRecord, job: &'a Job, blueprint: Option<&'a Blueprint>) -> Option<Self> {
        // With another beginning it is another question by now.
        let (token, message) = match &job.wait {
            Some(Wait::Approval { token, message, since }) if *since == notice.at => (token, message),
            _ => return None,
        };
        Some(Self {
            message: message.as_deref(),
            token,
            path: approval_path(job.id),
            decisions: blueprint.map(|blueprint| outlook::decisions(job, blueprint)).unwrap_or_default(),
            deadline: job.resumes_at.map(|deadline| deadline.to_string()),
        })
    }
}
