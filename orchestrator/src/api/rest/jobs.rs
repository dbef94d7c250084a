//! `GET /api/jobs`, `GET /api/jobs/{id}` and what stands below it, `POST /api/jobs/{id}/cancel`.

use std::sync::Arc;

use avtomatika_proto::{ApiError, limits::REASON_CHARS_MAX};
use axum::response::Response;
use http::{Request, StatusCode, Uri};
use hyper::body::Incoming;
use serde::Deserialize;

use super::{
    body,
    document::{EntryDocument, HistoryDocument, JOB_FIELDS, JobDocument, JobsDocument},
    query,
};
use crate::api::{Inside, convert, reply, shown::Shown, submission};

pub(super) async fn get(
    inside: &Inside,
    client: &Arc<str>,
    id: &str,
    uri: &Uri,
) -> Result<Response, ApiError> {
    let id = convert::job_id(id)?;
    let fields = query::fields(uri, JOB_FIELDS)?;
    let view = inside.conductor.get(client, id).await?;
    let decisions = inside.conductor.decisions(&view.job);
    let shown = Shown::Owner { decisions: &decisions };
    Ok(reply::json(StatusCode::OK, &JobDocument { view: &view, shown, fields: fields.as_deref() }))
}

pub(super) async fn list(inside: &Inside, client: Arc<str>, uri: &Uri) -> Result<Response, ApiError> {
    let page = inside.conductor.list(query::list_query(uri, client)?).await?;
    let document = JobsDocument {
        jobs: page.jobs.iter().map(|view| JobDocument { view, shown: Shown::Listed, fields: None }).collect(),
        next_cursor: page.next_below_key.map(|key| convert::jobs_cursor_text(Some(key))),
    };
    Ok(reply::json(StatusCode::OK, &document))
}

pub(super) async fn history(
    inside: &Inside,
    client: &Arc<str>,
    id: &str,
    uri: &Uri,
) -> Result<Response, ApiError> {
    let id = convert::job_id(id)?;
    let (from, limit) = query::history_query(uri)?;
    // One entry further, to know whether there is another page.
    let entries = inside.conductor.history(client, id, from, limit + 1).await?;
    let (entries, next) = convert::history_page(entries, limit);
    let document = HistoryDocument {
        history: entries.iter().map(EntryDocument::of).collect(),
        next_cursor: next.map(|sequence| convert::history_cursor_text(Some(sequence))),
    };
    Ok(reply::json(StatusCode::OK, &document))
}

/// What a cancellation may say; the whole body may be left out.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelBody {
    reason: Option<String>,
}

/// A body that holds a reason of the largest size, every character escaped.
const CANCEL_BYTES_MAX: usize = REASON_CHARS_MAX * 12 + 1024;

pub(super) async fn cancel(
    inside: &Inside,
    client: &Arc<str>,
    id: &str,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let id = convert::job_id(id)?;
    query::none(request.uri())?;
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts, body, CANCEL_BYTES_MAX).await?;
    let CancelBody { reason } = body::object(&bytes)?;
    let reason = submission::reason(reason.as_deref().unwrap_or_default())?;
    let view = inside.conductor.cancel(client, id, reason).await?;
    Ok(reply::json(StatusCode::OK, &JobDocument { view: &view, shown: Shown::Alone, fields: None }))
}
