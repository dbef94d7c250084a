//! `POST /api/jobs/{id}/signal` and its neighbours, `POST /api/jobs/repair`, and `POST /_public/webhooks/approval/{id}`: what
//! is done to jobs that are there.

use std::{collections::BTreeMap, sync::Arc};

use avtomatika_proto::{ApiError, ErrorCode, JobId, headers, limits::LABELS_MAX};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    body::{self, Object},
    document::JobDocument,
    query,
};
use crate::{
    api::{
        Inside,
        action::{Decider, RepairDraft, RetryDraft, RulingDraft, SignalDraft, SkipDraft},
        convert, reply,
        shown::Shown,
        submission::invalid,
    },
    conductor::{Admission, JobView, Repair, Repaired},
    store::ListQuery,
};

/// Largest body: two edits of the largest size, with room for the rest.
const BODY_BYTES_MAX: usize = 2 * body::ENVELOPE_BYTES_MAX;

type Text = Option<String>;
type Data<'a> = Option<&'a RawValue>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignalBody<'a> {
    name: Text,
    id: Text,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DecisionBody<'a> {
    decision: Text,
    comment: Text,
    by: Text,
    #[serde(borrow)]
    data: Data<'a>,
    token: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryBody<'a> {
    state: Text,
    #[serde(borrow)]
    initial_data: Data<'a>,
    #[serde(borrow)]
    initial_data_patch: Data<'a>,
    #[serde(borrow)]
    state_history_patch: Data<'a>,
    reason: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SkipBody<'a> {
    outcome: Text,
    #[serde(borrow)]
    data: Data<'a>,
    reason: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RepairBody<'a> {
    #[serde(default)]
    filter: Object<FilterBody>,
    #[serde(borrow)]
    retry: Option<Object<RetryBody<'a>>>,
    #[serde(borrow)]
    skip: Option<Object<SkipBody<'a>>>,
    #[serde(default)]
    dry_run: bool,
    limit: Option<u32>,
    cursor: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterBody {
    #[serde(default)]
    status: Vec<String>,
    blueprint: Text,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    created_after: Text,
    created_before: Text,
    failed_state: Text,
    error_code: Text,
}

fn text(text: &Text) -> &str {
    text.as_deref().unwrap_or_default()
}

fn data<'a>(data: Data<'a>) -> &'a str {
    data.map_or("", RawValue::get)
}

impl RetryBody<'_> {
    fn draft<'a>(&'a self, idempotency_key: &'a str) -> RetryDraft<'a> {
        RetryDraft {
            state: text(&self.state),
            initial_data: data(self.initial_data),
            initial_data_patch: data(self.initial_data_patch),
            state_history_patch: data(self.state_history_patch),
            reason: text(&self.reason),
            idempotency_key,
        }
    }
}

impl SkipBody<'_> {
    fn draft<'a>(&'a self, idempotency_key: &'a str) -> SkipDraft<'a> {
        let (outcome, reason) = (text(&self.outcome), text(&self.reason));
        SkipDraft { outcome, data: data(self.data), reason, idempotency_key }
    }
}

impl DecisionBody<'_> {
    fn draft<'a>(&'a self, otherwise: &'a str, token: &'a str) -> RulingDraft<'a> {
        RulingDraft {
            decision: self.decision.as_deref().unwrap_or(otherwise),
            comment: text(&self.comment),
            by: text(&self.by),
            data: data(self.data),
            token,
        }
    }
}

/// The whole body, and leave to look into it.
async fn whole(
    inside: &Inside,
    request: Request<Incoming>,
) -> Result<(HeaderMap, Bytes, Admission), ApiError> {
    let (parts, body) = request.into_parts();
    let (bytes, admission) = body::admitted(inside, &parts, body, BODY_BYTES_MAX).await?;
    Ok((parts.headers, bytes, admission))
}

