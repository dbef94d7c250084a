//! `POST /api/reload`: the blueprints are read again.

use avtomatika_proto::{ApiError, ErrorCode};
use axum::response::Response;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::{body, query};
use crate::{
    api::{Inside, reply},
    blueprint::{Change, Finding},
    reload::Reloaded,
};

/// What a request may say; the whole body may be left out.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReloadBody {
    #[serde(default)]
    dry_run: bool,
}

/// Far more than such a body has.
const BODY_BYTES_MAX: usize = 4096;

#[derive(Serialize)]
struct ReloadDocument<'a> {
    applied: bool,
    changes: Vec<ChangeDocument<'a>>,
    unchanged: usize,
    findings: Vec<FindingDocument<'a>>,
}

/// `version` is `null` when the blueprint is served no more, `previous_version` when it was not before.
#[derive(Serialize)]
pub(super) struct ChangeDocument<'a> {
    name: &'a str,
    version: Option<u32>,
    previous_version: Option<u32>,
}

#[derive(Serialize)]
pub(super) struct FindingDocument<'a> {
    severity: String,
    file: &'a str,
    line: usize,
    column: usize,
    what: &'a str,
    cure: &'a str,
}

/// An error with everything that is wrong.
#[derive(Serialize)]
struct RefusalDocument<'a> {
    #[serde(flatten)]
    error: reply::ErrorBody<'a>,
    findings: Vec<FindingDocument<'a>>,
}

pub(super) async fn reload(inside: &Inside, request: Request<Incoming>) -> Result<Response, ApiError> {
    query::none(request.uri())?;
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts, body, BODY_BYTES_MAX).await?;
    let ReloadBody { dry_run } = body::object(&bytes)?;
    Ok(match inside.reload.reload(dry_run).await? {
        Reloaded::Applied { changes, unchanged, warnings } => {
            let document = ReloadDocument {
                applied: !dry_run,
                changes: changes.iter().map(ChangeDocument::of).collect(),
                unchanged,
                findings: warnings.iter().map(FindingDocument::of).collect(),
            };
            reply::json(StatusCode::OK, &document)
        }
        Reloaded::Refused(findings) => {
            refused("The blueprints stay as they are, because of the findings", &findings)
        }
    })
}

/// An error, with all that is wrong.
pub(super) fn refused(what: &'static str, findings: &[Finding]) -> Response {
    let error = ApiError::new(ErrorCode::BlueprintsInvalid, what);
    let document = RefusalDocument {
        error: reply::ErrorBody::of(&error),
        findings: findings.iter().map(FindingDocument::of).collect(),
    };
    reply::json(reply::status(&error), &document)
}

impl<'a> ChangeDocument<'a> {
    pub(super) fn of(change: &'a Change) -> Self {
        Self { name: &change.name, version: change.after, previous_version: change.before }
    }
}

impl<'a> FindingDocument<'a> {
    pub(super) fn of(finding: &'a Finding) -> Self {
        Self {
            severity: finding.severity.to_string(),
            file: &finding.file,
            line: finding.at.line,
            column: finding.at.column,
            what: &finding.what,
            cure: &finding.cure,
        }
    }
}
