//! What the orchestrator runs and knows: workers, blueprints, counts, and the probes that ask for no token.

use std::sync::Arc;

use avtomatika_proto::{ApiError, ErrorCode};
use axum::{body::Body, response::Response};
use http::{
    HeaderValue, StatusCode, Uri,
    header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};
use serde::Serialize;

use super::{
    document::{BlueprintDocument, Dashboard, WorkerDocument},
    query,
    route::Probe,
    scrape,
};
use crate::{
    api::{Inside, Phase, convert, graph, reply, submission::quote},
    blueprint::Blueprint,
    graph::Format,
};

pub(super) async fn workers(inside: &Inside) -> Result<Response, ApiError> {
    let workers = inside.conductor.workers().await?;
    let document: Vec<WorkerDocument<'_>> = workers.iter().map(WorkerDocument::of).collect();
    Ok(reply::json(StatusCode::OK, &document))
}

pub(super) async fn restore_worker(inside: &Inside, worker_id: &str) -> Result<Response, ApiError> {
    let worker = inside.conductor.restore_worker(worker_id).await?;
    Ok(reply::json(StatusCode::OK, &WorkerDocument::of(&worker)))
}

pub(super) async fn drain_worker(inside: &Inside, worker_id: &str) -> Result<Response, ApiError> {
    let worker = inside.conductor.drain_worker(worker_id).await?;
    Ok(reply::json(StatusCode::OK, &WorkerDocument::of(&worker)))
}

pub(super) fn blueprints(inside: &Inside) -> Response {
    let blueprints = inside.conductor.blueprints();
    let document: Vec<BlueprintDocument<'_>> =
        blueprints.served().map(|blueprint| BlueprintDocument::short(blueprint)).collect();
    reply::json(StatusCode::OK, &document)
}

pub(super) fn blueprint(inside: &Inside, name: &str) -> Result<Response, ApiError> {
    Ok(reply::json(StatusCode::OK, &BlueprintDocument::whole(&*find(inside, name)?)))
}

pub(super) async fn blueprint_graph(inside: &Inside, name: &str, uri: &Uri) -> Result<Response, ApiError> {
    let format = query::graph_format(uri)?;
    Ok(picture(graph::of_blueprint(&*find(inside, name)?, format).await?, format))
}

pub(super) async fn job_graph(
    inside: &Inside,
    client: &Arc<str>,
    id: &str,
    uri: &Uri,
) -> Result<Response, ApiError> {
    let (id, format) = (convert::job_id(id)?, query::graph_format(uri)?);
    Ok(picture(graph::of_job(inside, client, id, format).await?, format))
}

/// A graph, with which a browser does nothing but show it.
fn picture(graph: String, format: Format) -> Response {
    let mut response = text(HeaderValue::from_static(format.media_type()), graph);
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

fn find(inside: &Inside, name: &str) -> Result<Arc<Blueprint>, ApiError> {
    let missing =
        || ApiError::new(ErrorCode::BlueprintNotFound, format!("Blueprint not found: {}", quote(name)));
    inside.conductor.blueprints().newest(name).cloned().ok_or_else(missing)
}

pub(super) async fn dashboard(inside: &Inside) -> Result<Response, ApiError> {
    let stats = inside.conductor.stats().await?;
    Ok(reply::json(StatusCode::OK, &Dashboard::of(&stats)))
}

#[derive(Serialize)]
struct StatusDocument {
    status: &'static str,
}

/// What answers without a token. (Approvals ask for one of their own: see `actions`.)
pub(super) async fn public(inside: &Inside, probe: Probe) -> Response {
    match probe {
        // The process answers, so it lives; what it can do is another question.
        Probe::Status | Probe::Live => ok("ok"),
        Probe::Ready => ready(inside.readiness.phase()),
        Probe::Metrics => scrape::page(inside).await,
    }
}

fn ready(phase: Phase) -> Response {
    let (code, message) = match phase {
        Phase::Ready => return ok("ready"),
        Phase::Starting => (ErrorCode::Overloaded, "The orchestrator is still recovering its jobs"),
        Phase::DiskFull => (ErrorCode::StorageFull, "The orchestrator's disk is full"),
        Phase::Draining => (ErrorCode::ShuttingDown, "The orchestrator is stopping"),
    };
    reply::error_with_status(&ApiError::new(code, message), StatusCode::SERVICE_UNAVAILABLE)
}

fn ok(status: &'static str) -> Response {
    reply::json(StatusCode::OK, &StatusDocument { status })
}

fn text(media_type: HeaderValue, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}
