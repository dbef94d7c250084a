//! How jobs, histories, sessions and blueprints are written down: the bytes of one row.
//!
//! A record is a format byte, a protocol-buffers message, and a checksum over both and over its owner's id,
//! so that damage and a row in the wrong place are noticed. Whatever bytes it is given, decoding answers with
//! the value that was encoded or with [`Damaged`], never with a panic. Every release must read what every
//! earlier one wrote: fields are added and never change their tag, type or meaning. It refuses to know where
//! records are kept.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use avtomatika_proto::{JobId, SessionId, TaskId, trace::TraceContext};
use prost::Message;

use self::fields::Fields;
use super::{
    BlueprintRecord, IdempotencyKey, KeyName, Reproach, SessionRecord, Standing, Stub, StubKeys, StubTask,
    Terms, WorkerRecord,
    checksum::Crc32,
    claim::{StoredHold, claim_to_stored, hold_from_stored, hold_to_stored, scope_from_stored},
};
use crate::{
    engine::{
        Attempt, ChildKind, Children, HistoryEntry, HistoryEvent, Job, JobError, JobStatus, Parent,
        RepairKey, Signal, Submission, Wait,
    },
    json::Json,
    time::Timestamp,
};

mod fields;

/// The first byte of every record.
const FORMAT: u8 = 1;

/// Bytes of the checksum at the end.
const CHECKSUM_LEN: usize = 4;

/// What a record is about; part of its checksum. The numbers are for ever.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Submission = 1,
    Job = 2,
    History = 3,
    Session = 4,
    Blueprint = 5,
    Idempotency = 6,
    Stub = 7,
    Notice = 8,
    Schedule = 9,
    Bucket = 10,
    Usage = 11,
}

/// The bytes are not a record that a release of Avtomatika wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Damaged(String);

impl Damaged {
    /// With what was found.
    pub(super) fn new(what: String) -> Self {
        Self(what)
    }
}

impl From<prost::DecodeError> for Damaged {
    fn from(error: prost::DecodeError) -> Self {
        Self(error.to_string())
    }
}

/// The part of a job that never changes.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) client: Arc<str>,
    pub(super) blueprint: Arc<str>,
    pub(super) blueprint_version: u32,
    pub(super) created_at: Timestamp,
    pub(super) submission: Arc<Submission>,
}

impl Origin {
    /// That part of this job.
    pub(super) fn of(job: &Job) -> Self {
        Self {
            client: job.client.clone(),
            blueprint: job.blueprint.clone(),
            blueprint_version: job.blueprint_version,
            created_at: job.created_at,
            submission: job.submission.clone(),
        }
    }
}

// The messages. Tags are for ever: a tag that goes out of use is never given away again. Those that are written with every change of a
// job are written field by field, with the same tags, and as messages they are only read.

/// Written once per job.
#[derive(Message)]
struct StoredSubmission {
    #[prost(string, tag = "1")]
    client: String,
    #[prost(string, tag = "2")]
    blueprint: String,
    #[prost(uint32, tag = "3")]
    blueprint_version: u32,
    #[prost(int64, tag = "4")]
    created_at_us: i64,
    #[prost(string, tag = "5")]
    initial_data: String,
    #[prost(btree_map = "string, string", tag = "6")]
    labels: BTreeMap<String, String>,
    #[prost(sint32, tag = "7")]
    priority: i32,
    #[prost(uint64, optional, tag = "8")]
    dispatch_timeout_ns: Option<u64>,
    #[prost(uint64, optional, tag = "9")]
    result_timeout_ns: Option<u64>,
    #[prost(string, optional, tag = "10")]
    idempotency_key: Option<String>,
    #[prost(int64, optional, tag = "11")]
    start_at_us: Option<i64>,
    #[prost(string, optional, tag = "12")]
    webhook_url: Option<String>,
    #[prost(message, optional, tag = "13")]
    parent: Option<StoredParent>,
    #[prost(message, optional, tag = "20")]
    trace: Option<StoredTrace>,
}

/// What it takes of a [`StoredSubmission`] to see whether it came with a key.
#[derive(Message)]
struct StoredName {
    #[prost(string, tag = "1")]
    client: String,
    #[prost(string, optional, tag = "10")]
    idempotency_key: Option<String>,
}

#[derive(Message)]
struct StoredTrace {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bool, tag = "3")]
    is_sampled: bool,
    #[prost(string, optional, tag = "4")]
    state: Option<String>,
}

#[derive(Message)]
struct StoredParent {
    #[prost(bytes = "vec", tag = "1")]
    job_id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    index: u32,
    #[prost(uint32, tag = "3")]
    depth: u32,
    #[prost(uint32, tag = "4")]
    kind: u32,
    #[prost(message, optional, tag = "5")]
    claim: Option<StoredHold>,
    #[prost(string, repeated, tag = "6")]
    slots: Vec<String>,
}

/// Written with every change of a job.
#[derive(Message)]
struct StoredJob {
    #[prost(uint32, tag = "1")]
    status: u32,
    #[prost(string, tag = "2")]
    state: String,
    #[prost(string, tag = "3")]
    state_history: String,
    #[prost(string, optional, tag = "4")]
    result: Option<String>,
    #[prost(message, optional, tag = "5")]
    error: Option<StoredError>,
    #[prost(uint32, tag = "6")]
    retry_count: u32,
    #[prost(uint32, tag = "7")]
    transitions: u32,
    #[prost(uint32, tag = "8")]
    workers_lost: u32,
    #[prost(message, optional, tag = "9")]
    attempt: Option<StoredAttempt>,
    #[prost(int64, optional, tag = "10")]
    resumes_at_us: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "11")]
    settled_task: Option<Vec<u8>>,
    #[prost(uint64, tag = "12")]
    history_len: u64,
    #[prost(int64, tag = "13")]
    updated_at_us: i64,
    #[prost(int64, optional, tag = "14")]
    finished_at_us: Option<i64>,
    #[prost(message, optional, tag = "15")]
    wait: Option<StoredWait>,
    #[prost(string, optional, tag = "16")]
    results: Option<String>,
    #[prost(string, optional, tag = "17")]
    outcome: Option<String>,
    #[prost(string, optional, tag = "18")]
    failed_state: Option<String>,
    #[prost(string, optional, tag = "19")]
    checkpoint: Option<String>,
    #[prost(message, repeated, tag = "20")]
    signals: Vec<StoredSignal>,
    #[prost(string, repeated, tag = "21")]
    signal_ids: Vec<String>,
    #[prost(string, optional, tag = "22")]
    edited_data: Option<String>,
    #[prost(int64, optional, tag = "23")]
    restarted_at_us: Option<i64>,
    /// Of a job that was moved to another version than its first, which is with the submission.
    #[prost(uint32, optional, tag = "24")]
    blueprint_version: Option<u32>,
    #[prost(message, repeated, tag = "25")]
    repair_keys: Vec<StoredRepairKey>,
    #[prost(message, optional, tag = "26")]
    claim: Option<StoredHold>,
    #[prost(message, optional, tag = "27")]
    task_claim: Option<StoredHold>,
}

#[derive(Message)]
struct StoredRepairKey {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(fixed64, tag = "2")]
    fingerprint: u64,
}

