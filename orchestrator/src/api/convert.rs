//! Wire to domain and back: the only place that names both. What comes in is checked here or in [`submission`]; what goes out
//! has nothing in it that its reader may not see.

mod action;
mod explanation;
mod migration;
mod notice;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use avtomatika_proto::{
    ApiError, JobId,
    limits::{BATCH_BYTES_TARGET, LABELS_MAX},
    v1, wire_time,
};

pub(super) use self::{
    action::{deciding, repair, repair_query, repaired, retry, signal, skip},
    explanation::explained,
    migration::{migrated, migration_request},
    notice::webhook_messages,
};
use super::{
    shown::{self, Shown, Waiting},
    submission::{self, Draft, invalid},
};
use crate::{
    blueprint::{Blueprint, Change, Finding, Severity},
    conductor::{JobView, LeaseView, Stats, SubmitRequest, Submitted, WorkerStatus, WorkerView},
    engine::{Attempt, HistoryEntry, JobStatus},
    graph::Format,
    json::Json,
    reload::{Put, PutOutcome, Reloaded},
    schedule::ScheduleView,
    store::{ListQuery, NoticeId, Terms},
    time::Timestamp,
};

// ---- in ----

/// The job that a caller names. An id that is none reads as a job that is not there: nobody learns from the difference.
///
/// # Errors
/// `JOB_NOT_FOUND`.
pub(super) fn job_id(text: &str) -> Result<JobId, ApiError> {
    text.parse().map_err(|_| ApiError::new(avtomatika_proto::ErrorCode::JobNotFound, "Job not found"))
}

/// The message that a caller names. An id that is none reads as a message that is not there.
///
/// # Errors
/// `WEBHOOK_NOT_FOUND`.
pub(super) fn notice_id(text: &str) -> Result<NoticeId, ApiError> {
    let text = text.parse();
    text.map_err(|_| {
        ApiError::new(avtomatika_proto::ErrorCode::WebhookNotFound, "The job has no such webhook message")
    })
}

pub(super) fn submit_request(wire: v1::SubmitJobRequest) -> Result<SubmitRequest, ApiError> {
    let initial_data = match wire.initial_data.is_empty() {
        true => Json::empty(),
        false => submission::initial_data(wire.initial_data.as_bytes())?,
    };
    Draft {
        blueprint: Arc::from(wire.blueprint),
        initial_data,
        labels: wire.labels.into_iter().collect(),
        priority: i64::from(wire.priority),
        dispatch_timeout: span("dispatch_timeout", wire.dispatch_timeout)?,
        result_timeout: span("result_timeout", wire.result_timeout)?,
        start_at: wire.start_at.map(|time| timestamp_in("start_at", time)).transpose()?,
        delay: span("delay", wire.delay)?,
        webhook_url: Some(Arc::from(wire.webhook_url)),
        idempotency_key: Some(wire.idempotency_key.as_str()).filter(|key| !key.is_empty()),
        wait: span("wait", wire.wait)?.unwrap_or_default(),
    }
    .check()
}

pub(super) fn list_query(client: Arc<str>, wire: v1::ListJobsRequest) -> Result<ListQuery, ApiError> {
    let mut statuses = Vec::new();
    for number in wire.statuses {
        if number != v1::JobStatus::Unspecified as i32 {
            statuses.extend(status_filter(number)?);
        }
    }
    Ok(ListQuery {
        client,
        statuses,
        blueprint: Some(wire.blueprint).filter(|name| !name.is_empty()).map(Arc::from),
        labels: labels_of(wire.labels)?,
        created_from: wire.created_after.map(|time| timestamp_in("created_after", time)).transpose()?,
        created_before: wire.created_before.map(|time| timestamp_in("created_before", time)).transpose()?,
        below_key: jobs_cursor(&wire.cursor)?,
        limit: submission::page_size(wire.page_size.into(), submission::JOBS_PAGE_DEFAULT)?,
    })
}