fn job(view: &JobView) -> Response {
    reply::json(StatusCode::OK, &JobDocument { view, shown: Shown::Alone, fields: None })
}

/// What is to be done to one job, as it came.
struct Wanted {
    id: JobId,
    headers: HeaderMap,
    bytes: Bytes,
    admission: Admission,
}

impl Wanted {
    async fn of(inside: &Inside, id: &str, request: Request<Incoming>) -> Result<Self, ApiError> {
        let id = convert::job_id(id)?;
        query::none(request.uri())?;
        let (headers, bytes, admission) = whole(inside, request).await?;
        Ok(Self { id, headers, bytes, admission })
    }

    /// The key that makes it safe to repeat; empty without one.
    fn key(&self) -> Result<&str, ApiError> {
        Ok(query::idempotency_key(&self.headers)?.unwrap_or_default())
    }
}

pub(super) async fn signal(
    inside: &Inside,
    client: &Arc<str>,
    id: &str,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let wanted = Wanted::of(inside, id, request).await?;
    let body: SignalBody<'_> = body::object(&wanted.bytes)?;
    // The signal's own id says the same, and goes with it wherever it is sent.
    let id = body.id.as_deref().map_or_else(|| wanted.key(), Ok)?;
    let signal = SignalDraft { name: text(&body.name), id, data: data(body.data) }.check()?;
    Ok(job(&inside.conductor.signal(client, wanted.id, signal, wanted.admission).await?.view))
}

pub(super) async fn decide(
    inside: &Inside,
    client: &Arc<str>,
    id: &str,
    decision: Option<&'static str>,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let wanted = Wanted::of(inside, id, request).await?;
    let body: DecisionBody<'_> = body::object(&wanted.bytes)?;
    let draft = body.draft(decision.unwrap_or_default(), text(&body.token));
    let ruling = draft.check(Decider::Owner(client))?;
    Ok(job(&inside.conductor.approve(client, wanted.id, ruling, wanted.admission).await?))
}

#[derive(Serialize)]
struct ReceivedDocument {
    status: &'static str,
    job_id: String,
}

/// For whoever has the approval's token, or the owner's. What the Python system takes is taken here.
pub(super) async fn decide_publicly(
    inside: &Inside,
    owner: Option<&Arc<str>>,
    id: &str,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let in_url = query::token(request.uri())?;
    let (headers, bytes, admission) = whole(inside, request).await?;
    let body: DecisionBody<'_> = body::object(&bytes)?;
    let in_header = headers.get(headers::APPROVAL_TOKEN).and_then(|token| token.to_str().ok());
    let token = in_header.or(in_url.as_deref()).or(body.token.as_deref()).unwrap_or_default();
    let draft = body.draft("", token);
    let job_id = match (owner, token) {
        (Some(client), _) => {
            let ruling = draft.check(Decider::Owner(client))?;
            let id = convert::job_id(id)?;
            inside.conductor.approve(client, id, ruling, admission).await?.job.id
        }
        (None, "") => {
            let missing = ApiError::new(ErrorCode::MissingToken, "Missing approval token").with_hint(
                "Send the approval's token as \"token\" in the body, or in the X-Approval-Token header.",
            );
            return Err(missing);
        }
        (None, _) => {
            let ruling = draft.check(Decider::Holder)?;
            let id = convert::job_id(id)?;
            inside.conductor.approve_with_token(id, ruling, admission).await?.job.id
        }
    };
    let document = ReceivedDocument { status: "approval_received", job_id: job_id.to_string() };
    Ok(reply::json(StatusCode::OK, &document))
}

pub(super) async fn retry(
    inside: &Inside,
    client: &Arc<str>,
    id: &str,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let wanted = Wanted::of(inside, id, request).await?;
    let retry = body::object::<RetryBody<'_>>(&wanted.bytes)?.draft(wanted.key()?).check(client)?;
    Ok(job(&inside.conductor.retry(client, wanted.id, retry, wanted.admission).await?.view))
}