/// What a job waits for. The numbers of `kind` are for ever.
#[derive(Message)]
struct StoredWait {
    /// 1 start, 2 timer, 3 signal, 4 approval, 5 children, 6 keys.
    #[prost(uint32, tag = "1")]
    kind: u32,
    /// Since when.
    #[prost(int64, tag = "2")]
    since_us: i64,
    /// The signal's name, or the approval's token.
    #[prost(string, tag = "3")]
    text: String,
    /// What a human is asked.
    #[prost(string, optional, tag = "4")]
    message: Option<String>,
    #[prost(message, optional, tag = "5")]
    children: Option<StoredChildren>,
    /// Of keys: for what.
    #[prost(uint32, tag = "6")]
    scope: u32,
}

#[derive(Message)]
struct StoredChildren {
    #[prost(bytes = "vec", tag = "1")]
    first: Vec<u8>,
    #[prost(uint32, tag = "2")]
    total: u32,
    #[prost(int64, tag = "3")]
    since_us: i64,
}

#[derive(Message)]
struct StoredSignal {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, optional, tag = "2")]
    id: Option<String>,
    #[prost(string, tag = "3")]
    data: String,
    #[prost(int64, tag = "4")]
    at_us: i64,
}

/// What it takes of a [`StoredJob`] to see whether and when it ended.
#[derive(Message)]
struct StoredEnd {
    #[prost(uint32, tag = "1")]
    status: u32,
    #[prost(uint64, tag = "12")]
    history_len: u64,
    #[prost(int64, optional, tag = "14")]
    finished_at_us: Option<i64>,
}

#[derive(Message)]
pub(super) struct StoredError {
    #[prost(string, tag = "1")]
    code: String,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Message)]
struct StoredAttempt {
    #[prost(bytes = "vec", tag = "1")]
    task_id: Vec<u8>,
    #[prost(string, tag = "2")]
    task_type: String,
    #[prost(uint32, tag = "3")]
    number: u32,
    #[prost(int64, tag = "4")]
    ready_at_us: i64,
    #[prost(string, optional, tag = "5")]
    needs: Option<String>,
}

/// The entries that one commit added to one job's history.
#[derive(Message)]
struct StoredHistory {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<StoredEntry>,
}

#[derive(Message)]
struct StoredEntry {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    #[prost(int64, tag = "2")]
    at_us: i64,
    #[prost(uint32, tag = "3")]
    event: u32,
    #[prost(string, tag = "4")]
    state: String,
    #[prost(string, optional, tag = "5")]
    from_state: Option<String>,
    #[prost(string, optional, tag = "6")]
    outcome: Option<String>,
    #[prost(bytes = "vec", optional, tag = "7")]
    task_id: Option<Vec<u8>>,
    #[prost(uint32, optional, tag = "8")]
    attempt: Option<u32>,
    #[prost(string, optional, tag = "9")]
    worker_id: Option<String>,
    #[prost(message, optional, tag = "10")]
    error: Option<StoredError>,
    #[prost(uint64, optional, tag = "11")]
    duration_ns: Option<u64>,
    #[prost(string, optional, tag = "12")]
    by: Option<String>,
    #[prost(string, optional, tag = "13")]
    detail: Option<String>,
}

/// Written with every change of an open job.
#[derive(Message)]
struct StoredStub {
    #[prost(bytes = "vec", tag = "1")]
    job_id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    status: u32,
    #[prost(uint64, tag = "3")]
    history_len: u64,
    #[prost(int64, optional, tag = "4")]
    next_due_us: Option<i64>,
    #[prost(message, optional, tag = "5")]
    task: Option<StoredStubTask>,
    #[prost(message, optional, tag = "6")]
    children: Option<StoredChildren>,
    #[prost(bytes = "vec", optional, tag = "7")]
    parent: Option<Vec<u8>>,
    #[prost(message, optional, tag = "8")]
    keys: Option<StoredStubKeys>,
    /// Where no task names it. Stubs did not always hold it.
    #[prost(string, tag = "9")]
    client: String,
}

#[derive(Message)]
struct StoredStubKeys {
    #[prost(message, optional, tag = "1")]
    job: Option<StoredHold>,
    #[prost(message, optional, tag = "2")]
    task: Option<StoredHold>,
    /// For what the job waits for keys; 0 when it does not.
    #[prost(uint32, tag = "3")]
    waits: u32,
    #[prost(sint32, tag = "4")]
    priority: i32,
}

#[derive(Message)]
struct StoredStubTask {
    #[prost(bytes = "vec", tag = "1")]
    task_id: Vec<u8>,
    #[prost(string, tag = "2")]
    task_type: String,
    #[prost(sint32, tag = "3")]
    priority: i32,
    #[prost(int64, tag = "4")]
    ready_at_us: i64,
    #[prost(string, tag = "5")]
    client: String,
    #[prost(string, optional, tag = "6")]
    needs: Option<String>,
}

#[derive(Message)]
struct StoredSession {
    #[prost(int64, tag = "1")]
    opened_at_us: i64,
    #[prost(string, tag = "2")]
    worker_id: String,
    #[prost(string, tag = "3")]
    worker_type: String,
    #[prost(string, repeated, tag = "4")]
    task_types: Vec<String>,
    #[prost(uint32, tag = "5")]
    slots: u32,
    #[prost(btree_map = "string, string", tag = "6")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, double", tag = "7")]
    resources: BTreeMap<String, f64>,
    #[prost(string, tag = "8")]
    hostname: String,
    #[prost(string, tag = "9")]
    sdk_version: String,
    #[prost(bytes = "vec", tag = "10")]
    credential: Vec<u8>,
    #[prost(btree_map = "string, string", tag = "11")]
    software: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    models: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "13")]
    terms: Vec<StoredTerms>,
    #[prost(message, optional, tag = "14")]
    reproach: Option<StoredReproach>,
}

#[derive(Message)]
struct StoredReproach {
    #[prost(double, tag = "1")]
    reputation: f64,
    #[prost(int64, tag = "2")]
    at_us: i64,
    #[prost(int64, optional, tag = "3")]
    aside_until_us: Option<i64>,
    #[prost(uint32, tag = "4")]
    times_aside: u32,
}

#[derive(Message)]
struct StoredTerms {
    #[prost(string, tag = "1")]
    task_type: String,
    #[prost(uint32, optional, tag = "2")]
    limit: Option<u32>,
    #[prost(double, optional, tag = "3")]
    cost: Option<f64>,
}

#[derive(Message)]
struct StoredBlueprint {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(string, tag = "2")]
    definition: String,
    #[prost(bool, tag = "3")]
    is_put: bool,
}

#[derive(Message)]
struct StoredIdempotency {
    #[prost(bytes = "vec", tag = "1")]
    job_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    fingerprint: Vec<u8>,
}

/// Replaces what is in `buffer` by the record of the message.
pub(super) fn seal(kind: Kind, owner: &[u8], message: &impl Message, buffer: &mut Vec<u8>) {
    seal_fields(kind, owner, buffer, |fields| fields.all_of(message));
}