/// Labels to filter by.
fn labels_of(wire: HashMap<String, String>) -> Result<BTreeMap<String, String>, ApiError> {
    match wire.len() <= LABELS_MAX {
        true => Ok(wire.into_iter().collect()),
        false => Err(invalid(format!("there are {} labels, the limit is {LABELS_MAX}", wire.len()))),
    }
}

fn status_filter(number: i32) -> Result<Option<JobStatus>, ApiError> {
    match u8::try_from(number).ok().and_then(JobStatus::from_number) {
        Some(status) => Ok(Some(status)),
        None => Err(invalid(format!("{number} is not a status that a job can have in this version"))),
    }
}

/// The format of a graph that a caller wants; nothing when it names none.
pub(super) fn graph_format(number: i32) -> Result<Option<Format>, ApiError> {
    match v1::GraphFormat::try_from(number) {
        Ok(v1::GraphFormat::Unspecified) => Ok(None),
        Ok(v1::GraphFormat::Dot) => Ok(Some(Format::Dot)),
        Ok(v1::GraphFormat::Mermaid) => Ok(Some(Format::Mermaid)),
        Ok(v1::GraphFormat::Svg) => Ok(Some(Format::Svg)),
        Err(_) => Err(invalid(format!("{number} is not a format of graphs in this version"))),
    }
}

fn span(field: &str, wire: Option<prost_types::Duration>) -> Result<Option<Duration>, ApiError> {
    let Some(wire) = wire else { return Ok(None) };
    match (u64::try_from(wire.seconds), u32::try_from(wire.nanos)) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Some(Duration::new(seconds, nanos))),
        _ => Err(invalid(format!("{field} is negative or not a valid duration"))),
    }
}

fn timestamp_in(field: &str, wire: prost_types::Timestamp) -> Result<Timestamp, ApiError> {
    let micros =
        wire.seconds.checked_mul(1_000_000).and_then(|s| s.checked_add(i64::from(wire.nanos) / 1000));
    let micros = micros.filter(|_| (0..1_000_000_000).contains(&wire.nanos));
    micros.map(Timestamp::from_micros).ok_or_else(|| invalid(format!("{field} is not a valid timestamp")))
}

// ---- cursors ----

const JOBS_CURSOR: char = 'j';
const HISTORY_CURSOR: char = 'h';

/// Where a listing goes on. Opaque to callers; a listing only ever shows the caller's own jobs, so that there is nothing to
/// gain by inventing one.
pub(super) fn jobs_cursor(text: &str) -> Result<Option<i64>, ApiError> {
    let key = cursor(JOBS_CURSOR, text)?;
    // Keys have 60 bits: see JobId::key.
    key.map(|key| i64::try_from(key).map_err(|_| invalid_cursor())).transpose()
}

pub(super) fn jobs_cursor_text(next_below_key: Option<i64>) -> String {
    next_below_key.map(|key| cursor_text(JOBS_CURSOR, key as u64)).unwrap_or_default()
}

pub(super) fn history_cursor(text: &str) -> Result<u64, ApiError> {
    Ok(cursor(HISTORY_CURSOR, text)?.unwrap_or(0))
}

pub(super) fn history_cursor_text(next_sequence: Option<u64>) -> String {
    next_sequence.map(|sequence| cursor_text(HISTORY_CURSOR, sequence)).unwrap_or_default()
}

fn cursor_text(kind: char, position: u64) -> String {
    format!("{kind}{position:016x}")
}

fn cursor(kind: char, text: &str) -> Result<Option<u64>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let position = text.strip_prefix(kind).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    match position {
        // One position has one spelling.
        Some(position) if cursor_text(kind, position) == text => Ok(Some(position)),
        _ => Err(invalid_cursor()),
    }
}

fn invalid_cursor() -> ApiError {
    invalid("the cursor is not one that this listing gave out".to_owned())
        .with_hint("Send the next_cursor of the page before, unchanged, or none for the first page.")
}

// ---- out ----

pub(super) fn submitted(done: Submitted) -> v1::SubmitJobResponse {
    v1::SubmitJobResponse {
        job_id: done.job_id.to_string(),
        deduplicated: done.deduplicated,
        job: done.job.as_ref().map(|view| job(view, Shown::Alone)),
    }
}

