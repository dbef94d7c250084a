//! `GET /api/jobs/{id}/events`: a job's changes as server-sent events. First the job as it is, then each change, and the end of
//! the stream after the job's own. Each event's data is the document of `GET /api/jobs/{id}`.

use std::time::Duration;

use avtomatika_proto::{ApiError, ErrorCode};
use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use serde::Serialize;

use super::document::JobDocument;
use crate::{
    api::{Inside, Readiness, auth::Caller, convert, reply, shown::Shown},
    conductor::Watch,
    trust::Standing,
};

/// Silence after which a comment is sent: proxies on the way close what says nothing for a minute.
const KEEPALIVE: Duration = Duration::from_secs(15);

pub(super) async fn follow(inside: &Inside, caller: &Caller, id: &str) -> Result<Response, ApiError> {
    let watch = inside.conductor.watch(&caller.client, convert::job_id(id)?).await?;
    let (readiness, standing) = (inside.readiness.clone(), caller.standing.clone());
    let events = stream::unfold(Some(Following { watch, readiness, standing }), async |following| {
        let (event, rest) = following?.next().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(event), rest))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A job that is followed, and what may end that before the job ends.
struct Following {
    watch: Watch,
    readiness: Readiness,
    standing: Standing,
}

impl Following {
    /// The next event, and what follows it.
    async fn next(mut self) -> Option<(Bytes, Option<Self>)> {
        let update = tokio::select! {
            biased;
            () = self.standing.withdrawn() => Err(Standing::farewell()),
            update = self.watch.next() => update?,
            () = self.readiness.draining() => Err(ApiError::new(ErrorCode::ShuttingDown, "The orchestrator is stopping")),
            () = tokio::time::sleep(KEEPALIVE) => {
                return Some((Bytes::from_static(b": still here\n\n"), Some(self)));
            }
        };
        match update {
            Ok(view) => {
                let event = event("job", &JobDocument { view: &view, shown: Shown::Alone, fields: None });
                Some((event, Some(self)))
            }
            Err(error) => Some((event("error", &reply::ErrorBody::of(&error)), None)),
        }
    }
}

fn event(name: &str, data: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(data).unwrap_or_else(|fault| {
        tracing::error!(%fault, "an event could not be written as JSON");
        "null".to_owned()
    });
    // A line break in stored JSON stands between its tokens; as a field of an event it would end the field.
    let data = data.replace(['\n', '\r'], " ");
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    #[test]
    fn an_event_is_one_field_of_one_line_whatever_the_data_looks_like() {
        let data: Box<RawValue> = serde_json::from_str("{\r\n \"a\": \"x\\ny\"\n}").unwrap();
        assert_eq!(event("job", &data), "event: job\ndata: {   \"a\": \"x\\ny\" }\n\n");
    }
}