/// Replaces what is in `buffer` by the record of the message with these fields.
fn seal_fields(kind: Kind, owner: &[u8], buffer: &mut Vec<u8>, write: impl FnOnce(&mut Fields<'_>)) {
    buffer.clear();
    buffer.push(FORMAT);
    write(&mut Fields::behind(buffer));
    buffer.extend_from_slice(&checksum(kind, owner, buffer).to_le_bytes());
}

pub(super) fn unseal<M: Message + Default>(kind: Kind, owner: &[u8], record: &[u8]) -> Result<M, Damaged> {
    let Some((body, stored)) = record.split_last_chunk::<CHECKSUM_LEN>() else {
        return Err(Damaged(format!("a record has {} bytes, which is too few", record.len())));
    };
    if checksum(kind, owner, body).to_le_bytes() != *stored {
        return Err(Damaged("the checksum of a record does not match".into()));
    }
    match body {
        [FORMAT, message @ ..] => Ok(M::decode(message)?),
        [other, ..] => Err(Damaged(format!("a record has the unknown format {other}"))),
        [] => Err(Damaged("a record is empty".into())),
    }
}

fn checksum(kind: Kind, owner: &[u8], body: &[u8]) -> u32 {
    Crc32::new().with(&[kind as u8]).with(owner).with(body).value()
}

/// The part of the job that is written once: a [`StoredSubmission`].
pub(super) fn encode_submission(job: &Job, idempotency_key: Option<&str>, buffer: &mut Vec<u8>) {
    let submission = &job.submission;
    seal_fields(Kind::Submission, job.id.as_bytes(), buffer, |fields| {
        fields.text(1, &job.client);
        fields.text(2, &job.blueprint);
        fields.number(3, job.blueprint_version.into());
        fields.number(4, micros(job.created_at));
        fields.text(5, submission.initial_data.as_str());
        for (label, value) in &submission.labels {
            fields.nested(6, |entry| {
                entry.text(1, label);
                entry.text(2, value);
            });
        }
        fields.zigzag(7, submission.priority);
        fields.maybe_number(8, submission.dispatch_timeout.map(to_nanos));
        fields.maybe_number(9, submission.result_timeout.map(to_nanos));
        fields.maybe_text(10, idempotency_key);
        fields.maybe_number(11, submission.start_at.map(micros));
        fields.maybe_text(12, submission.webhook_url.as_deref());
        fields.maybe_message(13, submission.parent.as_ref().map(parent_to_stored));
        fields.maybe_message(20, submission.trace.as_deref().map(trace_to_stored));
    });
}

/// The part of a job that was written once.
pub(super) fn decode_submission(id: JobId, record: &[u8]) -> Result<Origin, Damaged> {
    let message: StoredSubmission = unseal(Kind::Submission, id.as_bytes(), record)?;
    let submission = Submission {
        initial_data: Json::from_stored(&message.initial_data),
        labels: message.labels,
        priority: message.priority,
        dispatch_timeout: message.dispatch_timeout_ns.map(Duration::from_nanos),
        result_timeout: message.result_timeout_ns.map(Duration::from_nanos),
        start_at: message.start_at_us.map(Timestamp::from_micros),
        webhook_url: message.webhook_url.map(Into::into),
        parent: message.parent.map(parent_from_stored).transpose()?,
        trace: message.trace.map(trace_from_stored).transpose()?,
    };
    Ok(Origin {
        client: message.client.into(),
        blueprint: message.blueprint.into(),
        blueprint_version: message.blueprint_version,
        created_at: Timestamp::from_micros(message.created_at_us),
        submission: Arc::new(submission),
    })
}

fn trace_to_stored(trace: &TraceContext) -> StoredTrace {
    StoredTrace {
        trace_id: trace.trace_id.to_vec(),
        span_id: trace.span_id.to_vec(),
        is_sampled: trace.is_sampled,
        state: trace.state.as_deref().map(str::to_owned),
    }
}

fn trace_from_stored(stored: StoredTrace) -> Result<Arc<TraceContext>, Damaged> {
    let damaged = |_| Damaged("a trace has ids of another length".to_owned());
    Ok(Arc::new(TraceContext {
        trace_id: stored.trace_id.try_into().map_err(damaged)?,
        span_id: stored.span_id.try_into().map_err(damaged)?,
        is_sampled: stored.is_sampled,
        state: stored.state.map(Into::into),
    }))
}

/// The part of the job that changes: a [`StoredJob`].
pub(super) fn encode_job(job: &Job, buffer: &mut Vec<u8>) {
    seal_fields(Kind::Job, job.id.as_bytes(), buffer, |fields| {
        fields.number(1, job.status as u64);
        fields.text(2, &job.state);
        fields.text(3, job.state_history.as_str());
        fields.maybe_text(4, job.result.as_ref().map(Json::as_str));
        fields.maybe_message(5, job.error.as_ref().map(error_to_stored));
        fields.number(6, job.retry_count.into());
        fields.number(7, job.transitions.into());
        fields.number(8, job.workers_lost.into());
        if let Some(attempt) = &job.attempt {
            fields.nested(9, |fields| put_attempt(attempt, fields));
        }
        fields.maybe_number(10, job.resumes_at.map(micros));
        fields.maybe_bytes(11, job.settled_task.as_ref().map(|id| id.as_bytes().as_slice()));
        fields.number(12, job.history_len);
        fields.number(13, micros(job.updated_at));
        fields.maybe_number(14, job.finished_at.map(micros));
        fields.maybe_message(15, job.wait.as_ref().map(wait_to_stored));
        fields.maybe_text(16, job.results.as_deref());
        fields.maybe_text(17, job.outcome.as_deref());
        fields.maybe_text(18, job.failed_state.as_deref());
        fields.maybe_text(19, job.checkpoint.as_ref().map(Json::as_str));
        job.signals.iter().for_each(|signal| fields.maybe_message(20, Some(signal_to_stored(signal))));
        job.signal_ids.iter().for_each(|id| fields.maybe_text(21, Some(id)));
        fields.maybe_text(22, job.edited_data.as_ref().map(Json::as_str));
        fields.maybe_number(23, job.restarted_at.map(micros));
        fields.maybe_number(24, job.migrated.then(|| job.blueprint_version.into()));
        job.repair_keys.iter().for_each(|key| fields.maybe_message(25, Some(repair_key_to_stored(key))));
        fields.maybe_message(26, job.claim.as_ref().map(hold_to_stored));
        fields.maybe_message(27, job.task_claim.as_ref().map(hold_to_stored));
    });
}

/// A job from the part that was written once and the one that changes.
pub(super) fn decode_job(id: JobId, origin: Origin, record: &[u8]) -> Result<Job, Damaged> {
    let message: StoredJob = unseal(Kind::Job, id.as_bytes(), record)?;
    let status = job_status(message.status)?;
    Ok(Job {
        id,
        client: origin.client,
        blueprint: origin.blueprint,
        blueprint_version: message.blueprint_version.unwrap_or(origin.blueprint_version),
        migrated: message.blueprint_version.is_some(),
        submission: origin.submission,
        state: message.state.into(),
        status,
        state_history: Json::from_stored(&message.state_history),
        result: message.result.as_deref().map(Json::from_stored),
        results: message.results.map(Into::into),
        outcome: message.outcome.map(Into::into),
        failed_state: message.failed_state.map(Into::into),
        checkpoint: message.checkpoint.as_deref().map(Json::from_stored),
        signals: message.signals.into_iter().map(signal_from_stored).collect(),
        signal_ids: message.signal_ids.into_iter().map(Into::into).collect(),
        repair_keys: message.repair_keys.into_iter().map(repair_key_from_stored).collect(),
        edited_data: message.edited_data.as_deref().map(Json::from_stored),
        restarted_at: message.restarted_at_us.map(Timestamp::from_micros),
        claim: message.claim.map(|hold| hold_from_stored(hold, &mut |key| key.into())).transpose()?,
        task_claim: message
            .task_claim
            .map(|hold| hold_from_stored(hold, &mut |key| key.into()))
            .transpose()?,
        wait: message.wait.map(wait_from_stored).transpose()?,
        error: message.error.map(error_from_stored),
        retry_count: message.retry_count,
        transitions: message.transitions,
        workers_lost: message.workers_lost,
        attempt: message.attempt.map(attempt_from_stored).transpose()?,
        resumes_at: message.resumes_at_us.map(Timestamp::from_micros),
        settled_task: message.settled_task.as_deref().map(task_id).transpose()?,
        history_len: message.history_len,
        created_at: origin.created_at,
        updated_at: Timestamp::from_micros(message.updated_at_us),
        finished_at: message.finished_at_us.map(Timestamp::from_micros),
    })
}

/// The client and the idempotency key of a [`StoredSubmission`], if it came with one. Records did not always hold it.
pub(super) fn decode_name(id: JobId, record: &[u8]) -> Result<Option<KeyName>, Damaged> {
    let StoredName { client, idempotency_key } = unseal(Kind::Submission, id.as_bytes(), record)?;
    Ok(idempotency_key.map(|key| (client.into(), key.into())))
}

/// Where a job stands, when it ended if it did, and how many entries its history has.
pub(super) fn decode_end(id: JobId, record: &[u8]) -> Result<(Standing, Option<Timestamp>), Damaged> {
    let message: StoredEnd = unseal(Kind::Job, id.as_bytes(), record)?;
    let standing = Standing { status: job_status(message.status)?, history_len: message.history_len };
    Ok((standing, message.finished_at_us.map(Timestamp::from_micros)))
}

/// The stub of an open job: a [`StoredStub`].
pub(super) fn encode_stub(stub: &Stub, buffer: &mut Vec<u8>) {
    seal_fields(Kind::Stub, &stub.id.key().to_le_bytes(), buffer, |fields| {
        fields.maybe_bytes(1, Some(stub.id.as_bytes()));
        fields.number(2, stub.status as u64);
        fields.number(3, stub.history_len);
        fields.maybe_number(4, stub.next_due.map(micros));
        if let Some(task) = &stub.task {
            fields.nested(5, |fields| put_stub_task(task, fields));
        }
        fields.maybe_message(6, stub.children.as_ref().map(children_to_stored));
        fields.maybe_bytes(7, stub.parent.as_ref().map(|parent| parent.as_bytes().as_slice()));
        fields.maybe_message(8, stub.keys.as_deref().map(stub_keys_to_stored));
        if stub.task.is_none() {
            fields.text(9, &stub.client);
        }
    });
}

/// A [`StoredStubTask`].
fn put_stub_task(task: &StubTask, fields: &mut Fields<'_>) {
    fields.maybe_bytes(1, Some(task.task_id.as_bytes()));
    fields.text(2, &task.task_type);
    fields.zigzag(3, task.priority);
    fields.number(4, micros(task.ready_at));
    fields.text(5, &task.client);
    fields.maybe_text(6, task.needs.as_deref());
}

fn stub_keys_to_stored(keys: &StubKeys) -> StoredStubKeys {
    StoredStubKeys {
        job: keys.job.as_ref().map(hold_to_stored),
        task: keys.task.as_ref().map(hold_to_stored),
        waits: keys.waits.map_or(0, |scope| scope as u32),
        priority: keys.priority,
    }
}

/// The stub of the open job with this key; without a client, if it is from before stubs held one. `shared` gives one text for each
/// client, task type and need, however many stubs name it.
pub(super) fn decode_stub(
    key: i64,
    record: &[u8],
    shared: &mut impl FnMut(&str) -> Arc<str>,
) -> Result<Stub, Damaged> {
    let message: StoredStub = unseal(Kind::Stub, &key.to_le_bytes(), record)?;
    let client = message.task.as_ref().map_or(&message.client, |task| &task.client);
    let client = shared(client);
    let task = |task: StoredStubTask| -> Result<StubTask, Damaged> {
        Ok(StubTask {
            task_id: task_id(&task.task_id)?,
            client: shared(&task.client),
            needs: task.needs.as_deref().map(&mut *shared),
            task_type: shared(&task.task_type),
            priority: task.priority,
            ready_at: Timestamp::from_micros(task.ready_at_us),
        })
    };
    Ok(Stub {
        id: job_id(&message.job_id)?,
        client,
        status: job_status(message.status)?,
        history_len: message.history_len,
        next_due: message.next_due_us.map(Timestamp::from_micros),
        task: message.task.map(task).transpose()?,
        keys: message.keys.map(|keys| stub_keys_from_stored(keys, shared)).transpose()?.map(Box::new),
        children: message.children.map(children_from_stored).transpose()?,
        parent: message.parent.as_deref().map(job_id).transpose()?,
    })
}

fn stub_keys_from_stored(
    stored: StoredStubKeys,
    shared: &mut impl FnMut(&str) -> Arc<str>,
) -> Result<StubKeys, Damaged> {
    Ok(StubKeys {
        job: stored.job.map(|hold| hold_from_stored(hold, shared)).transpose()?,
        task: stored.task.map(|hold| hold_from_stored(hold, shared)).transpose()?,
        waits: (stored.waits != 0).then(|| scope_from_stored(stored.waits)).transpose()?,
        priority: stored.priority,
    })
}

/// Entries of one job's history: a [`StoredHistory`].
pub(super) fn encode_history(id: JobId, entries: &[HistoryEntry], buffer: &mut Vec<u8>) {
    seal_fields(Kind::History, id.as_bytes(), buffer, |fields| {
        entries.iter().for_each(|entry| fields.nested(1, |fields| put_entry(entry, fields)));
    });
}

/// Entries of one job's history.
pub(super) fn decode_history(id: JobId, record: &[u8]) -> Result<Vec<HistoryEntry>, Damaged> {
    let message: StoredHistory = unseal(Kind::History, id.as_bytes(), record)?;
    message.entries.into_iter().map(entry_from_stored).collect()
}

/// A session.
pub(super) fn encode_session(session: &SessionRecord, buffer: &mut Vec<u8>) {
    let worker = &session.worker;
    let message = StoredSession {
        opened_at_us: session.opened_at.as_micros(),
        worker_id: worker.worker_id.to_string(),
        worker_type: worker.worker_type.to_string(),
        task_types: worker.task_types.iter().map(ToString::to_string).collect(),
        slots: worker.slots,
        labels: worker.labels.clone(),
        resources: worker.resources.clone(),
        hostname: worker.hostname.to_string(),
        sdk_version: worker.sdk_version.to_string(),
        credential: session.credential.to_vec(),
        software: worker.software.clone(),
        models: worker.models.clone(),
        terms: worker.terms.iter().map(terms_to_stored).collect(),
        reproach: session.reproach.map(|reproach| StoredReproach {
            reputation: reproach.reputation,
            at_us: reproach.at.as_micros(),
            aside_until_us: reproach.aside_until.map(Timestamp::as_micros),
            times_aside: reproach.times_aside,
        }),
    };
    seal(Kind::Session, session.session_id.as_bytes(), &message, buffer);
}

fn terms_to_stored((task_type, terms): (&Arc<str>, &Terms)) -> StoredTerms {
    StoredTerms { task_type: task_type.to_string(), limit: terms.limit, cost: terms.cost }
}

fn terms_from_stored(StoredTerms { task_type, limit, cost }: StoredTerms) -> (Arc<str>, Terms) {
    (task_type.into(), Terms { limit, cost })
}

/// A session.
pub(super) fn decode_session(id: SessionId, record: &[u8]) -> Result<SessionRecord, Damaged> {
    let message: StoredSession = unseal(Kind::Session, id.as_bytes(), record)?;
    let worker = WorkerRecord {
        worker_id: message.worker_id.into(),
        worker_type: message.worker_type.into(),
        task_types: message.task_types.into_iter().map(Into::into).collect(),
        slots: message.slots,
        labels: message.labels,
        resources: message.resources,
        hostname: message.hostname.into(),
        sdk_version: message.sdk_version.into(),
        software: message.software,
        models: message.models,
        terms: message.terms.into_iter().map(terms_from_stored).collect(),
    };
    Ok(SessionRecord {
        session_id: id,
        worker: Arc::new(worker),
        credential: message
            .credential
            .try_into()
            .map_err(|_| Damaged("a credential has 32 bytes".to_owned()))?,
        opened_at: Timestamp::from_micros(message.opened_at_us),
        reproach: message.reproach.map(|stored| Reproach {
            reputation: stored.reputation,
            at: Timestamp::from_micros(stored.at_us),
            aside_until: stored.aside_until_us.map(Timestamp::from_micros),
            times_aside: stored.times_aside,
        }),
    })
}

/// A version of a blueprint.
pub(super) fn encode_blueprint(blueprint: &BlueprintRecord, buffer: &mut Vec<u8>) {
    let BlueprintRecord { name: _, version, definition, is_put } = blueprint;
    let message = StoredBlueprint { version: *version, definition: definition.to_string(), is_put: *is_put };
    seal(Kind::Blueprint, blueprint.name.as_bytes(), &message, buffer);
}

/// A version of a blueprint.
pub(super) fn decode_blueprint(name: &str, record: &[u8]) -> Result<BlueprintRecord, Damaged> {
    let message: StoredBlueprint = unseal(Kind::Blueprint, name.as_bytes(), record)?;
    let StoredBlueprint { version, definition, is_put } = message;
    Ok(BlueprintRecord { name: name.into(), version, definition: definition.into(), is_put })
}

/// What an idempotency key stands for.
pub(super) fn encode_idempotency(key: &IdempotencyKey, job: JobId, buffer: &mut Vec<u8>) {
    let message =
        StoredIdempotency { job_id: job.as_bytes().to_vec(), fingerprint: key.fingerprint.to_vec() };
    seal(Kind::Idempotency, &idempotency_owner(&key.client, &key.key), &message, buffer);
}

/// What an idempotency key stands for: the job and the fingerprint of its request.
pub(super) fn decode_idempotency(
    client: &str,
    key: &str,
    record: &[u8],
) -> Result<(JobId, [u8; 32]), Damaged> {
    let message: StoredIdempotency = unseal(Kind::Idempotency, &idempotency_owner(client, key), record)?;
    Ok((JobId::from_bytes(exactly(&message.job_id)?), exactly(&message.fingerprint)?))
}

/// Neither part holds a zero byte: one is a name, the other printable.
fn idempotency_owner(client: &str, key: &str) -> Vec<u8> {
    [client, "\0", key].concat().into_bytes()
}

/// A [`StoredEntry`].
fn put_entry(entry: &HistoryEntry, fields: &mut Fields<'_>) {
    fields.number(1, entry.sequence);
    fields.number(2, micros(entry.at));
    fields.number(3, entry.event as u64);
    fields.text(4, &entry.state);
    fields.maybe_text(5, entry.from_state.as_deref());
    fields.maybe_text(6, entry.outcome.as_deref());
    fields.maybe_bytes(7, entry.task_id.as_ref().map(|id| id.as_bytes().as_slice()));
    fields.maybe_number(8, entry.attempt.map(u64::from));
    fields.maybe_text(9, entry.worker_id.as_deref());
    fields.maybe_message(10, entry.error.as_ref().map(error_to_stored));
    fields.maybe_number(11, entry.duration.map(to_nanos));
    fields.maybe_text(12, entry.by.as_deref());
    fields.maybe_text(13, entry.detail.as_deref());
}

fn entry_from_stored(stored: StoredEntry) -> Result<HistoryEntry, Damaged> {
    let event = u8::try_from(stored.event)
        .ok()
        .and_then(HistoryEvent::from_number)
        .ok_or_else(|| Damaged(format!("{} is not the number of a history event", stored.event)))?;
    Ok(HistoryEntry {
        sequence: stored.sequence,
        at: Timestamp::from_micros(stored.at_us),
        event,
        state: stored.state.into(),
        from_state: stored.from_state.map(Into::into),
        outcome: stored.outcome.map(Into::into),
        task_id: stored.task_id.as_deref().map(task_id).transpose()?,
        attempt: stored.attempt,
        worker_id: stored.worker_id.map(Into::into),
        error: stored.error.map(error_from_stored),
        duration: stored.duration_ns.map(Duration::from_nanos),
        by: stored.by.map(Into::into),
        detail: stored.detail.map(Into::into),
    })
}

pub(super) fn error_to_stored(error: &JobError) -> StoredError {
    StoredError { code: error.code.to_string(), message: error.message.to_string() }
}

pub(super) fn error_from_stored(stored: StoredError) -> JobError {
    JobError { code: stored.code.into(), message: stored.message.into() }
}

/// A [`StoredAttempt`].
fn put_attempt(attempt: &Attempt, fields: &mut Fields<'_>) {
    fields.maybe_bytes(1, Some(attempt.task_id.as_bytes()));
    fields.text(2, &attempt.task_type);
    fields.number(3, attempt.number.into());
    fields.number(4, micros(attempt.ready_at));
    fields.maybe_text(5, attempt.needs.as_deref());
}

fn attempt_from_stored(stored: StoredAttempt) -> Result<Attempt, Damaged> {
    Ok(Attempt {
        task_id: task_id(&stored.task_id)?,
        task_type: stored.task_type.into(),
        needs: stored.needs.map(Into::into),
        number: stored.number,
        ready_at: Timestamp::from_micros(stored.ready_at_us),
    })
}

fn parent_to_stored(parent: &Parent) -> StoredParent {
    StoredParent {
        job_id: parent.job_id.as_bytes().to_vec(),
        index: parent.index,
        depth: parent.depth,
        kind: parent.kind as u32,
        claim: parent.claim.as_deref().map(claim_to_stored),
        slots: parent.slots.iter().map(ToString::to_string).collect(),
    }
}

fn parent_from_stored(stored: StoredParent) -> Result<Parent, Damaged> {
    let kind = u8::try_from(stored.kind).ok().and_then(ChildKind::from_number);
    Ok(Parent {
        job_id: job_id(&stored.job_id)?,
        index: stored.index,
        depth: stored.depth,
        kind: kind.ok_or_else(|| Damaged(format!("{} is not the number of a kind of child", stored.kind)))?,
        claim: stored
            .claim
            .map(|hold| hold_from_stored(hold, &mut |key| key.into()).map(|hold| hold.claim))
            .transpose()?,
        slots: stored.slots.into_iter().map(Into::into).collect(),
    })
}

fn wait_to_stored(wait: &Wait) -> StoredWait {
    let mut stored = StoredWait::default();
    match wait {
        Wait::Start => stored.kind = 1,
        Wait::Timer => stored.kind = 2,
        Wait::Signal { name, since } => {
            (stored.kind, stored.since_us, stored.text) = (3, since.as_micros(), name.to_string());
        }
        Wait::Approval { token, message, since } => {
            (stored.kind, stored.since_us, stored.text) = (4, since.as_micros(), token.to_string());
            stored.message = message.as_deref().map(str::to_owned);
        }
        Wait::Children(children) => {
            (stored.kind, stored.children) = (5, Some(children_to_stored(children)));
        }
        Wait::Keys(scope) => (stored.kind, stored.scope) = (6, *scope as u32),
    }
    stored
}

fn wait_from_stored(stored: StoredWait) -> Result<Wait, Damaged> {
    let since = Timestamp::from_micros(stored.since_us);
    Ok(match (stored.kind, stored.children) {
        (1, _) => Wait::Start,
        (2, _) => Wait::Timer,
        (3, _) => Wait::Signal { name: stored.text.into(), since },
        (4, _) => {
            Wait::Approval { token: stored.text.into(), message: stored.message.map(Into::into), since }
        }
        (5, Some(children)) => Wait::Children(children_from_stored(children)?),
        (6, _) => Wait::Keys(scope_from_stored(stored.scope)?),
        (kind, _) => return Err(Damaged(format!("{kind} is not the number of something to wait for"))),
    })
}

fn children_to_stored(children: &Children) -> StoredChildren {
    StoredChildren {
        first: children.first.as_bytes().to_vec(),
        total: children.total,
        since_us: children.since.as_micros(),
    }
}

fn children_from_stored(stored: StoredChildren) -> Result<Children, Damaged> {
    Ok(Children {
        first: job_id(&stored.first)?,
        total: stored.total,
        since: Timestamp::from_micros(stored.since_us),
    })
}

fn repair_key_to_stored(key: &RepairKey) -> StoredRepairKey {
    StoredRepairKey { id: key.id.to_string(), fingerprint: key.fingerprint }
}

fn repair_key_from_stored(key: StoredRepairKey) -> RepairKey {
    RepairKey { id: key.id.into(), fingerprint: key.fingerprint }
}

fn signal_to_stored(signal: &Signal) -> StoredSignal {
    StoredSignal {
        name: signal.name.to_string(),
        id: signal.id.as_deref().map(str::to_owned),
        data: signal.data.as_str().to_owned(),
        at_us: signal.at.as_micros(),
    }
}

fn signal_from_stored(stored: StoredSignal) -> Signal {
    Signal {
        name: stored.name.into(),
        id: stored.id.map(Into::into),
        data: Json::from_stored(&stored.data),
        at: Timestamp::from_micros(stored.at_us),
    }
}

pub(super) fn job_id(bytes: &[u8]) -> Result<JobId, Damaged> {
    exactly(bytes).map(JobId::from_bytes)
}

pub(super) fn job_status(number: u32) -> Result<JobStatus, Damaged> {
    let status = u8::try_from(number).ok().and_then(JobStatus::from_number);
    status.ok_or_else(|| Damaged(format!("{number} is not the number of a job status")))
}

fn task_id(bytes: &[u8]) -> Result<TaskId, Damaged> {
    exactly(bytes).map(TaskId::from_bytes)
}

pub(super) fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Damaged> {
    bytes.try_into().map_err(|_| Damaged(format!("a field of {N} bytes has {}", bytes.len())))
}

/// As an `int64` is written, which it is where this is read.
fn micros(at: Timestamp) -> u64 {
    at.as_micros() as u64
}

/// 584 years fit; nobody may ask for more than one.
fn to_nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "../fuzz/records.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use proptest::{
        collection::{btree_map, vec},
        option,
        prelude::*,
    };

    use super::*;
    use crate::{
        blueprint::{KeyLimit, KeyPolicy, Rate, Share},
        engine::{Claim, Hold, KeyScope},
        store::conformance::Samples,
    };

    fn text() -> impl Strategy<Value = Arc<str>> {
        ".{0,20}".prop_map(Into::into)
    }

    fn json() -> impl Strategy<Value = Json> {
        ".{0,40}".prop_map(|text| Json::from_stored(&text))
    }

    fn time() -> impl Strategy<Value = Timestamp> {
        any::<i64>().prop_map(Timestamp::from_micros)
    }

    fn span() -> impl Strategy<Value = Duration> {
        any::<u64>().prop_map(Duration::from_nanos)
    }

    fn task() -> impl Strategy<Value = TaskId> {
        any::<u128>().prop_map(TaskId::from_random)
    }

    fn error() -> impl Strategy<Value = JobError> {
        (text(), text()).prop_map(|(code, message)| JobError { code, message })
    }

    fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
        btree_map(".{0,9}", ".{0,9}", 0..4)
    }

    fn submission() -> impl Strategy<Value = Submission> {
        let asked = (labels(), any::<i32>(), option::of(span()), option::of(span()));
        let more = (option::of(time()), option::of(text()), option::of(parent()), option::of(trace()));
        (json(), asked, more).prop_map(|(initial_data, asked, more)| Submission {
            initial_data,
            labels: asked.0,
            priority: asked.1,
            dispatch_timeout: asked.2,
            result_timeout: asked.3,
            start_at: more.0,
            webhook_url: more.1,
            parent: more.2,
            trace: more.3,
        })
    }

    fn trace() -> impl Strategy<Value = Arc<TraceContext>> {
        (any::<[u8; 16]>(), any::<[u8; 8]>(), any::<bool>(), option::of(text())).prop_map(
            |(trace_id, span_id, is_sampled, state)| {
                Arc::new(TraceContext { trace_id, span_id, is_sampled, state })
            },
        )
    }

    fn id() -> impl Strategy<Value = JobId> {
        any::<[u8; 16]>().prop_map(JobId::from_bytes)
    }

    fn parent() -> impl Strategy<Value = Parent> {
        let kind = proptest::sample::select(&[ChildKind::Branch, ChildKind::Run, ChildKind::Detached][..]);
        let keys = (option::of(hold()), vec(text(), 0..3));
        (id(), any::<u32>(), any::<u32>(), kind, keys).prop_map(|(job_id, index, depth, kind, keys)| Parent {
            job_id,
            index,
            depth,
            kind,
            claim: keys.0.map(|hold| hold.claim),
            slots: keys.1,
        })
    }

    fn hold() -> impl Strategy<Value = Hold> {
        let policy = proptest::sample::select(&KeyPolicy::ALL[..]);
        let rate = (any::<u32>(), 0..u64::from(u32::MAX), any::<u32>()).prop_map(|(count, per, burst)| {
            KeyLimit::Rate(Rate { count, per: Duration::from_micros(per), burst })
        });
        let limit = prop_oneof![any::<u32>().prop_map(KeyLimit::Concurrency), rate];
        let share = (text(), limit, policy).prop_map(|(key, limit, policy)| Share { key, limit, policy });
        (vec(share, 0..3), time())
            .prop_map(|(shares, since)| Hold { claim: Arc::new(Claim { shares }), since })
    }

    fn wait() -> impl Strategy<Value = Wait> {
        let children = (id(), any::<u32>(), time())
            .prop_map(|(first, total, since)| Wait::Children(Children { first, total, since }));
        prop_oneof![
            Just(Wait::Start),
            Just(Wait::Timer),
            Just(Wait::Keys(KeyScope::Task)),
            (text(), time()).prop_map(|(name, since)| Wait::Signal { name, since }),
            (text(), option::of(text()), time()).prop_map(|(token, message, since)| Wait::Approval {
                token,
                message,
                since
            }),
            children,
        ]
    }

    fn signal() -> impl Strategy<Value = Signal> {
        (text(), option::of(text()), json(), time()).prop_map(|(name, id, data, at)| Signal {
            name,
            id,
            data,
            at,
        })
    }

    fn attempt() -> impl Strategy<Value = Attempt> {
        (task(), text(), option::of(text()), any::<u32>(), time()).prop_map(
            |(task_id, task_type, needs, number, ready_at)| Attempt {
                task_id,
                task_type,
                needs,
                number,
                ready_at,
            },
        )
    }

    fn job() -> impl Strategy<Value = Job> {
        let fixed = (any::<[u8; 16]>(), text(), text(), any::<u32>(), submission(), time());
        let standing = (text(), proptest::sample::select(JobStatus::ALL), json(), option::of(json()));
        let counts = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>());
        let times = (option::of(time()), time(), option::of(time()));
        let tasks = (option::of(error()), option::of(attempt()), option::of(task()));
        let waits = (option::of(wait()), option::of(text()), option::of(text()), option::of(text()));
        let kept = (option::of(json()), vec(signal(), 0..3), vec(text(), 0..3), option::of(json()));
        let key = (text(), any::<u64>()).prop_map(|(id, fingerprint)| RepairKey { id, fingerprint });
        let rest =
            (waits, kept, option::of(time()), (vec(key, 0..3), option::of(hold()), option::of(hold())));
        (fixed, standing, counts, times, tasks, rest).prop_map(
            |(fixed, standing, counts, times, tasks, rest)| Job {
                id: JobId::from_bytes(fixed.0),
                client: fixed.1,
                blueprint: fixed.2,
                blueprint_version: fixed.3,
                migrated: counts.0 % 2 == 0,
                submission: Arc::new(fixed.4),
                created_at: fixed.5,
                state: standing.0,
                status: standing.1,
                state_history: standing.2,
                result: standing.3,
                retry_count: counts.0,
                transitions: counts.1,
                workers_lost: counts.2,
                history_len: counts.3,
                resumes_at: times.0,
                updated_at: times.1,
                finished_at: times.2,
                error: tasks.0,
                attempt: tasks.1,
                settled_task: tasks.2,
                wait: rest.0.0,
                results: rest.0.1,
                outcome: rest.0.2,
                failed_state: rest.0.3,
                checkpoint: rest.1.0,
                signals: rest.1.1,
                signal_ids: rest.1.2,
                edited_data: rest.1.3,
                restarted_at: rest.2,
                repair_keys: rest.3.0,
                claim: rest.3.1,
                task_claim: rest.3.2,
            },
        )
    }

    fn entry() -> impl Strategy<Value = HistoryEntry> {
        let place = (any::<u64>(), time(), proptest::sample::select(HistoryEvent::ALL), text());
        let words = (option::of(text()), option::of(text()), option::of(text()));
        let task = (option::of(task()), option::of(any::<u32>()), option::of(error()), option::of(span()));
        let who = (option::of(text()), option::of(text()));
        (place, words, task, who).prop_map(|(place, words, task, who)| HistoryEntry {
            sequence: place.0,
            at: place.1,
            event: place.2,
            state: place.3,
            from_state: words.0,
            outcome: words.1,
            worker_id: words.2,
            task_id: task.0,
            attempt: task.1,
            error: task.2,
            duration: task.3,
            by: who.0,
            detail: who.1,
        })
    }

    fn session() -> impl Strategy<Value = SessionRecord> {
        let resources = btree_map(".{0,9}", -1e300..1e300_f64, 0..4);
        let words = (text(), text(), text(), text());
        (any::<u128>(), words, vec(text(), 0..4), any::<u32>(), labels(), resources, time()).prop_map(
            |(id, words, task_types, slots, labels, resources, opened_at)| SessionRecord {
                session_id: SessionId::from_random(id),
                worker: Arc::new(WorkerRecord {
                    worker_id: words.0,
                    worker_type: words.1,
                    hostname: words.2,
                    sdk_version: words.3,
                    software: BTreeMap::from([("ffmpeg".to_owned(), "6.1".to_owned())]),
                    models: BTreeMap::from([("sdxl".to_owned(), String::new())]),
                    terms: BTreeMap::from([("a".into(), Terms { limit: Some(3), cost: Some(0.5) })]),
                    task_types,
                    slots,
                    labels,
                    resources,
                }),
                credential: [9; 32],
                opened_at,
                reproach: (slots % 2 == 0).then_some(Reproach {
                    reputation: 0.25,
                    at: opened_at,
                    aside_until: (slots % 4 == 0).then_some(opened_at),
                    times_aside: slots,
                }),
            },
        )
    }

    fn job_records(job: &Job) -> (Vec<u8>, Vec<u8>) {
        let (mut submission, mut state) = (Vec::new(), Vec::new());
        encode_submission(job, None, &mut submission);
        encode_job(job, &mut state);
        (submission, state)
    }

    /// Whether these are the bytes that prost writes of what it reads in them.
    fn is_as_prost_writes<M: Message + Default>(kind: Kind, owner: &[u8], record: &[u8]) -> bool {
        let message: M = unseal(kind, owner, record).unwrap();
        let mut again = Vec::new();
        seal(kind, owner, &message, &mut again);
        record == again
    }

    proptest! {
        #[test]
        fn what_is_written_field_by_field_is_written_as_prost_does(
            job in job(), entries in proptest::collection::vec(entry(), 0..4), name in option::of(text()),
        ) {
            let (id, mut buffer) = (job.id.as_bytes(), Vec::new());
            encode_submission(&job, name.as_deref(), &mut buffer);
            prop_assert!(is_as_prost_writes::<StoredSubmission>(Kind::Submission, id, &buffer));
            encode_job(&job, &mut buffer);
            prop_assert!(is_as_prost_writes::<StoredJob>(Kind::Job, id, &buffer));
            encode_history(job.id, &entries, &mut buffer);
            prop_assert!(is_as_prost_writes::<StoredHistory>(Kind::History, id, &buffer));
            if let Some(stub) = Stub::of(&job) {
                encode_stub(&stub, &mut buffer);
                let owner = job.id.key().to_le_bytes();
                prop_assert!(is_as_prost_writes::<StoredStub>(Kind::Stub, &owner, &buffer));
            }
        }

        #[test]
        fn what_is_written_is_read(
            job in job(), entries in proptest::collection::vec(entry(), 0..4), session in session(), name in text(),
            version in any::<u32>(), definition in text(),
        ) {
            let (submission, state) = job_records(&job);
            let origin = decode_submission(job.id, &submission).unwrap();
            prop_assert_eq!(decode_name(job.id, &submission).unwrap(), None);
            prop_assert_eq!(&decode_job(job.id, origin, &state).unwrap(), &job);
            let standing = Standing::of(&job);
            prop_assert_eq!(decode_end(job.id, &state).unwrap(), (standing, job.finished_at));

            let mut buffer = vec![1, 2, 3];
            encode_submission(&job, Some(&name), &mut buffer);
            let origin = decode_submission(job.id, &buffer).unwrap();
            let named = Some((job.client.clone(), (*name).into()));
            prop_assert_eq!(decode_name(job.id, &buffer).unwrap(), named);
            prop_assert_eq!(&origin.submission, &job.submission);
            if let Some(stub) = Stub::of(&job) {
                encode_stub(&stub, &mut buffer);
                prop_assert_eq!(decode_stub(job.id.key(), &buffer, &mut |text| text.into()).unwrap(), stub);
            }

            encode_history(job.id, &entries, &mut buffer);
            prop_assert_eq!(decode_history(job.id, &buffer).unwrap(), entries);

            encode_session(&session, &mut buffer);
            prop_assert_eq!(decode_session(session.session_id, &buffer).unwrap(), session);

            let blueprint = BlueprintRecord { name: name.clone(), version, definition, is_put: version % 2 == 0 };
            encode_blueprint(&blueprint, &mut buffer);
            prop_assert_eq!(decode_blueprint(&name, &buffer).unwrap(), blueprint);

            let key = IdempotencyKey { client: name.clone(), key: job.client.clone(), fingerprint: [7; 32] };
            encode_idempotency(&key, job.id, &mut buffer);
            prop_assert_eq!(decode_idempotency(&name, &job.client, &buffer).unwrap(), (job.id, [7; 32]));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let job = Samples::new(1).job("acme");
            prop_assert!(decode_submission(job.id, &bytes).is_err());
            // Past the checksum too.
            let mut sealed = [&[FORMAT], bytes.as_slice()].concat();
            let checksum = checksum(Kind::History, job.id.as_bytes(), &sealed);
            sealed.extend(checksum.to_le_bytes());
            let _ = decode_history(job.id, &sealed);
            let mut sealed = [&[FORMAT], bytes.as_slice()].concat();
            let checksum = super::checksum(Kind::Stub, &7_i64.to_le_bytes(), &sealed);
            sealed.extend(checksum.to_le_bytes());
            let _ = decode_stub(7, &sealed, &mut |text| text.into());
        }
    }

    #[test]
    fn every_damaged_byte_and_every_cut_is_noticed() {
        let job = Samples::new(1).job("acme");
        let (submission, _) = job_records(&job);
        for at in 0..submission.len() {
            for bit in 0..8 {
                let mut damaged = submission.clone();
                damaged[at] ^= 1 << bit;
                assert!(decode_submission(job.id, &damaged).is_err(), "bit {bit} of byte {at}");
            }
            assert!(decode_submission(job.id, &submission[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_record_in_another_ones_place_is_noticed() {
        let mut samples = Samples::new(1);
        let (job, other) = (samples.job("acme"), samples.job("acme"));
        let (submission, state) = job_records(&job);
        assert!(decode_submission(other.id, &submission).is_err());
        assert!(decode_submission(job.id, &state).is_err());
    }

    #[test]
    fn a_format_of_the_future_is_named() {
        let job = Samples::new(1).job("acme");
        let mut record = vec![FORMAT + 1, 1, 2, 3];
        let checksum = checksum(Kind::Submission, job.id.as_bytes(), &record);
        record.extend(checksum.to_le_bytes());
        let damaged = decode_submission(job.id, &record).unwrap_err();
        assert_eq!(damaged.to_string(), "a record has the unknown format 2");
    }

    #[test]
    fn entries_of_any_length_are_written_as_prost_does() {
        let mut samples = Samples::new(1);
        let job = samples.job("acme");
        let entry = samples.entries(&job, 1..2).remove(0);
        let mut record = Vec::new();
        // Where the length of an entry, or of its text, gets another byte.
        for len in (0..300).chain(16_200..16_500).chain([3_000_000]) {
            let entry = HistoryEntry { detail: Some("x".repeat(len).into()), ..entry.clone() };
            encode_history(job.id, &[entry.clone(), entry], &mut record);
            assert!(is_as_prost_writes::<StoredHistory>(Kind::History, job.id.as_bytes(), &record), "{len}");
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    const RELEASED: [&str; 8] = [
        concat!(
            "010a0461636d651206726573697a65180220e987f9c0c1c482032a217b2022696e707574223a203131343235",
            "323133333135323533363932313738207d320d0a0670617269747912036f6464380140014802691b919c",
        ),
        concat!(
            "01080812056c617465721a247b20226761746865726564223a20313637353932353838313731303331323038",
            "3833207d22217b2022726573756c74223a2031313731343534373730333838323039323732207d2a1f0a0f54",
            "52414e5349454e545f4552524f52120cd0bfd0bed182d0bed0bc20003001380140024a2b0a10db5a50ad9af4",
            "42aea666a15fc9a3800a120c70726f636573735f64617461180120e987f9c0c1c4820350b1b3b6c1c1c48203",
            "5a10db5a50ad9af442aea666a15fc9a3800a600368f1aef9c0c1c4820370e987f9c0c1c48203f1c86aab",
        ),
        concat!(
            "010a5d080f10f1aef9c0c1c48203180322056c617465723207737563636573733a1039004a4e7e40462eb760",
            "b3f4039d819b40014a03772d31521f0a0f5452414e5349454e545f4552524f52120cd0bfd0bed182d0bed0bc",
            "200058e79bebdc030a3d081010f1aef9c0c1c48203180422056c617465722a066265666f7265521f0a0f5452",
            "414e5349454e545f4552524f52120cd0bfd0bed182d0bed0bc2000d66dc8e7",
        ),
        concat!(
            "01088080f9c0c1c482031203772d311a03677075220c70726f636573735f646174612206726573697a652808",
            "32090a047a6f6e651201613a120a077672616d5f67621100000000008037404204686f73744a05302e312e30",
            "5220030303030303030303030303030303030303030303030303030303030303030304a36e59",
        ),
        "01080312027b7d8f2a186d",
        concat!(
            "010a10018bcfe568017000bdf89c91819e557312200707070707070707070707070707070707070707070707",
            "0707070707070707078ac8548e",
        ),
        concat!(
            "010a0461636d651206726573697a65180220e987f9c0c1c482032a217b2022696e707574223a203131343235",
            "323133333135323533363932313738207d320d0a0670617269747912036f646438014001480252076f726465",
            "722d37d1c0ded6",
        ),
        concat!(
            "010a10018bcfe568017000bdf89c91819e55731008180320e987f9c0c1c482032a2b0a10db5a50ad9af442ae",
            "a666a15fc9a3800a120c70726f636573735f64617461180120e987f9c0c1c482039bd38091",
        ),
    ];

    /// These bytes are on people's disks: if this test fails, the change breaks every store there is.
    #[test]
    fn the_bytes_are_those_of_every_release() {
        let mut samples = Samples::new(1);
        let job = samples.job("acme");
        let full = Job {
            attempt: job.attempt.clone().map(|attempt| Attempt { needs: None, ..attempt }),
            finished_at: Some(job.updated_at),
            submission: Arc::new(Submission {
                dispatch_timeout: Some(Duration::from_nanos(1)),
                result_timeout: Some(Duration::from_nanos(2)),
                ..Submission::clone(&job.submission)
            }),
            ..samples.moved(&job, JobStatus::WaitingForTimer)
        };
        // What came later leaves no trace in a job that has nothing of it.
        let early = Job {
            results: None,
            outcome: None,
            failed_state: None,
            migrated: false,
            checkpoint: None,
            signals: Vec::new(),
            signal_ids: Vec::new(),
            repair_keys: Vec::new(),
            edited_data: None,
            restarted_at: None,
            wait: None,
            ..full.clone()
        };
        let (submission, state) = job_records(&early);
        let mut buffer = Vec::new();
        let mut lines = vec![hex(&submission), hex(&state)];
        let entries = samples.entries(&full, 15..17);
        let early = |entry| HistoryEntry { by: None, detail: None, ..entry };
        encode_history(full.id, &entries.into_iter().map(early).collect::<Vec<_>>(), &mut buffer);
        lines.push(hex(&buffer));
        encode_session(&samples.session(Duration::ZERO), &mut buffer);
        lines.push(hex(&buffer));
        let blueprint =
            BlueprintRecord { name: "test".into(), version: 3, definition: "{}".into(), is_put: false };
        encode_blueprint(&blueprint, &mut buffer);
        lines.push(hex(&buffer));
        let key = IdempotencyKey { client: "acme".into(), key: "order-7".into(), fingerprint: [7; 32] };
        encode_idempotency(&key, full.id, &mut buffer);
        lines.push(hex(&buffer));
        encode_submission(&full, Some("order-7"), &mut buffer);
        lines.push(hex(&buffer));
        let mut stub = Stub::of(&full).unwrap();
        stub.task.as_mut().unwrap().client = Arc::default();
        encode_stub(&stub, &mut buffer);
        lines.push(hex(&buffer));
        assert_eq!(lines, RELEASED);
    }
}