pub(super) fn submit_error(error: ApiError) -> v1::SubmitJobError {
    v1::SubmitJobError {
        code: error.code.as_str().to_owned(),
        retryable: error.code.is_retryable(),
        message: error.message.into_owned(),
        hint: error.hint.into_owned(),
    }
}

pub(super) fn job(view: &JobView, shown: Shown<'_>) -> v1::Job {
    let job = &view.job;
    let submission = &job.submission;
    let (error_code, error_message) = match &job.error {
        Some(error) => (error.code.to_string(), error.message.to_string()),
        None => Default::default(),
    };
    v1::Job {
        id: job.id.to_string(),
        blueprint_name: job.blueprint.to_string(),
        blueprint_version: job.blueprint_version,
        current_state: job.state.to_string(),
        // The numbers of the protocol are those of the domain, by definition.
        status: i32::from(view.status() as u8),
        initial_data: job.initial_data().as_str().to_owned(),
        state_history: job.state_history.as_str().to_owned(),
        result: job.result.as_ref().map(|result| result.as_str().to_owned()).unwrap_or_default(),
        error_message,
        error_code,
        retry_count: job.retry_count,
        transition_count: job.transitions,
        labels: submission.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        priority: submission.priority,
        current_task: job.attempt.as_ref().map(|attempt| v1::CurrentTask {
            checkpoint: shown::checkpoint(view, shown).unwrap_or_default().to_owned(),
            ..current_task(attempt, view.lease.as_ref())
        }),
        created_at: Some(timestamp(job.created_at)),
        updated_at: Some(timestamp(job.updated_at)),
        finished_at: job.finished_at.map(timestamp),
        resumes_at: job.resumes_at.map(timestamp),
        webhook_url: submission.webhook_url.as_deref().unwrap_or_default().to_owned(),
        waiting_for: shown::waiting(view, shown).map(waiting_for),
        outcome: job.outcome.as_deref().unwrap_or_default().to_owned(),
        failed_state: job.failed_state.as_deref().unwrap_or_default().to_owned(),
        results: shown::results_that_fit(view, shown).unwrap_or_default().to_owned(),
        parent_job_id: submission.parent.as_ref().map(|parent| parent.job_id.to_string()).unwrap_or_default(),
        start_at: submission.start_at.map(timestamp),
    }
}

fn waiting_for(waiting: Waiting<'_>) -> v1::WaitingFor {
    use v1::waiting_for::What;
    let what = match waiting {
        Waiting::Approval { message, token, since, deadline, decisions } => {
            What::Approval(v1::WaitingForApproval {
                message: message.unwrap_or_default().to_owned(),
                token: token.unwrap_or_default().to_owned(),
                since: Some(timestamp(since)),
                deadline: deadline.map(timestamp),
                decisions: decisions
                    .unwrap_or_default()
                    .iter()
                    .map(|decision| decision.to_string())
                    .collect(),
            })
        }
        Waiting::Signal { name, since, deadline } => What::Signal(v1::WaitingForSignal {
            name: name.to_owned(),
            since: Some(timestamp(since)),
            deadline: deadline.map(timestamp),
        }),
        Waiting::Children { total, ended, failed, since } => {
            What::Children(v1::WaitingForChildren { total, ended, failed, since: Some(timestamp(since)) })
        }
        Waiting::Keys { keys, since } => What::Keys(v1::WaitingForKeys {
            keys: keys.into_iter().map(str::to_owned).collect(),
            since: Some(timestamp(since)),
        }),
        Waiting::Timer { until } => What::Timer(v1::WaitingForTimer { until: Some(timestamp(until)) }),
    };
    v1::WaitingFor { what: Some(what) }
}

