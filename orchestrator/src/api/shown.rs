//! How much of a job is shown where, for every way out: the one place that decides who sees the token of an approval. Whoever has
//! that token may decide, so it goes to the owner who asks for this one job, and into no list, stream, history or log.

use std::sync::Arc;

use avtomatika_proto::limits::MESSAGE_BYTES_MAX;

use crate::{
    conductor::JobView,
    engine::{Job, JobStatus, Wait},
    time::Timestamp,
};

/// To whom, and among what.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shown<'a> {
    /// One of many: without what a map has gathered, and without checkpoints.
    Listed,
    /// Alone, but perhaps passed on: without secrets.
    Alone,
    /// To the owner, who asked for it: with what it takes to decide.
    Owner {
        /// What may be decided.
        decisions: &'a [Arc<str>],
    },
}

/// What a job waits for, when that is not a task.
#[derive(Debug, PartialEq)]
pub(super) enum Waiting<'a> {
    Approval {
        message: Option<&'a str>,
        token: Option<&'a str>,
        since: Timestamp,
        deadline: Option<Timestamp>,
        decisions: Option<&'a [Arc<str>]>,
    },
    Signal {
        name: &'a str,
        since: Timestamp,
        deadline: Option<Timestamp>,
    },
    Children {
        total: u32,
        ended: u32,
        failed: u32,
        since: Timestamp,
    },
    Timer {
        until: Timestamp,
    },
    Keys {
        keys: Vec<&'a str>,
        since: Timestamp,
    },
}

/// What the job waits for, as far as it is shown.
pub(super) fn waiting<'a>(view: &'a JobView, shown: Shown<'a>) -> Option<Waiting<'a>> {
    let job = &*view.job;
    let deadline = job.resumes_at;
    match &job.wait {
        Some(Wait::Approval { token, message, since }) => {
            let (token, decisions) = match shown {
                Shown::Owner { decisions } => (Some(&**token), Some(decisions)),
                Shown::Listed | Shown::Alone => (None, None),
            };
            Some(Waiting::Approval { message: message.as_deref(), token, since: *since, deadline, decisions })
        }
        Some(Wait::Signal { name, since }) => Some(Waiting::Signal { name, since: *since, deadline }),
        Some(Wait::Children(children)) => {
            let counts =
                view.children.map(|counts| (counts.started.saturating_sub(counts.running), counts.failed));
            let (ended, failed) = counts.unwrap_or_default();
            Some(Waiting::Children { total: children.total, ended, failed, since: children.since })
        }
        Some(Wait::Start | Wait::Timer) => job.resumes_at.map(|until| Waiting::Timer { until }),
        Some(Wait::Keys(scope)) => job.claim_for(*scope).map(|hold| Waiting::Keys {
            keys: hold.claim.shares.iter().map(|share| &*share.key).collect(),
            since: hold.since,
        }),
        // The next try of a task.
        None if job.status == JobStatus::WaitingForTimer => {
            job.resumes_at.map(|until| Waiting::Timer { until })
        }
        None => None,
    }
}

/// What the branches of the last map ended with, as far as it is shown.
pub(super) fn results<'a>(job: &'a Job, shown: Shown<'_>) -> Option<&'a str> {
    match shown {
        Shown::Listed => None,
        Shown::Alone | Shown::Owner { .. } => job.results.as_deref(),
    }
}

/// How far the job's task is, as far as it is shown.
pub(super) fn checkpoint<'a>(view: &'a JobView, shown: Shown<'_>) -> Option<&'a str> {
    match shown {
        Shown::Listed => None,
        Shown::Alone | Shown::Owner { .. } => view.checkpoint().map(|checkpoint| checkpoint.as_str()),
    }
}

/// Bytes of a job's data that fit one message, with room for everything else of it.
const DATA_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 256 * 1024;

/// The same for a message, which is not as large as a job may be: the results are what is left out.
pub(super) fn results_that_fit<'a>(view: &'a JobView, shown: Shown<'_>) -> Option<&'a str> {
    let job = &*view.job;
    let result = job.result.as_ref().map_or(0, |result| result.as_str().len());
    let checkpoint = checkpoint(view, shown).map_or(0, str::len);
    let others = job.initial_data().as_str().len() + job.state_history.as_str().len() + result + checkpoint;
    results(job, shown).filter(|results| others + results.len() <= DATA_BYTES_MAX)
}
