//! `POST /api/blueprints/{name}/migrate`: a client's jobs of one page move to another version.

use std::{collections::HashMap, sync::Arc};

use avtomatika_proto::{ApiError, v1};
use axum::response::Response;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::{body, query};
use crate::api::{Inside, convert, reply};

/// The fields of `MigrateJobsRequest`; the whole body may be left out.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MigrateBody {
    to_version: u32,
    from_version: u32,
    states: HashMap<String, String>,
    include_failed: bool,
    dry_run: bool,
    cursor: String,
}

/// Room for a map of every state that a blueprint may have.
const BODY_BYTES_MAX: usize = 256 * 1024;

#[derive(Serialize)]
struct PageDocument<'a> {
    to_version: u32,
    moves: Vec<MoveDocument<'a>>,
    next_cursor: Option<&'a str>,
}

/// `refused` and `why` are `null` for a job that moves.
#[derive(Serialize)]
struct MoveDocument<'a> {
    job_id: &'a str,
    version: u32,
    state: &'a str,
    to_state: &'a str,
    refused: Option<&'a str>,
    why: Option<&'a str>,
}

pub(super) async fn migrate(
    inside: &Inside,
    client: &Arc<str>,
    name: &str,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    query::none(request.uri())?;
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts, body, BODY_BYTES_MAX).await?;
    let MigrateBody { to_version, from_version, states, include_failed, dry_run, cursor } =
        body::object(&bytes)?;
    let blueprint = name.to_owned();
    let wire = v1::MigrateJobsRequest {
        blueprint,
        to_version,
        from_version,
        states,
        include_failed,
        dry_run,
        cursor,
    };
    let page = inside.conductor.migrate(client, convert::migration_request(wire)?).await?;
    let page = convert::migrated(&page);
    let document = PageDocument {
        to_version: page.to_version,
        moves: page.moves.iter().map(document_of).collect(),
        next_cursor: given(&page.next_cursor),
    };
    Ok(reply::json(StatusCode::OK, &document))
}

fn document_of(done: &v1::JobMove) -> MoveDocument<'_> {
    MoveDocument {
        job_id: &done.job_id,
        version: done.version,
        state: &done.state,
        to_state: &done.to_state,
        refused: given(&done.refused),
        why: given(&done.why),
    }
}

fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