fn current_task(attempt: &Attempt, lease: Option<&LeaseView>) -> v1::CurrentTask {
    let progress = lease.and_then(|lease| lease.progress.as_ref());
    v1::CurrentTask {
        id: attempt.task_id.to_string(),
        r#type: attempt.task_type.to_string(),
        attempt: attempt.number,
        worker_id: lease.map(|lease| lease.worker_id.to_string()).unwrap_or_default(),
        ready_at: Some(timestamp(attempt.ready_at)),
        dispatched_at: lease.map(|lease| timestamp(lease.dispatched_at)),
        deadline: lease.map(|lease| timestamp(lease.deadline)),
        progress: progress.map(|progress| v1::TaskProgressReport {
            fraction: progress.fraction,
            message: progress.message.to_string(),
        }),
        checkpoint: String::new(),
    }
}

pub(super) fn history_entry(entry: &HistoryEntry) -> v1::HistoryEntry {
    let text = |value: &Option<Arc<str>>| value.as_deref().unwrap_or_default().to_owned();
    v1::HistoryEntry {
        sequence: entry.sequence,
        at: Some(timestamp(entry.at)),
        event: entry.event.as_str().to_owned(),
        state: entry.state.to_string(),
        from_state: text(&entry.from_state),
        outcome: text(&entry.outcome),
        task_id: entry.task_id.map(|id| id.to_string()).unwrap_or_default(),
        attempt: entry.attempt.unwrap_or(0),
        worker_id: text(&entry.worker_id),
        error_code: entry.error.as_ref().map(|error| error.code.to_string()).unwrap_or_default(),
        error_message: entry.error.as_ref().map(|error| error.message.to_string()).unwrap_or_default(),
        duration: entry.duration.map(wire_time::duration),
        by: text(&entry.by),
        detail: text(&entry.detail),
    }
}

/// Cuts a history that was read one entry further than asked for into a page, and says where the next one begins. A page
/// also ends where its texts would outgrow one message.
pub(super) fn history_page(mut entries: Vec<HistoryEntry>, limit: usize) -> (Vec<HistoryEntry>, Option<u64>) {
    let mut bytes = 0;
    let fits = entries.iter().take(limit).take_while(|entry| {
        let message = entry.error.as_ref().map_or(0, |error| error.message.len());
        bytes += HISTORY_ENTRY_BYTES + message + entry.detail.as_ref().map_or(0, |detail| detail.len());
        bytes <= BATCH_BYTES_TARGET
    });
    // A single entry is always far below the limit, so that every page moves on.
    let len = fits.count().max(1).min(entries.len());
    let next = entries.get(len).map(|entry| entry.sequence);
    entries.truncate(len);
    (entries, next)
}

/// What an entry takes on the wire beside its error message and its detail, generously.
const HISTORY_ENTRY_BYTES: usize = 512;

fn task_terms((task_type, terms): (&Arc<str>, &Terms)) -> v1::TaskTerms {
    v1::TaskTerms {
        r#type: task_type.to_string(),
        max_concurrent_tasks: terms.limit.unwrap_or(0),
        cost: terms.cost,
    }
}

pub(super) fn worker(view: &WorkerView) -> v1::WorkerInfo {
    let worker = &view.worker;
    let status = match view.status {
        WorkerStatus::Idle => v1::WorkerStatus::Idle,
        WorkerStatus::Busy => v1::WorkerStatus::Busy,
        WorkerStatus::Full => v1::WorkerStatus::Full,
        WorkerStatus::Draining => v1::WorkerStatus::Draining,
        WorkerStatus::SetAside => v1::WorkerStatus::SetAside,
        WorkerStatus::Suspected => v1::WorkerStatus::Suspected,
    };
    v1::WorkerInfo {
        worker_id: worker.worker_id.to_string(),
        worker_type: worker.worker_type.to_string(),
        supported_tasks: worker.task_types.iter().map(|name| name.to_string()).collect(),
        max_concurrent_tasks: worker.slots,
        status: status.into(),
        running_tasks: view.running_tasks,
        load: view.load,
        labels: worker.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        resources: worker.resources.iter().map(|(key, value)| (key.clone(), *value)).collect(),
        hostname: worker.hostname.to_string(),
        sdk_version: worker.sdk_version.to_string(),
        connected_at: Some(timestamp(view.connected_at)),
        hot_cache: view.hot_cache.iter().map(|name| name.to_string()).collect(),
        reputation: view.reputation,
        set_aside_until: view.aside_until.map(timestamp),
        installed_software: worker.software.clone().into_iter().collect(),
        installed_models: worker.models.clone().into_iter().collect(),
        terms: worker.terms.iter().map(task_terms).collect(),
        unstopped_tasks: view.unstopped_tasks,
    }
}

