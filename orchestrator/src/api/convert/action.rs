//! What is done to jobs that are there, from the wire to the domain, and what became of it.

use std::sync::Arc;

use avtomatika_proto::{ApiError, v1};

use super::{jobs_cursor, jobs_cursor_text, labels_of, status_filter, submit_error, timestamp_in};
use crate::{
    api::{
        action::{Decider, RepairDraft, RetryDraft, RulingDraft, SignalDraft, SkipDraft},
        submission::invalid,
    },
    conductor::{Repair, RepairQuery, Repaired},
    engine::{Retry, Ruling, Signal, Skip},
    store::ListQuery,
};

pub(in crate::api) fn signal(wire: &v1::SignalJobRequest) -> Result<Signal, ApiError> {
    SignalDraft { name: &wire.name, id: &wire.id, data: &wire.data }.check()
}

/// What the owner decides.
pub(in crate::api) fn deciding(
    wire: &v1::DecideApprovalRequest,
    client: &Arc<str>,
) -> Result<Ruling, ApiError> {
    let v1::DecideApprovalRequest { job_id: _, decision, comment, by, data, token } = wire;
    RulingDraft { decision, comment, by, data, token }.check(Decider::Owner(client))
}

pub(in crate::api) fn retry(
    wire: Option<v1::RetryAction>,
    idempotency_key: &str,
    client: &Arc<str>,
) -> Result<Retry, ApiError> {
    let v1::RetryAction { state, initial_data, initial_data_patch, state_history_patch, reason } =
        &wire.unwrap_or_default();
    RetryDraft { state, initial_data, initial_data_patch, state_history_patch, reason, idempotency_key }
        .check(client)
}

pub(in crate::api) fn skip(
    wire: Option<v1::SkipAction>,
    idempotency_key: &str,
    client: &Arc<str>,
) -> Result<Skip, ApiError> {
    let v1::SkipAction { outcome, data, reason } = &wire.unwrap_or_default();
    SkipDraft { outcome, data, reason, idempotency_key }.check(client)
}

/// What is to be done to many jobs.
pub(in crate::api) fn repair(
    wire: Option<v1::repair_jobs_request::Action>,
    client: &Arc<str>,
) -> Result<Repair, ApiError> {
    use v1::repair_jobs_request::Action;
    match wire {
        Some(Action::Retry(action)) => retry(Some(action), "", client).map(Repair::Retry),
        Some(Action::Skip(action)) => skip(Some(action), "", client).map(Repair::Skip),
        None => Err(invalid("action is missing".to_owned()).with_hint("Say retry or skip.")),
    }
}

/// To which jobs.
pub(in crate::api) fn repair_query(
    wire: &v1::RepairJobsRequest,
    client: Arc<str>,
) -> Result<RepairQuery, ApiError> {
    let filter = wire.filter.clone().unwrap_or_default();
    let mut statuses = Vec::new();
    for number in filter.statuses.into_iter().filter(|number| *number != v1::JobStatus::Unspecified as i32) {
        statuses.extend(status_filter(number)?);
    }
    RepairDraft {
        jobs: ListQuery {
            client,
            statuses,
            blueprint: Some(filter.blueprint).filter(|name| !name.is_empty()).map(Arc::from),
            labels: labels_of(filter.labels)?,
            created_from: filter.created_after.map(|time| timestamp_in("created_after", time)).transpose()?,
            created_before: filter
                .created_before
                .map(|time| timestamp_in("created_before", time))
                .transpose()?,
            below_key: jobs_cursor(&wire.cursor)?,
            limit: wire.limit as usize,
        },
        failed_state: &filter.failed_state,
        error_code: &filter.error_code,
        dry_run: wire.dry_run,
    }
    .check()
}

/// What became of it.
pub(in crate::api) fn repaired(done: Repaired) -> v1::RepairJobsResponse {
    let refusal = |(job_id, error): (avtomatika_proto::JobId, ApiError)| v1::RepairRefusal {
        job_id: job_id.to_string(),
        code: error.code.as_str().to_owned(),
        message: error.message.into_owned(),
    };
    v1::RepairJobsResponse {
        count: done.count as u32,
        job_ids: done.job_ids.iter().map(ToString::to_string).collect(),
        refused_count: done.refused_count as u32,
        refusals: done.refusals.into_iter().map(refusal).collect(),
        next_cursor: jobs_cursor_text(done.next_below_key),
        stopped_by: done.stopped_by.map(submit_error),
    }
}
