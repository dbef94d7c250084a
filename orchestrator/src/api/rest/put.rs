//! `PUT /api/blueprints/{name}`: one blueprint, without a file.

use avtomatika_proto::ApiError;
use axum::response::Response;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;

use super::{
    body, query,
    reload::{ChangeDocument, FindingDocument, refused},
};
use crate::{
    api::{Inside, reply, submission::invalid},
    blueprint::FILE_BYTES_MAX,
    reload::{Put, PutOutcome},
};

/// `version` and `previous_version` are the same when this definition was served already.
#[derive(Serialize)]
struct PutDocument<'a> {
    applied: bool,
    #[serde(flatten)]
    change: ChangeDocument<'a>,
    findings: Vec<FindingDocument<'a>>,
}

pub(super) async fn blueprint(
    inside: &Inside,
    name: &str,
    request: Request<Incoming>,
) -> Result<Response, ApiError> {
    let dry_run = query::dry_run(request.uri())?;
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts, body, FILE_BYTES_MAX).await?;
    let text = String::from_utf8(bytes.into()).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        invalid(format!("the definition is not UTF-8 at byte {place}"))
    })?;
    let put = Put { name: Some(name.to_owned()), file: name.to_owned(), text, dry_run };
    Ok(match inside.reload.put(put).await? {
        PutOutcome::Applied { change, warnings } => {
            let document = PutDocument {
                applied: !dry_run,
                change: ChangeDocument::of(&change),
                findings: warnings.iter().map(FindingDocument::of).collect(),
            };
            reply::json(StatusCode::OK, &document)
        }
        PutOutcome::Refused(findings) => {
            refused("The blueprint stays as it is, because of the findings", &findings)
        }
    })
}