/// `dry_run`: what the reload came to is not in force.
pub(super) fn reloaded(reloaded: Reloaded, dry_run: bool) -> v1::ReloadConfigResponse {
    match reloaded {
        Reloaded::Applied { changes, unchanged, warnings } => v1::ReloadConfigResponse {
            applied: !dry_run,
            changes: changes.iter().map(change).collect(),
            unchanged: unchanged as u32,
            findings: warnings.iter().map(finding).collect(),
        },
        Reloaded::Refused(findings) => v1::ReloadConfigResponse {
            findings: findings.iter().map(finding).collect(),
            ..Default::default()
        },
    }
}

/// A blueprint as it is to be put.
pub(super) fn put(request: v1::PutBlueprintRequest) -> Put {
    let v1::PutBlueprintRequest { definition: text, name, file, dry_run } = request;
    let file = if file.is_empty() { "blueprint".to_owned() } else { file };
    Put { name: Some(name).filter(|name| !name.is_empty()), file, text, dry_run }
}

/// `dry_run`: what the put came to is not in force.
pub(super) fn put_outcome(outcome: &PutOutcome, dry_run: bool) -> v1::PutBlueprintResponse {
    let (applied, changed, findings) = match outcome {
        PutOutcome::Applied { change, warnings } => (!dry_run, Some(change), warnings),
        PutOutcome::Refused(findings) => (false, None, findings),
    };
    v1::PutBlueprintResponse {
        applied,
        change: changed.map(change),
        findings: findings.iter().map(finding).collect(),
    }
}

fn change(change: &Change) -> v1::BlueprintChange {
    v1::BlueprintChange {
        name: change.name.to_string(),
        version: change.after.unwrap_or(0),
        previous_version: change.before.unwrap_or(0),
    }
}

fn finding(finding: &Finding) -> v1::Finding {
    let severity = match finding.severity {
        Severity::Error => v1::FindingSeverity::Error,
        Severity::Warning => v1::FindingSeverity::Warning,
    };
    v1::Finding {
        severity: severity.into(),
        file: finding.file.clone(),
        line: finding.at.line as u32,
        column: finding.at.column as u32,
        what: finding.what.clone(),
        cure: finding.cure.clone(),
    }
}

pub(super) fn blueprint(blueprint: &Blueprint) -> v1::BlueprintInfo {
    v1::BlueprintInfo {
        name: blueprint.name.to_string(),
        version: blueprint.version,
        endpoint: blueprint.endpoint.as_deref().unwrap_or_default().to_owned(),
        start_state: blueprint.start.to_string(),
        states: blueprint.states.keys().map(|name| name.to_string()).collect(),
        task_types: blueprint.task_types().iter().map(|name| name.to_string()).collect(),
    }
}

pub(super) fn schedule(view: &ScheduleView) -> v1::ScheduleInfo {
    let schedule = &view.schedule;
    let record = view.standing.as_ref().map(|standing| &standing.record);
    let trouble = view.standing.as_ref().and_then(|standing| standing.trouble.as_deref());
    v1::ScheduleInfo {
        name: schedule.name.to_string(),
        blueprint: schedule.blueprint.to_string(),
        timing: schedule.timing.to_string(),
        time_zone: schedule.timing.zone_name().to_owned(),
        enabled: schedule.enabled,
        on_missed: schedule.on_missed.as_str().to_owned(),
        overlap: schedule.overlap.as_str().to_owned(),
        labels: schedule.submission.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        priority: schedule.submission.priority,
        next: view.next.iter().copied().map(timestamp).collect(),
        last_run: record.and_then(|record| record.last_run).map(|run| v1::ScheduledRun {
            due_at: Some(timestamp(run.due_at)),
            job_id: run.job_id.to_string(),
        }),
        last_skip: record.and_then(|record| record.last_skip).map(|skip| v1::ScheduledSkip {
            due_at: Some(timestamp(skip.due_at)),
            reason: skip.reason.as_str().to_owned(),
        }),
        trouble: trouble.unwrap_or_default().to_owned(),
    }
}