pub(super) async fn skip(
    inside: &Inside,
    client: &Arc<str>,
    id: &str,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let wanted = Wanted::of(inside, id, request).await?;
    let skip = body::object::<SkipBody<'_>>(&wanted.bytes)?.draft(wanted.key()?).check(client)?;
    Ok(job(&inside.conductor.skip(client, wanted.id, skip, wanted.admission).await?.view))
}

// ---- many jobs ----

#[derive(Serialize)]
struct RepairedDocument {
    count: usize,
    job_ids: Vec<String>,
    refused_count: usize,
    refusals: Vec<RefusalDocument>,
    next_cursor: Option<String>,
    stopped_by: Option<StoppedDocument>,
}

#[derive(Serialize)]
struct RefusalDocument {
    job_id: String,
    code: &'static str,
    error: String,
}

#[derive(Serialize)]
struct StoppedDocument {
    code: &'static str,
    error: String,
    hint: String,
}

impl RepairedDocument {
    fn of(done: Repaired) -> Self {
        let refusal = |(job_id, error): (JobId, ApiError)| RefusalDocument {
            job_id: job_id.to_string(),
            code: error.code.as_str(),
            error: error.message.into_owned(),
        };
        let stopped = |error: ApiError| StoppedDocument {
            code: error.code.as_str(),
            error: error.message.into_owned(),
            hint: error.hint.into_owned(),
        };
        Self {
            count: done.count,
            job_ids: done.job_ids.iter().map(ToString::to_string).collect(),
            refused_count: done.refused_count,
            refusals: done.refusals.into_iter().map(refusal).collect(),
            next_cursor: done.next_below_key.map(|key| convert::jobs_cursor_text(Some(key))),
            stopped_by: done.stopped_by.map(stopped),
        }
    }
}

pub(super) async fn repair(
    inside: &Inside,
    client: &Arc<str>,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    query::none(request.uri())?;
    let (_, bytes, _) = whole(inside, request).await?;
    let body: RepairBody<'_> = body::object(&bytes)?;
    let repair = match (&body.retry, &body.skip) {
        (Some(Object(retry)), None) => Repair::Retry(retry.draft("").check(client)?),
        (None, Some(Object(skip))) => Repair::Skip(skip.draft("").check(client)?),
        _ => {
            return Err(invalid("say either retry or skip".to_owned()).with_hint(
                "For example {\"filter\": {\"blueprint\": \"NAME\"}, \"retry\": {}, \"dry_run\": true}.",
            ));
        }
    };
    let draft = RepairDraft {
        jobs: list_query(client, &body)?,
        failed_state: text(&body.filter.0.failed_state),
        error_code: text(&body.filter.0.error_code),
        dry_run: body.dry_run,
    };
    let done = inside.conductor.repair(draft.check()?, repair).await?;
    Ok(reply::json(StatusCode::OK, &RepairedDocument::of(done)))
}

fn list_query(client: &Arc<str>, body: &RepairBody<'_>) -> Result<ListQuery, ApiError> {
    let Object(filter) = &body.filter;
    if filter.labels.len() > LABELS_MAX {
        return Err(invalid(format!("there are {} labels, the limit is {LABELS_MAX}", filter.labels.len())));
    }
    let time = |name, value: &Text| value.as_ref().map(|value| query::time(name, value)).transpose();
    Ok(ListQuery {
        client: client.clone(),
        statuses: filter.status.iter().map(|name| query::status(name)).collect::<Result<_, _>>()?,
        blueprint: filter.blueprint.as_deref().map(Arc::from),
        labels: filter.labels.clone(),
        created_from: time("created_after", &filter.created_after)?,
        created_before: time("created_before", &filter.created_before)?,
        below_key: convert::jobs_cursor(text(&body.cursor))?,
        limit: body.limit.unwrap_or_default() as usize,
    })
}