pub(super) fn stats(stats: &Stats, store: &str) -> v1::GetStatsResponse {
    let jobs: HashMap<String, u64> =
        stats.jobs.iter().map(|(status, count)| (status.as_str().to_owned(), *count)).collect();
    v1::GetStatsResponse {
        jobs,
        connected_workers: stats.connected_workers,
        ready_tasks: stats.ready_tasks.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
        running_tasks: stats.running_tasks,
        started_at: Some(timestamp(stats.started_at)),
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        store: store.to_owned(),
    }
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    wire_time::timestamp(time.as_micros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{HistoryEvent, JobError};

    #[test]
    fn a_cursor_has_one_spelling_and_one_listing() {
        for key in [0, 1, i64::MAX] {
            assert_eq!(jobs_cursor(&jobs_cursor_text(Some(key))), Ok(Some(key)));
        }
        assert_eq!(jobs_cursor(""), Ok(None));
        assert_eq!(history_cursor(&history_cursor_text(Some(7))), Ok(7));
        for text in
            ["j", "x0000000000000001", "j1", "j000000000000000A", "h0000000000000001", "jffffffffffffffff"]
        {
            assert!(jobs_cursor(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_protocol_numbers_statuses_as_the_domain_does() {
        for &status in JobStatus::ALL {
            let wire = v1::JobStatus::try_from(i32::from(status as u8)).unwrap();
            assert_eq!(wire.as_str_name().to_lowercase(), format!("job_status_{status}"));
            assert_eq!(status_filter(wire.into()), Ok(Some(status)));
        }
        assert!(status_filter(9999).is_err() && status_filter(-1).is_err());
    }

    #[test]
    fn spans_and_times_out_of_range_are_refused() {
        let wire = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        assert_eq!(span("wait", wire(1, 500_000_000)), Ok(Some(Duration::from_millis(1500))));
        for bad in [wire(-1, 0), wire(0, -1), wire(0, 1_000_000_000), wire(i64::MIN, i32::MIN)] {
            assert!(span("wait", bad).is_err(), "{bad:?}");
        }
        let time = prost_types::Timestamp { seconds: i64::MAX, nanos: 0 };
        assert!(timestamp_in("created_after", time).is_err());
        let time = Timestamp::from_micros(-1);
        assert_eq!(timestamp_in("created_after", timestamp(time)), Ok(time));
    }

    fn entries(count: u64, message: &str) -> Vec<HistoryEntry> {
        let entry = |sequence| HistoryEntry {
            sequence,
            at: Timestamp::default(),
            event: HistoryEvent::TaskFailed,
            state: Arc::from("init"),
            from_state: None,
            outcome: None,
            task_id: None,
            attempt: None,
            worker_id: None,
            error: Some(JobError { code: Arc::from("TRANSIENT_ERROR"), message: Arc::from(message) }),
            duration: None,
            by: None,
            detail: None,
        };
        (0..count).map(entry).collect()
    }

    #[test]
    fn a_page_of_history_ends_at_its_limit_or_where_a_message_is_full() {
        let page = |count, limit, message| {
            let (entries, next) = history_page(entries(count, message), limit);
            (entries.len(), next)
        };
        assert_eq!(page(0, 10, ""), (0, None));
        assert_eq!(page(10, 10, ""), (10, None));
        assert_eq!(page(11, 10, ""), (10, Some(10)));
        let (len, next) = page(1001, 1000, "x".repeat(4096).leak());
        assert!(len < 1000 && next == Some(len as u64), "{len}");
    }
}
